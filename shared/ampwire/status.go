package ampwire

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"muster/events"
	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/run"
	"muster/shared/workspace"
)

// statusReply is the answer of live deployments, every key always there, with what the published reference shows beside it
// (execution_time, and three more keys in progress).
type statusReply struct {
	State            string           `json:"state"`
	Status           *string          `json:"status"`
	Result           *string          `json:"result"`
	ResultJSON       json.RawMessage  `json:"result_json"`
	UsageMetrics     *run.Spent       `json:"usage_metrics"`
	Progress         *progress        `json:"progress"`
	LastEvent        *eventSummary    `json:"last_event"`
	Events           []eventSummary   `json:"events"`
	EventsCount      int64            `json:"events_count"`
	EventsByType     map[string]int64 `json:"events_by_type"`
	TriggeredBy      triggeredBy      `json:"triggered_by"`
	ExecutionOrigin  *string          `json:"execution_origin"`
	LastStep         *lastStep        `json:"last_step"`
	LastExecutedTask *taskBody        `json:"last_executed_task"`
	FlowID           *string          `json:"flow_id"`
	Source           string           `json:"source"`
	ExecutionTime    *float64         `json:"execution_time"`
	ModelNote        *string          `json:"model_note"`
}

type progress struct {
	Unit            string   `json:"unit"`
	Completed       int      `json:"completed"`
	Total           int      `json:"total"`
	Remaining       int      `json:"remaining"`
	Current         *string  `json:"current"`
	CurrentAgent    *string  `json:"current_agent"`
	StartedAt       *string  `json:"started_at"`
	UpdatedAt       string   `json:"updated_at"`
	DurationSeconds *float64 `json:"duration_seconds"`

	CompletedTasks int     `json:"completed_tasks"`
	TotalTasks     int     `json:"total_tasks"`
	CurrentTask    *string `json:"current_task"`
}

// eventSummary tells of an event without what it holds.
type eventSummary struct {
	ID        string `json:"id"`
	Type      string `json:"type"`
	Timestamp string `json:"timestamp"`
}

type triggeredBy struct {
	Type string  `json:"type"`
	ID   *string `json:"id"`
}

type lastStep struct {
	Prompt    string  `json:"prompt"`
	Thought   string  `json:"thought"`
	Tool      *string `json:"tool"`
	ToolInput *string `json:"tool_input"`
	Result    *string `json:"result"`
}

// nobody is what a status says of who started the run: runs do not keep it.
var nobody = triggeredBy{Type: "unknown"}

// noSuchRun is the status of whatever is no run of the caller; live deployments answer it with 200.
func noSuchRun() statusReply {
	text := "Task not found or Invalid kickoff id"
	return statusReply{
		State: "NOT FOUND", Status: &text, Events: []eventSummary{}, EventsByType: map[string]int64{}, TriggeredBy: nobody, Source: "memory",
	}
}

func (w *Wire) status(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	reply, err := w.statusOf(r.Context(), r.PathValue("id"), c)
	if fault.Is(err, fault.NotFound) {
		reply, err = noSuchRun(), nil
	}
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

// statusOf reads the run item and the newest page, and what that page names. fault.NotFound: the caller has no such run.
func (w *Wire) statusOf(ctx context.Context, shown string, c workspace.Caller) (statusReply, error) {
	r, err := w.find(ctx, shown, c)
	if err != nil {
		return statusReply{}, err
	}
	page, err := w.Runs.Newest(ctx, r.ID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return statusReply{}, err
	}
	reply := w.render(r, page)
	return reply, w.addLast(ctx, r, page, &reply)
}

// render makes the status of what the run item and its newest page say; the page is the truth, and its Seq is 0 when there is
// none yet.
func (w *Wire) render(r run.Run, p run.Page) statusReply {
	reply := statusReply{
		Events: []eventSummary{}, EventsByType: map[string]int64{}, TriggeredBy: nobody, ExecutionOrigin: text(r.Origin), Source: "memory",
	}
	if w.Note != nil {
		reply.ModelNote = text(w.Note(r))
	}
	state, ended := r.StateAt(p), r.EndedAt
	if p.Outcome != nil {
		ended = p.At
	}
	reply.State, reply.Status = stateWords(state, p)
	if state == run.Succeeded && p.Outcome != nil {
		reply.Result, reply.ResultJSON = &p.Outcome.Result, p.Outcome.JSON
	}
	if !r.StartedAt.IsZero() && state.Ended() {
		reply.ExecutionTime = seconds(r.StartedAt, ended)
	}
	if p.Seq == 0 {
		return reply
	}

	t := p.Totals
	spent := run.SpentBy(r, p, w.now())
	reply.UsageMetrics = &spent
	reply.EventsCount = t.Events
	if t.ByType != nil {
		reply.EventsByType = t.ByType
	}
	if t.Events > 0 {
		reply.LastEvent = &eventSummary{t.LastEvent, t.LastType, timestamp(t.LastAt)}
	}
	for _, e := range p.Events {
		reply.Events = append(reply.Events, eventSummary{e.ID, e.Type, timestamp(e.At)})
	}
	if reply.State != "FAILED" {
		reply.Progress = w.progress(r, p, reply.ExecutionTime)
	}
	return reply
}

func (w *Wire) progress(r run.Run, p run.Page, took *float64) *progress {
	of := p.Progress
	g := &progress{
		Unit: "task", Completed: of.Completed, Total: of.Total, Remaining: of.Total - of.Completed,
		Current: text(of.Current), CurrentAgent: text(of.CurrentAgent),
		UpdatedAt: timestamp(p.At), DurationSeconds: took,
		CompletedTasks: of.Completed, TotalTasks: of.Total, CurrentTask: text(of.Current),
	}
	if !r.StartedAt.IsZero() {
		g.StartedAt = text(timestamp(r.StartedAt))
		if took == nil {
			g.DurationSeconds = seconds(r.StartedAt, w.now())
		}
	}
	return g
}

// addLast adds the newest step and the task that ended last, from the pages that have them.
func (w *Wire) addLast(ctx context.Context, r run.Run, p run.Page, reply *statusReply) error {
	note, err := w.Runs.LastNote(ctx, r.ID, p)
	if err != nil {
		return err
	}
	if note != nil {
		reply.LastStep = &lastStep{Prompt: note.Prompt, Thought: note.Thought}
		reply.LastStep.Tool, reply.LastStep.ToolInput, reply.LastStep.Result = tool(*note)
	}
	task, err := w.Runs.LastTask(ctx, r.ID, p)
	if err != nil || task == nil {
		return err
	}
	q, err := w.Runs.Request(ctx, r.ID)
	if err != nil {
		return err
	}
	reply.LastExecutedTask = newTaskBody(*task, r.ID, q.Meta)
	return nil
}

// stateWords gives the state in this wire's words, and the sentence beside it.
func stateWords(s run.State, p run.Page) (state string, status *string) {
	switch s {
	case run.Queued:
		return "PENDING", text("Task is pending")
	case run.Running:
		if p.Seq == 0 {
			return "STARTED", text("Task is started")
		}
		return "RUNNING", text("Task is Running")
	case run.Waiting:
		return "PAUSED", text("Task is waiting for a person")
	case run.Succeeded:
		return "SUCCESS", nil
	case run.Canceled:
		return "REVOKED", text(why(p, "Task was stopped"))
	}
	return "FAILED", text(why(p, "Task failed"))
}

// why gives the sentence a run ended with.
func why(p run.Page, otherwise string) string {
	if p.Outcome != nil && p.Outcome.Error != "" {
		return p.Outcome.Error
	}
	return otherwise
}

// text is s, or null for "".
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func timestamp(t time.Time) string { return t.UTC().Format(events.TimeFormat) }

// seconds between two times, to the millisecond.
func seconds(from, to time.Time) *float64 {
	s := to.Sub(from).Round(time.Millisecond).Seconds()
	return &s
}
