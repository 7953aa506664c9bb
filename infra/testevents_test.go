package infra_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"muster/infra"
	"muster/shared/app"
	"muster/shared/crew"
	"muster/shared/id"
	"muster/shared/invoke"
	"muster/shared/queue"
	"muster/shared/sqlite"
	"muster/shared/sqlite/sqlitetest"
	"muster/shared/trigger/cel"
	"muster/shared/workspace"
)

const (
	testWorkspace = "0198c0de-0000-7000-8000-000000000001"
	testToken     = "mus_ws_testevents" // the token of the events
	eventRun      = "019ab0c4-7d1e-7c3a-9b52-4f6e8d2a1c07"
	// The events of triggers name a deployment, a token, and that of a trigger for GitHub, which has this secret.
	eventDeployment  = "dep_019ab0c45b007a10b1c23d4e5f607182"
	eventToken       = "mus_in_0000000000000000000000000000000000000000000"
	eventGitHubToken = "mus_in_1111111111111111111111111111111111111111111"
	gitHubSecret     = "It's a Secret to Everybody"
	// An event of the agents' trigger names an agent, and is signed with its secret.
	eventAgent     = "6c1d9a3e-2f40-5b7e-9c58-d1e2f3a4b5c6"
	eventSignature = "d352164690bfdf8478f806b55972f57f1b442fd53d92b0ffa4eea02b8996e35b"
	internalToken  = "mus_int_testevents"
)

// installation is an app with one deployed crew and one run that nobody has executed yet.
type installation struct {
	handlers map[string]lambda.Handler
	queues   map[string]*sqlite.Queue
	run      string
	// real holds what stands here for the ids and tokens of the events.
	real []string
}

func install(t *testing.T) *installation {
	t.Helper()
	db := sqlitetest.Temp(t)
	in := &installation{queues: map[string]*sqlite.Queue{}}
	for _, q := range infra.Queues {
		in.queues[q.Name] = db.Queue(q.Name, sqlite.QueueOptions{MaxReceives: q.Receives})
	}
	sealer, err := workspace.NewSealer(map[string][]byte{"test": bytes.Repeat([]byte{1}, 32)}, "test")
	if err != nil {
		t.Fatal(err)
	}
	a := app.New(app.Backends{
		Records: db.Records(), Runs: in.queues[infra.Runs], Deliveries: in.queues[infra.Deliveries], Sealer: sealer, Rules: &cel.Rules{}, Agents: infra.Agents(),
		Callers: map[string]workspace.Caller{
			workspace.Hash(testToken):     {Kind: workspace.Workspace, WorkspaceID: testWorkspace},
			workspace.Hash(internalToken): {Kind: workspace.Internal, WorkspaceID: testWorkspace},
		},
	})
	in.handlers = map[string]lambda.Handler{
		"kickoff":    invoke.HTTP(a.HTTP()),
		"trigger":    invoke.HTTPOr(a.HTTP(), a.Direct),
		"api":        invoke.HTTP(a.HTTP()),
		"runner":     invoke.Batch(a.Runner, in.queues[infra.Runs]),
		"dispatcher": invoke.Batch(a.Dispatcher, in.queues[infra.Deliveries]),
		"sweeper":    invoke.Tick(a.Sweep),
		"socket":     invoke.Socket(a.Socket()),
		"stream":     lambda.NewHandler(invoke.Stream(a.Stream()).Answer),
	}
	d, _, _, err := a.Crews.Create(t.Context(), testWorkspace, "lead-research", crewFiles(t, "lead-research"), nil)
	if err != nil {
		t.Fatal(err)
	}
	in.real = []string{
		eventDeployment, id.Show("dep", d.ID), eventToken, in.webhook(t, d.ID, `{"name": "CI"}`),
		eventGitHubToken, in.webhook(t, d.ID, `{"name": "pushes", "sender": "github", "secret": "`+gitHubSecret+`", "filter": "body.ref == 'refs/heads/main'",
			"input": "{'company': body.repository.full_name, 'product_name': 'x', 'form_response': body.commits[0].message, 'icp_description': 'y', 'product_description': 'z'}"}`),
	}
	in.real = append(in.real, in.agent(t, d.ID)...)
	out, err := in.handlers["kickoff"].Invoke(t.Context(), testEvent(t, "kickoff/base64.json"))
	if err != nil {
		t.Fatal(err)
	}
	var answer events.APIGatewayV2HTTPResponse
	var started struct {
		ID string `json:"kickoff_id"`
	}
	decodeStrictly(t, out, &answer)
	if err := json.Unmarshal([]byte(answer.Body), &started); err != nil || started.ID == "" {
		t.Fatalf("the run did not start: %s", out)
	}
	in.run = started.ID
	return in
}

// webhook makes an incoming webhook and gives its token.
func (in *installation) webhook(t *testing.T, deploymentID, body string) string {
	t.Helper()
	event, err := json.Marshal(events.APIGatewayV2HTTPRequest{
		Version: "2.0", RawPath: "/v1/deployments/" + deploymentID + "/webhooks/incoming", Headers: map[string]string{"authorization": "Bearer " + testToken}, Body: body,
		RequestContext: events.APIGatewayV2HTTPRequestContext{HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{Method: "POST"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := in.handlers["api"].Invoke(t.Context(), event)
	var answer events.APIGatewayV2HTTPResponse
	var made struct{ Token string }
	decodeStrictly(t, out, &answer)
	if json.Unmarshal([]byte(answer.Body), &made); err != nil || made.Token == "" {
		t.Fatalf("there is no webhook: %s, %v", out, err)
	}
	return made.Token
}

// agent gives what stands here for the agent of the events and for its signature.
func (in *installation) agent(t *testing.T, deploymentID string) []string {
	t.Helper()
	agentID := crew.AgentID(deploymentID, "analyst")
	asked := bytes.ReplaceAll(testEvent(t, "api/webhook-secret.json"), []byte(eventAgent), []byte(agentID))
	out, err := in.handlers["api"].Invoke(t.Context(), asked)
	var answer events.APIGatewayV2HTTPResponse
	var shown struct{ Secret string }
	decodeStrictly(t, out, &answer)
	if json.Unmarshal([]byte(answer.Body), &shown); err != nil || shown.Secret == "" {
		t.Fatalf("there is no secret: %s, %v", out, err)
	}
	var event events.APIGatewayV2HTTPRequest
	decodeStrictly(t, testEvent(t, "trigger/agent.json"), &event)
	mac := hmac.New(sha256.New, []byte(shown.Secret))
	mac.Write([]byte(event.Body))
	return []string{eventAgent, agentID, eventSignature, hex.EncodeToString(mac.Sum(nil))}
}

func testEvent(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "testevents", path))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func crewFiles(t *testing.T, name string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	root := os.DirFS(filepath.Join("..", "testevents", "crews", name))
	err := fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files[path], err = fs.ReadFile(root, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func decodeStrictly(t *testing.T, raw []byte, into any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Errorf("decode %s: %v", raw, err)
	}
}

// Every event of testevents has a row: what must come of it.
var testEvents = []struct {
	file string
	want string
	ask  func(t *testing.T, in *installation, out []byte)
}{
	{"kickoff/kickoff.json", "a run", status(200, `"kickoff_id":"`)},
	{"kickoff/base64.json", "a run", status(200, `"kickoff_id":"`)},
	{"kickoff/bad-body.json", "a refusal in the wire's own shape", status(422, `"detail":`)},
	{"kickoff/bad-event.json", "an error", nil},
	{"api/inputs.json", "the names of the inputs", status(200, `"company"`)},
	{"api/status.json", "the state of the run", status(200, `"state":"PENDING"`)},
	{"api/list-runs.json", "an empty list", status(200, `[]`)},
	{"api/stop.json", "a run that was stopped", status(200, `"status":"stopped"`)},
	{"api/resume.json", "a refusal in the shape of /resume: the run does not wait", status(400, `"message":"Execution is not in pending human input state"`)},
	{"api/webhook-secret.json", "the secret of an agent, for who invokes the function", status(200, `{"secret":"mus_agent_`)},
	{"api/bad-webhook-secret.json", "nothing: API Gateway has no such route", status(404, `"title":"Not Found"`)},
	{"api/bad-token.json", "a refusal in the wire's own shape", status(401, `"detail":`)},
	{"api/bad-event.json", "an error", nil},
	{"stream/watch.json", "the beginning of a stream, and why it ends", streamed(200, "text/event-stream", `data: {"type":"timeout"`)},
	{"stream/lines.json", "the same as lines", streamed(200, "application/x-ndjson", `{"type":"timeout"`)},
	{"stream/bad-position.json", "a refusal in the wire's own shape", streamed(400, "application/json", `"There is no position 7 in this run`)},
	{"stream/bad-ticket.json", "a refusal in the wire's own shape", streamed(401, "application/json", `"code":"unauthorized"`)},
	{"stream/bad-event.json", "an error", nil},
	{"socket/connect.json", "an open connection", status(200, "")},
	{"socket/connect-with-token.json", "an open connection that is known", status(200, "")},
	{"socket/bad-token.json", "a refusal", status(401, "")},
	{"socket/bad-origin.json", "a refusal", status(403, "")},
	{"socket/auth.json", "nothing from a connection that was not opened", status(200, "")},
	{"socket/subscribe.json", "nothing from a connection that was not opened", status(200, "")},
	{"socket/disconnect.json", "nothing", status(200, "")},
	{"socket/bad-event.json", "an error", nil},
	{"trigger/incoming.json", "a run that nobody has begun yet", status(202, `"status":"pending"`)},
	{"trigger/github-push.json", "a run", status(202, `"run_id":"run_`)},
	{"trigger/bad-signature.json", "a refusal", status(401, `"message":"The header X-Hub-Signature-256 does not match."`)},
	{"trigger/bad-token.json", "a refusal in the wire's own shape", status(404, `{"error":{"code":"not_found","message":"There is no webhook with this URL."}}`)},
	{"trigger/agent.json", "a run of one agent", status(202, `{"status":"accepted","run_id":"run_`)},
	{"trigger/bad-agent-signature.json", "a refusal in plain text", status(401, "unauthorized")},
	{"trigger/schedule.json", "a run", direct},
	{"trigger/event.json", "a run", direct},
	{"trigger/bad-event.json", "an error", nil},
	{"runner/run.json", "an executed run", executed},
	{"runner/two-runs.json", "an executed run, and one that is not there in the dead-letter queue", executed},
	{"runner/bad-message.json", "the message in the dead-letter queue", buried(infra.Runs, "not a message for the runner")},
	{"runner/bad-event.json", "an error", nil},
	{"dispatcher/delivery.json", "nothing to deliver: the run has no such page", buried(infra.Deliveries, "has no page")},
	{"dispatcher/bad-message.json", "the message in the dead-letter queue", buried(infra.Deliveries, "message")},
	{"dispatcher/bad-event.json", "an error", nil},
	{"sweeper/tick.json", "a sweep", func(t *testing.T, _ *installation, out []byte) {
		if string(out) != "null" {
			t.Errorf("got the answer %s", out)
		}
	}},
	{"sweeper/bad-event.json", "an error", nil},
}

// streamed wants a stream that has been read to its end: JSON with status and headers, eight zeros, the body.
func streamed(status int, contentType, body string) func(*testing.T, *installation, []byte) {
	return func(t *testing.T, _ *installation, out []byte) {
		prelude, rest, found := bytes.Cut(out, make([]byte, 8))
		var a struct {
			StatusCode int               `json:"statusCode"`
			Headers    map[string]string `json:"headers"`
		}
		if err := json.Unmarshal(prelude, &a); err != nil || !found {
			t.Fatalf("got no stream: %q", out)
		}
		if a.StatusCode != status || a.Headers["Content-Type"] != contentType || !strings.Contains(string(rest), body) {
			t.Errorf("got %d %s %s, want %d %s and %s", a.StatusCode, a.Headers["Content-Type"], rest, status, contentType, body)
		}
	}
}

func status(status int, body string) func(*testing.T, *installation, []byte) {
	return func(t *testing.T, _ *installation, out []byte) {
		var a events.APIGatewayV2HTTPResponse
		decodeStrictly(t, out, &a)
		if a.StatusCode != status || !strings.Contains(a.Body, body) {
			t.Errorf("got %d %s, want %d and %s", a.StatusCode, a.Body, status, body)
		}
	}
}

func direct(t *testing.T, _ *installation, out []byte) {
	var started struct {
		RunID  string `json:"run_id"`
		Status string `json:"status"`
	}
	if err := json.Unmarshal(out, &started); err != nil || !strings.HasPrefix(started.RunID, "run_") || started.Status != "pending" {
		t.Errorf("got %s, want a run", out)
	}
}

func executed(t *testing.T, in *installation, out []byte) {
	noFailures(t, out)
	asked := bytes.ReplaceAll(testEvent(t, "api/status.json"), []byte(eventRun), []byte(in.run))
	answer, err := in.handlers["api"].Invoke(t.Context(), asked)
	if err != nil {
		t.Fatal(err)
	}
	status(200, `"state":"SUCCESS"`)(t, in, answer)
}

func buried(name, reason string) func(*testing.T, *installation, []byte) {
	return func(t *testing.T, in *installation, out []byte) {
		noFailures(t, out)
		dead, err := in.queues[name].Buried(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(dead) != 1 || !strings.Contains(dead[0].Reason, reason) {
			t.Errorf("got the dead letters %+v, want one because of %q", dead, reason)
		}
	}
}

func noFailures(t *testing.T, out []byte) {
	t.Helper()
	var a events.SQSEventResponse
	decodeStrictly(t, out, &a)
	if a.BatchItemFailures == nil || len(a.BatchItemFailures) > 0 {
		t.Errorf("got the answer %s, want an empty list of failures", out)
	}
}

func TestEventsAsAWSSendsThem(t *testing.T) {
	seen := map[string]bool{}
	for _, test := range testEvents {
		t.Run(test.file+" gives "+test.want, func(t *testing.T) {
			seen[test.file] = true
			in := install(t)
			event := testEvent(t, test.file)
			function := filepath.Dir(test.file)
			if test.ask != nil {
				decodeStrictly(t, event, newEvent(test.file))
			}
			event = []byte(strings.NewReplacer(append(in.real, eventRun, in.run)...).Replace(string(event)))
			event = in.receive(t, function, event)
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if function == "stream" { // one that has no time left ends at once
				ctx, cancel = context.WithTimeout(ctx, 2*time.Second)
			}
			defer cancel()
			out, err := in.handlers[function].Invoke(ctx, event)
			if test.ask == nil {
				if err == nil {
					t.Errorf("got the answer %s, want an error", out)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			test.ask(t, in, out)
		})
	}

	for _, f := range infra.Functions {
		files, err := filepath.Glob(filepath.Join("..", "testevents", f.Name, "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		good, bad := 0, 0
		for _, file := range files {
			name := f.Name + "/" + filepath.Base(file)
			if !seen[name] {
				t.Errorf("%s is not tried", name)
			}
			if strings.HasPrefix(filepath.Base(file), "bad-") {
				bad++
			} else {
				good++
			}
		}
		if good == 0 || bad == 0 {
			t.Errorf("%s has %d good events and %d bad ones, want some of each", f.Name, good, bad)
		}
	}
}

// newEvent gives what an event decodes into.
func newEvent(file string) any {
	switch file {
	case "trigger/schedule.json":
		return &map[string]any{} // as its owner wrote it
	case "trigger/event.json":
		return &events.EventBridgeEvent{}
	}
	switch filepath.Dir(file) {
	case "kickoff", "trigger", "api", "stream": // a function URL sends what API Gateway sends
		return &events.APIGatewayV2HTTPRequest{}
	case "sweeper":
		return &events.EventBridgeEvent{}
	case "socket":
		return &events.APIGatewayWebsocketProxyRequest{}
	}
	return &events.SQSEvent{}
}

// receive puts the messages of a queue's event into the queue and receives them, so that their receipts hold.
func (in *installation) receive(t *testing.T, function string, event []byte) []byte {
	t.Helper()
	var batch events.SQSEvent
	q := map[string]*sqlite.Queue{"runner": in.queues[infra.Runs], "dispatcher": in.queues[infra.Deliveries]}[function]
	if q == nil || json.Unmarshal(event, &batch) != nil {
		return event
	}
	for i := range batch.Records {
		m := &batch.Records[i]
		if m.ReceiptHandle == "" {
			continue
		}
		if err := q.Send(t.Context(), queue.Message{Body: m.Body}); err != nil {
			t.Fatal(err)
		}
		for {
			got, err := q.Receive(t.Context(), 1, 0, infra.Queues[0].Visibility)
			if err != nil || len(got) == 0 {
				t.Fatalf("received %d messages, %v", len(got), err)
			}
			if got[0].Body == m.Body {
				m.ReceiptHandle = got[0].Receipt
				break
			}
		}
	}
	edited, err := json.Marshal(batch)
	if err != nil {
		t.Fatal(err)
	}
	return edited
}
