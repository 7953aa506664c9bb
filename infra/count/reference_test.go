// Package count holds the bill of a run to what is recorded.
package count_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"muster/infra"
	"muster/shared/app"
	"muster/shared/crew"
	"muster/shared/dynamo"
	"muster/shared/emulator"
	"muster/shared/engine/llm"
	"muster/shared/engine/tool"
	"muster/shared/guard"
	"muster/shared/id"
	"muster/shared/queue"
	"muster/shared/run"
	"muster/shared/runner"
	"muster/shared/sqs"
	"muster/shared/workspace"
)

var write = flag.Bool("record", false, "write the figures to testdata/reference_run.json, if none of them went up")

const recorded = "testdata/reference_run.json"

// thinking is how long the model takes for an answer.
const thinking = 5 * time.Second

// figures are what is held to: each may only go down.
type figures struct {
	// Tasks, ModelCalls and Events say how large the run is, and must not change.
	Tasks      int `json:"tasks"`
	ModelCalls int `json:"model_calls"`
	Events     int `json:"events"`

	Deliveries int `json:"deliveries"`
	// ReadUnits vary by a few, with how the looks into the inbox fall among the calls.
	ReadUnits   float64 `json:"read_units"`
	WriteUnits  int     `json:"write_units"`
	SQSRequests int     `json:"sqs_requests"`
	Invocations int     `json:"lambda_invocations"`
}

// The run of the README's prices: three tasks, ten calls of a model that takes 5 s for each, sixty events, and two targets,
// a stream of all events and a crew URL. Each message is received and deleted alone, as on a quiet day; when there is more
// to do, Lambda takes up to ten at a time and the bill is smaller. The clock's ticks and the polls of empty queues are no
// run's and are left out.
func TestABillOfTheReferenceRunIsNoHigherThanRecorded(t *testing.T) {
	b := newBill()
	table, endpoint := newTable(t)
	w := &world{
		bill: b, dynamo: b.in(emulator.Config(endpoint)), sqs: b.in(emulator.Config(emulator.SQS(t))), table: table,
	}
	w.queues(t)
	a := app.New(w.backends(t, http.DefaultClient))
	token := w.deploy(t, a)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	t.Cleanup(receiver.Close)

	b.lines = nil // a deployment is not a run
	b.by("kickoff")
	runID := kickoff(t, a.HTTP(), token, receiver.URL)
	invocations := 1

	b.by("runner")
	knock := receive(t, w.runs)
	model := &model{}
	began := time.Now()
	var took time.Duration
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(began)) // a bubble begins in the year 2000
		// A connection that is kept has somebody who reads from it, and holds the bubble's clock.
		apart := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		backends := w.backends(t, apart)
		a := app.New(backends)
		r := runner.Runner{Runs: a.Runs, Crews: a.Crews, Queue: backends.Runs, Models: model, Tools: tool.Box{}}
		if answer := r.Handle(context.Background(), knock); answer != queue.Done() {
			t.Fatalf("the runner answers %+v", answer)
		}
		took = time.Since(began)
	})
	remove(t, w.runs, knock)
	invocations++
	sent := b.sent[w.deliveriesURL]

	b.by("dispatcher")
	for range sent {
		m := receive(t, w.deliveries)
		if answer := a.Dispatcher(t.Context(), m); answer != queue.Done() {
			t.Fatalf("the dispatcher answers %+v", answer)
		}
		remove(t, w.deliveries, m)
		invocations++
	}

	total := b.sum("")
	b.by("")
	newest, err := a.Runs.Newest(t.Context(), runID)
	if err != nil {
		t.Fatal(err)
	}
	if newest.Outcome == nil || newest.Outcome.State != run.Succeeded {
		t.Fatalf("the run ended with %+v", newest.Outcome)
	}
	item, err := a.Runs.Get(t.Context(), runID)
	if err != nil || !item.Told || !item.Due.IsZero() {
		t.Fatalf("somebody still has to look after the run: %+v, %v", item, err)
	}
	b.lines = slices.DeleteFunc(b.lines, func(l *line) bool { return l.who == "" })
	got := figures{
		Tasks: newest.Progress.Completed, ModelCalls: int(model.calls.Load()), Events: int(newest.Totals.Events), Deliveries: sent,
		ReadUnits: total.reads, WriteUnits: total.writes + total.indexWrites, SQSRequests: total.queue, Invocations: invocations,
	}
	table, counted := dollars(got, took)
	t.Logf("the reference run: %d tasks, %d model calls of %s, %d events, %d deliveries, %d pages\n%s\n%s",
		got.Tasks, got.ModelCalls, thinking, got.Events, got.Deliveries, newest.Seq, b.table(), table)
	compare(t, got)
	// What a run says of its own cost is an estimate from its record; it counts the dispatcher's seconds too.
	if said := run.SpentBy(item, newest, newest.At).AWSCostUSD * 1000; said < counted*0.95 || said > counted*1.1 {
		t.Errorf("a thousand such runs would say that they cost $%.4f, and are billed $%.4f", said, counted)
	}
}

// compare fails when a figure is above the recorded one.
func compare(t *testing.T, got figures) {
	t.Helper()
	raw, err := os.ReadFile(recorded)
	if err != nil && !(*write && os.IsNotExist(err)) {
		t.Fatal(err)
	}
	want := got
	if err == nil {
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
	}
	if got.Tasks != want.Tasks || got.ModelCalls != want.ModelCalls || got.Events != want.Events {
		t.Errorf("this is another run: %+v, recorded is %+v", got, want)
	}
	for name, f := range map[string][2]float64{
		"deliveries":         {float64(got.Deliveries), float64(want.Deliveries)},
		"read units":         {got.ReadUnits, want.ReadUnits},
		"write units":        {float64(got.WriteUnits), float64(want.WriteUnits)},
		"SQS requests":       {float64(got.SQSRequests), float64(want.SQSRequests)},
		"Lambda invocations": {float64(got.Invocations), float64(want.Invocations)},
	} {
		switch {
		case f[0] > f[1]:
			t.Errorf("%s went up from %v to %v: figures may only go down", name, f[1], f[0])
		case f[0] < f[1]:
			t.Logf("%s went down from %v to %v; `go test ./infra/count -record` keeps it so", name, f[1], f[0])
		}
	}
	if *write && !t.Failed() {
		raw, err := json.MarshalIndent(got, "", "  ")
		if err == nil {
			err = os.WriteFile(recorded, append(raw, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// dollars are those of a thousand runs, in us-east-1 on demand, without the free tiers, logs and traffic. What the
// functions wait is that of the runner for the model; others work for milliseconds.
func dollars(f figures, took time.Duration) (table string, all float64) {
	memory := 0.0
	for _, function := range infra.Functions {
		if function.Name == "runner" {
			memory = float64(function.MemoryMB) / 1024
		}
	}
	// Prices of a million, so those of a thousand runs in thousandths.
	var (
		api    = 1.00 / 1000
		invoke = 0.20 * float64(f.Invocations) / 1000
		queue  = (0.40 + 0.10) * float64(f.SQSRequests) / 1000 // with the surcharge for groups
		writes = 0.625 * float64(f.WriteUnits) / 1000
		reads  = 0.125 * f.ReadUnits / 1000
		wait   = 13.3334 * took.Seconds() * memory / 1000
	)
	var s strings.Builder
	fmt.Fprintln(&s, "| 1,000 runs | $ |\n|---|--:|")
	for _, l := range []struct {
		what string
		cost float64
	}{
		{"API Gateway, 1 request", api},
		{fmt.Sprintf("SQS, %d requests in fair queues", f.SQSRequests), queue},
		{fmt.Sprintf("DynamoDB, %d write units", f.WriteUnits), writes},
		{fmt.Sprintf("DynamoDB, %g read units", f.ReadUnits), reads},
		{fmt.Sprintf("Lambda, %d invocations", f.Invocations), invoke},
		{"**requests together**", api + queue + writes + reads + invoke},
		{fmt.Sprintf("Lambda, %.0f s of waiting at %.3g GB, one run to an invocation", took.Seconds(), memory), wait},
		{"the same, ten runs to an invocation", wait / 10},
	} {
		fmt.Fprintf(&s, "| %s | %.4f |\n", l.what, l.cost)
	}
	return s.String(), api + queue + writes + reads + invoke + wait
}

// world is what the functions run on.
type world struct {
	bill                 *bill
	dynamo, sqs          aws.Config
	table                string
	runsURL, runsDead    string
	deliveriesURL, ddead string
	// runs and deliveries are the queues as Lambda sees them.
	runs, deliveries queue.Queue
}

func newTable(t *testing.T) (name, endpoint string) {
	endpoint = emulator.DynamoDB(t)
	name = "muster-" + id.New()
	if _, err := dynamodb.NewFromConfig(emulator.Config(endpoint)).CreateTable(t.Context(), dynamo.Table(name)); err != nil {
		t.Fatal(err)
	}
	return name, endpoint
}

func (w *world) queues(t *testing.T) {
	plain := awssqs.NewFromConfig(emulator.Config(emulator.SQS(t)))
	suffix := id.New()
	for name, url := range map[string]*string{
		"runs": &w.runsURL, "deliveries": &w.deliveriesURL, "runs-dead": &w.runsDead, "deliveries-dead": &w.ddead,
	} {
		out, err := plain.CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: aws.String(name + "-" + suffix)})
		if err != nil {
			t.Fatal(err)
		}
		*url = *out.QueueUrl
	}
	client := awssqs.NewFromConfig(w.sqs)
	w.runs, w.deliveries = sqs.New(client, w.runsURL, w.runsDead), sqs.New(client, w.deliveriesURL, w.ddead)
}

var sealer = func() *workspace.Sealer {
	s, err := workspace.NewSealer(map[string][]byte{"k": bytes.Repeat([]byte{1}, 32)}, "k")
	if err != nil {
		panic(err)
	}
	return s
}()

// backends are those of one function, by an HTTP client of its own.
func (w *world) backends(t *testing.T, client *http.Client) app.Backends {
	records, queues := w.dynamo, w.sqs
	records.HTTPClient, queues.HTTPClient = client, client
	c := awssqs.NewFromConfig(queues)
	return app.Backends{
		Records: dynamo.New(dynamodb.NewFromConfig(records), w.table),
		Runs:    sqs.New(c, w.runsURL, w.runsDead), Deliveries: sqs.New(c, w.deliveriesURL, w.ddead),
		Sealer: sealer, Guard: guard.Options{AllowLoopback: true}, Log: slog.New(slog.DiscardHandler),
	}
}

// deploy makes the deployment and gives its token.
func (w *world) deploy(t *testing.T, a *app.App) (token string) {
	ctx, workspaceID := t.Context(), id.New()
	_, _, _, err := a.Crews.Create(ctx, workspaceID, "", reference, func(deploymentID string) (string, error) {
		var err error
		token, err = a.Tokens.Mint(ctx, workspace.Caller{Kind: workspace.Deployment, WorkspaceID: workspaceID, DeploymentID: deploymentID})
		if err != nil {
			return "", err
		}
		return sealer.Seal(ctx, workspaceID, deploymentID, "webhook_secret", workspace.NewSecret())
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func kickoff(t *testing.T, h http.Handler, token, receiver string) (runID string) {
	body, err := json.Marshal(map[string]any{
		"inputs":         map[string]string{"industry": "retail banking", "company": "Northwind Bank"},
		"crewWebhookUrl": receiver + "/crew",
		"webhooks":       map[string]any{"url": receiver + "/events", "events": []string{"*"}, "realtime": false},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/kickoff", bytes.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, r)
	var started struct {
		KickoffID string `json:"kickoff_id"`
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &started); err != nil || answer.Code != http.StatusOK {
		t.Fatalf("the kickoff gave %d %s", answer.Code, answer.Body)
	}
	return started.KickoffID
}

// receive takes the one message that Lambda hands to an invocation.
func receive(t *testing.T, q queue.Queue) queue.Received {
	t.Helper()
	got, err := q.Receive(t.Context(), 1, 20*time.Second, 15*time.Minute)
	if err != nil || len(got) != 1 {
		t.Fatalf("received %d messages, %v", len(got), err)
	}
	return got[0]
}

func remove(t *testing.T, q queue.Queue, m queue.Received) {
	t.Helper()
	if err := q.Delete(t.Context(), m.Receipt); err != nil {
		t.Fatal(err)
	}
}

// reference is the crew of the reference run.
var reference = map[string][]byte{
	"crew.yaml": []byte("name: Reference\nprocess: sequential\n"),
	"agents.yaml": []byte(`
researcher:
  role: Research Agent
  goal: Find out what drives {industry}
  backstory: You read the notes first and quote them closely.
  tools: [{type: knowledge_search, name: search}]
writer:
  role: Writer
  goal: Write what {company} can act on
  backstory: You write short sentences.
  tools: [{type: knowledge_search, name: search}]
`),
	"tasks.yaml": []byte(`
research:
  agent: researcher
  description: Study {industry} for a call with {company}.
  expected_output: A report of three paragraphs
judge:
  agent: researcher
  description: Judge how well {company} fits.
  expected_output: One paragraph
  context: [research]
write:
  agent: writer
  description: Write to {company} about {industry}.
  expected_output: A letter
  context: [research, judge]
`),
	"knowledge/notes.md": []byte("What a branch costs.\n\n" + prose(0, 600)),
}

// prose is text that compresses about as well as what people write, always the same for the same seed.
func prose(seed uint64, words int) string {
	const sounds = "ba ne tri so lum pe ran ci do ver ma ti sto gel pra hu mi con der fa lo sin tur pla wen ko rid"
	syllables, r := strings.Fields(sounds), rand.New(rand.NewPCG(seed, 0))
	var text strings.Builder
	for w := range words {
		for range 1 + r.IntN(3) {
			text.WriteString(syllables[r.IntN(len(syllables))])
		}
		if w%12 == 11 {
			text.WriteString(". ")
		} else {
			text.WriteByte(' ')
		}
		if w%60 == 59 {
			text.WriteString("\n\n")
		}
	}
	return text.String()
}

// turns are how many tools each answer of the model asks for, task by task: ten answers in all.
var turns = [][]int{{2, 2, 0}, {2, 1, 0}, {1, 1, 1, 0}}

// model answers as turns say, after it has thought.
type model struct{ calls atomic.Int32 }

func (m *model) Open(crew.Model) (llm.Model, error) { return m, nil }
func (m *model) Name() string                       { return "openai/gpt-4.1-mini" }
func (m *model) Tools() bool                        { return true }

func (m *model) Call(ctx context.Context, c llm.Call) (llm.Reply, error) {
	select {
	case <-time.After(thinking):
	case <-ctx.Done():
		return llm.Reply{}, ctx.Err()
	}
	n := int(m.calls.Add(1)) - 1
	task := 0
	for ; n >= len(turns[task]); task++ {
		n -= len(turns[task])
	}
	reply := llm.Reply{
		Text:  prose(uint64(n+10*task+1), 150),
		Usage: llm.Usage{PromptTokens: 600, CompletionTokens: 200, TotalTokens: 800}, FinishReason: "stop",
	}
	for i := range turns[task][n] {
		reply.FinishReason = "tool_calls"
		reply.ToolCalls = append(reply.ToolCalls, llm.ToolCall{
			ID: fmt.Sprintf("call_%d_%d_%d", task, n, i), Type: "function",
			Function: llm.FunctionCall{Name: c.Tools[0].Name, Arguments: fmt.Sprintf(`{"query":"what a branch costs, part %d.%d"}`, n, i)},
		})
	}
	return reply, nil
}
