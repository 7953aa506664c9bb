package ampwire_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/events"
	"muster/shared/ampwire"
	"muster/shared/crew"
	"muster/shared/guard"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/sqlite"
	"muster/shared/sqlite/sqlitetest"
	"muster/shared/workspace"
)

// bench is the wire on real services.
type bench struct {
	t           *testing.T
	runs        *run.Service
	crews       *crew.Store
	tokens      *workspace.Tokens
	workspaceID string
	handler     http.Handler
	// sealed remembers what was given to be sealed.
	sealed map[string]string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	db := sqlitetest.Temp(t)
	b := &bench{
		t: t, crews: &crew.Store{Records: db.Records()}, tokens: &workspace.Tokens{Records: db.Records()}, workspaceID: id.New(), sealed: map[string]string{},
	}
	b.runs = &run.Service{
		Store: db.Records(), Crews: b.crews, Log: slog.New(slog.DiscardHandler),
		Runs: db.Queue("runs", sqlite.QueueOptions{}), Deliveries: db.Queue("deliveries", sqlite.QueueOptions{}),
		Seal: func(_ context.Context, _, _, field, plain string) (string, error) {
			b.sealed[field] = plain
			return "sealed", nil
		},
	}
	wire := &ampwire.Wire{
		Runs: b.runs, Crews: b.crews, CheckURL: guard.New(guard.Options{}).CheckURL,
		Note: func(r run.Run) string { return "This run uses no LLM." },
	}
	b.handler = httpapi.API{Routes: wire.Routes(), Tokens: b.tokens, Fallback: ampwire.Dialect, Log: slog.New(slog.DiscardHandler)}.Handler()
	return b
}

const (
	agents = "researcher:\n  role: Research Agent\n  goal: Know {company}\n  backstory: Curious\n"
	tasks  = "research:\n  description: Look at {topic} and {company}\n  expected_output: A report\n  agent: researcher\n"
)

// deploy makes a deployment that wants the inputs company and topic, and gives its token.
func (b *bench) deploy(name string) (crew.Deployment, string) {
	b.t.Helper()
	return b.deployFiles(name, map[string][]byte{"agents.yaml": []byte(agents), "tasks.yaml": []byte(tasks)})
}

func (b *bench) deployFiles(name string, files map[string][]byte) (crew.Deployment, string) {
	b.t.Helper()
	d, _, _, err := b.crews.Create(b.t.Context(), b.workspaceID, name, files, func(string) (string, error) { return "sealed", nil })
	if err != nil {
		b.t.Fatal(err)
	}
	return d, b.token(workspace.Caller{Kind: workspace.Deployment, WorkspaceID: b.workspaceID, DeploymentID: d.ID})
}

func (b *bench) workspaceToken() string {
	return b.token(workspace.Caller{Kind: workspace.Workspace, WorkspaceID: b.workspaceID})
}

func (b *bench) token(c workspace.Caller) string {
	b.t.Helper()
	token, err := b.tokens.Mint(b.t.Context(), c)
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

// call sends a request; headers are name and value in turn.
func (b *bench) call(token, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return w
}

// kickoff starts a run that must start.
func (b *bench) kickoff(token, body string, headers ...string) string {
	b.t.Helper()
	w := b.call(token, "POST", "/kickoff", body, headers...)
	var reply map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &reply); w.Code != http.StatusOK || err != nil || len(reply) != 1 {
		b.t.Fatalf("kickoff: %d %s", w.Code, w.Body)
	}
	return reply["kickoff_id"]
}

// status reads a run's status, which is always 200.
func (b *bench) status(token, path string) map[string]any {
	b.t.Helper()
	w := b.call(token, "GET", path, "")
	var reply map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &reply); w.Code != http.StatusOK || err != nil {
		b.t.Fatalf("status: %d %s", w.Code, w.Body)
	}
	return reply
}

func expect(t *testing.T, w *httptest.ResponseRecorder, status int, body string) {
	t.Helper()
	if w.Code != status || w.Body.String() != body {
		t.Errorf("got %d %s\nwant %d %s", w.Code, w.Body, status, body)
	}
}

const (
	inputs = `{"company":"tesla","topic":"cars"}`
	good   = `{"inputs":` + inputs + `}`
)

func TestInputsAndHealth(t *testing.T) {
	b := newBench(t)
	everywhere := b.workspaceToken()
	none := `{"detail":"This workspace has no deployment yet; make one with POST /v1/deployments."}`
	expect(t, b.call(everywhere, "GET", "/inputs", ""), 422, none)
	d, token := b.deploy("one")
	expect(t, b.call(token, "GET", "/inputs", ""), 200, `{"inputs":["company","topic"]}`)
	expect(t, b.call(everywhere, "GET", "/inputs", ""), 200, `{"inputs":["company","topic"]}`)
	b.deploy("two")
	expect(t, b.call(everywhere, "GET", "/inputs", ""), 422,
		`{"detail":"This workspace has several deployments; choose one with the header Muster-Deployment, or use a deployment's token."}`)
	expect(t, b.call(everywhere, "GET", "/inputs", "", "Muster-Deployment", id.Show("dep", d.ID)), 200, `{"inputs":["company","topic"]}`)
	expect(t, b.call(everywhere, "GET", "/inputs", "", "Muster-Deployment", d.ID), 200, `{"inputs":["company","topic"]}`)
	for _, unknown := range []string{"dep_1", id.New()} {
		expect(t, b.call(everywhere, "GET", "/inputs", "", "Muster-Deployment", unknown), 404, `{"detail":"There is no deployment \"`+unknown+`\" in this workspace."}`)
	}
	stranger := b.token(workspace.Caller{Kind: workspace.Workspace, WorkspaceID: id.New()})
	expect(t, b.call(stranger, "GET", "/inputs", "", "Muster-Deployment", d.ID), 404, `{"detail":"There is no deployment \"`+d.ID+`\" in this workspace."}`)

	expect(t, b.call("", "GET", "/healthcheck", ""), 200, "Healthy")
	expect(t, b.call("", "GET", "/inputs", ""), 401, `{"detail":"Not authenticated"}`)
	expect(t, b.call("wrong", "GET", "/inputs", ""), 401, `{"detail":"Invalid or missing authentication credentials"}`)
	expect(t, b.call("", "GET", "/", ""), 404, `{"detail":"Not Found"}`)
	expect(t, b.call(token, "GET", "/kickoff", ""), 405, `{"detail":"Method Not Allowed"}`)
}

func TestKickoffRefuses(t *testing.T) {
	b := newBench(t)
	_, token := b.deploy("one")
	with := func(fields string) string { return `{"inputs":` + inputs + `,` + fields + `}` }
	hook := func(fields string) string {
		return with(`"webhooks":{"url":"https://example.com/hook",` + fields + `}`)
	}
	for _, c := range []struct {
		name, body string
		status     int
		detail     string
	}{
		{"no body", "", 422, `The request body is empty; send a JSON object.`},
		{"text", "hello", 422, `The request body is not JSON: invalid character 'h' looking for beginning of value (at byte 1).`},
		{"an array", "[]", 422, `The request body must be a JSON object, and it is an array.`},
		{"six megabytes", `{"inputs":{"company":"` + strings.Repeat("x", 6<<20) + `"}}`, 413, `The request body is larger than 1 MiB.`},
		{"ten thousand levels", `{"inputs":` + strings.Repeat(`{"a":`, 10_000) + `1` + strings.Repeat("}", 10_001), 422, `The request body is nested more than 100 levels deep.`},
		{"a null byte", "{\"inputs\":{\"company\":\"\x00\"}}", 422, `The request body is not JSON: invalid character '\x00' in string literal (at byte 23).`},
		{"no inputs", `{}`, 422, `Missing inputs: company, topic`},
		{"empty inputs", `{"inputs":{}}`, 422, `Missing inputs: company, topic`},
		{"inputs at the top level", inputs, 422, `Missing inputs: company, topic`},
		{"inputs that are null", `{"inputs":null}`, 422, `Missing inputs: company, topic`},
		{"one input missing", `{"inputs":{"topic":"cars"}}`, 422, `Missing inputs: company`},
		{"the second of two inputs counts", `{"inputs":` + inputs + `,"inputs":{}}`, 422, `Missing inputs: company, topic`},
		{"inputs that are no object", `{"inputs":"company"}`, 422, `"inputs" must be an object, and it is a string.`},
		{"a URL that is no string", with(`"crewWebhookUrl":7`), 422, `"crewWebhookUrl" must be a string, and it is the number 7.`},
		{"a URL inside the inputs that is no string", `{"inputs":{"company":"c","topic":"t","crewWebhookUrl":{}}}`, 422, `"crewWebhookUrl" inside the inputs must be a string.`},
		{"a URL of another scheme", with(`"taskWebhookUrl":"ftp://example.com/"`), 422, `taskWebhookUrl: The URL must begin with http:// or https://.`},
		{"a URL without a scheme", with(`"stepWebhookUrl":"example.com/hook"`), 422, `stepWebhookUrl: The URL must begin with http:// or https://.`},
		{"a file inside the inputs", `{"inputs":{"company":"c","topic":"t","crewWebhookUrl":"file:///etc/passwd"}}`, 422, `crewWebhookUrl: The URL must begin with http:// or https://.`},
		{"webhooks that are no object", with(`"webhooks":[]`), 422, `"webhooks" must be an object, and it is an array.`},
		{"webhooks without a url", with(`"webhooks":{"events":["*"]}`), 422, `webhooks: "url" is missing.`},
		{"a stream to another scheme", with(`"webhooks":{"events":["*"],"url":"gopher://example.com"}`), 422, `webhooks.url: The URL must begin with http:// or https://.`},
		{"no events", hook(`"realtime":true`), 422, `webhooks: "events" must name the events to send, or be ["*"] for all.`},
		{"empty events", hook(`"events":[]`), 422, `webhooks: "events" must name the events to send, or be ["*"] for all.`},
		{"an event without a name", hook(`"events":[""]`), 422, `webhooks: "events" must name the events to send, or be ["*"] for all.`},
		{"an event that is no string", hook(`"events":["a",1]`), 422, `webhooks: "events" must be an array of strings, and one of its items is the number 1.`},
		{"one event alone", hook(`"events":"*"`), 422, `webhooks: "events" must be an array of strings, and it is a string.`},
		{"realtime in words", hook(`"events":["*"],"realtime":"yes"`), 422, `webhooks: "realtime" must be true or false, and it is a string.`},
		{"another strategy", hook(`"events":["*"],"authentication":{"strategy":"basic","token":"t"}`), 422, `webhooks: authentication: the strategy must be "bearer", and it is "basic".`},
		{"a long strategy", hook(`"events":["*"],"authentication":{"strategy":"` + strings.Repeat("x", 100_000) + `"}`), 422, `webhooks: authentication: the strategy must be "bearer", and it is "` + strings.Repeat("x", 80) + `".`},
		{"no strategy", hook(`"events":["*"],"authentication":{"token":"t"}`), 422, `webhooks: authentication: the strategy must be "bearer", and it is "".`},
		{"questions without a url", with(`"humanInputWebhook":{"authentication":{}}`), 422, `humanInputWebhook: "url" is missing.`},
		{"questions to a path", with(`"humanInputWebhookUrl":"/hook"`), 422, `humanInputWebhook.url: The URL must begin with http:// or https://.`},
		{"questions with another strategy", with(`"humanInputWebhook":{"url":"https://h.example","authentication":{"strategy":"digest"}}`), 422, `humanInputWebhook: authentication: the strategy must be "bearer" or "basic", and it is "digest".`},
		{"a user with a colon", with(`"humanInputWebhook":{"url":"https://h.example","authentication":{"strategy":"basic","username":"a:b"}}`), 422, `humanInputWebhook: authentication: a username has no colon, and neither it nor the password has control characters.`},
		{"a bearer without a token", hook(`"events":["*"],"authentication":{"strategy":"bearer"}`), 422, `webhooks: authentication: the token of the strategy "bearer" is missing.`},
		{"a token that breaks out of its header", hook(`"events":["*"],"authentication":{"strategy":"bearer","token":"a\r\nX: y"}`), 422, `webhooks: authentication: the token has characters that a header cannot carry.`},
	} {
		t.Run(c.name, func(t *testing.T) {
			detail, _ := json.Marshal(c.detail)
			expect(t, b.call(token, "POST", "/kickoff", c.body), c.status, `{"detail":`+string(detail)+`}`)
		})
	}
	expect(t, b.call(token, "POST", "/kickoff", good, "Idempotency-Key", strings.Repeat("k", 256)), 422, `{"detail":"The Idempotency-Key is longer than 255 characters."}`)
	if runs, _, err := b.runs.List(t.Context(), run.ListRequest{DeploymentIDs: b.deployments()}); err != nil || len(runs) > 0 {
		t.Errorf("refused kickoffs left %d runs, %v", len(runs), err)
	}
}

func (b *bench) deployments() (ids []string) {
	all, err := b.crews.Deployments(b.t.Context(), b.workspaceID)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, d := range all {
		ids = append(ids, d.ID)
	}
	return ids
}

func TestKickoffUnderstands(t *testing.T) {
	target := func(kind run.Kind, url string) run.Target { return run.Target{ID: string(kind), Kind: kind, URL: url} }
	for _, c := range []struct {
		name, body string
		inputs     string
		targets    []run.Target
		meta       string
		warning    string
		bearer     string
	}{
		{name: "inputs alone", body: good},
		{name: "values of any kind", body: `{"inputs":{"company":["a",{"b":null}],"topic":3.5}}`, inputs: `{"company":["a",{"b":null}],"topic":3.5}`},
		{name: "inputs nobody asked for", body: `{"inputs":{"company":"tesla","topic":"cars","id":"test 1"}}`, inputs: `{"company":"tesla","id":"test 1","topic":"cars"}`},
		{name: "meta as it came", body: `{"inputs":` + inputs + `,"meta":{"b":1,"a":[{}]}}`, meta: `{"b":1,"a":[{}]}`},
		{name: "three URLs", body: `{"inputs":` + inputs + `,"stepWebhookUrl":"https://s.example","taskWebhookUrl":"https://t.example","crewWebhookUrl":"http://c.example"}`,
			targets: []run.Target{target("step", "https://s.example"), target("task", "https://t.example"), target("crew", "http://c.example")}},
		{name: "URLs inside the inputs, which never get there", body: `{"inputs":{"company":"tesla","topic":"cars","taskWebhookUrl":"https://t.example","stepWebhookUrl":"","crewWebhookUrl":null}}`,
			targets: []run.Target{target("task", "https://t.example")}},
		{name: "the top level wins", body: `{"inputs":{"company":"tesla","topic":"cars","crewWebhookUrl":"https://inner.example"},"crewWebhookUrl":"https://outer.example"}`,
			targets: []run.Target{target("crew", "https://outer.example")}},
		{name: "an empty top level does not", body: `{"inputs":{"company":"tesla","topic":"cars","crewWebhookUrl":"https://inner.example"},"crewWebhookUrl":""}`,
			targets: []run.Target{target("crew", "https://inner.example")}},
		{name: "a client made from the dashboard", body: `{"inputs":` + inputs + `,"meta":null,"taskWebhookUrl":"","stepWebhookUrl":"","crewWebhookUrl":"",
			"humanInputWebhookUrl":"","trainingFilename":"","generateArtifact":false,"conformInputs":false,"webhooks":{"url":"","events":[]}}`},
		{name: "a stream", body: `{"inputs":` + inputs + `,"webhooks":{"events":["crew_kickoff_started","my.own"],"url":"https://w.example"}}`,
			targets: []run.Target{{ID: "stream", Kind: run.StreamTarget, URL: "https://w.example", Events: []string{"crew_kickoff_started", "my.own"}}}},
		{name: "a stream with everything", body: `{"inputs":` + inputs + `,"webhooks":{"events":["*"],"url":"https://w.example","realtime":true,"authentication":{"strategy":"bearer","token":"my-secret-token"}}}`,
			targets: []run.Target{{ID: "stream", Kind: run.StreamTarget, URL: "https://w.example", Events: []string{"*"}, Realtime: true, Authorization: "sealed"}}, bearer: "Bearer my-secret-token"},
		{name: "a stream with an empty token", body: `{"inputs":` + inputs + `,"webhooks":{"events":["*"],"url":"https://w.example","realtime":null,"authentication":{"strategy":"bearer","token":""}}}`,
			targets: []run.Target{{ID: "stream", Kind: run.StreamTarget, URL: "https://w.example", Events: []string{"*"}}}},
		{name: "where questions go", body: `{"inputs":` + inputs + `,"humanInputWebhookUrl":"https://h.example"}`, targets: []run.Target{target("human_input", "https://h.example")}},
		{name: "where questions go, as an object that wins", body: `{"inputs":` + inputs + `,"humanInputWebhook":{"url":"https://o.example"},"humanInputWebhookUrl":"https://h.example"}`,
			targets: []run.Target{target("human_input", "https://o.example")}},
		{name: "where questions go, with a token", body: `{"inputs":` + inputs + `,"humanInputWebhook":{"url":"https://h.example","authentication":{"strategy":"bearer","token":"t"}}}`,
			targets: []run.Target{{ID: "human_input", Kind: run.HumanTarget, URL: "https://h.example", Authorization: "sealed"}}, bearer: "Bearer t"},
		{name: "where questions go, with a password", body: `{"inputs":` + inputs + `,"humanInputWebhook":{"url":"https://h.example","authentication":{"strategy":"basic","username":"jo","password":"pä:ss"}}}`,
			targets: []run.Target{{ID: "human_input", Kind: run.HumanTarget, URL: "https://h.example", Authorization: "sealed"}}, bearer: "Basic am86cMOkOnNz"},
		{name: "where questions go, empty", body: `{"inputs":` + inputs + `,"humanInputWebhook":{"url":"","authentication":{"strategy":"basic"}},"humanInputWebhookUrl":""}`},
		{name: "what is not built yet, and what nobody knows", body: `{"inputs":` + inputs + `,"restoreFromStateId":"x",
			"trainingFilename":"x.pkl","generateArtifact":true,"conformInputs":true,"topic":"x\n"}`,
			warning: "trainingFilename is not built yet and was ignored; generateArtifact is not built yet and was ignored; conformInputs is not built yet and was ignored; unknown field topic was ignored; " +
				"restoreFromStateId is no kickoff id; the run begins at the beginning"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			d, token := b.deploy("one")
			w := b.call(token, "POST", "/kickoff", c.body)
			if got := w.Header().Get("Muster-Warning"); got != c.warning {
				t.Errorf("warning: got %q\nwant %q", got, c.warning)
			}
			var reply struct {
				KickoffID string `json:"kickoff_id"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &reply); w.Code != 200 || err != nil {
				t.Fatalf("got %d %s", w.Code, w.Body)
			}
			r, err := b.runs.Get(t.Context(), reply.KickoffID)
			if err != nil || r.State != run.Queued || r.DeploymentID != d.ID || r.Environment != "production" || r.VersionNumber != 1 {
				t.Fatalf("got %+v, %v", r, err)
			}
			q, err := b.runs.Request(t.Context(), r.ID)
			if err != nil {
				t.Fatal(err)
			}
			want := c.inputs
			if want == "" {
				want = inputs
			}
			if got, _ := json.Marshal(q.Inputs); string(got) != want {
				t.Errorf("inputs: got %s, want %s", got, want)
			}
			if string(q.Meta) != c.meta {
				t.Errorf("meta: got %s, want %s", q.Meta, c.meta)
			}
			if diff := cmp.Diff(c.targets, q.Targets); diff != "" {
				t.Errorf("targets (-want +got):\n%s", diff)
			}
			if got := b.sealed["target/stream"] + b.sealed["target/human_input"]; got != c.bearer {
				t.Errorf("authorization: got %q, want %q", got, c.bearer)
			}
		})
	}
}

func TestKickoffIsIdempotentWithAKey(t *testing.T) {
	b := newBench(t)
	_, token := b.deploy("one")
	_, other := b.deploy("two")
	first := b.kickoff(token, good, "Idempotency-Key", "order-7")
	if again := b.kickoff(token, good, "Idempotency-Key", "order-7"); again != first {
		t.Errorf("the same request gave %s, then %s", first, again)
	}
	if fresh := b.kickoff(token, good); fresh == first {
		t.Error("a request without the key gave the same run")
	}
	if elsewhere := b.kickoff(other, good, "Idempotency-Key", "order-7"); elsewhere == first {
		t.Error("the key gave the same run in another deployment")
	}
	w := b.call(token, "POST", "/kickoff", `{"inputs":{"company":"x","topic":"y"}}`, "Idempotency-Key", "order-7")
	expect(t, w, 409, `{"detail":"This Idempotency-Key was used with another request body in the last 24 hours."}`)
}

// down is a queue that takes nothing.
type down struct{}

func (down) Send(context.Context, ...queue.Message) error { return errors.New("the queue is down") }

func TestKickoffSucceedsWithoutTheQueue(t *testing.T) {
	b := newBench(t)
	_, token := b.deploy("one")
	b.runs.Runs = down{}
	if got := b.status(token, "/status/"+b.kickoff(token, good))["state"]; got != "PENDING" {
		t.Errorf("state %v, want PENDING", got)
	}
}

// broken is a store that cannot be reached.
type broken struct{ record.Store }

func (broken) Get(context.Context, record.Key) (record.Record, error) {
	return record.Record{}, errors.New("dial tcp 10.0.0.1: connection refused")
}

func TestAFailureInsideShowsNothing(t *testing.T) {
	b := newBench(t)
	_, token := b.deploy("one")
	b.runs.Store = broken{}
	expect(t, b.call(token, "GET", "/status/"+id.New(), ""), 500, `{"detail":"An unexpected error occurred."}`)
}

const notFound = `{"state":"NOT FOUND","status":"Task not found or Invalid kickoff id","result":null,"result_json":null,"usage_metrics":null,"progress":null,` +
	`"last_event":null,"events":[],"events_count":0,"events_by_type":{},"triggered_by":{"type":"unknown","id":null},"execution_origin":null,"last_step":null,` +
	`"last_executed_task":null,"flow_id":null,"source":"memory","execution_time":null,"model_note":null}`

func TestStatusOfWhatIsNotTheCallersRun(t *testing.T) {
	b := newBench(t)
	_, token := b.deploy("one")
	_, neighbour := b.deploy("two")
	stranger := b.token(workspace.Caller{Kind: workspace.Workspace, WorkspaceID: id.New()})
	mine := b.kickoff(token, good)
	for _, c := range []struct{ name, token, path string }{
		{"an unknown id", token, "/status/" + id.New()},
		{"an unknown id, at the alias", token, "/" + id.New() + "/status"},
		{"what is no id", token, "/status/nonsense"},
		{"what is no path either", token, "/status/..%2f..%2fetc"},
		{"a run of another deployment", neighbour, "/status/" + mine},
		{"a run of another workspace", stranger, "/status/" + mine},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, b.call(c.token, "GET", c.path, ""), 200, notFound) })
	}
	for _, path := range []string{"/status/" + mine, "/" + mine + "/status", "/status/" + id.Show("run", mine), "/status/" + strings.ToUpper(mine)} {
		if got := b.status(token, path)["state"]; got != "PENDING" {
			t.Errorf("%s: state %v, want PENDING", path, got)
		}
	}
	expect(t, b.call("", "GET", "/status/"+mine, ""), 401, `{"detail":"Not authenticated"}`)
}

func TestStatusThroughTheLifeOfARun(t *testing.T) {
	b := newBench(t)
	_, token := b.deploy("one")
	kickoff := b.kickoff(token, `{"inputs":`+inputs+`,"meta":{"requestId":"r-1"}}`)
	want := func(at string, wanted map[string]any) {
		t.Helper()
		got := b.status(token, "/status/"+kickoff)
		for key, value := range wanted {
			if diff := cmp.Diff(value, got[key]); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", at, key, diff)
			}
		}
		if len(got) != strings.Count(notFound, `":`)-2 { // type and id are those of triggered_by
			t.Errorf("%s: %d keys: %v", at, len(got), got)
		}
	}
	want("accepted", map[string]any{"state": "PENDING", "status": "Task is pending", "result": nil, "progress": nil, "usage_metrics": nil,
		"execution_origin": "api", "model_note": "This run uses no LLM.", "events": []any{}, "execution_time": nil})

	owner, err := b.runs.Claim(t.Context(), kickoff)
	if err != nil {
		t.Fatal(err)
	}
	want("claimed", map[string]any{"state": "STARTED", "status": "Task is started", "progress": nil})

	main := owner.Root()
	main.Progress(func(p *run.Progress) { p.Total, p.Current, p.CurrentAgent = 1, "research", "Research Agent" })
	main.Emit(custom(t, "my.first"), run.Scope{})
	eventID := main.Emit(custom(t, "my.second"), run.Scope{})
	if err := main.Mark(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	_, err = main.Step(t.Context(), run.Step{Key: "research/1", Do: func(_ context.Context, e *run.Emitter, _ int) (any, error) {
		e.Note(run.Note{Prompt: "p", Thought: "I need to search", Tool: "search", ToolInput: "cars", Result: "wheels"})
		e.Use("test", run.Usage{TotalTokens: 12, PromptTokens: 10, CompletionTokens: 2, SuccessfulRequests: 1})
		return "ok", nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	want("under way", map[string]any{
		"state": "RUNNING", "status": "Task is Running", "result": nil, "last_executed_task": nil, "events_count": 2.0,
		"events_by_type": map[string]any{"my.first": 1.0, "my.second": 1.0},
		"last_step":      map[string]any{"prompt": "p", "thought": "I need to search", "tool": "search", "tool_input": "cars", "result": "wheels"},
	})
	reply := b.status(token, "/status/"+kickoff)
	metrics := reply["usage_metrics"].(map[string]any)
	for key, value := range map[string]any{"total_tokens": 12.0, "prompt_tokens": 10.0, "completion_tokens": 2.0, "successful_requests": 1.0,
		"cached_prompt_tokens": 0.0, "reasoning_tokens": 0.0, "cache_creation_tokens": 0.0,
		"model_calls": 1.0, "tool_calls": 0.0, "steps": 1.0, "cost_usd": nil, "waiting_seconds": 0.0} {
		if metrics[key] != value {
			t.Errorf("usage_metrics.%s is %v, want %v", key, metrics[key], value)
		}
	}
	if metrics["wall_seconds"].(float64) <= 0 || metrics["aws_cost_usd_estimate"].(float64) <= 0 {
		t.Errorf("usage_metrics: %v", metrics)
	}
	if last, _ := reply["last_event"].(map[string]any); last["id"] != eventID || last["type"] != "my.second" {
		t.Errorf("last event: %v, want %s", last, eventID)
	}
	progress, _ := reply["progress"].(map[string]any)
	for key, value := range map[string]any{"unit": "task", "completed": 0.0, "total": 1.0, "remaining": 1.0, "current": "research",
		"current_agent": "Research Agent", "completed_tasks": 0.0, "total_tasks": 1.0, "current_task": "research"} {
		if progress[key] != value {
			t.Errorf("progress.%s is %v, want %v", key, progress[key], value)
		}
	}
	for _, key := range []string{"started_at", "updated_at"} {
		if at, err := time.Parse(events.TimeFormat, progress[key].(string)); err != nil || time.Since(at) > time.Minute {
			t.Errorf("progress.%s is %v", key, progress[key])
		}
	}

	main.Progress(func(p *run.Progress) { p.Completed, p.Current, p.CurrentAgent = 1, "", "" })
	main.Finished(run.TaskOutput{Name: "research", Description: "Look at cars", ExpectedOutput: "A report", Summary: "Cars.", Raw: "All about cars.",
		JSON: json.RawMessage(`{"cars":1}`), Agent: "Research Agent"})
	main.Emit(custom(t, "my.third"), run.Scope{})
	if err := owner.End(run.Outcome{State: run.Succeeded, Result: "All about cars.", JSON: json.RawMessage(`{"cars":1}`)}, main); err != nil {
		t.Fatal(err)
	}
	want("ended", map[string]any{
		"state": "SUCCESS", "status": nil, "result": "All about cars.", "result_json": map[string]any{"cars": 1.0}, "events_count": 3.0,
		"last_executed_task": map[string]any{"name": "research", "description": "Look at cars", "expected_output": "A report", "summary": "Cars.",
			"output": "All about cars.", "output_json": map[string]any{"cars": 1.0}, "agent": "Research Agent", "kickoff_id": kickoff,
			"meta": map[string]any{"requestId": "r-1"}},
	})
	if took, ok := b.status(token, "/status/"+kickoff)["execution_time"].(float64); !ok || took < 0 || took > 60 {
		t.Errorf("execution_time is %v", took)
	}
}

func custom(t *testing.T, typ string) events.Draft {
	t.Helper()
	d, err := events.NewCustom(typ, nil, events.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestStatusOfRunsThatDidNotSucceed(t *testing.T) {
	for _, c := range []struct {
		name         string
		outcome      run.Outcome
		state, says  string
		showProgress bool
	}{
		{"a failure says why", run.Outcome{State: run.Failed, Result: "half", Error: "The model did not answer."}, "FAILED", "The model did not answer.", false},
		{"a timeout is a failure", run.Outcome{State: run.TimedOut, Error: "The run took too long."}, "FAILED", "The run took too long.", false},
		{"a stopped run is revoked", run.Outcome{State: run.Canceled, Error: "The run was stopped."}, "REVOKED", "The run was stopped.", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			_, token := b.deploy("one")
			kickoff := b.kickoff(token, good)
			owner, err := b.runs.Claim(t.Context(), kickoff)
			if err != nil {
				t.Fatal(err)
			}
			if err := owner.End(c.outcome, owner.Root()); err != nil {
				t.Fatal(err)
			}
			got := b.status(token, "/status/"+kickoff)
			if got["state"] != c.state || got["status"] != c.says || got["result"] != nil || (got["progress"] != nil) != c.showProgress {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestRoutesCanBeReadWithoutAWire(t *testing.T) {
	var wire *ampwire.Wire
	for _, r := range wire.Routes() {
		if r.Method == "" || r.Path == "" || r.Function == "" || r.Handle == nil || r.Dialect.Body == nil {
			t.Errorf("incomplete route: %+v", r)
		}
	}
}
