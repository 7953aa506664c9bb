package openai

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/openai/openai-go/v3/option"

	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/engine/llm/scripted"
	"muster/shared/guard"
)

const key = "sk-the-key-of-this-test"

func open(s *scripted.Server) *Model {
	m := New(llm.Endpoint{
		Name: "openai/gpt-4.1-mini", Model: "gpt-4.1-mini", BaseURL: s.URL, APIKey: key, Timeout: time.Minute, HTTP: guard.New(guard.Options{AllowLoopback: true}).HTTP(),
	}).(*Model)
	// Retries after a lost connection wait half a second and more; nothing here depends on it.
	m.options = append(m.options, option.WithMaxRetryDelay(time.Millisecond))
	return m
}

func ask(m llm.Model, stream bool, text string) (llm.Reply, []llm.Chunk, error) {
	var chunks []llm.Chunk
	c := llm.Call{Messages: []llm.Message{{Role: llm.System, Content: "You are a clerk."}, {Role: llm.User, Content: text}}}
	if stream {
		c.Chunk = func(piece llm.Chunk) { chunks = append(chunks, piece) }
	}
	r, err := m.Call(context.Background(), c)
	return r, chunks, err
}

func TestAnAnswerIsTheSameWholeAndStreamed(t *testing.T) {
	usage := llm.Usage{PromptTokens: 11, CompletionTokens: 7, TotalTokens: 18, CachedPromptTokens: 3, ReasoningTokens: 2, CacheCreationTokens: 1}
	both := scripted.Use("look_up", map[string]any{"query": "prices in €"})
	both.Text = "Let me look."
	cases := map[string]struct {
		reply  scripted.Reply
		finish string
	}{
		"text":                {scripted.Reply{Text: "Two words, and three more.", Usage: &usage}, "stop"},
		"a tool call":         {scripted.Reply{ToolCalls: scripted.Use("look_up", map[string]any{"query": "prices"}).ToolCalls, Usage: &usage}, "tool_calls"},
		"text and tool calls": {scripted.Reply{Text: both.Text, ToolCalls: append(both.ToolCalls, both.ToolCalls...), Usage: &usage}, "tool_calls"},
		"cut by max_tokens":   {scripted.Reply{Text: "Half a", FinishReason: "length", Usage: &usage}, "length"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			m := open(scripted.New(t, scripted.Sequence(c.reply)))
			for _, stream := range []bool{false, true} {
				got, chunks, err := ask(m, stream, "What does it cost?")
				if err != nil {
					t.Fatalf("stream %v: %v", stream, err)
				}
				if got.Text != c.reply.Text || got.FinishReason != c.finish || got.ResponseID == "" {
					t.Errorf("stream %v: got %+v", stream, got)
				}
				if diff := cmp.Diff(usage, got.Usage); diff != "" {
					t.Errorf("stream %v: usage (-want +got):\n%s", stream, diff)
				}
				if len(got.ToolCalls) != len(c.reply.ToolCalls) {
					t.Fatalf("stream %v: got %d tool calls, want %d", stream, len(got.ToolCalls), len(c.reply.ToolCalls))
				}
				for i, call := range got.ToolCalls {
					if diff := cmp.Diff(c.reply.ToolCalls[i].Function, call.Function); diff != "" || call.ID == "" || call.Type != "function" {
						t.Errorf("stream %v: call %+v (-want +got):\n%s", stream, call, diff)
					}
				}
				if stream {
					checkChunks(t, got, chunks)
				}
			}
		})
	}
}

// checkChunks holds that the pieces of text join to the text, and that each call's last piece is the call.
func checkChunks(t *testing.T, r llm.Reply, chunks []llm.Chunk) {
	t.Helper()
	var text strings.Builder
	last := map[int]llm.ToolCall{}
	for _, c := range chunks {
		text.WriteString(c.Text)
		if c.ToolCall != nil {
			if !strings.HasPrefix(c.ToolCall.Function.Arguments, last[c.Index].Function.Arguments) {
				t.Errorf("arguments %q do not grow from %q", c.ToolCall.Function.Arguments, last[c.Index].Function.Arguments)
			}
			last[c.Index] = *c.ToolCall
		}
		if c.ResponseID != r.ResponseID {
			t.Errorf("chunk of %q in response %q", c.ResponseID, r.ResponseID)
		}
	}
	if text.String() != r.Text {
		t.Errorf("pieces join to %q, the answer is %q", text.String(), r.Text)
	}
	for i, call := range r.ToolCalls {
		if diff := cmp.Diff(call, last[i]); diff != "" {
			t.Errorf("last piece of call %d (-answer +piece):\n%s", i, diff)
		}
	}
}

func TestTheRequestCarriesEverythingAndNothingElse(t *testing.T) {
	// What the SDK's own client would take from the environment must not reach a server.
	t.Setenv("OPENAI_API_KEY", "sk-of-the-operator")
	t.Setenv("OPENAI_ORG_ID", "org-of-the-operator")
	t.Setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: of the operator")
	s := scripted.New(t, scripted.Sequence(scripted.Text("yes")))
	f, i := 0.5, int64(7)
	messages := []llm.Message{
		{Role: llm.System, Content: "You are a clerk."},
		{Role: llm.User, Content: "Look it up."},
		{Role: llm.Assistant, ToolCalls: []llm.ToolCall{{ID: "call_1", Type: "function", Function: llm.FunctionCall{Name: "look_up", Arguments: `{"query":"it"}`}}}},
		{Role: llm.Tool, Content: "Nothing found.", ToolCallID: "call_1", Name: "look_up"},
		{Role: llm.Assistant, Content: "Now it is your turn."},
	}
	_, err := open(s).Call(context.Background(), llm.Call{
		Messages: messages,
		Tools: []llm.Function{{Name: "look_up", Description: "Looks it up.", Parameters: json.RawMessage(
			`{"type":"object","properties":{"query":{"type":"string"}},"required":["query"],"additionalProperties":false}`)}},
		Options: crew.ModelOptions{Temperature: &f, TopP: &f, MaxTokens: &i, Seed: &i, Stop: []string{"\nObservation:"},
			FrequencyPenalty: &f, PresencePenalty: &f, ReasoningEffort: "low"},
		Schema: json.RawMessage(`{"type":"object","properties":{"answer":{"type":"string"},"note":{"type":"string"}},"required":["answer"]}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	call := s.Calls()[0]
	want := `{
		"model": "gpt-4.1-mini",
		"messages": [
			{"role": "system", "content": "You are a clerk."},
			{"role": "user", "content": "Look it up."},
			{"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{\"query\":\"it\"}"}}]},
			{"role": "tool", "content": "Nothing found.", "tool_call_id": "call_1"},
			{"role": "assistant", "content": "Now it is your turn."}],
		"tools": [{"type": "function", "function": {"name": "look_up", "description": "Looks it up.", "strict": true,
			"parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"], "additionalProperties": false}}}],
		"temperature": 0.5, "top_p": 0.5, "max_tokens": 7, "seed": 7, "stop": ["\nObservation:"],
		"frequency_penalty": 0.5, "presence_penalty": 0.5, "reasoning_effort": "low",
		"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema":
			{"type": "object", "properties": {"answer": {"type": "string"}, "note": {"type": "string"}}, "required": ["answer", "note"], "additionalProperties": false}}}
	}`
	if diff := cmp.Diff(decode(t, want), decode(t, string(call.Body))); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	if got := call.Header.Get("Authorization"); got != "Bearer "+key {
		t.Errorf("Authorization is %q", got)
	}
	for name, values := range call.Header {
		if strings.Contains(strings.Join(values, " "), "operator") {
			t.Errorf("the header %s tells something of the operator", name)
		}
	}
}

func decode(t *testing.T, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWhatGoesWrongIsASentence(t *testing.T) {
	deep := strings.Repeat(`{"error":`, 20000)
	cases := []struct {
		name         string
		reply        scripted.Reply
		whole        string
		streamed     string // "" for the same
		wantAttempts int
	}{
		{"a rate limit is tried three times", scripted.Fail(429, "You exceeded your quota."),
			"The model openai/gpt-4.1-mini answered 429 (rate limit): You exceeded your quota.", "", 3},
		{"a server error too", scripted.Fail(500, ""), "The model openai/gpt-4.1-mini answered 500 (internal server error).", "", 3},
		{"an error page is not quoted", scripted.Reply{Status: 502, Raw: "<html>Bad gateway</html>"},
			"The model openai/gpt-4.1-mini answered 502 (bad gateway).", "", 3},
		{"an error that is only text is quoted", scripted.Reply{Status: 404, Raw: `{"error":"model \"x\" not found"}`},
			`The model openai/gpt-4.1-mini answered 404 (not found): model "x" not found.`, "", 1},
		{"a refused key is not quoted", scripted.Fail(401, "Incorrect API key provided: "+key),
			"The model openai/gpt-4.1-mini answered 401 (the key is missing or not accepted).", "", 1},
		{"a key in another error is hidden", scripted.Fail(400, "Bad header Authorization: Bearer "+key+" and sk-proj-abcdefgh"),
			"The model openai/gpt-4.1-mini answered 400 (bad request): Bad header Authorization: [hidden] and [hidden].", "", 1},
		{"an error nested too deep to read", scripted.Reply{Status: 400, Raw: deep},
			"The model openai/gpt-4.1-mini answered 400 (bad request).", "", 1},
		{"a redirect is not followed", scripted.Reply{Status: 307, Raw: "elsewhere"},
			"The model openai/gpt-4.1-mini redirected the call to another address, which is not followed.", "", 1},
		{"nothing", scripted.Reply{}, "The model openai/gpt-4.1-mini gave an empty answer.", "", 1},
		{"no tokens left", scripted.Reply{FinishReason: "length"},
			"The model openai/gpt-4.1-mini gave an empty answer: its tokens ran out before the first word (raise max_tokens).", "", 1},
		{"a content filter", scripted.Reply{FinishReason: "content_filter"},
			"The model openai/gpt-4.1-mini gave no answer: the provider's content filter stopped it.", "", 1},
		{"no choices", scripted.Reply{Raw: `{"choices":[]}`}, "The model openai/gpt-4.1-mini gave an empty answer.",
			"The model openai/gpt-4.1-mini answered something that is not JSON of the OpenAI protocol.", 1},
		{"another protocol", scripted.Reply{Raw: `{"hello":"world"}`}, "The model openai/gpt-4.1-mini answered something that is not JSON of the OpenAI protocol.", "", 1},
		{"JSON of a wrong shape", scripted.Reply{Raw: `{"choices":"none"}`}, "The model openai/gpt-4.1-mini answered something that is not JSON of the OpenAI protocol.", "", 1},
		{"half of a JSON", scripted.Reply{Raw: `{"choices":[{"message":{"content":"Hal`},
			"The model openai/gpt-4.1-mini broke off its answer in the middle.",
			"The model openai/gpt-4.1-mini answered something that is not JSON of the OpenAI protocol.", 1},
		{"a broken event", scripted.Reply{Raw: "data: {\"choices\"\n\n"},
			"The model openai/gpt-4.1-mini answered something that is not JSON of the OpenAI protocol.", "", 1},
		{"a call of no tool", scripted.Reply{ToolCalls: []llm.ToolCall{{}}}, "The model openai/gpt-4.1-mini asked for a tool without saying which.", "", 1},
		{"a lost connection", scripted.Reply{Text: "one two three", Drop: true},
			"The model openai/gpt-4.1-mini could not be reached: The connection was closed before the answer was complete.",
			"The model openai/gpt-4.1-mini broke off its answer in the middle.", 0},
		{"too much", scripted.Reply{Raw: "data: {}\n\n" + strings.Repeat(": filler\n", maxAnswer/8)},
			"The model openai/gpt-4.1-mini answered more than 16 MiB.", "", 1},
		{"a stream with an error inside", scripted.Reply{Raw: "data: {\"error\":{\"message\":\"Out of memory.\"}}\n\n"},
			"The model openai/gpt-4.1-mini answered something that is not JSON of the OpenAI protocol.",
			"The model openai/gpt-4.1-mini broke off its answer with an error of its own: Out of memory.", 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, stream := range []bool{false, true} {
				s := scripted.New(t, scripted.Sequence(c.reply))
				want := c.whole
				if stream && c.streamed != "" {
					want = c.streamed
				}
				_, _, err := ask(open(s), stream, "Well?")
				if err == nil || err.Error() != want {
					t.Errorf("stream %v:\n got %v\nwant %s", stream, err, want)
				}
				if got := len(s.Calls()); c.wantAttempts != 0 && got != c.wantAttempts {
					t.Errorf("stream %v: got %d attempts, want %d", stream, got, c.wantAttempts)
				}
			}
		})
	}
}

func TestAStreamWithoutItsEndIsAnError(t *testing.T) {
	s := scripted.New(t, scripted.Sequence(scripted.Reply{Text: "one two three four", Cut: true}))
	_, chunks, err := ask(open(s), true, "Well?")
	if want := "The model openai/gpt-4.1-mini broke off its answer in the middle."; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if len(chunks) == 0 {
		t.Error("the pieces that came were not passed on")
	}
}

func TestARetryThatSucceedsIsNoError(t *testing.T) {
	s := scripted.New(t, scripted.Sequence(scripted.Fail(429, "slow down"), scripted.Fail(503, ""), scripted.Text("There.")))
	r, _, err := ask(open(s), false, "Well?")
	if err != nil || r.Text != "There." {
		t.Fatalf("got %q, %v", r.Text, err)
	}
	if calls := s.Calls(); len(calls) != 3 || calls[2].Attempt != 2 || calls[0].Digest != calls[2].Digest || s.Answered()[calls[0].Digest] != 1 {
		t.Errorf("got %d calls, %v answered", len(calls), s.Answered())
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	for _, stream := range []bool{false, true} {
		ctx, cancel := context.WithCancel(context.Background())
		s := scripted.New(t, func(scripted.Request) scripted.Reply {
			cancel()
			return scripted.Reply{Wait: make(chan struct{})}
		})
		c := llm.Call{Messages: []llm.Message{{Role: llm.User, Content: "Well?"}}}
		if stream {
			c.Chunk = func(llm.Chunk) {}
		}
		if _, err := open(s).Call(ctx, c); !errors.Is(err, context.Canceled) {
			t.Errorf("stream %v: got %v", stream, err)
		}
	}
}

func TestAnEndpointThatIsSilentOrDown(t *testing.T) {
	s := scripted.New(t, func(scripted.Request) scripted.Reply { return scripted.Reply{Wait: make(chan struct{})} })
	m := open(s)
	m.options = append(m.options, option.WithRequestTimeout(20*time.Millisecond))
	if _, _, err := ask(m, false, "Well?"); err == nil || err.Error() != "The model openai/gpt-4.1-mini did not answer in time." {
		t.Errorf("silent: got %v", err)
	}
	s.Close()
	if _, _, err := ask(open(s), false, "Well?"); err == nil || err.Error() != "The model openai/gpt-4.1-mini could not be reached: The connection was refused." {
		t.Errorf("down: got %v", err)
	}
}

func TestUsageUnderOtherSpellings(t *testing.T) {
	s := scripted.New(t, scripted.Sequence(scripted.Reply{Raw: `{"id":"x","choices":[{"message":{"content":"yes"},"finish_reason":"stop"}],
		"usage":{"input_tokens":5,"output_tokens":2,"cache_read_input_tokens":3,"total_tokens":-4}}`}))
	r, _, err := ask(open(s), false, "Well?")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(llm.Usage{PromptTokens: 5, CompletionTokens: 2, TotalTokens: 7, CachedPromptTokens: 3}, r.Usage); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestModelsWithoutTools(t *testing.T) {
	for model, want := range map[string]bool{"gpt-4.1-mini": true, "gemma2:2b": false, "gemma2": false, "llama3.1": true, "llama3:8b": false, "o1-mini": false} {
		if got := New(llm.Endpoint{Model: model, HTTP: http.DefaultClient}).Tools(); got != want {
			t.Errorf("%s: got %v, want %v", model, got, want)
		}
	}
}

func TestMaxTokensOfModelsThatReason(t *testing.T) {
	for model, want := range map[string]string{"gpt-4.1-mini": "max_tokens", "o3-mini": "max_completion_tokens", "gpt-5.4-mini": "max_completion_tokens"} {
		s := scripted.New(t, scripted.Sequence(scripted.Text("yes")))
		m := open(s)
		m.endpoint.Model = model
		n := int64(9)
		if _, err := m.Call(context.Background(), llm.Call{Messages: []llm.Message{{Role: llm.User, Content: "?"}}, Options: crew.ModelOptions{MaxTokens: &n}}); err != nil {
			t.Fatal(err)
		}
		body := decode(t, string(s.Calls()[0].Body)).(map[string]any)
		if body[want] != float64(9) {
			t.Errorf("%s: %s is %v", model, want, body[want])
		}
	}
}
