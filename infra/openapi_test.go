package infra_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/infra"
	"muster/shared/agentwire"
	"muster/shared/httpapi"
	"muster/shared/openapi"
)

// tokens are those that each kind of route takes, as the document names them.
var tokens = map[httpapi.Who][]string{
	httpapi.Anyone:     nil,
	httpapi.Deployment: {"deployment", "workspace"},
	httpapi.Workspace:  {"workspace"},
	httpapi.Watcher:    {"deployment", "ticket", "workspace"},
}

// showings are what requests may show that is no token: the handlers of routes for anyone look at them.
var showings = []string{"signature", "webhookSecret", "internal", "socketToken"}

func TestTheDocumentAndTheCodeHaveTheSameRoutes(t *testing.T) {
	var document struct {
		Paths map[string]map[string]struct {
			Security []map[string][]string
			Inside   bool `json:"x-internal"`
		}
	}
	if err := json.Unmarshal(openapi.Document, &document); err != nil {
		t.Fatal(err)
	}
	said := map[string][]string{}
	for path, methods := range document.Paths {
		for method, operation := range methods {
			var takes []string
			for _, one := range operation.Security {
				takes = slices.AppendSeq(takes, maps.Keys(one))
			}
			takes = slices.DeleteFunc(takes, func(name string) bool { return slices.Contains(showings, name) })
			slices.Sort(takes)
			if operation.Inside {
				takes = append(takes, "inside")
			}
			said[strings.ToUpper(method)+" "+path] = takes
		}
	}
	served := map[string][]string{"GET " + agentwire.SocketPath: nil} // the one that is no route
	for _, r := range infra.Routes() {
		takes := slices.Clone(tokens[r.Who])
		if r.Inside {
			takes = append(takes, "inside")
		}
		served[r.Method+" "+r.Path] = takes
	}
	normal := cmp.Transformer("tokens", func(names []string) string { return strings.Join(names, " ") })
	if diff := cmp.Diff(served, said, normal); diff != "" {
		t.Errorf("shared/openapi/source says something else than the wires (-wires +source):\n%s", diff)
	}
}
