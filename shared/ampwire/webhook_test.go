package ampwire_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/events"
	"muster/shared/ampwire"
	"muster/shared/run"
	"muster/shared/webhook"
)

// seed reads an example of the wire's own documents, as it goes over the wire.
func seed(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := webhook.Canonical(raw)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// example reads the values of such an example, to put them where the engine would.
func example(t *testing.T, name string) (v struct {
	Prompt, Thought, Tool, Result     string
	Description, Name, Summary, Agent string
	Output                            string
	ToolInput                         string          `json:"tool_input"`
	ExpectedOutput                    string          `json:"expected_output"`
	OutputJSON                        json.RawMessage `json:"output_json"`
	ResultJSON                        json.RawMessage `json:"result_json"`
	TokenUsage                        run.Usage       `json:"token_usage"`
}) {
	t.Helper()
	if err := json.Unmarshal([]byte(seed(t, name)), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

var (
	seedRun     = run.Run{ID: "97eba64f-958c-40a0-b61c-625fe635a3c0"}
	seedRequest = run.Request{Meta: json.RawMessage(`{"requestId": "travel-req-123", "source": "web-app"}`)}
)

func only(t *testing.T, bodies []webhook.Body, err error) string {
	t.Helper()
	if err != nil || len(bodies) != 1 {
		t.Fatalf("got %d bodies, %v; want one", len(bodies), err)
	}
	if bodies[0].Halves != nil {
		t.Error("a body of one thing can be cut")
	}
	return string(bodies[0].JSON)
}

func TestBodiesAreThoseOfTheSeed(t *testing.T) {
	step, task, crew := example(t, "step"), example(t, "task"), example(t, "crew")
	page := run.Page{
		Seq:   9,
		Notes: []run.Note{{Prompt: step.Prompt, Thought: step.Thought, Tool: step.Tool, ToolInput: step.ToolInput, Result: step.Result}},
		Tasks: []run.TaskOutput{{
			TaskID: "t-1", Description: task.Description, Name: task.Name, ExpectedOutput: task.ExpectedOutput, Summary: task.Summary,
			Raw: task.Output, JSON: task.OutputJSON, Agent: task.Agent,
		}},
		Totals:  run.Totals{Usage: crew.TokenUsage},
		Outcome: &run.Outcome{State: run.Succeeded, Result: crew.Result, JSON: crew.ResultJSON},
	}
	for name, format := range map[string]func(run.Run, run.Request, run.Page, run.Target, []json.RawMessage) ([]webhook.Body, error){
		"step": ampwire.Step, "task": ampwire.Task, "crew": ampwire.Crew,
	} {
		bodies, err := format(seedRun, seedRequest, page, run.Target{}, nil)
		if diff := cmp.Diff(seed(t, name), only(t, bodies, err)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func noLink(run.Run, run.Asked, string) (string, error) { return "", nil }

func TestEveryKeyIsAlwaysThere(t *testing.T) {
	r := run.Run{ID: "k"}
	usage := run.Totals{Usage: run.Usage{TotalTokens: 3, PromptTokens: 2, CompletionTokens: 1, SuccessfulRequests: 1}}
	for _, c := range []struct {
		name   string
		format func(run.Run, run.Request, run.Page, run.Target, []json.RawMessage) ([]webhook.Body, error)
		page   run.Page
		want   string
	}{
		{"a question", ampwire.HumanInput(noLink), run.Page{Asked: &run.Asked{ID: "apr_1", Round: 2, Task: run.TaskOutput{TaskID: "t", Name: "draft", Raw: "text"}}},
			`{"kickoff_id":"k","execution_id":"k","task_id":"t","task_output":"text","meta":null,"task_name":"draft","request_id":"apr_1","round":2,"expires_at":null}`},
		{"a question with links and an end", ampwire.HumanInput(func(_ run.Run, q run.Asked, answer string) (string, error) {
			return "https://m/" + q.ID + "/" + answer, nil
		}),
			run.Page{Asked: &run.Asked{ID: "apr_1", Round: 1, Expires: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}},
			`{"kickoff_id":"k","execution_id":"k","task_id":"","task_output":"","meta":null,"task_name":"","request_id":"apr_1","round":1,"expires_at":"2030-01-01T00:00:00.000Z","approve_url":"https://m/apr_1/approve","reject_url":"https://m/apr_1/reject"}`},
		{"a thought without a tool", ampwire.Step, run.Page{Notes: []run.Note{{Prompt: "p", Thought: "<b>&"}}},
			`{"prompt":"p","thought":"<b>&","tool":null,"tool_input":null,"result":null,"kickoff_id":"k","meta":null}`},
		{"a tool without input and result", ampwire.Step, run.Page{Notes: []run.Note{{Tool: "t"}}},
			`{"prompt":"","thought":"","tool":"t","tool_input":"","result":"","kickoff_id":"k","meta":null}`},
		{"a task with free text", ampwire.Task, run.Page{Tasks: []run.TaskOutput{{Raw: "text"}}},
			`{"description":"","name":"","expected_output":"","summary":"","agent":"","output":"text","output_json":null,"kickoff_id":"k","meta":null}`},
		{"a run that succeeded", ampwire.Crew, run.Page{Totals: usage, Outcome: &run.Outcome{State: run.Succeeded, Result: "r"}},
			`{"kickoff_id":"k","result":"r","result_json":null,"token_usage":{"total_tokens":3,"prompt_tokens":2,"completion_tokens":1},"meta":null}`},
		{"a run that failed", ampwire.Crew, run.Page{Totals: usage, Outcome: &run.Outcome{State: run.Failed, Result: "half", Error: "The model is down."}},
			`{"kickoff_id":"k","result":null,"result_json":null,"token_usage":{"total_tokens":3,"prompt_tokens":2,"completion_tokens":1},"meta":null,"status":"FAILED","error":"The model is down."}`},
		{"a run that ran out of time", ampwire.Crew, run.Page{Outcome: &run.Outcome{State: run.TimedOut, Error: "Too slow."}},
			`{"kickoff_id":"k","result":null,"result_json":null,"token_usage":{"total_tokens":0,"prompt_tokens":0,"completion_tokens":0},"meta":null,"status":"FAILED","error":"Too slow."}`},
		{"a run that was stopped", ampwire.Crew, run.Page{Outcome: &run.Outcome{State: run.Canceled}},
			`{"kickoff_id":"k","result":null,"result_json":null,"token_usage":{"total_tokens":0,"prompt_tokens":0,"completion_tokens":0},"meta":null,"status":"REVOKED","error":"Task was stopped"}`},
	} {
		bodies, err := c.format(r, run.Request{}, c.page, run.Target{}, nil)
		if diff := cmp.Diff(c.want, only(t, bodies, err)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestAPageWithNothingToTellMakesNoBody(t *testing.T) {
	for name, format := range map[string]func(run.Run, run.Request, run.Page, run.Target, []json.RawMessage) ([]webhook.Body, error){
		"step": ampwire.Step, "task": ampwire.Task, "crew": ampwire.Crew, "stream": ampwire.Stream, "human_input": ampwire.HumanInput(noLink),
	} {
		if bodies, err := format(seedRun, seedRequest, run.Page{}, run.Target{Kind: run.StreamTarget, Events: []string{"*"}}, nil); err != nil || len(bodies) != 0 {
			t.Errorf("%s: %d bodies, %v", name, len(bodies), err)
		}
	}
}

// event makes an event of a custom type with some bytes of data.
func event(n, size int) events.Event {
	return events.Event{
		ID: fmt.Sprintf("event-%d", n), N: int64(n), At: time.Date(2025, 2, 16, 10, 58, 44, n*1e6, time.UTC), Type: fmt.Sprintf("type.%d", n%3),
		Data: json.RawMessage(fmt.Sprintf(`{"text":%q}`, strings.Repeat("x", size))),
	}
}

type streamBody struct {
	Events []struct {
		ID          string
		ExecutionID string `json:"execution_id"`
		Timestamp   string
		Type        string
		Data        map[string]any
	}
	Meta json.RawMessage
}

func read(t interface{ Fatal(...any) }, b webhook.Body) (s streamBody) {
	d := json.NewDecoder(bytes.NewReader(b.JSON))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStreamShowsTheConversationOfItsPage(t *testing.T) {
	messages := []json.RawMessage{
		json.RawMessage(`{"role":"system","content":"You are an assistant."}`),
		json.RawMessage(`{"role":"user","content":"Summarize this article."}`),
	}
	page := run.Page{Events: []events.Event{{
		ID: "event-id", N: 4, At: time.Date(2025, 2, 16, 10, 58, 44, 965e6, time.UTC), Type: "llm_call_started",
		Data: json.RawMessage(`{"model":"gpt-4"}`), Prompt: true,
	}}}
	bodies, err := ampwire.Stream(run.Run{ID: "crew-run-id"}, run.Request{}, page, run.Target{Kind: run.StreamTarget, Events: []string{"llm_call_started"}}, messages)
	body := only(t, bodies, err)
	if strings.Contains(body, `"meta"`) {
		t.Errorf("there is a meta that the kickoff did not give: %s", body)
	}
	got := read(t, bodies[0]).Events[0]
	if got.ID != "event-id" || got.ExecutionID != "crew-run-id" || got.Timestamp != "2025-02-16T10:58:44.965Z" || got.Type != "llm_call_started" {
		t.Errorf("got %+v", got)
	}
	want := []any{
		map[string]any{"role": "system", "content": "You are an assistant."},
		map[string]any{"role": "user", "content": "Summarize this article."},
	}
	if diff := cmp.Diff(want, got.Data["messages"]); diff != "" || got.Data["model"] != "gpt-4" {
		t.Errorf("model %v, messages (-want +got):\n%s", got.Data["model"], diff)
	}
}

func TestStreamBatches(t *testing.T) {
	var many, large []events.Event
	for n := 1; n <= 250; n++ {
		many = append(many, event(n, 10))
	}
	for n, size := range []int{100 << 10, 100 << 10, 100 << 10, 300 << 10, 10, 10} {
		large = append(large, event(n+1, size))
	}
	for _, c := range []struct {
		name   string
		events []events.Event
		target run.Target
		want   []int
	}{
		{"at most a hundred events a POST", many, run.Target{Events: []string{"*"}}, []int{100, 100, 50}},
		{"only the events asked for", many[:9], run.Target{Events: []string{"type.0", "type.1"}}, []int{6}},
		{"one event a POST in real time", many[:3], run.Target{Events: []string{"*"}, Realtime: true}, []int{1, 1, 1}},
		{"at most 256 KB a POST, and a larger event alone", large, run.Target{Events: []string{"*"}}, []int{2, 1, 1, 2}},
		{"nothing asked for, nothing sent", many, run.Target{Events: []string{"other"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.target.Kind = run.StreamTarget
			bodies, err := ampwire.Stream(seedRun, seedRequest, run.Page{Events: c.events}, c.target, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for _, b := range bodies {
				s := read(t, b)
				got = append(got, len(s.Events))
				if diff := cmp.Diff(`{"requestId":"travel-req-123","source":"web-app"}`, string(s.Meta)); diff != "" {
					t.Errorf("meta (-want +got):\n%s", diff)
				}
				if len(s.Events) > 1 && len(b.JSON) > 257<<10 {
					t.Errorf("a body of %d events has %d bytes", len(s.Events), len(b.JSON))
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("events per body (-want +got):\n%s", diff)
			}
		})
	}
}

// Cutting a body again and again gives every event once, in order, in bodies that are canonical.
func TestHalvesHoldEveryEventOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var page run.Page
		var want []string
		for n := range rapid.IntRange(1, 40).Draw(t, "events") {
			page.Events = append(page.Events, event(n, 1))
			want = append(want, page.Events[n].ID)
		}
		bodies, err := ampwire.Stream(seedRun, seedRequest, page, run.Target{Kind: run.StreamTarget, Events: []string{"*"}}, nil)
		if err != nil || len(bodies) != 1 {
			t.Fatalf("%d bodies, %v", len(bodies), err)
		}
		var got []string
		var cut func(webhook.Body)
		cut = func(b webhook.Body) {
			if again, err := webhook.Canonical(b.JSON); err != nil || !bytes.Equal(again, b.JSON) {
				t.Fatalf("not canonical: %v\n%s", err, b.JSON)
			}
			if b.Halves == nil {
				s := read(t, b)
				if len(s.Events) != 1 {
					t.Fatalf("%d events cannot be cut", len(s.Events))
				}
				got = append(got, s.Events[0].ID)
				return
			}
			first, second := b.Halves()
			cut(first)
			cut(second)
		}
		cut(bodies[0])
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("events (-want +got):\n%s", diff)
		}
	})
}

// An endpoint on this wire may ask for where a run stands, and is sent the event that says so here, once.
func TestStreamsOfEndpoints(t *testing.T) {
	end := func(state run.State, typ string) run.Page {
		return run.Page{Kind: run.EndPage, Outcome: &run.Outcome{State: state}, Events: []events.Event{{ID: "t", Type: "task_completed"}, {ID: "e", Type: typ}}}
	}
	for _, c := range []struct {
		filter []string
		page   run.Page
		want   string
	}{
		{[]string{"run.succeeded"}, end(run.Succeeded, "crew_kickoff_completed"), "crew_kickoff_completed"},
		{[]string{"run.failed"}, end(run.TimedOut, "crew_kickoff_failed"), "crew_kickoff_failed"},
		{[]string{"run.failed"}, end(run.Canceled, "crew_kickoff_failed"), ""},
		{[]string{"run.canceled", "crew_kickoff_failed"}, end(run.Canceled, "crew_kickoff_failed"), "crew_kickoff_failed"},
		{[]string{"run.started"}, run.Page{Events: []events.Event{{Type: "crew_kickoff_started"}}}, "crew_kickoff_started"},
		{[]string{"run.waiting"}, run.Page{Kind: run.QuestionPage, Events: []events.Event{{Type: "human_feedback_requested"}}}, "human_feedback_requested"},
		{[]string{"*"}, end(run.Succeeded, "crew_kickoff_completed"), "task_completed crew_kickoff_completed"},
	} {
		bodies, err := ampwire.Stream(seedRun, seedRequest, c.page, run.Target{Kind: run.EndpointTarget, Events: c.filter}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var types []string
		for _, b := range bodies {
			var body struct{ Events []struct{ Type string } }
			if err := json.Unmarshal(b.JSON, &body); err != nil {
				t.Fatal(err)
			}
			for _, e := range body.Events {
				types = append(types, e.Type)
			}
		}
		if got := strings.Join(types, " "); got != c.want {
			t.Errorf("%v: sent %q, want %q", c.filter, got, c.want)
		}
	}
}
