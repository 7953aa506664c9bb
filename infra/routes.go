package infra

import (
	"slices"

	"muster/shared/ampwire"
	"muster/shared/deploywire"
	"muster/shared/guide"
	"muster/shared/httpapi"
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

// Routes holds every HTTP route of every wire. As data they need no wire behind them, and their Handle must not be called.
func Routes() []httpapi.Route {
	return slices.Concat((*ampwire.Wire)(nil).Routes(), (*deploywire.Wire)(nil).Routes(), guide.Routes(deploywire.Dialect))
}
