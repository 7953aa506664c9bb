package openai

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/ssestream"

	"muster/shared/engine/llm"
)

// problem is what was wrong with an answer, as the end of a sentence that begins with the model's name.
type problem string

// Error is the end of that sentence.
func (p problem) Error() string { return string(p) }

const (
	errEmpty    problem = "gave an empty answer"
	errNoTokens problem = "gave an empty answer: its tokens ran out before the first word (raise max_tokens)"
	errFiltered problem = "gave no answer: the provider's content filter stopped it"
	errNoName   problem = "asked for a tool without saying which"
	errCut      problem = "broke off its answer in the middle"
	errNotJSON  problem = "answered something that is not JSON of the OpenAI protocol"
	errTooLong  problem = "answered more than 16 MiB"
)

// read checks a whole answer.
func read(answer *openai.ChatCompletion) (llm.Reply, error) {
	if answer == nil {
		return llm.Reply{}, errNotJSON
	}
	if len(answer.Choices) == 0 {
		if !answer.JSON.Choices.Valid() {
			return llm.Reply{}, errNotJSON
		}
		return llm.Reply{}, errEmpty
	}
	choice := answer.Choices[0]
	r := llm.Reply{Text: choice.Message.Content, FinishReason: choice.FinishReason, ResponseID: answer.ID, Usage: usage(answer.Usage)}
	for _, c := range choice.Message.ToolCalls {
		r.ToolCalls = append(r.ToolCalls, llm.ToolCall{ID: c.ID, Function: llm.FunctionCall{Name: c.Function.Name, Arguments: c.Function.Arguments}})
	}
	return check(r, choice.Message.Refusal)
}

// readStream reads a streamed answer and passes its pieces on.
func readStream(stream *ssestream.Stream[openai.ChatCompletionChunk], pass func(llm.Chunk)) (llm.Reply, error) {
	defer func() { _ = stream.Close() }()
	var (
		r       llm.Reply
		refused string
		text    []byte
		seen    bool
	)
	for stream.Next() {
		chunk := stream.Current()
		seen = true
		if chunk.ID != "" {
			r.ResponseID = chunk.ID
		}
		if chunk.JSON.Usage.Valid() {
			r.Usage = usage(chunk.Usage)
		}
		if len(chunk.Choices) == 0 {
			continue
		}
		choice := chunk.Choices[0]
		if choice.FinishReason != "" {
			r.FinishReason = choice.FinishReason
		}
		refused += choice.Delta.Refusal
		if piece := choice.Delta.Content; piece != "" {
			text = append(text, piece...)
			pass(llm.Chunk{Text: piece, ResponseID: r.ResponseID})
		}
		for _, piece := range choice.Delta.ToolCalls {
			i, ok := place(&r, piece)
			if !ok {
				return llm.Reply{}, errNotJSON
			}
			sofar := r.ToolCalls[i]
			pass(llm.Chunk{ToolCall: &sofar, Index: i, ResponseID: r.ResponseID})
		}
	}
	if err := stream.Err(); err != nil {
		return llm.Reply{}, streamError(err, seen)
	}
	r.Text = string(text)
	switch {
	case !seen:
		return llm.Reply{}, errNotJSON
	case r.FinishReason == "":
		return llm.Reply{}, errCut
	}
	return check(r, refused)
}

// maxToolCalls bounds the index that a server may name in a stream.
const maxToolCalls = 128

// place adds a piece of a tool call to the calls so far and gives its index.
func place(r *llm.Reply, piece openai.ChatCompletionChunkChoiceDeltaToolCall) (int, bool) {
	i := int(piece.Index)
	if i < 0 || i >= maxToolCalls {
		return 0, false
	}
	for len(r.ToolCalls) <= i {
		r.ToolCalls = append(r.ToolCalls, llm.ToolCall{Type: "function"})
	}
	call := &r.ToolCalls[i]
	if piece.ID != "" {
		call.ID = piece.ID
	}
	if call.ID == "" {
		call.ID = callID(*r, i)
	}
	call.Function.Name += piece.Function.Name
	call.Function.Arguments += piece.Function.Arguments
	return i, true
}

// streamError tells a stream that broke from one that never spoke the protocol.
func streamError(err error, seen bool) error {
	var (
		known  problem
		syntax *json.SyntaxError
		inside *ssestream.StreamError
	)
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &syntax):
		return errNotJSON
	case errors.As(err, &inside):
		return problem("broke off its answer with an error of its own" + said(inside.Event.Data))
	case seen && !errors.Is(err, context.DeadlineExceeded):
		return errCut
	}
	return err
}

// check holds an answer to what every answer must be, and completes its tool calls.
func check(r llm.Reply, refused string) (llm.Reply, error) {
	for i := range r.ToolCalls {
		call := &r.ToolCalls[i]
		call.Type = "function"
		if call.Function.Name == "" {
			return llm.Reply{}, errNoName
		}
		// Some servers give no ids; the answers of tools have to find their calls all the same.
		if call.ID == "" {
			call.ID = callID(r, i)
		}
		if call.Function.Arguments == "" {
			call.Function.Arguments = "{}"
		}
	}
	switch {
	case r.Text != "" || len(r.ToolCalls) > 0:
		return r, nil
	case refused != "":
		return llm.Reply{}, problem("declined to answer: " + strings.TrimRight(oneLine(refused), "."))
	case r.FinishReason == "content_filter":
		return llm.Reply{}, errFiltered
	case r.FinishReason == "length":
		return llm.Reply{}, errNoTokens
	}
	return llm.Reply{}, errEmpty
}

func callID(r llm.Reply, i int) string { return fmt.Sprintf("call_%s_%d", r.ResponseID, i) }

// usage reads counts under the spellings that servers of this protocol use.
func usage(u openai.CompletionUsage) llm.Usage {
	var wire struct {
		Input         int64 `json:"input_tokens"`
		Output        int64 `json:"output_tokens"`
		CacheHit      int64 `json:"prompt_cache_hit_tokens"`
		CacheRead     int64 `json:"cache_read_input_tokens"`
		CacheCreation int64 `json:"cache_creation_input_tokens"`
	}
	if raw := u.RawJSON(); raw != "" {
		// A count that is not a number leaves the others standing.
		_ = json.Unmarshal([]byte(raw), &wire)
	}
	n := llm.Usage{
		PromptTokens:        count(u.PromptTokens, wire.Input),
		CompletionTokens:    count(u.CompletionTokens, wire.Output),
		TotalTokens:         count(u.TotalTokens),
		CachedPromptTokens:  count(u.PromptTokensDetails.CachedTokens, wire.CacheHit, wire.CacheRead),
		ReasoningTokens:     count(u.CompletionTokensDetails.ReasoningTokens),
		CacheCreationTokens: count(u.PromptTokensDetails.CacheWriteTokens, wire.CacheCreation),
	}
	if n.TotalTokens == 0 {
		n.TotalTokens = n.PromptTokens + n.CompletionTokens
	}
	return n
}

// count gives the first positive of the values.
func count(values ...int64) int {
	for _, v := range values {
		if v > 0 {
			return int(v)
		}
	}
	return 0
}
