package events

var agentFamily = family{"agent", []fields{
	AgentExecutionStarted{},
	AgentExecutionCompleted{},
	AgentExecutionError{},
	LiteAgentExecutionStarted{},
	LiteAgentExecutionCompleted{},
	LiteAgentExecutionError{},
	AgentLogsStarted{},
	AgentLogsExecution{},
	AgentEvaluationStarted{},
	AgentEvaluationCompleted{},
	AgentEvaluationFailed{},
}}

// AgentExecution is the part that all agent_execution_* events share.
type AgentExecution struct {
	AgentGoal      string `json:"agent_goal"`
	AgentBackstory string `json:"agent_backstory"`
}

// AgentExecutionStarted is told when an agent is set to a task, again for each retry after an error or a guardrail.
type AgentExecutionStarted struct {
	AgentExecution
	// Tools are those that the agent may call, null when none.
	Tools []Tool `json:"tools"`
	// TaskPrompt is the text the agent is given, context included.
	TaskPrompt string `json:"task_prompt"`
}

func (AgentExecutionStarted) kind() Kind {
	return Kind{Type: "agent_execution_started", Emitted: true, Opens: "agent_execution"}
}

// NewAgentExecutionStarted drafts agent_execution_started.
func NewAgentExecutionStarted(who Identity, f AgentExecutionStarted) Draft { return draft(who, f) }

// AgentExecutionCompleted is told when an agent has an answer, before any guardrail judges it.
type AgentExecutionCompleted struct {
	AgentExecution
	Output string `json:"output"`
}

func (AgentExecutionCompleted) kind() Kind {
	return Kind{Type: "agent_execution_completed", Emitted: true, Closes: "agent_execution"}
}

// NewAgentExecutionCompleted drafts agent_execution_completed.
func NewAgentExecutionCompleted(who Identity, f AgentExecutionCompleted) Draft { return draft(who, f) }

// AgentExecutionError is told when an attempt of an agent fails, also when another follows.
type AgentExecutionError struct {
	AgentExecution
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (AgentExecutionError) kind() Kind {
	return Kind{Type: "agent_execution_error", Emitted: true, Closes: "agent_execution"}
}

// NewAgentExecutionError drafts agent_execution_error.
func NewAgentExecutionError(who Identity, f AgentExecutionError) Draft { return draft(who, f) }

// AgentInfo describes an agent that works without a crew.
type AgentInfo struct {
	ID        string     `json:"id"`
	Role      string     `json:"role"`
	Goal      string     `json:"goal"`
	Backstory string     `json:"backstory"`
	Tools     List[Tool] `json:"tools"`
	Verbose   bool       `json:"verbose"`
}

// LiteAgentExecutionStarted is told when an agent begins to work without a crew. The conversation is shown under
// messages.
type LiteAgentExecutionStarted struct {
	AgentInfo AgentInfo `json:"agent_info"`
	// Tools are those that the agent may call, null when none.
	Tools []Tool `json:"tools"`
}

func (LiteAgentExecutionStarted) kind() Kind {
	return Kind{Type: "lite_agent_execution_started", prompt: true, Opens: "lite_agent_execution"}
}

// NewLiteAgentExecutionStarted drafts lite_agent_execution_started.
func NewLiteAgentExecutionStarted(who Identity, f LiteAgentExecutionStarted) Draft {
	return draft(who, f)
}

// LiteAgentExecutionCompleted is told when an agent without a crew has its answer, after its guardrail.
type LiteAgentExecutionCompleted struct {
	AgentInfo AgentInfo `json:"agent_info"`
	Output    string    `json:"output"`
}

func (LiteAgentExecutionCompleted) kind() Kind {
	return Kind{Type: "lite_agent_execution_completed", Closes: "lite_agent_execution"}
}

// NewLiteAgentExecutionCompleted drafts lite_agent_execution_completed.
func NewLiteAgentExecutionCompleted(who Identity, f LiteAgentExecutionCompleted) Draft {
	return draft(who, f)
}

// LiteAgentExecutionError is told when an agent without a crew ends without an answer.
type LiteAgentExecutionError struct {
	AgentInfo AgentInfo `json:"agent_info"`
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (LiteAgentExecutionError) kind() Kind {
	return Kind{Type: "lite_agent_execution_error", Closes: "lite_agent_execution"}
}

// NewLiteAgentExecutionError drafts lite_agent_execution_error.
func NewLiteAgentExecutionError(who Identity, f LiteAgentExecutionError) Draft { return draft(who, f) }

// AgentLogsStarted is told when an agent begins its loop of thoughts and actions.
type AgentLogsStarted struct {
	TaskDescription Text `json:"task_description"`
	// Verbose is the agent's setting.
	Verbose bool `json:"verbose"`
}

func (AgentLogsStarted) kind() Kind {
	return Kind{Type: "agent_logs_started", Emitted: true}
}

// NewAgentLogsStarted drafts agent_logs_started.
func NewAgentLogsStarted(who Identity, f AgentLogsStarted) Draft { return draft(who, f) }

// AgentLogsExecution is told when an agent has finished a thought: after each action in the text loop, else only at
// its final answer.
type AgentLogsExecution struct {
	// FormattedAnswer is {thought, tool, tool_input, text, result} for an action, {thought, output, text} for the end.
	FormattedAnswer Answer `json:"formatted_answer"`
	// Verbose is the agent's setting.
	Verbose bool `json:"verbose"`
}

func (AgentLogsExecution) kind() Kind {
	return Kind{Type: "agent_logs_execution", Emitted: true}
}

// NewAgentLogsExecution drafts agent_logs_execution.
func NewAgentLogsExecution(who Identity, f AgentLogsExecution) Draft { return draft(who, f) }

// Answer is what an agent thought: AgentAction or AgentFinish.
type Answer interface{ answer() }

// AgentAction is a thought that led to a use of a tool.
type AgentAction struct {
	Thought   string `json:"thought"`
	Tool      string `json:"tool"`
	ToolInput string `json:"tool_input"`
	// Text is what the model wrote, Result what the tool gave.
	Text   string `json:"text"`
	Result string `json:"result"`
}

// AgentFinish is a thought that led to the final answer.
type AgentFinish struct {
	Thought string `json:"thought"`
	Output  string `json:"output"`
	// Text is what the model wrote.
	Text string `json:"text"`
}

func (AgentAction) answer() {}
func (AgentFinish) answer() {}

// AgentEvaluationStarted is told when the evaluation of an agent's result begins.
type AgentEvaluationStarted struct {
	// Iteration counts from 1.
	Iteration int `json:"iteration"`
}

func (AgentEvaluationStarted) kind() Kind {
	return Kind{Type: "agent_evaluation_started", Opens: "agent_evaluation"}
}

// NewAgentEvaluationStarted drafts agent_evaluation_started.
func NewAgentEvaluationStarted(who Identity, f AgentEvaluationStarted) Draft { return draft(who, f) }

// AgentEvaluationCompleted is told when an agent's result has its mark in one metric.
type AgentEvaluationCompleted struct {
	// Iteration counts from 1.
	Iteration int `json:"iteration"`
	// MetricCategory is goal_alignment, semantic_quality, reasoning_efficiency, tool_selection, parameter_extraction or
	// tool_invocation.
	MetricCategory string          `json:"metric_category"`
	Score          EvaluationScore `json:"score"`
}

func (AgentEvaluationCompleted) kind() Kind {
	return Kind{Type: "agent_evaluation_completed", Closes: "agent_evaluation"}
}

// NewAgentEvaluationCompleted drafts agent_evaluation_completed.
func NewAgentEvaluationCompleted(who Identity, f AgentEvaluationCompleted) Draft {
	return draft(who, f)
}

// AgentEvaluationFailed is told when a metric of an agent's result cannot be judged.
type AgentEvaluationFailed struct {
	// Iteration counts from 1.
	Iteration int `json:"iteration"`
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (AgentEvaluationFailed) kind() Kind {
	return Kind{Type: "agent_evaluation_failed", Closes: "agent_evaluation"}
}

// NewAgentEvaluationFailed drafts agent_evaluation_failed.
func NewAgentEvaluationFailed(who Identity, f AgentEvaluationFailed) Draft { return draft(who, f) }

// EvaluationScore is a mark and its reason.
type EvaluationScore struct {
	// Score is the mark, 0 to 10, null when the metric does not apply.
	Score    *float64 `json:"score"`
	Feedback string   `json:"feedback"`
	// RawResponse is what the judging model wrote.
	RawResponse Text `json:"raw_response"`
}
