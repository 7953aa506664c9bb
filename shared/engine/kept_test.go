package engine_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/shared/crew"
	"muster/shared/engine/llm/scripted"
	"muster/shared/run"
)

// kept is what an earlier run gave, by task.
func kept(outputs map[string]string) map[string]run.Kept {
	all := map[string]run.Kept{}
	for key, raw := range outputs {
		all[key] = run.Kept{Output: run.TaskOutput{TaskID: "of the earlier run", Name: key, Raw: raw, Summary: raw, Agent: "Somebody"}}
	}
	return all
}

func TestAKeptTaskIsNotDoneAndItsOutputIsUsed(t *testing.T) {
	w := newWorld(t, echo)
	w.kept = kept(map[string]string{"one": "ONE", "two": "TWO"})
	runID, out := w.do(newCrew(nativeModel, crew.Task{Key: "one"}, crew.Task{Key: "two", Async: true}, crew.Task{Key: "three"}, crew.Task{Key: "four"}))
	if out.State != run.Succeeded || out.Result != "Answer to: Do four." {
		t.Fatalf("the run ended with %+v", out)
	}
	if n := len(w.server.Calls()); n != 2 {
		t.Errorf("%d calls were made, want those of the two tasks that were not kept", n)
	}
	if asked := w.asked("three"); !strings.Contains(asked, "ONE\n\n----------\n\nTWO") {
		t.Errorf("the next task was given %q", asked)
	}
	for _, e := range w.events(runID) {
		if e.TaskName == "one" || e.TaskName == "two" {
			t.Errorf("%s is told of a task that was kept", e.Type)
		}
	}
	pages := w.pages(runID)
	if first, last := pages[0].Progress, pages[len(pages)-1].Progress; first.Completed != 2 || first.Total != 4 || last.Completed != 4 {
		t.Errorf("progress goes from %+v to %+v", first, last)
	}
}

func TestTheLastTaskMayBeAKeptOne(t *testing.T) {
	w := newWorld(t, echo)
	w.kept = kept(map[string]string{"two": "TWO"})
	w.kept["two"] = run.Kept{Output: run.TaskOutput{Raw: `{"a":1}`, JSON: json.RawMessage(`{"a":1}`)}}
	_, out := w.do(newCrew(nativeModel, crew.Task{Key: "one", Async: true}, crew.Task{Key: "two", Async: true}))
	if diff := cmp.Diff(run.Outcome{State: run.Succeeded, Result: `{"a":1}`, JSON: json.RawMessage(`{"a":1}`)}, out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhoeverTakesOverKeepsWhatWasKept(t *testing.T) {
	w := newWorld(t, busyScript)
	w.withSearch()
	w.kept = kept(map[string]string{"research": "It rains.", "left": "LEFT"})
	w.replayEveryPage(t, busyCrew(), run.Succeeded)
}

func TestWhoeverTakesOverReachesTheSameLimit(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits crew.Limits
		limit  string
	}{
		{"steps", crew.Limits{MaxSteps: 4}, "max_steps"},
		{"tokens", crew.Limits{MaxTokens: 60}, "max_tokens"},
		{"cost", crew.Limits{MaxCostUSD: 0.00002}, "max_cost_usd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, echo)
			w.limits = c.limits
			d := newCrew(nativeModel, crew.Task{Key: "one"}, crew.Task{Key: "two"}, crew.Task{Key: "three"}, crew.Task{Key: "four"}, crew.Task{Key: "five"})
			out := w.replayEveryPage(t, d, run.Failed)
			if !strings.Contains(out.Error, "its limit "+c.limit) {
				t.Errorf("the run ended with %+v", out)
			}
		})
	}
}

func TestACostLimitRefusesAModelWithoutAPriceBeforeItCosts(t *testing.T) {
	w := newWorld(t, echo)
	w.limits.MaxCostUSD = 1
	_, out := w.do(newCrew(wordModel, crew.Task{Key: "one"}))
	want := `Task "one" cannot begin: the run has a limit of cost (max_cost_usd), and the model openai/gemma2 has no price; ` +
		`give it one with PATCH /v1/deployments/{id} {"prices": …}, or leave the limit out.`
	if out.State != run.Failed || out.Error != want || len(w.server.Calls()) != 0 {
		t.Errorf("%d calls, and %+v", len(w.server.Calls()), out)
	}
}

func TestCallsAreCountedByModelAndTool(t *testing.T) {
	w := newWorld(t, func(r scripted.Request) scripted.Reply {
		if strings.HasPrefix(r.User(), "Do two.") {
			return scripted.Fail(400, "no")
		}
		return useThenSay("search", map[string]any{"query": "rain"}, "Done.")(r)
	})
	w.withSearch()
	runID, out := w.do(newCrew(nativeModel, crew.Task{Key: "one", Tools: []crew.Tool{search("search")}}, crew.Task{Key: "two"}))
	if out.State != run.Failed {
		t.Fatalf("%+v", out)
	}
	pages := w.pages(runID)
	totals := pages[len(pages)-1].Totals
	m := totals.ByModel[nativeModel.Name]
	if totals.ToolCalls != 1 || m.Calls != 5 || m.SuccessfulRequests != 2 || m.Usage != totals.Usage || m.CostUSD <= 0 || m.Unpriced != 0 {
		t.Errorf("%d tool calls and %+v; want 1, and 5 of which 2 succeeded", totals.ToolCalls, m)
	}
}
