package guides

import (
	"path/filepath"
	"strings"
	"testing"
)

// `make demo-triggers` sends one request of every kind, and fails when one starts no run.
func TestDemoOfTriggers(t *testing.T) {
	up(t)
	events := filepath.Join("..", "..", "testevents")
	demo := func(requests string) (string, error) {
		args := []string{muster.binary(), "-addr", "127.0.0.1:0", "-data", t.TempDir(), "-demo-triggers", requests}
		for _, crew := range []string{"incident-review", "lead-research", "support-triage"} {
			args = append(args, "-deploy", filepath.Join(events, "crews", crew))
		}
		return run(t, ".", nil, args...)
	}
	out, err := demo(events)
	files, _ := filepath.Glob(filepath.Join(events, "trigger", "requests", "*.http"))
	if n := strings.Count(out, "› succeeded:"); err != nil || n < len(files)+6 {
		t.Errorf("%d runs: %v\n%s", n, err, out)
	}
	if out, err := demo(t.TempDir()); err == nil {
		t.Errorf("it succeeds without any request:\n%s", out)
	}
}
