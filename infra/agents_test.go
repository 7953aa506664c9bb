package infra_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"muster/infra"
	"muster/shared/agentwire"
	"muster/shared/app"
	"muster/shared/httpapi"
	"muster/shared/sqlite/sqlitetest"
	"muster/shared/workspace"
)

const triggerRoute = "POST /api/v1/webhooks/{crewId}/{agentId}/trigger"

func serves(routes []httpapi.Route, route string) bool {
	return slices.ContainsFunc(routes, func(r httpapi.Route) bool { return r.Method+" "+r.Path == route })
}

// ask asks a whole app that has these needs.
func ask(t *testing.T, n agentwire.Needs, method, path, pattern string) (status int, body string) {
	t.Helper()
	return askOf(t, n, (*app.App).HTTP, method, path, pattern)
}

// askOf asks one function of an app that has these needs.
func askOf(t *testing.T, n agentwire.Needs, function func(*app.App) http.Handler, method, path, pattern string) (status int, body string) {
	t.Helper()
	db := sqlitetest.Temp(t)
	sealer, err := workspace.NewSealer(map[string][]byte{"test": make([]byte, 32)}, "test")
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, path, strings.NewReader("{}"))
	r.Pattern = pattern
	w := httptest.NewRecorder()
	function(app.New(app.Backends{Records: db.Records(), Sealer: sealer, Agents: n})).ServeHTTP(w, r)
	return w.Code, w.Header().Get("Content-Type") + " " + w.Body.String()
}

// TestAgentsHaveNoTriggerWithoutAllThatItNeeds: where the front door still sent the trigger's path to the function "trigger", that
// used to answer it as AMP does, {"detail": "Not Found"}, unlike the unknown paths beside it.
func TestAgentsHaveNoTriggerWithoutAllThatItNeeds(t *testing.T) {
	path := "/api/v1/webhooks/dep_019ab0c45b007a10b1c23d4e5f607182/6c1d9a3e-2f40-5b7e-9c58-d1e2f3a4b5c6/trigger"
	if status, body := ask(t, infra.Agents(), "POST", path, ""); status != http.StatusUnauthorized {
		t.Errorf("with all of it: got %d %s", status, body)
	}
	for name, without := range map[string]func(*agentwire.Needs){
		"orchestrator":       func(n *agentwire.Needs) { n.Orchestrator = false },
		"container provider": func(n *agentwire.Needs) { n.ContainerProvider = false },
		"log writer":         func(n *agentwire.Needs) { n.LogWriter = false },
		"internal token":     func(n *agentwire.Needs) { n.InternalToken = false },
	} {
		n := infra.Agents()
		without(&n)
		_, unknown := ask(t, n, "POST", "/api/v1/webhooks/nothing", "")
		if status, body := ask(t, n, "POST", path, triggerRoute); status != http.StatusNotFound || body != unknown {
			t.Errorf("without the %s: got %d %s, and an unknown path %s", name, status, body, unknown)
		}
		if status, body := askOf(t, n, (*app.App).Trigger, "POST", path, triggerRoute); status != http.StatusNotFound || body != unknown {
			t.Errorf("without the %s the function trigger says %d %s, and an unknown path %s", name, status, body, unknown)
		}
		if serves(infra.RoutesWith(n), triggerRoute) {
			t.Errorf("without the %s the route is there", name)
		}
		for _, at := range []string{"/openapi.json", "/openapi"} {
			if status, body := ask(t, n, "GET", at, ""); status != http.StatusOK || strings.Contains(body, "{agentId}/trigger") {
				t.Errorf("without the %s %s speaks of the trigger", name, at)
			}
		}
	}
}

func TestTheManifestHasATriggerWithAllThatItNeeds(t *testing.T) {
	if !serves(infra.Routes(), triggerRoute) {
		t.Fatal("there is none")
	}
	functions, queues := infra.Functions, infra.Queues
	restore := func() { infra.Functions, infra.Queues, infra.InternalToken = functions, queues, true }
	t.Cleanup(restore)
	runner := slices.IndexFunc(functions, func(f infra.Function) bool { return f.Eats != nil && f.Eats.Queue == infra.Runs })
	for name, without := range map[string]func(){
		"queue of runs": func() {
			infra.Queues = slices.DeleteFunc(slices.Clone(queues), func(q infra.Queue) bool { return q.Name == infra.Runs })
		},
		"runner":           func() { infra.Functions = slices.Delete(slices.Clone(functions), runner, runner+1) },
		"store for events": func() { infra.Functions = slices.Clone(functions); infra.Functions[runner].May.Keep = false },
		"internal token":   func() { infra.InternalToken = false },
	} {
		restore()
		without()
		if serves(infra.Routes(), triggerRoute) {
			t.Errorf("without a %s it has one", name)
		}
	}
}

func TestASecretIsShownInsideOnly(t *testing.T) {
	path, route := "/api/v1/internal/agents/6c1d9a3e-2f40-5b7e-9c58-d1e2f3a4b5c6/webhook-secret", "GET /api/v1/internal/agents/{agentId}/webhook-secret"
	all := infra.Agents()
	if status, body := ask(t, all, "GET", path, route); status != http.StatusUnauthorized {
		t.Errorf("inside: got %d %s", status, body)
	}
	_, unknown := ask(t, all, "GET", "/api/v1/nothing", "")
	without := all
	without.InternalToken = false
	for name, of := range map[string]struct {
		needs           agentwire.Needs
		method, pattern string
	}{
		"through the front door": {all, "GET", "$default"}, "with another method": {all, "POST", route}, "without an internal token": {without, "GET", route},
	} {
		if status, body := ask(t, of.needs, of.method, path, of.pattern); status != http.StatusNotFound || body != unknown {
			t.Errorf("%s: got %d %s, and an unknown path %s", name, status, body, unknown)
		}
	}
}
