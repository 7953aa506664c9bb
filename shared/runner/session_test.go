package runner

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"muster/shared/run"
)

func exchange(asked, answered string) run.Turn {
	return run.Turn{Values: map[string]any{run.Message: asked, run.Output: answered}}
}

func TestSession(t *testing.T) {
	if s := session(nil); s != "" {
		t.Errorf("a new one is %q", s)
	}
	got := session([]run.Turn{exchange("b", "B"), exchange("a", "A")})
	if want := "Earlier in this session, the oldest first:\n\nIt came:\na\nYou answered:\nA\n\nIt came:\nb\nYou answered:\nB"; got != want {
		t.Errorf("got %q", got)
	}
	var long []run.Turn
	for i := range 20 {
		long = append(long, exchange(fmt.Sprintf("<%d>", i)+strings.Repeat("ä", 5000), strings.Repeat("b", 10_000)))
	}
	got = session(long)
	if len(got) > mostOfSession+100 || !utf8.ValidString(got) || !strings.Contains(got, "<0>") || strings.Contains(got, "<19>") || !strings.Contains(got, " bytes left out] ") {
		t.Errorf("a long one has %d bytes", len(got))
	}
	if strings.Index(got, "<1>") > strings.Index(got, "<0>") {
		t.Error("the newest exchange does not come last")
	}
}
