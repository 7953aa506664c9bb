package events

import "encoding/json"

var llmFamily = family{"llm", []fields{
	LLMCallStarted{},
	LLMCallCompleted{},
	LLMCallFailed{},
	LLMStreamChunk{},
	LLMThinkingChunk{},
}}

// LLMCall is the part that all events of a model call share.
type LLMCall struct {
	// Model is the model string of the definition.
	Model Text `json:"model"`
	// CallID is the same in all events of the call, another for each attempt.
	CallID string `json:"call_id"`
}

// LLMCallStarted is told when a model is about to be asked. The conversation is shown under messages.
type LLMCallStarted struct {
	LLMCall
	// Tools are the functions the model may call, null when none.
	Tools []Tool `json:"tools"`
	// Callbacks is always null: it is for callbacks written in Python.
	Callbacks []any `json:"callbacks"`
	// AvailableFunctions is always null: it is for functions written in Python.
	AvailableFunctions map[string]any `json:"available_functions"`
	// Temperature, as all settings of sampling and limits below, is null when the provider's default holds.
	Temperature *float64 `json:"temperature"`
	TopP        *float64 `json:"top_p"`
	// MaxTokens limits the answer, in tokens.
	MaxTokens *int64 `json:"max_tokens"`
	// Stream says whether the answer comes in chunks.
	Stream *bool  `json:"stream"`
	Seed   *int64 `json:"seed"`
	// StopSequences end the answer where one appears.
	StopSequences    []string `json:"stop_sequences"`
	FrequencyPenalty *float64 `json:"frequency_penalty"`
	PresencePenalty  *float64 `json:"presence_penalty"`
	// N is how many answers are asked for.
	N *int64 `json:"n"`
}

func (LLMCallStarted) kind() Kind {
	return Kind{Type: "llm_call_started", Emitted: true, prompt: true, Opens: "llm_call"}
}

// NewLLMCallStarted drafts llm_call_started.
func NewLLMCallStarted(who Identity, f LLMCallStarted) Draft { return draft(who, f) }

// LLMCallCompleted is told when a model's answer is complete. The conversation that was sent is shown under messages.
type LLMCallCompleted struct {
	LLMCall
	// Response is the text, or the array of tool calls as the model wrote them.
	Response any `json:"response"`
	// CallType is tool_call when Response is tool calls, else llm_call.
	CallType string `json:"call_type"`
	// Usage is null when the provider did not tell.
	Usage *Usage `json:"usage"`
	// FinishReason is the provider's word: stop, length, tool_calls and the like.
	FinishReason Text `json:"finish_reason"`
	// ResponseID is the provider's id of the answer.
	ResponseID Text `json:"response_id"`
}

func (LLMCallCompleted) kind() Kind {
	return Kind{Type: "llm_call_completed", Emitted: true, prompt: true, Closes: "llm_call"}
}

// NewLLMCallCompleted drafts llm_call_completed.
func NewLLMCallCompleted(who Identity, f LLMCallCompleted) Draft { return draft(who, f) }

// LLMCallFailed is told when a model gives no answer, after the provider's own retries, or its call was interrupted.
type LLMCallFailed struct {
	LLMCall
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (LLMCallFailed) kind() Kind {
	return Kind{Type: "llm_call_failed", Emitted: true, Closes: "llm_call"}
}

// NewLLMCallFailed drafts llm_call_failed.
func NewLLMCallFailed(who Identity, f LLMCallFailed) Draft { return draft(who, f) }

// LLMStreamChunk is told when a piece of a streamed answer has come.
type LLMStreamChunk struct {
	LLMCall
	// Chunk is the text since the chunk before, "" for a piece of a tool call.
	Chunk    string         `json:"chunk"`
	ToolCall *ToolCallChunk `json:"tool_call"`
	// CallType is llm_call or tool_call.
	CallType Text `json:"call_type"`
	// ResponseID is the provider's id of the answer.
	ResponseID Text `json:"response_id"`
}

func (LLMStreamChunk) kind() Kind {
	return Kind{Type: "llm_stream_chunk", Emitted: true}
}

// NewLLMStreamChunk drafts llm_stream_chunk.
func NewLLMStreamChunk(who Identity, f LLMStreamChunk) Draft { return draft(who, f) }

// LLMThinkingChunk is told when a piece of a model's reasoning has come.
type LLMThinkingChunk struct {
	LLMCall
	// Chunk is the text since the chunk before.
	Chunk string `json:"chunk"`
	// ResponseID is the provider's id of the answer.
	ResponseID Text `json:"response_id"`
}

func (LLMThinkingChunk) kind() Kind {
	return Kind{Type: "llm_thinking_chunk"}
}

// NewLLMThinkingChunk drafts llm_thinking_chunk.
func NewLLMThinkingChunk(who Identity, f LLMThinkingChunk) Draft { return draft(who, f) }

// Tool is a tool as a model is told of it, in the form of the OpenAI protocol.
type Tool struct {
	// Type is "function".
	Type     string   `json:"type"`
	Function Function `json:"function"`
}

// Function names a tool and what it takes: Parameters is a JSON Schema object.
type Function struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Parameters  json.RawMessage `json:"parameters"`
}

// Usage counts the tokens of one model call.
type Usage struct {
	PromptTokens        int `json:"prompt_tokens"`
	CompletionTokens    int `json:"completion_tokens"`
	TotalTokens         int `json:"total_tokens"`
	CachedPromptTokens  int `json:"cached_prompt_tokens"`
	ReasoningTokens     int `json:"reasoning_tokens"`
	CacheCreationTokens int `json:"cache_creation_tokens"`
}

// ToolCallChunk is a tool call as far as it has been streamed.
type ToolCallChunk struct {
	ID       Text              `json:"id"`
	Function FunctionCallChunk `json:"function"`
	Type     Text              `json:"type"`
	// Index tells parallel tool calls of one answer apart.
	Index int `json:"index"`
}

// FunctionCallChunk is a function call as far as it has been streamed: Arguments is all of its JSON text so far.
type FunctionCallChunk struct {
	Name      Text   `json:"name"`
	Arguments string `json:"arguments"`
}
