package watch_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/mean"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/storetest"
	"muster/shared/watch"
)

type nowhere struct{}

func (nowhere) Send(context.Context, ...queue.Message) error { return nil }

// counted counts the scans of a store.
type counted struct {
	storetest.Memory
	scans atomic.Int64
}

func (c *counted) Scan(ctx context.Context, s record.Scan) ([]record.Record, error) {
	c.scans.Add(1)
	return c.Memory.Scan(ctx, s)
}

// journal is a run whose pages a test puts.
type journal struct {
	t     *testing.T
	store *counted
	runs  *run.Service
	id    string
	owner *run.Owner
	root  *run.Branch
	pages int
}

func newJournal(t *testing.T) *journal {
	t.Helper()
	j := &journal{t: t, store: &counted{}}
	j.runs = &run.Service{Store: j.store, Runs: nowhere{}, Deliveries: nowhere{}, LeaseTime: 24 * time.Hour}
	r, err := j.runs.Start(t.Context(), run.StartRequest{Deployment: crew.Deployment{
		ID: "d", WorkspaceID: "w", Environments: map[string]crew.Pointer{"production": {VersionID: "v", Number: 1}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if j.owner, err = j.runs.Claim(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	j.id, j.root = r.ID, j.owner.Root()
	return j
}

// put puts a page with so many events, which may be none.
func (j *journal) put(count int) {
	j.t.Helper()
	for range count {
		d, err := events.NewCustom("test.event", nil, events.Identity{})
		if err != nil {
			j.t.Error(err)
			return
		}
		j.root.Emit(d, run.Scope{})
	}
	j.pages++
	_, err := j.root.Step(j.t.Context(), run.Step{Key: fmt.Sprint(j.pages), Do: func(context.Context, *run.Emitter, int) (any, error) { return nil, nil }})
	if err != nil {
		j.t.Error(err)
	}
}

func (j *journal) end() {
	j.t.Helper()
	if err := j.owner.Fail(run.Outcome{State: run.Failed, Error: "It is over."}); err != nil {
		j.t.Fatal(err)
	}
}

// read reads until the end, or until so many parts came, from a position, and gives the numbers of the events and the position.
func read(t *testing.T, f *watch.Feed, id string, after int64, parts int) (seen []int64, position int64, ended bool) {
	t.Helper()
	w, err := f.Watch(t.Context(), id, after, false)
	if err != nil {
		t.Error(err)
		return nil, after, true
	}
	defer w.Close()
	for range parts {
		p, ok, err := w.Next(t.Context(), time.Hour)
		if err != nil || !ok {
			t.Errorf("the next part: %v, %v", ok, err)
			return seen, w.Position(), true
		}
		for _, e := range p.Events {
			seen = append(seen, e.N)
		}
		if p.Ends() {
			return seen, w.Position(), true
		}
	}
	return seen, w.Position(), false
}

// dense wants every number once and in order, and the end one further.
func dense(t *testing.T, who string, seen []int64, position, last int64) {
	t.Helper()
	for i, n := range seen {
		if n != int64(i+1) {
			t.Errorf("%s had event %d as its %d.", who, n, i+1)
			return
		}
	}
	if int64(len(seen)) != last || position != last+1 {
		t.Errorf("%s had %d events and came to %d, want %d", who, len(seen), position, last)
	}
}

func TestEverybodySeesEverythingOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal(t)
		f := &watch.Feed{Runs: j.runs}
		var all sync.WaitGroup
		for who := range 8 {
			all.Go(func() {
				<-time.After(time.Duration(who) * 700 * time.Millisecond)
				var seen []int64
				position, ended := int64(0), false
				for !ended {
					var some []int64
					some, position, ended = read(t, f, j.id, position, 1+rand.IntN(5))
					seen = append(seen, some...)
				}
				last := int64(0)
				pages, err := j.runs.Pages(t.Context(), j.id, 1, 0)
				if err != nil {
					t.Error(err)
				}
				for _, p := range pages {
					last += int64(len(p.Events))
				}
				dense(t, fmt.Sprintf("watcher %d", who), seen, position, last)
			})
		}
		for range 50 {
			<-time.After(time.Duration(rand.IntN(400)) * time.Millisecond)
			j.put(rand.IntN(4))
		}
		j.end()
		all.Wait()
	})
}

func TestADoubtfulStoreCostsNoEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal(t)
		for range 50 {
			j.put(2)
		}
		j.end()
		bad := mean.New(3)
		bad.Odds = mean.Odds{Fail: 0.5}
		f := &watch.Feed{Runs: &run.Service{Store: bad.Store(j.store), Runs: nowhere{}, Deliveries: nowhere{}}}
		var seen []int64
		position := int64(0)
		for range 1000 {
			w, err := f.Watch(t.Context(), j.id, position, false)
			if err != nil {
				continue
			}
			for {
				p, ok, err := w.Next(t.Context(), time.Hour)
				if err != nil || !ok {
					break
				}
				for _, e := range p.Events {
					seen = append(seen, e.N)
				}
				position = p.Position
			}
			w.Close()
			if position == 102 {
				break
			}
		}
		dense(t, "the watcher", seen, position, 101)
	})
}

func TestWhoWaitsIsToldWithinAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal(t)
		f := &watch.Feed{Runs: j.runs, Pause: 100 * time.Millisecond}
		w, err := f.Watch(t.Context(), j.id, 0, false)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if _, ok, err := w.Next(t.Context(), 0); ok || err != nil {
			t.Errorf("of an empty journal: %v, %v", ok, err)
		}
		if _, ok, err := w.Next(t.Context(), time.Minute); ok || err != nil {
			t.Errorf("of an empty journal, after a minute: %v, %v", ok, err)
		}
		began := time.Now()
		go j.put(1)
		if p, ok, err := w.Next(t.Context(), time.Minute); !ok || err != nil || len(p.Events) != 1 || time.Since(began) > f.Pause {
			t.Errorf("%+v, %v, %v after %s", p, ok, err, time.Since(began))
		}
		r, err := j.runs.Get(t.Context(), j.id)
		if err != nil || !r.WatchedUntil.After(time.Now()) || !r.ChunksUntil.IsZero() {
			t.Errorf("the run is watched until %s, chunks until %s, %v", r.WatchedUntil, r.ChunksUntil, err)
		}
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		if _, ok, err := w.Next(ctx, time.Minute); ok || !errors.Is(err, context.Canceled) {
			t.Errorf("whoever leaves: %v, %v", ok, err)
		}
	})
}

func TestManyWatchersShareOneLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := func(watchers int) int64 {
			j := newJournal(t)
			f := &watch.Feed{Runs: j.runs}
			var all sync.WaitGroup
			for range watchers {
				all.Go(func() { read(t, f, j.id, 0, 1000) })
			}
			synctest.Wait()
			before := j.store.scans.Load()
			for range 60 {
				<-time.After(time.Second)
				j.put(1)
			}
			reads := j.store.scans.Load() - before
			j.end()
			all.Wait()
			return reads
		}
		one, many := looks(1), looks(30)
		if one < 60 || one > 300 || many > one+30 {
			t.Errorf("in a minute one watcher reads %d times, thirty %d times", one, many)
		}
	})
}

func TestAQuietMinuteIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal(t)
		f := &watch.Feed{Runs: j.runs}
		w, err := f.Watch(t.Context(), j.id, 0, false)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		scans, puts := j.store.scans.Load(), len(j.store.Puts)
		if _, ok, err := w.Next(t.Context(), time.Minute); ok || err != nil {
			t.Fatal(ok, err)
		}
		synctest.Wait()
		if scans, puts := j.store.scans.Load()-scans, len(j.store.Puts)-puts; scans > 105 || puts > 2 {
			t.Errorf("a minute in which nothing happens costs %d reads and %d writes", scans, puts)
		}
	})
}

func TestNobodyLooksWhereNobodyWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
		j := newJournal(t)
		f := &watch.Feed{Runs: j.runs}
		for range 3 {
			w, err := f.Watch(t.Context(), j.id, 0, true)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := w.Next(t.Context(), time.Second); err != nil {
				t.Fatal(err)
			}
			defer w.Close()
		}
	})
}

func TestTheEndIsOncePerWatcher(t *testing.T) {
	j := newJournal(t)
	j.put(3)
	j.end()
	f := &watch.Feed{Runs: j.runs}
	seen, position, ended := read(t, f, j.id, 0, 100)
	if !ended {
		t.Fatal("it did not end")
	}
	dense(t, "the watcher", seen, position, 4)
	for _, after := range []int64{4, 5} {
		w, err := f.Watch(t.Context(), j.id, after, false)
		if err != nil {
			t.Fatal(err)
		}
		p, ok, err := w.Next(t.Context(), 0)
		if after == 4 && (err != nil || !ok || !p.Ends() || len(p.Events) > 0) {
			t.Errorf("after the last event comes %+v, %v, %v", p, ok, err)
		}
		if after == 5 && !errors.Is(err, watch.ErrOver) {
			t.Errorf("after the end comes %+v, %v, %v", p, ok, err)
		}
		w.Close()
	}
	if _, err := f.Watch(t.Context(), j.id, 6, false); !fault.Is(err, fault.Invalid) {
		t.Errorf("a position behind the end: %v", err)
	}
}

func TestARunThatIsWithdrawnEndsForItsWatchersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := &run.Service{Store: &storetest.Memory{}, Runs: nowhere{}, Deliveries: nowhere{}}
		r, err := runs.Start(t.Context(), run.StartRequest{Deployment: crew.Deployment{
			ID: "d", WorkspaceID: "w", Environments: map[string]crew.Pointer{"production": {VersionID: "v", Number: 1}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		f := &watch.Feed{Runs: runs}
		ends := func(after int64) {
			t.Helper()
			w, err := f.Watch(t.Context(), r.ID, after, false)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			p, ok, err := w.Next(t.Context(), time.Hour)
			if err != nil || !ok || !p.Ends() || p.Position != 1 || len(p.Events) > 0 || p.Page.Outcome.State != run.Canceled || p.Page.Outcome.Error != "Nobody began it." {
				t.Errorf("it is told %+v, %v, %v", p, ok, err)
			}
			if _, _, err := w.Next(t.Context(), time.Hour); !errors.Is(err, watch.ErrOver) {
				t.Errorf("after the end: %v", err)
			}
		}
		began := time.Now()
		time.AfterFunc(10*time.Second, func() {
			if _, err := runs.Withdraw(t.Context(), r.ID, "Nobody began it."); err != nil {
				t.Error(err)
			}
		})
		ends(0)
		if took := time.Since(began); took > 11*time.Second {
			t.Errorf("it was told after %s", took-10*time.Second)
		}
		ends(0) // long after
		w, err := f.Watch(t.Context(), r.ID, 1, false)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if _, _, err := w.Next(t.Context(), 0); !errors.Is(err, watch.ErrOver) {
			t.Errorf("whoever has the end: %v", err)
		}
		if _, err := f.Watch(t.Context(), r.ID, 2, false); !fault.Is(err, fault.Invalid) {
			t.Errorf("a position after the end: %v", err)
		}
	})
}
