package run_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/storetest"
)

// toWatch is a run that waits for its owner.
func toWatch(t *testing.T) (*run.Service, *storetest.Memory, run.Run) {
	t.Helper()
	store := &storetest.Memory{}
	s := &run.Service{Store: store, Runs: none{}, Deliveries: none{}}
	r, err := s.Start(t.Context(), run.StartRequest{Deployment: crew.Deployment{
		ID: "d", WorkspaceID: "w", Environments: map[string]crew.Pointer{"production": {VersionID: "v", Number: 1}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return s, store, r
}

// drafted drafts an event.
func drafted(t *testing.T, eventType string) events.Draft {
	t.Helper()
	d, err := events.NewCustom("test."+eventType, nil, events.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAStepUnderWayIsToldWhenSomebodyWatches(t *testing.T) {
	const never = time.Duration(-1)
	tests := []struct {
		name  string
		comes time.Duration // after the step has begun
		says  time.Duration // when the step emits something of its own
		want  [][]string
	}{
		{"nobody watches", never, never, [][]string{{"test.opened", "test.closed"}}},
		{"somebody watches before it begins", 0, never, [][]string{{"test.opened"}, {"test.closed"}}},
		{"somebody comes in the middle of it", 10 * time.Second, never, [][]string{{"test.opened"}, {"test.closed"}}},
		{"somebody comes when it has said something that goes with its result", 10 * time.Second, 5 * time.Second,
			[][]string{{"test.opened", "test.said", "test.closed"}}},
		{"somebody watches all the time, and what it says goes with its result", 0, 5 * time.Second, [][]string{{"test.opened"}, {"test.said", "test.closed"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _, r := toWatch(t)
				watch := func() {
					if err := s.Watch(t.Context(), r.ID, false); err != nil {
						t.Error(err)
					}
				}
				if test.comes == 0 {
					watch()
				}
				o, err := s.Claim(t.Context(), r.ID)
				if err != nil {
					t.Fatal(err)
				}
				keeping, stop := context.WithCancel(t.Context())
				kept := make(chan struct{})
				go func() { defer close(kept); o.Keep(keeping, nil) }()
				if test.comes > 0 {
					time.AfterFunc(test.comes, watch)
				}
				_, err = o.Root().Step(o.Work(), run.Step{
					Key:  "step",
					Open: func(e *run.Emitter, _ int) { e.Emit(drafted(t, "opened"), run.Scope{}) },
					Do: func(ctx context.Context, e *run.Emitter, _ int) (any, error) {
						if test.says > 0 {
							time.AfterFunc(test.says, func() { e.Emit(drafted(t, "said"), run.Scope{}) })
						}
						<-time.After(20 * time.Second)
						e.Emit(drafted(t, "closed"), run.Scope{})
						return nil, nil
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				stop()
				<-kept
				pages, err := s.Pages(t.Context(), r.ID, 1, 0)
				if err != nil {
					t.Fatal(err)
				}
				var got [][]string
				for _, p := range pages {
					var types []string
					for _, e := range p.Events {
						types = append(types, e.Type)
					}
					got = append(got, types)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("the pages (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// looks counts how often the inbox is read.
type looks struct {
	*storetest.Memory
	n *int
}

func (l looks) Scan(ctx context.Context, q record.Scan) ([]record.Record, error) {
	if strings.HasPrefix(q.From, "RUN") {
		*l.n++
	}
	return l.Memory.Scan(ctx, q)
}

func TestHowOftenTheInboxIsRead(t *testing.T) {
	for _, test := range []struct {
		takes, comes, sees time.Duration // comes < 0: nobody does
		reads              int
	}{
		{5 * time.Second, -1, 0, 10},
		{30 * time.Second, -1, 0, 24},
		{10 * time.Minute, -1, 0, 214},
		{5 * time.Second, 10 * time.Millisecond, 500 * time.Millisecond, 2},
		{5 * time.Second, 2700 * time.Millisecond, 500 * time.Millisecond, 6},
		{5 * time.Second, 4490 * time.Millisecond, 500 * time.Millisecond, 9},
		{10 * time.Minute, 5 * time.Minute, 3 * time.Second, 214},
	} {
		t.Run(fmt.Sprint("a call of ", test.takes, " and somebody who comes after ", test.comes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, store, r := toWatch(t)
				o, err := s.Claim(t.Context(), r.ID)
				if err != nil {
					t.Fatal(err)
				}
				reads := 0
				s.Store = looks{store, &reads}
				ctx, stop := context.WithCancel(t.Context())
				kept := make(chan struct{})
				go func() { defer close(kept); o.Keep(ctx, nil) }()
				if test.comes >= 0 {
					time.AfterFunc(test.comes, func() {
						if err := s.Watch(t.Context(), r.ID, false); err != nil {
							t.Error(err)
						}
						<-time.After(test.sees)
						synctest.Wait()
						if _, err := s.Newest(t.Context(), r.ID); err != nil {
							t.Errorf("after %s it sees nothing: %v", test.sees, err)
						}
					})
				}
				_, err = o.Root().Step(o.Work(), run.Step{
					Key:  "step",
					Open: func(e *run.Emitter, _ int) { e.Emit(drafted(t, "opened"), run.Scope{}) },
					Do: func(context.Context, *run.Emitter, int) (any, error) {
						<-time.After(test.takes)
						synctest.Wait()
						return nil, nil
					},
				})
				stop()
				<-kept
				if err != nil || reads != test.reads {
					t.Errorf("the inbox was read %d times, want %d; %v", reads, test.reads, err)
				}
			})
		})
	}
}

// A watcher who is told while he is there comes at the worst moment: the owner has looked for him and found nobody, and puts
// the end page.
func TestWhoComesWhileTheEndIsPutIsToldOfIt(t *testing.T) {
	s, store, r := toWatch(t)
	there := false
	s.Watchers = func(context.Context, run.Run) (all []run.Target, err error) {
		if there {
			all = append(all, run.Target{ID: run.Channels, Kind: run.ChannelTarget, Realtime: true})
		}
		return all, nil
	}
	sent := &sentTo{}
	s.Deliveries = sent
	for _, chunks := range []bool{false, true} { // somebody has said so a moment before, who is none of those
		if err := s.Watch(t.Context(), r.ID, chunks); err != nil {
			t.Fatal(err)
		}
	}
	o, err := s.Claim(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	s.Store = meddled{store, func(rec record.Record) {
		if there || !strings.HasPrefix(rec.Sort, "P#") {
			return
		}
		there = true
		if err := s.Subscribed(t.Context(), r.ID); err != nil {
			t.Error(err)
		}
	}}
	if err := o.Fail(run.Outcome{State: run.Failed, Error: "It is over."}); err != nil {
		t.Fatal(err)
	}
	if len(sent.bodies) != 1 || !strings.Contains(sent.bodies[0], run.Channels) {
		t.Errorf("sent was %q", sent.bodies)
	}
}

// sentTo is a queue that keeps what is sent.
type sentTo struct{ bodies []string }

func (q *sentTo) Send(_ context.Context, messages ...queue.Message) error {
	for _, m := range messages {
		q.bodies = append(q.bodies, m.Body)
	}
	return nil
}

func TestWatchingCostsOneWriteInHalfItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, store, r := toWatch(t)
		before := len(store.Puts)
		for range 20 { // so many watch for ten minutes, and say so again as they should
			go func() {
				for range 20 {
					if err := s.Watch(t.Context(), r.ID, false); err != nil {
						t.Error(err)
					}
					<-time.After(run.WatchTime / 2)
				}
			}()
			<-time.After(time.Second)
		}
		<-time.After(10 * time.Minute)
		if n := len(store.Puts) - before; n < 9 || n > 21 {
			t.Errorf("20 watchers in ten minutes wrote %d times", n)
		}
		if r, err := s.Stop(t.Context(), r.ID); err != nil || r.State != run.Canceled {
			t.Fatal(r.State, err)
		}
		before = len(store.Puts)
		if err := s.Watch(t.Context(), r.ID, true); err != nil || len(store.Puts) != before {
			t.Errorf("watching a run that is over: %v, and %d writes", err, len(store.Puts)-before)
		}
	})
}

func TestAChunkIsOnlyForWhoeverAsksForIt(t *testing.T) {
	s, _, r := toWatch(t)
	for _, test := range []struct{ asks, wants bool }{{false, false}, {true, true}} {
		if err := s.Watch(t.Context(), r.ID, test.asks); err != nil {
			t.Fatal(err)
		}
		o, err := s.Claim(t.Context(), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got := o.Root().Wants("llm_stream_chunk"); got != test.wants {
			t.Errorf("asked for chunks: %v, told: %v", test.asks, got)
		}
		if !o.Root().Wants("task_started") {
			t.Error("whoever watches wants everything else")
		}
		if err := o.Release(time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPageAfter(t *testing.T) {
	s, _, r := toWatch(t)
	first, err := s.PageAfter(t.Context(), r.ID, 0)
	if err != nil || first != 1 {
		t.Errorf("an empty journal begins at page %d, %v", first, err)
	}
	if _, err := s.PageAfter(t.Context(), r.ID, 1); !fault.Is(err, fault.Invalid) {
		t.Errorf("a position in an empty journal: %v", err)
	}
	o, err := s.Claim(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	b := o.Root()
	n := int64(0)
	for page := range 20 {
		for range page % 4 {
			b.Emit(drafted(t, "event"), run.Scope{})
			n++
		}
		_, err := b.Step(t.Context(), run.Step{Key: fmt.Sprint(page), Do: func(context.Context, *run.Emitter, int) (any, error) { return nil, nil }})
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(last int64) {
		t.Helper()
		for _, wrong := range []int64{-1, last + 1} {
			if _, err := s.PageAfter(t.Context(), r.ID, wrong); !fault.Is(err, fault.Invalid) {
				t.Errorf("position %d: %v", wrong, err)
			}
		}
		for after := range last + 1 {
			seq, err := s.PageAfter(t.Context(), r.ID, after)
			if err != nil {
				t.Fatal(err)
			}
			pages, err := s.Pages(t.Context(), r.ID, 1, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range pages {
				for _, e := range p.Events {
					if e.N > after && p.Seq < seq {
						t.Errorf("after event %d one begins at page %d, and event %d is on page %d", after, seq, e.N, p.Seq)
					}
				}
				if p.Totals.Events < min(after, n) && p.Seq >= seq {
					t.Errorf("after event %d one begins at page %d, and on page %d there are %d", after, seq, p.Seq, p.Totals.Events)
				}
			}
		}
	}
	check(n)
	if err := o.Fail(run.Outcome{State: run.Failed, Error: "It is over."}); err != nil {
		t.Fatal(err)
	}
	check(n + 2) // one event of the end, and the end itself
}
