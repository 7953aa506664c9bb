package deploywire_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/deploywire"
	"muster/shared/guard"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/record"
	"muster/shared/resend"
	"muster/shared/run"
	"muster/shared/schedule"
	"muster/shared/sqlite"
	"muster/shared/sqlite/sqlitetest"
	"muster/shared/thread"
	"muster/shared/trigger"
	"muster/shared/trigger/cel"
	"muster/shared/webhook"
	"muster/shared/workspace"
)

// bench is the wire on real services.
type bench struct {
	t           *testing.T
	runs        *run.Service
	crews       *crew.Store
	tokens      *workspace.Tokens
	sealer      *workspace.Sealer
	schedules   *schedule.Schedules
	queues      []deploywire.NamedQueue
	workspaceID string
	token       string
	handler     http.Handler
	ahead       time.Duration // how far our clock is ahead
	ping        func(webhook.Endpoint) webhook.Attempt
}

func newBench(t *testing.T) *bench {
	t.Helper()
	db := sqlitetest.Temp(t)
	sealer, err := workspace.NewSealer(map[string][]byte{"k1": make([]byte, 32)}, "k1")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{
		t: t, crews: &crew.Store{Records: db.Records()}, tokens: &workspace.Tokens{Records: db.Records()}, sealer: sealer, workspaceID: id.New(),
	}
	b.runs = &run.Service{
		Store: db.Records(), Crews: b.crews, Log: slog.New(slog.DiscardHandler), Seal: sealer.Seal, Unseal: sealer.Open, Now: func() time.Time { return time.Now().Add(b.ahead) },
		Runs: db.Queue("runs", sqlite.QueueOptions{}), Deliveries: db.Queue("deliveries", sqlite.QueueOptions{}),
	}
	b.token = b.mint(workspace.Caller{Kind: workspace.Workspace, WorkspaceID: b.workspaceID})
	b.queues = []deploywire.NamedQueue{{Name: "runs", Queue: db.Queue("runs", sqlite.QueueOptions{})}, {Name: "deliveries", Queue: db.Queue("deliveries", sqlite.QueueOptions{})}}
	b.schedules = &schedule.Schedules{Store: db.Records(), Crews: b.crews, Runs: b.runs, Now: b.runs.Now}
	wire := &deploywire.Wire{Runs: b.runs, Crews: b.crews, Tokens: b.tokens, Sealer: sealer, Queues: b.queues, Schedules: b.schedules, Threads: &thread.Threads{Store: db.Records(), Runs: b.runs, Now: b.runs.Now},
		Endpoints: webhook.Endpoints{Store: db.Records(), Now: b.runs.Now}, Deliveries: webhook.Deliveries{Store: db.Records()},
		Resend:   &resend.Service{Store: db.Records(), Runs: b.runs, Queue: b.runs.Deliveries, Now: b.runs.Now},
		CheckURL: guard.New(guard.Options{}).CheckURL, Now: b.runs.Now,
		Triggers: &trigger.Service{Store: db.Records(), Crews: b.crews, Runs: b.runs, Sealer: sealer, Rules: &cel.Rules{}, Now: b.runs.Now, Log: slog.New(slog.DiscardHandler)},
		Ping:     func(_ context.Context, e webhook.Endpoint) (webhook.Attempt, error) { return b.ping(e), nil },
	}
	b.handler = httpapi.API{Routes: wire.Routes(), Tokens: b.tokens, Fallback: deploywire.Dialect}.Handler()
	return b
}

func (b *bench) mint(c workspace.Caller) string {
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

type object = map[string]any

// want sends a request that must get this status, and gives the reply.
func (b *bench) want(status int, token, method, path, body string, headers ...string) object {
	b.t.Helper()
	w := b.call(token, method, path, body, headers...)
	var reply object
	if err := json.Unmarshal(w.Body.Bytes(), &reply); w.Code != status || err != nil {
		b.t.Fatalf("%s %s: got %d %s, want %d", method, path, w.Code, w.Body, status)
	}
	return reply
}

// refuse sends a request that must be refused.
func (b *bench) refuse(status int, code, message string, token, method, path, body string, headers ...string) {
	b.t.Helper()
	w := b.call(token, method, path, body, headers...)
	var reply struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil || w.Code != status || reply.Error.Code != code || reply.Error.Message != message {
		b.t.Errorf("%s %s:\ngot  %d %s\nwant %d %s: %s", method, path, w.Code, w.Body, status, code, message)
	}
}

func (b *bench) check(name string, got, want any) {
	b.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

const agents = "researcher:\n  role: Research Agent\n  goal: Know {company}\n  backstory: Curious\n"

// files gives a definition whose one task wants the input company and the given one.
func files(input string) object {
	return object{
		"agents.yaml": agents,
		"tasks.yaml": object{"base64": base64.StdEncoding.EncodeToString([]byte(
			"research:\n  description: Look at {" + input + "}\n  expected_output: A report\n  agent: researcher\n"))},
	}
}

func encode(v any) string {
	data, _ := json.Marshal(v)
	return string(data)
}

// deploy makes a deployment that wants company and topic, and gives the reply.
func (b *bench) deploy(name string) (deploymentID, token string) {
	b.t.Helper()
	reply := b.want(201, b.token, "POST", "/v1/deployments", encode(object{"name": name, "files": files("topic")}))
	return reply["id"].(string), reply["token"].(string)
}

func TestDeployments(t *testing.T) {
	b := newBench(t)
	b.check("an empty list", b.want(200, b.token, "GET", "/v1/deployments", ""), object{"deployments": []any{}, "next_cursor": nil})

	made := b.want(201, b.token, "POST", "/v1/deployments", encode(object{"name": "Support desk", "files": files("topic")}))
	for field, pattern := range map[string]string{
		"id": "^dep_[0-9a-f]{32}$", "version_id": "^ver_[0-9a-f]{32}$", "name": "^Support desk$", "token": "^mus_dep_", "webhook_secret": "^whsec_",
	} {
		if s, _ := made[field].(string); !regexp.MustCompile(pattern).MatchString(s) {
			t.Errorf("%s is %v, want %s", field, made[field], pattern)
		}
	}
	if made["version_number"] != 1.0 || len(made) != 6 {
		t.Errorf("got %v", made)
	}
	dep, token := made["id"].(string), made["token"].(string)

	canonical, _ := id.Parse("dep", dep)
	kept, err := b.crews.Deployment(t.Context(), canonical)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := b.sealer.Open(t.Context(), b.workspaceID, canonical, "webhook_secret", kept.WebhookSecret)
	if err != nil || secret != made["webhook_secret"] {
		t.Errorf("the secret kept opens as %d characters, %v", len(secret), err)
	}

	shown := b.want(200, token, "GET", "/v1/deployments/"+dep, "")
	at := object{"version_id": made["version_id"], "version_number": 1.0}
	agent := shown["agents"].([]any)[0].(object)
	b.check("a deployment", shown, object{
		"id": dep, "name": "Support desk", "workspace_id": id.Show("ws", b.workspaceID), "created_at": shown["created_at"], "versions": 1.0,
		"environments": object{"production": at, "staging": at}, "inputs": []any{"company", "topic"},
		"agents": []any{object{"id": agent["id"], "name": "researcher", "role": "Research Agent"}},
	})
	if _, err := time.Parse(events.TimeFormat, shown["created_at"].(string)); err != nil {
		t.Error(err)
	}
	b.check("a list", b.want(200, b.token, "GET", "/v1/deployments", ""), object{"deployments": []any{shown}, "next_cursor": nil})

	second := b.want(201, b.token, "POST", "/v1/deployments/"+dep+"/versions", encode(object{"files": files("product")}))
	b.check("the second version's number", second["version_number"], 2.0)
	b.check("a new version waits", b.want(200, b.token, "GET", "/v1/deployments/"+dep, "")["environments"], object{"production": at, "staging": at})

	path := "/v1/deployments/" + dep + "/environments/"
	promoted := b.want(200, b.token, "PUT", path+"production", `{"version_number":2}`)
	b.check("promoted", promoted["environments"], object{"production": object{"version_id": second["version_id"], "version_number": 2.0}, "staging": at})
	b.check("its inputs", promoted["inputs"], []any{"company", "product"})
	b.check("its agents", promoted["agents"], shown["agents"])
	b.check("rolled back", b.want(200, b.token, "PUT", path+"production", `{"version_number":1}`)["environments"], object{"production": at, "staging": at})

	b.refuse(400, "bad_request", "There is no environment 'testing'; there are production and staging.", b.token, "PUT", path+"testing", `{"version_number":1}`)
	b.refuse(404, "not_found", "There is no version 3; the newest is 2.", b.token, "PUT", path+"staging", `{"version_number":3}`)
	b.refuse(404, "not_found", "There is no version 0; the newest is 2.", b.token, "PUT", path+"staging", `{"version_number":0}`)
	b.refuse(400, "bad_request", `"version_number" is missing.`, b.token, "PUT", path+"staging", `{}`)
	b.refuse(400, "bad_request", `"version_number" must be a whole number, and it is a string.`, b.token, "PUT", path+"staging", `{"version_number":"1"}`)
}

func TestDeploymentsAreTheirOwnersOnly(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("one")
	other, _ := b.deploy("two")
	stranger := b.mint(workspace.Caller{Kind: workspace.Workspace, WorkspaceID: id.New()})
	body := encode(object{"files": files("topic")})

	for _, unknown := range []string{other, id.Show("dep", id.New()), "nonsense"} {
		b.refuse(404, "not_found", fmt.Sprintf("There is no deployment %q.", unknown), token, "GET", "/v1/deployments/"+unknown, "")
	}
	for method, path := range map[string]string{"GET": "", "POST": "/versions", "PUT": "/environments/production"} {
		b.refuse(404, "not_found", fmt.Sprintf("There is no deployment %q.", dep), stranger, method, "/v1/deployments/"+dep+path,
			map[string]string{"POST": body, "PUT": `{"version_number":1}`}[method])
	}
	if list := b.want(200, token, "GET", "/v1/deployments", "")["deployments"].([]any); len(list) != 1 || list[0].(object)["id"] != dep {
		t.Errorf("a deployment's token lists %v", list)
	}
	if list := b.want(200, stranger, "GET", "/v1/deployments", "")["deployments"].([]any); len(list) != 0 {
		t.Errorf("a stranger lists %v", list)
	}
	const forbidden = `This token is of the kind "deployment" and cannot be used for this.`
	b.refuse(403, "forbidden", forbidden, token, "POST", "/v1/deployments", body)
	b.refuse(403, "forbidden", forbidden, token, "POST", "/v1/deployments/"+dep+"/versions", body)
	b.refuse(403, "forbidden", forbidden, token, "PUT", "/v1/deployments/"+dep+"/environments/production", `{"version_number":1}`)
	b.refuse(401, "unauthorized", "Not authenticated", "", "POST", "/v1/deployments", body)
	b.refuse(401, "unauthorized", "Invalid or missing authentication credentials", "wrong", "GET", "/v1/deployments", "")
}

// TestABodyThatIsEncoded: it used to be read as it came, and called no UTF-8.
func TestABodyThatIsEncoded(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("one")
	made := b.want(201, token, "POST", "/v1/deployments/"+dep+"/webhooks/incoming", `{"name":"w"}`)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(`{"input":{"company":"a","topic":"b"}}`))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	const message = "A body with a Content-Encoding is not accepted; send it as it is."
	for _, path := range []string{"/v1/runs", "/v1/threads", "/v1/deployments/" + dep + "/schedules", "/v1/deployments/" + dep + "/webhooks/incoming", "/v1/deployments/" + dep + "/webhooks/outgoing"} {
		b.refuse(415, "unsupported_media_type", message, token, "POST", path, packed.String(), "Content-Encoding", "gzip")
	}
	b.want(201, token, "POST", "/v1/threads", `{}`, "Content-Encoding", "identity")

	hook := "/webhooks/runs/" + made["token"].(string)
	b.refuse(415, "unsupported_media_type", message, "", "POST", hook, packed.String(), "Content-Encoding", "br")
	one := "/v1/webhooks/incoming/" + made["id"].(string)
	b.want(200, token, "PATCH", one, `{"enabled":false}`)
	for _, body := range []string{"{}", packed.String(), strings.Repeat(" ", 2<<20)} {
		b.refuse(404, "not_found", "There is no webhook with this URL.", "", "POST", hook, body, "Content-Encoding", "gzip")
	}
}

func TestDefinitionsThatAreRefused(t *testing.T) {
	b := newBench(t)
	nul := "{\"files\":{\"a\":\"\x00\"}}"
	for _, c := range []struct {
		name, body string
		status     int
		code       string
		message    string
	}{
		{"not JSON", "name: x", 400, "bad_request", "The request body is not JSON: invalid character 'a' in literal null (expecting 'u') (at byte 2)."},
		{"a null byte", nul, 400, "bad_request", `The request body is not JSON: invalid character '\x00' in string literal (at byte 16).`},
		{"deep nesting", strings.Repeat("[", 10_000), 400, "bad_request", "The request body is nested more than 100 levels deep."},
		{"no files", `{"name":"x"}`, 400, "bad_request", `"files" is missing: an object with the content of each file by its path.`},
		{"files in a list", `{"files":["a"]}`, 400, "bad_request", `"files" must be an object, and it is an array.`},
		{"a file that is a number", `{"files":{"a":1}}`, 400, "bad_request", `The file "a" must be a string, or an object {"base64": "…"}.`},
		{"a file that is null", `{"files":{"a":null}}`, 400, "bad_request", `The file "a" must be a string, or an object {"base64": "…"}.`},
		{"a file of another code", `{"files":{"a":{"hex":"00"}}}`, 400, "bad_request", `The file "a" must be a string, or an object {"base64": "…"}.`},
		{"broken base64", `{"files":{"a":{"base64":"?"}}}`, 400, "bad_request", `The file "a" is not valid base64.`},
		{"a name that is no string", `{"name":{},"files":{"a":""}}`, 400, "bad_request", `"name" must be a string, and it is an object.`},
		{"a body of eight megabytes", `{"files":{"a":"` + strings.Repeat("x", 8<<20) + `"}}`, 413, "too_large", "The request body is larger than 7.5 MiB."},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := *b
			b.t = t
			b.refuse(c.status, c.code, c.message, b.token, "POST", "/v1/deployments", c.body)
			if list := b.want(200, b.token, "GET", "/v1/deployments", "")["deployments"].([]any); len(list) != 0 {
				t.Errorf("it left %v", list)
			}
		})
	}
	t.Run("six megabytes of files", func(t *testing.T) {
		w := b.call(b.token, "POST", "/v1/deployments", `{"files":{"a":"`+strings.Repeat("x", 6<<20)+`"}}`)
		if w.Code != 413 || !strings.HasPrefix(w.Body.String(), `{"error":{"code":"too_large",`) {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
	t.Run("an agent without a role", func(t *testing.T) {
		f := files("topic")
		f["agents.yaml"] = "researcher: {goal: g, backstory: b}\n"
		w := b.call(b.token, "POST", "/v1/deployments", encode(object{"files": f}))
		if w.Code != 400 || !strings.Contains(w.Body.String(), `"details":{"errors":[`) || !strings.Contains(w.Body.String(), "agents.yaml") {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
	t.Run("what is passed over is a warning", func(t *testing.T) {
		f := files("topic")
		f["agents.yaml"] = agents + "  favourite_colour: red\n"
		w := b.call(b.token, "POST", "/v1/deployments", encode(object{"files": f, "colour": "red"}))
		warning := w.Header().Get("Muster-Warning")
		if w.Code != 201 || !strings.Contains(warning, "unknown field colour was ignored; ") || !strings.Contains(warning, "favourite_colour") {
			t.Errorf("got %d, warning %q", w.Code, warning)
		}
	})
}

const input = `{"company":"tesla","topic":"cars"}`

func TestRuns(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("one")
	started := b.want(202, b.token, "POST", "/v1/runs", `{"deployment_id":"`+dep+`","input":`+input+`,"environment":"staging"}`)
	runID := started["run_id"].(string)
	shown := b.want(200, token, "GET", "/v1/deployments/"+dep, "")
	version := shown["environments"].(object)["staging"].(object)["version_id"]
	b.check("a started run", started, object{"run_id": runID, "version_id": version, "version_number": 1.0, "status": "running"})

	path := "/v1/runs/" + runID
	got := b.want(200, token, "GET", path, "")
	accepted := object{
		"id": runID, "version_id": version, "version_number": 1.0, "deployment_id": dep, "environment": "staging", "status": "pending", "trigger": "api",
		"input": object{"company": "tesla", "topic": "cars"}, "output": nil, "error_message": nil,
		"created_at": got["created_at"], "started_at": nil, "completed_at": nil, "usage": got["usage"],
	}
	b.check("accepted", got, accepted)

	owner := b.claim(runID)
	got = b.want(200, token, "GET", path, "")
	b.check("claimed", got["status"], "running")
	if got["started_at"] == nil || got["completed_at"] != nil {
		t.Errorf("claimed: %v", got)
	}
	if err := owner.End(run.Outcome{State: run.Succeeded, Result: `{"a":1}`, JSON: json.RawMessage(`{"a":1}`)}, owner.Root()); err != nil {
		t.Fatal(err)
	}
	got = b.want(200, token, "GET", path, "")
	b.check("succeeded", []any{got["status"], got["output"], got["error_message"]},
		[]any{"succeeded", object{"result": `{"a":1}`, "result_json": object{"a": 1.0}}, nil})
	if _, err := time.Parse(events.TimeFormat, got["completed_at"].(string)); err != nil {
		t.Error(err)
	}

	failed := b.want(202, token, "POST", "/v1/runs", `{"input":`+input+`,"colour":1}`)["run_id"].(string)
	owner = b.claim(failed)
	if err := owner.End(run.Outcome{State: run.TimedOut, Result: "half", Error: "The run took too long."}, owner.Root()); err != nil {
		t.Fatal(err)
	}
	got = b.want(200, token, "GET", "/v1/runs/"+failed, "")
	b.check("timed out", []any{got["status"], got["output"], got["error_message"]}, []any{"failed", nil, "The run took too long."})

	canceled := b.want(202, token, "POST", "/v1/runs", `{"input":`+input+`}`)["run_id"].(string)
	owner = b.claim(canceled)
	if err := owner.End(run.Outcome{State: run.Canceled, Error: "Stopped."}, owner.Root()); err != nil {
		t.Fatal(err)
	}
	got = b.want(200, token, "GET", "/v1/runs/"+canceled, "")
	b.check("canceled", []any{got["status"], got["output"], got["error_message"]}, []any{"canceled", nil, nil})
}

func (b *bench) claim(shown string) *run.Owner {
	b.t.Helper()
	runID, _ := id.Parse("run", shown)
	owner, err := b.runs.Claim(b.t.Context(), runID)
	if err != nil {
		b.t.Fatal(err)
	}
	return owner
}

func TestRunsThatAreRefused(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("one")
	other, neighbour := b.deploy("two")
	b.refuse(400, "bad_request", `"deployment_id" is missing.`, b.token, "POST", "/v1/runs", `{"input":{}}`)
	b.refuse(400, "bad_request", "Missing inputs: company, topic", token, "POST", "/v1/runs", `{}`)
	b.refuse(400, "bad_request", `"input" must be an object, and it is an array.`, token, "POST", "/v1/runs", `{"input":[]}`)
	b.refuse(400, "bad_request", "There is no environment 'testing'; there are production and staging.", token, "POST", "/v1/runs", `{"input":`+input+`,"environment":"testing"}`)
	b.refuse(400, "bad_request", `"environment" must be a string, and it is the number 1.`, token, "POST", "/v1/runs", `{"input":`+input+`,"environment":1}`)
	b.refuse(404, "not_found", fmt.Sprintf("There is no deployment %q.", other), token, "POST", "/v1/runs", `{"input":`+input+`,"deployment_id":"`+other+`"}`)
	b.refuse(404, "not_found", `There is no deployment "x".`, b.token, "POST", "/v1/runs", `{"input":`+input+`,"deployment_id":"x"}`)
	b.refuse(413, "too_large", "The request body is larger than 1 MiB.", token, "POST", "/v1/runs", `{"input":{"company":"`+strings.Repeat("x", 6<<20)+`"}}`)
	b.refuse(405, "method_not_allowed", "Method Not Allowed", token, "DELETE", "/v1/runs", "")
	b.refuse(404, "not_found", "Not Found", token, "GET", "/v1/nothing", "")

	mine := b.want(202, token, "POST", "/v1/runs", `{"deployment_id":"`+dep+`","input":`+input+`}`, "Idempotency-Key", "k")
	b.check("the same request again", b.want(202, token, "POST", "/v1/runs", `{"deployment_id":"`+dep+`","input":`+input+`}`, "Idempotency-Key", "k"), mine)
	b.refuse(409, "conflict", "This Idempotency-Key was used with another request body in the last 24 hours.", token, "POST", "/v1/runs", `{"input":`+input+`}`, "Idempotency-Key", "k")

	runID := mine["run_id"].(string)
	for _, c := range []struct{ token, id string }{{neighbour, runID}, {token, "run_1"}, {token, id.Show("run", id.New())}} {
		b.refuse(404, "not_found", fmt.Sprintf("There is no run %q.", c.id), c.token, "GET", "/v1/runs/"+c.id, "")
		b.refuse(404, "not_found", fmt.Sprintf("There is no run %q.", c.id), c.token, "POST", "/v1/runs/"+c.id+"/events", `{"type":"my.own"}`)
	}
}

func TestLists(t *testing.T) {
	b := newBench(t)
	one, token := b.deploy("one")
	two, _ := b.deploy("two")
	var all []string // newest first
	start := func(dep string) string {
		runID := b.want(202, b.token, "POST", "/v1/runs", `{"deployment_id":"`+dep+`","input":`+input+`}`)["run_id"].(string)
		all = append([]string{runID}, all...)
		return runID
	}
	a := start(one)
	start(two)
	c := start(one)
	end := func(runID string, o run.Outcome) {
		owner := b.claim(runID)
		if err := owner.End(o, owner.Root()); err != nil {
			t.Fatal(err)
		}
	}
	end(a, run.Outcome{State: run.Failed, Error: "It broke."})
	b.claim(c)

	list := func(token, query string) (ids []string, next any) {
		t.Helper()
		reply := b.want(200, token, "GET", "/v1/runs"+query, "")
		for _, r := range reply["runs"].([]any) {
			ids = append(ids, r.(object)["id"].(string))
		}
		return ids, reply["next_cursor"]
	}
	for _, q := range []struct {
		name, token, query string
		want               []string
	}{
		{"a workspace lists everything, newest first", b.token, "", all},
		{"a deployment lists its own", token, "", []string{c, a}},
		{"runs of one deployment", b.token, "?deployment_id=" + two, all[1:2]},
		{"pending", b.token, "?status=pending", all[1:2]},
		{"running", b.token, "?status=running", []string{c}},
		{"failed", b.token, "?status=failed&deployment_id=" + one, []string{a}},
		{"succeeded", b.token, "?status=succeeded", nil},
	} {
		got, _ := list(q.token, q.query)
		b.check(q.name, got, q.want)
	}
	first, next := list(b.token, "?limit=2")
	cursor, _ := next.(string)
	rest, end2 := list(b.token, "?limit=2&cursor="+cursor)
	b.check("two pages", append(first, rest...), all)
	b.check("after the last page", end2, nil)

	b.refuse(400, "bad_request", `There is no status "done"; there are pending, running, succeeded, failed and canceled.`, b.token, "GET", "/v1/runs?status=done", "")
	for _, limit := range []string{"0", "101", "-1", "many", "1e9"} {
		b.refuse(400, "bad_request", `"limit" must be a number from 1 to 100.`, b.token, "GET", "/v1/runs?limit="+limit, "")
	}
	b.refuse(400, "bad_request", `"cursor" must be the next_cursor of the page before.`, b.token, "GET", "/v1/runs?cursor=x", "")
	b.refuse(404, "not_found", fmt.Sprintf("There is no deployment %q.", two), token, "GET", "/v1/runs?deployment_id="+two, "")
}

func TestEventsFromOutside(t *testing.T) {
	b := newBench(t)
	_, token := b.deploy("one")
	runID := b.want(202, token, "POST", "/v1/runs", `{"input":`+input+`}`)["run_id"].(string)
	path := "/v1/runs/" + runID + "/events"

	b.refuse(400, "bad_request", `"type" is missing.`, token, "POST", path, `{"data":{}}`)
	b.refuse(400, "bad_request", `"type" must be a string, and it is an array.`, token, "POST", path, `{"type":[]}`)
	b.refuse(400, "bad_request", "The request body is empty; send a JSON object.", token, "POST", path, "")
	for _, body := range []string{`{"type":"crew_kickoff_completed"}`, `{"type":"Not A Type"}`, `{"type":"my.own","data":[]}`, `{"type":"my.own","data":"x"}`} {
		w := b.call(token, "POST", path, body)
		if w.Code != 400 || !strings.HasPrefix(w.Body.String(), `{"error":{"code":"bad_request",`) {
			t.Errorf("%s: got %d %s", body, w.Code, w.Body)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	store := b.runs.Store
	for _, c := range []struct {
		name    string
		noticed func(record.Record)
		status  int
	}{
		{"an event that nobody has recorded yet is accepted", func(record.Record) { cancel() }, 202},
		{"an event that was recorded is created", func(r record.Record) { store.Delete(context.Background(), r.Key, 1) }, 201},
	} {
		b.runs.Store = watched{store, c.noticed}
		r := httptest.NewRequestWithContext(ctx, "POST", path, strings.NewReader(`{"type":"my.own","data":{"a":1},"colour":1}`))
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		b.handler.ServeHTTP(w, r)
		var reply object
		if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil || w.Code != c.status || w.Header().Get("Muster-Warning") != "unknown field colour was ignored" {
			t.Errorf("%s: got %d %s", c.name, w.Code, w.Body)
		}
		b.check(c.name, reply, object{"id": reply["id"], "run_id": runID, "type": "my.own"})
		ctx = t.Context()
	}

	owner := b.claim(runID)
	if err := owner.End(run.Outcome{State: run.Succeeded}, owner.Root()); err != nil {
		t.Fatal(err)
	}
	b.refuse(409, "conflict", "The run is over; nothing can be added to it.", token, "POST", path, `{"type":"my.own"}`)
}

// watched is a store that tells of each put.
type watched struct {
	record.Store
	noticed func(record.Record)
}

func (w watched) Put(ctx context.Context, r record.Record) (int64, error) {
	rev, err := w.Store.Put(ctx, r)
	w.noticed(r)
	return rev, err
}

func TestTheCatalogueIsServedToAnyone(t *testing.T) {
	b := newBench(t)
	types := b.want(200, "", "GET", "/v1/events/types", "")["types"].([]any)
	if len(types) != len(events.All()) {
		t.Fatalf("%d types, want %d", len(types), len(events.All()))
	}
	first := types[0].(object)
	for _, field := range []string{"type", "family", "emitted", "doc", "fields"} {
		if _, ok := first[field]; !ok {
			t.Errorf("no %s: %v", field, first)
		}
	}
}

func TestRoutesCanBeReadWithoutAWire(t *testing.T) {
	var wire *deploywire.Wire
	for _, r := range wire.Routes() {
		if r.Method == "" || r.Path == "" || r.Function == "" || r.Handle == nil || r.Dialect.Body == nil {
			t.Errorf("incomplete route: %+v", r)
		}
	}
}
