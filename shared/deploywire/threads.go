package deploywire

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/thread"
	"muster/shared/workspace"
)

// threadSummary is a thread in a list.
type threadSummary struct {
	ThreadID     string          `json:"thread_id"`
	DeploymentID string          `json:"deployment_id"`
	Status       thread.Status   `json:"status"`
	Metadata     json.RawMessage `json:"metadata"`
	CreatedAt    *string         `json:"created_at"`
	UpdatedAt    *string         `json:"updated_at"`
}

// threadReply is a whole thread.
type threadReply struct {
	threadSummary
	Values map[string]any `json:"values"`
}

func (w *Wire) describeThread(ctx context.Context, t thread.Thread) (threadReply, error) {
	state, err := w.Threads.State(ctx, t)
	if err != nil {
		return threadReply{}, err
	}
	reply := threadReply{
		threadSummary{
			ThreadID: id.Show("thr", t.ID), DeploymentID: id.Show("dep", t.DeploymentID), Status: state.Status,
			Metadata: t.Metadata, CreatedAt: timestamp(t.CreatedAt), UpdatedAt: timestamp(state.UpdatedAt),
		},
		state.Values,
	}
	if reply.Metadata == nil {
		reply.Metadata = json.RawMessage("{}")
	}
	return reply, nil
}

func (w *Wire) showThread(rw http.ResponseWriter, ctx context.Context, status int, t thread.Thread) error {
	reply, err := w.describeThread(ctx, t)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, status, reply)
}

func (w *Wire) createThread(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, body, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	shown, err := o.String("deployment_id")
	if err != nil {
		return err
	}
	var n thread.New
	if _, err := o.Object("metadata"); err != nil {
		return err
	}
	if o.Has("metadata") {
		n.Metadata = o["metadata"]
	}
	if n.Values, err = o.Values("values"); err != nil {
		return err
	}
	if n.IdempotencyKey, n.BodyDigest, err = httpapi.Idempotency(r, "threads", body); err != nil {
		return err
	}
	d, err := w.chosen(r.Context(), shown, c)
	if err != nil {
		return err
	}
	t, err := w.Threads.Create(r.Context(), d, n)
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown("deployment_id", "metadata", "values"))
	return w.showThread(rw, r.Context(), http.StatusCreated, t)
}

func (w *Wire) getThread(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	t, err := w.thread(r, c)
	if err != nil {
		return err
	}
	return w.showThread(rw, r.Context(), http.StatusOK, t)
}

// thread finds the thread that the path names, if the caller may see it.
func (w *Wire) thread(r *http.Request, c workspace.Caller) (thread.Thread, error) {
	shown := r.PathValue("id")
	unknown := fault.New(fault.NotFound, "There is no thread %q.", shown)
	threadID, ok := id.Parse("thr", shown)
	if !ok {
		return thread.Thread{}, unknown
	}
	t, err := w.Threads.Get(r.Context(), threadID)
	if fault.Is(err, fault.NotFound) || err == nil && !c.Sees(t.WorkspaceID, t.DeploymentID) {
		return thread.Thread{}, unknown
	}
	return t, err
}

type threadsReply struct {
	Threads    []threadSummary `json:"threads"`
	NextCursor *string         `json:"next_cursor"`
}

func (w *Wire) listThreads(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	v := r.URL.Query()
	limit, err := readLimit(v)
	if err != nil {
		return err
	}
	if limit == 0 {
		limit = 20
	}
	before := ""
	if cursor := v.Get("cursor"); cursor != "" {
		var ok bool
		if before, ok = id.Parse("thr", cursor); !ok {
			return errCursor
		}
	}
	deployments, err := w.asked(r.Context(), v.Get("deployment_id"), c)
	if err != nil {
		return err
	}
	threads, next, err := w.Threads.List(r.Context(), deployments, before, limit)
	if err != nil {
		return err
	}
	reply := threadsReply{Threads: []threadSummary{}}
	for _, t := range threads {
		shown, err := w.describeThread(r.Context(), t)
		if err != nil {
			return err
		}
		reply.Threads = append(reply.Threads, shown.threadSummary)
	}
	if next != "" {
		reply.NextCursor = text(id.Show("thr", next))
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

// threadRunReply is the answer to a run started in a thread. A run that waits for its turn is pending; of several that come at
// once and interrupt each other, all but the last are canceled.
type threadRunReply struct {
	startReply
	ThreadID string `json:"thread_id"`
}

func (w *Wire) startThreadRun(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, body, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	strategy, err := o.String("multitask_strategy")
	if err != nil {
		return err
	}
	t, err := w.thread(r, c)
	if err != nil {
		return err
	}
	q, err := readStart(r, "threads/"+t.ID, o, body)
	if err != nil {
		return err
	}
	if q.Deployment, err = w.Crews.Deployment(r.Context(), t.DeploymentID); err != nil {
		return err
	}
	started, err := w.Threads.Run(r.Context(), t, thread.Strategy(strategy), q)
	showRate(rw, started)
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown(append(startFields, "multitask_strategy")...))
	reply := threadRunReply{newStartReply(started), id.Show("thr", t.ID)}
	if started.Waits || started.Before || started.State.Ended() {
		reply.Status = statusWords[started.State]
	}
	return httpapi.WriteJSON(rw, http.StatusAccepted, reply)
}

// checkpointReply is what a run left in its thread.
type checkpointReply struct {
	CheckpointID string         `json:"checkpoint_id"`
	RunID        string         `json:"run_id"`
	Values       map[string]any `json:"values"`
	CreatedAt    *string        `json:"created_at"`
}

type historyReply struct {
	History    []checkpointReply `json:"history"`
	NextCursor *string           `json:"next_cursor"`
}

func (w *Wire) threadHistory(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	v := r.URL.Query()
	limit, err := readLimit(v)
	if err != nil {
		return err
	}
	if limit == 0 {
		limit = 20
	}
	before := 0
	if cursor := v.Get("cursor"); cursor != "" {
		if before, err = strconv.Atoi(cursor); err != nil || before < 1 {
			return errCursor
		}
	}
	t, err := w.thread(r, c)
	if err != nil {
		return err
	}
	turns, next, err := w.Threads.History(r.Context(), t, before, limit)
	if err != nil {
		return err
	}
	reply := historyReply{History: []checkpointReply{}}
	for _, turn := range turns {
		reply.History = append(reply.History, checkpointReply{
			CheckpointID: id.Show("chk", id.Derive(t.ID, "turn/"+strconv.Itoa(turn.N))), RunID: id.Show("run", turn.Run),
			Values: turn.Values, CreatedAt: timestamp(turn.At),
		})
	}
	if next > 0 {
		reply.NextCursor = text(strconv.Itoa(next))
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}
