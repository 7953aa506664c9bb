package engine_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/crew"
	"muster/shared/engine/llm/scripted"
	"muster/shared/run"
)

// answer answers the newest open question of a run.
func (w *world) answer(runID string, a run.Reply) {
	w.t.Helper()
	newest, err := w.runs.Newest(w.ctx, runID)
	if err != nil || len(newest.Open) == 0 {
		w.t.Fatalf("no question is open: %+v, %v", newest.Open, err)
	}
	if err := w.runs.Answer(w.ctx, newest.Open[len(newest.Open)-1].ID, a); err != nil {
		w.t.Fatal(err)
	}
}

// rest lets the run go on until it waits.
func (w *world) rest(runID string, d crew.Definition) {
	w.t.Helper()
	if out, err := w.goOn(runID, d); !errors.Is(err, run.ErrWaiting) {
		w.t.Fatalf("the run does not wait: %+v, %v", out, err)
	}
}

func TestAPersonJudgesAnOutput(t *testing.T) {
	d := newCrew(nativeModel, crew.Task{Key: "draft", HumanInput: true, Guardrails: []string{"It is polite."}}, crew.Task{Key: "print"})
	w := newWorld(t, func(r scripted.Request) scripted.Reply {
		switch {
		case strings.Contains(r.System(), "Guardrail Agent"):
			return ok
		case strings.Contains(r.Last().Content, "Do print."):
			return scripted.Text("Printed.")
		case strings.Contains(r.Last().Content, "shorter, please"):
			return scripted.Text("Short.")
		}
		return scripted.Text("A long draft.")
	})
	r := w.start()
	w.rest(r.ID, d)
	w.answer(r.ID, run.Reply{Feedback: "Make it shorter, please.\nAnd friendly."})
	w.rest(r.ID, d)
	w.answer(r.ID, run.Reply{Approve: true, Feedback: "Use blue paper."})
	out, err := w.goOn(r.ID, d)
	if err != nil || out.State != run.Succeeded || out.Result != "Printed." {
		t.Errorf("the run ended as %+v, %v", out, err)
	}

	round := `
    agent_execution_started
      agent_logs_started
      llm_call_started
      llm_call_completed
      agent_logs_execution
    agent_execution_completed
    llm_guardrail_started
      llm_call_started
      llm_call_completed
    llm_guardrail_completed
    human_feedback_requested
    human_feedback_received`
	want := "crew_kickoff_started\n  task_started" + round + round + `
  task_completed
  task_started
    agent_execution_started
      agent_logs_started
      llm_call_started
      llm_call_completed
      agent_logs_execution
    agent_execution_completed
  task_completed
crew_kickoff_completed
`
	var got strings.Builder
	for line := range strings.Lines(w.tree(r.ID)) {
		got.WriteString(line[3:])
	}
	if diff := cmp.Diff(got.String(), want); diff != "" {
		t.Errorf("the order of events (-got +want):\n%s", diff)
	}

	var answers []map[string]any
	for _, e := range w.ofType(r.ID, "human_feedback_received") {
		answers = append(answers, map[string]any{"feedback": e["feedback"], "outcome": e["outcome"], "method_name": e["method_name"]})
	}
	if diff := cmp.Diff(answers, []map[string]any{
		{"feedback": "Make it shorter, please.\nAnd friendly.", "outcome": "reject", "method_name": "draft"},
		{"feedback": "Use blue paper.", "outcome": "approve", "method_name": "draft"},
	}); diff != "" {
		t.Errorf("the answers as told (-got +want):\n%s", diff)
	}
	asked := w.ofType(r.ID, "human_feedback_requested")
	if asked[0]["output"] != "A long draft." || asked[1]["output"] != "Short." || asked[0]["request_id"] == asked[1]["request_id"] {
		t.Errorf("the questions as told: %v", asked)
	}

	// Everything that was said is known to later work.
	requests := w.server.Calls()
	last := requests[len(requests)-1].Last().Content
	for _, part := range []string{"Short.", "Make it shorter, please.\nAnd friendly.", "Use blue paper."} {
		if !strings.Contains(last, part) {
			t.Errorf("the task after it does not know %q: %s", part, last)
		}
	}
	for _, p := range w.pages(r.ID) {
		for _, done := range p.Tasks {
			if done.Name == "draft" && done.Raw != "Short." {
				t.Errorf("the output is %q", done.Raw)
			}
		}
	}
	if len(requests) != 5 {
		t.Errorf("%d model calls for five answers", len(requests))
	}
}

func TestATaskBesideAWaitingOneGoesOn(t *testing.T) {
	d := newCrew(nativeModel,
		crew.Task{Key: "one", Async: true, HumanInput: true}, crew.Task{Key: "two", Async: true, HumanInput: true},
		crew.Task{Key: "three", Async: true}, crew.Task{Key: "last"})
	w := newWorld(t, scripted.Sequence(scripted.Text("Done.")))
	r := w.start()
	w.rest(r.ID, d)
	newest, err := w.runs.Newest(w.ctx, r.ID)
	if err != nil || len(newest.Open) != 2 || newest.Progress.Completed != 1 {
		t.Fatalf("open %+v, %d tasks completed, %v", newest.Open, newest.Progress.Completed, err)
	}
	w.answer(r.ID, run.Reply{Approve: true})
	w.rest(r.ID, d) // for the other
	w.answer(r.ID, run.Reply{Approve: true})
	if out, err := w.goOn(r.ID, d); err != nil || out.State != run.Succeeded {
		t.Errorf("the run ended as %+v, %v", out, err)
	}
	if calls := len(w.server.Calls()); calls != 4 {
		t.Errorf("%d model calls for four tasks", calls)
	}
}

func TestAFailureBesideAWaitingTaskEndsTheRun(t *testing.T) {
	d := newCrew(nativeModel, crew.Task{Key: "one", Async: true, HumanInput: true}, crew.Task{Key: "two", Async: true})
	w := newWorld(t, func(r scripted.Request) scripted.Reply {
		if strings.Contains(r.Last().Content, "Do two.") {
			return scripted.Fail(400, "no such model")
		}
		return scripted.Text("Done.")
	})
	if _, out := w.do(d); out.State != run.Failed {
		t.Errorf("the run ended as %+v", out)
	}
}

func TestAQuestionThatNobodyAnswers(t *testing.T) {
	for _, c := range []struct{ name, otherwise, want string }{
		{"is approved", run.Approve, "succeeded "},
		{"fails its task when it is rejected", run.Reject, `failed Task "draft" failed: Nobody answered within 60 seconds, and then its output counts as rejected.`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newCrew(nativeModel, crew.Task{Key: "draft", HumanInput: true, HumanInputTimeout: 60, HumanInputDefault: c.otherwise})
			w := newWorld(t, scripted.Sequence(scripted.Text("Done.")))
			r := w.start()
			w.rest(r.ID, d)
			w.pass(time.Minute)
			if _, err := w.runs.Wake(w.ctx, r.ID); err != nil {
				t.Fatal(err)
			}
			out, err := w.goOn(r.ID, d)
			if got := string(out.State) + " " + out.Error; err != nil || got != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
			if n := len(w.server.Calls()); n != 1 {
				t.Errorf("%d model calls", n)
			}
		})
	}
}
