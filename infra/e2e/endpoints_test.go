package e2e_test

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/webhook"
)

// endpoints is about outgoing webhooks, as seed 002 has them, and what is beyond it: what needs a good day, for a rotation whose
// answer is lost cannot be repeated.
var endpoints = []behaviour{
	{"while a secret takes another's place, both are good", rotates},
}

// endpointsAnyDay hold on a bad day too.
var endpointsAnyDay = []behaviour{
	{"who follows seed 002 makes a webhook, starts a run, verifies what comes, and finds it in the log", walksTheSeed},
	{"a webhook hears of runs in its own environment only", hearsItsEnvironment},
	{"a run that was canceled says that and nothing else", hearsCanceled},
	{"a disabled webhook hears nothing; what it missed can be replayed by time", replaysWhatWasMissed},
	{"a test is posted as everything is", postsATest},
	{"a delivery that was given up is sent again under its id, alone and with others", sendsAgain},
	{"a webhook at an address of ours says no more than that", saysNothingOfTheInside},
}

// endpointOf makes an outgoing webhook.
type endpointOf struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
}

func (d deployment) endpoint(t *testing.T, url string, fields ...map[string]any) (e endpointOf) {
	t.Helper()
	body := map[string]any{"url": url}
	for _, some := range fields {
		for k, v := range some {
			body[k] = v
		}
	}
	d.home.want(t, http.StatusCreated, "POST", "/v1/deployments/"+d.ID+"/webhooks/outgoing", d.Token, body, &e, "Idempotency-Key", rand.Text())
	return e
}

// start starts a run as the deployment wire does, and gives its id.
func (d deployment) start(t *testing.T, environment string) string {
	t.Helper()
	var started struct {
		RunID string `json:"run_id"`
	}
	body := map[string]any{"deployment_id": d.ID, "environment": environment, "input": map[string]any{"topic": "webhooks"}}
	d.home.want(t, http.StatusAccepted, "POST", "/v1/runs", d.Token, body, &started, "Idempotency-Key", rand.Text())
	return started.RunID
}

// logEntry is a delivery in a log.
type logEntry struct {
	ID           string  `json:"id"`
	Event        string  `json:"event"`
	RunID        string  `json:"run_id"`
	Status       string  `json:"status"`
	ResponseCode *int    `json:"response_code"`
	Error        *string `json:"error"`
	Timestamp    string  `json:"timestamp"`
	Attempts     int     `json:"attempts"`
}

// log waits until the log of a webhook has n entries of a status, and gives them.
func (d deployment) log(t *testing.T, e endpointOf, status string, n int) []logEntry {
	t.Helper()
	var reply struct {
		Deliveries []logEntry `json:"deliveries"`
	}
	eventually(t, fmt.Sprintf("the log has %d %s", n, status), func() bool {
		d.home.want(t, http.StatusOK, "GET", "/v1/webhooks/outgoing/"+e.ID+"/deliveries?limit=100&status="+status, d.Token, nil, &reply)
		return len(reply.Deliveries) == n
	})
	return reply.Deliveries
}

// outgoingBody is what a webhook is told of a run.
type outgoingBody struct {
	Event     string         `json:"event"`
	Timestamp string         `json:"timestamp"`
	Data      map[string]any `json:"data"`
}

func (p post) outgoing(t *testing.T) (b outgoingBody) {
	t.Helper()
	if err := json.Unmarshal(p.body, &b); err != nil {
		t.Fatalf("%v in %s", err, clip(p.body))
	}
	return b
}

// named gives the distinct deliveries of an event.
func named(posts []post, event string) (some []post) {
	for _, p := range posts {
		if p.nth == 1 && p.header.Get(webhook.HeaderEvent) == event {
			some = append(some, p)
		}
	}
	return some
}

// oddities are what a receiver that writes JSON anew may spell in another way.
const oddities = `{"2": "<b>&</b>", "1": "\ud83d\ude80", "one": 1.0, "large": 1e21}`

func walksTheSeed(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say(oddities))))
	r := newReceiver(t, h)
	e := d.endpoint(t, r.url+"/webhook", map[string]any{"name": "Orders", "events": []string{"run.succeeded", "run.failed"}})
	runID := d.start(t, "production")
	posts := r.until(t, "run.succeeded", func(posts []post) bool { return len(named(posts, "run.succeeded")) > 0 })
	p := posts[0]

	// The algorithm of the seed.
	mac := hmac.New(sha256.New, []byte(e.Secret))
	fmt.Fprintf(mac, "%s.%s", p.header.Get("X-Crewship-Timestamp"), p.body)
	if got, want := p.header.Get("X-Crewship-Signature"), "sha256="+hex.EncodeToString(mac.Sum(nil)); got != want {
		t.Errorf("the signature is %s, want %s", got, want)
	}
	acceptedByTheSeed(t, e.Secret, p)
	if err := webhook.Verify(e.Secret, p.header, p.body, p.at); err != nil {
		t.Error(err)
	}

	d.over(t, runID)
	var shown struct {
		Output      json.RawMessage `json:"output"`
		StartedAt   string          `json:"started_at"`
		CompletedAt string          `json:"completed_at"`
	}
	h.want(t, http.StatusOK, "GET", "/v1/runs/"+runID, d.Token, nil, &shown)
	want, err := json.Marshal(map[string]any{"event": "run.succeeded", "timestamp": shown.CompletedAt, "data": map[string]any{
		"run_id": runID, "deployment_id": d.ID, "status": "succeeded", "output": shown.Output, "started_at": shown.StartedAt, "completed_at": shown.CompletedAt,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(values(t, want), values(t, p.body)); diff != "" {
		t.Errorf("the body (-want +got):\n%s", diff)
	}

	found := d.log(t, e, "succeeded", 1)[0]
	if found.ID != p.header.Get(webhook.HeaderDelivery) || found.Event != "run.succeeded" || found.RunID != runID || found.Attempts < 1 ||
		found.ResponseCode == nil || *found.ResponseCode != 200 || found.Error != nil {
		t.Errorf("the log has %+v", found)
	}
	var list struct {
		Webhooks []struct {
			ID           string          `json:"id"`
			LastDelivery logEntry        `json:"last_delivery"`
			Secret       json.RawMessage `json:"secret"`
		} `json:"webhooks"`
	}
	eventually(t, "the list has the delivery", func() bool { // it reads an index, which is behind on a bad day
		h.want(t, http.StatusOK, "GET", "/v1/deployments/"+d.ID+"/webhooks/outgoing", d.Token, nil, &list)
		return len(list.Webhooks) == 1 && list.Webhooks[0].LastDelivery.ID == found.ID
	})
	if list.Webhooks[0].Secret != nil {
		t.Errorf("the list has %+v", list)
	}
}

// values reads JSON.
func values(t *testing.T, raw []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%v in %s", err, clip(raw))
	}
	return v
}

// acceptedByTheSeed hands a post to the receivers of seed 002, as its users have copied them.
func acceptedByTheSeed(t *testing.T, secret string, p post) {
	t.Helper()
	const seed = "../../shared/webhook/testdata/seed/"
	headers := map[string]string{}
	for name, values := range p.header {
		headers[strings.ToLower(name)] = values[0]
	}
	input, err := json.Marshal([]any{map[string]any{"secret": secret, "headers": headers, "body": string(p.body)}})
	if err != nil {
		t.Fatal(err)
	}
	typescript, err := os.ReadFile(seed + "verify.ts")
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "verify.mjs")
	if err := os.WriteFile(plain, regexp.MustCompile(`: (string|boolean)\b`).ReplaceAll(typescript, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"node", seed + "harness.mjs", plain}, {"python3", seed + "harness.py", seed + "verify.py"}} {
		if _, err := exec.LookPath(args[0]); err != nil {
			if os.Getenv("CI") != "" {
				t.Errorf("%s is not installed", args[0])
			}
			t.Logf("NOT TESTED: the seed's receiver for %s, which is not installed", args[0])
			continue
		}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdin = strings.NewReader(string(input))
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "[200]") {
			t.Errorf("%s: %v\n%s", args[0], err, out)
		}
	}
}

func hearsItsEnvironment(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	r := newReceiver(t, h)
	for _, environment := range []string{"production", "staging"} {
		d.endpoint(t, r.url+"/"+environment, map[string]any{"environment": environment, "events": []string{"*"}})
	}
	runs := map[string]string{"production": d.start(t, "production"), "staging": d.start(t, "staging")}
	// One may overtake the other.
	posts := r.until(t, "both starts and both ends", func(posts []post) bool {
		return len(named(posts, "run.started")) == 2 && len(named(posts, "run.succeeded")) == 2
	})
	for _, p := range posts {
		if runID := p.outgoing(t).Data["run_id"]; runID != runs[strings.TrimPrefix(p.path, "/")] {
			t.Errorf("%s was told of %v", p.path, runID)
		}
	}
}

func hearsCanceled(t *testing.T, h *home) {
	d := h.deploy(t, crew(agent("worker", h.answer(say("Is this right?"))), task("work", "worker", "Work on {topic}", "human_input: true")))
	r := newReceiver(t, h)
	e := d.endpoint(t, r.url, map[string]any{"events": []string{"run.started", "run.waiting", "run.succeeded", "run.failed", "run.canceled"}})
	runID := d.start(t, "production")
	r.until(t, "run.waiting", func(posts []post) bool { return len(named(posts, "run.waiting")) == 1 })
	h.want(t, http.StatusOK, "POST", "/v1/runs/"+runID+"/cancel", d.Token, nil, nil)
	posts := r.until(t, "run.canceled", func(posts []post) bool { return len(named(posts, "run.canceled")) == 1 })
	d.log(t, e, "succeeded", 3)
	if n := len(named(posts, "run.failed")) + len(named(posts, "run.succeeded")); n > 0 {
		t.Errorf("%d other ends were told", n)
	}
}

func replaysWhatWasMissed(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	r := newReceiver(t, h)
	e := d.endpoint(t, r.url)
	path := "/v1/webhooks/outgoing/" + e.ID
	h.want(t, http.StatusOK, "PATCH", path, d.Token, map[string]any{"enabled": false}, nil)
	runID := d.start(t, "production")
	d.over(t, runID)
	h.want(t, http.StatusConflict, "POST", path+"/redrive", d.Token, map[string]any{"status": "skipped"}, nil)
	h.want(t, http.StatusOK, "PATCH", path, d.Token, map[string]any{"enabled": true}, nil)
	second := d.start(t, "production")
	r.until(t, "the second run", func(posts []post) bool { return len(named(posts, "run.succeeded")) == 1 })
	since := h.now().Add(-time.Hour).UTC().Format(time.RFC3339)
	// On a bad day the list is behind, and one that was sent is not counted when the answer to that write was lost.
	eventually(t, "the first run is found", func() bool {
		return d.redrive(t, e, map[string]any{"status": "skipped", "since": since}) > 0 || len(named(r.all(), "run.succeeded")) == 2
	})
	posts := r.until(t, "the first run", func(posts []post) bool { return len(named(posts, "run.succeeded")) == 2 })
	var told []any
	for _, p := range named(posts, "run.succeeded") {
		if err := webhook.Verify(e.Secret, p.header, p.body, p.at); err != nil {
			t.Error(err)
		}
		told = append(told, p.outgoing(t).Data["run_id"])
	}
	if diff := cmp.Diff([]any{second, runID}, told); diff != "" {
		t.Errorf("who was told of (-want +got):\n%s", diff)
	}
	d.log(t, e, "succeeded", 2)
}

// redrive asks for deliveries again, waits until all are on their way, and gives how many those are.
func (d deployment) redrive(t *testing.T, e endpointOf, ask map[string]any) (sent int) {
	t.Helper()
	path := "/v1/webhooks/outgoing/" + e.ID + "/redrive"
	var begun struct {
		ID    string `json:"id"`
		State string `json:"state"`
		Sent  int    `json:"sent"`
	}
	d.home.want(t, http.StatusAccepted, "POST", path, d.Token, ask, &begun)
	eventually(t, "the redrive is done", func() bool {
		d.home.want(t, http.StatusOK, "GET", path+"/"+begun.ID, d.Token, nil, &begun)
		return begun.State == "done"
	})
	return begun.Sent
}

// pinged is what a test answers.
type pinged struct {
	OK         bool    `json:"ok"`
	StatusCode *int    `json:"status_code"`
	Error      *string `json:"error"`
	LatencyMS  *int    `json:"latency_ms"`
	Body       string  `json:"body"`
}

func postsATest(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	r := newReceiver(t, h)
	e := d.endpoint(t, r.url+"/hook", map[string]any{"headers": map[string]string{"X-Team": "support"}, "enabled": false})
	var got pinged
	h.want(t, http.StatusOK, "POST", "/v1/webhooks/outgoing/"+e.ID+"/test", d.Token, nil, &got)
	if !got.OK || got.StatusCode == nil || *got.StatusCode != 200 || got.Error != nil || got.LatencyMS == nil {
		t.Errorf("got %+v", got)
	}
	p := r.all()[0]
	if err := webhook.Verify(e.Secret, p.header, p.body, p.at); err != nil {
		t.Error(err)
	}
	if p.header.Get("X-Crewship-Event") != "ping" || p.header.Get("X-Team") != "support" || p.outgoing(t).Event != "ping" {
		t.Errorf("posted %v %s", p.header, p.body)
	}
	r.mu.Lock()
	r.reply = func(post) int { return http.StatusTeapot }
	r.mu.Unlock()
	h.want(t, http.StatusOK, "POST", "/v1/webhooks/outgoing/"+e.ID+"/test", d.Token, nil, &got)
	if got.OK || *got.StatusCode != 418 || got.Error == nil {
		t.Errorf("got %+v", got)
	}
}

func rotates(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	r := newReceiver(t, h)
	e := d.endpoint(t, r.url)
	path := "/v1/webhooks/outgoing/" + e.ID
	hear := func(n int) post {
		t.Helper()
		d.start(t, "production")
		return r.until(t, "the run", func(posts []post) bool { return len(posts) == n })[n-1]
	}
	good := func(p post, secrets ...string) {
		t.Helper()
		for _, s := range secrets {
			if err := webhook.Verify(s, p.header, p.body, p.at); err != nil {
				t.Error(err)
			}
		}
	}
	var second, third endpointOf
	h.want(t, http.StatusOK, "POST", path+"/regenerate-secret", d.Token, map[string]any{"overlap_seconds": 600}, &second)
	p := hear(1)
	good(p, e.Secret, second.Secret)
	acceptedByTheSeed(t, e.Secret, p)
	h.want(t, http.StatusConflict, "POST", path+"/regenerate-secret", d.Token, nil, nil)
	h.want(t, http.StatusOK, "POST", path+"/regenerate-secret", d.Token, map[string]any{"force": true}, &third)
	p = hear(2)
	good(p, third.Secret)
	for _, s := range []string{e.Secret, second.Secret} {
		if webhook.Verify(s, p.header, p.body, p.at) == nil {
			t.Error("a secret that was taken back still signs")
		}
	}

	// The secret for targets given at kickoff.
	var anew struct {
		Secret string `json:"secret"`
	}
	h.want(t, http.StatusOK, "POST", "/v1/deployments/"+d.ID+"/regenerate-webhook-secret", h.token, map[string]any{"overlap_seconds": 600}, &anew)
	other := newReceiver(t, h)
	d.kickoff(t, about("rotation", map[string]any{"crewWebhookUrl": other.url + "/crew"}))
	p = other.until(t, "the end", func(posts []post) bool { return len(posts) == 1 })[0]
	good(p, d.WebhookSecret, anew.Secret)
}

func sendsAgain(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	r := newReceiver(t, h)
	r.reply = func(post) int { return http.StatusRequestEntityTooLarge } // which no later try can change
	e := d.endpoint(t, r.url)
	for range 3 {
		d.start(t, "production")
	}
	given := d.log(t, e, "exhausted", 3)
	r.mu.Lock()
	r.reply = nil
	r.mu.Unlock()

	h.want(t, http.StatusAccepted, "POST", "/v1/deliveries/"+given[0].ID+"/redeliver", d.Token, nil, nil)
	if taken := d.log(t, e, "succeeded", 1)[0]; taken.ID != given[0].ID || taken.Attempts != 2 {
		t.Errorf("got %+v, want two attempts of %s", taken, given[0].ID)
	}
	var one struct {
		Status   string `json:"status"`
		Attempts []struct {
			ResponseCode *int              `json:"response_code"`
			ErrorClass   *string           `json:"error_class"`
			Headers      map[string]string `json:"response_headers"`
		} `json:"attempts"`
	}
	h.want(t, http.StatusOK, "GET", "/v1/deliveries/"+given[0].ID, d.Token, nil, &one)
	if one.Status != "succeeded" || len(one.Attempts) != 2 || *one.Attempts[0].ResponseCode != 413 || *one.Attempts[0].ErrorClass != "too_large" || *one.Attempts[1].ResponseCode != 200 {
		t.Errorf("got %+v", one)
	}

	sent := 0
	eventually(t, "redrives have sent the others", func() bool { // what a log that is behind does not show is for the next
		sent += d.redrive(t, e, map[string]any{"status": "exhausted"})
		return sent >= 2 || len(r.all()) >= 6 // the count of a portion that met a fault is lost
	})
	if sent > 2 {
		t.Errorf("%d were sent", sent)
	}
	taken := d.log(t, e, "succeeded", 3)
	ids := func(entries []logEntry) (all []string) {
		for _, l := range entries {
			all = append(all, l.ID)
		}
		slices.Sort(all)
		return all
	}
	if diff := cmp.Diff(ids(given), ids(taken)); diff != "" {
		t.Errorf("ids (-given up +taken):\n%s", diff)
	}
}

func saysNothingOfTheInside(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	for _, url := range []string{"http://169.254.169.254/latest/meta-data/", "http://10.0.0.1:22/", "http://[fd00:ec2::254]/", "http://0x0a000001/"} {
		var refused struct {
			Error struct{ Code, Message string }
		}
		h.want(t, http.StatusBadRequest, "POST", "/v1/deployments/"+d.ID+"/webhooks/outgoing", d.Token, map[string]any{"url": url}, &refused)
		if refused.Error.Message != "url: This address cannot be reached from here." {
			t.Errorf("%s: %s", url, refused.Error.Message)
		}
	}
}
