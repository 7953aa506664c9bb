package agentwire

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/trigger"
	"muster/shared/workspace"
)

// Run is a run as this wire shows it.
type Run struct {
	ID string `json:"id"`
	// AgentID and ChatID, the agent's session, are null for a run of a whole crew.
	AgentID     *string `json:"agent_id"`
	CrewID      string  `json:"crew_id"`
	WorkspaceID string  `json:"workspace_id"`
	ChatID      *string `json:"chat_id"`
	// TriggeredBy is the incoming webhook that started the run, or the agent whose trigger did, null for neither.
	TriggeredBy  *string `json:"triggered_by"`
	TriggerType  string  `json:"trigger_type"`
	Status       string  `json:"status"`
	ErrorMessage *string `json:"error_message"`
	// ExitCode is 0 for a run that is completed, 1 for one that has failed, and null for any other.
	ExitCode   *int    `json:"exit_code"`
	DurationMS *int64  `json:"duration_ms"`
	StartedAt  *string `json:"started_at"`
	FinishedAt *string `json:"finished_at"`
	// Metadata is the kickoff's: of a run that an agent's trigger has started, the event, its source and "trigger".
	Metadata  json.RawMessage `json:"metadata"`
	CreatedAt *string         `json:"created_at"`
}

// statusWords are this wire's words for the states of a run.
var statusWords = map[run.State]string{
	run.Queued: "RUNNING", run.Running: "RUNNING", run.Waiting: "RUNNING",
	run.Succeeded: "COMPLETED", run.Failed: "FAILED", run.TimedOut: "TIMEOUT", run.Canceled: "CANCELLED",
}

// triggerTypes are this wire's words for the origins of a run.
var triggerTypes = map[string]string{"api": "API", "trigger": "WEBHOOK", "schedule": "CRON", "replay": "REPLAY"}

// originOf gives the origin that a trigger type means.
func originOf(triggerType string) (string, error) {
	for origin, word := range triggerTypes {
		if strings.EqualFold(word, triggerType) {
			return origin, nil
		}
	}
	return "", fault.New(fault.Invalid, "There is no trigger type %q; there are WEBHOOK, API, CRON and REPLAY.", triggerType)
}

// statesOf gives the states that a status means.
func statesOf(status string) (states []run.State, err error) {
	for state, word := range statusWords {
		if strings.EqualFold(word, status) {
			states = append(states, state)
		}
	}
	if states == nil {
		return nil, fault.New(fault.Invalid, "There is no status %q; there are RUNNING, COMPLETED, FAILED, CANCELLED and TIMEOUT.", status)
	}
	return states, nil
}

// ShowRun shows a run by its item, which newest, its newest page, goes before; the zero Page is none. meta is the kickoff's.
func ShowRun(r run.Run, newest run.Page, meta json.RawMessage) Run {
	if newest.Outcome != nil {
		r.State, r.Error, r.EndedAt = newest.Outcome.State, newest.Outcome.Error, newest.At
	}
	s := Run{
		ID: id.Show("run", r.ID), CrewID: id.Show("dep", r.DeploymentID), WorkspaceID: id.Show("ws", r.WorkspaceID),
		TriggerType: triggerTypes[r.Origin], Status: statusWords[r.State], Metadata: meta,
		StartedAt: timestamp(r.StartedAt), FinishedAt: timestamp(r.EndedAt), CreatedAt: timestamp(r.CreatedAt),
	}
	if len(meta) == 0 {
		s.Metadata = json.RawMessage("{}")
	}
	if r.Trigger != "" {
		s.TriggeredBy = text(id.Show("inc", r.Trigger))
	}
	if r.Agent != "" {
		agentID := crew.AgentID(r.DeploymentID, r.Agent)
		s.AgentID = &agentID
		if r.Trigger == agentID {
			s.TriggeredBy = &agentID
		}
		if r.Thread == trigger.SessionThread(agentID) {
			s.ChatID = text(trigger.SessionName(agentID))
		}
	}
	switch r.State {
	case run.Succeeded:
		s.ExitCode = new(int)
	case run.Failed, run.TimedOut:
		one := 1
		s.ExitCode, s.ErrorMessage = &one, text(r.Error)
	}
	if took, ended := took(r); ended {
		ms := took.Milliseconds()
		s.DurationMS = &ms
	}
	return s
}

// took gives how long a run was under way that is over.
func took(r run.Run) (d time.Duration, ended bool) {
	if r.StartedAt.IsZero() || r.EndedAt.IsZero() {
		return 0, false
	}
	return max(0, r.EndedAt.Sub(r.StartedAt)), true
}

// show shows runs of a list.
func (w *Wire) show(ctx context.Context, runs []run.Run) ([]Run, error) {
	shown := []Run{}
	for _, r := range runs {
		asked, err := w.Runs.Request(ctx, r.ID)
		if err != nil && !fault.Is(err, fault.NotFound) { // expired since
			return nil, err
		}
		shown = append(shown, ShowRun(r, run.Page{}, asked.Meta))
	}
	return shown, nil
}

// wholeRun has what the run used too.
type wholeRun struct {
	Run
	Usage run.Spent `json:"usage"`
}

func (w *Wire) getRun(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	ctx := r.Context()
	errUnknown := fault.New(fault.NotFound, "There is no run %q.", r.PathValue("id"))
	runID, ok := id.Parse("run", r.PathValue("id"))
	if !ok {
		return errUnknown
	}
	found, err := w.Runs.Get(ctx, runID)
	if fault.Is(err, fault.NotFound) || err == nil && !c.Sees(found.WorkspaceID, found.DeploymentID) {
		return errUnknown
	}
	if err != nil {
		return err
	}
	newest, err := w.Runs.Newest(ctx, runID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	asked, err := w.Runs.Request(ctx, runID)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, wholeRun{ShowRun(found, newest, asked.Meta), run.SpentBy(found, newest, w.now())})
}

// The most runs that one answer lists, and that a list with totals looks at.
const (
	mostListed = 100
	mostLooked = 500
)

// newest gives the newest runs that a query lets through, at most so many.
func (w *Wire) newest(ctx context.Context, q run.ListRequest, most int) (runs []run.Run, err error) {
	for q.Limit = 100; len(runs) < most; {
		found, next, err := w.Runs.List(ctx, q)
		if err != nil {
			return nil, err
		}
		runs = append(runs, found...)
		if q.Cursor = next; next == "" {
			break
		}
	}
	return runs[:min(most, len(runs))], nil
}

// listAgentRuns lists the runs of an agent, its own and those of its whole crew.
func (w *Wire) listAgentRuns(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	t, err := w.agent(r, c)
	if err != nil {
		return err
	}
	q := run.ListRequest{DeploymentIDs: []string{t.DeploymentID}, Agent: t.Agent}
	v := r.URL.Query()
	for _, name := range []string{"trigger", "trigger_type"} {
		if word := v.Get(name); word != "" {
			if q.Origin, err = originOf(word); err != nil {
				return err
			}
		}
	}
	if status := v.Get("status"); status != "" {
		if q.States, err = statesOf(status); err != nil {
			return err
		}
	}
	runs, err := w.newest(r.Context(), q, mostListed)
	if err != nil {
		return err
	}
	shown, err := w.show(r.Context(), runs)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, shown)
}

type listReply struct {
	Data       []Run      `json:"data"`
	Stats      stats      `json:"stats"`
	Pagination pagination `json:"pagination"`
}

// stats are about all of the caller's runs, whatever the list keeps of them.
type stats struct {
	Running int `json:"running"`
	Today   int `json:"today"`
	Failed  int `json:"failed"`
}

type pagination struct {
	Page       int `json:"page"`
	Limit      int `json:"limit"`
	Total      int `json:"total"`
	TotalPages int `json:"total_pages"`
}

// listRuns lists the caller's runs. Its totals are those of the newest mostLooked.
func (w *Wire) listRuns(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	ctx, v := r.Context(), r.URL.Query()
	page, err := number(v, "page", 1, 1, mostLooked)
	if err != nil {
		return err
	}
	limit, err := number(v, "limit", 20, 1, mostListed)
	if err != nil {
		return err
	}
	keep, err := w.filter(r, c)
	if err != nil {
		return err
	}
	deployments, err := w.deployments(ctx, c)
	if err != nil {
		return err
	}
	all, err := w.newest(ctx, run.ListRequest{DeploymentIDs: slices.Collect(maps.Keys(deployments))}, mostLooked)
	if err != nil {
		return err
	}
	var reply listReply
	today := w.now().UTC().Truncate(24 * time.Hour)
	var kept []run.Run
	for _, one := range all {
		switch statusWords[one.State] {
		case "RUNNING":
			reply.Stats.Running++
		case "FAILED", "TIMEOUT":
			reply.Stats.Failed++
		}
		if !one.CreatedAt.Before(today) {
			reply.Stats.Today++
		}
		if keep(one) {
			kept = append(kept, one)
		}
	}
	reply.Pagination = pagination{page, limit, len(kept), (len(kept) + limit - 1) / limit}
	first := min((page-1)*limit, len(kept))
	if reply.Data, err = w.show(ctx, kept[first:min(first+limit, len(kept))]); err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

// filter reads which runs a list keeps.
func (w *Wire) filter(r *http.Request, c workspace.Caller) (keep func(run.Run) bool, err error) {
	v := r.URL.Query()
	var states []run.State
	if status := v.Get("status"); status != "" {
		if states, err = statesOf(status); err != nil {
			return nil, err
		}
	}
	var agent trigger.Trigger
	if shown := v.Get("agent_id"); shown != "" {
		if agent, err = w.agentNamed(r, c, shown); err != nil {
			return nil, err
		}
	}
	origin := ""
	if word := v.Get("trigger"); word != "" {
		if origin, err = originOf(word); err != nil {
			return nil, err
		}
	}
	return func(r run.Run) bool {
		return (states == nil || slices.Contains(states, r.State)) && (origin == "" || r.Origin == origin) &&
			(agent.ID == "" || r.DeploymentID == agent.DeploymentID && (r.Agent == agent.Agent || r.Agent == ""))
	}, nil
}

// deployments gives those that the caller sees, by id.
func (w *Wire) deployments(ctx context.Context, c workspace.Caller) (map[string]crew.Deployment, error) {
	found := map[string]crew.Deployment{}
	if c.Kind == workspace.Deployment {
		d, err := w.Crews.Deployment(ctx, c.DeploymentID)
		found[d.ID] = d
		return found, err
	}
	all, err := w.Crews.Deployments(ctx, c.WorkspaceID)
	for _, d := range all {
		found[d.ID] = d
	}
	return found, err
}

// number reads a whole number of a query.
func number(v url.Values, name string, otherwise, least, most int) (int, error) {
	given := v.Get(name)
	if given == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(given)
	if err != nil || n < least || n > most {
		return 0, fault.New(fault.Invalid, "%q must be a number from %d to %d.", name, least, most)
	}
	return n, nil
}

type stopReply struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

// stopAgent stops all runs of an agent alone, those that wait first: they must not begin meanwhile.
func (w *Wire) stopAgent(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	t, err := w.agent(r, c)
	if err != nil {
		return err
	}
	ctx := r.Context()
	runs, err := w.Runs.OnThread(ctx, trigger.SessionThread(t.ID), 0)
	if err != nil {
		return err
	}
	others, err := w.newest(ctx, run.ListRequest{
		DeploymentIDs: []string{t.DeploymentID}, Agent: t.Agent, States: []run.State{run.Queued, run.Running, run.Waiting},
	}, mostListed)
	if err != nil {
		return err
	}
	for _, other := range others { // the reruns, which are in no session
		if other.Agent == t.Agent && other.Thread == "" {
			runs = append(runs, other)
		}
	}
	for _, one := range slices.Backward(runs) {
		// One that is over by now needs no stop.
		if _, err := w.Runs.Stop(ctx, one.ID); err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	return httpapi.WriteJSON(rw, http.StatusOK, stopReply{t.ID, "STOPPED"})
}
