package deploywire

import (
	"net/http"
	"slices"

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

// oneApproval is an approval with what became of it.
type oneApproval struct {
	approval
	// Status is "pending", "approved", "rejected", or "closed" when the run was over before anybody answered.
	Status   string  `json:"status"`
	Feedback *string `json:"feedback"`
	// ByDefault says that nobody answered in time, and this is the default.
	ByDefault bool `json:"by_default"`
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
		reply.Approvals = append(reply.Approvals, newApproval(one))
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

func newApproval(q run.Question) approval {
	return approval{
		ID: q.ID, RunID: id.Show("run", q.Run.ID), DeploymentID: id.Show("dep", q.Run.DeploymentID),
		TaskID: q.Task.TaskID, TaskName: q.Task.Name, Output: q.Task.Raw, Round: q.Round,
		AskedAt: timestamp(q.At), ExpiresAt: timestamp(q.Expires), Default: text(q.Default),
	}
}

// getApproval shows a question, open or not.
func (w *Wire) getApproval(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	if _, err := w.approval(r, c); err != nil {
		return err
	}
	q, err := w.Runs.Question(r.Context(), r.PathValue("id"))
	if err != nil {
		return unknownApproval(r, err)
	}
	reply := oneApproval{approval: newApproval(q), Status: "pending"}
	switch {
	case q.Reply != nil:
		reply.Status, reply.Feedback, reply.ByDefault = verdict(*q.Reply), text(q.Reply.Feedback), q.Reply.Timeout
	case !q.Waits():
		reply.Status = "closed"
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

// approval gives the run of the question that the path names, if the caller may see it.
func (w *Wire) approval(r *http.Request, c workspace.Caller) (runID string, err error) {
	runID, ok := run.RunOf(r.PathValue("id"))
	if !ok {
		return "", unknownApproval(r, fault.New(fault.NotFound, ""))
	}
	found, err := w.Runs.Get(r.Context(), runID)
	if err == nil && !c.Sees(found.WorkspaceID, found.DeploymentID) {
		err = fault.New(fault.NotFound, "")
	}
	return runID, unknownApproval(r, err)
}

// unknownApproval says in the same words of every question that there is not, and of every one that is somebody else's, that it is not there.
func unknownApproval(r *http.Request, err error) error {
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.NotFound, "There is no approval %q.", r.PathValue("id"))
	}
	return err
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
	approve, feedback := []string{"approve", "is_approve", "isApprove"}, []string{"feedback", "human_feedback", "humanFeedback"}
	if !slices.ContainsFunc(approve, o.Has) {
		return fault.New(fault.Invalid, "\"approve\" is missing: true or false.")
	}
	var reply run.Reply
	if reply.Approve, err = spelled(o, httpapi.Object.Bool, approve...); err != nil {
		return err
	}
	if reply.Feedback, err = spelled(o, httpapi.Object.String, feedback...); err != nil {
		return err
	}
	runID, err := w.approval(r, c)
	if err != nil {
		return err
	}
	questionID := r.PathValue("id")
	if err := w.Runs.Answer(r.Context(), questionID, reply); err != nil {
		return unknownApproval(r, err)
	}
	httpapi.Warn(rw, o.Unknown(slices.Concat(approve, feedback)...))
	return httpapi.WriteJSON(rw, http.StatusOK, answerReply{questionID, id.Show("run", runID), verdict(reply)})
}

// spelled reads a field that callers of the AMP wire spell in other ways than ours, which comes first. Two spellings must say the same.
func spelled[T comparable](o httpapi.Object, read func(httpapi.Object, string) (T, error), spellings ...string) (value T, err error) {
	as := ""
	for _, field := range spellings {
		if !o.Has(field) {
			continue
		}
		v, err := read(o, field)
		if err != nil {
			return value, err
		}
		if as != "" && v != value {
			return value, fault.New(fault.Invalid, "%q and %q say different things.", as, field)
		}
		as, value = field, v
	}
	return value, nil
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
