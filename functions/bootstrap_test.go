package functions_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/coder/websocket"

	"muster/infra"
	"muster/infra/host"
	"muster/infra/runtimeapi"
	"muster/shared/config"
	"muster/shared/dynamo"
	"muster/shared/emulator"
	"muster/shared/queue"
	"muster/shared/sqs"
	"muster/shared/webhook"
	"muster/shared/workspace"
)

const (
	workspaceToken = "mus_ws_of-the-bootstrap-test"
	internalToken  = "mus_int_of-the-bootstrap-test"
	workspaceID    = "0198c0de-0000-7000-8000-000000000002"
	// longest is how long the whole of it may take on a busy machine.
	longest = 2 * time.Minute
)

// The bootstraps as they are deployed, on emulators of DynamoDB and SQS: a crew is deployed and kicked off over HTTP, the
// runner executes it, the dispatcher tells a receiver, and the receiver verifies the signature.
func TestABootstrapOfEachFunctionDoesItsPart(t *testing.T) {
	dynamoEndpoint, sqsEndpoint := emulator.DynamoDB(t), emulator.SQS(t)
	queues, env := onEmulators(t, dynamoEndpoint, sqsEndpoint)
	var names []string
	for _, f := range infra.Functions {
		names = append(names, f.Name)
	}
	bootstraps, err := runtimeapi.Build(t.Context(), "..", t.TempDir(), names...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	defer cancel()
	sockets := &host.Sockets{}
	gateway := httptest.NewServer(connections(t, sockets))
	t.Cleanup(gateway.Close)
	env = append(env, config.SocketURLKey+"="+gateway.URL+"/ws")
	functions := map[string]*runtimeapi.Function{}
	for _, f := range infra.Functions {
		functions[f.Name] = &runtimeapi.Function{
			Name: f.Name, Bootstrap: bootstraps[f.Name], Output: t.Output(),
			Env: append(env, "AWS_LAMBDA_FUNCTION_NAME="+f.Name, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE="+strconv.Itoa(f.MemoryMB)),
		}
		t.Cleanup(functions[f.Name].Close)
	}
	around := &host.Host{
		Queues: queues, Sockets: sockets,
		Invoke: func(ctx context.Context, function string, event []byte) ([]byte, error) {
			return functions[function].Invoke(ctx, event)
		},
		Stream: func(ctx context.Context, function string, event []byte) (*events.LambdaFunctionURLStreamingResponse, error) {
			return functions[function].Stream(ctx, event)
		},
	}
	front := httptest.NewServer(around.HTTP())
	t.Cleanup(front.Close)
	running, stop := context.WithCancel(ctx)
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		around.Run(running)
	}()
	t.Cleanup(func() { stop(); <-worked })

	heard := make(chan heard, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		heard <- newHeard(r, body)
	}))
	t.Cleanup(receiver.Close)

	var deployed struct {
		ID            string `json:"id"`
		Token         string `json:"token"`
		WebhookSecret string `json:"webhook_secret"`
	}
	call(t, "POST", front.URL+"/v1/deployments", workspaceToken, map[string]any{"name": "lead-research", "files": crewFiles(t)}, http.StatusCreated, &deployed)
	var inputs map[string]any
	if err := json.Unmarshal(crewFile(t, "inputs.json"), &inputs); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 1)
	listen(ctx, t, strings.Replace(front.URL, "http", "ws", 1)+"/ws", deployed.Token, "crew:"+deployed.ID, told)
	var started struct {
		KickoffID string `json:"kickoff_id"`
	}
	call(t, "POST", front.URL+"/kickoff", deployed.Token, map[string]any{
		"inputs": inputs, "taskWebhookUrl": receiver.URL + "/task", "crewWebhookUrl": receiver.URL + "/crew",
	}, http.StatusOK, &started)

	watched := make(chan string, 1)
	go func() { watched <- watch(ctx, front.URL+"/v1/runs/"+started.KickoffID+"/events", deployed.Token) }()
	tasks := 0
	for ended := false; !ended; {
		select {
		case h := <-heard:
			if err := webhook.Verify(deployed.WebhookSecret, h.header, h.body, time.Now()); err != nil {
				t.Errorf("%s: %v", h.path, err)
			}
			var told struct {
				KickoffID string `json:"kickoff_id"`
			}
			if err := json.Unmarshal(h.body, &told); err != nil || told.KickoffID != started.KickoffID {
				t.Errorf("%s told of the run %q, %v; want %q", h.path, told.KickoffID, err, started.KickoffID)
			}
			if h.path == "/task" {
				tasks++
			}
			ended = h.path == "/crew"
		case <-ctx.Done():
			t.Fatal("nobody told the receiver that the run ended")
		}
	}
	if last := <-watched; !strings.Contains(last, `{"type":"complete"`) || !strings.Contains(last, `"status":"succeeded"`) {
		t.Errorf("who watched the run was told at last: %s", last)
	}
	if last := <-told; !strings.Contains(last, `"type":"run.completed"`) || !strings.Contains(last, `"status":"COMPLETED"`) {
		t.Errorf("who listened was told at last: %s", last)
	}
	var now struct {
		State string `json:"state"`
	}
	call(t, "GET", front.URL+"/status/"+started.KickoffID, deployed.Token, nil, http.StatusOK, &now)
	if now.State != "SUCCESS" {
		t.Errorf("the run is %s, want SUCCESS", now.State)
	}
	for name, q := range queues {
		if dead, err := q.Buried(ctx, 10); err != nil || len(dead) > 0 {
			t.Errorf("the dead-letter queue of %s holds %+v, %v", name, dead, err)
		}
	}
	t.Logf("%d task webhooks before the end", tasks)
}

// connections is what API Gateway offers for its connections, as far as functions use it.
func connections(t *testing.T, s *host.Sockets) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /ws/@connections/{id}", func(w http.ResponseWriter, r *http.Request) {
		message, err := io.ReadAll(r.Body)
		if err == nil {
			err = s.Push(r.Context(), r.PathValue("id"), message)
		}
		if err != nil {
			w.Header().Set("X-Amzn-Errortype", "GoneException")
			w.WriteHeader(http.StatusGone)
		}
	})
	mux.HandleFunc("DELETE /ws/@connections/{id}", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Close(r.Context(), r.PathValue("id"), nil); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// listen subscribes to a channel, and then gives the first message that tells of the end of a run, or why there is none.
func listen(ctx context.Context, t *testing.T, url, token, channel string, told chan<- string) {
	t.Helper()
	c, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	for _, message := range []map[string]string{{"type": "auth", "token": token}, {"type": "subscribe", "channel": channel}, {"type": "ping"}} {
		raw, err := json.Marshal(message)
		if err == nil {
			err = c.Write(ctx, websocket.MessageText, raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, answer, err := c.Read(ctx); err != nil || string(answer) != `{"type":"pong","payload":null}` {
		t.Fatalf("a ping is answered %s, %v", answer, err)
	}
	go func() {
		for {
			_, message, err := c.Read(ctx)
			if err != nil {
				told <- err.Error()
				return
			}
			if bytes.Contains(message, []byte(`"type":"run.`)) && !bytes.Contains(message, []byte("run.started")) {
				told <- string(message)
				return
			}
		}
	}()
}

// watch reads a stream to its end and gives the last message.
func watch(ctx context.Context, url, token string) (last string) {
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err.Error()
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Accept", "application/x-ndjson")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		last = lines.Text()
	}
	if err := lines.Err(); err != nil {
		return err.Error()
	}
	return last
}

// heard is a request that the receiver got.
type heard struct {
	path   string
	header http.Header
	body   []byte
}

func newHeard(r *http.Request, body []byte) heard { return heard{r.URL.Path, r.Header, body} }

// onEmulators makes the table and the queues of the manifest, and the environment that names them.
func onEmulators(t *testing.T, dynamoEndpoint, sqsEndpoint string) (map[string]queue.Queue, []string) {
	t.Helper()
	suffix := strings.ToLower(t.Name()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	table := "muster-" + suffix
	if _, err := dynamodb.NewFromConfig(emulator.Config(dynamoEndpoint)).CreateTable(t.Context(), dynamo.Table(table)); err != nil {
		t.Fatal(err)
	}
	client := awssqs.NewFromConfig(emulator.Config(sqsEndpoint))
	create := func(name string, attributes map[string]string) string {
		out, err := client.CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: aws.String(name), Attributes: attributes})
		if err != nil {
			t.Fatal(err)
		}
		return *out.QueueUrl
	}
	queues := map[string]queue.Queue{}
	var urls []string
	for _, q := range infra.Queues {
		dead := create("dead-"+q.Name+"-"+suffix[len(suffix)-10:], nil)
		attributes, err := client.GetQueueAttributes(t.Context(), &awssqs.GetQueueAttributesInput{
			QueueUrl: &dead, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
		})
		if err != nil {
			t.Fatal(err)
		}
		redrive, err := json.Marshal(map[string]any{"deadLetterTargetArn": attributes.Attributes["QueueArn"], "maxReceiveCount": q.Receives})
		if err != nil {
			t.Fatal(err)
		}
		url := create(q.Name+"-"+suffix[len(suffix)-10:], map[string]string{"RedrivePolicy": string(redrive)})
		queues[q.Name] = sqs.New(client, url, dead)
		urls = append(urls, url, dead)
	}
	env := environment(table, urls...)
	return queues, append(env, "AWS_ENDPOINT_URL_DYNAMODB="+dynamoEndpoint, "AWS_ENDPOINT_URL_SQS="+sqsEndpoint)
}

// environment is that of a function. The URLs are those of the runs and the deliveries, each followed by the dead-letter
// queue's.
func environment(table string, urls ...string) []string {
	return []string{
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
		"AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=WARN",
		config.TableKey + "=" + table,
		config.RunsURLKey + "=" + urls[0], config.RunsDeadURLKey + "=" + urls[1],
		config.DeliveriesURLKey + "=" + urls[2], config.DeliveriesDeadURLKey + "=" + urls[3],
		config.SealingKeyKey + "=k1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
		config.WorkspaceIDKey + "=" + workspaceID,
		config.WorkspaceTokenKey + "=" + workspace.Hash(workspaceToken),
		config.InternalTokenKey + "=" + workspace.Hash(internalToken),
		config.PrivateNetworksKey + "=127.0.0.0/8", // where the receiver is
	}
}

// call sends JSON, wants a status, and reads the answer.
func call(t *testing.T, method, url, token string, body any, status int, into any) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != status {
		t.Fatalf("%s %s: got %d %s, want %d", method, url, answer.StatusCode, got, status)
	}
	if err := json.Unmarshal(got, into); err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
}

// crew is the sample that is deployed: the one of the seed.
var crew = filepath.Join("..", "testevents", "crews", "lead-research")

func crewFile(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(crew, name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func crewFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(crew, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(crew, path)
		if err == nil {
			files[filepath.ToSlash(name)] = string(crewFile(t, name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
