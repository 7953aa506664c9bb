package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"muster/shared/engine/llm/scripted"
)

// goesOnElsewhere has a model that takes a quarter of a second, so that the run takes longer than an invocation may.
func goesOnElsewhere(t *testing.T, h *home) {
	const steps = 20
	model := h.answer(func(r scripted.Request) scripted.Reply {
		gate := make(chan struct{})
		time.AfterFunc(250*time.Millisecond, func() { close(gate) })
		return scripted.Reply{Text: fmt.Sprintf("Forged %d.", len(r.User())), Wait: gate}
	})
	d := h.deploy(t, chain(model, steps))
	r := newReceiver(t, h)
	runID := d.kickoff(t, about("iron", r.webhooks(false)))
	all := r.hear(t, d, runID)
	if n := len(ofType(all, "task_completed")); n != steps {
		t.Errorf("%d tasks were told as completed, want %d", n, steps)
	}
	for _, c := range h.asked(model) {
		if n := h.model.Answered()[c.Digest]; n > 1 {
			t.Errorf("call %d was answered %d times", c.N, n)
		}
	}
	found, err := h.app.Runs.Get(t.Context(), runID)
	if err != nil {
		t.Fatal(err)
	}
	if found.Epoch < 3 {
		t.Errorf("the run took %d invocations, and was to take several", found.Epoch)
	}
	t.Logf("%d invocations, %d model calls", found.Epoch, len(h.asked(model)))
	if s := d.status(t, runID); s.State != "SUCCESS" {
		t.Errorf("the run is %s", s.State)
	}
}
