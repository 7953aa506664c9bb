package guides

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// post posts a body to a URL, with headers as name and value in turn, and gives the status.
func post(t *testing.T, url, body string, headers ...string) (status int, answer string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		q.Header.Set(headers[i], headers[i+1])
	}
	status, text := send(t, q)
	return status, string(text)
}

// sign is the hex HMAC-SHA256 of a text.
func sign(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

// made reads the answer to a snippet that makes an incoming webhook.
func made(t *testing.T, answer string) (hook struct{ URL, Secret string }) {
	t.Helper()
	if err := json.Unmarshal([]byte(answer), &hook); err != nil || hook.URL == "" {
		t.Fatalf("no webhook was made: %v in %s", err, answer)
	}
	return hook
}

// sample reads a snippet of JSON.
func sample(t *testing.T, guideName, name string) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(snippet(t, guideName, name)), &v); err != nil {
		t.Fatalf("%s/%s: %v", guideName, name, err)
	}
	return v
}

// alike checks that two objects have the same fields.
func alike(t *testing.T, what string, got, want map[string]any) {
	t.Helper()
	for name := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("%s has no %q", what, name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s has a %q", what, name)
		}
	}
}

func TestStartingRuns(t *testing.T) {
	const page = "starting-runs"
	up(t)
	t.Run("with a token, on the deployment wire", func(t *testing.T) {
		d := deploy(t, "topic", "year")
		d.shell(t).run(t, page, "runs.sh")
		d.started(t, map[string]any{"topic": "AI agents", "year": "2025"})
	})
	t.Run("with a token, on the AMP wire", func(t *testing.T) {
		d := deploy(t, "topic", "year")
		d.shell(t).run(t, page, "kickoff.sh").says(t, 0, `"state"`)
		d.started(t, map[string]any{"topic": "AI agents", "year": "2025"})
	})
	t.Run("with a URL", func(t *testing.T) {
		d := deploy(t, "topic", "year")
		s := d.shell(t).run(t, page, "webhook.sh", "incoming.sh", "receipts.sh")
		var answer map[string]any
		if err := json.Unmarshal([]byte(s.said[1]), &answer); err != nil {
			t.Fatal(err)
		}
		alike(t, "the answer", answer, sample(t, page, "incoming.json"))
		r := d.started(t, map[string]any{"topic": "AI agents", "year": "2025"})
		if answer["run_id"] != r.ID || answer["status"] != "running" || r.Trigger != "trigger" {
			t.Errorf("the answer is %v, the run %+v", answer, r)
		}
		s.says(t, 2, "accepted", r.ID)
	})
	t.Run("with a signature", func(t *testing.T) {
		d := deploy(t, "topic", "year")
		hook := made(t, d.shell(t).run(t, page, "sender.sh").said[0])
		signed := func(body string) []string {
			return []string{"X-Shop-Signature", sign("what-the-shop-has-shown", body)}
		}
		for body, want := range map[string]int{
			`{"event":"order.paid","id":"A-1","total":250}`: http.StatusAccepted,
			`{"event":"order.paid","id":"A-2","total":50}`:  http.StatusOK,
			`{"event":"order.paid","id":"A-3"}`:             http.StatusOK,
			`{"event":"order.sent","id":"A-4","total":250}`: http.StatusOK,
		} {
			if got, said := post(t, hook.URL, body, signed(body)...); got != want {
				t.Errorf("%s: %d %s", body, got, said)
			}
		}
		if got, _ := post(t, hook.URL, `{"event":"order.paid","id":"A-5","total":250}`, signed("another")...); got != http.StatusUnauthorized {
			t.Errorf("another's signature: %d", got)
		}
		d.started(t, map[string]any{"topic": "the order A-1"})
	})
	t.Run("one agent", func(t *testing.T) {
		d := deploy(t)
		s := d.shell(t).run(t, page, "agent.sh", "trigger.sh")
		var answer struct {
			Status string
			RunID  string `json:"run_id"`
		}
		if err := json.Unmarshal([]byte(s.said[1]), &answer); err != nil || answer.Status != "accepted" {
			t.Errorf("%v: %s", err, s.said[1])
		}
		if r := d.started(t, nil); r.ID != answer.RunID {
			t.Errorf("the answer names %s, the run is %s", answer.RunID, r.ID)
		}
	})
}
