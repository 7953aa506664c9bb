package agentwire

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/id"
	"muster/shared/run"
)

// Entry is a line of an agent's log: one event of a run.
type Entry struct {
	TS      string `json:"ts"`
	Level   string `json:"level"`
	Agent   string `json:"agent"`
	AgentID string `json:"agent_id"`
	Event   string `json:"event"`
	Content string `json:"content"`
	// Tool and Tokens are null where there are none.
	Tool   *string `json:"tool"`
	Tokens *int64  `json:"tokens"`
	// Metadata are the event's own fields, and what is said of the entry itself.
	Metadata map[string]any `json:"metadata"`
	// RunID and Seq are the event's place: its run, and its number there.
	RunID string `json:"run_id"`
	Seq   int64  `json:"seq"`
}

// The levels of entries.
const (
	levelInfo    = "info"
	levelWarning = "warn"
	levelError   = "error"
)

// maxContent is how much of a text an entry shows. The whole of it is in the run's events.
const maxContent = 24 << 10

// told are the fields of events that entries have words for.
type told struct {
	Task     string          `json:"task_description"`
	Output   json.RawMessage `json:"output"`
	Raw      string          `json:"output_raw"`
	Error    string          `json:"error"`
	Tool     string          `json:"tool_name"`
	Model    string          `json:"model"`
	Response json.RawMessage `json:"response"`
	Message  string          `json:"message"`
	Feedback string          `json:"feedback"`
	Success  *bool           `json:"success"`
	Usage    *struct {
		Total int64 `json:"total_tokens"`
	} `json:"usage"`
}

// Log gives the entries of a page, in order. Pieces of answers that still grow are not in the log.
func Log(r run.Run, p run.Page) (all []Entry) {
	for _, e := range p.Events {
		if e.Type != "llm_stream_chunk" && e.Type != "llm_thinking_chunk" {
			all = append(all, entry(r, p, e))
		}
	}
	return all
}

func entry(r run.Run, p run.Page, e events.Event) Entry {
	var t told
	_ = json.Unmarshal(e.Data, &t) // what an event does not have stays empty
	line := Entry{
		TS: e.At.UTC().Format(events.TimeFormat), Level: levelInfo, Agent: slug(e.AgentRole), AgentID: e.AgentID, Event: e.Type,
		Metadata: map[string]any{}, RunID: id.Show("run", r.ID), Seq: e.N,
	}
	if e.TaskName != "" {
		line.Metadata["task"] = e.TaskName
	}
	if t.Model != "" {
		line.Metadata["model"] = t.Model
	}
	if t.Tool != "" {
		line.Tool = &t.Tool
	}
	if t.Usage != nil {
		line.Tokens = &t.Usage.Total
	}
	text := t.content(e)
	if e.Type == "crew_kickoff_completed" && p.Outcome != nil {
		text = p.Outcome.Result
	}
	switch {
	case strings.HasSuffix(e.Type, "_error"), e.Type == "crew_kickoff_failed", e.Type == "task_failed":
		line.Level = levelError
	case strings.HasSuffix(e.Type, "_failed"), t.Success != nil && !*t.Success:
		line.Level = levelWarning
	}
	if cut := clip(text); cut != text {
		line.Metadata["truncated"], line.Metadata["bytes"] = true, len(text)
		text = cut
	}
	line.Content = text
	return line
}

// content says what happened, in the event's own words where it has some.
func (t told) content(e events.Event) string {
	who := cmp.Or(e.AgentRole, "The crew")
	switch e.Type {
	case "crew_kickoff_started":
		return "The run has begun."
	case "task_started":
		return t.Task
	case "task_completed":
		return t.Raw
	case "agent_execution_started":
		return who + " begins."
	case "agent_execution_completed", "tool_usage_finished":
		return text(t.Output)
	case "llm_call_started":
		return fmt.Sprintf("%s asks the model %s.", who, t.Model)
	case "llm_call_completed":
		return text(t.Response)
	case "tool_usage_started":
		return fmt.Sprintf("%s calls the tool %s.", who, t.Tool)
	case "human_feedback_requested":
		return t.Message
	case "human_feedback_received":
		return t.Feedback
	}
	return cmp.Or(t.Error, t.Message, strings.ReplaceAll(e.Type, "_", " "))
}

// text gives a string as it is, and any other JSON as JSON.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

func clip(s string) string {
	if len(s) <= maxContent {
		return s
	}
	cut := maxContent
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// slug writes a role as Crewship names agents.
func slug(role string) string {
	words := strings.FieldsFunc(strings.ToLower(role), func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c < utf8.RuneSelf
	})
	return strings.Join(words, "-")
}

// runObject is a run as this wire shows it.
type runObject struct {
	ID          string  `json:"id"`
	AgentID     *string `json:"agent_id"`
	CrewID      string  `json:"crew_id"`
	WorkspaceID string  `json:"workspace_id"`
	ChatID      *string `json:"chat_id"`
	TriggerType string  `json:"trigger_type"`
	// TriggeredBy is the id of the trigger, null where nobody has one.
	TriggeredBy  *string        `json:"triggered_by"`
	Status       string         `json:"status"`
	ErrorMessage *string        `json:"error_message"`
	ExitCode     *int           `json:"exit_code"`
	DurationMS   *int64         `json:"duration_ms"`
	StartedAt    *string        `json:"started_at"`
	FinishedAt   *string        `json:"finished_at"`
	CreatedAt    *string        `json:"created_at"`
	Metadata     map[string]any `json:"metadata"`
}

// newRunObject shows a run as its newest page has it; a zero page is that of a run without any.
func newRunObject(r run.Run, newest run.Page) runObject {
	o := runObject{
		ID: id.Show("run", r.ID), CrewID: id.Show("dep", r.DeploymentID), WorkspaceID: id.Show("ws", r.WorkspaceID),
		TriggerType: triggerWords[r.Origin], TriggeredBy: some(r.Trigger), Status: "RUNNING",
		StartedAt: stamp(r.StartedAt), CreatedAt: stamp(r.CreatedAt), Metadata: map[string]any{"version": r.VersionNumber, "environment": r.Environment},
	}
	if r.Agent != "" {
		agentID := crew.AgentID(r.DeploymentID, r.Agent)
		o.AgentID = &agentID
		if r.Origin == "trigger" {
			o.ChatID = some("webhook-" + agentID)
		}
	}
	if r.Thread != "" && o.ChatID == nil {
		o.ChatID = some(id.Show("thr", r.Thread))
	}
	state, ended, failed := r.StateAt(newest), r.EndedAt, r.Error
	if newest.Outcome != nil {
		ended, failed = newest.At, newest.Outcome.Error
	}
	if u := newest.Totals.Usage; u.TotalTokens > 0 {
		o.Metadata["usage"] = u
	}
	if !state.Ended() {
		return o
	}
	code := 1
	switch o.FinishedAt, o.ErrorMessage = stamp(ended), some(failed); state {
	case run.Succeeded:
		code, o.Status, o.ErrorMessage = 0, "COMPLETED", nil
	case run.Canceled:
		o.Status = "CANCELLED"
	case run.TimedOut:
		if o.Status = "TIMEOUT"; r.Origin == "trigger" && r.Agent != "" {
			o.Status = "FAILED"
		}
	default:
		o.Status = "FAILED"
	}
	o.ExitCode = &code
	if !r.StartedAt.IsZero() {
		took := ended.Sub(r.StartedAt).Milliseconds()
		o.DurationMS = &took
	}
	return o
}

// triggerWords are this wire's words for what started a run.
var triggerWords = map[string]string{"api": "API", "trigger": "WEBHOOK", "schedule": "CRON", "replay": "REPLAY"}

func stamp(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return some(t.UTC().Format(events.TimeFormat))
}

// some is s, or null for "".
func some(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
