package ampwire

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"slices"
	"strings"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/workspace"
)

// POST /resume and POST /stop/{id}. The errors of /resume have a shape of their own, with a title.

var resumeDialect = httpapi.Dialect{
	Body:   func(f *fault.Error) any { return resumeError{titles[f.Kind], f.Message} },
	Status: map[fault.Kind]int{fault.Invalid: http.StatusUnprocessableEntity},
}

type resumeError struct {
	Error   string `json:"error"`
	Message string `json:"message"`
}

var titles = map[fault.Kind]string{
	fault.Invalid:      "Validation Error",
	fault.Missing:      "Validation Error",
	fault.Unauthorized: "Unauthorized",
	fault.Forbidden:    "Forbidden",
	fault.NotFound:     "Not Found",
	fault.NotAllowed:   "Method Not Allowed",
	fault.Conflict:     "Conflict",
	fault.TooLarge:     "Too Large",
	fault.Unsupported:  "Unsupported Media Type",
	fault.TooMany:      "Too Many Requests",
	fault.Unavailable:  "Unavailable",
	fault.Internal:     "Internal Server Error",
}

var errNotWaiting = resumeError{"Invalid Request", "Execution is not in pending human input state"}

type resumeReply struct {
	KickoffID string `json:"kickoff_id"`
	Status    string `json:"status"`
	Message   string `json:"message"`
}

// resume is a request as it was understood.
type resume struct {
	run, task, question string
	reply               run.Reply
	targets             []run.Target
}

func (w *Wire) resume(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, body, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	key, _, err := httpapi.Idempotency(r, "resume", body)
	if err != nil {
		return err
	}
	if o, err = inCamelCase(o); err != nil {
		return err
	}
	q, err := readResume(o)
	if err != nil {
		return err
	}
	if err := w.checkTargets(q.targets); err != nil {
		return err
	}
	found, err := w.find(r.Context(), q.run, c)
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.NotFound, "Execution ID not found")
	}
	if err != nil {
		return err
	}
	if key != "" {
		sum := sha256.Sum256([]byte(key))
		q.reply.Key = hex.EncodeToString(sum[:16])
	}
	question, err := w.question(r.Context(), found, q)
	if err != nil {
		return err
	}
	if question != "" {
		err = w.Runs.Answer(r.Context(), question, q.reply, q.targets...)
	}
	if question == "" || fault.Is(err, fault.Invalid) {
		return httpapi.WriteJSON(rw, http.StatusBadRequest, errNotWaiting)
	}
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown(resumeFields...))
	reply := resumeReply{KickoffID: found.ID, Status: "resumed", Message: "The task is approved; the execution goes on."}
	if !q.reply.Approve {
		reply.Status, reply.Message = "retrying", "The task is done again with the feedback."
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

// resumeFields are all fields of the request; "output" and "inputs" were once demanded and say nothing new.
var resumeFields = slices.Concat([]string{
	"executionId", "kickoffId", "taskId", "requestId", "humanFeedback", "isApprove", "output", "inputs", "meta", "webhooks",
}, targetFields)

// inCamelCase gives every field its name in camel case; callers mix both spellings. A field that is given in both must say
// the same.
func inCamelCase(o httpapi.Object) (httpapi.Object, error) {
	camel, spelled := httpapi.Object{}, map[string]string{}
	for _, field := range slices.Sorted(maps.Keys(o)) {
		words := strings.Split(field, "_")
		for i := 1; i < len(words); i++ {
			if words[i] != "" {
				words[i] = strings.ToUpper(words[i][:1]) + words[i][1:]
			}
		}
		name := strings.Join(words, "")
		if !slices.Contains(resumeFields, name) {
			name = field
		}
		if camel.Has(name) && o.Has(field) && !bytes.Equal(camel[name], o[field]) {
			return nil, fault.New(fault.Invalid, "%q and %q say different things.", spelled[name], field)
		}
		if !camel.Has(name) {
			camel[name], spelled[name] = o[field], field
		}
	}
	return camel, nil
}

func readResume(o httpapi.Object) (q resume, err error) {
	for field, into := range map[string]*string{
		"executionId": &q.run, "taskId": &q.task, "requestId": &q.question, "humanFeedback": &q.reply.Feedback,
	} {
		if *into, err = o.String(field); err != nil {
			return q, err
		}
	}
	if q.run == "" {
		if q.run, err = o.String("kickoffId"); err != nil {
			return q, err
		}
	}
	switch {
	case q.run == "":
		return q, fault.New(fault.Missing, "\"execution_id\" is missing.")
	case q.task == "":
		return q, fault.New(fault.Missing, "\"task_id\" is missing.")
	case !o.Has("isApprove"):
		return q, fault.New(fault.Missing, "\"is_approve\" is missing: true or false.")
	}
	if q.reply.Approve, err = o.Bool("isApprove"); err != nil {
		return q, err
	}
	q.targets, err = readTargets(o, nil)
	return q, err
}

// question finds what is answered: the question that the request names, the one that was answered under its
// Idempotency-Key, or else the newest one of its task. It is "" when the task has asked nothing. fault.NotFound: the run has no such task or question.
func (w *Wire) question(ctx context.Context, r run.Run, q resume) (string, error) {
	def, err := w.Crews.Definition(ctx, r.VersionID)
	if err != nil {
		return "", err
	}
	task := ""
	for _, t := range def.Tasks {
		if taskID := run.TaskID(r.ID, t.Key); q.task == taskID || q.task == t.Name || q.task == t.Key {
			task = taskID
			break
		}
	}
	if task == "" && r.State != run.Waiting {
		return "", nil // whichever task is meant, nothing waits for an answer
	}
	if task == "" {
		return "", fault.New(fault.NotFound, "Task ID not found")
	}
	if q.question != "" {
		if of, ok := run.RunOf(q.question); !ok || of != r.ID {
			return "", fault.New(fault.NotFound, "Request ID not found")
		}
		return q.question, nil
	}
	if q.reply.Key != "" {
		question, err := w.Runs.AnsweredAs(ctx, r.ID, task, q.reply.Key)
		if !fault.Is(err, fault.NotFound) {
			return question, err
		}
	}
	question, err := w.Runs.QuestionOf(ctx, r.ID, task)
	if fault.Is(err, fault.NotFound) {
		return "", nil
	}
	return question, err
}

type stopReply struct {
	Status    string `json:"status"`
	KickoffID string `json:"kickoffId"`
}

func (w *Wire) stop(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	found, err := w.find(r.Context(), r.PathValue("id"), c)
	if err != nil {
		return err
	}
	stopped, err := w.Runs.Stop(r.Context(), found.ID)
	if fault.Is(err, fault.Conflict) {
		state, _ := stateWords(stopped.State, run.Page{})
		return httpapi.WriteJSON(rw, http.StatusBadRequest, errorReply{"Cannot stop execution. Current state: " + state})
	}
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, stopReply{Status: "stopped", KickoffID: found.ID})
}

// find finds a run of the caller. fault.NotFound: the caller has no such run.
func (w *Wire) find(ctx context.Context, shown string, c workspace.Caller) (run.Run, error) {
	unknown := fault.New(fault.NotFound, "There is no execution %q.", shown)
	runID, ok := id.Parse("run", shown)
	if !ok {
		return run.Run{}, unknown
	}
	r, err := w.Runs.Get(ctx, runID)
	if fault.Is(err, fault.NotFound) || err == nil && !c.Sees(r.WorkspaceID, r.DeploymentID) {
		return run.Run{}, unknown
	}
	return r, err
}
