package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/shared/engine/llm/scripted"
	"muster/shared/id"
	"muster/shared/workspace"
)

// agents are about the trigger that hands an event to one agent of a crew, and about what can be read of that.
var agents = []behaviour{
	{"the request of the documents has one agent do what its goal asks, and can be followed", oneAgentDoesIt},
	{"who proves nothing learns nothing, and what cannot be read is refused in plain text", refusesStrangers},
	{"the old header works, and its end is announced", announcesTheEnd},
	{"a session goes on, and an event that comes while the agent is busy waits for its turn", aSessionGoesOn},
	{"the ninth event in flight is told to come back, and a stop ends what is under way", eightInFlight},
	{"an agent that is too slow has failed", timesOut},
	{"another secret kills the old one, and only the inside is shown it", secretsRotate},
	{"the same event again is the same run, and a receipt can be replayed", sameEventSameRun},
}

// agentsAnyDay hold on a bad day too.
var agentsAnyDay = []behaviour{
	{"an event that is sent until it is taken starts one run of the agent", oneRunOfTheAgent},
	{"an event of nearly a mebibyte is told whole, and webhooks hear of its run", tellsLongEvents},
}

// hand is an agent with its secret.
type hand struct {
	home               *home
	CrewID, ID, Secret string
	token              string
}

// seedEvent is the body in seed 003, and seedMessage what the agent reads of it.
const (
	seedEvent = `{
  "event": "pull_request.opened",
  "source": "github",
  "data": {
    "repository": "org/repo",
    "pr_number": 42,
    "branch": "feat/new-feature",
    "author": "developer",
    "title": "Add user authentication",
    "url": "https://github.com/org/repo/pull/42"
  }
}`
	seedMessage = "Webhook event received:\nEvent: pull_request.opened\nSource: github\n" +
		"Data: {repository: org/repo, pr_number: 42, branch: feat/new-feature, author: developer, title: Add user authentication, url: https://github.com/org/repo/pull/42}"
)

// internal mints an internal token.
func (h *home) internal(t *testing.T) string {
	t.Helper()
	ws, _ := id.Parse("ws", h.workspaceID)
	for range 20 { // a mean store may fail
		if token, err := h.app.Tokens.Mint(t.Context(), workspace.Caller{Kind: workspace.Internal, WorkspaceID: ws}); err == nil {
			return token
		}
	}
	t.Fatal("no token was minted")
	return ""
}

// hand finds an agent of the deployment, and its secret.
func (d deployment) hand(t *testing.T, key string) hand {
	t.Helper()
	var shown struct {
		Agents []struct{ ID, Name string }
	}
	d.home.want(t, http.StatusOK, "GET", "/v1/deployments/"+d.ID, d.Token, nil, &shown)
	for _, a := range shown.Agents {
		if a.Name == key {
			w := hand{home: d.home, CrewID: d.ID, ID: a.ID, token: d.Token}
			w.Secret = w.secret(t)
			return w
		}
	}
	t.Fatalf("there is no agent %s in %+v", key, shown)
	return hand{}
}

func (w hand) secret(t *testing.T) string {
	t.Helper()
	var shown struct{ Secret string }
	w.home.want(t, http.StatusOK, "GET", "/api/v1/internal/agents/"+w.ID+"/webhook-secret", "", nil, &shown, "X-Internal-Token", w.home.internal(t))
	if len(shown.Secret) < 43 {
		t.Errorf("the secret is %q", shown.Secret)
	}
	return shown.Secret
}

// send sends a request to the trigger as it is; headers are name and value in turn.
func (w hand) send(t *testing.T, body string, headers ...string) (status int, header http.Header, answer string) {
	t.Helper()
	return w.home.post(t, "/api/v1/webhooks/"+w.CrewID+"/"+w.ID+"/trigger", body, headers...)
}

func (h *home) post(t *testing.T, path, body string, headers ...string) (status int, header http.Header, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", h.url+path, strings.NewReader(body))
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
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(raw)
}

// tell sends an event, signed, that must be taken, and gives the run.
func (w hand) tell(t *testing.T, body string, headers ...string) string {
	t.Helper()
	headers = append([]string{"X-Signature", hexMAC(w.Secret, body)}, headers...)
	status, _, answer := w.send(t, body, headers...)
	for tries := 1; status >= 500 && tries < 20; tries++ { // as senders do
		status, _, answer = w.send(t, body, headers...)
	}
	return w.accepted(t, status, answer)
}

func (w hand) accepted(t *testing.T, status int, answer string) string {
	t.Helper()
	var a map[string]string
	if err := json.Unmarshal([]byte(answer), &a); err != nil || status != http.StatusAccepted || len(a) != 2 || a["status"] != "accepted" || !strings.HasPrefix(a["run_id"], "run_") {
		t.Fatalf("got %d %s", status, answer)
	}
	return a["run_id"]
}

// agentRun is a run as the agent wire shows it.
type agentRun struct {
	ID           string            `json:"id"`
	AgentID      *string           `json:"agent_id"`
	ChatID       *string           `json:"chat_id"`
	TriggerType  string            `json:"trigger_type"`
	Status       string            `json:"status"`
	ErrorMessage *string           `json:"error_message"`
	ExitCode     *int              `json:"exit_code"`
	DurationMS   *int64            `json:"duration_ms"`
	FinishedAt   *string           `json:"finished_at"`
	Metadata     map[string]string `json:"metadata"`
}

func (w hand) run(t *testing.T, runID string) (r agentRun) {
	t.Helper()
	w.home.want(t, http.StatusOK, "GET", "/api/v1/runs/"+runID, w.token, nil, &r)
	return r
}

func (w hand) over(t *testing.T, runID string) (r agentRun) {
	t.Helper()
	eventually(t, "the run has ended", func() bool {
		r = w.run(t, runID)
		return r.FinishedAt != nil
	})
	return r
}

func (w hand) runs(t *testing.T, query string) (runs []agentRun) {
	t.Helper()
	w.home.want(t, http.StatusOK, "GET", "/api/v1/agents/"+w.ID+"/runs"+query, w.token, nil, &runs)
	return runs
}

// pair is a crew of two agents that wants the input {topic}, and whose reviewer has a placeholder that nobody fills in.
func pair(reviewer, other string) map[string]string {
	return crew(agent("reviewer", reviewer, "verbose: true")+strings.Replace(agent("other", other), "Do it well", "Know {topic}", 1),
		task("work", "other", "Work on {topic}")+task("review", "reviewer", "Review {topic}"))
}

func oneAgentDoesIt(t *testing.T, h *home) {
	prompts := make(chan string, 10)
	files := pair(h.answer(func(r scripted.Request) scripted.Reply {
		prompts <- r.User()
		if strings.HasPrefix(r.User(), "Webhook") && !strings.Contains(r.System(), "Knows {trade}") {
			t.Errorf("the agent is %q", r.System())
		}
		return scripted.Text("Looks good.")
	}), h.answer(say("Never.")))
	files["agents.yaml"] = strings.Replace(files["agents.yaml"], "Knows the trade", "Knows {trade}", 1)
	d := h.deploy(t, files)
	w := d.hand(t, "reviewer")
	runID := w.tell(t, seedEvent)
	r := w.over(t, runID)
	if r.Status != "COMPLETED" || r.TriggerType != "WEBHOOK" || r.ExitCode == nil || *r.ExitCode != 0 || r.ErrorMessage != nil || r.DurationMS == nil ||
		r.AgentID == nil || *r.AgentID != w.ID || r.ChatID == nil || *r.ChatID != "webhook-"+w.ID || r.Metadata["event"] != "pull_request.opened" || r.Metadata["source"] != "github" {
		t.Errorf("the run is %+v", r)
	}
	if prompt := <-prompts; !strings.HasPrefix(prompt, seedMessage+"\n") {
		t.Errorf("the agent is told %q", prompt)
	}
	if len(prompts) > 0 {
		t.Errorf("the agent is asked again: %q", <-prompts)
	}
	if whole := d.run(t, runID); whole.Output == nil || whole.Output.Result != "Looks good." || whole.Input["message"] != seedMessage || whole.Environment != "production" {
		t.Errorf("the run is %+v", whole)
	}

	// What braces there are in an event stay what they are, and names do as well as ids.
	w.CrewID, w.ID = strings.TrimPrefix(d.ID, "dep_"), "reviewer"
	w.CrewID = strings.Join([]string{w.CrewID[:8], w.CrewID[8:12], w.CrewID[12:16], w.CrewID[16:20], w.CrewID[20:]}, "-")
	second := w.tell(t, `{"event": "{topic}", "data": {"a": "{{b}}"}, "labels": ["x"]}`)
	w = d.hand(t, "reviewer")
	w.over(t, second)
	if prompt := <-prompts; !strings.HasPrefix(prompt, "Webhook event received:\nEvent: {topic}\nData: {a: {{b}}}\nlabels: [x]\n") {
		t.Errorf("the agent is told %q", prompt)
	}

	crewRun := id.Show("run", d.kickoff(t, map[string]any{"inputs": map[string]any{"topic": "tea", "trade": "tea"}}))
	d.over(t, crewRun)
	if all := w.runs(t, ""); len(all) != 3 || all[0].ID != crewRun || all[0].AgentID != nil || all[0].TriggerType != "API" || all[2].ID != runID {
		t.Errorf("the agent's runs are %+v", all)
	}
	for _, query := range []string{"?trigger_type=WEBHOOK", "?trigger=webhook"} {
		if some := w.runs(t, query); len(some) != 2 || some[0].ID != second || some[1].ID != runID {
			t.Errorf("with %s the runs are %+v", query, some)
		}
	}
	if none := w.runs(t, "?trigger_type=CRON"); none == nil || len(none) != 0 {
		t.Errorf("started by a clock: %+v", none)
	}
	readsLists(t, d, w)
	readsLogs(t, w, runID)

	var again struct {
		RunID string `json:"run_id"`
	}
	h.want(t, http.StatusAccepted, "POST", "/v1/runs/"+runID+"/rerun", d.Token, map[string]any{}, &again)
	if r := w.over(t, again.RunID); r.Status != "COMPLETED" || r.TriggerType != "REPLAY" || *r.AgentID != w.ID {
		t.Errorf("done again the run is %+v", r)
	}
}

func readsLists(t *testing.T, d deployment, w hand) {
	var list struct {
		Data       []agentRun
		Stats      struct{ Running, Today, Failed int }
		Pagination struct {
			Page, Limit, Total int
			TotalPages         int `json:"total_pages"`
		}
	}
	w.home.want(t, http.StatusOK, "GET", "/api/v1/runs?limit=2&page=2", d.Token, nil, &list)
	if len(list.Data) != 1 || list.Pagination.Total != 3 || list.Pagination.TotalPages != 2 || list.Pagination.Page != 2 || list.Stats.Running != 0 || list.Stats.Failed != 0 {
		t.Errorf("the second page is %+v", list)
	}
	w.home.want(t, http.StatusOK, "GET", "/api/v1/runs?status=COMPLETED&trigger=WEBHOOK&agent_id="+w.ID, d.Token, nil, &list)
	if len(list.Data) != 2 {
		t.Errorf("filtered the list is %+v", list)
	}
	for path, code := range map[string]int{"/api/v1/runs?status=bogus": 400, "/api/v1/runs?page=0": 400, "/api/v1/runs?limit=101": 400, "/api/v1/runs/insights?window=1y": 400, "/api/v1/runs/run_1": 404, "/api/v1/agents/nobody/runs": 404, "/api/v1/agents/" + w.ID + "/logs?limit=501": 400} {
		got, answer := w.home.call(t, "GET", path, d.Token, nil)
		var problem struct {
			Title, Detail string
			Status        int
		}
		if err := json.Unmarshal(answer, &problem); err != nil || got != code || problem.Status != code || problem.Title == "" || problem.Detail == "" {
			t.Errorf("%s: got %d %s", path, got, answer)
		}
	}
	var insights struct {
		Runs, Completed int
		P50             *int64 `json:"p50_duration_ms"`
		ByTrigger       []struct {
			Key  string
			Runs int
		} `json:"by_trigger"`
		ByModel []struct {
			Model string
			Calls int
		} `json:"by_model"`
		ByCrew []struct{ Key, Name string } `json:"by_crew"`
	}
	w.home.want(t, http.StatusOK, "GET", "/api/v1/runs/insights?window=7d", d.Token, nil, &insights)
	if insights.Runs != 3 || insights.Completed != 3 || insights.P50 == nil || len(insights.ByTrigger) != 2 || insights.ByTrigger[1].Key != "WEBHOOK" || insights.ByTrigger[1].Runs != 2 ||
		len(insights.ByModel) != 2 || len(insights.ByCrew) != 1 || insights.ByCrew[0].Key != d.ID {
		t.Errorf("the insights are %+v", insights)
	}
	var health struct{ Status string }
	w.home.want(t, http.StatusOK, "GET", "/api/health", "", nil, &health)
	if health.Status != "ok" {
		t.Errorf("the health is %+v", health)
	}
}

func readsLogs(t *testing.T, w hand, runID string) {
	type entry struct {
		TS, Level, Agent, Event, Content string
		AgentID                          string `json:"agent_id"`
		Tokens                           *int
		Metadata                         struct {
			RunID    string `json:"run_id"`
			Sequence int
		}
	}
	var all, some []entry
	w.home.want(t, http.StatusOK, "GET", "/api/v1/agents/"+w.ID+"/logs?limit=500", w.token, nil, &all)
	said := 0
	for _, e := range all {
		if e.Agent != "reviewer" || e.AgentID != w.ID || e.Level != "info" || e.TS == "" {
			t.Errorf("an entry is %+v", e)
		}
		if e.Event == "llm_call_completed" && e.Content == "Looks good." && e.Tokens != nil && e.Metadata.RunID == runID {
			said++
		}
	}
	if said != 1 {
		t.Errorf("the log is %+v", all)
	}
	w.home.want(t, http.StatusOK, "GET", "/api/v1/agents/"+w.ID+"/logs?limit=2&offset=3", w.token, nil, &some)
	if len(some) != 2 || some[0] != all[3] && some[0].Metadata != all[3].Metadata {
		t.Errorf("a part of the log is %+v", some)
	}
}

func refusesStrangers(t *testing.T, h *home) {
	d, other := h.deploy(t, simple(h.answer(say("Never.")))), h.deploy(t, simple(h.answer(say("Never."))))
	w, x := d.hand(t, "worker"), other.hand(t, "worker")
	good := hexMAC(w.Secret, seedEvent)
	nowhere := func(crew, agent string) hand { return hand{home: h, CrewID: crew, ID: agent, Secret: w.Secret} }
	_, first, bytes := w.send(t, seedEvent)
	if bytes != "unauthorized" || !strings.HasPrefix(first.Get("Content-Type"), "text/plain") {
		t.Errorf("who says nothing is told %q, %v", bytes, first)
	}
	for _, c := range []struct {
		name    string
		at      hand
		headers []string
	}{
		{"a wrong signature", w, []string{"X-Signature", hexMAC("x", seedEvent)}},
		{"a signature of another body", w, []string{"X-Signature", hexMAC(w.Secret, "{}")}},
		{"a prefix", w, []string{"X-Signature", "sha256=" + good}},
		{"upper case", w, []string{"X-Signature", strings.ToUpper(good)}},
		{"a bearer token only", w, []string{"Authorization", "Bearer " + d.Token}},
		{"a wrong signature and the right secret", w, []string{"X-Signature", "00", "X-Webhook-Secret", w.Secret}},
		{"a wrong secret", w, []string{"X-Webhook-Secret", "x"}},
		{"an agent of another crew", nowhere(d.ID, x.ID), []string{"X-Signature", good}},
		{"an agent of another crew, with that agent's secret", nowhere(d.ID, x.ID), []string{"X-Signature", hexMAC(x.Secret, seedEvent)}},
		{"an unknown agent", nowhere(d.ID, "0198c0de-0000-7000-8000-000000000001"), []string{"X-Signature", good}},
		{"a name that no agent has", nowhere(d.ID, "nobody"), []string{"X-Signature", good}},
		{"an unknown crew", nowhere("dep_0198c0de000070008000000000000001", w.ID), []string{"X-Signature", good}},
		{"a name that many crews have", nowhere("of a test", w.ID), []string{"X-Signature", good}},
		{"a timestamp that is not signed", w, []string{"X-Signature", good, "X-Timestamp", fmt.Sprint(h.now().Unix())}},
	} {
		status, header, answer := c.at.sendEscaped(t, seedEvent, c.headers...)
		header.Del("X-Request-Id")
		header.Del("Date")
		if status != http.StatusUnauthorized || answer != bytes || len(header) != len(first)-2 {
			t.Errorf("%s: got %d %q %v", c.name, status, answer, header)
		}
	}
	for _, c := range []struct {
		name, body string
		headers    []string
		status     int
		answer     string
	}{
		{"no JSON", "hello", nil, 400, "invalid JSON"},
		{"100,000 brackets", strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), nil, 400, "invalid JSON"},
		{"no UTF-8", "{\"event\": \"\xff\"}", nil, 400, "invalid JSON"},
		{"a form", "event=x", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, ""},
		{"no type", "{}", []string{"Content-Type", ""}, 415, ""},
		{"gzip", "{}", []string{"Content-Encoding", "gzip"}, 415, ""},
		{"a mebibyte and more", `{"event": "` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, ""},
		{"an old timestamp", "{}", []string{"X-Timestamp", fmt.Sprint(h.now().Unix() - 400)}, 400, "stale or invalid timestamp"},
	} {
		status, header, answer := w.send(t, c.body, append([]string{"X-Signature", hexMAC(w.Secret, c.body)}, c.headers...)...)
		if status != c.status || c.answer != "" && answer != c.answer || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: got %d %q %v", c.name, status, answer, header)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", h.url+"/api/v1/webhooks/a/b/trigger", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if response.StatusCode != 405 || string(answer) != "method not allowed" || response.Header.Get("Allow") == "" {
		t.Errorf("GET: got %d %q", response.StatusCode, answer)
	}
	if runs := w.runs(t, ""); len(runs) != 0 {
		t.Errorf("there are runs: %+v", runs)
	}
	var receipts struct {
		Receipts []struct{ Status, Reason string }
	}
	h.want(t, http.StatusOK, "GET", "/v1/receipts?limit=100", d.Token, nil, &receipts)
	if len(receipts.Receipts) != 17 {
		t.Errorf("there are %d receipts", len(receipts.Receipts))
	}
}

func (w hand) sendEscaped(t *testing.T, body string, headers ...string) (int, http.Header, string) {
	t.Helper()
	w.CrewID = strings.ReplaceAll(w.CrewID, " ", "%20")
	return w.send(t, body, headers...)
}

func announcesTheEnd(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	w := d.hand(t, "worker")
	for _, body := range []string{`{"event": "e"}`, "no JSON"} {
		status, header, answer := w.send(t, body, "X-Webhook-Secret", w.Secret)
		if header.Get("Deprecation") != "@1767225600" || header.Get("Sunset") != "Thu, 31 Dec 2026 23:59:59 GMT" {
			t.Errorf("the answer has %v", header)
		}
		if status == http.StatusAccepted {
			w.over(t, w.accepted(t, status, answer))
		} else if status != http.StatusBadRequest {
			t.Errorf("got %d %s", status, answer)
		}
	}
	if _, header, _ := w.send(t, `{}`, "X-Signature", hexMAC(w.Secret, `{}`)); header.Get("Sunset") != "" {
		t.Errorf("the answer to a signed one has %v", header)
	}
}

func aSessionGoesOn(t *testing.T, h *home) {
	gate, asked := make(chan struct{}), make(chan string, 10)
	d := h.deploy(t, simple(h.answer(func(r scripted.Request) scripted.Reply {
		asked <- r.User()
		return scripted.Reply{Text: fmt.Sprintf("Answer %d.", len(r.User())), Wait: gate}
	})))
	w := d.hand(t, "worker")
	first := w.tell(t, `{"event": "first"}`)
	one := <-asked
	second := w.tell(t, `{"event": "second"}`)
	if r := d.run(t, second); r.Status != "pending" {
		t.Errorf("the second run is %s", r.Status)
	}
	if r := w.run(t, second); r.Status != "RUNNING" || r.DurationMS != nil {
		t.Errorf("the second run is %+v", r)
	}
	close(gate)
	w.over(t, first)
	if r := w.over(t, second); r.Status != "COMPLETED" {
		t.Errorf("the second run is %+v", r)
	}
	two := <-asked
	if strings.Contains(one, "Earlier") || !strings.Contains(two, "Event: first") || !strings.Contains(two, fmt.Sprintf("Answer %d.", len(one))) || !strings.HasPrefix(two, "Webhook event received:\nEvent: second\n") {
		t.Errorf("the agent is told %q and %q", one, two)
	}
}

func eightInFlight(t *testing.T, h *home) {
	gate, asked := make(chan struct{}), make(chan struct{}, 10)
	t.Cleanup(func() { close(gate) })
	d := h.deploy(t, simple(h.answer(func(scripted.Request) scripted.Reply {
		asked <- struct{}{}
		return scripted.Reply{Text: "Late.", Wait: gate}
	})))
	w := d.hand(t, "worker")
	var runs []string
	for i := range 8 {
		runs = append(runs, w.tell(t, fmt.Sprintf(`{"event": %d}`, i)))
	}
	wait(t, asked, "the agent is asked")
	status, header, answer := w.send(t, `{"event": 8}`, "X-Signature", hexMAC(w.Secret, `{"event": 8}`))
	if after, err := strconv.Atoi(header.Get("Retry-After")); status != http.StatusTooManyRequests || err != nil || after < 1 || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
		t.Errorf("the ninth got %d %s %v", status, answer, header)
	}
	var stopped struct{ ID, Status string }
	h.want(t, http.StatusOK, "POST", "/api/v1/agents/"+w.ID+"/stop", d.Token, nil, &stopped)
	if stopped.ID != w.ID || stopped.Status != "STOPPED" {
		t.Errorf("the stop is answered %+v", stopped)
	}
	for _, runID := range runs {
		if r := w.over(t, runID); r.Status != "CANCELLED" || r.ExitCode != nil {
			t.Errorf("a run is %+v", r)
		}
	}
}

func timesOut(t *testing.T, h *home) {
	gate := make(chan struct{})
	t.Cleanup(func() { close(gate) })
	d := h.deploy(t, simple(h.answer(func(scripted.Request) scripted.Reply { return scripted.Reply{Text: "Late.", Wait: gate} })))
	h.want(t, http.StatusOK, "PATCH", "/v1/deployments/"+d.ID, h.token, map[string]any{"limits": map[string]any{"max_duration_seconds": 1}}, nil)
	w := d.hand(t, "worker")
	r := w.over(t, w.tell(t, `{}`))
	if r.Status != "FAILED" || r.ExitCode == nil || *r.ExitCode != 1 || r.ErrorMessage == nil || *r.ErrorMessage != "timed out after 1 second" || *r.DurationMS < 1000 {
		t.Errorf("the run is %+v", r)
	}
}

func secretsRotate(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	w := d.hand(t, "worker")
	inside := "/api/v1/internal/agents/" + w.ID + "/webhook-secret"
	for name, headers := range map[string][]string{
		"nothing": nil, "a workspace's token": {"X-Internal-Token", h.token}, "a wrong token": {"X-Internal-Token", "x"}, "another header": {"Authorization", "Bearer " + h.internal(t)},
	} {
		if status, answer := h.call(t, "GET", inside, "", nil, headers...); status != http.StatusUnauthorized {
			t.Errorf("with %s: got %d %s", name, status, answer)
		}
	}
	var rotated struct{ Secret string }
	h.want(t, http.StatusOK, "POST", "/api/v1/agents/"+w.ID+"/webhook-secret/rotate", d.Token, nil, &rotated)
	if rotated.Secret == w.Secret || rotated.Secret != w.secret(t) {
		t.Errorf("the secrets are %q, %q, %q", w.Secret, rotated.Secret, w.secret(t))
	}
	if status, _, answer := w.send(t, "{}", "X-Signature", hexMAC(w.Secret, "{}")); status != http.StatusUnauthorized {
		t.Errorf("with the old secret: got %d %s", status, answer)
	}
	w.Secret = rotated.Secret
	if r := w.over(t, w.tell(t, "{}")); r.Status != "COMPLETED" {
		t.Errorf("the run is %+v", r)
	}
	stranger := h.deploy(t, simple(h.answer(say("Never."))))
	h.want(t, http.StatusNotFound, "POST", "/api/v1/agents/"+w.ID+"/webhook-secret/rotate", stranger.Token, nil, nil)
	h.want(t, http.StatusNotFound, "GET", "/v1/webhooks/incoming/"+w.ID, d.Token, nil, nil)
}

func sameEventSameRun(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(func(scripted.Request) scripted.Reply { return scripted.Text("Done.") })))
	w := d.hand(t, "worker")
	body := `{"event": "e"}`
	first := w.tell(t, body)
	if again := w.tell(t, body); again != first {
		t.Errorf("the same signature gave %s and %s", first, again)
	}
	keyed := w.tell(t, body, "Idempotency-Key", "k")
	if again := w.tell(t, body, "Idempotency-Key", "k"); again != keyed || keyed == first {
		t.Errorf("the same key gave %s and %s", keyed, again)
	}
	delivered := w.tell(t, `{"event": "d"}`, "X-GitHub-Delivery", "d1")
	if again := w.tell(t, `{"event": "f"}`, "X-GitHub-Delivery", "d1"); again != delivered || again == first {
		t.Errorf("the same delivery gave %s and %s", delivered, again)
	}
	if again := w.tell(t, `{"event": "d"}`, "X-GitHub-Delivery", "made up"); again != delivered {
		t.Errorf("the same signature under another id gave %s and %s", delivered, again)
	}
	for _, runID := range []string{first, keyed, delivered} {
		w.over(t, runID)
	}
	_, header, _ := w.send(t, body, "X-Signature", hexMAC(w.Secret, body), "Idempotency-Key", "r")
	receipt := header.Get("Muster-Receipt")
	var kept struct {
		Status, RunID string
		Body          *string
		Headers       map[string]string
	}
	h.want(t, http.StatusOK, "GET", "/v1/receipts/"+receipt, d.Token, nil, &kept)
	if kept.Status != "accepted" || kept.Body == nil || *kept.Body != body || kept.Headers["x-signature"] != "********" {
		t.Errorf("the receipt is %+v", kept)
	}
	var replayed accepted
	h.want(t, http.StatusAccepted, "POST", "/v1/receipts/"+receipt+"/replay", d.Token, nil, &replayed)
	if r := w.over(t, replayed.RunID); r.Status != "COMPLETED" || r.TriggerType != "WEBHOOK" || r.Metadata["event"] != "e" {
		t.Errorf("replayed it is %+v", r)
	}
}

func oneRunOfTheAgent(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(func(scripted.Request) scripted.Reply { return scripted.Text("Done.") })))
	w := d.hand(t, "worker")
	first := w.tell(t, seedEvent, "Idempotency-Key", "k")
	for range 5 {
		if again := w.tell(t, seedEvent, "Idempotency-Key", "k"); again != first {
			t.Errorf("the same event gave %s and %s", first, again)
		}
	}
	next := w.tell(t, seedEvent, "Idempotency-Key", "l")
	for _, runID := range []string{first, next} {
		if r := w.over(t, runID); r.Status != "COMPLETED" {
			t.Errorf("the run is %+v", r)
		}
	}
}

func tellsLongEvents(t *testing.T, h *home) {
	long := strings.Repeat("ä{x}", 180_000) + "end"
	whole := make(chan bool, 10)
	d := h.deploy(t, simple(h.answer(func(r scripted.Request) scripted.Reply {
		whole <- strings.HasPrefix(r.User(), "Webhook event received:\nData: "+long+"\n")
		return scripted.Text("Done.")
	})))
	receiver := newReceiver(t, h)
	d.endpoint(t, receiver.url)
	w := d.hand(t, "worker")
	runID := w.tell(t, `{"data": "`+long+`"}`, "Idempotency-Key", "k")
	if r := w.over(t, runID); r.Status != "COMPLETED" || !<-whole {
		t.Errorf("the run is %+v", r)
	}
	posts := receiver.until(t, "the end", func(posts []post) bool { return len(named(posts, "run.succeeded")) > 0 })
	if b := named(posts, "run.succeeded")[0].outgoing(t); b.Data["run_id"] != runID {
		t.Errorf("the webhook hears of %+v", b)
	}
}

// afterTheSunset has a home of its own: it moves the clock by a month and more.
func afterTheSunset(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	w := d.hand(t, "worker")
	h.pass(time.Until(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)))
	status, header, answer := w.send(t, "{}", "X-Webhook-Secret", w.Secret)
	if status != http.StatusUnauthorized || !strings.Contains(answer, "X-Signature") || header.Get("Deprecation") == "" || header.Get("Sunset") == "" {
		t.Errorf("got %d %s %v", status, answer, header)
	}
	if status, _, _ = w.send(t, "{}", "X-Signature", hexMAC(w.Secret, "{}")); status != http.StatusAccepted {
		t.Errorf("signed: got %d", status)
	}
}
