package deploywire

import (
	"net/http"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/workspace"
)

type approval struct {
	ID           string  `json:"id"`
	RunID        string  `json:"run_id"`
	DeploymentID string  `json:"deployment_id"`
	TaskID       string  `json:"task_id"`
	TaskName     string  `json:"task_name"`
	Output       string  `json:"output"`
	Round        int     `json:"round"`
	AskedAt      *string `json:"asked_at"`
	ExpiresAt    *string `json:"expires_at"`
	// Default is the answer from ExpiresAt on; null ends the run then.
	Default *string `json:"default"`
}

type approvalsReply struct {
	Approvals  []approval `json:"approvals"`
	NextCursor *string    `json:"next_cursor"`
}

// listApprovals lists the questions that wait for a person, those of the newest runs first.
func (w *Wire) listApprovals(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	values := r.URL.Query()
	limit, err := readLimit(values)
	if err != nil {
		return err
	}
	q := run.ListRequest{Limit: limit, Cursor: values.Get("cursor")}
	if _, ok := run.RunOf(q.Cursor); q.Cursor != "" && !ok {
		return errCursor
	}
	if q.DeploymentIDs, err = w.asked(r.Context(), values.Get("deployment_id"), c); err != nil {
		return err
	}
	open, next, err := w.Runs.Approvals(r.Context(), q)
	if err != nil {
		return err
	}
	reply := approvalsReply{Approvals: []approval{}, NextCursor: text(next)}
	for _, one := range open {
		reply.Approvals = append(reply.Approvals, approval{
			ID: one.ID, RunID: id.Show("run", one.Run.ID), DeploymentID: id.Show("dep", one.Run.DeploymentID),
			TaskID: one.Task.TaskID, TaskName: one.Task.Name, Output: one.Task.Raw, Round: one.Round,
			AskedAt: timestamp(one.At), ExpiresAt: timestamp(one.Expires), Default: text(one.Default),
		})
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

type answerReply struct {
	ID     string `json:"id"`
	RunID  string `json:"run_id"`
	Status string `json:"status"`
}

// answer answers a question.
func (w *Wire) answer(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, _, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	if !o.Has("approve") {
		return fault.New(fault.Invalid, "\"approve\" is missing: true or false.")
	}
	var reply run.Reply
	if reply.Approve, err = o.Bool("approve"); err != nil {
		return err
	}
	if reply.Feedback, err = o.String("feedback"); err != nil {
		return err
	}
	questionID := r.PathValue("id")
	unknown := fault.New(fault.NotFound, "There is no approval %q.", questionID)
	runID, ok := run.RunOf(questionID)
	if !ok {
		return unknown
	}
	found, err := w.Runs.Get(r.Context(), runID)
	if fault.Is(err, fault.NotFound) || err == nil && !c.Sees(found.WorkspaceID, found.DeploymentID) {
		return unknown
	}
	if err != nil {
		return err
	}
	err = w.Runs.Answer(r.Context(), questionID, reply)
	if fault.Is(err, fault.NotFound) {
		return unknown
	}
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown("approve", "feedback"))
	return httpapi.WriteJSON(rw, http.StatusOK, answerReply{questionID, id.Show("run", runID), verdict(reply)})
}

func verdict(a run.Reply) string {
	if a.Approve {
		return "approved"
	}
	return "rejected"
}

type cancelReply struct {
	Success bool   `json:"success"`
	Status  string `json:"status"`
}

func (w *Wire) cancelRun(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	found, err := w.run(r, c)
	if err != nil {
		return err
	}
	stopped, err := w.Runs.Stop(r.Context(), found.ID)
	if fault.Is(err, fault.Conflict) {
		return fault.New(fault.Invalid, "Cannot cancel run with status: %s", statusWords[stopped.State])
	}
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, cancelReply{Success: true, Status: "canceled"})
}
