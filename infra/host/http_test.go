package host_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"muster/infra"
	"muster/infra/host"
	"muster/shared/agentwire"
)

// Without one of what the trigger of agents needs, its path is one that no route serves: it goes where all such paths go.
func TestTheTriggerOfAgentsIsARouteWithAllThatItNeeds(t *testing.T) {
	asked := func(n *agentwire.Needs) (function string) {
		h := host.Host{Agents: n, Invoke: func(_ context.Context, name string, _ []byte) ([]byte, error) {
			function = name
			return []byte(`{"statusCode":200}`), nil
		}}
		h.HTTP().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/api/v1/webhooks/crew/agent/trigger", strings.NewReader("{}")))
		return function
	}
	if got := asked(nil); got != "trigger" {
		t.Errorf("with all that the manifest has it goes to %q", got)
	}
	for name, without := range map[string]func(*agentwire.Needs){
		"orchestrator":       func(n *agentwire.Needs) { n.Orchestrator = false },
		"container provider": func(n *agentwire.Needs) { n.ContainerProvider = false },
		"log writer":         func(n *agentwire.Needs) { n.LogWriter = false },
		"internal token":     func(n *agentwire.Needs) { n.InternalToken = false },
	} {
		n := infra.Agents()
		without(&n)
		if got := asked(&n); got != infra.Otherwise {
			t.Errorf("without the %s it goes to %q", name, got)
		}
	}
}
