package events

var llmGuardrailFamily = family{"llm_guardrail", []fields{
	LLMGuardrailStarted{},
	LLMGuardrailCompleted{},
}}

// NamedGuardrail is the part that both events of a guardrail share.
type NamedGuardrail struct {
	// GuardrailType is llm, function or hallucination.
	GuardrailType Text `json:"guardrail_type"`
	// GuardrailName is the function's name, or the sentence that a model holds the output to.
	GuardrailName Text `json:"guardrail_name"`
}

// LLMGuardrailStarted is told when an output is about to be held to a guardrail of any type.
type LLMGuardrailStarted struct {
	NamedGuardrail
	// Guardrail is the sentence that the output must satisfy.
	Guardrail string `json:"guardrail"`
	// RetryCount is how often the output has been redone for this guardrail, from 0.
	RetryCount int `json:"retry_count"`
}

func (LLMGuardrailStarted) kind() Kind {
	return Kind{Type: "llm_guardrail_started", Emitted: true, Opens: "llm_guardrail"}
}

// NewLLMGuardrailStarted drafts llm_guardrail_started.
func NewLLMGuardrailStarted(who Identity, f LLMGuardrailStarted) Draft { return draft(who, f) }

// LLMGuardrailCompleted is told when a guardrail has judged an output.
type LLMGuardrailCompleted struct {
	NamedGuardrail
	// Success says whether the output passed.
	Success bool `json:"success"`
	// Result is the output that passed, null when it did not.
	Result any `json:"result"`
	// Error says why it did not pass.
	Error Text `json:"error"`
	// RetryCount is how often the output has been redone for this guardrail, from 0.
	RetryCount int `json:"retry_count"`
}

func (LLMGuardrailCompleted) kind() Kind {
	return Kind{Type: "llm_guardrail_completed", Emitted: true, Closes: "llm_guardrail"}
}

// NewLLMGuardrailCompleted drafts llm_guardrail_completed.
func NewLLMGuardrailCompleted(who Identity, f LLMGuardrailCompleted) Draft { return draft(who, f) }
