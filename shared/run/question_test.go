package run_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/fault"
	"muster/shared/record"
	"muster/shared/run"
)

// ask asks for approval in the root branch.
func (s *stage) approve(o *run.Owner, key string, timeout time.Duration, otherwise string) (run.Reply, error) {
	return o.Root().Ask(s.t.Context(), run.Asking{
		Key: key, Task: run.TaskOutput{TaskID: "task of " + key, Raw: "a draft"}, Round: 1, Timeout: timeout, Default: otherwise,
		Opened: func(e *run.Emitter, _ string) { e.Emit(custom("asked"), run.Scope{}) },
		Closed: func(e *run.Emitter, _ string, _ run.Reply) { e.Emit(custom("answered"), run.Scope{}) },
	})
}

// waiting starts a run that waits for one answer, and gives the question's id.
func (s *stage) waiting(q run.StartRequest, timeout time.Duration, otherwise string) (run.Run, string) {
	s.t.Helper()
	r := s.start(q)
	o := s.claim(r.ID)
	if _, err := s.approve(o, "draft/human/1", timeout, otherwise); !errors.Is(err, run.ErrWaiting) {
		s.t.Fatalf("got %v", err)
	}
	if waits, err := o.Wait(); !waits || err != nil {
		s.t.Fatalf("waits %v, %v", waits, err)
	}
	return r, run.QuestionID(r.ID, "draft/human/1")
}

func (s *stage) state(runID string) run.Run {
	s.t.Helper()
	r, err := s.Get(s.t.Context(), runID)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func TestAnAnsweredQuestionWakesTheRun(t *testing.T) {
	s := newStage(t)
	r, question := s.waiting(s.request(), 0, "")
	if got := s.state(r.ID); got.Nonce != "" || !got.Due.IsZero() {
		t.Errorf("while it waits it is held by %q and due at %v", got.Nonce, got.Due)
	}
	if _, err := s.Claim(t.Context(), r.ID); !errors.Is(err, run.ErrNothing) {
		t.Errorf("a waiting run was claimed: %v", err)
	}
	yes, no := run.Reply{Approve: true, Feedback: "good"}, run.Reply{Feedback: "bad"}
	for _, wrong := range []string{run.QuestionID(r.ID, "other"), run.QuestionID("01a20000-0000-7000-8000-00000000ffff", "draft/human/1"), "apr_1", ""} {
		if err := s.Answer(t.Context(), wrong, yes); !fault.Is(err, fault.NotFound) {
			t.Errorf("a question that nobody asked, %q: %v", wrong, err)
		}
	}
	check := func(when string) {
		t.Helper()
		if err := s.Answer(t.Context(), question, yes); err != nil {
			t.Errorf("the same answer %s: %v", when, err)
		}
		if err := s.Answer(t.Context(), question, no); !fault.Is(err, fault.Conflict) {
			t.Errorf("another answer %s: %v", when, err)
		}
	}
	s.sent = nil
	if err := s.Answer(t.Context(), question, yes); err != nil {
		t.Fatal(err)
	}
	if got := s.state(r.ID); got.State != run.Queued || got.Due.IsZero() || len(s.sent) != 1 {
		t.Errorf("answered, it is %s, due at %v, with %d messages", got.State, got.Due, len(s.sent))
	}
	check("before the run goes on")
	o := s.claim(r.ID)
	if got, err := s.approve(o, "draft/human/1", 0, ""); err != nil || got != yes {
		t.Errorf("got %v, %v", got, err)
	}
	check("once the journal has it")
	if err := o.End(run.Outcome{State: run.Succeeded}, o.Root()); err != nil {
		t.Fatal(err)
	}
	check("after the end")
	if len(s.sent) != 1 {
		t.Errorf("%d messages for one answer", len(s.sent))
	}
}

func FuzzRunOf(f *testing.F) {
	f.Add(run.QuestionID("01a20000-0000-7000-8000-000000000001", "q"))
	f.Add("apr_")
	f.Add("")
	f.Fuzz(func(t *testing.T, questionID string) {
		runID, ok := run.RunOf(questionID)
		if !ok {
			return
		}
		// Whatever is taken for an id names its run in the one way there is.
		if again, ok := run.RunOf(run.QuestionID(runID, "q")); !ok || again != runID || len(questionID) != len(run.QuestionID(runID, "q")) {
			t.Errorf("%q is of run %q", questionID, runID)
		}
	})
}

func TestAReplyOfAnyLengthIsKeptWhole(t *testing.T) {
	s := newStage(t)
	r, question := s.waiting(s.request(), 0, "")
	long := make([]rune, 500_000)
	for i := range long {
		long[i] = rune('а' + i*i%97)
	}
	if err := s.Answer(t.Context(), question, run.Reply{Feedback: string(long)}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.approve(s.claim(r.ID), "draft/human/1", 0, ""); err != nil || got.Feedback != string(long) {
		t.Errorf("%d bytes became %d, %v", len(string(long)), len(got.Feedback), err)
	}
}

func TestAnAnswerMayReplaceTargets(t *testing.T) {
	s := newStage(t)
	q := s.request()
	q.Targets = []run.Target{
		{ID: "crew", Kind: run.CrewTarget, URL: "https://old"},
		{ID: "human_input", Kind: run.HumanTarget, URL: "https://same", Authorization: "Bearer 1"},
		{ID: "stream", Kind: run.StreamTarget, URL: "https://old", Authorization: "Bearer 2"},
	}
	r, question := s.waiting(q, 0, "")
	err := s.Answer(t.Context(), question, run.Reply{Approve: true},
		run.Target{ID: "crew", Kind: run.CrewTarget, URL: "https://new"},
		run.Target{ID: "human_input", Kind: run.HumanTarget, URL: "https://same"},
		run.Target{ID: "stream", Kind: run.StreamTarget, URL: "https://new"},
		run.Target{ID: "task", Kind: run.TaskTarget, URL: "https://added"})
	if err != nil {
		t.Fatal(err)
	}
	// Who answers too late replaces nothing.
	if err := s.Answer(t.Context(), question, run.Reply{}, run.Target{ID: "crew", URL: "https://evil"}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second answer: %v", err)
	}
	_, whole, err := s.Whole(t.Context(), r.ID)
	want := []run.Target{
		{ID: "crew", Kind: run.CrewTarget, URL: "https://new"},
		{ID: "human_input", Kind: run.HumanTarget, URL: "https://same", Authorization: "sealed:target/human_input"},
		{ID: "stream", Kind: run.StreamTarget, URL: "https://new"},
		{ID: "task", Kind: run.TaskTarget, URL: "https://added"},
	}
	if diff := cmp.Diff(whole.Targets, want); diff != "" || err != nil {
		t.Errorf("%v, targets (-got +want):\n%s", err, diff)
	}
	o := s.claim(r.ID)
	b := o.Root()
	b.Finished(run.TaskOutput{Name: "draft"})
	b.Emit(custom("done"), run.Scope{})
	if err := b.Mark(t.Context(), "done"); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Newest(t.Context(), r.ID); err != nil || !slices.Contains(p.Targets, "task") {
		t.Errorf("the new target is told nothing: %v, %v", p.Targets, err)
	}
}

func TestOpenQuestionsAreListed(t *testing.T) {
	s := newStage(t)
	list := func(q run.ListRequest) (ids []string, next string) {
		t.Helper()
		if q.DeploymentIDs == nil {
			q.DeploymentIDs = []string{s.request().Deployment.ID}
		}
		open, next, err := s.Approvals(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range open {
			if one.Task.Raw != "a draft" || one.At.IsZero() || !one.Waits() {
				t.Errorf("unexpected question %+v", one)
			}
			ids = append(ids, one.ID)
		}
		return ids, next
	}
	first, one := s.waiting(s.request(), time.Hour, "")
	_, two := s.waiting(s.request(), 0, "")
	third, three := s.waiting(s.request(), 0, "")
	if got, next := list(run.ListRequest{}); !slices.Equal(got, []string{three, two, one}) || next != "" {
		t.Errorf("got %v, next %q", got, next)
	}
	got, next := list(run.ListRequest{Limit: 2})
	rest, _ := list(run.ListRequest{Limit: 2, Cursor: next})
	if all := append(got, rest...); !slices.Equal(all, []string{three, two, one}) {
		t.Errorf("in pages: %v", all)
	}
	if got, _ := list(run.ListRequest{DeploymentIDs: []string{"other"}}); got != nil {
		t.Errorf("another deployment sees %v", got)
	}
	if err := s.Answer(t.Context(), one, run.Reply{Approve: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stop(t.Context(), third.ID); err != nil {
		t.Fatal(err)
	}
	if got, _ := list(run.ListRequest{}); !slices.Equal(got, []string{two}) {
		t.Errorf("after an answer and a stop: %v", got)
	}
	if _, err := s.approve(s.claim(first.ID), "draft/human/1", 0, ""); err != nil {
		t.Fatal(err)
	}
	if left, err := s.Store.List(t.Context(), "approvals/"+first.DeploymentID, "", 10); err != nil || len(left) != 1 {
		t.Errorf("the index keeps %d entries, %v", len(left), err)
	}
}

func TestAQuestionThatStandsForTooLong(t *testing.T) {
	for _, c := range []struct {
		name, otherwise string
		state           run.State
		reply           run.Reply
	}{
		{"is approved by default", run.Approve, run.Queued, run.Reply{Approve: true, Timeout: true}},
		{"is rejected by default", run.Reject, run.Queued, run.Reply{Timeout: true}},
		{"ends the run without a default", "", run.TimedOut, run.Reply{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			q := s.request()
			q.Targets = []run.Target{{ID: "crew", Kind: run.CrewTarget}}
			r, question := s.waiting(q, time.Hour, c.otherwise)
			if due := s.state(r.ID).Due; !due.Equal(s.clock.Add(time.Hour)) {
				t.Errorf("it is due at %v", due)
			}
			if finding, err := s.Wake(t.Context(), r.ID); finding != "" || err != nil {
				t.Errorf("before its time: %q, %v", finding, err)
			}
			s.clock = s.clock.Add(time.Hour)
			if finding, err := s.Wake(t.Context(), r.ID); finding == "" || err != nil {
				t.Errorf("after its time: %q, %v", finding, err)
			}
			if got := s.state(r.ID); got.State != c.state {
				t.Errorf("the run is %s", got.State)
			}
			if c.state.Ended() {
				if err := s.Answer(t.Context(), question, run.Reply{Approve: true}); !fault.Is(err, fault.Invalid) {
					t.Errorf("an answer after the end: %v", err)
				}
				if found, err := s.Question(t.Context(), question); err != nil || found.Waits() {
					t.Errorf("it still waits, %v", err)
				}
				return
			}
			if got, err := s.approve(s.claim(r.ID), "draft/human/1", time.Hour, c.otherwise); err != nil || got != c.reply {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestTheStateIsNeverBehindAQuestionThatWasTold(t *testing.T) {
	s := newStage(t)
	r := s.start(s.request())
	o := s.claim(r.ID)
	shown := func() run.State {
		t.Helper()
		newest, err := s.Newest(t.Context(), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		return s.state(r.ID).StateAt(newest)
	}
	if _, err := s.approve(o, "q", 0, ""); !errors.Is(err, run.ErrWaiting) {
		t.Fatal(err)
	}
	if got := shown(); got != run.Waiting {
		t.Errorf("asked, it is %s", got)
	}
	// Whoever hears of the question may answer before its run has come to rest.
	if err := s.Answer(t.Context(), run.QuestionID(r.ID, "q"), run.Reply{Approve: true}); err != nil {
		t.Fatal(err)
	}
	if got := shown(); got != run.Running {
		t.Errorf("answered, it is %s", got)
	}
	if waits, err := o.Wait(); waits || err != nil {
		t.Errorf("waits %v, %v", waits, err)
	}
}

func TestStop(t *testing.T) {
	question := "draft/human/1"
	for _, c := range []struct {
		name string
		at   func(s *stage, r run.Run)
	}{
		{"ends a queued run at once", func(*stage, run.Run) {}},
		{"ends a released run at once", func(s *stage, r run.Run) {
			if err := s.claim(r.ID).Release(time.Time{}); err != nil {
				s.t.Fatal(err)
			}
		}},
		{"ends a waiting run at once", func(s *stage, r run.Run) {
			o := s.claim(r.ID)
			_, _ = s.approve(o, question, time.Hour, run.Approve)
			if waits, err := o.Wait(); !waits || err != nil {
				s.t.Fatal(waits, err)
			}
		}},
		{"ends at once a run whose owner died", func(s *stage, r run.Run) { s.claim(r.ID); s.die() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			q := s.request()
			q.Targets = []run.Target{{ID: "crew", Kind: run.CrewTarget}, {ID: "stream", Kind: run.StreamTarget, Events: []string{"crew_kickoff_failed"}}}
			r := s.start(q)
			c.at(s, r)
			for range 2 {
				if got, err := s.Stop(t.Context(), r.ID); err != nil || got.State != run.Canceled {
					t.Errorf("got %s, %v", got.State, err)
				}
			}
			newest, err := s.Newest(t.Context(), r.ID)
			if err != nil || newest.Outcome == nil || newest.Outcome.Error != run.Stopped || !slices.Equal(newest.Targets, []string{"crew", "stream"}) {
				t.Errorf("the last page is %+v, %v", newest, err)
			}
		})
	}
	t.Run("of a run that is over", func(t *testing.T) {
		s := newStage(t)
		r := s.start(s.request())
		o := s.claim(r.ID)
		if err := o.End(run.Outcome{State: run.Succeeded}, o.Root()); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Stop(t.Context(), r.ID); !fault.Is(err, fault.Conflict) || got.State != run.Succeeded {
			t.Errorf("got %s, %v", got.State, err)
		}
		if _, err := s.Stop(t.Context(), "01a20000-0000-7000-8000-00000000ffff"); !fault.Is(err, fault.NotFound) {
			t.Errorf("an unknown run: %v", err)
		}
	})
	hurried := func(t *testing.T) *stage { // nobody ends a run in the time that Stop has
		s := newStage(t)
		s.Now = func() time.Time { s.clock = s.clock.Add(time.Second); return s.clock }
		return s
	}
	t.Run("reaches an owner that claims after it", func(t *testing.T) {
		s := hurried(t)
		r := s.start(s.request())
		s.claim(r.ID)
		if got, err := s.Stop(t.Context(), r.ID); err != nil || !got.Cancel {
			t.Fatal(err)
		}
		s.die()
		if _, err := s.claim(r.ID).Root().Step(t.Context(), ask("m", say("hello"))); !errors.Is(err, run.ErrCanceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("before the end page turns the outcome", func(t *testing.T) {
		s := hurried(t)
		r := s.start(s.request())
		o := s.claim(r.ID)
		if got, err := s.Stop(t.Context(), r.ID); err != nil || got.State != run.Running || !got.Cancel {
			t.Errorf("got %s, %v", got.State, err)
		}
		if err := o.End(run.Outcome{State: run.Succeeded, Result: "late"}, o.Root()); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Stop(t.Context(), r.ID); err != nil || got.State != run.Canceled {
			t.Errorf("got %s, %v", got.State, err)
		}
	})
}

// TestStopIsHeardByAModelCallUnderWay runs in a bubble, so that its seconds pass at once.
func TestStopIsHeardByAModelCallUnderWay(t *testing.T) {
	s := newStage(t)
	e := newElsewhere(t)
	store := s.Store
	synctest.Test(t, func(t *testing.T) {
		svc := *s.Service
		svc.Now = time.Now
		svc.Store = outside{e, store}
		s.clock = time.Now()
		r, err := svc.Start(t.Context(), s.request())
		if err != nil {
			t.Fatal(err)
		}
		o, err := svc.Claim(t.Context(), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		keeping, stop := context.WithCancel(t.Context())
		defer stop()
		go o.Keep(keeping, nil)
		began := make(chan struct{})
		go func() {
			call := ask("model", say("never"))
			call.Do = func(ctx context.Context, _ *run.Emitter, _ int) (any, error) {
				close(began)
				<-ctx.Done()
				return nil, ctx.Err()
			}
			if _, err := o.Root().Step(o.Work(), call); !errors.Is(err, run.ErrCanceled) {
				t.Errorf("the step ended with %v", err)
			}
			stop()
			if err := o.Fail(run.Outcome{State: run.Canceled, Error: run.Stopped}); err != nil {
				t.Error(err)
			}
		}()
		<-began
		asked := time.Now()
		got, err := svc.Stop(t.Context(), r.ID)
		if took := time.Since(asked); err != nil || got.State != run.Canceled || took > 5*time.Second {
			t.Errorf("after %v it is %s, %v", took, got.State, err)
		}
	})
}

// outside is a store whose calls leave the bubble.
type outside struct {
	*elsewhere
	real record.Store
}

func (o outside) Get(ctx context.Context, k record.Key) (r record.Record, err error) {
	o.do(func() { r, err = o.real.Get(context.WithoutCancel(ctx), k) })
	return r, err
}

func (o outside) Put(ctx context.Context, r record.Record) (rev int64, err error) {
	o.do(func() { rev, err = o.real.Put(context.WithoutCancel(ctx), r) })
	return rev, err
}

func (o outside) Delete(ctx context.Context, k record.Key, rev int64) (err error) {
	o.do(func() { err = o.real.Delete(context.WithoutCancel(ctx), k, rev) })
	return err
}

func (o outside) Scan(ctx context.Context, q record.Scan) (rs []record.Record, err error) {
	o.do(func() { rs, err = o.real.Scan(context.WithoutCancel(ctx), q) })
	return rs, err
}

func (o outside) Due(ctx context.Context, shard int, until time.Time, limit int) (es []record.Entry, err error) {
	o.do(func() { es, err = o.real.Due(context.WithoutCancel(ctx), shard, until, limit) })
	return es, err
}

func (o outside) Oldest(ctx context.Context, list string, limit int) (es []record.Entry, err error) {
	o.do(func() { es, err = o.real.Oldest(context.WithoutCancel(ctx), list, limit) })
	return es, err
}

func (o outside) List(ctx context.Context, list, before string, limit int) (es []record.Entry, err error) {
	o.do(func() { es, err = o.real.List(context.WithoutCancel(ctx), list, before, limit) })
	return es, err
}
