package e2e_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/shared/engine/llm/scripted"
)

// triggers are about what starts runs from outside.
var triggers = []behaviour{
	{"the line with curl of the documents starts a run that executes", curlStartsARun},
	{"the line of a crontab starts a run, although nobody fills its date in", cronStartsARun},
	{"a push to GitHub starts a run once, with the inputs that the webhook makes of it", gitHubStartsARun},
	{"Slack's challenge is answered, and what is not Slack's is not", slackIsAnswered},
	{"a new URL kills the old one, and a webhook that is disabled or deleted is not there", urlsDie},
	{"receipts tell what came of each request, and a request is replayed", receiptsTell},
	{"who does not want to wait does not, and what cannot be read is refused", refusesRequests},
}

// triggersAnyDay hold on a bad day too.
var triggersAnyDay = []behaviour{
	{"a request that is sent until it is taken starts one run", startsOneRun},
}

// hook is an incoming webhook.
type hook struct {
	home       *home
	ID         string  `json:"id"`
	URL        string  `json:"url"`
	Token      string  `json:"token"`
	Secret     string  `json:"secret"`
	Enabled    bool    `json:"enabled"`
	LastUsedAt *string `json:"last_used_at"`
	LastRunID  *string `json:"last_run_id"`
}

// webhook makes an incoming webhook.
func (d deployment) webhook(t *testing.T, body map[string]any) hook {
	t.Helper()
	w := hook{home: d.home}
	body["name"] = "of a test"
	d.home.want(t, http.StatusCreated, "POST", "/v1/deployments/"+d.ID+"/webhooks/incoming", d.Token, body, &w)
	if w.URL != publicURL+"/webhooks/runs/"+w.Token || len(w.Token) < 43 {
		t.Errorf("the webhook is %+v", w)
	}
	return w
}

// accepted is what a request that started a run is answered.
type accepted struct {
	RunID         string `json:"run_id"`
	VersionID     string `json:"version_id"`
	VersionNumber int    `json:"version_number"`
	Status        string `json:"status"`
}

// come lets a request come to the webhook.
func (w hook) come(t *testing.T, body string, headers ...string) (status int, header http.Header, answer []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", w.home.url+"/webhooks/runs/"+w.Token, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if answer, err = io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, answer
}

// took lets a request come that must start a run.
func (w hook) took(t *testing.T, body string, headers ...string) (a accepted) {
	t.Helper()
	status, _, answer := w.come(t, body, headers...)
	for tries := 1; status >= 500 && tries < 20; tries++ { // as senders do
		status, _, answer = w.come(t, body, headers...)
	}
	if err := json.Unmarshal(answer, &a); status != http.StatusAccepted || err != nil || !strings.HasPrefix(a.RunID, "run_") {
		t.Fatalf("got %d %s", status, answer)
	}
	return a
}

func hexMAC(key, text string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

// seedCurl and seedCron are the lines of the documents as they are printed there; only the address and the token differ.
const (
	seedCurl = `curl -X POST "https://api.crewship.dev/webhooks/runs/YOUR_WEBHOOK_TOKEN" \
  -H "Content-Type: application/json" \
  -d '{"topic": "AI agents", "year": "2025"}'`
	seedCron = `{"date": "$(date +%Y-%m-%d)"}`
)

func curlStartsARun(t *testing.T, h *home) {
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("*** There is no curl: the line of the documents is NOT tried. ***")
	}
	began, let := make(chan struct{}, 1), make(chan struct{})
	d := h.deploy(t, simple(h.answer(func(scripted.Request) scripted.Reply {
		began <- struct{}{}
		<-let
		return scripted.Text("Done.")
	})))
	w := d.webhook(t, map[string]any{"environment": "production"})
	line := strings.NewReplacer("https://api.crewship.dev", h.url, "YOUR_WEBHOOK_TOKEN", w.Token).Replace(seedCurl)
	command := exec.CommandContext(t.Context(), "sh", "-c", line)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	var a map[string]any
	if err := json.Unmarshal(out.Bytes(), &a); err != nil || len(a) != 4 || a["version_id"] != d.VersionID || a["version_number"] != 1.0 || a["status"] != "running" {
		t.Fatalf("got %s", out.String())
	}
	// The answer is there, and so the run executes, while the model has not answered yet.
	r := d.run(t, a["run_id"].(string))
	if r.Status != "running" || r.StartedAt == nil || r.Input["topic"] != "AI agents" || r.Input["year"] != "2025" {
		t.Errorf("the run is %+v", r)
	}
	wait(t, began, "the model is asked")
	close(let)
	if r := d.over(t, r.ID); r.Status != "succeeded" {
		t.Errorf("the run is %+v", r)
	}
	var listed struct{ Webhooks []hook }
	h.want(t, http.StatusOK, "GET", "/v1/deployments/"+d.ID+"/webhooks/incoming", d.Token, nil, &listed)
	if len(listed.Webhooks) != 1 || listed.Webhooks[0].LastRunID == nil || *listed.Webhooks[0].LastRunID != r.ID || listed.Webhooks[0].LastUsedAt == nil || listed.Webhooks[0].Token != "" || listed.Webhooks[0].URL != "" {
		t.Errorf("they are listed as %+v", listed)
	}
}

func cronStartsARun(t *testing.T, h *home) {
	d := h.deploy(t, crew(agent("worker", h.answer(say("Done."))), task("work", "worker", "Look at {date}")))
	a := d.webhook(t, map[string]any{}).took(t, seedCron)
	if r := d.over(t, a.RunID); r.Status != "succeeded" || r.Input["date"] != "$(date +%Y-%m-%d)" {
		t.Errorf("the run is %+v", r)
	}
}

func startsOneRun(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	w := d.webhook(t, map[string]any{})
	first := w.took(t, `{"topic": "tea"}`, "Webhook-Id", "msg_1")
	for range 5 {
		if again := w.took(t, `{"topic": "tea"}`, "Webhook-Id", "msg_1"); again.RunID != first.RunID {
			t.Errorf("the same message gave %s and %s", first.RunID, again.RunID)
		}
	}
	if r := d.over(t, first.RunID); r.Status != "succeeded" {
		t.Errorf("the run is %+v", r)
	}
}

func gitHubStartsARun(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	w := d.webhook(t, map[string]any{
		"sender": "github", "environment": "staging", "filter": `headers["x-github-event"] == "push" && body.ref == "refs/heads/main"`,
		"input": `{"topic": body.repository.full_name, "commits": body.commits.map(c, c.id)}`,
	})
	push := func(ref string) string {
		return `{"ref":"` + ref + `","repository":{"full_name":"harbour-vale/tea"},"commits":[{"id":"59b20b8"}]}`
	}
	send := func(body, delivery string) []string {
		return []string{"X-GitHub-Event", "push", "X-GitHub-Delivery", delivery, "X-Hub-Signature-256", "sha256=" + hexMAC(w.Secret, body)}
	}
	main := push("refs/heads/main")
	first := w.took(t, main, send(main, "d1")...)
	if again := w.took(t, main, send(main, "d1")...); again != first {
		t.Errorf("the same delivery gave %+v and %+v", first, again)
	}
	if r := d.over(t, first.RunID); r.Status != "succeeded" || r.Input["topic"] != "harbour-vale/tea" || r.Environment != "staging" {
		t.Errorf("the run is %+v", r)
	}
	side := push("refs/heads/side")
	if status, _, answer := w.come(t, side, send(side, "d2")...); status != http.StatusOK || string(answer) != `{"status":"ignored"}` {
		t.Errorf("a push elsewhere: %d %s", status, answer)
	}
	if status, _, answer := w.come(t, main, send(side, "d3")...); status != http.StatusUnauthorized || !strings.Contains(string(answer), `"code":"unauthorized"`) {
		t.Errorf("another signature: %d %s", status, answer)
	}
	ping := `{"zen":"Half measures are as bad as nothing at all."}`
	if status, _, answer := w.come(t, ping, append(send(ping, "d4"), "X-GitHub-Event", "ping")...); status != http.StatusOK {
		t.Errorf("a ping: %d %s", status, answer)
	}
	var runs struct{ Runs []ran }
	h.want(t, http.StatusOK, "GET", "/v1/runs", d.Token, nil, &runs)
	if len(runs.Runs) != 1 {
		t.Errorf("there are the runs %+v", runs.Runs)
	}
}

func slackIsAnswered(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	w := d.webhook(t, map[string]any{"sender": "slack", "secret": "8f742231b10e8888abcd99yyyzzz85a5"})
	if w.Secret != "" {
		t.Errorf("a secret that was given is shown: %+v", w)
	}
	body, at := `{"type":"url_verification","token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}`, strconv.FormatInt(h.now().Unix(), 10)
	status, _, answer := w.come(t, body, "X-Slack-Request-Timestamp", at, "X-Slack-Signature", "v0="+hexMAC("8f742231b10e8888abcd99yyyzzz85a5", "v0:"+at+":"+body))
	if status != http.StatusOK || string(answer) != `{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}` {
		t.Errorf("got %d %s", status, answer)
	}
	if status, _, answer := w.come(t, body); status != http.StatusUnauthorized {
		t.Errorf("without a signature: %d %s", status, answer)
	}
}

func urlsDie(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	w := d.webhook(t, map[string]any{})
	body := `{"topic": "tea"}`
	w.took(t, body)
	old := w
	h.want(t, http.StatusOK, "POST", "/v1/webhooks/incoming/"+w.ID+"/regenerate", d.Token, nil, &w)
	if w.URL == old.URL || w.Token == old.Token {
		t.Errorf("the new one is %+v", w)
	}
	gone := func(w hook) string {
		t.Helper()
		status, header, answer := w.come(t, body)
		if status != http.StatusNotFound || header.Get("Muster-Receipt") != "" {
			t.Errorf("got %d %s, %v", status, answer, header)
		}
		return string(answer)
	}
	unknown := gone(hook{home: h, Token: "mus_in_nobody"})
	if gone(old) != unknown {
		t.Error("the old one is told from an unknown one")
	}
	w.took(t, body)
	h.want(t, http.StatusOK, "PATCH", "/v1/webhooks/incoming/"+w.ID, d.Token, map[string]any{"enabled": false}, nil)
	if gone(w) != unknown {
		t.Error("a disabled one is told from an unknown one")
	}
	h.want(t, http.StatusOK, "PATCH", "/v1/webhooks/incoming/"+w.ID, d.Token, map[string]any{"enabled": true}, nil)
	w.took(t, body)
	if status, answer := h.call(t, "DELETE", "/v1/webhooks/incoming/"+w.ID, d.Token, nil); status != http.StatusNoContent {
		t.Errorf("deleted: %d %s", status, answer)
	}
	if gone(w) != unknown {
		t.Error("a deleted one is told from an unknown one")
	}
}

func receiptsTell(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	w := d.webhook(t, map[string]any{})
	type receipt struct {
		ID            string            `json:"id"`
		TriggerID     string            `json:"trigger_id"`
		Status        string            `json:"status"`
		Reason        *string           `json:"reason"`
		RunID         *string           `json:"run_id"`
		ReplayOf      *string           `json:"replay_of"`
		Headers       map[string]string `json:"headers"`
		Body          *string           `json:"body"`
		BodyTruncated bool              `json:"body_truncated"`
	}
	body := `{"topic": "tea"}`
	status, header, answer := w.come(t, body, "Authorization", "Bearer nobody reads this", "X-Kind", "test")
	var a accepted
	if err := json.Unmarshal(answer, &a); err != nil || status != http.StatusAccepted {
		t.Fatalf("got %d %s", status, answer)
	}
	w.come(t, `{}`)
	w.come(t, `no JSON`)
	var one receipt
	h.want(t, http.StatusOK, "GET", "/v1/receipts/"+header.Get("Muster-Receipt"), d.Token, nil, &one)
	if one.TriggerID != w.ID || one.Status != "accepted" || *one.RunID != a.RunID || one.Body == nil || *one.Body != body || one.Headers["authorization"] != "********" || one.Headers["x-kind"] != "test" {
		t.Errorf("the receipt is %+v", one)
	}
	list := func(query string) (statuses []string) {
		var listed struct{ Receipts []receipt }
		h.want(t, http.StatusOK, "GET", "/v1/receipts?"+query, d.Token, nil, &listed)
		for _, r := range listed.Receipts {
			statuses = append(statuses, r.Status)
		}
		return statuses
	}
	eventually(t, "the list has them", func() bool { return strings.Join(list(""), " ") == "refused failed accepted" })
	if got := list("trigger=" + w.ID + "&status=failed"); len(got) != 1 {
		t.Errorf("those that failed: %v", got)
	}
	if got := list("trigger=" + w.ID + "&until=" + h.now().Add(-time.Hour).UTC().Format(time.RFC3339)); len(got) != 0 {
		t.Errorf("those of an hour ago: %v", got)
	}
	other := h.deploy(t, simple(h.answer(say("Done."))))
	if status, answer := h.call(t, "GET", "/v1/receipts/"+one.ID, other.Token, nil); status != http.StatusNotFound {
		t.Errorf("a stranger sees %d %s", status, answer)
	}
	var replayed accepted
	h.want(t, http.StatusAccepted, "POST", "/v1/receipts/"+one.ID+"/replay", d.Token, nil, &replayed)
	if replayed.RunID == a.RunID || replayed.VersionID != a.VersionID {
		t.Errorf("the replay gave %+v", replayed)
	}
	if r := d.over(t, replayed.RunID); r.Status != "succeeded" || r.Input["topic"] != "tea" {
		t.Errorf("the run of the replay is %+v", r)
	}
}

func refusesRequests(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	w := d.webhook(t, map[string]any{})
	status, header, answer := w.come(t, `{"topic": "tea"}`, "Prefer", "wait=5, respond-async")
	var a accepted
	if err := json.Unmarshal(answer, &a); err != nil || status != http.StatusAccepted || a.Status != "pending" && a.Status != "running" || header.Get("Preference-Applied") != "respond-async" {
		t.Errorf("got %d %s, %v", status, answer, header)
	}
	if r := d.over(t, a.RunID); r.Status != "succeeded" {
		t.Errorf("the run is %+v", r)
	}
	for _, test := range []struct {
		name, body string
		headers    []string
		status     int
		want       string
	}{
		{"an input that is missing", `{"year": "2025"}`, nil, 400, `{"error":{"code":"bad_request","message":"Missing inputs: topic","details":{"missing_inputs":["topic"]}}}`},
		{"a list", `["tea"]`, nil, 400, `"code":"bad_request"`},
		{"a hundred thousand brackets", strings.Repeat("[", 100_000), nil, 400, `"code":"bad_request"`},
		{"bytes that are no text", "{\"topic\": \"\xff\"}", nil, 400, `not valid UTF-8`},
		{"gzip", "\x1f\x8b\x08", []string{"Content-Encoding", "gzip"}, 415, `send it as it is`},
		{"more than it takes", `{"topic": "` + strings.Repeat("x", 2<<20) + `"}`, nil, 413, `{"error":{"code":"too_large","message":"The request body is larger than 1 MiB."}}`},
	} {
		status, header, answer := w.come(t, test.body, test.headers...)
		if status != test.status || !strings.Contains(string(answer), test.want) || header.Get("Muster-Receipt") == "" {
			t.Errorf("%s: got %d %s", test.name, status, clip(answer))
		}
	}
	if status, answer := h.call(t, "GET", "/webhooks/runs/"+w.Token, "", nil); status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d %s", status, answer)
	}
}
