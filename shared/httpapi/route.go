// Package httpapi is what all HTTP wires share: routes as data, who may call them, one table from faults to statuses, and the
// reading of bodies. What a request means and how an answer looks is each wire's own; a Dialect says how it spells errors.
//
// The handler made by API recovers from panics, gives each answer a request id and the usual safe headers, and answers
// unknown paths and methods in the dialect of their neighbours.
package httpapi

import (
	"net/http"

	"muster/shared/fault"
	"muster/shared/workspace"
)

// Who says which tokens a route takes.
type Who int

const (
	// Anyone needs no token.
	Anyone Who = iota
	// Deployment takes a deployment's token, or the workspace's.
	Deployment
	// Workspace takes the workspace's token.
	Workspace
	// Internal takes an internal token only.
	Internal
	// Watcher takes what Deployment takes, and a ticket, also in the query.
	Watcher
)

// takes holds the kinds of callers each Who lets in.
var takes = map[Who][]workspace.Kind{
	Deployment: {workspace.Deployment, workspace.Workspace},
	Workspace:  {workspace.Workspace},
	Internal:   {workspace.Internal},
	Watcher:    {workspace.Deployment, workspace.Workspace, workspace.Ticket},
}

// Route is one method on one path.
type Route struct {
	Method string
	// Path is a path pattern of net/http, such as "/status/{id}". One that begins with a wildcard is tried after all others,
	// so "/{id}/status" can stand beside "/status/{id}".
	Path string
	// Function names the Lambda that serves it.
	Function string
	// Inside keeps the route off the public front door: it is there for who may invoke the function only. To everybody else
	// its path is like any other that no route serves.
	Inside  bool
	Who     Who
	Dialect Dialect
	// Handle answers, or returns what went wrong before it wrote anything. The caller is empty when Who is Anyone.
	Handle func(w http.ResponseWriter, r *http.Request, c workspace.Caller) error
}

// Text is an answer that is plain text.
type Text string

// Dialect is how a wire spells errors.
type Dialect struct {
	// Body makes the JSON value of an error answer; a Text goes as it is.
	Body func(f *fault.Error) any
	// Status holds the kinds that this wire answers with another status than the usual one.
	Status map[fault.Kind]int
}

// statuses is the usual status of each kind of fault.
var statuses = map[fault.Kind]int{
	fault.Invalid:      http.StatusBadRequest,
	fault.Unauthorized: http.StatusUnauthorized,
	fault.Forbidden:    http.StatusForbidden,
	fault.NotFound:     http.StatusNotFound,
	fault.NotAllowed:   http.StatusMethodNotAllowed,
	fault.Conflict:     http.StatusConflict,
	fault.TooLarge:     http.StatusRequestEntityTooLarge,
	fault.Unsupported:  http.StatusUnsupportedMediaType,
	fault.Missing:      http.StatusUnprocessableEntity,
	fault.TooMany:      http.StatusTooManyRequests,
	fault.Unavailable:  http.StatusServiceUnavailable,
	fault.Internal:     http.StatusInternalServerError,
}

func (d Dialect) status(k fault.Kind) int {
	if s, ok := d.Status[k]; ok {
		return s
	}
	return StatusOf(k)
}

// StatusOf gives the usual status of a kind of fault.
func StatusOf(k fault.Kind) int { return statuses[k] }

// Problem is an error answer as RFC 7807 has it.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}
