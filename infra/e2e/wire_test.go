package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/shared/engine/llm/scripted"
	"muster/shared/id"
)

// deploymentWire is about /v1 as a client uses it.
var deploymentWire = []behaviour{
	{"versions are added, promoted and rolled back, and each environment runs its own", promotes},
	{"a run is pending, running and then succeeded", passesThroughStates},
	{"runs are listed by page, status and deployment", listsRuns},
	{"a run is found by its meta, whichever wire it came by", findsByMeta},
	{"the same idempotency key gives the same run, and another body a conflict", keepsKeys},
	{"a token opens its own deployment and nothing else", guardsDeployments},
	{"the catalogue of events is served to anyone", servesTheCatalogue},
}

// version is what a new version is answered with.
type version struct {
	VersionID     string `json:"version_id"`
	VersionNumber int    `json:"version_number"`
	DeploymentID  string `json:"deployment_id"`
}

// shown is a deployment as it is listed.
type shown struct {
	ID           string   `json:"id"`
	Name         string   `json:"name"`
	WorkspaceID  string   `json:"workspace_id"`
	Versions     int      `json:"versions"`
	Inputs       []string `json:"inputs"`
	Environments map[string]struct {
		VersionID     string `json:"version_id"`
		VersionNumber int    `json:"version_number"`
	} `json:"environments"`
	Agents []struct{ ID, Name, Role string } `json:"agents"`
}

// ran is a run of the deployment wire.
type ran struct {
	ID            string         `json:"id"`
	RunID         string         `json:"run_id"`
	VersionID     string         `json:"version_id"`
	VersionNumber int            `json:"version_number"`
	DeploymentID  string         `json:"deployment_id"`
	Environment   string         `json:"environment"`
	Status        string         `json:"status"`
	ErrorMessage  *string        `json:"error_message"`
	CreatedAt     *string        `json:"created_at"`
	StartedAt     *string        `json:"started_at"`
	CompletedAt   *string        `json:"completed_at"`
	Input         map[string]any `json:"input"`
	Output        *struct {
		Result     string          `json:"result"`
		ResultJSON json.RawMessage `json:"result_json"`
	} `json:"output"`
}

func (d deployment) run(t *testing.T, runID string) (r ran) {
	t.Helper()
	d.home.want(t, http.StatusOK, "GET", "/v1/runs/"+runID, d.Token, nil, &r)
	return r
}

// over waits until the run has ended.
func (d deployment) over(t *testing.T, runID string) (r ran) {
	t.Helper()
	eventually(t, "the run has ended", func() bool {
		r = d.run(t, runID)
		return r.CompletedAt != nil
	})
	return r
}

func promotes(t *testing.T, h *home) {
	first, second := h.answer(say("The first.")), h.answer(say("The second."))
	files := simple(first)
	d := h.deploy(t, files)
	if !strings.HasPrefix(d.ID, "dep_") || !strings.HasPrefix(d.VersionID, "ver_") || d.VersionNumber != 1 || !strings.HasPrefix(d.Token, "mus_dep_") || !strings.HasPrefix(d.WebhookSecret, "whsec_") {
		t.Errorf("the answer to a deployment is %+v", d)
	}
	show := func() (s shown) {
		h.want(t, http.StatusOK, "GET", "/v1/deployments/"+d.ID, d.Token, nil, &s)
		return s
	}
	one := show()
	if one.Name != "of a test" || one.WorkspaceID != h.workspaceID || one.Versions != 1 || !slices.Equal(one.Inputs, []string{"topic"}) || len(one.Agents) != 1 || one.Agents[0].Role != "Role of worker" {
		t.Errorf("the deployment is shown as %+v", one)
	}
	if raw, err := json.Marshal(one); err != nil || strings.Contains(string(raw), d.Token) || strings.Contains(string(raw), d.WebhookSecret) {
		t.Errorf("a secret is shown twice, or %v", err)
	}

	files["agents.yaml"] = agent("worker", second)
	var v version
	h.want(t, http.StatusCreated, "POST", "/v1/deployments/"+d.ID+"/versions", h.token, map[string]any{"files": files}, &v)
	if v.VersionNumber != 2 || v.VersionID == d.VersionID || v.DeploymentID != d.ID {
		t.Errorf("the second version is %+v", v)
	}
	start := func(environment string) ran {
		body := map[string]any{"deployment_id": d.ID, "input": map[string]any{"topic": "versions"}}
		if environment != "" {
			body["environment"] = environment
		}
		var s ran
		h.want(t, http.StatusAccepted, "POST", "/v1/runs", d.Token, body, &s)
		if s.Status != "running" || !strings.HasPrefix(s.RunID, "run_") {
			t.Errorf("the answer to a start is %+v", s)
		}
		return s
	}
	result := func(environment string, number int, want string) {
		t.Helper()
		s := start(environment)
		r := d.over(t, s.RunID)
		if s.VersionNumber != number || r.VersionNumber != number || r.VersionID != s.VersionID || r.Output == nil || r.Output.Result != want {
			t.Errorf("in %q started %+v and got %+v, want version %d and %q", environment, s, r, number, want)
		}
	}
	promote := func(environment string, number int) {
		t.Helper()
		h.want(t, http.StatusOK, "PUT", "/v1/deployments/"+d.ID+"/environments/"+environment, h.token, map[string]any{"version_number": number}, nil)
	}
	result("", 1, "The first.") // a new version waits
	promote("staging", 2)
	result("staging", 2, "The second.")
	result("production", 1, "The first.")
	promote("production", 2)
	result("production", 2, "The second.")
	promote("production", 1)
	result("", 1, "The first.")

	two := show()
	if two.Versions != 2 || two.Agents[0].ID != one.Agents[0].ID || two.Environments["staging"].VersionNumber != 2 || two.Environments["production"].VersionID != d.VersionID {
		t.Errorf("afterwards the deployment is shown as %+v", two)
	}
	for _, c := range []struct {
		path string
		body any
		code int
	}{
		{"/environments/testing", map[string]any{"version_number": 1}, 400},
		{"/environments/production", map[string]any{"version_number": 3}, 404},
		{"/environments/production", map[string]any{}, 400},
		{"/environments/production", map[string]any{"version_number": "1"}, 400},
	} {
		refused(t, h, c.code, "PUT", "/v1/deployments/"+d.ID+c.path, h.token, c.body)
	}
	refused(t, h, 400, "POST", "/v1/runs", d.Token, map[string]any{"environment": "testing", "input": map[string]any{"topic": "x"}})
}

func passesThroughStates(t *testing.T, h *home) {
	gate, asked := make(chan struct{}), make(chan struct{}, 100)
	d := h.deploy(t, simple(h.answer(func(scripted.Request) scripted.Reply {
		asked <- struct{}{}
		return scripted.Reply{Text: `{"answer": 42}`, Wait: gate}
	})))
	var s ran
	h.want(t, http.StatusAccepted, "POST", "/v1/runs", d.Token, map[string]any{"input": map[string]any{"topic": "states"}}, &s)
	if r := d.run(t, s.RunID); r.Status != "pending" && r.Status != "running" || r.CompletedAt != nil || r.Output != nil {
		t.Errorf("a run that has begun is %+v", r)
	}
	wait(t, asked, "the model is asked")
	if r := d.run(t, s.RunID); r.Status != "running" || r.StartedAt == nil || r.CompletedAt != nil || r.Output != nil || r.Environment != "production" {
		t.Errorf("a run whose model thinks is %+v", r)
	}
	close(gate)
	r := d.over(t, s.RunID)
	if r.Status != "succeeded" || r.Output == nil || r.Output.Result != `{"answer": 42}` || r.ErrorMessage != nil || r.Input["topic"] != "states" {
		t.Errorf("a run that has ended is %+v", r)
	}
	// The same run in the words of the other wire, by both forms of its id.
	amp := d.status(t, r.ID)
	if amp.State != "SUCCESS" {
		t.Errorf("/status says %s", amp.State)
	}
}

func listsRuns(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(func(r scripted.Request) scripted.Reply {
		if strings.Contains(r.User(), "failure") {
			return scripted.Fail(400, "no")
		}
		return scripted.Text("Done.")
	})))
	other := h.deploy(t, simple(h.answer(say("Done."))))
	var want []string
	for i := range 5 {
		topic := "success"
		if i == 1 {
			topic = "failure"
		}
		var s ran
		h.want(t, http.StatusAccepted, "POST", "/v1/runs", d.Token, map[string]any{"input": map[string]any{"topic": topic}}, &s)
		want = append([]string{s.RunID}, want...)
		d.over(t, s.RunID)
	}
	type page struct {
		Runs       []ran   `json:"runs"`
		NextCursor *string `json:"next_cursor"`
	}
	list := func(token, query string) (ids []string, p page) {
		h.want(t, http.StatusOK, "GET", "/v1/runs?"+query, token, nil, &p)
		for _, r := range p.Runs {
			ids = append(ids, r.ID)
		}
		return ids, p
	}
	if got, _ := list(d.Token, ""); !slices.Equal(got, want) {
		t.Errorf("the runs are %v, want %v", got, want)
	}
	if got, _ := list(h.token, "deployment_id="+d.ID); !slices.Equal(got, want) {
		t.Errorf("with the workspace's token the runs are %v, want %v", got, want)
	}
	var paged []string
	for query := "limit=2"; ; {
		got, p := list(d.Token, query)
		paged = append(paged, got...)
		if p.NextCursor == nil || len(paged) > 10 {
			break
		}
		query = "limit=2&cursor=" + *p.NextCursor
	}
	if !slices.Equal(paged, want) {
		t.Errorf("by pages the runs are %v, want %v", paged, want)
	}
	got, p := list(d.Token, "status=failed")
	if !slices.Equal(got, want[3:4]) || p.Runs[0].ErrorMessage == nil || !strings.Contains(*p.Runs[0].ErrorMessage, "answered 400") {
		t.Errorf("the runs that failed are %+v", p.Runs)
	}
	if got, _ := list(d.Token, "status=pending"); len(got) != 0 {
		t.Errorf("%v are pending", got)
	}
	if got, _ := list(other.Token, ""); len(got) != 0 {
		t.Errorf("another deployment's token lists %v", got)
	}
	refused(t, h, 404, "GET", "/v1/runs?deployment_id="+d.ID, other.Token, nil)
	for _, query := range []string{"status=done", "limit=0", "limit=101", "limit=x", "cursor=x"} {
		refused(t, h, 400, "GET", "/v1/runs?"+query, d.Token, nil)
	}
}

func keepsKeys(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	kick := func(key, topic string) (int, string) {
		code, answer := h.call(t, "POST", "/kickoff", d.Token, about(topic), "Idempotency-Key", key)
		return code, string(answer)
	}
	// All at once, as an impatient client repeats itself.
	answers := make(chan string)
	for range 8 {
		go func() { _, answer := kick("order 7", "first"); answers <- answer }()
	}
	first := <-answers
	for range 7 {
		if again := <-answers; again != first {
			t.Errorf("the same request gave %s, then %s", first, again)
		}
	}
	if code, answer := kick("order 7", "second"); code != http.StatusConflict || !strings.HasPrefix(answer, `{"detail":"`) {
		t.Errorf("another body gave %d %s", code, answer)
	}
	if code, answer := kick("order 8", "first"); code != http.StatusOK || answer == first {
		t.Errorf("another key gave %d %s", code, answer)
	}
	var started struct {
		KickoffID string `json:"kickoff_id"`
	}
	if err := json.Unmarshal([]byte(first), &started); err != nil {
		t.Fatal(err)
	}
	d.over(t, started.KickoffID)
	if code, answer := kick("order 7", "first"); code != http.StatusOK || answer != first {
		t.Errorf("after the run has ended the key gave %d %s", code, answer)
	}
	if n := len(h.runs(t, d)); n != 2 {
		t.Errorf("there are %d runs, want 2", n)
	}
}

// runs lists the ids of a deployment's runs.
func (h *home) runs(t *testing.T, d deployment) (ids []string) {
	t.Helper()
	var p struct {
		Runs []struct{ ID string } `json:"runs"`
	}
	h.want(t, http.StatusOK, "GET", "/v1/runs", d.Token, nil, &p)
	for _, r := range p.Runs {
		ids = append(ids, r.ID)
	}
	return ids
}

func guardsDeployments(t *testing.T, h *home) {
	mine, theirs := h.deploy(t, simple(h.answer(say("Done.")))), h.deploy(t, simple(h.answer(say("Done."))))
	runID := mine.kickoff(t, about("secrets"))
	mine.over(t, runID)

	for _, token := range []string{"", "wrong", "mus_dep_" + strings.Repeat("A", 43), mine.Token + "x"} {
		for _, path := range []string{"/v1/runs", "/v1/deployments", "/v1/runs/" + runID} {
			refused(t, h, 401, "GET", path, token, nil)
		}
		for _, path := range []string{"/inputs", "/status/" + runID, "/" + runID + "/status"} {
			if code, answer := h.call(t, "GET", path, token, nil); code != 401 || !slices.Equal(keys(t, answer), []string{"detail"}) {
				t.Errorf("GET %s with the token %q gave %d %s", path, token, code, answer)
			}
		}
		if code, answer := h.call(t, "POST", "/kickoff", token, about("x")); code != 401 || !slices.Equal(keys(t, answer), []string{"detail"}) {
			t.Errorf("a kickoff with the token %q gave %d %s", token, code, answer)
		}
	}
	refused(t, h, 404, "GET", "/v1/runs/"+runID, theirs.Token, nil)
	refused(t, h, 404, "POST", "/v1/runs/"+runID+"/events", theirs.Token, map[string]any{"type": "x"})
	refused(t, h, 404, "GET", "/v1/deployments/"+mine.ID, theirs.Token, nil)
	refused(t, h, 404, "POST", "/v1/runs", theirs.Token, map[string]any{"deployment_id": mine.ID, "input": map[string]any{"topic": "x"}})
	if s := theirs.status(t, runID); s.State != "NOT FOUND" {
		t.Errorf("another deployment's token sees the run as %s", s.State)
	}
	for _, c := range []struct{ method, path string }{
		{"POST", "/v1/deployments"}, {"POST", "/v1/deployments/" + mine.ID + "/versions"}, {"PUT", "/v1/deployments/" + mine.ID + "/environments/production"},
	} {
		refused(t, h, 403, c.method, c.path, mine.Token, map[string]any{"version_number": 1})
	}
	var list struct{ Deployments []shown }
	h.want(t, http.StatusOK, "GET", "/v1/deployments", mine.Token, nil, &list)
	if len(list.Deployments) != 1 || list.Deployments[0].ID != mine.ID {
		t.Errorf("a deployment's token lists %+v", list.Deployments)
	}
	// The workspace's token is good for it all, and names the deployment.
	if code, answer := h.call(t, "GET", "/inputs", h.token, nil, "Muster-Deployment", mine.ID); code != 200 || string(answer) != `{"inputs":["topic"]}` {
		t.Errorf("got %d %s", code, answer)
	}
	if code, answer := h.call(t, "GET", "/inputs", h.token, nil); code != 422 {
		t.Errorf("without a name of several deployments: got %d %s", code, answer)
	}
}

func servesTheCatalogue(t *testing.T, h *home) {
	var catalogue struct {
		Types []struct {
			Type    string `json:"type"`
			Emitted bool   `json:"emitted"`
			Doc     string `json:"doc"`
		} `json:"types"`
	}
	h.want(t, http.StatusOK, "GET", "/v1/events/types", "", nil, &catalogue)
	if len(catalogue.Types) < 61 {
		t.Errorf("only %d types are served", len(catalogue.Types))
	}
	if code, answer := h.call(t, "GET", "/healthcheck", "", nil); code != 200 || string(answer) != "Healthy" {
		t.Errorf("/healthcheck: got %d %s", code, answer)
	}
}

// refused sends a request that must be refused in the deployment wire's error shape.
func refused(t *testing.T, h *home, code int, method, path, token string, body any) {
	t.Helper()
	got, answer := h.call(t, method, path, token, body)
	var e struct {
		Error struct{ Code, Message string } `json:"error"`
	}
	err := json.Unmarshal(answer, &e)
	if got != code || err != nil || e.Error.Code == "" || !sentence(e.Error.Message) {
		t.Errorf("%s %s: got %d %s, want %d and a sentence", method, path, got, clip(answer), code)
	}
}

// sentence tells whether a text may be shown to people.
func sentence(s string) bool {
	for _, bad := range []string{"goroutine", ".go:", "panic", "/work", "sqlite", "dynamodb"} {
		if strings.Contains(s, bad) {
			return false
		}
	}
	return len(s) > 5 && len(s) < 2000
}

// badInput is about what comes in and should not have.
var badInput = []behaviour{
	{"bad kickoffs get the AMP wire's error, and no run", refusesKickoffs},
	{"bad requests get the deployment wire's error, and no run", refusesRuns},
	{"definitions that make no sense, or too much, are refused and leave nothing", refusesDefinitions},
}

// monsters are bodies that no route takes.
var monsters = []struct {
	name, body string
	code       int
}{
	{"nothing", "", 400},
	{"text", "hello", 400},
	{"half of an object", `{"inputs":`, 400},
	{"an array", `[]`, 400},
	{"null", `null`, 400},
	{"not UTF-8", "{\"inputs\":{\"topic\":\"\xff\xfe\"}}", 400},
	{"more than 1 MiB", `{"inputs":{"topic":"` + strings.Repeat("x", 1<<20) + `"}}`, 413},
	{"more than 6 MB", `{"inputs":{"topic":"` + strings.Repeat("x", 6<<20) + `"}}`, 413},
	{"10,000 arrays", `{"inputs":{"topic":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}}`, 400},
	{"10,000 objects", `{"inputs":` + strings.Repeat(`{"a":`, 10_000) + `1` + strings.Repeat("}", 10_001), 400},
}

func refusesKickoffs(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	cases := map[string]struct {
		body any
		code int
	}{
		"no inputs":                  {map[string]any{}, 422},
		"inputs of the wrong type":   {map[string]any{"inputs": []string{"topic"}}, 422},
		"another input":              {map[string]any{"inputs": map[string]any{"other": 1}}, 422},
		"a URL that is none":         {about("x", map[string]any{"stepWebhookUrl": "hook"}), 422},
		"a URL of the wrong type":    {about("x", map[string]any{"crewWebhookUrl": 7}), 422},
		"another strategy":           {about("x", map[string]any{"webhooks": map[string]any{"url": "https://a.example", "events": []string{"*"}, "authentication": map[string]any{"strategy": "basic", "token": "t"}}}), 422},
		"no events":                  {about("x", map[string]any{"webhooks": map[string]any{"url": "https://a.example", "events": []string{}}}), 422},
		"realtime of the wrong type": {about("x", map[string]any{"webhooks": map[string]any{"url": "https://a.example", "events": []string{"*"}, "realtime": "yes"}}), 422},
	}
	for _, m := range monsters {
		code := m.code
		if code == 400 {
			code = 422
		}
		cases[m.name] = struct {
			body any
			code int
		}{m.body, code}
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		c := cases[name]
		code, answer := h.call(t, "POST", "/kickoff", d.Token, c.body)
		var e struct {
			Detail  string `json:"detail"`
			Message string `json:"message"` // API Gateway's own, above 6 MB
		}
		if err := json.Unmarshal(answer, &e); code != c.code || err != nil || !sentence(e.Detail+e.Message) {
			t.Errorf("%s: got %d %s, want %d", name, code, clip(answer), c.code)
		}
	}
	if got := h.runs(t, d); len(got) > 0 {
		t.Errorf("refused kickoffs left the runs %v", got)
	}
	for _, unknown := range []string{"x", "run_" + strings.Repeat("0", 32), "0198c0de-0000-7000-8000-000000000000", "..", "%00"} {
		code, answer := h.call(t, "GET", "/status/"+unknown, d.Token, nil)
		var s status
		if unknown == ".." {
			continue // net/http cleans the path
		}
		if err := json.Unmarshal(answer, &s); code != 200 || err != nil || s.State != "NOT FOUND" {
			t.Errorf("/status/%s: got %d %s", unknown, code, clip(answer))
		}
	}
}

func refusesRuns(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	for _, m := range monsters {
		for _, path := range []string{"/v1/runs", "/v1/runs/0198c0de-0000-7000-8000-000000000000/events"} {
			if len(m.body) > 6<<20 {
				continue // API Gateway's answer, seen above
			}
			refused(t, h, m.code, "POST", path, d.Token, strings.Replace(m.body, "inputs", "input", 1))
		}
	}
	refused(t, h, 400, "POST", "/v1/runs", d.Token, map[string]any{"input": map[string]any{}})
	refused(t, h, 400, "POST", "/v1/runs", h.token, map[string]any{"input": map[string]any{"topic": "x"}})
	refused(t, h, 404, "POST", "/v1/runs", h.token, map[string]any{"deployment_id": "dep_1", "input": map[string]any{"topic": "x"}})
	for _, unknown := range []string{"x", "run_1", "0198c0de-0000-7000-8000-000000000000"} {
		refused(t, h, 404, "GET", "/v1/runs/"+unknown, d.Token, nil)
		refused(t, h, 404, "POST", "/v1/runs/"+unknown+"/events", d.Token, map[string]any{"type": "x"})
		refused(t, h, 404, "GET", "/v1/deployments/"+unknown, h.token, nil)
	}
	refused(t, h, 404, "GET", "/v1/nothing", d.Token, nil)
	refused(t, h, 405, "DELETE", "/v1/runs", d.Token, nil)
	if got := h.runs(t, d); len(got) > 0 {
		t.Errorf("refused requests left the runs %v", got)
	}
	// The sentence of a missing input names it, on both wires.
	_, one := h.call(t, "POST", "/kickoff", d.Token, map[string]any{})
	_, two := h.call(t, "POST", "/v1/runs", d.Token, map[string]any{})
	if string(one) != `{"detail":"Missing inputs: topic"}` || !strings.Contains(string(two), `"message":"Missing inputs: topic"`) {
		t.Errorf("got %s and %s", one, two)
	}
}

func refusesDefinitions(t *testing.T, h *home) {
	good := simple(h.answer(say("Done.")))
	with := func(name, text string) map[string]string {
		files := maps.Clone(good)
		files[name] = text
		return files
	}
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&bomb, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	names := func() (all []string) {
		var list struct{ Deployments []shown }
		h.want(t, http.StatusOK, "GET", "/v1/deployments", h.token, nil, &list)
		for _, d := range list.Deployments {
			if strings.HasPrefix(d.Name, "bad ") {
				all = append(all, d.Name)
			}
		}
		return all
	}
	for name, c := range map[string]struct {
		files any
		code  int
		says  string
	}{
		"no files":         {nil, 400, "files"},
		"files as text":    {"agents.yaml", 400, "files"},
		"a file as number": {map[string]any{"agents.yaml": 7}, 400, "agents.yaml"},
		"bad base64":       {map[string]any{"agents.yaml": map[string]string{"base64": "%%%"}}, 400, "base64"},
		"no crew":          {map[string]string{"notes.md": "x"}, 400, ""},
		"a YAML bomb":      {with("agents.yaml", bomb.String()), 400, "agents.yaml"},
		"a YAML well":      {with("tasks.yaml", "a: "+strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000)), 400, "tasks.yaml"},
		"broken YAML":      {with("tasks.yaml", "a: [b\nc: }"), 400, "tasks.yaml"},
		"no such agent":    {with("tasks.yaml", task("work", "nobody", "Work")), 400, "nobody"},
		"hierarchical":     {with("crew.yaml", "process: hierarchical\n"), 400, "process"},
		"memory":           {with("crew.yaml", "memory: true\n"), 400, "memory"},
		"a way out":        {with("../../etc/passwd", "x"), 400, ""},
		"5 MiB and more":   {with("notes.md", strings.Repeat("x", 5<<20)), 413, ""},
	} {
		got, answer := h.call(t, "POST", "/v1/deployments", h.token, map[string]any{"name": "bad " + name, "files": c.files})
		var e struct {
			Error struct{ Code, Message string } `json:"error"`
		}
		err := json.Unmarshal(answer, &e)
		if got != c.code || err != nil || !sentence(e.Error.Message) || !strings.Contains(e.Error.Message, c.says) {
			t.Errorf("%s: got %d %s, want %d and %q", name, got, clip(answer), c.code, c.says)
		}
	}
	refused(t, h, 400, "POST", "/v1/deployments", h.token, map[string]any{"name": strings.Repeat("n", 10_000), "files": good})
	if left := names(); len(left) > 0 {
		t.Errorf("refused definitions left the deployments %v", left)
	}
	d := h.deploy(t, good)
	refused(t, h, 400, "POST", "/v1/deployments/"+d.ID+"/versions", h.token, map[string]any{"files": with("crew.yaml", "memory: true\n")})
	var s shown
	h.want(t, http.StatusOK, "GET", "/v1/deployments/"+d.ID, h.token, nil, &s)
	if diff := cmp.Diff(1, s.Versions); diff != "" {
		t.Errorf("a refused version was kept:\n%s", diff)
	}
}

func findsByMeta(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	agent := d.hand(t, "worker")
	input := map[string]any{"topic": "finding"}
	started := func(path string, body map[string]any) string {
		var answer struct {
			RunID string `json:"run_id"`
		}
		h.want(t, http.StatusAccepted, "POST", path, d.Token, body, &answer)
		return answer.RunID
	}
	var thread struct {
		ID string `json:"thread_id"`
	}
	h.want(t, http.StatusCreated, "POST", "/v1/threads", d.Token, map[string]any{}, &thread)
	again := started("/v1/runs", map[string]any{"input": input, "meta": map[string]any{"from": "again"}})
	d.over(t, again)
	for meta, runID := range map[string]string{
		"from=amp":         d.kickoff(t, map[string]any{"inputs": input, "meta": map[string]any{"from": "amp"}}),
		"from=the+wire":    started("/v1/runs", map[string]any{"input": input, "meta": map[string]any{"from": "the wire", "n": 17}}),
		"n=17":             "",
		"from=elsewhere":   started("/v1/runs", map[string]any{"input": input, "metadata": map[string]any{"from": "elsewhere"}}),
		"from=a+thread":    started("/v1/threads/"+thread.ID+"/runs", map[string]any{"input": input, "meta": map[string]any{"from": "a thread"}}),
		"event=meta.event": agent.tell(t, `{"event":"meta.event","source":"a test"}`),
		"source=a+test":    "",
	} {
		var found struct {
			Runs []struct{ ID string }
		}
		h.want(t, http.StatusOK, "GET", "/v1/runs?meta."+meta, d.Token, nil, &found)
		canonical, _ := id.Parse("run", runID)
		if len(found.Runs) != 1 || runID != "" && found.Runs[0].ID != id.Show("run", canonical) {
			t.Errorf("by %s was found %+v, want %s", meta, found.Runs, runID)
		}
	}
	started("/v1/runs/"+again+"/rerun", map[string]any{})
	var found struct{ Runs []struct{ ID string } }
	if h.want(t, http.StatusOK, "GET", "/v1/runs?meta.from=again", d.Token, nil, &found); len(found.Runs) != 2 {
		t.Errorf("a run and its rerun were found as %+v", found.Runs)
	}
	var shown struct{ Meta map[string]string }
	if h.want(t, http.StatusOK, "GET", "/v1/runs/"+again, d.Token, nil, &shown); shown.Meta["from"] != "again" {
		t.Errorf("it is shown with the meta %v", shown.Meta)
	}
	refused(t, h, 400, "POST", "/v1/runs", d.Token, map[string]any{"input": input, "meta": "again"})
	refused(t, h, 400, "POST", "/v1/runs", d.Token, map[string]any{"input": input, "meta": map[string]any{}, "metadata": map[string]any{}})
}
