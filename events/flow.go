package events

var flowFamily = family{"flow", []fields{
	FlowCreated{},
	FlowStarted{},
	FlowFinished{},
	FlowFailed{},
	FlowPaused{},
	FlowPlot{},
	MethodExecutionStarted{},
	MethodExecutionFinished{},
	MethodExecutionFailed{},
	MethodExecutionPaused{},
	HumanFeedbackRequested{},
	HumanFeedbackReceived{},
}}

// FlowCreated is told when a flow exists, before it starts.
type FlowCreated struct {
	FlowName string `json:"flow_name"`
}

func (FlowCreated) kind() Kind {
	return Kind{Type: "flow_created"}
}

// NewFlowCreated drafts flow_created.
func NewFlowCreated(who Identity, f FlowCreated) Draft { return draft(who, f) }

// FlowStarted is told when a flow begins, or goes on after a person has answered.
type FlowStarted struct {
	FlowName string         `json:"flow_name"`
	Inputs   map[string]any `json:"inputs"`
}

func (FlowStarted) kind() Kind {
	return Kind{Type: "flow_started", Opens: "flow"}
}

// NewFlowStarted drafts flow_started.
func NewFlowStarted(who Identity, f FlowStarted) Draft { return draft(who, f) }

// FlowFinished is told when a flow has succeeded.
type FlowFinished struct {
	FlowName string `json:"flow_name"`
	// Result is the output of the last method.
	Result any `json:"result"`
	// State is the flow's state at that moment.
	State Object `json:"state"`
}

func (FlowFinished) kind() Kind {
	return Kind{Type: "flow_finished", Closes: "flow"}
}

// NewFlowFinished drafts flow_finished.
func NewFlowFinished(who Identity, f FlowFinished) Draft { return draft(who, f) }

// FlowFailed is told when a flow ends without a result.
type FlowFailed struct {
	FlowName string `json:"flow_name"`
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (FlowFailed) kind() Kind {
	return Kind{Type: "flow_failed", Closes: "flow"}
}

// NewFlowFailed drafts flow_failed.
func NewFlowFailed(who Identity, f FlowFailed) Draft { return draft(who, f) }

// FlowPaused is told when a flow stops to wait for a person.
type FlowPaused struct {
	FlowName   string `json:"flow_name"`
	FlowID     string `json:"flow_id"`
	MethodName string `json:"method_name"`
	// State is the flow's state at that moment.
	State Object `json:"state"`
	// Message is what the person is asked.
	Message string `json:"message"`
	// Emit are the outcomes that the feedback is reduced to, null when it is taken as it is.
	Emit []string `json:"emit"`
}

func (FlowPaused) kind() Kind {
	return Kind{Type: "flow_paused", Closes: "flow"}
}

// NewFlowPaused drafts flow_paused.
func NewFlowPaused(who Identity, f FlowPaused) Draft { return draft(who, f) }

// FlowPlot is told when a picture of a flow is drawn.
type FlowPlot struct {
	FlowName string `json:"flow_name"`
}

func (FlowPlot) kind() Kind {
	return Kind{Type: "flow_plot"}
}

// NewFlowPlot drafts flow_plot.
func NewFlowPlot(who Identity, f FlowPlot) Draft { return draft(who, f) }

// MethodExecutionStarted is told when a method of a flow begins.
type MethodExecutionStarted struct {
	FlowName   string `json:"flow_name"`
	MethodName string `json:"method_name"`
	// Params are the arguments by name; those without a name are _0, _1 and so on.
	Params map[string]any `json:"params"`
	// State is the flow's state at that moment.
	State Object `json:"state"`
}

func (MethodExecutionStarted) kind() Kind {
	return Kind{Type: "method_execution_started", Opens: "method_execution"}
}

// NewMethodExecutionStarted drafts method_execution_started.
func NewMethodExecutionStarted(who Identity, f MethodExecutionStarted) Draft { return draft(who, f) }

// MethodExecutionFinished is told when a method of a flow has returned.
type MethodExecutionFinished struct {
	FlowName   string `json:"flow_name"`
	MethodName string `json:"method_name"`
	Result     any    `json:"result"`
	// State is the flow's state at that moment.
	State Object `json:"state"`
}

func (MethodExecutionFinished) kind() Kind {
	return Kind{Type: "method_execution_finished", Closes: "method_execution"}
}

// NewMethodExecutionFinished drafts method_execution_finished.
func NewMethodExecutionFinished(who Identity, f MethodExecutionFinished) Draft { return draft(who, f) }

// MethodExecutionFailed is told when a method of a flow breaks.
type MethodExecutionFailed struct {
	FlowName   string `json:"flow_name"`
	MethodName string `json:"method_name"`
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (MethodExecutionFailed) kind() Kind {
	return Kind{Type: "method_execution_failed", Closes: "method_execution"}
}

// NewMethodExecutionFailed drafts method_execution_failed.
func NewMethodExecutionFailed(who Identity, f MethodExecutionFailed) Draft { return draft(who, f) }

// MethodExecutionPaused is told when a method of a flow waits for a person.
type MethodExecutionPaused struct {
	FlowName   string `json:"flow_name"`
	MethodName string `json:"method_name"`
	// State is the flow's state at that moment.
	State  Object `json:"state"`
	FlowID string `json:"flow_id"`
	// Message is what the person is asked.
	Message string `json:"message"`
	// Emit are the outcomes that the feedback is reduced to, null when it is taken as it is.
	Emit []string `json:"emit"`
}

func (MethodExecutionPaused) kind() Kind {
	return Kind{Type: "method_execution_paused", Closes: "method_execution"}
}

// NewMethodExecutionPaused drafts method_execution_paused.
func NewMethodExecutionPaused(who Identity, f MethodExecutionPaused) Draft { return draft(who, f) }

// HumanFeedbackRequested is told when a person is asked.
type HumanFeedbackRequested struct {
	FlowName   string `json:"flow_name"`
	MethodName string `json:"method_name"`
	// Output is what the person is to judge.
	Output any `json:"output"`
	// Message is what the person is asked.
	Message string `json:"message"`
	// Emit are the outcomes that the feedback is reduced to, null when it is taken as it is.
	Emit []string `json:"emit"`
	// RequestID ties the answer to the question.
	RequestID Text `json:"request_id"`
}

func (HumanFeedbackRequested) kind() Kind {
	return Kind{Type: "human_feedback_requested", Emitted: true}
}

// NewHumanFeedbackRequested drafts human_feedback_requested.
func NewHumanFeedbackRequested(who Identity, f HumanFeedbackRequested) Draft { return draft(who, f) }

// HumanFeedbackReceived is told when a person has answered.
type HumanFeedbackReceived struct {
	FlowName   string `json:"flow_name"`
	MethodName string `json:"method_name"`
	// Feedback is the answer as it was given.
	Feedback string `json:"feedback"`
	// Outcome is what the answer was reduced to.
	Outcome Text `json:"outcome"`
	// RequestID ties the answer to the question.
	RequestID Text `json:"request_id"`
}

func (HumanFeedbackReceived) kind() Kind {
	return Kind{Type: "human_feedback_received", Emitted: true}
}

// NewHumanFeedbackReceived drafts human_feedback_received.
func NewHumanFeedbackReceived(who Identity, f HumanFeedbackReceived) Draft { return draft(who, f) }
