package events

var reasoningFamily = family{"reasoning", []fields{
	AgentReasoningStarted{},
	AgentReasoningCompleted{},
	AgentReasoningFailed{},
	PlanStepStarted{},
	PlanStepCompleted{},
}}

// AgentReasoningStarted is told when an agent begins to plan its task.
type AgentReasoningStarted struct {
	// Attempt counts from 1.
	Attempt int `json:"attempt"`
}

func (AgentReasoningStarted) kind() Kind {
	return Kind{Type: "agent_reasoning_started", Opens: "agent_reasoning"}
}

// NewAgentReasoningStarted drafts agent_reasoning_started.
func NewAgentReasoningStarted(who Identity, f AgentReasoningStarted) Draft { return draft(who, f) }

// AgentReasoningCompleted is told when an agent has a plan.
type AgentReasoningCompleted struct {
	// Attempt counts from 1.
	Attempt int    `json:"attempt"`
	Plan    string `json:"plan"`
	// Ready says that the agent thinks the plan good enough to begin.
	Ready bool `json:"ready"`
}

func (AgentReasoningCompleted) kind() Kind {
	return Kind{Type: "agent_reasoning_completed", Closes: "agent_reasoning"}
}

// NewAgentReasoningCompleted drafts agent_reasoning_completed.
func NewAgentReasoningCompleted(who Identity, f AgentReasoningCompleted) Draft { return draft(who, f) }

// AgentReasoningFailed is told when an agent has no plan; it goes on without.
type AgentReasoningFailed struct {
	// Attempt counts from 1.
	Attempt int `json:"attempt"`
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (AgentReasoningFailed) kind() Kind {
	return Kind{Type: "agent_reasoning_failed", Closes: "agent_reasoning"}
}

// NewAgentReasoningFailed drafts agent_reasoning_failed.
func NewAgentReasoningFailed(who Identity, f AgentReasoningFailed) Draft { return draft(who, f) }

// PlanStepStarted is told when an agent begins a step of its plan.
type PlanStepStarted struct {
	// StepNumber counts from 1.
	StepNumber      int    `json:"step_number"`
	StepDescription string `json:"step_description"`
	ToolToUse       Text   `json:"tool_to_use"`
}

func (PlanStepStarted) kind() Kind {
	return Kind{Type: "plan_step_started"}
}

// NewPlanStepStarted drafts plan_step_started.
func NewPlanStepStarted(who Identity, f PlanStepStarted) Draft { return draft(who, f) }

// PlanStepCompleted is told when a step of a plan is done, or has failed.
type PlanStepCompleted struct {
	// StepNumber counts from 1.
	StepNumber      int    `json:"step_number"`
	StepDescription string `json:"step_description"`
	Success         bool   `json:"success"`
	Result          Text   `json:"result"`
	Error           Text   `json:"error"`
}

func (PlanStepCompleted) kind() Kind {
	return Kind{Type: "plan_step_completed"}
}

// NewPlanStepCompleted drafts plan_step_completed.
func NewPlanStepCompleted(who Identity, f PlanStepCompleted) Draft { return draft(who, f) }
