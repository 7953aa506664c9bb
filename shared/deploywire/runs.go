package deploywire

import (
	"context"
	"encoding/json"
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
	"muster/shared/workspace"
)

// startReply is the answer to a started run; its status is what the wire always says there.
type startReply struct {
	RunID         string `json:"run_id"`
	VersionID     string `json:"version_id"`
	VersionNumber int    `json:"version_number"`
	Status        string `json:"status"`
}

// startFields are what every request that starts a run may say.
var startFields = []string{"input", "environment", "limits", "meta", "metadata"}

// readStart reads them, and the Idempotency-Key, which is of a family.
func readStart(r *http.Request, family string, o httpapi.Object, body []byte) (q run.StartRequest, err error) {
	if q.Inputs, err = o.Values("input"); err != nil {
		return q, err
	}
	if q.Environment, err = o.String("environment"); err != nil {
		return q, err
	}
	if q.Limits, err = readLimits(o); err != nil {
		return q, err
	}
	if q.Meta, err = readMeta(o); err != nil {
		return q, err
	}
	q.IdempotencyKey, q.BodyDigest, err = httpapi.Idempotency(r, family, body)
	return q, err
}

// readMeta reads what lists find runs by, and webhooks tell of them: "meta", or "metadata" as threads call theirs.
func readMeta(o httpapi.Object) (meta json.RawMessage, err error) {
	for _, name := range []string{"meta", "metadata"} {
		if !o.Has(name) {
			continue
		}
		if meta != nil {
			return nil, fault.New(fault.Invalid, "\"meta\" and \"metadata\" are the same; give one of them.")
		}
		if _, err := o.Object(name); err != nil {
			return nil, err
		}
		meta = o[name]
	}
	return meta, nil
}

func (w *Wire) startRun(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, body, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	shown, err := o.String("deployment_id")
	if err != nil {
		return err
	}
	q, err := readStart(r, "runs", o, body)
	if err != nil {
		return err
	}
	if q.Deployment, err = w.chosen(r.Context(), shown, c); err != nil {
		return err
	}
	started, err := w.Runs.Start(r.Context(), q)
	showRate(rw, started)
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown(append(startFields, "deployment_id")...))
	return httpapi.WriteJSON(rw, http.StatusAccepted, newStartReply(started))
}

func newStartReply(r run.Run) startReply {
	return startReply{RunID: id.Show("run", r.ID), VersionID: id.Show("ver", r.VersionID), VersionNumber: r.VersionNumber, Status: "running"}
}

// readLimits reads the limits of one run; absent ones are none.
func readLimits(o httpapi.Object) (crew.Limits, error) {
	if !o.Has("limits") {
		return crew.Limits{}, nil
	}
	return crew.ParseLimits(o["limits"])
}

// showRate tells how many kickoffs are left, where they are limited.
func showRate(rw http.ResponseWriter, started run.Run) {
	if l := started.Rate; l != nil {
		httpapi.Rate(rw, l.Limit, l.Remaining, l.Reset)
	}
}

// chosen gives the deployment that a request names; a deployment's token need not name it.
func (w *Wire) chosen(ctx context.Context, shown string, c workspace.Caller) (crew.Deployment, error) {
	if shown != "" {
		return w.deployment(ctx, shown, c)
	}
	if c.Kind == workspace.Deployment {
		return w.Crews.Deployment(ctx, c.DeploymentID)
	}
	return crew.Deployment{}, fault.New(fault.Invalid, "\"deployment_id\" is missing.")
}

// runSummary is a run in a list.
type runSummary struct {
	ID            string `json:"id"`
	VersionID     string `json:"version_id"`
	VersionNumber int    `json:"version_number"`
	DeploymentID  string `json:"deployment_id"`
	Environment   string `json:"environment"`
	Status        string `json:"status"`
	// Trigger says what started the run: api, trigger, schedule, replay. ThreadID is absent outside of threads.
	Trigger      string  `json:"trigger"`
	ThreadID     *string `json:"thread_id,omitempty"`
	ErrorMessage *string `json:"error_message"`
	CreatedAt    *string `json:"created_at"`
	StartedAt    *string `json:"started_at"`
	CompletedAt  *string `json:"completed_at"`
}

// runReply is a whole run.
type runReply struct {
	runSummary
	Input  map[string]any `json:"input"`
	Output *output        `json:"output"`
	Usage  run.Spent      `json:"usage"`
	// Meta is the kickoff's, absent without any.
	Meta json.RawMessage `json:"meta,omitempty"`
	// Limits bind the run. RerunOf is the earlier run that this one does again, Kept what it took over. Absent when there
	// are none.
	Limits  crew.Limits `json:"limits,omitzero"`
	RerunOf *string     `json:"rerun_of,omitempty"`
	Kept    *kept       `json:"kept,omitempty"`
}

// output is what a run that succeeded gave. ResultJSON is there when the result is JSON.
type output struct {
	Result     string          `json:"result"`
	ResultJSON json.RawMessage `json:"result_json,omitempty"`
}

// statusWords are this wire's words for the states of a run.
var statusWords = map[run.State]string{
	run.Queued:    "pending",
	run.Running:   "running",
	run.Waiting:   "running",
	run.Succeeded: "succeeded",
	run.Failed:    "failed",
	run.TimedOut:  "failed",
	run.Canceled:  "canceled",
}

// statesOf gives the states that a status means.
func statesOf(status string) (states []run.State) {
	for state, word := range statusWords {
		if word == status {
			states = append(states, state)
		}
	}
	slices.Sort(states)
	return states
}

func summarize(r run.Run) runSummary {
	s := runSummary{
		ID: id.Show("run", r.ID), VersionID: id.Show("ver", r.VersionID), VersionNumber: r.VersionNumber,
		DeploymentID: id.Show("dep", r.DeploymentID), Environment: r.Environment, Status: statusWords[r.State], Trigger: r.Origin,
		CreatedAt: timestamp(r.CreatedAt), StartedAt: timestamp(r.StartedAt), CompletedAt: timestamp(r.EndedAt),
	}
	if r.Thread != "" {
		s.ThreadID = text(id.Show("thr", r.Thread))
	}
	if s.Status == "failed" {
		s.ErrorMessage = text(r.Error)
	}
	return s
}

func (w *Wire) getRun(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	found, err := w.run(r, c)
	if err != nil {
		return err
	}
	page, err := w.Runs.Newest(r.Context(), found.ID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	request, err := w.Runs.Request(r.Context(), found.ID)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, w.render(found, request, page))
}

// render makes a run of its item and its newest page; the page is the truth.
func (w *Wire) render(r run.Run, q run.Request, p run.Page) runReply {
	spent := run.SpentBy(r, p, w.now())
	if p.Outcome != nil {
		r.State, r.Error, r.EndedAt = p.Outcome.State, p.Outcome.Error, p.At
	}
	reply := runReply{runSummary: summarize(r), Input: q.Inputs, Usage: spent, Meta: q.Meta, Limits: q.Limits}
	if q.Of != "" {
		reply.RerunOf, reply.Kept = text(id.Show("run", q.Of)), newKept(q.Kept)
	}
	if r.State == run.Succeeded && p.Outcome != nil {
		reply.Output = &output{Result: p.Outcome.Result, ResultJSON: p.Outcome.JSON}
	}
	return reply
}

// run finds the run that the path names, if the caller may see it.
func (w *Wire) run(r *http.Request, c workspace.Caller) (run.Run, error) {
	shown := r.PathValue("id")
	unknown := fault.New(fault.NotFound, "There is no run %q.", shown)
	runID, ok := id.Parse("run", shown)
	if !ok {
		return run.Run{}, unknown
	}
	found, err := w.Runs.Get(r.Context(), runID)
	if fault.Is(err, fault.NotFound) || err == nil && !c.SeesRun(found.WorkspaceID, found.DeploymentID, found.ID) {
		return run.Run{}, unknown
	}
	return found, err
}

type listReply struct {
	Runs       []runSummary `json:"runs"`
	NextCursor *string      `json:"next_cursor"`
}

func (w *Wire) listRuns(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	q, err := readList(r.URL.Query())
	if err != nil {
		return err
	}
	if q.DeploymentIDs, err = w.asked(r.Context(), r.URL.Query().Get("deployment_id"), c); err != nil {
		return err
	}
	runs, next, err := w.Runs.List(r.Context(), q)
	if err != nil {
		return err
	}
	reply := listReply{Runs: []runSummary{}}
	for _, found := range runs {
		reply.Runs = append(reply.Runs, summarize(found))
	}
	if next != "" {
		reply.NextCursor = text(id.Show("run", next))
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

// asked gives the deployments that a list is about: the one that the request names, or all of the caller's.
func (w *Wire) asked(ctx context.Context, shown string, c workspace.Caller) (ids []string, err error) {
	if shown != "" || c.Kind == workspace.Deployment {
		d, err := w.chosen(ctx, shown, c)
		return []string{d.ID}, err
	}
	all, err := w.Crews.Deployments(ctx, c.WorkspaceID)
	for _, d := range all {
		ids = append(ids, d.ID)
	}
	return ids, err
}

var errCursor = fault.New(fault.Invalid, "\"cursor\" must be the next_cursor of the page before.")

// origins are what starts runs.
var origins = []string{"api", "trigger", "schedule", "replay"}

// readList reads the query of a list.
func readList(v url.Values) (run.ListRequest, error) {
	var q run.ListRequest
	if status := v.Get("status"); status != "" {
		if q.States = statesOf(status); q.States == nil {
			return q, fault.New(fault.Invalid, "There is no status %q; there are pending, running, succeeded, failed and canceled.", status)
		}
	}
	if q.Origin = v.Get("trigger"); q.Origin != "" && !slices.Contains(origins, q.Origin) {
		var ok bool
		if q.Origin, ok = id.Parse("inc", q.Origin); !ok {
			return q, fault.New(fault.Invalid, "There is no trigger %q; there are %s, and the ids of incoming webhooks.", v.Get("trigger"), strings.Join(origins, ", "))
		}
	}
	if shown := v.Get("thread_id"); shown != "" {
		var ok bool
		if q.Thread, ok = id.Parse("thr", shown); !ok {
			return q, fault.New(fault.NotFound, "There is no thread %q.", shown)
		}
	}
	for field, at := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if written := v.Get(field); written != "" {
			var err error
			if *at, err = parseTime(field, written); err != nil {
				return q, err
			}
		}
	}
	for field := range v {
		if key, ok := strings.CutPrefix(field, "meta."); ok {
			if q.Meta == nil {
				q.Meta = map[string]string{}
			}
			q.Meta[key] = v.Get(field)
		}
	}
	var err error
	if q.Limit, err = readLimit(v); err != nil {
		return q, err
	}
	if cursor := v.Get("cursor"); cursor != "" {
		before, ok := id.Parse("run", cursor)
		if !ok {
			return q, errCursor
		}
		q.Cursor = before
	}
	return q, nil
}

// readLimit reads how many a list shows; 0 when the query does not say.
func readLimit(v url.Values) (int, error) {
	limit := v.Get("limit")
	if limit == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(limit)
	if err != nil || n < 1 || n > 100 {
		return 0, fault.New(fault.Invalid, "\"limit\" must be a number from 1 to 100.")
	}
	return n, nil
}
