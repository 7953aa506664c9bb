package agentwire

import (
	"encoding/json"
	"net/http"
	"slices"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/workspace"
)

// LogEntry is one line of an agent's log: an event of a run, in the words of this wire. It is what GET …/logs lists, and the
// payload of agent.log on the WebSocket.
type LogEntry struct {
	TS    string `json:"ts"`
	Level string `json:"level"` // info, warn or error
	// Agent is the key of the agent and AgentID its id; "" and null for an event of the whole crew.
	Agent   string  `json:"agent"`
	AgentID *string `json:"agent_id"`
	// Event is the type of the event, Content what it says in words.
	Event   string  `json:"event"`
	Content string  `json:"content"`
	Tool    *string `json:"tool"`
	// Tokens is what a model call used, null for any other event.
	Tokens   *int    `json:"tokens"`
	Metadata LogMeta `json:"metadata"`
}

// LogMeta says which event of which run an entry is.
type LogMeta struct {
	RunID string `json:"run_id"`
	// Sequence is the number of the event in its run, from 1 and without gaps.
	Sequence int64   `json:"sequence"`
	EventID  string  `json:"event_id"`
	Task     *string `json:"task"`
}

// own are the fields of events that a log has a place for.
type own struct {
	Task      string          `json:"task_description"`
	Output    json.RawMessage `json:"output"`
	OutputRaw string          `json:"output_raw"`
	Response  json.RawMessage `json:"response"`
	Error     string          `json:"error"`
	Tool      *string         `json:"tool_name"`
	Arguments json.RawMessage `json:"tool_args"`
	Model     string          `json:"model"`
	Chunk     string          `json:"chunk"`
	Message   string          `json:"message"`
	Feedback  string          `json:"feedback"`
	Usage     *struct {
		Total int `json:"total_tokens"`
	} `json:"usage"`
}

// Log gives what a page of a run's journal adds to the log, in the order of the events. The definition is that of the run's
// version.
func Log(r run.Run, d crew.Definition, p run.Page) []LogEntry {
	keys := make(map[string]string, len(d.Agents))
	for _, a := range d.Agents {
		keys[crew.AgentID(r.DeploymentID, a.Key)] = a.Key
	}
	entries := make([]LogEntry, 0, len(p.Events))
	for _, e := range p.Events {
		var o own
		_ = json.Unmarshal(e.Data, &o) // what an event does not have stays empty
		entry := LogEntry{
			TS: *timestamp(e.At), Event: e.Type, Tool: o.Tool, Agent: r.Agent,
			Metadata: LogMeta{RunID: id.Show("run", r.ID), Sequence: e.N, EventID: e.ID, Task: text(e.TaskName)},
		}
		if key, ok := keys[e.AgentID]; ok && r.Agent == "" {
			entry.Agent = key
		}
		if entry.Agent != "" {
			entry.AgentID = text(crew.AgentID(r.DeploymentID, entry.Agent))
		}
		if o.Usage != nil {
			entry.Tokens = &o.Usage.Total
		}
		entry.Level, entry.Content = say(e, o)
		entries = append(entries, entry)
	}
	return entries
}

// say puts an event into words.
func say(e events.Event, o own) (level, content string) {
	switch e.Type {
	case "crew_kickoff_started":
		return "info", "The run has begun."
	case "task_started":
		return "info", o.Task
	case "task_completed":
		return "info", o.OutputRaw
	case "llm_call_started":
		return "info", "Asks the model " + o.Model + "."
	case "llm_call_completed":
		return "info", words(o.Response)
	case "llm_stream_chunk":
		return "info", o.Chunk
	case "tool_usage_started":
		return "info", words(o.Arguments)
	case "human_feedback_requested":
		return "info", o.Message
	case "human_feedback_received":
		return "info", o.Feedback
	case "llm_call_failed":
		return "warn", o.Error
	}
	switch {
	case o.Error != "":
		return "error", o.Error
	case len(o.Output) > 0:
		return "info", words(o.Output)
	case o.Message != "":
		return "info", o.Message
	}
	return "info", ""
}

// words gives a string as it is, the text of an output, and anything else as JSON.
func words(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var output struct {
		Raw *string `json:"raw"`
	}
	if json.Unmarshal(raw, &output) == nil && output.Raw != nil {
		return *output.Raw
	}
	return string(raw)
}

// The most entries of one answer, and the most runs that are read for one.
const (
	mostEntries, mostSkipped = 500, 10_000
	mostRead                 = 50
)

// listLogs lists what an agent did, the newest first: in its own runs everything, in those of its whole crew its part.
func (w *Wire) listLogs(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	ctx := r.Context()
	t, err := w.agent(r, c)
	if err != nil {
		return err
	}
	limit, err := number(r.URL.Query(), "limit", 100, 1, mostEntries)
	if err != nil {
		return err
	}
	offset, err := number(r.URL.Query(), "offset", 0, 0, mostSkipped)
	if err != nil {
		return err
	}
	runs, err := w.newest(ctx, run.ListRequest{DeploymentIDs: []string{t.DeploymentID}, Agent: t.Agent}, mostRead)
	if err != nil {
		return err
	}
	entries := []LogEntry{}
	for _, one := range runs {
		def, err := w.Crews.Definition(ctx, one.VersionID)
		if err != nil {
			return err
		}
		pages, err := w.Runs.Pages(ctx, one.ID, 1, 0)
		if err != nil {
			return err
		}
		for _, p := range slices.Backward(pages) {
			for _, entry := range slices.Backward(Log(one, def, p)) {
				switch {
				case entry.AgentID == nil || *entry.AgentID != t.ID || entry.Event == "llm_stream_chunk":
				case offset > 0:
					offset--
				default:
					entries = append(entries, entry)
				}
			}
		}
		if len(entries) >= limit {
			break
		}
	}
	return httpapi.WriteJSON(rw, http.StatusOK, entries[:min(limit, len(entries))])
}
