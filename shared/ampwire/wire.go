// Package ampwire is the wire that clients of CrewAI AMP speak: GET /inputs, POST /kickoff, GET /status/{id}, POST /resume,
// POST /stop/{id}, and the bodies of the step, task, crew, human input and streaming webhooks. It spells what package run knows in the words of that wire, and decides
// nothing.
//
// A deployment token chooses its deployment. With the workspace token the header Muster-Deployment does, unless the workspace
// has only one. Errors are {"detail": sentence}; what cannot be right is 422 here, whoever sends it.
package ampwire

import (
	"io"
	"net/http"
	"slices"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/workspace"
)

// Wire serves the routes.
type Wire struct {
	Runs  *run.Service
	Crews *crew.Store
	// CheckURL refuses webhook URLs that no POST could go to, with a text that is safe to show.
	CheckURL func(url string) error
	// Note is what /status says of the model of a run under model_note: that it is no LLM, say. "" or no Note is null.
	Note func(run.Run) string
	// Now is the clock, time.Now unless set.
	Now func() time.Time
}

// Dialect is how this wire spells errors.
var Dialect = httpapi.Dialect{
	Body:   func(f *fault.Error) any { return errorReply{f.Message} },
	Status: map[fault.Kind]int{fault.Invalid: http.StatusUnprocessableEntity},
}

type errorReply struct {
	Detail string `json:"detail"`
}

// Routes lists what the wire serves. It needs no Wire, so that the routes can be read as data. Each function that
// is to begin quickly has a list of its own, so that what it does not serve is not linked into it.
func (w *Wire) Routes() []httpapi.Route {
	return slices.Concat(w.Asking(), w.Kickoffs())
}

// Kickoffs gives the route that starts runs.
func (w *Wire) Kickoffs() []httpapi.Route {
	return []httpapi.Route{
		{Method: "POST", Path: "/kickoff", Function: "kickoff", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.kickoff},
	}
}

// Asking gives the routes of the function api.
func (w *Wire) Asking() []httpapi.Route {
	return []httpapi.Route{
		{Method: "GET", Path: "/inputs", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.inputs},
		{Method: "GET", Path: "/status/{id}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.status},
		// Once documented by mistake, and still called.
		{Method: "GET", Path: "/{id}/status", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.status},
		{Method: "POST", Path: "/resume", Function: "api", Who: httpapi.Deployment, Dialect: resumeDialect, Handle: w.resume},
		{Method: "POST", Path: "/stop/{id}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.stop},
		{Method: "GET", Path: "/healthcheck", Function: "api", Who: httpapi.Anyone, Dialect: Dialect, Handle: w.healthcheck},
	}
}

func (w *Wire) healthcheck(rw http.ResponseWriter, _ *http.Request, _ workspace.Caller) error {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(rw, "Healthy")
	return nil
}

type inputsReply struct {
	Inputs []string `json:"inputs"`
}

func (w *Wire) inputs(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	d, err := w.deployment(r, c)
	if err != nil {
		return err
	}
	reply := inputsReply{Inputs: []string{}}
	reply.Inputs = append(reply.Inputs, d.Environments[crew.Production].Inputs...)
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

// DeploymentHeader chooses a deployment for a caller with the workspace token.
const DeploymentHeader = "Muster-Deployment"

// deployment gives the deployment that a request is for.
func (w *Wire) deployment(r *http.Request, c workspace.Caller) (crew.Deployment, error) {
	if c.Kind == workspace.Deployment {
		return w.Crews.Deployment(r.Context(), c.DeploymentID)
	}
	if asked := r.Header.Get(DeploymentHeader); asked != "" {
		unknown := fault.New(fault.NotFound, "There is no deployment %q in this workspace.", asked)
		deploymentID, ok := id.Parse("dep", asked)
		if !ok {
			return crew.Deployment{}, unknown
		}
		d, err := w.Crews.Deployment(r.Context(), deploymentID)
		if fault.Is(err, fault.NotFound) || err == nil && !c.Sees(d.WorkspaceID, d.ID) {
			return crew.Deployment{}, unknown
		}
		return d, err
	}
	all, err := w.Crews.Deployments(r.Context(), c.WorkspaceID)
	if err != nil {
		return crew.Deployment{}, err
	}
	switch len(all) {
	case 1:
		return all[0], nil
	case 0:
		return crew.Deployment{}, fault.New(fault.Invalid, "This workspace has no deployment yet; make one with POST /v1/deployments.")
	}
	return crew.Deployment{}, fault.New(fault.Invalid, "This workspace has several deployments; choose one with the header %s, or use a deployment's token.", DeploymentHeader)
}

func (w *Wire) now() time.Time {
	if w.Now != nil {
		return w.Now()
	}
	return time.Now()
}
