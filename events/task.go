package events

import "encoding/json"

var taskFamily = family{"task", []fields{
	TaskStarted{},
	TaskCompleted{},
	TaskFailed{},
	TaskEvaluation{},
}}

// TaskStarted is told when a task begins, before its agent is asked.
type TaskStarted struct {
	// Context is what earlier tasks hand over, "" when nothing.
	Context string `json:"context"`
	// TaskDescription is the task with its inputs filled in.
	TaskDescription string `json:"task_description"`
	ExpectedOutput  string `json:"expected_output"`
	// TaskDisplayName is the task's name, cut to 80 characters and "..." when longer.
	TaskDisplayName string `json:"task_display_name"`
}

func (TaskStarted) kind() Kind {
	return Kind{Type: "task_started", Emitted: true, Opens: "task"}
}

// NewTaskStarted drafts task_started; it makes TaskDisplayName of who's task name.
func NewTaskStarted(who Identity, f TaskStarted) Draft {
	f.TaskDisplayName = displayName(who.TaskName)
	return draft(who, f)
}

// displayName cuts at a character, never inside one.
func displayName(name string) string {
	if r := []rune(name); len(r) > 80 {
		return string(r[:80]) + "..."
	}
	return name
}

// TaskCompleted is told when a task has its output, after all guardrails.
type TaskCompleted struct {
	Output TaskOutput `json:"output"`
	// TaskDescription repeats output.description.
	TaskDescription string `json:"task_description"`
	// OutputRaw repeats output.raw.
	OutputRaw string `json:"output_raw"`
	// OutputFormat repeats output.output_format.
	OutputFormat string `json:"output_format"`
}

func (TaskCompleted) kind() Kind {
	return Kind{Type: "task_completed", Emitted: true, Closes: "task"}
}

// NewTaskCompleted drafts task_completed; the fields that repeat the output are made of it.
func NewTaskCompleted(who Identity, f TaskCompleted) Draft {
	f.TaskDescription, f.OutputRaw, f.OutputFormat = f.Output.Description, f.Output.Raw, f.Output.OutputFormat
	return draft(who, f)
}

// TaskFailed is told when a task ends without an output.
type TaskFailed struct {
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (TaskFailed) kind() Kind {
	return Kind{Type: "task_failed", Emitted: true, Closes: "task"}
}

// NewTaskFailed drafts task_failed.
func NewTaskFailed(who Identity, f TaskFailed) Draft { return draft(who, f) }

// TaskEvaluation is told when an agent's work on a task is evaluated, in training only.
type TaskEvaluation struct {
	// EvaluationType is training_data_evaluation or task_evaluation.
	EvaluationType string `json:"evaluation_type"`
}

func (TaskEvaluation) kind() Kind {
	return Kind{Type: "task_evaluation"}
}

// NewTaskEvaluation drafts task_evaluation.
func NewTaskEvaluation(who Identity, f TaskEvaluation) Draft { return draft(who, f) }

// TaskOutput is what a task gave.
type TaskOutput struct {
	// Description is the task with its inputs filled in.
	Description    string `json:"description"`
	Name           string `json:"name"`
	ExpectedOutput string `json:"expected_output"`
	// Summary is a short form of the output.
	Summary string `json:"summary"`
	// Raw is the output as text.
	Raw string `json:"raw"`
	// Pydantic is always null: it is for models written in Python.
	Pydantic any `json:"pydantic"`
	// JSONDict is the output as JSON, for a task that asks for it.
	JSONDict json.RawMessage `json:"json_dict"`
	// Agent is the role of the agent that did the task.
	Agent string `json:"agent"`
	// OutputFormat is raw or json.
	OutputFormat string `json:"output_format"`
	// ToolFailures are those of the task, in order.
	ToolFailures List[ToolFailureRecord] `json:"tool_failures"`
}
