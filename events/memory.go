package events

var memoryFamily = family{"memory", []fields{
	MemoryRetrievalStarted{},
	MemoryRetrievalCompleted{},
	MemoryRetrievalFailed{},
	MemoryQueryStarted{},
	MemoryQueryCompleted{},
	MemoryQueryFailed{},
	MemorySaveStarted{},
	MemorySaveCompleted{},
	MemorySaveFailed{},
}}

// MemoryRetrievalStarted is told when memories for a task are about to be gathered.
type MemoryRetrievalStarted struct {
}

func (MemoryRetrievalStarted) kind() Kind {
	return Kind{Type: "memory_retrieval_started", Opens: "memory_retrieval"}
}

// NewMemoryRetrievalStarted drafts memory_retrieval_started.
func NewMemoryRetrievalStarted(who Identity, f MemoryRetrievalStarted) Draft { return draft(who, f) }

// MemoryRetrievalCompleted is told when the memories for a task are gathered.
type MemoryRetrievalCompleted struct {
	// MemoryContent is the text that the agent is given.
	MemoryContent string `json:"memory_content"`
	// RetrievalTimeMS is in milliseconds.
	RetrievalTimeMS float64 `json:"retrieval_time_ms"`
}

func (MemoryRetrievalCompleted) kind() Kind {
	return Kind{Type: "memory_retrieval_completed", Closes: "memory_retrieval"}
}

// NewMemoryRetrievalCompleted drafts memory_retrieval_completed.
func NewMemoryRetrievalCompleted(who Identity, f MemoryRetrievalCompleted) Draft {
	return draft(who, f)
}

// MemoryRetrievalFailed is told when the memories for a task cannot be gathered; the run goes on without.
type MemoryRetrievalFailed struct {
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (MemoryRetrievalFailed) kind() Kind {
	return Kind{Type: "memory_retrieval_failed", Closes: "memory_retrieval"}
}

// NewMemoryRetrievalFailed drafts memory_retrieval_failed.
func NewMemoryRetrievalFailed(who Identity, f MemoryRetrievalFailed) Draft { return draft(who, f) }

// MemoryQueryStarted is told when the memory is about to be searched.
type MemoryQueryStarted struct {
	Query string `json:"query"`
	// Limit is how many memories are asked for at most.
	Limit int `json:"limit"`
	// ScoreThreshold is the least likeness of a result, 0 to 1.
	ScoreThreshold *float64 `json:"score_threshold"`
}

func (MemoryQueryStarted) kind() Kind {
	return Kind{Type: "memory_query_started", Opens: "memory_query"}
}

// NewMemoryQueryStarted drafts memory_query_started.
func NewMemoryQueryStarted(who Identity, f MemoryQueryStarted) Draft { return draft(who, f) }

// MemoryQueryCompleted is told when a search of the memory is done.
type MemoryQueryCompleted struct {
	Query   string    `json:"query"`
	Results List[any] `json:"results"`
	// Limit is how many memories are asked for at most.
	Limit int `json:"limit"`
	// ScoreThreshold is the least likeness of a result, 0 to 1.
	ScoreThreshold *float64 `json:"score_threshold"`
	// QueryTimeMS is in milliseconds.
	QueryTimeMS float64 `json:"query_time_ms"`
}

func (MemoryQueryCompleted) kind() Kind {
	return Kind{Type: "memory_query_completed", Closes: "memory_query"}
}

// NewMemoryQueryCompleted drafts memory_query_completed.
func NewMemoryQueryCompleted(who Identity, f MemoryQueryCompleted) Draft { return draft(who, f) }

// MemoryQueryFailed is told when a search of the memory fails.
type MemoryQueryFailed struct {
	Query string `json:"query"`
	// Limit is how many memories are asked for at most.
	Limit int `json:"limit"`
	// ScoreThreshold is the least likeness of a result, 0 to 1.
	ScoreThreshold *float64 `json:"score_threshold"`
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (MemoryQueryFailed) kind() Kind {
	return Kind{Type: "memory_query_failed", Closes: "memory_query"}
}

// NewMemoryQueryFailed drafts memory_query_failed.
func NewMemoryQueryFailed(who Identity, f MemoryQueryFailed) Draft { return draft(who, f) }

// MemorySaveStarted is told when something is about to be remembered.
type MemorySaveStarted struct {
	Value    Text           `json:"value"`
	Metadata map[string]any `json:"metadata"`
}

func (MemorySaveStarted) kind() Kind {
	return Kind{Type: "memory_save_started", Opens: "memory_save"}
}

// NewMemorySaveStarted drafts memory_save_started.
func NewMemorySaveStarted(who Identity, f MemorySaveStarted) Draft { return draft(who, f) }

// MemorySaveCompleted is told when something is remembered.
type MemorySaveCompleted struct {
	Value    string         `json:"value"`
	Metadata map[string]any `json:"metadata"`
	// SaveTimeMS is in milliseconds.
	SaveTimeMS float64 `json:"save_time_ms"`
}

func (MemorySaveCompleted) kind() Kind {
	return Kind{Type: "memory_save_completed", Closes: "memory_save"}
}

// NewMemorySaveCompleted drafts memory_save_completed.
func NewMemorySaveCompleted(who Identity, f MemorySaveCompleted) Draft { return draft(who, f) }

// MemorySaveFailed is told when something cannot be remembered.
type MemorySaveFailed struct {
	Value    Text           `json:"value"`
	Metadata map[string]any `json:"metadata"`
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (MemorySaveFailed) kind() Kind {
	return Kind{Type: "memory_save_failed", Closes: "memory_save"}
}

// NewMemorySaveFailed drafts memory_save_failed.
func NewMemorySaveFailed(who Identity, f MemorySaveFailed) Draft { return draft(who, f) }
