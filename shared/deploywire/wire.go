// Package deploywire is the deployment wire, /v1: deployments and their versions, runs, the events that a program outside
// adds to a run, and the questions that runs ask people, for programs and, at /approvals, for a person with a link. It spells what packages crew and run know in the words of that wire, and decides nothing.
//
// Ids are shown with a prefix (dep_, ver_, run_, ws_) and taken with or without. Errors are {"error": {"code", "message"}}; bad
// input is 400. A deployment's token sees its own deployment and runs, and everything else is not there for it.
package deploywire

import (
	"context"
	"net/http"
	"slices"
	"time"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/resend"
	"muster/shared/run"
	"muster/shared/schedule"
	"muster/shared/thread"
	"muster/shared/trigger"
	"muster/shared/watch"
	"muster/shared/webhook"
	"muster/shared/workspace"
)

// Wire serves the routes.
type Wire struct {
	Runs      *run.Service
	Crews     *crew.Store
	Tokens    *workspace.Tokens
	Sealer    *workspace.Sealer
	Schedules *schedule.Schedules
	Threads   *thread.Threads
	Triggers  *trigger.Service
	// PublicURL is where others reach these routes; "" is where a request reached them.
	PublicURL string
	// Endpoints are the outgoing webhooks, Deliveries their log, and Resend sends again what is in it.
	Endpoints  webhook.Endpoints
	Deliveries webhook.Deliveries
	Resend     *resend.Service
	// Ping posts a test to an endpoint, and CheckURL refuses URLs that no POST could go to.
	Ping     func(ctx context.Context, e webhook.Endpoint) (webhook.Attempt, error)
	CheckURL func(url string) error
	// Queues are those whose dead letters /v1/dlq is about.
	Queues []NamedQueue
	// Feed is where runs are watched.
	Feed *watch.Feed
	// StreamURL is where streams are, if they are not here.
	StreamURL string
	// Now is the clock, time.Now unless set.
	Now func() time.Time
}

func (w *Wire) now() time.Time {
	if w.Now != nil {
		return w.Now()
	}
	return time.Now()
}

// Dialect is how this wire spells errors.
var Dialect = httpapi.Dialect{
	Body:   func(f *fault.Error) any { return errorReply{errorBody{codes[f.Kind], f.Message, f.Details}} },
	Status: map[fault.Kind]int{fault.Missing: http.StatusBadRequest},
}

type errorReply struct {
	Error errorBody `json:"error"`
}

type errorBody struct {
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Details map[string]any `json:"details,omitempty"`
}

// codes are this wire's words for the kinds of faults.
var codes = map[fault.Kind]string{
	fault.Invalid:      "bad_request",
	fault.Missing:      "bad_request",
	fault.Unauthorized: "unauthorized",
	fault.Forbidden:    "forbidden",
	fault.NotFound:     "not_found",
	fault.NotAllowed:   "method_not_allowed",
	fault.Conflict:     "conflict",
	fault.TooLarge:     "too_large",
	fault.Unsupported:  "unsupported_media_type",
	fault.TooMany:      "too_many_requests",
	fault.Unavailable:  "unavailable",
	fault.Internal:     "internal",
}

// Routes lists what the wire serves. It needs no Wire, so that the routes can be read as data. Each function that
// is to begin quickly has a list of its own, so that what it does not serve is not linked into it.
func (w *Wire) Routes() []httpapi.Route {
	return slices.Concat(w.Asking(), w.Kickoffs(), w.Watching(), w.Triggering())
}

// Kickoffs gives the routes that start runs.
func (w *Wire) Kickoffs() []httpapi.Route {
	return []httpapi.Route{
		{Method: "POST", Path: "/v1/deployments/{id}/schedules/{schedule}/run", Function: "kickoff", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.runSchedule},
		{Method: "POST", Path: "/v1/runs", Function: "kickoff", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.startRun},
		{Method: "POST", Path: "/v1/runs/{id}/rerun", Function: "kickoff", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.rerun},
	}
}

// Triggering gives the route that others start runs by.
func (w *Wire) Triggering() []httpapi.Route {
	return []httpapi.Route{
		{Method: "POST", Path: "/webhooks/runs/{token}", Function: "trigger", Who: httpapi.Anyone, Dialect: Dialect, Handle: w.receive},
	}
}

// Watching gives the route whose answers stream.
func (w *Wire) Watching() []httpapi.Route {
	return []httpapi.Route{
		{Method: "GET", Path: "/v1/runs/{id}/events", Function: "stream", Who: httpapi.Watcher, Dialect: Dialect, Handle: w.watchRun},
	}
}

// Asking gives the routes of the function api.
func (w *Wire) Asking() []httpapi.Route {
	return []httpapi.Route{
		{Method: "POST", Path: "/v1/deployments", Function: "api", Who: httpapi.Workspace, Dialect: Dialect, Handle: w.createDeployment},
		{Method: "GET", Path: "/v1/deployments", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listDeployments},
		{Method: "GET", Path: "/v1/deployments/{id}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.getDeployment},
		{Method: "PATCH", Path: "/v1/deployments/{id}", Function: "api", Who: httpapi.Workspace, Dialect: Dialect, Handle: w.changeDeployment},
		{Method: "POST", Path: "/v1/deployments/{id}/versions", Function: "api", Who: httpapi.Workspace, Dialect: Dialect, Handle: w.addVersion},
		{Method: "PUT", Path: "/v1/deployments/{id}/environments/{environment}", Function: "api", Who: httpapi.Workspace, Dialect: Dialect, Handle: w.promote},
		{Method: "POST", Path: "/v1/deployments/{id}/schedules", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.createSchedule},
		{Method: "GET", Path: "/v1/deployments/{id}/schedules", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listSchedules},
		{Method: "GET", Path: "/v1/deployments/{id}/schedules/{schedule}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.getSchedule},
		{Method: "PATCH", Path: "/v1/deployments/{id}/schedules/{schedule}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.changeSchedule},
		{Method: "DELETE", Path: "/v1/deployments/{id}/schedules/{schedule}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.deleteSchedule},
		{Method: "GET", Path: "/v1/runs", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listRuns},
		{Method: "GET", Path: "/v1/runs/{id}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.getRun},
		{Method: "POST", Path: "/v1/runs/{id}/tickets", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.addTicket},
		{Method: "POST", Path: "/v1/runs/{id}/events", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.addEvent},
		{Method: "POST", Path: "/v1/runs/{id}/cancel", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.cancelRun},
		{Method: "POST", Path: "/v1/threads", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.createThread},
		{Method: "GET", Path: "/v1/threads", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listThreads},
		{Method: "GET", Path: "/v1/threads/{id}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.getThread},
		{Method: "POST", Path: "/v1/threads/{id}/runs", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.startThreadRun},
		{Method: "GET", Path: "/v1/threads/{id}/history", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.threadHistory},
		{Method: "GET", Path: "/v1/approvals", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listApprovals},
		{Method: "GET", Path: "/v1/approvals/{id}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.getApproval},
		{Method: "POST", Path: "/v1/approvals/{id}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.answer},
		{Method: "GET", Path: "/approvals/{id}/{answer}", Function: "api", Who: httpapi.Anyone, Dialect: Dialect, Handle: w.showLink},
		{Method: "POST", Path: "/approvals/{id}/{answer}", Function: "api", Who: httpapi.Anyone, Dialect: Dialect, Handle: w.useLink},
		{Method: "GET", Path: "/v1/health/runs", Function: "api", Who: httpapi.Workspace, Dialect: Dialect, Handle: w.health},
		{Method: "POST", Path: "/v1/deployments/{id}/webhooks/incoming", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.createTrigger},
		{Method: "GET", Path: "/v1/deployments/{id}/webhooks/incoming", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listTriggers},
		{Method: "GET", Path: "/v1/webhooks/incoming/{wid}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.getTrigger},
		{Method: "PATCH", Path: "/v1/webhooks/incoming/{wid}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.changeTrigger},
		{Method: "DELETE", Path: "/v1/webhooks/incoming/{wid}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.deleteTrigger},
		{Method: "POST", Path: "/v1/webhooks/incoming/{wid}/regenerate", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.regenerateTrigger},
		{Method: "GET", Path: "/v1/receipts", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listReceipts},
		{Method: "GET", Path: "/v1/receipts/{id}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.getReceipt},
		{Method: "POST", Path: "/v1/receipts/{id}/replay", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.replayReceipt},
		{Method: "POST", Path: "/v1/deployments/{id}/regenerate-webhook-secret", Function: "api", Who: httpapi.Workspace, Dialect: Dialect, Handle: w.regenerateDeploymentSecret},
		{Method: "POST", Path: "/v1/deployments/{id}/webhooks/outgoing", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.createEndpoint},
		{Method: "GET", Path: "/v1/deployments/{id}/webhooks/outgoing", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listEndpoints},
		{Method: "GET", Path: "/v1/webhooks/outgoing/{wid}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.getEndpoint},
		{Method: "PATCH", Path: "/v1/webhooks/outgoing/{wid}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.patchEndpoint},
		{Method: "DELETE", Path: "/v1/webhooks/outgoing/{wid}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.deleteEndpoint},
		{Method: "POST", Path: "/v1/webhooks/outgoing/{wid}/regenerate-secret", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.regenerateSecret},
		{Method: "POST", Path: "/v1/webhooks/outgoing/{wid}/test", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.testEndpoint},
		{Method: "GET", Path: "/v1/webhooks/outgoing/{wid}/deliveries", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listDeliveries},
		{Method: "POST", Path: "/v1/webhooks/outgoing/{wid}/redrive", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.startRedrive},
		{Method: "GET", Path: "/v1/webhooks/outgoing/{wid}/redrive", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listRedrives},
		{Method: "GET", Path: "/v1/webhooks/outgoing/{wid}/redrive/{redrive}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.getRedrive},
		{Method: "DELETE", Path: "/v1/webhooks/outgoing/{wid}/redrive/{redrive}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.cancelRedrive},
		{Method: "GET", Path: "/v1/deliveries/{id}", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.getDelivery},
		{Method: "POST", Path: "/v1/deliveries/{id}/redeliver", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.redeliver},
		{Method: "GET", Path: "/v1/runs/{id}/targets", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listTargets},
		{Method: "POST", Path: "/v1/runs/{id}/targets/{target}/redeliver", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.redeliverTarget},
		{Method: "GET", Path: "/v1/runs/{id}/deliveries", Function: "api", Who: httpapi.Deployment, Dialect: Dialect, Handle: w.listRunDeliveries},
		{Method: "GET", Path: "/v1/dlq", Function: "api", Who: httpapi.Workspace, Dialect: Dialect, Handle: w.listDead},
		{Method: "POST", Path: "/v1/dlq/redrive", Function: "api", Who: httpapi.Workspace, Dialect: Dialect, Handle: w.redriveDead},
		{Method: "GET", Path: "/v1/events/types", Function: "api", Who: httpapi.Anyone, Dialect: Dialect, Handle: w.eventTypes},
	}
}

// timestamp writes a time, null for none.
func timestamp(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format(events.TimeFormat)
	return &s
}

// text is s, or null for "".
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
