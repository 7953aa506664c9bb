package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/shared/engine/llm/scripted"
)

// limits are about how much a run may use, and how many there may be.
var limits = []behaviour{
	{"a run that reaches a limit ends and says which; done again, it goes on where it stopped", stopsAtALimit},
	{"where one run may be under way, all that wait for it come to their end, and nobody asks for them", func(t *testing.T, h *home) { takeTurns(t, h) }},
}

// turns is about what a zombie, whose last call nobody can take back, would not keep.
var turns = []behaviour{
	{"where one run may be under way there is one at a time", func(t *testing.T, h *home) {
		if n := takeTurns(t, h); n != 1 {
			t.Errorf("%d runs were under way at a time", n)
		}
	}},
}

func stopsAtALimit(t *testing.T, h *home) {
	d := h.deploy(t, chain(h.answer(say("A link.")), 3))
	r := newReceiver(t, h)
	body := about("iron", r.webhooks(false))
	body["limits"] = map[string]any{"max_steps": 2, "max_tokens": 1_000_000}
	runID := d.kickoff(t, body)
	all := r.hear(t, d, runID)
	names := typesOf(all)
	if want := []string{"task_started", "run_budget_reached", "crew_kickoff_failed"}; !slices.Equal(names[len(names)-3:], want) {
		t.Errorf("the run ends with %v, want %v", names[len(names)-3:], want)
	}
	s := d.status(t, runID)
	if says := "The run reached its limit max_steps: it has used 2 of 2 steps."; s.State != "FAILED" || s.Status == nil || *s.Status != says {
		t.Fatalf("the status is %+v, want %q", s, says)
	}

	var again struct {
		RunID string `json:"run_id"`
		Kept  struct {
			Tasks      []string
			ModelCalls int `json:"model_calls"`
			Tokens     int
			CostUSD    *float64 `json:"cost_usd"`
		}
	}
	h.want(t, http.StatusAccepted, "POST", "/v1/runs/"+runID+"/rerun", d.Token, map[string]any{"limits": map[string]any{"max_steps": 5}}, &again, "Idempotency-Key", t.Name())
	if k := again.Kept; k.ModelCalls != 2 || k.Tokens == 0 || k.CostUSD != nil {
		t.Errorf("what is kept cost %+v, want two calls of a model that has no price", k)
	}
	if diff := cmp.Diff([]string{"link00", "link01"}, again.Kept.Tasks); diff != "" {
		t.Errorf("kept tasks (-want +got):\n%s", diff)
	}
	r.until(t, "the end of the second run", func(posts []post) bool {
		return slices.ContainsFunc(posts, func(p post) bool { return p.path == "/crew" && strings.Contains(string(p.body), `"result":"A link."`) })
	})
	if s := d.status(t, again.RunID); s.State != "SUCCESS" || *s.Result != "A link." || s.UsageMetrics.SuccessfulRequests != 1 {
		t.Errorf("done again, the status is %+v", s)
	}
}

// takeTurns starts four runs where one may be under way, and gives how many were asking the model at a time.
func takeTurns(t *testing.T, h *home) int32 {
	t.Helper()
	var under, most atomic.Int32
	d := h.deploy(t, simple(h.answer(func(scripted.Request) scripted.Reply {
		now := under.Add(1)
		defer under.Add(-1)
		for was := most.Load(); now > was && !most.CompareAndSwap(was, now); was = most.Load() {
		}
		return scripted.Text("Done.")
	})))
	h.want(t, http.StatusOK, "PATCH", "/v1/deployments/"+d.ID, h.token, map[string]any{"limits": map[string]any{"max_concurrent_runs": 1}}, nil)
	var all sync.WaitGroup
	for i := range 4 {
		r := newReceiver(t, h)
		runID := d.kickoff(t, about(fmt.Sprintf("turn %d", i), r.webhooks(false)))
		all.Go(func() {
			r.hear(t, d, runID)
			if s := d.status(t, runID); s.State != "SUCCESS" {
				t.Errorf("run %d: %+v", i, s)
			}
		})
	}
	all.Wait()
	return most.Load()
}
