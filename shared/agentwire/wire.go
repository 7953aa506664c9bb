package agentwire

import (
	"net/http"
	"slices"
	"time"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/run"
	"muster/shared/trigger"
	"muster/shared/workspace"
)

// Wire serves the routes.
type Wire struct {
	Runs     *run.Service
	Crews    *crew.Store
	Triggers *trigger.Service
	Tokens   *workspace.Tokens
	// Needs says what is there of that which the trigger needs.
	Needs Needs
	// Now is the clock, time.Now unless set.
	Now func() time.Time
}

func (w *Wire) now() time.Time {
	if w.Now != nil {
		return w.Now()
	}
	return time.Now()
}

// Needs is what the trigger of agents needs. Without one of them there is no trigger: its path is like any other that no
// route serves.
type Needs struct {
	// Orchestrator: there is a queue where runs wait for somebody who executes them.
	Orchestrator bool
	// ContainerProvider: there is a runner, which executes them.
	ContainerProvider bool
	// LogWriter: there is a store that keeps their events.
	LogWriter bool
	// InternalToken: there is an internal token. Without it nobody can read a secret either.
	InternalToken bool
}

// All says whether everything is there.
func (n Needs) All() bool {
	return n.Orchestrator && n.ContainerProvider && n.LogWriter && n.InternalToken
}

// Dialect is how this wire spells errors.
var Dialect = httpapi.Dialect{Body: func(f *fault.Error) any { return problem(f.Kind, f.Message) }, Status: badRequests}

// badRequests: what the other wires call unprocessable is a bad request here.
var badRequests = map[fault.Kind]int{fault.Missing: http.StatusBadRequest}

func problem(k fault.Kind, detail string) httpapi.Problem {
	status := httpapi.StatusOf(k)
	if s, ok := badRequests[k]; ok {
		status = s
	}
	return httpapi.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

// plain is how the trigger spells errors.
var plain = httpapi.Dialect{Body: func(f *fault.Error) any {
	switch f.Kind {
	case fault.Internal:
		return httpapi.Text("internal error")
	case fault.NotAllowed:
		return httpapi.Text("method not allowed")
	}
	return httpapi.Text(f.Message)
}, Status: badRequests}

// Routes lists what the wire serves, as far as its Needs are there. The routes can be read as data from a Wire that has
// nothing else.
func (w *Wire) Routes() []httpapi.Route { return slices.Concat(w.Asking(), w.Triggering()) }

// Absent lists the routes that the wire does not serve, because something is missing that they need.
func (w *Wire) Absent() []httpapi.Route {
	return slices.DeleteFunc((&Wire{Needs: Needs{true, true, true, true}}).Routes(), func(r httpapi.Route) bool {
		return slices.ContainsFunc(w.Routes(), func(served httpapi.Route) bool { return served.Method == r.Method && served.Path == r.Path })
	})
}

// Triggering gives the route that triggers an agent.
func (w *Wire) Triggering() (routes []httpapi.Route) {
	if w.Needs.All() {
		routes = append(routes, httpapi.Route{
			Method: "POST", Path: "/api/v1/webhooks/{crewId}/{agentId}/trigger", Function: "trigger", Who: httpapi.Anyone, Dialect: plain, Handle: w.trigger,
		})
	}
	return routes
}

// Asking gives the routes of the function api.
func (w *Wire) Asking() []httpapi.Route {
	routes := []httpapi.Route{
		{Method: "GET", Path: "/api/health", Function: "api", Who: httpapi.Anyone, Dialect: Dialect, Handle: w.health},
		{Method: "GET", Path: "/api/v1/runs", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listRuns},
		{Method: "GET", Path: "/api/v1/runs/insights", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.insights},
		{Method: "GET", Path: "/api/v1/runs/{id}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.getRun},
		{Method: "GET", Path: "/api/v1/agents/{agentId}/runs", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listAgentRuns},
		{Method: "GET", Path: "/api/v1/agents/{agentId}/logs", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listLogs},
		{Method: "POST", Path: "/api/v1/agents/{agentId}/stop", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.stopAgent},
		{Method: "POST", Path: "/api/v1/agents/{agentId}/webhook-secret/rotate", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.rotateSecret},
	}
	if w.Needs.InternalToken {
		routes = append(routes, httpapi.Route{
			Method: "GET", Path: "/api/v1/internal/agents/{agentId}/webhook-secret", Function: "api", Inside: true, Who: httpapi.Anyone, Dialect: Dialect, Handle: w.showSecret,
		})
	}
	return routes
}

func (w *Wire) health(rw http.ResponseWriter, _ *http.Request, _ workspace.Caller) error {
	return httpapi.WriteJSON(rw, http.StatusOK, map[string]string{"status": "ok"})
}

// timestamp writes a time, null for none.
func timestamp(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return text(t.UTC().Format(events.TimeFormat))
}

// text is s, or null for "".
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
