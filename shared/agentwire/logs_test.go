package agentwire

import (
	"encoding/json"
	"testing"
	"time"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/run"
)

const deploymentID = "01a20000-0000-7000-8000-000000000001"

func TestLog(t *testing.T) {
	d := crew.Definition{Agents: []crew.Agent{{Key: "reviewer"}, {Key: "writer"}}}
	writer := crew.AgentID(deploymentID, "writer")
	of := func(kind, data string, who events.Identity) events.Event {
		return events.Event{ID: "e", N: 7, At: time.Unix(1_800_000_000, 0), Type: kind, Identity: who, Data: json.RawMessage(data)}
	}
	for _, c := range []struct {
		name  string
		event events.Event
		alone string // the agent that does the run alone

		level, agent, content string
		tokens                int
		tool                  string
	}{
		{"an answer", of("llm_call_completed", `{"response": "Good.", "usage": {"total_tokens": 12}}`, events.Identity{AgentID: writer}), "", "info", "writer", "Good.", 12, ""},
		{"calls of tools", of("llm_call_completed", `{"response": [{"id": "c"}], "usage": null}`, events.Identity{AgentID: writer}), "", "info", "writer", `[{"id": "c"}]`, 0, ""},
		{"a tool", of("tool_usage_finished", `{"tool_name": "search", "output": "Rain."}`, events.Identity{AgentID: writer}), "", "info", "writer", "Rain.", 0, "search"},
		{"a tool that broke", of("tool_usage_error", `{"tool_name": "search", "error": "It broke."}`, events.Identity{AgentID: writer}), "", "error", "writer", "It broke.", 0, "search"},
		{"a call that failed", of("llm_call_failed", `{"error": "No."}`, events.Identity{AgentID: writer}), "", "warn", "writer", "No.", 0, ""},
		{"the end of a crew", of("crew_kickoff_completed", `{"output": {"raw": "All."}}`, events.Identity{}), "", "info", "", "All.", 0, ""},
		{"the end of one agent's run", of("crew_kickoff_failed", `{"error": "timed out"}`, events.Identity{}), "reviewer", "error", "reviewer", "timed out", 0, ""},
		{"an event that nobody has words for", of("com.example.done", `{"a": 1}`, events.Identity{}), "", "info", "", "", 0, ""},
		{"an event of another shape", of("tool_usage_finished", `{"output": {"a": [1]}, "tool_name": 7}`, events.Identity{AgentID: writer}), "", "info", "writer", `{"a": [1]}`, 0, ""},
	} {
		got := Log(run.Run{ID: deploymentID, DeploymentID: deploymentID, Agent: c.alone}, d, run.Page{Events: []events.Event{c.event}})
		if len(got) != 1 {
			t.Fatalf("%s: %+v", c.name, got)
		}
		e := got[0]
		if e.Level != c.level || e.Agent != c.agent || e.Content != c.content || (e.Tokens != nil) != (c.tokens > 0) || e.Tokens != nil && *e.Tokens != c.tokens ||
			(e.AgentID != nil) != (c.agent != "") || e.Metadata.Sequence != 7 || e.Metadata.RunID != "run_01a20000000070008000000000000001" || e.Event != c.event.Type {
			t.Errorf("%s: %+v", c.name, e)
		}
		if c.tool != "" && (e.Tool == nil || *e.Tool != c.tool) {
			t.Errorf("%s: the tool is %v", c.name, e.Tool)
		}
	}
}

func TestRunsInTheWordsOfTheWire(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		state  run.State
		status string
		exit   int // -1: none
	}{
		{run.Queued, "RUNNING", -1}, {run.Running, "RUNNING", -1}, {run.Waiting, "RUNNING", -1}, {run.Succeeded, "COMPLETED", 0},
		{run.Failed, "FAILED", 1}, {run.TimedOut, "TIMEOUT", 1}, {run.Canceled, "CANCELLED", -1},
	} {
		r := run.Run{ID: deploymentID, DeploymentID: deploymentID, Origin: "api", State: c.state, Error: "why", StartedAt: start}
		if c.state.Ended() {
			r.EndedAt = start.Add(1500 * time.Millisecond)
		}
		s := ShowRun(r, run.Page{}, nil)
		if s.Status != c.status || (s.ExitCode != nil) != (c.exit >= 0) || s.ExitCode != nil && *s.ExitCode != c.exit || (s.ErrorMessage != nil) != (c.exit == 1) ||
			(s.DurationMS != nil) != c.state.Ended() || s.DurationMS != nil && *s.DurationMS != 1500 || s.TriggerType != "API" || string(s.Metadata) != "{}" {
			t.Errorf("%s: %+v", c.state, s)
		}
	}
	late := ShowRun(run.Run{State: run.Running, StartedAt: start}, run.Page{At: start.Add(time.Second), Outcome: &run.Outcome{State: run.Failed, Error: "e"}}, nil)
	if late.Status != "FAILED" || late.DurationMS == nil || *late.DurationMS != 1000 {
		t.Errorf("the newest page goes before the item: %+v", late)
	}
}

// A trigger type that nobody has used to be answered with an empty list.
func TestTriggerTypes(t *testing.T) {
	for word, want := range map[string]string{"WEBHOOK": "trigger", "webhook": "trigger", "Cron": "schedule", "API": "api", "REPLAY": "replay"} {
		if got, err := originOf(word); got != want || err != nil {
			t.Errorf("%s: got %q, %v", word, got, err)
		}
	}
	if _, err := originOf("WEBHOK"); !fault.Is(err, fault.Invalid) || fault.Message(err) != `There is no trigger type "WEBHOK"; there are WEBHOOK, API, CRON and REPLAY.` {
		t.Errorf("an unknown one: %v", err)
	}
}

func TestPercentiles(t *testing.T) {
	var took []time.Duration
	for i := range 100 {
		took = append(took, time.Duration(i+1)*time.Millisecond)
	}
	if p50, p95 := percentile(took, 50), percentile(took, 95); *p50 != 50 || *p95 != 95 {
		t.Errorf("got %d and %d", *p50, *p95)
	}
	if percentile(nil, 50) != nil || *percentile(took[:1], 95) != 1 {
		t.Error("of none and of one they are not right")
	}
}
