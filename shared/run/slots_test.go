package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/storetest"
)

func (s *stage) limited(t crew.Traffic) run.StartRequest {
	q := s.request()
	q.Deployment.Traffic = t
	return q
}

// knocked gives the runs that a message was sent for since it was asked last.
func (s *stage) knocked() (runs []string) {
	for _, m := range s.sent {
		var k run.RunMessage
		if err := json.Unmarshal([]byte(m.Body), &k); err != nil {
			s.t.Fatal(err)
		}
		runs = append(runs, k.Run)
	}
	s.sent = nil
	return runs
}

func (s *stage) end(o *run.Owner) {
	s.t.Helper()
	if err := o.End(run.Outcome{State: run.Succeeded}, o.Root()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) want(what string, got, want any) {
	s.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestRunsTakeTurnsInTheirOrder(t *testing.T) {
	s := newStage(t)
	q := s.limited(crew.Traffic{MaxConcurrentRuns: 2})
	var ids []string
	for range 5 {
		ids = append(ids, s.start(q).ID)
	}
	s.want("the first two are knocked for", s.knocked(), ids[:2])
	one, two := s.claim(ids[0]), s.claim(ids[1])
	if _, err := s.Claim(t.Context(), ids[2]); !errors.Is(err, run.ErrNothing) {
		t.Errorf("a run without a slot: %v, want ErrNothing", err)
	}
	s.end(two)
	s.want("who leaves knocks for the next", s.knocked(), ids[2:3])
	three := s.claim(ids[2])

	if _, err := s.Stop(t.Context(), ids[3]); err != nil {
		t.Fatal(err)
	}
	s.want("who had no slot leaves none", s.knocked(), []string(nil))
	s.end(one)
	s.want("one that was stopped is passed over", s.knocked(), ids[4:])
	s.end(three)
	s.end(s.claim(ids[4]))
	s.want("nobody is left", s.knocked(), []string(nil))
}

func TestALargerLimitWakesWhoWaits(t *testing.T) {
	s := newStage(t)
	q := s.limited(crew.Traffic{MaxConcurrentRuns: 1})
	ids := []string{s.start(q).ID, s.start(q).ID, s.start(q).ID}
	s.knocked()
	q.Deployment.Traffic.MaxConcurrentRuns = 2
	if err := s.Resize(t.Context(), q.Deployment); err != nil {
		t.Fatal(err)
	}
	s.want("two may", s.knocked(), ids[1:2])
	q.Deployment.Traffic.MaxConcurrentRuns = 0
	if err := s.Resize(t.Context(), q.Deployment); err != nil {
		t.Fatal(err)
	}
	s.want("all may", s.knocked(), ids[2:])
	for _, runID := range ids {
		s.end(s.claim(runID))
	}
}

func TestAFullDeploymentOrWorkspaceMayRefuse(t *testing.T) {
	for _, c := range []struct {
		name           string
		own, workspace crew.Traffic
	}{
		{"the deployment", crew.Traffic{MaxConcurrentRuns: 1, WhenFull: crew.Reject}, crew.Traffic{}},
		{"the workspace", crew.Traffic{}, crew.Traffic{MaxConcurrentRuns: 1, WhenFull: crew.Reject}},
		{"the workspace of a deployment with slots", crew.Traffic{MaxConcurrentRuns: 5}, crew.Traffic{MaxConcurrentRuns: 1, WhenFull: crew.Reject}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			s.Traffic = c.workspace
			q := s.limited(c.own)
			first := s.start(q)
			for range 3 {
				_, err := s.Start(t.Context(), q)
				var f *fault.Error
				if !errors.As(err, &f) || f.Kind != fault.TooMany || f.RetryAfter <= 0 {
					t.Fatalf("got %v, want too_many with a time to come again", err)
				}
			}
			s.end(s.claim(first.ID))
			s.end(s.claim(s.start(q).ID))
		})
	}
}

func TestARunThatWaitsForAPersonHasNoSlot(t *testing.T) {
	s := newStage(t)
	q := s.limited(crew.Traffic{MaxConcurrentRuns: 1})
	asks, next := s.start(q).ID, s.start(q).ID
	s.knocked()
	o := s.claim(asks)
	if _, err := o.Root().Ask(t.Context(), run.Asking{Key: "q"}); !errors.Is(err, run.ErrWaiting) {
		t.Fatal(err)
	}
	if waits, err := o.Wait(); err != nil || !waits {
		t.Fatal(waits, err)
	}
	s.want("its slot goes to the next", s.knocked(), []string{next})
	holds := s.claim(next)
	if err := s.Answer(t.Context(), run.QuestionID(asks, "q"), run.Reply{Approve: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(t.Context(), asks); !errors.Is(err, run.ErrNothing) {
		t.Errorf("answered, without a slot: %v, want ErrNothing", err)
	}
	s.knocked()
	s.end(holds)
	s.want("it gets the slot back in its turn", s.knocked(), []string{asks})
	s.end(s.claim(asks))
}

func TestASlotOfARunThatNeverCameToBeIsFound(t *testing.T) {
	s := newStage(t)
	q := s.limited(crew.Traffic{MaxConcurrentRuns: 1, WhenFull: crew.Reject})
	ctx, die := context.WithCancel(t.Context())
	broken := &run.Service{Store: noRuns{s.Store, die}, Runs: s, Deliveries: s, Now: s.Now}
	if _, err := broken.Start(ctx, q); err == nil {
		t.Fatal("a run without an item was accepted")
	}
	if _, err := s.Start(t.Context(), q); !fault.Is(err, fault.TooMany) {
		t.Fatalf("while the run may still come to be: %v, want too_many", err)
	}
	s.clock = s.clock.Add(2 * time.Minute)
	s.end(s.claim(s.start(q).ID))
}

// noRuns is a store whose user dies when it puts a run item.
type noRuns struct {
	record.Store
	die context.CancelFunc
}

func (n noRuns) Put(ctx context.Context, r record.Record) (int64, error) {
	if r.Sort == "RUN" {
		n.die()
		return 0, errLostAnswer
	}
	return n.Store.Put(ctx, r)
}

// A list is one record, and due as long as runs wait in it; they themselves need not be.
func TestAKnockThatWasLostIsSentAgainByTheNextTick(t *testing.T) {
	s := newStage(t)
	q := s.limited(crew.Traffic{MaxConcurrentRuns: 1})
	part := "S#d/" + q.Deployment.ID
	due := func() time.Time {
		t.Helper()
		list, err := s.Store.Get(t.Context(), record.Key{Part: part, Sort: "SLOTS"})
		if err != nil {
			t.Fatal(err)
		}
		return list.Due
	}
	tick := func() []string {
		t.Helper()
		s.clock = s.clock.Add(time.Minute)
		if err := s.WakeSlots(t.Context(), part); err != nil {
			t.Fatal(err)
		}
		return s.knocked()
	}
	first := s.start(q)
	s.want("nobody waits, and nobody is looked after", due(), time.Time{})
	second := s.start(q)
	one := s.claim(first.ID)
	s.knocked()
	s.want("the first is at work, and the second waits", tick(), []string(nil))
	if due().IsZero() {
		t.Error("somebody waits, and nobody will look")
	}
	s.end(one)
	s.knocked() // whoever ended it died here
	s.want("the knock is sent again", tick(), []string{second.ID})
	s.want("and again, until it is heard", tick(), []string{second.ID})
	two := s.claim(second.ID)
	s.want("whoever has begun needs none", tick(), []string(nil))
	s.want("and nobody waits", due(), time.Time{})
	s.end(two)
}

func TestARunThatIsStoppedBeforeItBeganWasNeverStarted(t *testing.T) {
	s := newStage(t)
	r := s.start(s.request())
	stopped, err := s.Stop(t.Context(), r.ID)
	if err != nil || stopped.State != run.Canceled || !stopped.StartedAt.IsZero() || stopped.EndedAt.IsZero() {
		t.Errorf("it is %s, started at %s and ended at %s, %v", stopped.State, stopped.StartedAt, stopped.EndedAt, err)
	}
	begun, err := s.AwaitStart(t.Context(), r.ID, s.clock.Add(time.Hour))
	if err != nil || begun.State != run.Canceled {
		t.Errorf("who waits for it to begin is told %s, %v", begun.State, err)
	}
}

func TestTheNextRunDoesNotSeemToBeginBeforeTheOneBeforeWasOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{t: t}
		s.Service = &run.Service{Store: &storetest.Memory{}, Runs: s, Deliveries: s}
		q := s.limited(crew.Traffic{MaxConcurrentRuns: 1})
		first, second := s.start(q), s.start(q)
		o := s.claim(first.ID)
		b := o.Root()
		for range 20 { // a millisecond each
			d, err := events.NewCustom("order.seen", json.RawMessage(`{}`), events.Identity{})
			if err != nil {
				t.Fatal(err)
			}
			b.Emit(d, run.Scope{})
		}
		if err := o.End(run.Outcome{State: run.Succeeded}, b); err != nil {
			t.Fatal(err)
		}
		ended, started := o.Run().EndedAt, s.claim(second.ID).Run().StartedAt
		if started.Before(ended) {
			t.Errorf("the second began at %s, and the first ended at %s", started.Format(events.TimeFormat), ended.Format(events.TimeFormat))
		}
	})
}

func TestWithoutLimitsNothingIsReadOrWritten(t *testing.T) {
	s := newStage(t)
	counted := &counting{Store: s.Store}
	s.Store = counted
	s.end(s.claim(s.start(s.request()).ID))
	for _, part := range counted.parts {
		if strings.HasPrefix(part, "S#") {
			t.Errorf("%s was asked for", part)
		}
	}
}

type counting struct {
	record.Store
	parts []string
}

func (c *counting) Get(ctx context.Context, k record.Key) (record.Record, error) {
	c.parts = append(c.parts, k.Part)
	return c.Store.Get(ctx, k)
}

func (c *counting) Put(ctx context.Context, r record.Record) (int64, error) {
	c.parts = append(c.parts, r.Part)
	return c.Store.Put(ctx, r)
}

func TestKickoffsOfAMinute(t *testing.T) {
	s := newStage(t)
	s.Traffic.MaxKickoffsPerMinute = 3
	s.clock = s.clock.Add(15 * time.Second)
	q := s.limited(crew.Traffic{MaxKickoffsPerMinute: 2})
	reset := 45 * time.Second
	for _, left := range []int{1, 0} {
		s.want("the tighter rate is told", s.start(q).Rate, &run.Rate{Limit: 2, Remaining: left, Reset: reset})
	}
	refused, err := s.Start(t.Context(), q)
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != fault.TooMany || f.RetryAfter != reset {
		t.Fatalf("got %v, want too_many", err)
	}
	s.want("also when it is refused", refused.Rate, &run.Rate{Limit: 2, Remaining: 0, Reset: reset})

	other := s.request()
	other.Deployment.ID = "01a20000-0000-7000-8000-000000000009"
	s.want("another deployment has what its workspace has left", s.start(other).Rate, &run.Rate{Limit: 3, Remaining: 0, Reset: reset})
	if _, err := s.Start(t.Context(), other); !fault.Is(err, fault.TooMany) {
		t.Errorf("got %v, want too_many", err)
	}
	s.clock = s.clock.Add(reset)
	s.want("the next minute", s.start(q).Rate, &run.Rate{Limit: 2, Remaining: 1, Reset: time.Minute})

	again := q
	again.IdempotencyKey = "k"
	first := s.start(again)
	if second := s.start(again); second.ID != first.ID || second.Rate != nil {
		t.Errorf("a repeated kickoff is counted: %+v", second.Rate)
	}
}

// TestNoInterleavingLeaksASlot plays kickoffs, runners, zombies, answers, stops and the sweeper against each other where
// few runs may be under way, with the faults of the world.
func TestNoInterleavingLeaksASlot(t *testing.T) {
	e := newElsewhere(t)
	for seed := range 40 {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { playSlots(t, e.memory(), e, uint64(seed)) }) {
			return
		}
	}
}

func playSlots(t *testing.T, real record.Store, e *elsewhere, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{schedule: schedule{order: 1}, rnd: rand.New(rand.NewPCG(seed, 11)), store: e, real: real, sent: map[string]int{}}
		faults := w.rnd.IntN(10)
		rarity := []int{12, 40, 100}[w.rnd.IntN(3)]
		defer func() {
			if t.Failed() {
				t.Logf("seed %d:\n%s", seed, strings.Join(w.log, "\n"))
			}
		}()
		q := run.StartRequest{Deployment: crew.Deployment{
			ID: fmt.Sprint("d", seed), WorkspaceID: fmt.Sprint("w", seed), Traffic: crew.Traffic{MaxConcurrentRuns: 1 + w.rnd.IntN(3)},
			Environments: map[string]crew.Pointer{"production": {VersionID: "v", Number: 1}},
		}}
		most := q.Deployment.Traffic.MaxConcurrentRuns
		var whole crew.Traffic
		if w.rnd.IntN(2) == 0 {
			whole.MaxConcurrentRuns = 1 + w.rnd.IntN(3)
			most = min(most, whole.MaxConcurrentRuns)
		}
		service := func(a *actor) *run.Service {
			s := a.service()
			s.Traffic = whole
			return s
		}
		const runs = 6
		var ids [runs]string
		begin := func(i int) {
			w.start(fmt.Sprint("client", i), func(a *actor) {
				q := q
				q.IdempotencyKey = fmt.Sprint("k", i)
				if r, err := service(a).Start(a.ctx, q); err == nil {
					w.mu.Lock()
					ids[i] = r.ID
					w.mu.Unlock()
				}
			})
		}
		known := func() (all []string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, runID := range ids {
				if runID != "" {
					all = append(all, runID)
				}
			}
			return all
		}
		direct := &run.Service{Store: real, Runs: none{}, Deliveries: none{}, Traffic: whole}
		// look counts the runs that are under way, and says whether all are over. One that is to be stopped needs no slot for
		// that.
		look := func() (under int, over bool) {
			all := known()
			e.do(func() {
				over = len(all) == runs
				for _, runID := range all {
					item, err := direct.Get(context.Background(), runID)
					if err != nil {
						t.Error(err)
					}
					over = over && item.State.Ended()
					if newest, err := direct.Newest(context.Background(), runID); item.State == run.Running && !item.Cancel && (err != nil || newest.Kind != run.EndPage) {
						under++
					}
				}
			})
			return under, over
		}
		rested := false
		for i := range 5000 {
			random := i < 500
			w.mu.Lock()
			actors := w.actors
			w.mu.Unlock()
			if all := known(); len(all) < runs && actors < 5 && w.rnd.IntN(5) == 0 {
				for k := range runs {
					w.mu.Lock()
					missing := ids[k] == ""
					w.mu.Unlock()
					if missing {
						begin(k)
						break
					}
				}
			} else if len(all) > 0 && actors < 5 {
				one := all[w.rnd.IntN(len(all))]
				switch draw := w.rnd.IntN(100); {
				case draw < 6:
					w.start("answer", func(a *actor) {
						_ = service(a).Answer(a.ctx, run.QuestionID(one, "q"), run.Reply{Approve: true})
					})
				case draw < 7 && random:
					w.start("stop", func(a *actor) { _, _ = service(a).Stop(a.ctx, one) })
				case draw < 20:
					w.start("sweeper", func(a *actor) { _, _ = service(a).Wake(a.ctx, one) })
				case draw < 26:
					time.Sleep(time.Duration(w.rnd.IntN(90)) * time.Second)
				}
			}
			if actors < 6 {
				if m, ok := w.take(); ok {
					asks := strings.HasSuffix(m.run, "0") || strings.HasSuffix(m.run, "5") || w.rnd.IntN(2) == 0
					w.start(fmt.Sprint("runner", i), func(a *actor) {
						w.takeTurn(a, service(a), m.run, asks)
						w.handed(m, false, 0)
					})
				}
			}
			stepped := random && faults > 0 && w.chance(rarity)
			if stepped {
				faults--
			} else {
				stepped = w.step()
			}
			if stepped && strings.Contains(w.log[len(w.log)-1], "put RUN") {
				synctest.Wait()
				if under, _ := look(); under > most {
					t.Errorf("%d runs are under way, and %d may", under, most)
					break
				}
			}
			if !stepped && !random {
				if _, over := look(); over && w.actors == 0 {
					rested = true
					break
				}
				time.Sleep(20 * time.Second)
			}
		}
		for w.step() {
		}
		synctest.Wait()
		if !rested {
			t.Error("the runs did not come to rest")
			e.do(func() {
				for _, runID := range known() {
					item, err := direct.Get(context.Background(), runID)
					t.Logf("%+v, %v", item, err)
				}
				for _, part := range []string{"S#d/" + q.Deployment.ID, "S#w/" + q.Deployment.WorkspaceID} {
					list, err := real.Get(context.Background(), record.Key{Part: part, Sort: "SLOTS"})
					t.Logf("%s: %s, %v", part, list.Body, err)
				}
			})
		}
		// Whatever the dead have left on the lists, there is room for as many as there may be.
		time.Sleep(2 * unborn)
		e.do(func() {
			q.Deployment.Traffic.WhenFull = crew.Reject
			for range most {
				if _, err := direct.Start(context.Background(), q); err != nil {
					t.Errorf("all runs are over, and there is no slot: %v", err)
				}
			}
		})
	})
}

// chance lets one of so many calls fail in some way, and says whether it did.
func (w *world) chance(rarity int) bool {
	all := w.next()
	if len(all) == 0 {
		return false
	}
	t := all[w.rnd.IntN(len(all))]
	if t.actor.stalled == 0 && w.rnd.IntN(rarity) == 0 {
		t.actor.stalled = 10 + w.rnd.IntN(60)
		w.log = append(w.log, t.actor.name+" stalls")
		return true
	}
	if !strings.HasPrefix(t.actor.name, "runner") {
		rarity = min(rarity, 8) // these make few calls, and each matters
	}
	if t.actor.stalled > 0 || w.rnd.IntN(rarity) > 0 {
		return false
	}
	w.give(t, []verdict{failBefore, failAfter, die}[w.rnd.IntN(3)])
	return true
}

// unborn is how long a run on a list may have no item.
const unborn = time.Minute

// takeTurn handles one message: a run of one call, perhaps a question, and an end.
func (w *world) takeTurn(a *actor, s *run.Service, runID string, asks bool) {
	o, err := s.Claim(a.ctx, runID)
	if errors.Is(err, run.ErrAlone) {
		o, err = s.ClaimAlone(a.ctx, runID)
	}
	switch {
	case errors.Is(err, run.ErrNothing), errors.Is(err, run.ErrLost):
		return
	case err != nil:
		w.knockAt(runID, time.Now().Add(65*time.Second))
		return
	}
	b := o.Root()
	_, err = b.Step(o.Work(), run.Step{Key: "m", Do: func(context.Context, *run.Emitter, int) (any, error) { return 1, nil }})
	if err == nil && asks {
		_, err = b.Ask(o.Work(), run.Asking{Key: "q"})
	}
	switch {
	case err == nil:
		err = o.End(run.Outcome{State: run.Succeeded}, b)
	case errors.Is(err, run.ErrCanceled):
		err = o.Fail(run.Outcome{State: run.Canceled, Error: run.Stopped})
	case errors.Is(err, run.ErrWaiting):
		var waits bool
		if waits, err = o.Wait(); err == nil && !waits {
			err = o.Release(time.Time{})
			w.knockAt(runID, time.Now())
		}
	case errors.Is(err, run.ErrYield):
		err = o.Release(time.Time{})
		w.knockAt(runID, time.Now())
	}
	if err != nil && !errors.Is(err, run.ErrLost) {
		w.knockAt(runID, time.Now().Add(65*time.Second))
	}
}
