package main

import (
	"testing"

	"muster/infra"
	"muster/shared/agentwire"
)

func TestWithout(t *testing.T) {
	whole := infra.Agents()
	if !whole.All() {
		t.Fatalf("something is missing from the start: %+v", whole)
	}
	seen := map[agentwire.Needs]bool{}
	for _, need := range []string{"orchestrator", "container-provider", "log-writer", "internal-token"} {
		n := whole
		if err := without(&n, need); err != nil || n.All() || seen[n] {
			t.Errorf("without the %s: %+v, %v", need, n, err)
		}
		seen[n] = true
	}
	if err := without(&whole, "everything"); err == nil || !whole.All() {
		t.Errorf("without something that is not there: %+v, %v", whole, err)
	}
}
