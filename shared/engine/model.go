package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/id"
	"muster/shared/run"
)

// stepTime is the longest that one call may take, whatever the definition says: a run must be able to move on.
const stepTime = 600 * time.Second

// question is one model call: what is asked, on whose behalf, and where it belongs.
type question struct {
	key          string
	conversation string
	who          events.Identity
	parent       string // the event it is nested in
	model        llm.Model
	call         llm.Call
	pace         *pace
	// within is what is left of the agent's time, 0 for no limit.
	within time.Duration
	// note says what the step target is told of the reply; nil, or a nil note, is nothing.
	note func(llm.Reply) *run.Note
}

// answer is what became of a question, as the journal keeps it: a reply, or the sentence that says why there is none.
type answer struct {
	Reply llm.Reply `json:"reply"`
	Error string    `json:"error,omitempty"`
	// Late says that the agent's time was up.
	Late bool `json:"late,omitempty"`
}

// essence is what of a question must be the same at a replay. The model's name and the description of tools are left out:
// a run goes on when a setting has changed in the meantime.
type essence struct {
	Messages []llm.Message     `json:"messages"`
	Tools    []string          `json:"tools,omitempty"`
	Options  crew.ModelOptions `json:"options"`
	Schema   json.RawMessage   `json:"schema,omitempty"`
}

// ask asks, and asks again without the schema when the provider refuses it: the prompt describes it too.
func (k *kickoff) ask(ctx context.Context, b *run.Branch, q question) (answer, error) {
	a, err := k.askOnce(ctx, b, q)
	if err == nil && q.call.Schema != nil && a.noSchema() {
		q.key += "/plain"
		q.call.Schema = nil
		return k.askOnce(ctx, b, q)
	}
	return a, err
}

// askOnce does one model call as a step. Its events are llm_call_started when it opens and llm_call_completed or
// llm_call_failed when it ends; each attempt has a call id of its own.
func (k *kickoff) askOnce(ctx context.Context, b *run.Branch, q question) (answer, error) {
	if !b.Recorded(q.key) {
		if at, wait := q.pace.enter(k.Now()); wait {
			return answer{}, k.halt(&run.Later{At: at})
		}
		defer q.pace.leave()
	}
	request := essence{Messages: q.call.Messages, Options: q.call.Options, Schema: q.call.Schema}
	for _, f := range q.call.Tools {
		request.Tools = append(request.Tools, f.Name)
	}
	messages, err := rawMessages(q.call.Messages)
	if err != nil {
		return answer{}, err
	}
	chunks := b.Wants("llm_stream_chunk")
	shared := func(attempt int) events.LLMCall {
		return events.LLMCall{Model: events.Text(q.model.Name()), CallID: id.Derive(k.RunID, fmt.Sprintf("%s#%d", q.key, attempt))}
	}
	result, err := k.step(ctx, b, run.Step{
		Key: q.key, Request: request, Conversation: q.conversation, Messages: messages,
		Open: func(e *run.Emitter, attempt int) {
			e.Emit(callStarted(q, shared(attempt), k.Definition.Stream || chunks), run.Scope{Parent: q.parent})
		},
		Cut: func(e *run.Emitter, attempt int) {
			e.Emit(events.NewLLMCallFailed(q.who, events.LLMCallFailed{
				LLMCall: shared(attempt), Error: "The call was interrupted; it is made again.",
			}), run.Scope{Parent: q.parent, Started: e.Opened()})
		},
		Do: func(ctx context.Context, e *run.Emitter, attempt int) (any, error) {
			call := q.call
			if chunks || k.Definition.Stream {
				call.Chunk = func(c llm.Chunk) {
					if chunks {
						e.Chunk(chunkOf(q.who, shared(attempt), c), run.Scope{Parent: e.Opened()})
					}
				}
			}
			a, err := reply(ctx, q, call)
			if err != nil {
				return nil, err
			}
			scope := run.Scope{Parent: q.parent, Started: e.Opened()}
			e.Use(q.model.Name(), usageOf(a))
			if a.Error != "" {
				e.Emit(events.NewLLMCallFailed(q.who, events.LLMCallFailed{LLMCall: shared(attempt), Error: a.Error}), scope)
				return a, nil
			}
			e.Emit(callCompleted(q, shared(attempt), a.Reply), scope)
			if q.note != nil {
				if n := q.note(a.Reply); n != nil {
					e.Note(*n)
				}
			}
			return a, nil
		},
	})
	if err != nil {
		return answer{}, err
	}
	q.pace.count(b.Now())
	var a answer
	if err := json.Unmarshal(result, &a); err != nil {
		return answer{}, fmt.Errorf("read the recorded answer of step %s: %w", q.key, err)
	}
	k.tokens.Add(int64(a.Reply.Usage.TotalTokens))
	return a, nil
}

// reply asks the model. Its error means that ctx has ended, and with it this invocation's part of the run.
func reply(ctx context.Context, q question, call llm.Call) (answer, error) {
	limit := stepTime
	if q.within > 0 && q.within < limit {
		limit = q.within
	}
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r, err := q.model.Call(timed, call)
	switch {
	case err != nil && ctx.Err() != nil:
		return answer{}, ctx.Err()
	case err != nil && errors.Is(timed.Err(), context.DeadlineExceeded):
		return answer{Error: fmt.Sprintf("The model %s did not answer within %s.", q.model.Name(), limit.Round(time.Second)), Late: limit == q.within}, nil
	case err != nil:
		return answer{Error: sentence(err)}, nil
	case strings.TrimSpace(r.Text) == "" && len(r.ToolCalls) == 0:
		return answer{Reply: llm.Reply{Usage: r.Usage}, Error: fmt.Sprintf("The model %s gave an empty answer.", q.model.Name())}, nil
	}
	for i := range r.ToolCalls {
		c := &r.ToolCalls[i]
		c.Type = "function"
		if c.ID == "" { // some servers leave it out, and then want it back
			c.ID = "call_" + id.Derive(q.key, fmt.Sprint(i))[:8]
		}
	}
	return answer{Reply: r}, nil
}

func usageOf(a answer) run.Usage {
	u := run.Usage{
		TotalTokens: a.Reply.Usage.TotalTokens, PromptTokens: a.Reply.Usage.PromptTokens,
		CachedPromptTokens: a.Reply.Usage.CachedPromptTokens, CompletionTokens: a.Reply.Usage.CompletionTokens,
		ReasoningTokens: a.Reply.Usage.ReasoningTokens, CacheCreationTokens: a.Reply.Usage.CacheCreationTokens,
	}
	if a.Error == "" {
		u.SuccessfulRequests = 1
	}
	return u
}

func rawMessages(messages []llm.Message) ([]json.RawMessage, error) {
	raw := make([]json.RawMessage, len(messages))
	for i, m := range messages {
		data, err := json.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("encode message %d: %w", i+1, err)
		}
		raw[i] = data
	}
	return raw, nil
}

func callStarted(q question, shared events.LLMCall, stream bool) events.Draft {
	o := q.call.Options
	return events.NewLLMCallStarted(q.who, events.LLMCallStarted{
		LLMCall: shared, Tools: toldFunctions(q.call.Tools), Temperature: o.Temperature, TopP: o.TopP, MaxTokens: o.MaxTokens,
		Stream: &stream, Seed: o.Seed, StopSequences: o.Stop, FrequencyPenalty: o.FrequencyPenalty, PresencePenalty: o.PresencePenalty,
	})
}

func callCompleted(q question, shared events.LLMCall, r llm.Reply) events.Draft {
	usage := events.Usage(r.Usage)
	f := events.LLMCallCompleted{
		LLMCall: shared, Response: r.Text, CallType: "llm_call", Usage: &usage,
		FinishReason: events.Text(r.FinishReason), ResponseID: events.Text(r.ResponseID),
	}
	if len(r.ToolCalls) > 0 {
		f.Response, f.CallType = r.ToolCalls, "tool_call"
	}
	return events.NewLLMCallCompleted(q.who, f)
}

func chunkOf(who events.Identity, shared events.LLMCall, c llm.Chunk) events.Draft {
	f := events.LLMStreamChunk{LLMCall: shared, Chunk: c.Text, CallType: "llm_call", ResponseID: events.Text(c.ResponseID)}
	if c.ToolCall != nil {
		f.CallType = "tool_call"
		f.ToolCall = &events.ToolCallChunk{
			ID: events.Text(c.ToolCall.ID), Type: events.Text(c.ToolCall.Type), Index: c.Index,
			Function: events.FunctionCallChunk{Name: events.Text(c.ToolCall.Function.Name), Arguments: c.ToolCall.Function.Arguments},
		}
	}
	return events.NewLLMStreamChunk(who, f)
}

func toldFunctions(functions []llm.Function) []events.Tool {
	var tools []events.Tool
	for _, f := range functions {
		tools = append(tools, events.Tool{Type: "function", Function: events.Function(f)})
	}
	return tools
}

// Providers say these things in words only.
var (
	tooLongWords  = regexp.MustCompile(`(?i)context[_ ](length|window)|maximum context|prompt is too long|input is too long|too many (input )?tokens|exceeds? the (available )?context`)
	noSchemaWords = regexp.MustCompile(`(?i)response[_ ]format|json[_ ]schema`)
	noToolsWords  = regexp.MustCompile(`(?i)(does not|doesn't|do not) support (tool|function)|(tool|function)[a-z_ -]* (is|are) not (supported|available)|unsupported[^.]{0,40}(tool|function)`)
)

// tooLong says that the conversation does not fit into the model.
func (a answer) tooLong() bool { return tooLongWords.MatchString(a.Error) }

// noTools says that the model refuses functions.
func (a answer) noTools() bool { return noToolsWords.MatchString(a.Error) }

// noSchema says that the provider refuses to promise a form.
func (a answer) noSchema() bool { return noSchemaWords.MatchString(a.Error) }
