package infra

import (
	"slices"

	"muster/shared/ampwire"
	"muster/shared/deploywire"
	"muster/shared/guide"
	"muster/shared/httpapi"
)

// Routes holds every HTTP route of every wire. As data they need no wire behind them, and their Handle must not be called.
func Routes() []httpapi.Route {
	return slices.Concat((*ampwire.Wire)(nil).Routes(), (*deploywire.Wire)(nil).Routes(), guide.Routes(deploywire.Dialect))
}
