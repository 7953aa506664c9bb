package invoke_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"muster/shared/fault"
	"muster/shared/invoke"
	"muster/shared/queue"
)

// event reads a file of testevents.
func event(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "testevents", path))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// edited reads a file of testevents and lets edit change it.
func edited(t *testing.T, path string, edit func(e *events.APIGatewayV2HTTPRequest)) []byte {
	t.Helper()
	var e events.APIGatewayV2HTTPRequest
	strict(t, event(t, path), &e)
	edit(&e)
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func strict(t *testing.T, raw []byte, into any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("decode %s: %v", raw, err)
	}
}

// answer calls an HTTP handler with an event.
func answer(t *testing.T, raw []byte, h http.HandlerFunc) events.APIGatewayV2HTTPResponse {
	t.Helper()
	out, err := invoke.HTTP(h).Invoke(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	var a events.APIGatewayV2HTTPResponse
	strict(t, out, &a)
	return a
}

func TestHTTPRequest(t *testing.T) {
	kickoff := event(t, "kickoff/kickoff.json")
	var sent events.APIGatewayV2HTTPRequest
	strict(t, kickoff, &sent)

	tests := []struct {
		name  string
		event []byte
		show  func(r *http.Request) string
		want  string
	}{
		{"the route's method and path arrive", kickoff,
			func(r *http.Request) string { return r.Method + " " + r.URL.Path + " " + r.RequestURI },
			"POST /kickoff /kickoff"},
		{"the body arrives whole, with its length", kickoff,
			func(r *http.Request) string { return fmt.Sprint(r.ContentLength, " ", text(r.Body)) },
			fmt.Sprint(len(sent.Body), " ", sent.Body)},
		{"a base64 body is decoded", edited(t, "kickoff/base64.json", func(e *events.APIGatewayV2HTTPRequest) { e.Body = "AP/+Zg==" }),
			func(r *http.Request) string { return text(r.Body) },
			"\x00\xff\xfef"},
		{"headers arrive under their canonical names", kickoff,
			func(r *http.Request) string {
				return r.Header.Get("Authorization") + ", " + r.Header.Get("Content-Type")
			},
			"Bearer mus_ws_testevents, application/json"},
		{"the host is the API's", kickoff,
			func(r *http.Request) string { return r.Host },
			"a1b2c3d4e5.execute-api.us-east-1.amazonaws.com"},
		{"without a host header the host is the domain", edited(t, "kickoff/kickoff.json", func(e *events.APIGatewayV2HTTPRequest) { delete(e.Headers, "host") }),
			func(r *http.Request) string { return r.Host },
			"a1b2c3d4e5.execute-api.us-east-1.amazonaws.com"},
		{"cookies arrive as one header", event(t, "api/list-runs.json"),
			func(r *http.Request) string { return r.Header.Get("Cookie") },
			"theme=dark; region=us-east-1"},
		{"the query string arrives as it was sent", edited(t, "api/list-runs.json", func(e *events.APIGatewayV2HTTPRequest) { e.RawQueryString = "a=1&a=2&b=x%20y" }),
			func(r *http.Request) string { q := r.URL.Query(); return fmt.Sprint(q["a"], q.Get("b")) },
			"[1 2]x y"},
		{"the caller's address is that of the gateway's peer", kickoff,
			func(r *http.Request) string { return r.RemoteAddr },
			"203.0.113.7:0"},
		{"an IPv6 address is bracketed", edited(t, "kickoff/kickoff.json", func(e *events.APIGatewayV2HTTPRequest) { e.RequestContext.HTTP.SourceIP = "2001:db8::7" }),
			func(r *http.Request) string { return r.RemoteAddr },
			"[2001:db8::7]:0"},
		{"the request id is the gateway's, whatever the caller claims", edited(t, "kickoff/kickoff.json", func(e *events.APIGatewayV2HTTPRequest) { e.Headers["x-request-id"] = "mine" }),
			func(r *http.Request) string { return r.Header.Get(invoke.RequestIDHeader) },
			"UjK2xh4uIAMEPqQ="},
		{"the name of a stage is no part of the path", edited(t, "api/status.json", func(e *events.APIGatewayV2HTTPRequest) {
			e.RequestContext.Stage, e.RawPath = "dev", "/dev/status/7"
		}),
			func(r *http.Request) string { return r.URL.Path },
			"/status/7"},
		{"a path that only begins like the stage stays whole", edited(t, "api/status.json", func(e *events.APIGatewayV2HTTPRequest) {
			e.RequestContext.Stage, e.RawPath = "dev", "/device/7"
		}),
			func(r *http.Request) string { return r.URL.Path },
			"/device/7"},
		{"the stage alone is the root", edited(t, "api/status.json", func(e *events.APIGatewayV2HTTPRequest) {
			e.RequestContext.Stage, e.RawPath = "dev", "/dev"
		}),
			func(r *http.Request) string { return r.URL.Path },
			"/"},
		{"an escaped path is decoded once", edited(t, "api/status.json", func(e *events.APIGatewayV2HTTPRequest) { e.RawPath = "/status/a%2Fb" }),
			func(r *http.Request) string { return r.URL.Path + " " + r.URL.EscapedPath() },
			"/status/a/b /status/a%2Fb"},
		{"a path that the gateway decoded already is taken as it is", edited(t, "api/status.json", func(e *events.APIGatewayV2HTTPRequest) { e.RawPath = "/status/100%" }),
			func(r *http.Request) string { return r.URL.Path },
			"/status/100%"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := answer(t, test.event, func(w http.ResponseWriter, r *http.Request) {
				if got := test.show(r); got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
			})
			if a.StatusCode != http.StatusOK {
				t.Errorf("got status %d, want 200", a.StatusCode)
			}
		})
	}
}

func text(r io.Reader) string {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

func TestHTTPResponse(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    events.APIGatewayV2HTTPResponse
	}{
		{"status, headers and text go back as they are",
			func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusAccepted)
				io.WriteString(w, `{"a":"ü"}`)
			},
			events.APIGatewayV2HTTPResponse{StatusCode: 202, Headers: map[string]string{"Content-Type": "application/json"}, Body: `{"a":"ü"}`}},
		{"a handler that says nothing has answered 200",
			func(w http.ResponseWriter, r *http.Request) {},
			events.APIGatewayV2HTTPResponse{StatusCode: 200, Headers: map[string]string{}}},
		{"what is not UTF-8 goes back as base64, with a type",
			func(w http.ResponseWriter, r *http.Request) { w.Write([]byte{0xff, 0xfe, 0x00}) },
			events.APIGatewayV2HTTPResponse{StatusCode: 200, Headers: map[string]string{"Content-Type": "application/octet-stream"}, Body: "//4A", IsBase64Encoded: true}},
		{"cookies have their own place and repeated headers are joined",
			func(w http.ResponseWriter, r *http.Request) {
				w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
				w.Header()["Muster-Warning"] = []string{"one", "two"}
				w.WriteHeader(http.StatusNoContent)
			},
			events.APIGatewayV2HTTPResponse{StatusCode: 204, Headers: map[string]string{"Muster-Warning": "one, two"}, Cookies: []string{"a=1", "b=2"}}},
		{"only the first status counts, and headers set after it are late",
			func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusEarlyHints)
				w.WriteHeader(http.StatusConflict)
				w.Header().Set("Late", "yes")
				w.WriteHeader(http.StatusOK)
			},
			events.APIGatewayV2HTTPResponse{StatusCode: 409, Headers: map[string]string{}}},
		{"a panic is a 500 that shows nothing of itself, also after half an answer",
			func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, "half")
				panic("secret")
			},
			events.APIGatewayV2HTTPResponse{StatusCode: 500, Headers: map[string]string{"Content-Type": "application/json"}, Body: `{"message":"Internal Server Error"}`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := answer(t, event(t, "api/inputs.json"), test.handler)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHTTPRefusesWhatIsNoRequest(t *testing.T) {
	tests := []struct {
		name  string
		event []byte
	}{
		{"an event of payload format 1.0", event(t, "kickoff/bad-event.json")},
		{"messages of a queue", event(t, "api/bad-event.json")},
		{"a body that is not the base64 it claims to be", edited(t, "kickoff/base64.json", func(e *events.APIGatewayV2HTTPRequest) { e.Body = "*" })},
		{"no JSON", []byte("POST /kickoff")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := func(w http.ResponseWriter, r *http.Request) { t.Error("the handler was called") }
			if out, err := invoke.HTTP(http.HandlerFunc(h)).Invoke(t.Context(), test.event); err == nil {
				t.Errorf("got the answer %s, want an error", out)
			}
		})
	}
}

// source is a queue that notes what it is asked, and fails when told to.
type source struct {
	mu      sync.Mutex
	hidden  map[string]time.Duration
	buried  map[string]string
	deleted []string
	fail    error
}

func (s *source) Delete(_ context.Context, receipt string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deleted = append(s.deleted, receipt)
	return s.fail
}

func (s *source) Hide(_ context.Context, receipt string, d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail == nil {
		s.hidden[receipt] = d
	}
	return s.fail
}

func (s *source) Bury(_ context.Context, m queue.Received, reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail == nil {
		s.buried[m.Receipt] = reason
	}
	return s.fail
}

// messages makes an event of messages whose body is also their id, with the receipt "receipt of <id>".
func messages(t *testing.T, ids ...string) []byte {
	t.Helper()
	var e events.SQSEvent
	for _, id := range ids {
		e.Records = append(e.Records, events.SQSMessage{MessageId: id, ReceiptHandle: "receipt of " + id, Body: id})
	}
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestBatchAnswers(t *testing.T) {
	handler := func(_ context.Context, m queue.Received) queue.Answer {
		switch m.Body {
		case "retry":
			return queue.RetryIn(5 * time.Minute)
		case "again":
			return queue.RetryIn(0)
		case "drop":
			return queue.Drop("no sense in it")
		case "panic":
			panic("oh")
		}
		return queue.Done()
	}
	tests := []struct {
		name   string
		batch  []string
		queue  error
		failed []string
		hidden map[string]time.Duration
		buried map[string]string
	}{
		{name: "what is done is not reported", batch: []string{"a", "b"}},
		{name: "what is to be retried is hidden for as long as wished, and reported",
			batch: []string{"a", "retry", "again"}, failed: []string{"retry", "again"},
			hidden: map[string]time.Duration{"receipt of retry": 5 * time.Minute, "receipt of again": 0}},
		{name: "what is dropped is buried with its reason and then done",
			batch: []string{"drop", "a"}, buried: map[string]string{"receipt of drop": "no sense in it"}},
		{name: "a panic costs its own message only, and lets it rest",
			batch: []string{"a", "panic", "b"}, failed: []string{"panic"},
			hidden: map[string]time.Duration{"receipt of panic": 30 * time.Second}},
		{name: "what can neither be hidden nor buried is reported all the same",
			batch: []string{"a", "retry", "drop"}, queue: errors.New("queue is down"), failed: []string{"retry", "drop"}},
		{name: "all may fail", batch: []string{"again", "panic", "retry"}, failed: []string{"again", "panic", "retry"},
			hidden: map[string]time.Duration{"receipt of again": 0, "receipt of panic": 30 * time.Second, "receipt of retry": 5 * time.Minute}},
		{name: "a message that came twice is reported once", batch: []string{"again", "a", "again"}, failed: []string{"again"},
			hidden: map[string]time.Duration{"receipt of again": 0}},
		{name: "a hidden message whose receipt no longer holds is reported",
			batch: []string{"retry"}, queue: fault.New(fault.NotFound, "gone"), failed: []string{"retry"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &source{hidden: map[string]time.Duration{}, buried: map[string]string{}, fail: test.queue}
			out, err := invoke.Batch(handler, s).Invoke(t.Context(), messages(t, test.batch...))
			if err != nil {
				t.Fatal(err)
			}
			want := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
			for _, id := range test.failed {
				want.BatchItemFailures = append(want.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: id})
			}
			var got events.SQSEventResponse
			strict(t, out, &got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			if len(s.hidden) != len(test.hidden) || !cmp.Equal(s.hidden, test.hidden) && len(s.hidden) > 0 {
				t.Errorf("hidden: got %v, want %v", s.hidden, test.hidden)
			}
			if len(s.buried) != len(test.buried) || !cmp.Equal(s.buried, test.buried) && len(s.buried) > 0 {
				t.Errorf("buried: got %v, want %v", s.buried, test.buried)
			}
		})
	}
}

func TestBatchGivesTheHandlerTheMessageAsItWasReceived(t *testing.T) {
	var mu sync.Mutex
	got := map[string]queue.Received{}
	handler := func(_ context.Context, m queue.Received) queue.Answer {
		mu.Lock()
		defer mu.Unlock()
		got[m.Receipt] = m
		return queue.Done()
	}
	out, err := invoke.Batch(handler, &source{}).Invoke(t.Context(), event(t, "runner/two-runs.json"))
	if err != nil {
		t.Fatal(err)
	}
	if string(out) != `{"batchItemFailures":[]}` {
		t.Errorf("got the answer %s, want an empty list", out)
	}
	var sent events.SQSEvent
	strict(t, event(t, "runner/two-runs.json"), &sent)
	want := map[string]queue.Received{}
	for i, m := range sent.Records {
		want[m.ReceiptHandle] = queue.Received{
			Message: queue.Message{Body: m.Body, Group: m.Attributes["MessageGroupId"]},
			ID:      m.MessageId, Receipt: m.ReceiptHandle, Receives: []int{1, 3}[i],
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("received (-want +got):\n%s", diff)
	}
}

func TestBatchHandlesItsMessagesAtTheSameTime(t *testing.T) {
	var together sync.WaitGroup
	together.Add(10)
	handler := func(context.Context, queue.Received) queue.Answer {
		together.Done()
		together.Wait() // would never return if one message waited for another
		return queue.Done()
	}
	ids := strings.Split("abcdefghij", "")
	if _, err := invoke.Batch(handler, &source{}).Invoke(t.Context(), messages(t, ids...)); err != nil {
		t.Fatal(err)
	}
}

// What is done in the company of a message that takes long is not in flight any more.
func TestBatchDeletesWhatIsDoneWhileAnotherMessageTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := func(ctx context.Context, m queue.Received) queue.Answer {
			switch m.Body {
			case "slow":
				time.Sleep(30 * time.Second)
			case "later":
				time.Sleep(5 * time.Second)
			case "retry":
				return queue.RetryIn(time.Minute)
			}
			return queue.Done()
		}
		s := &source{hidden: map[string]time.Duration{}, fail: errors.New("the queue is away")}
		answered := make(chan []byte, 1)
		go func() {
			out, err := invoke.Batch(handler, s).Invoke(t.Context(), messages(t, "fast", "slow", "retry", "later"))
			if err != nil {
				t.Error(err)
			}
			answered <- out
		}()
		for _, c := range []struct {
			after time.Duration
			want  []string
		}{
			{900 * time.Millisecond, nil},
			{time.Second, []string{"receipt of fast"}},
			{4 * time.Second, []string{"receipt of fast", "receipt of later"}},
		} {
			time.Sleep(c.after)
			synctest.Wait()
			s.mu.Lock()
			if diff := cmp.Diff(c.want, s.deleted); diff != "" {
				t.Errorf("after %s more (-want +got):\n%s", c.after, diff)
			}
			s.mu.Unlock()
		}
		if out := string(<-answered); out != `{"batchItemFailures":[{"itemIdentifier":"retry"}]}` {
			t.Errorf("the answer is %s", out)
		}
	})
}

func TestBatchRefusesWhatIsNoBatch(t *testing.T) {
	tests := []struct {
		name  string
		event []byte
	}{
		{"no records", event(t, "runner/bad-event.json")},
		{"a record without id and receipt", event(t, "dispatcher/bad-event.json")},
		{"a request", event(t, "kickoff/kickoff.json")},
		{"no JSON", []byte("[")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := func(context.Context, queue.Received) queue.Answer {
				t.Error("the handler was called")
				return queue.Done()
			}
			if out, err := invoke.Batch(h, &source{}).Invoke(t.Context(), test.event); err == nil {
				t.Errorf("got the answer %s, want an error: an answer would delete the messages", out)
			}
		})
	}
}

func TestTick(t *testing.T) {
	tests := []struct {
		name   string
		event  []byte
		tick   func(context.Context) error
		called bool
		fails  bool
	}{
		{"a tick calls the function", event(t, "sweeper/tick.json"), func(context.Context) error { return nil }, true, false},
		{"what the function fails with is the invocation's error", event(t, "sweeper/tick.json"), func(context.Context) error { return errors.New("no") }, true, true},
		{"a panic is the invocation's error, and the process lives", event(t, "sweeper/tick.json"), func(context.Context) error { panic("no") }, true, true},
		{"another event of the bus is refused", event(t, "sweeper/bad-event.json"), func(context.Context) error { return nil }, false, true},
		{"no JSON is refused", []byte("tick"), func(context.Context) error { return nil }, false, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			called := false
			out, err := invoke.Tick(func(ctx context.Context) error { called = true; return test.tick(ctx) }).Invoke(t.Context(), test.event)
			if called != test.called || (err != nil) != test.fails {
				t.Errorf("called %v, error %v; want called %v, failing %v", called, err, test.called, test.fails)
			}
			if err == nil && string(out) != "null" {
				t.Errorf("got the answer %s, want null", out)
			}
		})
	}
}

func TestHandlersEndASecondBeforeTheFunction(t *testing.T) {
	var ended time.Duration
	wait := func(ctx context.Context) {
		start := time.Now()
		<-ctx.Done()
		ended = time.Since(start)
	}
	tests := []struct {
		name   string
		invoke func(ctx context.Context) error
	}{
		{"HTTP", func(ctx context.Context) error {
			h := func(w http.ResponseWriter, r *http.Request) { wait(r.Context()) }
			_, err := invoke.HTTP(http.HandlerFunc(h)).Invoke(ctx, event(t, "api/inputs.json"))
			return err
		}},
		{"Batch", func(ctx context.Context) error {
			s := &source{hidden: map[string]time.Duration{}}
			h := func(ctx context.Context, m queue.Received) queue.Answer { wait(ctx); return queue.RetryIn(0) }
			_, err := invoke.Batch(h, s).Invoke(ctx, event(t, "runner/run.json"))
			if len(s.hidden) != 1 || ctx.Err() != nil {
				t.Error("the margin does not suffice to hide the message")
			}
			return err
		}},
		{"Tick", func(ctx context.Context) error {
			_, err := invoke.Tick(func(ctx context.Context) error { wait(ctx); return nil }).Invoke(ctx, event(t, "sweeper/tick.json"))
			return err
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
				defer cancel()
				if err := test.invoke(ctx); err != nil {
					t.Fatal(err)
				}
				if want := 15*time.Minute - time.Second; ended != want {
					t.Errorf("the handler's context ended after %v, want %v", ended, want)
				}
			})
		})
	}
}

func FuzzInvoke(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("..", "..", "testevents", "*", "*.json"))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	http := invoke.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	batch := invoke.Batch(func(context.Context, queue.Received) queue.Answer { return queue.Done() }, &source{})
	tick := invoke.Tick(func(context.Context) error { return nil })
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, h := range []interface {
			Invoke(context.Context, []byte) ([]byte, error)
		}{http, batch, tick} {
			if out, err := h.Invoke(t.Context(), raw); err == nil && !json.Valid(out) {
				t.Errorf("the answer %q is no JSON", out)
			}
		}
	})
}
