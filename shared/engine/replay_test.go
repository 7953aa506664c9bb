package engine_test

import (
	"encoding/json"
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

func TestWhoeverTakesOverComesToTheSameEndAfterEveryPage(t *testing.T) {
	w := newWorld(t, busyScript)
	w.withSearch()
	d := busyCrew()
	r := w.start()
	queued, err := w.store.Scan(w.ctx, record.Prefix("R#"+r.ID, "R"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := w.goOn(r.ID, d)
	if err != nil {
		t.Fatal(err)
	}
	if want.State != run.Succeeded || string(want.JSON) != `{"risk":"rain"}` {
		t.Fatalf("the run ended with %+v", want)
	}
	pages := w.pages(r.ID)
	wantEvents := facts(w.events(r.ID))
	calls := len(w.server.Calls())

	for n := range len(pages) {
		t.Run(fmt.Sprintf("after page %d", n), func(t *testing.T) {
			c := w.copyOf(t, r.ID, queued, n)
			modelSteps := 0
			for _, p := range pages[:n] {
				if p.Kind == run.StepPage && !strings.Contains(p.Key, "/tool/") {
					modelSteps++
				}
			}
			before := len(w.server.Calls())
			got, err := c.goOn(r.ID, d)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the outcome differs (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(wantEvents, facts(c.events(r.ID))); diff != "" {
				t.Errorf("the events differ (-want +got):\n%s", diff)
			}
			c.tree(r.ID)
			if made := len(w.server.Calls()) - before; made != calls-modelSteps {
				t.Errorf("%d model calls were made, want the %d that were not recorded", made, calls-modelSteps)
			}
		})
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
	w.withSearch()
	w.targets = []run.Target{{ID: "s", Kind: run.StreamTarget, URL: "https://example.com", Events: []string{"*"}, Realtime: true}}
	d := newCrew(nativeModel, crew.Task{Key: "research", Tools: []crew.Tool{search("search")}})
	r := w.start()
	queued, err := w.store.Scan(w.ctx, record.Prefix("R#"+r.ID, "R"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.goOn(r.ID, d); err != nil {
		t.Fatal(err)
	}
	pages := w.pages(r.ID)
	for i, p := range pages {
		if p.Kind != run.LivePage {
			continue
		}
		t.Run(p.Key, func(t *testing.T) {
			c := w.copyOf(t, r.ID, queued, i+1)
			if _, err := c.goOn(r.ID, d); err != nil {
				t.Fatal(err)
			}
			c.tree(r.ID)
			opened := p.Events[len(p.Events)-1]
			after := c.events(r.ID)
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
