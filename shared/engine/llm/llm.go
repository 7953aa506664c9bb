// Package llm is the port to models. A Model answers one conversation at a time; everything around it (journal, events,
// limits, tools) is the engine's. Adapters live below, one per provider.
package llm

import (
	"context"
	"encoding/json"

	"muster/shared/crew"
)

// Role says who speaks.
type Role string

// The roles of the OpenAI protocol.
const (
	System    Role = "system"
	User      Role = "user"
	Assistant Role = "assistant"
	Tool      Role = "tool"
)

// Message is one message of a conversation; its JSON form is that of the OpenAI protocol and is shown in events.
type Message struct {
	Role    Role   `json:"role"`
	Content string `json:"content"`
	// ToolCalls are set on an assistant's message that asks for tools, ToolCallID and Name on the answer of a tool.
	ToolCalls  []ToolCall `json:"tool_calls,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitempty"`
	Name       string     `json:"name,omitempty"`
}

// ToolCall is a model's wish to call a tool.
type ToolCall struct {
	ID       string       `json:"id"`
	Type     string       `json:"type"` // always "function"
	Function FunctionCall `json:"function"`
}

// FunctionCall names the tool; Arguments is JSON text as the model wrote it, which may be broken.
type FunctionCall struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// Function is a tool as the model is told of it. Parameters is a JSON Schema object.
type Function struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Parameters  json.RawMessage `json:"parameters"`
}

// Call is one request to a model.
type Call struct {
	Messages []Message
	Tools    []Function
	Options  crew.ModelOptions
	// Schema asks for an answer of this JSON Schema where the provider can promise one; nil is free text.
	Schema json.RawMessage
	// Chunk, when set, asks for streaming and is called in order, from one goroutine, for each piece.
	Chunk func(Chunk)
}

// Chunk is a piece of a streamed answer: text, or a piece of a tool call with its arguments so far.
type Chunk struct {
	Text       string
	ToolCall   *ToolCall
	Index      int
	ResponseID string
}

// Reply is a model's answer: text, or tool calls (perhaps with text), and what it cost.
type Reply struct {
	Text         string     `json:"text"`
	ToolCalls    []ToolCall `json:"tool_calls,omitempty"`
	Usage        Usage      `json:"usage"`
	FinishReason string     `json:"finish_reason,omitempty"`
	ResponseID   string     `json:"response_id,omitempty"`
}

// Usage counts tokens under the names that events show.
type Usage struct {
	PromptTokens        int `json:"prompt_tokens"`
	CompletionTokens    int `json:"completion_tokens"`
	TotalTokens         int `json:"total_tokens"`
	CachedPromptTokens  int `json:"cached_prompt_tokens"`
	ReasoningTokens     int `json:"reasoning_tokens"`
	CacheCreationTokens int `json:"cache_creation_tokens"`
}

// Model answers conversations. Safe for concurrent use. An error's text is shown to the user in events and in the
// run's error, so it is a sentence without secrets; it comes after the provider SDK's own retries.
type Model interface {
	// Call asks. It returns early with ctx's error when ctx ends.
	Call(ctx context.Context, c Call) (Reply, error)
	// Name is the model string as the definition gave it, such as "openai/gpt-4.1-mini".
	Name() string
	// Tools says whether the model takes functions; the engine uses its text loop when not.
	Tools() bool
}

// Opener finds the model for a definition's llm setting. Errors are fault.Invalid when the setting is wrong.
type Opener interface {
	Open(m crew.Model) (Model, error)
}
