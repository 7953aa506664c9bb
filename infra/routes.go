package infra

import (
	"slices"

	"muster/shared/agentwire"
	"muster/shared/ampwire"
	"muster/shared/deploywire"
	"muster/shared/guide"
	"muster/shared/httpapi"
	"muster/shared/openapi"
)

// Front names the function that API Gateway calls for the routes of a function: the function itself, unless it streams.
func Front(function string) string {
	for _, f := range Functions {
		if f.Name == function && f.Streams {
			return Otherwise
		}
	}
	return function
}

// Agents says what this manifest has of that which the trigger of agents needs.
func Agents() agentwire.Needs {
	n := agentwire.Needs{Orchestrator: slices.ContainsFunc(Queues, func(q Queue) bool { return q.Name == Runs }), InternalToken: InternalToken}
	for _, f := range Functions {
		if f.Eats != nil && f.Eats.Queue == Runs {
			n.ContainerProvider, n.LogWriter = true, f.May.Keep
		}
	}
	return n
}

// SocketPath is where the WebSocket API is on one machine. On AWS it has a URL of its own.
const SocketPath = agentwire.SocketPath

// Routes holds every HTTP route of every wire. As data they need no wire behind them, and their Handle must not be called.
func Routes() []httpapi.Route { return RoutesWith(Agents()) }

// RoutesWith holds the routes of a home that has only these of the things that the trigger of agents needs.
func RoutesWith(n agentwire.Needs) []httpapi.Route {
	return slices.Concat((*ampwire.Wire)(nil).Routes(), (*deploywire.Wire)(nil).Routes(), (&agentwire.Wire{Needs: n}).Routes(), guide.Routes(deploywire.Dialect), openapi.Routes(deploywire.Dialect))
}
