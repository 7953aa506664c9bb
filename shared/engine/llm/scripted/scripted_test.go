package scripted_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"muster/shared/engine/llm/scripted"
)

// post gives status 0 and the error when there is no answer.
func post(t *testing.T, url, body string) (int, string) {
	t.Helper()
	response, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(text)
}

func TestRequestsAreKeptAndCountedByDigest(t *testing.T) {
	s := scripted.New(t, scripted.Sequence(scripted.Fail(500, "no"), scripted.Text("yes")))
	url := s.URL + "/chat/completions"
	body := `{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],"stop":"x"}`
	if status, text := post(t, url, body); status != 500 || !strings.Contains(text, "no") {
		t.Errorf("got %d %s", status, text)
	}
	for range 2 {
		if status, text := post(t, url, body); status != 200 || !strings.Contains(text, `"content":"yes"`) {
			t.Errorf("got %d %s", status, text)
		}
	}
	calls := s.Calls()
	if len(calls) != 3 || calls[0].Answered || !calls[1].Answered {
		t.Fatalf("got %d calls", len(calls))
	}
	if n := s.Answered()[calls[0].Digest]; n != 2 {
		t.Errorf("%d were answered, want 2", n)
	}
	r := calls[0].Request
	if r.System() != "s" || r.User() != "u" || r.Last().Content != "u" || r.Stop[0] != "x" || r.N != 1 {
		t.Errorf("got %+v", r)
	}
}

func TestAGateHoldsAnAnswerBack(t *testing.T) {
	gate, asked := make(chan struct{}), make(chan struct{})
	s := scripted.New(t, func(scripted.Request) scripted.Reply {
		close(asked)
		return scripted.Reply{Text: "late", Wait: gate}
	})
	answer := make(chan string)
	go func() {
		_, text := post(t, s.URL+"/chat/completions", `{"stream":true}`)
		answer <- text
	}()
	<-asked
	select {
	case text := <-answer:
		t.Fatalf("answered %s before the gate was open", text)
	default:
	}
	close(gate)
	if text := <-answer; !strings.HasSuffix(text, "data: [DONE]\n\n") {
		t.Errorf("got %s", text)
	}
}

func TestWhatIsNotOfTheProtocolIsRefused(t *testing.T) {
	s := scripted.New(t, scripted.Sequence(scripted.Text("yes")))
	if status, _ := post(t, s.URL+"/embeddings", `{}`); status != 404 {
		t.Errorf("another path: got %d", status)
	}
	if status, _ := post(t, s.URL+"/chat/completions", `{`); status != 400 {
		t.Errorf("broken JSON: got %d", status)
	}
	if n := len(s.Calls()); n != 0 {
		t.Errorf("%d were counted", n)
	}
}
