package thread_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/storetest"
	"muster/shared/thread"
)

type values = map[string]any

// stage is one thread of one deployment.
type stage struct {
	*thread.Threads
	t   *testing.T
	now time.Time
	d   crew.Deployment
	on  thread.Thread
	// told is called when deliveries are sent.
	told func()
}

// Send implements queue.Sender.
func (s *stage) Send(context.Context, ...queue.Message) error { return nil }

// deliveries is the queue of deliveries.
type deliveries struct{ *stage }

func (d deliveries) Send(context.Context, ...queue.Message) error {
	if d.told != nil {
		d.told()
	}
	return nil
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}
	clock := func() time.Time { s.now = s.now.Add(10 * time.Millisecond); return s.now }
	store := &storetest.Memory{Now: clock, Records: map[record.Key]record.Record{}}
	s.Threads = &thread.Threads{Store: store, Now: clock, Runs: &run.Service{
		Store: store, Runs: s, Deliveries: deliveries{s}, Now: clock, Log: slog.New(slog.DiscardHandler),
		Seal: func(context.Context, string, string, string, string) (string, error) { return "sealed", nil },
	}}
	s.d = crew.Deployment{ID: id.New(), WorkspaceID: id.New(), Environments: map[string]crew.Pointer{
		"production": {VersionID: "v1", Number: 1, Required: []string{"topic"}}, "staging": {VersionID: "v1", Number: 1},
	}}
	var err error
	if s.on, err = s.Create(t.Context(), s.d, thread.New{Metadata: json.RawMessage(`{"user":"u1"}`), Values: values{"language": "en"}}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stage) run(strategy thread.Strategy, topic string, key ...string) run.Run {
	s.t.Helper()
	q := run.StartRequest{Deployment: s.d, Inputs: values{"topic": topic}}
	if len(key) > 0 {
		q.IdempotencyKey = key[0]
	}
	r, err := s.Run(s.t.Context(), s.on, strategy, q)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *stage) claim(r run.Run) *run.Owner {
	s.t.Helper()
	o, err := s.Runs.Claim(s.t.Context(), r.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	return o
}

func (s *stage) end(o *run.Owner, out run.Outcome) {
	s.t.Helper()
	if err := o.End(out, o.Root()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) shows(what string, status thread.Status, holds values) {
	s.t.Helper()
	state, err := s.State(s.t.Context(), s.on)
	if err != nil {
		s.t.Fatal(err)
	}
	if diff := cmp.Diff([]any{status, holds}, []any{state.Status, state.Values}); diff != "" {
		s.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func (s *stage) stateOf(r run.Run) run.State {
	s.t.Helper()
	r, err := s.Runs.Get(s.t.Context(), r.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	return r.State
}

func TestWhatAThreadShows(t *testing.T) {
	s := newStage(t)
	s.shows("new", thread.Idle, values{"language": "en"})
	one := s.run("", "tea")
	s.shows("a run is queued", thread.Busy, values{"language": "en"})
	s.end(s.claim(one), run.Outcome{State: run.Succeeded, Result: "About tea."})
	after := values{"language": "en", "topic": "tea", "output": "About tea."}
	s.shows("it has succeeded", thread.Idle, after)
	s.end(s.claim(s.run("", "rum")), run.Outcome{State: run.Failed})
	s.shows("another has failed", thread.Error, after)
	two := s.claim(s.run("", "milk"))
	if _, err := two.Root().Ask(t.Context(), run.Asking{
		Key: "q", Opened: func(*run.Emitter, string) {}, Closed: func(*run.Emitter, string, run.Reply) {},
	}); err == nil {
		t.Fatal("nobody answered")
	}
	if waits, err := two.Wait(); !waits || err != nil {
		t.Fatal(err)
	}
	s.shows("a run waits for a person", thread.Interrupted, after)
	if _, err := s.Runs.Stop(t.Context(), two.Run().ID); err != nil {
		t.Fatal(err)
	}
	s.shows("it was stopped", thread.Idle, after)

	turns, next, err := s.History(t.Context(), s.on, 0, 10)
	if err != nil || len(turns) != 1 || turns[0].Run != one.ID || next != 0 {
		t.Errorf("the history is %v, %d, %v", turns, next, err)
	}
	turns, next, err = s.History(t.Context(), s.on, 0, 2)
	if err != nil || len(turns) != 0 || next != 2 {
		t.Errorf("the newest two left nothing: %v, %d, %v", turns, next, err)
	}
	turns, next, err = s.History(t.Context(), s.on, next, 2)
	if err != nil || len(turns) != 1 || next != 0 {
		t.Errorf("the rest: %v, %d, %v", turns, next, err)
	}
}

// TestWhoeverHearsOfTheEndFindsTheThreadFree: a receiver that reacted at once to the webhook of the end found a busy thread
// with old values, for some milliseconds, and was refused the next run. So did who watched the journal.
func TestWhoeverHearsOfTheEndFindsTheThreadFree(t *testing.T) {
	check := func(s *stage, q run.StartRequest) {
		t.Helper()
		left := values{"language": "en", "topic": "tea", "output": "Done."}
		s.shows("the thread", thread.Idle, left)
		next, err := s.Run(t.Context(), s.on, thread.Reject, q)
		if err != nil {
			t.Fatalf("the next run: %v", err)
		}
		s.shows("the thread with the next run", thread.Busy, left)
		if r := s.claim(next).Run(); r.Turn != 2 || r.Base != 1 {
			t.Errorf("the next run has turn %d and builds on %d", r.Turn, r.Base)
		}
	}
	for _, by := range []string{"a webhook", "the journal"} {
		t.Run(by, func(t *testing.T) {
			s := newStage(t)
			q := run.StartRequest{Deployment: s.d, Inputs: values{"topic": "tea"}, Targets: []run.Target{{ID: "crew", Kind: run.CrewTarget, URL: "https://example.com"}}}
			r, err := s.Run(t.Context(), s.on, "", q)
			if err != nil {
				t.Fatal(err)
			}
			ctx, die := context.WithCancel(t.Context())
			defer die()
			o, err := s.Runs.Claim(ctx, r.ID)
			if err != nil {
				t.Fatal(err)
			}
			if by == "a webhook" {
				s.told = func() { s.told = nil; check(s, q) }
				s.end(o, run.Outcome{State: run.Succeeded, Result: "Done."})
				return
			}
			memory := s.Store.(*storetest.Memory)
			memory.After = func(_ int, r record.Record) error {
				if strings.HasPrefix(r.Sort, "P#") {
					die() // with the end page in the journal, and nothing else done
				}
				return nil
			}
			_ = o.End(run.Outcome{State: run.Succeeded, Result: "Done."}, o.Root())
			memory.After = nil
			check(s, q)
		})
	}
}

func TestWhatANewRunDoesToABusyThread(t *testing.T) {
	for _, c := range []struct {
		strategy             thread.Strategy
		holder, waiter, new_ run.State // right after the request; "" for refused
		left                 values    // what the new run begins with, when the holder has ended as it may
	}{
		{thread.Reject, run.Running, run.Queued, "", nil},
		{thread.Enqueue, run.Running, run.Queued, run.Queued, values{"language": "en", "topic": "new", "output": "The waiter's."}},
		{thread.Interrupt, run.Canceled, run.Canceled, run.Queued, values{"language": "en", "topic": "new"}},
		{thread.Rollback, run.Canceled, run.Canceled, run.Queued, values{"language": "en", "topic": "new"}},
	} {
		t.Run(string(c.strategy), func(t *testing.T) {
			s := newStage(t)
			holder := s.run("", "old")
			o := s.claim(holder)
			waiter := s.run(thread.Enqueue, "waits")
			if c.holder == run.Canceled { // its owner has yielded, so whoever stops it may end it
				if err := o.Release(time.Time{}); err != nil {
					t.Fatal(err)
				}
			}
			q := run.StartRequest{Deployment: s.d, Inputs: values{"topic": "new"}}
			r, err := s.Run(t.Context(), s.on, c.strategy, q)
			if got := []run.State{s.stateOf(holder), s.stateOf(waiter)}; !cmp.Equal(got, []run.State{c.holder, c.waiter}) {
				t.Errorf("the holder and the one that waits are %v", got)
			}
			if c.new_ == "" {
				if !fault.Is(err, fault.Conflict) {
					t.Errorf("the new one: %v", err)
				}
				return
			}
			if err != nil || r.State != c.new_ {
				t.Fatalf("the new one is %s, %v", r.State, err)
			}
			if c.holder == run.Running {
				s.end(o, run.Outcome{State: run.Succeeded, Result: "The holder's."})
				s.end(s.claim(waiter), run.Outcome{State: run.Succeeded, Result: "The waiter's."})
			}
			if diff := cmp.Diff(c.left, s.claim(r).Request().Inputs); diff != "" {
				t.Errorf("the new one begins with (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAHolderThatEndsWhileItIsStopped: its owner has put the end page when the request to stop it comes.
func TestAHolderThatEndsWhileItIsStopped(t *testing.T) {
	for strategy, left := range map[thread.Strategy]values{
		thread.Interrupt: {"language": "en", "topic": "new", "output": "Done."},
		thread.Rollback:  {"language": "en", "topic": "new"},
	} {
		s := newStage(t)
		holder := s.run("", "old")
		ctx, die := context.WithCancel(t.Context())
		o, err := s.Runs.Claim(ctx, holder.ID)
		if err != nil {
			t.Fatal(err)
		}
		memory := s.Store.(*storetest.Memory)
		memory.After = func(_ int, r record.Record) error {
			if len(r.Sort) > 2 && r.Sort[:2] == "P#" {
				die() // with the end page in the journal, and no turn
			}
			return nil
		}
		if err := o.End(run.Outcome{State: run.Succeeded, Result: "Done."}, o.Root()); err == nil {
			t.Fatal("it should have died")
		}
		memory.After = nil
		s.now = s.now.Add(2 * time.Minute)
		r := s.run(strategy, "new")
		if diff := cmp.Diff(left, s.claim(r).Request().Inputs); diff != "" {
			t.Errorf("%s: the new one begins with (-want +got):\n%s", strategy, diff)
		}
	}
}

func TestWhatIsRefusedOrComesAgainStopsNothing(t *testing.T) {
	s := newStage(t)
	for what, q := range map[string]run.StartRequest{
		"without an input":       {Deployment: s.d},
		"an unknown environment": {Deployment: s.d, Inputs: values{"topic": "x"}, Environment: "testing"},
	} {
		holder := s.run(thread.Interrupt, "tea")
		if _, err := s.Run(t.Context(), s.on, thread.Interrupt, q); err == nil || fault.KindOf(err) == fault.Internal {
			t.Errorf("%s: %v", what, err)
		}
		if state := s.stateOf(holder); state != run.Queued {
			t.Errorf("%s: the run that was there is %s", what, state)
		}
	}
	if _, err := s.Run(t.Context(), s.on, "maybe", run.StartRequest{Deployment: s.d, Inputs: values{"topic": "x"}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("an unknown strategy: %v", err)
	}
	first := s.run(thread.Interrupt, "milk", "key")
	if again := s.run(thread.Interrupt, "milk", "key"); again.ID != first.ID || s.stateOf(first) != run.Queued {
		t.Errorf("the request that comes again gives %s, %s", again.ID, s.stateOf(first))
	}
}

func TestAThreadWithAGivenIDIsMadeOnce(t *testing.T) {
	s := newStage(t)
	threadID := id.Derive(s.d.ID, "webhook")
	first, err := s.Create(t.Context(), s.d, thread.New{ID: threadID, Values: values{"a": 1}})
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Create(t.Context(), s.d, thread.New{ID: threadID, Values: values{"a": 2}})
	if diff := cmp.Diff(first, again); diff != "" || err != nil {
		t.Errorf("made again (-first +again):\n%s%v", diff, err)
	}
	s.on = again
	s.shows("its values", thread.Idle, values{"a": json.Number("1")})
}

func TestListsOfThreads(t *testing.T) {
	s := newStage(t)
	ids := []string{s.on.ID}
	for range 4 {
		made, err := s.Create(t.Context(), s.d, thread.New{})
		if err != nil {
			t.Fatal(err)
		}
		ids = append([]string{made.ID}, ids...)
	}
	var got []string
	for next, more := "", true; more; more = next != "" {
		page, after, err := s.List(t.Context(), []string{s.d.ID, "another"}, next, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range page {
			got = append(got, found.ID)
		}
		next = after
	}
	if diff := cmp.Diff(ids, got); diff != "" {
		t.Errorf("the list (-want +got):\n%s", diff)
	}
	if _, err := s.Get(t.Context(), id.New()); !fault.Is(err, fault.NotFound) {
		t.Errorf("an unknown thread: %v", err)
	}
	if _, err := s.Create(t.Context(), s.d, thread.New{Metadata: json.RawMessage(fmt.Sprintf(`{"x":"%070000d"}`, 0))}); !fault.Is(err, fault.TooLarge) {
		t.Errorf("large metadata: %v", err)
	}
}
