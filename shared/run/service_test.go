package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
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

// stage is a service on a real store with a clock that only moves when told to.
type stage struct {
	*run.Service
	t     *testing.T
	clock time.Time
	sent  []queue.Message
	fail  error // of the next Send
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, clock: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}
	s.Service = &run.Service{
		Store: &storetest.Memory{Now: func() time.Time { return s.clock }}, Runs: s, Deliveries: s, Now: func() time.Time { return s.clock },
		Seal: func(_ context.Context, ws, rec, field, plain string) (string, error) { return "sealed:" + field, nil },
	}
	return s
}

func (s *stage) Send(_ context.Context, m ...queue.Message) error {
	if err := s.fail; err != nil {
		s.fail = nil
		return err
	}
	s.sent = append(s.sent, m...)
	return nil
}

func (s *stage) request() run.StartRequest {
	return run.StartRequest{
		Deployment: crew.Deployment{
			ID: "01a20000-0000-7000-8000-000000000001", WorkspaceID: "w",
			Environments: map[string]crew.Pointer{"production": {VersionID: "v1", Number: 1, Required: []string{"topic"}}, "staging": {VersionID: "v2", Number: 2}},
		},
		Inputs: map[string]any{"topic": "tea"},
	}
}

func (s *stage) start(q run.StartRequest) run.Run {
	s.t.Helper()
	r, err := s.Start(s.t.Context(), q)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *stage) claim(runID string) *run.Owner {
	s.t.Helper()
	o, err := s.Claim(s.t.Context(), runID)
	if err != nil {
		s.t.Fatal(err)
	}
	return o
}

func TestStart(t *testing.T) {
	t.Run("names missing inputs, sorted, and accepts nothing", func(t *testing.T) {
		s := newStage(t)
		q := s.request()
		q.Inputs = nil
		_, err := s.Start(t.Context(), q)
		if !fault.Is(err, fault.Missing) || fault.Message(err) != "Missing inputs: topic" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("refuses an unknown environment", func(t *testing.T) {
		s := newStage(t)
		q := s.request()
		q.Environment = "canary"
		if _, err := s.Start(t.Context(), q); !fault.Is(err, fault.Invalid) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("runs staging's version in staging", func(t *testing.T) {
		s := newStage(t)
		q := s.request()
		q.Environment = "staging"
		if r := s.start(q); r.VersionNumber != 2 {
			t.Errorf("version %d, want 2", r.VersionNumber)
		}
	})
	t.Run("succeeds although the message is not sent, and the run is due for the sweeper", func(t *testing.T) {
		s := newStage(t)
		s.fail = errors.New("the queue is away")
		r := s.start(s.request())
		s.clock = s.clock.Add(time.Minute)
		finding, err := s.Wake(t.Context(), r.ID)
		if err != nil || finding != run.LongQueued || len(s.sent) != 1 {
			t.Errorf("finding %q, %d messages, %v", finding, len(s.sent), err)
		}
	})
	t.Run("knocks again when the same request comes again before anybody has begun", func(t *testing.T) {
		s := newStage(t)
		q := s.request()
		q.IdempotencyKey, q.BodyDigest = "order-16", "aa"
		s.fail = errors.New("the process died here")
		r := s.start(q)
		if s.start(q); len(s.sent) != 1 {
			t.Errorf("%d messages were sent", len(s.sent))
		}
		s.claim(r.ID)
		if s.start(q); len(s.sent) != 1 {
			t.Errorf("%d messages were sent for a run that has begun", len(s.sent))
		}
	})
	t.Run("gives the same run for the same key and body, and a conflict for another body", func(t *testing.T) {
		s := newStage(t)
		q := s.request()
		q.IdempotencyKey, q.BodyDigest = "order-17", "aa"
		first, again := s.start(q), s.start(q)
		if first.ID != again.ID {
			t.Errorf("runs %s and %s", first.ID, again.ID)
		}
		q.BodyDigest = "bb"
		if _, err := s.Start(t.Context(), q); !fault.Is(err, fault.Conflict) {
			t.Errorf("another body: %v", err)
		}
		s.clock = s.clock.Add(25 * time.Hour)
		if r := s.start(q); r.ID == first.ID {
			t.Error("the key is remembered for longer than a day")
		}
	})
	t.Run("seals the authorization of a target", func(t *testing.T) {
		s := newStage(t)
		q := s.request()
		q.Targets = []run.Target{{ID: "stream", Kind: run.StreamTarget, Authorization: "Bearer secret"}}
		req, err := s.Request(t.Context(), s.start(q).ID)
		if err != nil || req.Targets[0].Authorization != "sealed:target/stream" {
			t.Errorf("%+v, %v", req.Targets, err)
		}
	})
	t.Run("keeps every digit of a number and a request of several items", func(t *testing.T) {
		s := newStage(t)
		q := s.request()
		big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
		q.Inputs = map[string]any{"topic": big, "n": json.Number("12345678901234567890")}
		req, err := s.Request(t.Context(), s.start(q).ID)
		if err != nil || req.Inputs["topic"] != big || req.Inputs["n"] != json.Number("12345678901234567890") {
			t.Errorf("n is %v, topic has %d bytes, %v", req.Inputs["n"], len(fmt.Sprint(req.Inputs["topic"])), err)
		}
	})
}

func custom(name string) events.Draft {
	d, err := events.NewCustom("test."+name, nil, events.Identity{})
	if err != nil {
		panic(err)
	}
	return d
}

func say(words ...string) (all []json.RawMessage) {
	for _, w := range words {
		all = append(all, json.RawMessage(`"`+w+`"`))
	}
	return all
}

// ask is a model step of one conversation.
func ask(key string, messages []json.RawMessage) run.Step {
	return run.Step{
		Key: key, Request: key, Conversation: "talk", Messages: messages,
		Open: func(e *run.Emitter, n int) { e.Emit(custom(fmt.Sprintf("open%d", n)), run.Scope{}) },
		Cut:  func(e *run.Emitter, n int) { e.Emit(custom(fmt.Sprintf("cut%d", n)), run.Scope{}) },
		Do: func(_ context.Context, e *run.Emitter, n int) (any, error) {
			e.Emit(custom(fmt.Sprintf("done%d", n)), run.Scope{})
			return key, nil
		},
	}
}

func TestNoMessageOfAConversationIsKeptTwice(t *testing.T) {
	s := newStage(t)
	r := s.start(s.request())
	b := s.claim(r.ID).Root()
	turns := [][]json.RawMessage{
		say("system", "question"),
		say("system", "question", "answer", "tool"),
		say("system", "question", "answer", "tool", "answer2", "tool2"),
		say("system", "summary"),                 // the history was replaced
		say("system", "summary", "more", "last"), // and goes on
	}
	for i, messages := range turns {
		if _, err := b.Step(t.Context(), ask(fmt.Sprint("m", i), messages)); err != nil {
			t.Fatal(err)
		}
	}
	pages, err := s.Pages(t.Context(), r.ID, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for i, p := range pages {
		kept += len(p.Prompt.New)
		got, err := s.Messages(t.Context(), r.ID, p)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(turns[i], got); diff != "" {
			t.Errorf("page %d (-want +got):\n%s", p.Seq, diff)
		}
	}
	if want := 2 + 2 + 2 + 1 + 2; kept != want {
		t.Errorf("%d messages are kept, want %d", kept, want)
	}
}

// die makes an owner whose lease runs out, as if its process had died.
func (s *stage) die() { s.clock = s.clock.Add(s.Lease() + time.Second) }

func TestALiveStepThatWasCutIsRepeatedUnderANewAttempt(t *testing.T) {
	s := newStage(t)
	q := s.request()
	q.Targets = []run.Target{{ID: "stream", Kind: run.StreamTarget, Events: []string{"*"}, Realtime: true}}
	r := s.start(q)
	dying := ask("m", say("hello"))
	dying.Do = func(context.Context, *run.Emitter, int) (any, error) { return nil, errors.New("the process died here") }
	first := s.claim(r.ID).Root()
	first.Emit(custom("before"), run.Scope{})
	if _, err := first.Step(t.Context(), dying); err == nil {
		t.Fatal("the step has a result")
	}

	s.die()
	second := s.claim(r.ID).Root()
	second.Emit(custom("before"), run.Scope{})
	if _, err := second.Step(t.Context(), ask("m", say("hello"))); err != nil {
		t.Fatal(err)
	}
	pages, err := s.Pages(t.Context(), r.ID, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range pages {
		line := string(p.Kind)
		for _, e := range p.Events {
			line += " " + strings.TrimPrefix(e.Type, "test.")
		}
		got = append(got, line)
	}
	want := []string{"live before open1", "fence", "live cut1 open2", "step done2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAReplayThatAsksSomethingElseDiverges(t *testing.T) {
	s := newStage(t)
	r := s.start(s.request())
	if _, err := s.claim(r.ID).Root().Step(t.Context(), ask("m", say("hello"))); err != nil {
		t.Fatal(err)
	}
	s.die()
	other := ask("m", say("hello"))
	other.Request = "something else"
	var diverged *run.Diverged
	if _, err := s.claim(r.ID).Root().Step(t.Context(), other); !errors.As(err, &diverged) {
		t.Errorf("got %v", err)
	}
}

func TestARunThatKillsItsOwners(t *testing.T) {
	t.Run("is worked on alone after two of them, and given up after five", func(t *testing.T) {
		s := newStage(t)
		r := s.start(s.request())
		for range 2 {
			s.claim(r.ID)
			s.die()
		}
		for range 3 {
			if _, err := s.Claim(t.Context(), r.ID); !errors.Is(err, run.ErrAlone) {
				t.Fatalf("beside others it was claimed, with %v", err)
			}
			if _, err := s.ClaimAlone(t.Context(), r.ID); err != nil {
				t.Fatal(err)
			}
			s.die()
		}
		if _, err := s.ClaimAlone(t.Context(), r.ID); !errors.Is(err, run.ErrNothing) {
			t.Errorf("the sixth owner got %v", err)
		}
		r, err := s.Get(t.Context(), r.ID)
		if err != nil || r.State != run.Failed || r.Error != "The run crashed the runner 5 times without getting any further, so it was given up." {
			t.Errorf("state %s, error %q, %v", r.State, r.Error, err)
		}
	})
	t.Run("stays suspected when it leaves without a result", func(t *testing.T) {
		s := newStage(t)
		r := s.start(s.request())
		for range 2 {
			s.claim(r.ID)
			s.die()
		}
		o, err := s.ClaimAlone(t.Context(), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Release(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Claim(t.Context(), r.ID); !errors.Is(err, run.ErrAlone) {
			t.Errorf("it was claimed beside others, with %v", err)
		}
	})
	t.Run("yields after a new result, and is suspected no more", func(t *testing.T) {
		s := newStage(t)
		r := s.start(s.request())
		for range 2 {
			s.claim(r.ID)
			s.die()
		}
		o, err := s.ClaimAlone(t.Context(), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		b := o.Root()
		if _, err := b.Step(t.Context(), ask("one", say("one"))); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Step(t.Context(), ask("two", say("two"))); !errors.Is(err, run.ErrYield) {
			t.Errorf("the next step got %v", err)
		}
		s.die() // before it could release the run
		s.claim(r.ID)
		s.die()
		if _, err := s.Claim(t.Context(), r.ID); !errors.Is(err, run.ErrAlone) {
			t.Errorf("after two more deaths it was claimed beside others, with %v", err)
		}
	})
}

func TestAStepThatAnInvocationCutsOff(t *testing.T) {
	s := newStage(t)
	q := s.request()
	q.Targets = []run.Target{{ID: "all", Kind: run.StreamTarget, Events: []string{"*"}}}
	r := s.start(q)
	for n := 1; n <= 3; n++ {
		o := s.claim(r.ID)
		b := o.Root()
		b.Emit(custom("before"), run.Scope{})
		long := ask("long", say("hello"))
		long.Do = func(ctx context.Context, _ *run.Emitter, _ int) (any, error) {
			o.Cut()
			<-ctx.Done()
			return nil, ctx.Err()
		}
		_, err := b.Step(o.Work(), long)
		if !errors.Is(err, run.ErrYield) {
			t.Fatalf("attempt %d got %v", n, err)
		}
		if err := o.Release(time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	o := s.claim(r.ID)
	_, err := o.Root().Step(o.Work(), ask("long", say("done")))
	var long *run.TooLong
	if !errors.As(err, &long) || err.Error() != "Step long was cut off 3 times because it takes longer than one invocation may. The run was given up." {
		t.Errorf("the fourth owner got %v", err)
	}

	pages, err := s.Pages(t.Context(), r.ID, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, p := range pages {
		for _, e := range p.Events {
			told = append(told, e.Type)
		}
		if p.Kind == run.CutPage && len(p.Targets) != 1 {
			t.Errorf("page %d is told to nobody", p.Seq)
		}
	}
	want := []string{"test.before", "test.open1", "test.cut1", "test.open2", "test.cut2", "test.open3", "test.cut3"}
	if diff := cmp.Diff(told, want); diff != "" {
		t.Errorf("unexpected events (-got +want):\n%s", diff)
	}
}

func TestAnEventFromOutsideIsToldOnceThoughItsOwnerDied(t *testing.T) {
	s := newStage(t)
	s.Now = nil // Tell waits a little for the journal
	r := s.start(s.request())
	told := make(chan string)
	go func() {
		eventID, _, err := s.Tell(t.Context(), r.ID, "order.shipped", json.RawMessage(`{"n":1}`))
		if err != nil {
			t.Error(err)
		}
		told <- eventID
	}()
	for {
		inbox, err := s.Store.Scan(t.Context(), record.Prefix("R#"+r.ID, "RUN#"))
		if err != nil {
			t.Fatal(err)
		}
		if len(inbox) == 1 {
			break
		}
	}
	o := s.claim(r.ID)
	if err := o.End(run.Outcome{State: run.Succeeded}, o.Root()); err != nil {
		t.Fatal(err)
	}
	eventID := <-told
	pages, err := s.Pages(t.Context(), r.ID, 1, 0)
	if err != nil || len(pages) != 2 || len(pages[0].Events) != 1 || pages[0].Events[0].ID != eventID {
		t.Errorf("event %s, pages %+v, %v", eventID, pages, err)
	}
	if _, _, err := s.Tell(t.Context(), r.ID, "order.shipped", nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("after the end: %v", err)
	}
}

func TestList(t *testing.T) {
	s := newStage(t)
	var ids []string
	for range 5 {
		ids = append(ids, s.start(s.request()).ID)
	}
	if _, err := s.Stop(t.Context(), ids[1]); err != nil {
		t.Fatal(err)
	}
	var got []string
	for cursor := ""; ; {
		runs, next, err := s.List(t.Context(), run.ListRequest{DeploymentIDs: []string{s.request().Deployment.ID}, Limit: 2, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range runs {
			got = append(got, r.ID)
		}
		if cursor = next; next == "" {
			break
		}
	}
	want := []string{ids[4], ids[3], ids[2], ids[1], ids[0]}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("newest first (-want +got):\n%s", diff)
	}
	stopped, _, err := s.List(t.Context(), run.ListRequest{DeploymentIDs: []string{s.request().Deployment.ID}, States: []run.State{run.Canceled}})
	if err != nil || len(stopped) != 1 || stopped[0].ID != ids[1] {
		t.Errorf("stopped runs: %+v, %v", stopped, err)
	}
}

func TestMoves(t *testing.T) {
	ended := map[run.State]bool{run.Succeeded: true, run.Failed: true, run.Canceled: true, run.TimedOut: true}
	for _, state := range []run.State{run.Queued, run.Running, run.Waiting, run.Succeeded, run.Failed, run.Canceled, run.TimedOut} {
		if state.Ended() != ended[state] {
			t.Errorf("%s ended: %v", state, state.Ended())
		}
	}
}

func TestWhole_is_the_run_and_what_was_asked_for(t *testing.T) {
	s := newStage(t)
	_, _, err := s.Whole(t.Context(), "01a20000-0000-7000-8000-0000000000ff")
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("of a run that is not there: %v", err)
	}
	q := s.request()
	q.Inputs["long"] = strings.Repeat("tea and scones; ", 50_000)
	started := s.start(q)
	told := record.Record{Key: record.Key{Part: "R#" + started.ID, Sort: "RUN#x"}, Body: []byte("{}")}
	if _, err := s.Store.Put(t.Context(), told); err != nil {
		t.Fatal(err)
	}
	r, request, err := s.Whole(t.Context(), started.ID)
	if err != nil {
		t.Fatal(err)
	}
	wantRun, err1 := s.Get(t.Context(), started.ID)
	wantRequest, err2 := s.Request(t.Context(), started.ID)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if r.ID != wantRun.ID || r.State != wantRun.State || r.DeploymentID != wantRun.DeploymentID {
		t.Errorf("got the run %+v, want %+v", r, wantRun)
	}
	if diff := cmp.Diff(request, wantRequest); diff != "" {
		t.Errorf("unexpected request (-got +want):\n%s", diff)
	}
}

// meddler lets something happen right before the run item is written the next time.
type meddler struct {
	record.Store
	before func()
}

func (m *meddler) Put(ctx context.Context, r record.Record) (int64, error) {
	if before := m.before; before != nil && r.Sort == "RUN" {
		m.before = nil
		before()
	}
	return m.Store.Put(ctx, r)
}

// A process that started again looked after what is due at the moment when it took its messages up. The sweeper moved
// `due`, the claims of both messages were lost to it, and nobody came back for the run for a minute.
func TestAClaimIsNotLostToTheSweeper(t *testing.T) {
	s := newStage(t)
	r := s.start(s.request())
	s.clock = s.clock.Add(20 * time.Second)
	s.Store = &meddler{Store: s.Store, before: func() {
		if finding, err := s.Wake(t.Context(), r.ID); err != nil || finding == "" {
			t.Errorf("the sweeper found %q, %v", finding, err)
		}
	}}
	if o, err := s.Claim(t.Context(), r.ID); err != nil || o.Run().Epoch != 1 {
		t.Errorf("the claim gave %v", err)
	}
}

func TestAClaimIsLostToAnotherOwner(t *testing.T) {
	s := newStage(t)
	r := s.start(s.request())
	s.Store = &meddler{Store: s.Store, before: func() { s.claim(r.ID) }}
	if _, err := s.Claim(t.Context(), r.ID); !errors.Is(err, run.ErrLost) {
		t.Errorf("the claim gave %v, want %v", err, run.ErrLost)
	}
}
