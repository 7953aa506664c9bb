package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/engine/llm/scripted"
	"muster/shared/engine/tool"
	"muster/shared/record"
	"muster/shared/run"
)

// busyCrew has a bit of everything: tools in parallel, a guardrail that sends back, tasks beside each other, JSON that must
// be converted.
func busyCrew() crew.Definition {
	report := crew.Task{Key: "report", OutputJSON: json.RawMessage(`{"type":"object","properties":{"risk":{"type":"string"}},"required":["risk"]}`)}
	return newCrew(nativeModel,
		crew.Task{Key: "research", Tools: []crew.Tool{search("search")}, Guardrails: []string{"Name a source."}},
		crew.Task{Key: "left", Async: true}, crew.Task{Key: "right", Async: true, Tools: []crew.Tool{search("search")}},
		report,
	)
}

// busyScript answers by what it is asked, never by how often: a replay must not change an answer.
func busyScript(r scripted.Request) scripted.Reply {
	user := r.User()
	switch {
	case strings.Contains(r.System(), "Guardrail Agent"):
		if strings.Contains(user, "source: the almanac") {
			return ok
		}
		return scripted.Text(`{"valid": false, "feedback": "no source"}`)
	case strings.Contains(r.System(), "You turn text into JSON"):
		return scripted.Text(`{"risk": "rain"}`)
	case strings.HasPrefix(user, "Do research."):
		if r.Last().Role == llm.User {
			return joined(scripted.Use("search", map[string]any{"query": "rain"}), scripted.Use("search", map[string]any{"query": "sun"}))
		}
		if strings.Contains(user, "no source") {
			return scripted.Text("It rains, source: the almanac.")
		}
		return scripted.Text("It rains.")
	case strings.HasPrefix(user, "Do right.") && r.Last().Role == llm.User:
		return scripted.Use("search", map[string]any{"query": "wind"})
	}
	return scripted.Text("Answer to: " + strings.SplitN(user, "\n", 2)[0])
}

// wordScript is for a model without functions: an action that breaks, one that is repeated, one that is done, an answer.
func wordScript(r scripted.Request) scripted.Reply {
	switch len(r.Messages) {
	case 2:
		return scripted.Text("Thought: a\nAction: search\nAction Input: {'query': 'broken'}")
	case 4, 6:
		return scripted.Text("Thought: b\nAction: search\nAction Input: {'query': 'rain'}")
	case 8:
		return scripted.Text("Thought: c\nAction: search\nAction Input: {'query': 'sun'}")
	}
	return scripted.Text("Final Answer: " + r.Messages[len(r.Messages)-2].Content)
}

func TestWhoeverTakesOverComesToTheSameEndAfterEveryPage(t *testing.T) {
	limited := newCrew(wordModel, crew.Task{Key: "research", Tools: []crew.Tool{{Type: "search", Name: "search", MaxUsageCount: 4}}})
	limited.Cache = true
	failing := busyCrew()
	failing.Tasks[2].ToolFailurePolicy = "raise"
	cases := []struct {
		name   string
		crew   crew.Definition
		script scripted.Script
		state  run.State
		json   string
	}{
		{"a bit of everything", busyCrew(), busyScript, run.Succeeded, `{"risk":"rain"}`},
		{"a model without functions, limits and a cache", limited, wordScript, run.Succeeded, ""},
		{"a task that fails beside another", failing, func(r scripted.Request) scripted.Reply {
			if strings.HasPrefix(r.User(), "Do right.") {
				return scripted.Use("search", map[string]any{"query": "broken"})
			}
			return busyScript(r)
		}, run.Failed, ""},
		{"a model that fails", busyCrew(), func(r scripted.Request) scripted.Reply {
			if strings.HasPrefix(r.User(), "Do report.") {
				return scripted.Fail(400, "no")
			}
			return busyScript(r)
		}, run.Failed, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.script)
			w.withSearch().do = func(_ context.Context, c tool.Call) (tool.Result, error) {
				if c.Arguments["query"] == "broken" {
					return tool.Result{}, errors.New("the index is down")
				}
				return tool.Result{Text: fmt.Sprintf("found %v", c.Arguments["query"])}, nil
			}
			if out := w.replayEveryPage(t, c.crew, c.state); string(out.JSON) != c.json {
				t.Errorf("the run ended with %+v", out)
			}
		})
	}
}

// replayEveryPage does a crew to its end, and goes on after each of its pages as if the owner had died there.
func (w *world) replayEveryPage(t *testing.T, d crew.Definition, state run.State) run.Outcome {
	t.Helper()
	r := w.start()
	queued := w.records(r.ID)
	want, err := w.goOn(r.ID, d)
	if err != nil {
		t.Fatal(err)
	}
	if want.State != state {
		t.Fatalf("the run ended with %+v", want)
	}
	h := history{w, r.ID, d, w.history(r.ID, queued), w.pages(r.ID), facts(w.events(r.ID)), want}
	for n := range len(h.pages) {
		h.takeOver(t, n)
	}
	return want
}

// history is a run that has ended.
type history struct {
	*world
	runID  string
	crew   crew.Definition
	before []record.Record
	pages  []run.Page
	facts  map[string]string
	want   run.Outcome
}

// takeOver goes on after the first n pages, and compares.
func (h history) takeOver(t *testing.T, n int) {
	t.Helper()
	open := 0
	for _, p := range h.pages[n:] {
		if p.Kind == run.StepPage && !strings.Contains(p.Key, "/tool/") {
			open++
		}
	}
	h.back(h.runID, h.before, n)
	asked := len(h.server.Calls())
	got, err := h.goOn(h.runID, h.crew)
	if err != nil {
		t.Fatalf("after page %d: %v", n, err)
	}
	if diff := cmp.Diff(h.want, got); diff != "" {
		t.Errorf("after page %d the outcome differs (-want +got):\n%s", n, diff)
	}
	if diff := cmp.Diff(h.facts, facts(h.events(h.runID))); diff != "" {
		t.Errorf("after page %d the events differ (-want +got):\n%s", n, diff)
	}
	h.tree(h.runID)
	if made := len(h.server.Calls()) - asked; made != open {
		t.Errorf("after page %d there were %d model calls, want the %d that were not recorded", n, made, open)
	}
}

// responseID is numbered by the scripted server in order of arrival.
var responseID = regexp.MustCompile(`"response_id":"[^"]*"`)

// facts are the events by id, without what depends on which of two branches came first.
func facts(all []events.Event) map[string]string {
	m := map[string]string{}
	for _, e := range all {
		m[e.ID] = strings.Join([]string{e.Type, e.Parent, e.Started, e.TaskName, e.AgentRole,
			responseID.ReplaceAllString(string(e.Data), "")}, " ")
	}
	return m
}

func TestACallThatADeathCutIsClosedAndMadeAgainUnderANewID(t *testing.T) {
	w := newWorld(t, useThenSay("search", map[string]any{"query": "rain"}, "Done."))
	w.onDisk()
	w.withSearch()
	w.targets = []run.Target{{ID: "s", Kind: run.StreamTarget, URL: "https://example.com", Events: []string{"*"}, Realtime: true}}
	d := newCrew(nativeModel, crew.Task{Key: "research", Tools: []crew.Tool{search("search")}})
	r := w.start()
	queued := w.records(r.ID)
	if _, err := w.goOn(r.ID, d); err != nil {
		t.Fatal(err)
	}
	before := w.history(r.ID, queued)
	for i, p := range w.pages(r.ID) {
		if p.Kind != run.LivePage {
			continue
		}
		t.Run(p.Key, func(t *testing.T) {
			w.back(r.ID, before, i+1)
			if _, err := w.goOn(r.ID, d); err != nil {
				t.Fatal(err)
			}
			w.tree(r.ID)
			opened := p.Events[len(p.Events)-1]
			after := w.events(r.ID)
			at := slices.IndexFunc(after, func(e events.Event) bool { return e.ID == opened.ID })
			closing, again := after[at+1], after[at+2]
			if closing.Started != opened.ID || again.Type != opened.Type || again.ID == opened.ID {
				t.Errorf("after %s come %s (closing %s) and %s", opened.Type, closing.Type, closing.Started, again.Type)
			}
			if closing.Type != "llm_call_failed" && closing.Type != "tool_usage_error" {
				t.Errorf("the cut call is closed by %s", closing.Type)
			}
			if opened.Type == "llm_call_started" && callID(t, opened) == callID(t, again) {
				t.Error("the repeated call has the call id of the one that was cut")
			}
		})
	}
}

func callID(t *testing.T, e events.Event) string {
	t.Helper()
	var data struct {
		CallID string `json:"call_id"`
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		t.Fatal(err)
	}
	return data.CallID
}

func TestARunOverItsRateWaitsOutsideAndGoesOn(t *testing.T) {
	w := newWorld(t, func(scripted.Request) scripted.Reply { return scripted.Text("Done.") })
	d := newCrew(nativeModel, crew.Task{Key: "one"}, crew.Task{Key: "two"}, crew.Task{Key: "three"})
	d.MaxRPM = 2
	r := w.start()
	_, err := w.goOn(r.ID, d)
	later, isLater := err.(*run.Later)
	if !isLater {
		t.Fatalf("the third call within a minute gave %v, want run.Later", err)
	}
	if wait := later.At.Sub(w.clock()); wait <= 0 || wait > time.Minute+time.Second {
		t.Errorf("the run waits %s", wait)
	}
	if n := len(w.server.Calls()); n != 2 {
		t.Errorf("%d calls were made", n)
	}
	w.pass(later.At.Sub(w.clock()))
	out, err := w.goOn(r.ID, d)
	if err != nil || out.State != run.Succeeded {
		t.Fatalf("the run ended with %+v, %v", out, err)
	}
	if n := len(w.server.Calls()); n != 3 {
		t.Errorf("%d calls were made in all", n)
	}
}
