package deploywire

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"muster/events"
	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/watch"
)

// message is what a watcher is told: one event of the run, or that there is none.
type message struct {
	// Seq is the position of whoever has the message; 0 for one that is no part of the sequence.
	Seq  int64
	Type string
	At   time.Time
	// ID is that of the event, for those who are told events as they are.
	ID   string
	Data any
}

// format is a spelling of messages.
type format struct {
	// body is where a message has what it tells.
	body string
	// words are the types of its messages; nil for a format that has those of the events.
	words []string
	// spell gives the message for an event, false for an event that the vocabulary has no word for.
	spell func(w *Wire, ctx context.Context, r run.Run, p run.Page, e events.Event) (message, bool, error)
}

// formats are by the name that `format` gives: "" is that of the API page, "guide" that of the guide, "native" the events
// themselves.
var formats = map[string]format{
	"": {"data", []string{
		"run.started", "run.completed", "run.failed", "task.started", "task.completed", "agent.action", "tool_use", "log", "artifact", chunkType, endType,
	}, inWordsOfTheAPI},
	"guide": {"payload", []string{
		"run.started", "run.completed", "run.failed", "run.canceled", "agent.started", "agent.completed", "agent.error",
		"tool.called", "tool.result", "tool.error", "log", "artifact", chunkType, endType,
	}, inWordsOfTheGuide},
	"native": {"data", nil, asItIs},
}

// check says what is wrong with asking for messages of a type, or else what is to be minded: any other word may be the name
// of somebody's own events.
func (f format) check(name string) (warning string, err error) {
	if f.words != nil {
		if slices.Contains(f.words, name) {
			return "", nil
		}
		return "", fault.New(fault.Invalid, "\"types\": this format has no %.80q; it has %s.", name, strings.Join(f.words, ", "))
	}
	custom, err := events.CheckFilter(name)
	switch {
	case err != nil:
		return "", fault.New(fault.Invalid, "\"types\": %s.", err)
	case name == endType, slices.ContainsFunc(events.All(), func(k events.Kind) bool { return k.Type == name }):
		return "", nil
	case custom:
		return ownType(name), nil
	}
	return "", fault.New(fault.Invalid, "\"types\": this format has no %.80q; GET /v1/events/types lists what it has, and without types all are shown.", name)
}

// line writes a message as one line of JSON.
func (f format) line(m message) ([]byte, error) {
	o := struct {
		Type string  `json:"type"`
		Seq  int64   `json:"seq,omitempty"`
		ID   string  `json:"id,omitempty"`
		At   *string `json:"timestamp"`
		Data any     `json:"data,omitempty"`
		Load any     `json:"payload,omitempty"`
	}{Type: m.Type, Seq: m.Seq, ID: m.ID, At: timestamp(m.At)}
	if f.body == "data" {
		o.Data = m.Data
	} else {
		o.Load = m.Data
	}
	return encode(o)
}

// ownType warns of a type that only events of the user's own can have.
func ownType(typ string) string {
	return "no event of the system is of the type " + typ + "; it is taken for one of your own"
}

// messages spells what a page adds. The end is the last message of a run in every vocabulary.
func (w *Wire) messages(ctx context.Context, f format, r run.Run, p watch.Part) (all []message, err error) {
	for _, e := range p.Events {
		m, known, err := f.spell(w, ctx, r, p.Page, e)
		if err != nil {
			return nil, err
		}
		if known {
			m.Seq, m.At = e.N, e.At
			all = append(all, m)
		}
	}
	if p.Ends() {
		all = append(all, message{Seq: p.Position, Type: endType, At: p.Page.At, Data: newEnd(r, p.Page)})
	}
	return all, nil
}

const (
	endType   = "complete"
	chunkType = "llm_stream_chunk"
)

// asItIs spells an event as the streaming webhook does.
func asItIs(w *Wire, ctx context.Context, r run.Run, p run.Page, e events.Event) (message, bool, error) {
	var conversation []json.RawMessage
	if e.Prompt {
		var err error
		if conversation, err = w.Runs.Messages(ctx, r.ID, p); err != nil {
			return message{}, false, err
		}
	}
	published := e.Publish(r.ID, conversation)
	return message{Type: published.Type, ID: published.ID, Data: published.Data}, true, nil
}

// own are the fields of events that the other vocabularies have words for.
type own struct {
	Task      string          `json:"task_description"`
	Expected  string          `json:"expected_output"`
	Output    json.RawMessage `json:"output"`
	OutputRaw string          `json:"output_raw"`
	Error     string          `json:"error"`
	Tool      string          `json:"tool_name"`
	Arguments json.RawMessage `json:"tool_args"`
	Model     string          `json:"model"`
	CallID    string          `json:"call_id"`
	Chunk     string          `json:"chunk"`
	Success   bool            `json:"success"`
	Message   string          `json:"message"`
	Feedback  string          `json:"feedback"`
}

func ownOf(e events.Event) (o own) {
	_ = json.Unmarshal(e.Data, &o) // what an event does not have stays empty
	return o
}

type fields = map[string]any

func inWordsOfTheAPI(_ *Wire, _ context.Context, r run.Run, p run.Page, e events.Event) (m message, known bool, err error) {
	o := ownOf(e)
	say := func(kind string, f fields) (message, bool, error) { return message{Type: kind, Data: f}, true, nil }
	action := func(what string, more fields) (message, bool, error) {
		f := fields{"action": what, "agent": e.AgentRole, "task": e.TaskName}
		for name, value := range more {
			f[name] = value
		}
		return say("agent.action", f)
	}
	tool := func(status string, more fields) (message, bool, error) {
		f := fields{"status": status, "tool": o.Tool, "input": o.Arguments, "agent": e.AgentRole, "task": e.TaskName}
		for name, value := range more {
			f[name] = value
		}
		return say("tool_use", f)
	}
	runID := id.Show("run", r.ID)
	switch e.Type {
	case "crew_kickoff_started":
		return say("run.started", fields{"run_id": runID, "started_at": timestamp(e.At)})
	case "crew_kickoff_completed":
		return say("run.completed", fields{"run_id": runID, "output": outputOf(p), "completed_at": timestamp(e.At)})
	case "crew_kickoff_failed":
		return say("run.failed", fields{"run_id": runID, "status": statusWords[endOf(p)], "error": o.Error, "completed_at": timestamp(e.At)})
	case "task_started":
		return say("task.started", fields{"task_id": e.TaskID, "task": e.TaskName, "agent": e.AgentRole, "description": o.Task, "expected_output": o.Expected})
	case "task_completed":
		return say("task.completed", fields{"task_id": e.TaskID, "task": e.TaskName, "agent": e.AgentRole, "output": o.OutputRaw})
	case "agent_execution_started":
		return action("started", nil)
	case "llm_call_started":
		return action("thinking", fields{"model": o.Model, "call_id": o.CallID})
	case "agent_execution_completed":
		return action("completed", fields{"output": o.Output})
	case "agent_execution_error":
		return action("failed", fields{"error": o.Error})
	case "tool_usage_started":
		return tool("started", nil)
	case "tool_usage_finished":
		return tool("finished", fields{"output": o.Output})
	case "tool_usage_error":
		return tool("failed", fields{"error": o.Error})
	}
	return logged(e, o)
}

func inWordsOfTheGuide(_ *Wire, _ context.Context, r run.Run, p run.Page, e events.Event) (m message, known bool, err error) {
	o := ownOf(e)
	say := func(kind string, f fields) (message, bool, error) { return message{Type: kind, Data: f}, true, nil }
	runID := id.Show("run", r.ID)
	switch e.Type {
	case "crew_kickoff_started":
		return say("run.started", fields{"run_id": runID, "started_at": timestamp(e.At)})
	case "crew_kickoff_completed":
		return say("run.completed", fields{"run_id": runID, "duration_ms": e.At.Sub(r.StartedAt).Milliseconds(), "result": outputOf(p)})
	case "crew_kickoff_failed":
		if endOf(p) == run.Canceled {
			return say("run.canceled", fields{"run_id": runID, "canceled_at": timestamp(e.At)})
		}
		return say("run.failed", fields{"run_id": runID, "error": o.Error, "stack_trace": nil})
	case "agent_execution_started":
		return say("agent.started", fields{"agent": e.AgentRole, "task": e.TaskName})
	case "agent_execution_completed":
		return say("agent.completed", fields{"agent": e.AgentRole, "task": e.TaskName, "output": o.Output})
	case "agent_execution_error":
		return say("agent.error", fields{"agent": e.AgentRole, "task": e.TaskName, "error": o.Error})
	case "tool_usage_started":
		return say("tool.called", fields{"tool": o.Tool, "input": o.Arguments})
	case "tool_usage_finished":
		return say("tool.result", fields{"tool": o.Tool, "output": o.Output})
	case "tool_usage_error":
		return say("tool.error", fields{"tool": o.Tool, "error": o.Error})
	case "llm_call_started":
		return logLine(e, "info", fmt.Sprintf("%s asks the model %s.", e.AgentRole, o.Model), nil)
	case "task_started":
		return logLine(e, "info", fmt.Sprintf("The task %q has begun.", e.TaskName), nil)
	case "task_completed":
		return logLine(e, "info", fmt.Sprintf("The task %q is done.", e.TaskName), nil)
	}
	return logged(e, o)
}

// logged spells what both vocabularies have in their logs. Everything else is told as it is only.
func logged(e events.Event, o own) (message, bool, error) {
	switch e.Type {
	case "task_failed":
		return logLine(e, "error", fmt.Sprintf("The task %q has failed: %s", e.TaskName, o.Error), nil)
	case "llm_call_failed":
		return logLine(e, "warning", "A call of the model has failed: "+o.Error, nil)
	case "llm_guardrail_completed":
		if o.Success {
			return message{}, false, nil
		}
		return logLine(e, "warning", "A guardrail was not satisfied: "+o.Error, nil)
	case "human_feedback_requested":
		return logLine(e, "info", fmt.Sprintf("A person is asked about the task %q: %s", e.TaskName, o.Message), nil)
	case "human_feedback_received":
		return logLine(e, "info", fmt.Sprintf("A person has answered about the task %q: %s", e.TaskName, o.Feedback), nil)
	case chunkType:
		return message{Type: chunkType, Data: fields{"agent": e.AgentRole, "task": e.TaskName, "call_id": o.CallID, "chunk": o.Chunk}}, true, nil
	}
	if custom, err := events.CheckFilter(e.Type); err == nil && custom {
		return logLine(e, "info", e.Type, e.Data)
	}
	return message{}, false, nil
}

// logLine spells a line of the log. data is what a custom event came with.
func logLine(e events.Event, level, text string, data json.RawMessage) (message, bool, error) {
	f := fields{"level": level, "message": text, "timestamp": timestamp(e.At), "event": e.Type}
	if data != nil {
		f["data"] = data
	}
	return message{Type: "log", Data: f}, true, nil
}

func endOf(p run.Page) run.State {
	if p.Outcome == nil {
		return run.Failed
	}
	return p.Outcome.State
}

func outputOf(p run.Page) *output {
	if endOf(p) != run.Succeeded {
		return nil
	}
	return &output{Result: p.Outcome.Result, ResultJSON: p.Outcome.JSON}
}

// end says how a run ended.
type end struct {
	RunID        string  `json:"run_id"`
	Status       string  `json:"status"`
	Output       *output `json:"output"`
	ErrorMessage *string `json:"error_message"`
	StartedAt    *string `json:"started_at"`
	CompletedAt  *string `json:"completed_at"`
}

func newEnd(r run.Run, p run.Page) end {
	e := end{
		RunID: id.Show("run", r.ID), Status: statusWords[endOf(p)], Output: outputOf(p),
		StartedAt: timestamp(r.StartedAt), CompletedAt: timestamp(p.At),
	}
	if p.Outcome != nil && e.Status == "failed" {
		e.ErrorMessage = text(p.Outcome.Error)
	}
	return e
}
