package scripted

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"unicode/utf8"

	"muster/shared/engine/llm"
)

// Reply is what the model does with one request. The zero Reply is an empty answer.
type Reply struct {
	Text      string
	ToolCalls []llm.ToolCall
	// Usage is counted in words when nil.
	Usage *llm.Usage
	// FinishReason is "stop", or "tool_calls" with tool calls, unless given.
	FinishReason string
	// Wait holds the answer back until it is closed, or the client has gone.
	Wait <-chan struct{}
	// Status, when not 0 or 200, is an error with Text as its message. Retry-After-Ms is 1, so that retries cost no time.
	Status int
	// Raw, when not empty, is sent as the whole body, under the content type of a good answer.
	Raw string
	// Drop closes the connection without an answer; in a stream, after half of the pieces.
	Drop bool
	// Cut ends a stream cleanly after half of the pieces, without a finish reason.
	Cut bool
}

// Text answers with text.
func Text(text string) Reply { return Reply{Text: text} }

// Use answers with the wish to call one tool; arguments are encoded as JSON. Join the ToolCalls of several for parallel calls.
func Use(tool string, arguments any) Reply {
	text, err := json.Marshal(arguments)
	if err != nil {
		panic("scripted: arguments of " + tool + " are not JSON: " + err.Error())
	}
	call := llm.ToolCall{Type: "function", Function: llm.FunctionCall{Name: tool, Arguments: string(text)}}
	return Reply{ToolCalls: []llm.ToolCall{call}}
}

// Fail answers with an HTTP status such as 429 or 500 and a message.
func Fail(status int, message string) Reply { return Reply{Status: status, Text: message} }

// Sequence answers the first request with the first reply, and so on; the last reply is repeated for ever.
func Sequence(replies ...Reply) Script {
	var mu sync.Mutex
	next := 0
	return func(Request) Reply {
		mu.Lock()
		defer mu.Unlock()
		reply := replies[min(next, len(replies)-1)]
		next++
		return reply
	}
}

var errNotAnswered = errors.New("no complete answer was written")

func (p Reply) write(w http.ResponseWriter, r Request) error {
	switch {
	case p.Status != 0 && p.Status != http.StatusOK:
		w.Header().Set("Retry-After-Ms", "1")
		if p.Raw != "" {
			w.WriteHeader(p.Status)
			_, _ = w.Write([]byte(p.Raw))
		} else {
			writeError(w, p.Status, p.Text)
		}
		return errNotAnswered
	case p.Drop && !r.Stream:
		panic(http.ErrAbortHandler)
	case p.Raw != "":
		w.Header().Set("Content-Type", contentType(r))
		_, err := w.Write([]byte(p.Raw))
		return err
	}
	p = p.complete(r)
	if r.Stream {
		return p.stream(w, r)
	}
	return p.whole(w, r)
}

func contentType(r Request) string {
	if r.Stream {
		return "text/event-stream"
	}
	return "application/json"
}

// complete fills in what the script left out.
func (p Reply) complete(r Request) Reply {
	if p.FinishReason == "" {
		p.FinishReason = "stop"
		if len(p.ToolCalls) > 0 {
			p.FinishReason = "tool_calls"
		}
	}
	p.ToolCalls = append([]llm.ToolCall(nil), p.ToolCalls...)
	for i := range p.ToolCalls {
		p.ToolCalls[i].Type = "function"
		if p.ToolCalls[i].ID == "" {
			p.ToolCalls[i].ID = fmt.Sprintf("call_%.12s_%d", r.Digest, i)
		}
	}
	if p.Usage == nil {
		u := llm.Usage{CompletionTokens: len(strings.Fields(p.Text))}
		for _, m := range r.Messages {
			u.PromptTokens += len(strings.Fields(m.Content))
		}
		for _, c := range p.ToolCalls {
			u.CompletionTokens += 1 + len(strings.Fields(c.Function.Arguments))
		}
		u.TotalTokens = u.PromptTokens + u.CompletionTokens
		p.Usage = &u
	}
	return p
}

func (p Reply) whole(w http.ResponseWriter, r Request) error {
	message := map[string]any{"role": "assistant", "content": p.Text}
	if len(p.ToolCalls) > 0 {
		message["tool_calls"] = p.ToolCalls
		if p.Text == "" {
			message["content"] = nil
		}
	}
	w.Header().Set("Content-Type", contentType(r))
	return json.NewEncoder(w).Encode(map[string]any{
		"id": responseID(r), "object": "chat.completion", "created": 1767225600, "model": r.Model,
		"choices": []any{map[string]any{"index": 0, "message": message, "finish_reason": p.FinishReason}},
		"usage":   wireUsage(*p.Usage),
	})
}

func (p Reply) stream(w http.ResponseWriter, r Request) error {
	w.Header().Set("Content-Type", contentType(r))
	chunk := func(extra map[string]any) error {
		body := map[string]any{"id": responseID(r), "object": "chat.completion.chunk", "created": 1767225600, "model": r.Model}
		for k, v := range extra {
			body[k] = v
		}
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "data: %s\n\n", text)
		w.(http.Flusher).Flush()
		return err
	}
	choice := func(delta map[string]any, finish any) map[string]any {
		return map[string]any{"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}}}
	}
	pieces := p.pieces()
	for i, delta := range pieces {
		if i >= len(pieces)/2 && (p.Drop || p.Cut) {
			break
		}
		if err := chunk(choice(delta, nil)); err != nil {
			return err
		}
	}
	if p.Drop {
		panic(http.ErrAbortHandler)
	}
	if p.Cut {
		return errNotAnswered
	}
	if err := chunk(choice(map[string]any{}, p.FinishReason)); err != nil {
		return err
	}
	if err := chunk(map[string]any{"choices": []any{}, "usage": wireUsage(*p.Usage)}); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, "data: [DONE]\n\n")
	return err
}

// pieces cuts the answer into deltas: text by words, the arguments of a tool call in two.
func (p Reply) pieces() []map[string]any {
	deltas := []map[string]any{{"role": "assistant", "content": ""}}
	for _, word := range strings.SplitAfter(p.Text, " ") {
		if word != "" {
			deltas = append(deltas, map[string]any{"content": word})
		}
	}
	for i, c := range p.ToolCalls {
		half := len(c.Function.Arguments) / 2
		for half > 0 && !utf8.RuneStart(c.Function.Arguments[half]) {
			half--
		}
		deltas = append(deltas, map[string]any{"tool_calls": []any{map[string]any{"index": i, "id": c.ID, "type": "function",
			"function": map[string]any{"name": c.Function.Name, "arguments": ""}}}})
		for _, part := range []string{c.Function.Arguments[:half], c.Function.Arguments[half:]} {
			deltas = append(deltas, map[string]any{"tool_calls": []any{map[string]any{"index": i,
				"function": map[string]any{"arguments": part}}}})
		}
	}
	return deltas
}

func responseID(r Request) string { return fmt.Sprintf("chatcmpl-%d", r.N) }

func wireUsage(u llm.Usage) map[string]any {
	return map[string]any{
		"prompt_tokens": u.PromptTokens, "completion_tokens": u.CompletionTokens, "total_tokens": u.TotalTokens,
		"prompt_tokens_details":     map[string]any{"cached_tokens": u.CachedPromptTokens, "cache_write_tokens": u.CacheCreationTokens},
		"completion_tokens_details": map[string]any{"reasoning_tokens": u.ReasoningTokens},
	}
}

func writeError(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": message, "type": "scripted", "code": nil, "param": nil}})
}
