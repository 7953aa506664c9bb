package events

var crewFamily = family{"crew", []fields{
	CrewKickoffStarted{},
	CrewKickoffCompleted{},
	CrewKickoffFailed{},
	CrewTrainStarted{},
	CrewTrainCompleted{},
	CrewTrainFailed{},
	CrewTestStarted{},
	CrewTestResult{},
	CrewTestCompleted{},
	CrewTestFailed{},
}}

// CrewKickoffStarted is told when a crew begins, before its inputs are put into its texts.
type CrewKickoffStarted struct {
	CrewName Text `json:"crew_name"`
	// Inputs are the kickoff's, as they were given.
	Inputs map[string]any `json:"inputs"`
}

func (CrewKickoffStarted) kind() Kind {
	return Kind{Type: "crew_kickoff_started", Emitted: true, Opens: "crew_kickoff"}
}

// NewCrewKickoffStarted drafts crew_kickoff_started.
func NewCrewKickoffStarted(who Identity, f CrewKickoffStarted) Draft { return draft(who, f) }

// CrewKickoffCompleted is told when a crew has succeeded.
type CrewKickoffCompleted struct {
	CrewName Text `json:"crew_name"`
	// Output is that of the last task.
	Output *TaskOutput `json:"output"`
	// TotalTokens sums the usage of all model calls of the run.
	TotalTokens int `json:"total_tokens"`
}

func (CrewKickoffCompleted) kind() Kind {
	return Kind{Type: "crew_kickoff_completed", Emitted: true, Closes: "crew_kickoff"}
}

// NewCrewKickoffCompleted drafts crew_kickoff_completed.
func NewCrewKickoffCompleted(who Identity, f CrewKickoffCompleted) Draft { return draft(who, f) }

// CrewKickoffFailed is told when a crew ends without a result: it failed, was stopped or ran out of time.
type CrewKickoffFailed struct {
	CrewName Text `json:"crew_name"`
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (CrewKickoffFailed) kind() Kind {
	return Kind{Type: "crew_kickoff_failed", Emitted: true, Closes: "crew_kickoff"}
}

// NewCrewKickoffFailed drafts crew_kickoff_failed.
func NewCrewKickoffFailed(who Identity, f CrewKickoffFailed) Draft { return draft(who, f) }

// CrewTrainStarted is told when the training of a crew begins.
type CrewTrainStarted struct {
	CrewName Text `json:"crew_name"`
	// NIterations is how many runs the training makes.
	NIterations int `json:"n_iterations"`
	// Filename is where the result of the training goes.
	Filename string         `json:"filename"`
	Inputs   map[string]any `json:"inputs"`
}

func (CrewTrainStarted) kind() Kind {
	return Kind{Type: "crew_train_started", Opens: "crew_train"}
}

// NewCrewTrainStarted drafts crew_train_started.
func NewCrewTrainStarted(who Identity, f CrewTrainStarted) Draft { return draft(who, f) }

// CrewTrainCompleted is told when the result of a training is saved.
type CrewTrainCompleted struct {
	CrewName Text `json:"crew_name"`
	// NIterations is how many runs the training made.
	NIterations int `json:"n_iterations"`
	// Filename is where the result of the training is.
	Filename string `json:"filename"`
}

func (CrewTrainCompleted) kind() Kind {
	return Kind{Type: "crew_train_completed", Closes: "crew_train"}
}

// NewCrewTrainCompleted drafts crew_train_completed.
func NewCrewTrainCompleted(who Identity, f CrewTrainCompleted) Draft { return draft(who, f) }

// CrewTrainFailed is told when a training ends without a result.
type CrewTrainFailed struct {
	CrewName Text `json:"crew_name"`
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (CrewTrainFailed) kind() Kind {
	return Kind{Type: "crew_train_failed", Closes: "crew_train"}
}

// NewCrewTrainFailed drafts crew_train_failed.
func NewCrewTrainFailed(who Identity, f CrewTrainFailed) Draft { return draft(who, f) }

// CrewTestStarted is told when the test of a crew begins.
type CrewTestStarted struct {
	CrewName Text `json:"crew_name"`
	// NIterations is how many runs the test makes.
	NIterations int `json:"n_iterations"`
	// EvalLLM is the model that judges the outputs.
	EvalLLM Text           `json:"eval_llm"`
	Inputs  map[string]any `json:"inputs"`
}

func (CrewTestStarted) kind() Kind {
	return Kind{Type: "crew_test_started", Opens: "crew_test"}
}

// NewCrewTestStarted drafts crew_test_started.
func NewCrewTestStarted(who Identity, f CrewTestStarted) Draft { return draft(who, f) }

// CrewTestResult is told when a task of a tested crew is judged, once per iteration and before its task_completed.
type CrewTestResult struct {
	CrewName Text `json:"crew_name"`
	// Quality is the mark, 0 to 10.
	Quality float64 `json:"quality"`
	// ExecutionDuration is how long the task took, in seconds.
	ExecutionDuration float64 `json:"execution_duration"`
	// Model is the one that judged.
	Model string `json:"model"`
}

func (CrewTestResult) kind() Kind {
	return Kind{Type: "crew_test_result"}
}

// NewCrewTestResult drafts crew_test_result.
func NewCrewTestResult(who Identity, f CrewTestResult) Draft { return draft(who, f) }

// CrewTestCompleted is told when all iterations of a test are done.
type CrewTestCompleted struct {
	CrewName Text `json:"crew_name"`
}

func (CrewTestCompleted) kind() Kind {
	return Kind{Type: "crew_test_completed", Closes: "crew_test"}
}

// NewCrewTestCompleted drafts crew_test_completed.
func NewCrewTestCompleted(who Identity, f CrewTestCompleted) Draft { return draft(who, f) }

// CrewTestFailed is told when a test ends without a result.
type CrewTestFailed struct {
	CrewName Text `json:"crew_name"`
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (CrewTestFailed) kind() Kind {
	return Kind{Type: "crew_test_failed", Closes: "crew_test"}
}

// NewCrewTestFailed drafts crew_test_failed.
func NewCrewTestFailed(who Identity, f CrewTestFailed) Draft { return draft(who, f) }
