// Package e2e_test runs Muster end to end: requests come in over HTTP, Lambda events go to the same handlers as everywhere,
// models speak the OpenAI protocol, receivers verify signatures. The same behaviours are held to both homes, and once more
// with stores and queues on a bad day. Nothing sleeps: a test waits until a receiver or a model was told something.
package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"muster/infra"
	"muster/infra/host"
	"muster/shared/app"
	"muster/shared/dynamo"
	"muster/shared/emulator"
	"muster/shared/engine/llm"
	"muster/shared/engine/llm/openai"
	"muster/shared/engine/llm/scripted"
	"muster/shared/guard"
	"muster/shared/id"
	"muster/shared/invoke"
	"muster/shared/mean"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/sqlite"
	"muster/shared/sqs"
	"muster/shared/trigger/cel"
	"muster/shared/workspace"
)

// backend is where a home keeps its records and messages.
type backend struct {
	records record.Store
	queues  map[string]queue.Queue
	// wake makes a queue look at the clock again after it was moved; nil where nobody can move the clock.
	wake func()
}

// opener opens a new, empty backend.
type opener func(t *testing.T, now func() time.Time) backend

// onSQLite is the backend of the embedded home.
func onSQLite(t *testing.T, now func() time.Time) backend {
	db, err := sqlite.Open(filepath.Join(t.TempDir(), "muster.db"))
	if err != nil {
		t.Fatal(err)
	}
	db.Now = now
	t.Cleanup(func() { db.Close() })
	b := backend{records: db.Records(), queues: map[string]queue.Queue{}, wake: func() {
		if err := db.Wake(context.Background()); err != nil {
			t.Error(err)
		}
	}}
	for _, q := range infra.Queues {
		b.queues[q.Name] = db.Queue(q.Name, sqlite.QueueOptions{MaxReceives: q.Receives})
	}
	return b
}

// onAWS is the backend of the AWS home: its adapters on emulators.
func onAWS(t *testing.T, _ func() time.Time) backend {
	records := dynamodb.NewFromConfig(emulator.Config(emulator.DynamoDB(t)))
	client := awssqs.NewFromConfig(emulator.Config(emulator.SQS(t)))
	suffix := strconv.FormatInt(time.Now().UnixNano(), 36)
	table := "muster-" + suffix
	if _, err := records.CreateTable(t.Context(), dynamo.Table(table)); err != nil {
		t.Fatal(err)
	}
	create := func(name string, attributes map[string]string) string {
		out, err := client.CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: aws.String(name), Attributes: attributes})
		if err != nil {
			t.Fatal(err)
		}
		return *out.QueueUrl
	}
	b := backend{records: dynamo.New(records, table), queues: map[string]queue.Queue{}}
	for _, q := range infra.Queues {
		dead := create("dead-"+q.Name+"-"+suffix, nil)
		got, err := client.GetQueueAttributes(t.Context(), &awssqs.GetQueueAttributesInput{
			QueueUrl: &dead, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
		})
		if err != nil {
			t.Fatal(err)
		}
		redrive := fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%d}`, got.Attributes["QueueArn"], q.Receives)
		b.queues[q.Name] = sqs.New(client, create(q.Name+"-"+suffix, map[string]string{"RedrivePolicy": redrive}), dead)
	}
	return b
}

// behind puts a backend behind a mean wrapper, and makes its queues give messages back within seconds, so that what the
// wrapper loses is found again while a test waits.
func behind(open opener, seed uint64) opener {
	return func(t *testing.T, now func() time.Time) backend {
		b, m := open(t, now), mean.New(seed)
		b.records = m.Store(b.records)
		for name, q := range b.queues {
			b.queues[name] = hasty{m.Queue(q)}
		}
		return b
	}
}

// hasty is a queue that waits and hides for short times only.
type hasty struct{ queue.Queue }

const hurry = 2 * time.Second

func (q hasty) Send(ctx context.Context, messages ...queue.Message) error {
	for i := range messages {
		messages[i].Delay = min(messages[i].Delay, hurry)
	}
	return q.Queue.Send(ctx, messages...)
}

func (q hasty) Receive(ctx context.Context, most int, wait, visible time.Duration) ([]queue.Received, error) {
	got, err := q.Queue.Receive(ctx, most, min(wait, hurry), min(visible, hurry))
	for i := range got {
		got[i].Receives = 1 // being in a hurry is no fault of the message
	}
	return got, err
}

func (q hasty) Hide(ctx context.Context, receipt string, d time.Duration) error {
	return q.Queue.Hide(ctx, receipt, min(d, hurry))
}

// settings are what a home may have otherwise.
type settings struct {
	lease, margin time.Duration
	every         time.Duration
	timeouts      map[string]time.Duration
}

// home is Muster with everything around it.
type home struct {
	url, token, workspaceID string
	app                     *app.App
	model                   *scripted.Server
	backend                 backend
	sockets                 *host.Sockets
	contract                *held

	mu      sync.Mutex
	scripts map[string]scripted.Script // by model
	seen    map[string]bool            // types of events that receivers were told
	ahead   time.Duration
	ids     int
}

// newHome starts Muster on a backend.
func newHome(t *testing.T, open opener, s settings) *home {
	t.Helper()
	h := &home{scripts: map[string]scripted.Script{}, seen: map[string]bool{}, sockets: &host.Sockets{}}
	h.backend = open(t, h.now)
	h.model = scripted.Start(func(r scripted.Request) scripted.Reply {
		h.mu.Lock()
		script := h.scripts[r.Model]
		h.mu.Unlock()
		if script == nil {
			return scripted.Fail(http.StatusNotFound, "nobody wrote a script for "+r.Model)
		}
		return script(r)
	})
	sealer, err := workspace.NewSealer(map[string][]byte{"k": bytes.Repeat([]byte{7}, 32)}, "k")
	if err != nil {
		t.Fatal(err)
	}
	log := &logged{}
	h.app = app.New(app.Backends{
		Records: h.backend.records, Runs: h.backend.queues[infra.Runs], Deliveries: h.backend.queues[infra.Deliveries], Sealer: sealer,
		OpenAI: openai.New, Rules: &cel.Rules{}, Models: llm.Settings{Default: llm.OfflineName, Providers: map[string]llm.Access{
			"openai": {BaseURL: h.model.URL, APIKey: modelKey},
			"ollama": {BaseURL: nobodyListens + "/v1"},
		}},
		Guard: guard.Options{AllowLoopback: true}, Lease: s.lease, Margin: s.margin, PublicURL: publicURL, Agents: infra.Agents(), Push: h.sockets, Now: h.now,
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	ws := id.New()
	h.workspaceID = id.Show("ws", ws)
	for { // a mean store may fail
		if h.token, err = h.app.Tokens.Mint(t.Context(), workspace.Caller{Kind: workspace.Workspace, WorkspaceID: ws}); err == nil {
			break
		}
	}

	handlers := map[string]lambda.Handler{
		"kickoff":    invoke.HTTP(h.app.Kickoff()),
		"trigger":    invoke.HTTPOr(h.app.Trigger(), h.app.Direct),
		"api":        invoke.HTTP(h.app.HTTP()),
		"runner":     invoke.Batch(h.app.Runner, h.backend.queues[infra.Runs]),
		"dispatcher": invoke.Batch(h.app.Dispatcher, h.backend.queues[infra.Deliveries]),
		"sweeper":    invoke.Tick(h.app.Sweep),
		"socket":     invoke.Socket(h.app.Socket()),
	}
	machine := &host.Host{
		Queues: h.backend.queues, Sockets: h.sockets, Every: s.every, Timeouts: s.timeouts, Log: slog.New(slog.NewTextHandler(log, nil)),
		Invoke: func(ctx context.Context, function string, event []byte) ([]byte, error) {
			return handlers[function].Invoke(ctx, event)
		},
		Stream: func(ctx context.Context, _ string, event []byte) (*events.LambdaFunctionURLStreamingResponse, error) {
			return invoke.Stream(h.app.Stream()).Answer(ctx, event)
		},
	}
	h.contract = &held{contract: theContract(), t: t}
	front := httptest.NewServer(h.contract.hold(machine.HTTP()))
	h.url = front.URL
	working, stop := context.WithCancel(context.Background())
	worked := make(chan struct{})
	go func() { defer close(worked); machine.Run(working) }()
	t.Cleanup(func() {
		h.model.Close() // what still waits for an answer fails now
		front.Close()
		stop()
		<-worked
		if t.Failed() {
			t.Logf("what this home had to say:\n%s", log)
		}
	})
	return h
}

const (
	modelKey = "key-of-the-operator"
	// publicURL is where others would find the home if it were no test.
	publicURL = "https://muster.example.com"
	// nobodyListens is an address of this machine where a connection is refused.
	nobodyListens = "http://127.0.0.1:1"
)

// now is the home's clock.
func (h *home) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Add(h.ahead)
}

// pass moves the clock.
func (h *home) pass(d time.Duration) {
	h.mu.Lock()
	h.ahead += d
	h.mu.Unlock()
	if h.backend.wake != nil {
		h.backend.wake()
	}
}

// answer lets a script answer for a model of its own, and gives the model's name for a definition.
func (h *home) answer(script scripted.Script) string {
	return "openai/" + h.answerAs("gpt-4.1-mini", script)
}

func (h *home) answerAs(family string, script scripted.Script) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ids++
	name := fmt.Sprintf("%s:%d", family, h.ids)
	h.scripts[name] = script
	return name
}

// saw notes which types of events were told.
func (h *home) saw(eventType string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[eventType] = true
}

// deployment is a deployment as it is shown once.
type deployment struct {
	home          *home
	ID            string `json:"id"`
	VersionID     string `json:"version_id"`
	VersionNumber int    `json:"version_number"`
	Token         string `json:"token"`
	WebhookSecret string `json:"webhook_secret"`
}

// deploy deploys a crew.
func (h *home) deploy(t *testing.T, files map[string]string) deployment {
	t.Helper()
	d := deployment{home: h}
	h.want(t, http.StatusCreated, "POST", "/v1/deployments", h.token, map[string]any{"name": "of a test", "files": files}, &d)
	return d
}

// kickoff starts a run and gives its id.
func (d deployment) kickoff(t *testing.T, body map[string]any) string {
	t.Helper()
	var started struct {
		KickoffID string `json:"kickoff_id"`
	}
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	// A kickoff whose answer was lost is repeated and starts no second run.
	key := fmt.Sprintf("%s %x", t.Name(), sha256.Sum256(raw))
	d.home.want(t, http.StatusOK, "POST", "/kickoff", d.Token, json.RawMessage(raw), &started, "Idempotency-Key", key[:min(len(key), 255)])
	return started.KickoffID
}

// status is what GET /status says.
type status struct {
	State        string          `json:"state"`
	Status       *string         `json:"status"`
	Result       *string         `json:"result"`
	ResultJSON   json.RawMessage `json:"result_json"`
	EventsCount  int             `json:"events_count"`
	ModelNote    *string         `json:"model_note"`
	UsageMetrics struct {
		TotalTokens        int `json:"total_tokens"`
		PromptTokens       int `json:"prompt_tokens"`
		CompletionTokens   int `json:"completion_tokens"`
		SuccessfulRequests int `json:"successful_requests"`
	} `json:"usage_metrics"`
}

func (d deployment) status(t *testing.T, runID string) status {
	t.Helper()
	var s status
	d.home.want(t, http.StatusOK, "GET", "/status/"+runID, d.Token, nil, &s)
	return s
}

// want sends a request and reads the answer, which must have a status. What a client repeats is repeated: 5xx, which the
// mean homes give now and then. headers are name and value in turn.
func (h *home) want(t *testing.T, code int, method, path, token string, body, into any, headers ...string) {
	t.Helper()
	var got int
	var answer []byte
	for range 20 {
		if got, answer = h.call(t, method, path, token, body, headers...); got < 500 {
			break
		}
	}
	if got != code {
		t.Fatalf("%s %s: got %d %s, want %d", method, path, got, clip(answer), code)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(answer, into); err != nil {
		t.Fatalf("%s %s: %v in %s", method, path, err, clip(answer))
	}
}

// call sends a request. A body that is a string or json.RawMessage goes as it is.
func (h *home) call(t *testing.T, method, path, token string, body any, headers ...string) (int, []byte) {
	t.Helper()
	var raw []byte
	switch b := body.(type) {
	case nil:
	case string:
		raw = []byte(b)
	case json.RawMessage:
		raw = b
	default:
		var err error
		if raw, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), method, h.url+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, answer
}

// eventually asks again and again until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	wait := 10 * time.Millisecond
	for deadline := time.Now().Add(patience); !is(); <-time.After(wait) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain until %s", patience, what)
		}
		wait = min(wait*3/2, 150*time.Millisecond) // what is asked that often is only in the way
	}
}

func clip(b []byte) string {
	if len(b) > 500 {
		return string(b[:500]) + "…"
	}
	return string(b)
}

// logged keeps a log for when a test has failed.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
