package events

var toolFamily = family{"tool", []fields{
	ToolUsageStarted{},
	ToolUsageFinished{},
	ToolUsageError{},
	ToolFailureDetected{},
	ToolSelectionError{},
	ToolValidateInputError{},
	ToolExecutionError{},
}}

// ToolUse is the part that nearly all events of a tool share.
type ToolUse struct {
	// AgentKey is the agent's name in the definition.
	AgentKey Text `json:"agent_key"`
	// ToolName is what the model calls the tool.
	ToolName string `json:"tool_name"`
	// ToolArgs is the object of arguments, or the text that the model wrote when it is no JSON object.
	ToolArgs any `json:"tool_args"`
	// ToolClass is the type of the tool in the definition.
	ToolClass Text `json:"tool_class"`
	// RunAttempts counts the earlier attempts of this use, from 0.
	RunAttempts int `json:"run_attempts"`
	// Delegations counts how often the task was handed to a coworker.
	Delegations *int `json:"delegations"`
	// PlanStepNumber counts from 1; null without a plan.
	PlanStepNumber      *int `json:"plan_step_number"`
	PlanStepDescription Text `json:"plan_step_description"`
}

// ToolUsageStarted is told when a tool is about to be used, also when the answer then comes from the cache.
type ToolUsageStarted struct {
	ToolUse
}

func (ToolUsageStarted) kind() Kind {
	return Kind{Type: "tool_usage_started", Emitted: true, Opens: "tool_usage"}
}

// NewToolUsageStarted drafts tool_usage_started.
func NewToolUsageStarted(who Identity, f ToolUsageStarted) Draft { return draft(who, f) }

// ToolUsageFinished is told when a tool has answered, also when it reports a failure of its own.
type ToolUsageFinished struct {
	ToolUse
	StartedAt  Time `json:"started_at"`
	FinishedAt Time `json:"finished_at"`
	// FromCache says that the tool was not called: the same call had been made before.
	FromCache bool `json:"from_cache"`
	// Output is what the model is told.
	Output any `json:"output"`
	// Failure is set when the tool reports that it failed.
	Failure *ToolFailure `json:"failure"`
}

func (ToolUsageFinished) kind() Kind {
	return Kind{Type: "tool_usage_finished", Emitted: true, Closes: "tool_usage"}
}

// NewToolUsageFinished drafts tool_usage_finished.
func NewToolUsageFinished(who Identity, f ToolUsageFinished) Draft { return draft(who, f) }

// ToolUsageError is told when a tool breaks instead of answering.
type ToolUsageError struct {
	ToolUse
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (ToolUsageError) kind() Kind {
	return Kind{Type: "tool_usage_error", Emitted: true, Closes: "tool_usage"}
}

// NewToolUsageError drafts tool_usage_error.
func NewToolUsageError(who Identity, f ToolUsageError) Draft { return draft(who, f) }

// ToolFailureDetected is told when the use of a tool has failed, after the event that ends the use; it comes alone
// when the arguments are no JSON.
type ToolFailureDetected struct {
	ToolUse
	Failure ToolFailure `json:"failure"`
	// Policy is warn (the agent goes on) or raise (the crew fails).
	Policy string `json:"policy"`
}

func (ToolFailureDetected) kind() Kind {
	return Kind{Type: "tool_failure_detected", Emitted: true}
}

// NewToolFailureDetected drafts tool_failure_detected.
func NewToolFailureDetected(who Identity, f ToolFailureDetected) Draft { return draft(who, f) }

// ToolSelectionError is told when an agent in the text loop asks for a tool that it does not have.
type ToolSelectionError struct {
	ToolUse
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (ToolSelectionError) kind() Kind {
	return Kind{Type: "tool_selection_error", Emitted: true}
}

// NewToolSelectionError drafts tool_selection_error.
func NewToolSelectionError(who Identity, f ToolSelectionError) Draft { return draft(who, f) }

// ToolValidateInputError is told when an agent in the text loop writes arguments that cannot be read.
type ToolValidateInputError struct {
	ToolUse
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (ToolValidateInputError) kind() Kind {
	return Kind{Type: "tool_validate_input_error", Emitted: true}
}

// NewToolValidateInputError drafts tool_validate_input_error.
func NewToolValidateInputError(who Identity, f ToolValidateInputError) Draft { return draft(who, f) }

// ToolExecutionError is never told: a consumer that names it gets tool_usage_error instead.
type ToolExecutionError struct {
	Error     string `json:"error"`
	ToolName  string `json:"tool_name"`
	ToolArgs  Object `json:"tool_args"`
	ToolClass Text   `json:"tool_class"`
}

func (ToolExecutionError) kind() Kind {
	return Kind{Type: "tool_execution_error"}
}

// NewToolExecutionError drafts tool_execution_error.
func NewToolExecutionError(who Identity, f ToolExecutionError) Draft { return draft(who, f) }

// ToolFailure says why the use of a tool failed.
type ToolFailure struct {
	Message string `json:"message"`
	// Reason is tool_reported, exception, mcp_error, usage_limit, unknown_tool or invalid_input.
	Reason string `json:"reason"`
	// Code is the failing system's own word.
	Code Text `json:"code"`
	// Retryable says that the same call may succeed later.
	Retryable bool   `json:"retryable"`
	Details   Object `json:"details"`
}

// ToolFailureRecord is a failure with the use it belongs to.
type ToolFailureRecord struct {
	ToolName  string      `json:"tool_name"`
	Failure   ToolFailure `json:"failure"`
	ToolArgs  any         `json:"tool_args"`
	AgentRole Text        `json:"agent_role"`
	TaskName  Text        `json:"task_name"`
	TaskID    Text        `json:"task_id"`
}
