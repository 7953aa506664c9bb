package engine_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"muster/shared/crew"
	"muster/shared/engine"
	"muster/shared/engine/llm"
	"muster/shared/engine/llm/offline"
	"muster/shared/engine/tool"
	"muster/shared/run"
)

// The offline model reads the engine's prompts by their markers. This holds the two together.
func TestTheOfflineModelUnderstandsThePrompts(t *testing.T) {
	w := newWorld(t, echo)
	f := w.withSearch()
	f.do = func(context.Context, tool.Call) (tool.Result, error) {
		return tool.Result{Text: "Refunds are paid within 14 days."}, nil
	}
	d := newCrew(crew.Model{}, crew.Task{
		Key: "triage", Description: "Triage this ticket.\n\nThe parcel of order 4711 arrived broken and I want a refund.",
		Tools: []crew.Tool{search("search")}, Guardrails: []string{"Name the order."},
	}, crew.Task{
		Key: "report", Description: "Report the outcome.",
		OutputJSON: json.RawMessage(`{"type":"object","properties":{"summary":{"type":"string"}},"required":["summary"]}`),
	})
	r := w.start()
	o, err := w.runs.Claim(w.ctx, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	in := w.input(r.ID, d)
	in.Models = llm.Providers{Offline: offline.New()}
	out, err := engine.Run(o.Work(), o.Root(), in)
	if err != nil {
		t.Fatal(err)
	}
	if out.State != run.Succeeded || out.JSON == nil {
		t.Fatalf("the run ended with %+v", out)
	}
	if f.count() != 1 {
		t.Errorf("the knowledge was searched %d times", f.count())
	}
	if !strings.Contains(out.Result, "4711") && !strings.Contains(out.Result, "14 days") {
		t.Errorf("the report says nothing of the ticket: %s", out.Result)
	}
}
