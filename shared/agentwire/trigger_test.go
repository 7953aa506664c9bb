package agentwire

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"muster/shared/crew"
	"muster/shared/httpapi"
	"muster/shared/queue"
	"muster/shared/run"
	"muster/shared/storetest"
	"muster/shared/trigger"
	"muster/shared/workspace"
)

// nowhere is a queue that nobody reads.
type nowhere struct{}

func (nowhere) Send(context.Context, ...queue.Message) error { return nil }

// hand is the trigger of an agent, and whoever uses it.
type hand struct {
	handler    http.Handler
	triggers   *trigger.Service
	deployment crew.Deployment
	path, id   string
	secret     string
	ofNobody   string // the path of an agent that is not there
}

func newHand(t *testing.T, now time.Time) hand {
	t.Helper()
	sealer, err := workspace.NewSealer(map[string][]byte{"k": make([]byte, 32)}, "k")
	if err != nil {
		t.Fatal(err)
	}
	store, quiet := &storetest.Memory{}, slog.New(slog.DiscardHandler)
	crews := &crew.Store{Records: store}
	runs := &run.Service{Store: store, Crews: crews, Runs: nowhere{}, Deliveries: nowhere{}, Seal: sealer.Seal, Log: quiet}
	h := hand{triggers: &trigger.Service{Store: store, Crews: crews, Runs: runs, Sealer: sealer, Log: quiet}}
	crews.Enlist = h.triggers.Enlist
	if h.deployment, _, _, err = crews.Create(t.Context(), "01a20000-0000-7000-8000-0000000000ff", "tea", map[string][]byte{
		"agents.yaml": []byte("a:\n  role: r\n  goal: g\n  backstory: b\n"),
		"tasks.yaml":  []byte("t:\n  description: d\n  expected_output: o\n  agent: a\n"),
	}, nil); err != nil {
		t.Fatal(err)
	}
	found, secret, known, err := h.triggers.AgentTrigger(t.Context(), h.deployment.ID, "a")
	if err != nil || !known {
		t.Fatalf("the agent has no trigger: %v", err)
	}
	h.id, h.secret = found.ID, secret
	h.path = "/api/v1/webhooks/" + h.deployment.ID + "/a/trigger"
	h.ofNobody = "/api/v1/webhooks/" + h.deployment.ID + "/b/trigger"
	w := &Wire{Runs: runs, Crews: crews, Triggers: h.triggers, Needs: Needs{true, true, true, true}, Now: func() time.Time { return now }}
	h.handler = httpapi.API{Routes: w.Routes(), Fallback: Dialect, Log: quiet}.Handler()
	return h
}

func (h hand) sign(body string) string {
	mac := hmac.New(sha256.New, []byte(h.secret))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

func (h hand) send(path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, bytes.NewReader([]byte(body)))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, r)
	return w
}

// TestWhatIsRefusedOfAKnownSenderLeavesAReceipt: what was too large used to be refused before anybody looked whose it was, so its
// sender got neither the receipt nor, with the old header, its end.
func TestWhatIsRefusedOfAKnownSenderLeavesAReceipt(t *testing.T) {
	h := newHand(t, sunset.AddDate(0, -1, 0))
	large, enormous := `{"event": "`+strings.Repeat("x", httpapi.MaxBody)+`"}`, strings.Repeat(" ", maxProof+1)
	for _, c := range []struct {
		name, path, body string
		headers          []string
		status           int
		receipt, ends    bool
	}{
		{"too large, and signed", h.path, large, []string{headerSignature, h.sign(large)}, 413, true, false},
		{"too large, with the secret itself", h.path, large, []string{headerSecret, h.secret}, 413, true, true},
		{"so large that nobody reads it to its end, with the secret itself", h.path, enormous, []string{headerSecret, h.secret}, 413, true, true},
		{"no JSON, with the secret itself", h.path, "no", []string{headerSecret, h.secret}, 400, true, true},
		{"no JSON, and signed", h.path, "no", []string{headerSignature, h.sign("no")}, 400, true, false},
		{"a form, with the secret itself", h.path, "a=b", []string{headerSecret, h.secret, "Content-Type", "application/x-www-form-urlencoded"}, 415, true, true},
		{"too large, and somebody else's", h.path, large, []string{headerSignature, h.sign("")}, 401, false, false},
		{"too large, with another secret", h.path, large, []string{headerSecret, "x"}, 401, false, false},
		{"too large, and nothing else", h.path, large, nil, 401, false, false},
		{"too large, for nobody", h.ofNobody, large, []string{headerSignature, h.sign(large)}, 401, false, false},
		{"so large that nobody reads it to its end", h.path, enormous, []string{headerSignature, h.sign(enormous)}, 413, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := h.send(c.path, c.body, c.headers...)
			got := w.Header()
			if w.Code != c.status || (got.Get(ReceiptHeader) != "") != c.receipt || (got.Get("Deprecation") != "") != c.ends || (got.Get("Sunset") != "") != c.ends {
				t.Errorf("got %d %q %v", w.Code, w.Body, got)
			}
			if !c.receipt {
				return
			}
			triggerID, receiptID, ok := trigger.ParseReceipt(got.Get(ReceiptHeader))
			r, kept, err := h.triggers.Receipt(t.Context(), triggerID, receiptID)
			if !ok || err != nil || r.Status != trigger.Refused || r.Reason != w.Body.String() || r.Size != len(c.body) && len(c.body) <= maxProof || kept != nil {
				t.Errorf("the receipt is %+v with %d bytes, %v; the answer was %q", r, len(kept), err, w.Body)
			}
		})
	}
	all, _, err := h.triggers.Receipts(t.Context(), trigger.ReceiptQuery{DeploymentIDs: []string{h.deployment.ID}, Trigger: h.id, Limit: 100})
	if err != nil || len(all) != 10 {
		t.Errorf("every request to the agent leaves a receipt, also those of strangers: there are %d, %v", len(all), err)
	}
}
