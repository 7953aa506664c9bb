package run_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/run/runtest"
	"muster/shared/storetest"
)

// The rules of the package comment, one at a time: what TestNoInterleavingBreaksTheJournal finds when it is lucky.

// sender is a queue that is a function.
type sender func(ctx context.Context, messages ...queue.Message) error

func (f sender) Send(ctx context.Context, messages ...queue.Message) error {
	return f(ctx, messages...)
}

// TestAWriteWhoseAnswerIsLostIsNoFailure plays the life of a run once for each of its writes, of which that one fails after or before it was
// done. Nobody notices, and what was put under one number was always the same.
func TestAWriteWhoseAnswerIsLostIsNoFailure(t *testing.T) {
	calm := live(t, nil)
	if calm < 8 {
		t.Fatalf("a life has %d writes", calm)
	}
	for n := range calm {
		for _, persists := range []bool{true, false} {
			t.Run(fmt.Sprintf("write %d, persists %v", n+1, persists), func(t *testing.T) {
				live(t, func(m *storetest.Memory) {
					lost, tries := errLostAnswer, 0
					once := func() (err error) {
						if tries++; tries == n+1 {
							err, lost = lost, nil
						}
						return err
					}
					if persists {
						m.After = func(int, record.Record) error { return once() }
					} else {
						m.Before = func(record.Record) error { return once() }
					}
				})
			})
		}
	}
}

// live has a run begin, ask, wait, go on and end, and gives how many writes that took from its first claim on.
func live(t *testing.T, harm func(*storetest.Memory)) (writes int) {
	synctest.Test(t, func(t *testing.T) {
		s, mem, r := toWatch(t)
		s.Seal = func(_ context.Context, _, _, _, plain string) (string, error) { return plain, nil }
		began := len(mem.Puts)
		if harm != nil {
			harm(mem)
		}
		pages := map[record.Key][]byte{}
		before := mem.Before
		mem.Before = func(rec record.Record) error {
			if strings.HasPrefix(rec.Sort, "P#") {
				if earlier, ok := pages[rec.Key]; ok && !bytes.Equal(earlier, rec.Body) {
					t.Errorf("%s was put once more, and differs", rec.Sort)
				}
				pages[rec.Key] = rec.Body
			}
			if before != nil {
				return before(rec)
			}
			return nil
		}
		claim := func() *run.Owner {
			o, err := s.Claim(t.Context(), r.ID)
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		question := run.Asking{
			Key: "q", Opened: func(e *run.Emitter, _ string) { e.Emit(drafted(t, "asked"), run.Scope{}) },
			Closed: func(e *run.Emitter, _ string, _ run.Reply) { e.Emit(drafted(t, "answered"), run.Scope{}) },
		}
		o := claim()
		if _, err := o.Root().Ask(o.Work(), question); !errors.Is(err, run.ErrWaiting) {
			t.Fatal(err)
		}
		if waits, err := o.Wait(); !waits || err != nil {
			t.Fatal(waits, err)
		}
		if err := s.Answer(t.Context(), run.QuestionID(r.ID, "q"), run.Reply{Approve: true}); err != nil {
			t.Fatal(err)
		}
		if err := claim().Release(time.Time{}); err != nil {
			t.Fatal(err)
		}
		o = claim()
		b := o.Root()
		if _, err := b.Ask(o.Work(), question); err != nil {
			t.Fatal(err)
		}
		if err := o.End(run.Outcome{State: run.Succeeded}, b); err != nil {
			t.Fatal(err)
		}
		if err := s.Told(t.Context(), r.ID, 0); err != nil {
			t.Fatal(err)
		}
		writes = len(mem.Puts) - began
		checkRun(t, s, r.ID)
	})
	return writes
}

// checkRun holds a run to what every journal promises.
func checkRun(t *testing.T, s *run.Service, runID string) {
	t.Helper()
	r, q, err := s.Whole(t.Context(), runID)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range runtest.Problems(r, q, pagesOf(t, s, runID)) {
		t.Error(problem)
	}
}

func pagesOf(t *testing.T, s *run.Service, runID string) []run.Page {
	t.Helper()
	pages, err := s.Pages(t.Context(), runID, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// deaf is a store that answers whoever is over, too.
type deaf struct{ record.Store }

func (d deaf) Get(ctx context.Context, k record.Key) (record.Record, error) {
	return d.Store.Get(context.WithoutCancel(ctx), k)
}

func (d deaf) Put(ctx context.Context, r record.Record) (int64, error) {
	return d.Store.Put(context.WithoutCancel(ctx), r)
}

func (d deaf) Scan(ctx context.Context, s record.Scan) ([]record.Record, error) {
	return d.Store.Scan(context.WithoutCancel(ctx), s)
}

func TestNothingIsPutBehindAPageWithAnUnknownFate(t *testing.T) {
	for _, c := range []struct{ name, fails string }{
		{"it may not be there", "put"},
		{"it may not be told", "send"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, mem, r := toWatch(t)
			ctx, over := context.WithCancel(t.Context())
			fail := func() error { over(); return errLostAnswer }
			s.Store = deaf{mem}
			s.Standing = func(context.Context, run.Run) ([]run.Target, error) {
				return []run.Target{{ID: "all", Kind: run.EndpointTarget, Events: []string{"*"}}}, nil
			}
			o, err := s.Claim(ctx, r.ID)
			if err != nil {
				t.Fatal(err)
			}
			if c.fails == "send" {
				s.Deliveries = sender(func(context.Context, ...queue.Message) error { return fail() })
			} else {
				mem.After = func(_ int, rec record.Record) error {
					if strings.HasPrefix(rec.Sort, "P#") {
						return fail()
					}
					return nil
				}
			}
			b := o.Root()
			b.Emit(drafted(t, "told"), run.Scope{})
			if err := b.Mark(ctx, "mark"); err == nil {
				t.Error("the mark failed, and nobody says so")
			}
			mem.After, s.Deliveries = nil, none{}
			if err := o.Fail(run.Outcome{State: run.Failed}); err == nil {
				t.Error("whoever does not know what is in the journal has ended the run")
			}
			if pages := pagesOf(t, s, r.ID); len(pages) != 1 || pages[0].Key != "mark" {
				t.Errorf("the journal is %+v", pages)
			}
		})
	}
}

// TestNoOwnerWritesBehindAnother has two owners meet wherever they can.
func TestNoOwnerWritesBehindAnother(t *testing.T) {
	mark := func(s *stage, o *run.Owner, key string) error {
		b := o.Root()
		b.Emit(custom(key), run.Scope{})
		return b.Mark(s.t.Context(), key)
	}
	t.Run("in a journal without a page", func(t *testing.T) {
		s := newStage(t)
		r := s.start(s.request())
		first := s.claim(r.ID)
		s.die()
		second := s.claim(r.ID)
		s.clock = s.clock.Add(-time.Hour) // the first one's clock says that it holds the run
		if err := mark(s, first, "first"); !errors.Is(err, run.ErrLost) {
			t.Errorf("the first owner got %v", err)
		}
		if err := mark(s, second, "second"); err != nil {
			t.Error(err)
		}
		if pages := pagesOf(t, s.Service, r.ID); len(pages) != 2 || pages[0].Kind != run.FencePage || pages[1].Key != "second" {
			t.Errorf("the journal is %+v", pages)
		}
	})
	t.Run("while it reads the journal", func(t *testing.T) {
		s := newStage(t)
		r := s.start(s.request())
		if err := mark(s, s.claim(r.ID), "first"); err != nil {
			t.Fatal(err)
		}
		s.die()
		store := s.Store
		s.Store = &sleeper{Store: store, before: func() {
			s.Store = store
			s.die()
			if _, err := s.ClaimAlone(t.Context(), r.ID); err != nil {
				t.Error(err)
			}
		}}
		if _, err := s.Claim(t.Context(), r.ID); !errors.Is(err, run.ErrLost) {
			t.Errorf("whoever slept has claimed it, with %v", err)
		}
		if pages := pagesOf(t, s.Service, r.ID); len(pages) != 2 || pages[1].Epoch != 3 {
			t.Errorf("the journal is %+v", pages)
		}
	})
}

// sleeper is a store whose first reader of a journal sleeps while something happens.
type sleeper struct {
	record.Store
	before func()
}

func (s *sleeper) Scan(ctx context.Context, q record.Scan) ([]record.Record, error) {
	if strings.HasPrefix(q.From, "P#") && !q.Backward && s.before != nil {
		before := s.before
		s.before = nil
		before()
	}
	return s.Store.Scan(ctx, q)
}

// TestARenewalUndoesNothing has something be written between an owner's look into its inbox and its renewal.
func TestARenewalUndoesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, s *run.Service, r *run.Run)
		why  error // for which the owner stops
	}{
		{"of a stop", func(_ *testing.T, _ *run.Service, r *run.Run) { r.Cancel = true }, run.ErrCanceled},
		{"of another owner", func(_ *testing.T, _ *run.Service, r *run.Run) { r.Epoch, r.Nonce = 2, "another" }, run.ErrLost},
		{"of somebody who watches", func(_ *testing.T, _ *run.Service, r *run.Run) { r.ChunksUntil = r.CreatedAt.Add(time.Hour) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, mem, r := toWatch(t)
				o, err := s.Claim(t.Context(), r.ID)
				if err != nil {
					t.Fatal(err)
				}
				var want run.Run
				done := false
				s.Store = meddled{mem, func(rec record.Record) {
					if done || rec.Sort != "RUN" {
						return
					}
					done = true
					there, err := mem.Get(t.Context(), rec.Key)
					if err != nil || json.Unmarshal(there.Body, &want) != nil {
						t.Error(err)
					}
					c.do(t, s, &want)
					if there.Body, err = json.Marshal(want); err != nil {
						t.Error(err)
					}
					if _, err := mem.Put(t.Context(), there); err != nil {
						t.Error(err)
					}
				}}
				keeping, stop := context.WithTimeout(t.Context(), 50*time.Second)
				defer stop()
				o.Keep(keeping, nil)
				got, err := s.Get(t.Context(), r.ID)
				if err != nil || got.Cancel != want.Cancel || got.Nonce != want.Nonce || !got.ChunksUntil.Equal(want.ChunksUntil) {
					t.Errorf("it became %+v, %v", got, err)
				}
				if !done || !errors.Is(context.Cause(o.Work()), c.why) {
					t.Errorf("the owner stops because of %v", context.Cause(o.Work()))
				}
				if c.why == nil && time.Until(got.Lease) < 30*time.Second {
					t.Errorf("the lease was not renewed: %s left", time.Until(got.Lease))
				}
			})
		})
	}
}

func TestARunThatIsToBeStoppedDoesNotWait(t *testing.T) {
	s := newStage(t)
	s.Now = func() time.Time { s.clock = s.clock.Add(time.Second); return s.clock } // nobody ends it in the time that Stop has
	r := s.start(s.request())
	o := s.claim(r.ID)
	if _, err := s.approve(o, "q", 0, ""); !errors.Is(err, run.ErrWaiting) {
		t.Fatal(err)
	}
	if _, err := s.Stop(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	if waits, err := o.Wait(); waits || err != nil {
		t.Errorf("it waits: %v, %v", waits, err)
	}
}

// TestAnEndIsToldUntilItIsKnownToBe follows the deliveries of an end page: somebody looks after them until Told, which may
// come before the item says that the run is over.
func TestAnEndIsToldUntilItIsKnownToBe(t *testing.T) {
	end := func(s *stage) string {
		s.t.Helper()
		q := s.request()
		q.Targets = []run.Target{{ID: "crew", Kind: run.CrewTarget}, {ID: "all", Kind: run.StreamTarget, Events: []string{"*"}}}
		r := s.start(q)
		o := s.claim(r.ID)
		b := o.Root()
		b.Emit(custom("end"), run.Scope{})
		if err := o.End(run.Outcome{State: run.Succeeded}, b); err != nil {
			s.t.Fatal(err)
		}
		return r.ID
	}
	t.Run("the sweeper sends them again", func(t *testing.T) {
		s := newStage(t)
		runID := end(s)
		told := slices.Clone(s.sent)
		for range 2 {
			s.clock, s.sent = s.clock.Add(time.Minute), nil
			if finding, err := s.Wake(t.Context(), runID); err != nil || finding != run.EndNotTold {
				t.Errorf("it found %q, %v", finding, err)
			}
			if !slices.Equal(bodies(s.sent), bodies(told[len(told)-2:])) {
				t.Errorf("it sent %v, want the last of %v", s.sent, told)
			}
		}
		if err := s.Told(t.Context(), runID, 0); err != nil {
			t.Fatal(err)
		}
		s.clock, s.sent = s.clock.Add(time.Hour), nil
		if finding, err := s.Wake(t.Context(), runID); err != nil || finding != "" || len(s.sent) > 0 || !s.state(runID).Due.IsZero() {
			t.Errorf("everything was told, and it found %q and sent %v, %v", finding, s.sent, err)
		}
	})
	t.Run("they have arrived before the run is settled, and its owner dies there", func(t *testing.T) {
		s := newStage(t)
		r := s.start(s.request())
		s.claim(r.ID)
		if err := s.Told(t.Context(), r.ID, 1); err != nil {
			t.Fatal(err)
		}
		s.die()
		if finding, err := s.Wake(t.Context(), r.ID); err != nil || finding != run.LeaseRanOut {
			t.Errorf("nobody looks after it: %q, %v", finding, err)
		}
	})
}

func bodies(ms []queue.Message) []string {
	all := map[string]bool{}
	for _, m := range ms {
		all[m.Body] = true
	}
	return slices.Sorted(maps.Keys(all))
}
