package run_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/events"
	"muster/shared/id"
	"muster/shared/run"
)

func TestStandingTargetsAreReadAtTheClaimAndBeforeTheEnd(t *testing.T) {
	s := newStage(t)
	first, second := id.New(), id.New()
	standing := []run.Target{{ID: first, Kind: run.EndpointTarget, Events: []string{"*"}}}
	reads := 0
	s.Standing = func(_ context.Context, r run.Run) ([]run.Target, error) {
		if reads++; r.DeploymentID == "" || r.Environment != "production" {
			t.Errorf("asked for %+v", r)
		}
		return standing, nil
	}
	r := s.start(s.request())
	o := s.claim(r.ID)
	standing = []run.Target{{ID: second, Kind: run.EndpointTarget, Events: []string{"run.failed"}}}
	b := o.Root()
	b.Emit(custom("done"), run.Scope{})
	if _, err := b.Step(t.Context(), ask("one", say("one"))); err != nil {
		t.Fatal(err)
	}
	if err := o.Fail(run.Outcome{State: run.TimedOut, Error: "too slow"}); err != nil {
		t.Fatal(err)
	}
	pages, err := s.Pages(t.Context(), r.ID, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	var told [][]string
	for _, p := range pages {
		told = append(told, p.Targets)
	}
	if diff := cmp.Diff([][]string{{first}, {second}}, told); diff != "" || reads != 2 {
		t.Errorf("%d reads; told (-want +got):\n%s", reads, diff)
	}
	if !slices.ContainsFunc(s.groups(), func(g string) bool { return g == second }) {
		t.Errorf("the groups of the messages are %v", s.groups())
	}
}

// groups gives the groups of what was sent.
func (s *stage) groups() (groups []string) {
	for _, m := range s.sent {
		groups = append(groups, m.Group)
	}
	return groups
}

func TestARunIsNeitherBegunNorEndedWhileItsStandingTargetsCannotBeRead(t *testing.T) {
	s := newStage(t)
	down := errors.New("down")
	var fail error
	s.Standing = func(context.Context, run.Run) ([]run.Target, error) { return nil, fail }
	r := s.start(s.request())
	fail = down
	if _, err := s.Claim(t.Context(), r.ID); !errors.Is(err, down) {
		t.Errorf("claimed: %v", err)
	}
	fail = nil
	o := s.claim(r.ID) // the claim that failed has let go of it
	fail = down
	if err := o.Fail(run.Outcome{State: run.Failed}); !errors.Is(err, down) {
		t.Errorf("ended: %v", err)
	}
	if p, err := s.Newest(t.Context(), r.ID); err == nil && p.Outcome != nil {
		t.Error("the end is in the journal, and nobody may have been told")
	}
}

func TestWhatEndpointsWant(t *testing.T) {
	end := func(state run.State) run.Page {
		return run.Page{Kind: run.EndPage, Outcome: &run.Outcome{State: state}, Events: []events.Event{{Type: "crew_kickoff_failed"}}}
	}
	begun := run.Page{Kind: run.MarkPage, Events: []events.Event{{Type: "crew_kickoff_started"}, {Type: "task_started"}}}
	both := end(run.Failed)
	both.Events = append(both.Events, begun.Events...)
	for _, c := range []struct {
		name   string
		page   run.Page
		life   string
		wanted []string // filters, each alone
		not    []string
	}{
		{"a beginning", begun, "run.started", []string{"run.started", "task_started", "*"}, []string{"run.succeeded", "run.failed", "run.canceled", "run.waiting", "task_completed"}},
		{"a question", run.Page{Kind: run.QuestionPage}, "run.waiting", []string{"run.waiting", "*"}, []string{"run.started"}},
		{"a success", end(run.Succeeded), "run.succeeded", []string{"run.succeeded", "*"}, []string{"run.failed", "run.canceled"}},
		{"a failure", end(run.Failed), "run.failed", []string{"run.failed", "crew_kickoff_failed"}, []string{"run.succeeded", "run.canceled"}},
		{"a run out of time", end(run.TimedOut), "run.failed", []string{"run.failed"}, []string{"run.canceled"}},
		{"a canceled run", end(run.Canceled), "run.canceled", []string{"run.canceled"}, []string{"run.failed"}},
		{"a run that fails as it begins", both, "run.started run.failed", []string{"run.started", "run.failed"}, nil},
		{"chunks", run.Page{Kind: run.LivePage, Events: []events.Event{{Type: "llm_stream_chunk"}}}, "", []string{"llm_stream_chunk"}, []string{"*"}},
		{"a step without events", run.Page{Kind: run.StepPage, Notes: []run.Note{{}}}, "", nil, []string{"*"}},
	} {
		if life := strings.Join(c.page.Lifecycle(), " "); life != c.life {
			t.Errorf("%s: the lifecycle is %q, want %q", c.name, life, c.life)
		}
		for _, filter := range slices.Concat(c.wanted, c.not) {
			e := run.Target{Kind: run.EndpointTarget, Events: []string{filter}}
			if got, want := run.Wants(e, c.page), slices.Contains(c.wanted, filter); got != want {
				t.Errorf("%s: an endpoint that asks for %s is told: %t, want %t", c.name, filter, got, want)
			}
		}
	}
	// Streams given at kickoff know events only, chunks among them.
	stream := run.Target{Kind: run.StreamTarget, Events: []string{"*"}}
	if run.Wants(stream, run.Page{Kind: run.QuestionPage}) || !stream.Asks("llm_stream_chunk") {
		t.Error("a stream wants something else than before")
	}
}
