package events

var knowledgeFamily = family{"knowledge", []fields{
	KnowledgeSearchQueryStarted{},
	KnowledgeSearchQueryCompleted{},
	KnowledgeSearchQueryFailed{},
	KnowledgeQueryStarted{},
	KnowledgeQueryCompleted{},
	KnowledgeQueryFailed{},
}}

// KnowledgeSearchQueryStarted is told when the knowledge of agent and crew is about to be searched for a task.
type KnowledgeSearchQueryStarted struct {
}

func (KnowledgeSearchQueryStarted) kind() Kind {
	return Kind{Type: "knowledge_search_query_started", Opens: "knowledge_search_query"}
}

// NewKnowledgeSearchQueryStarted drafts knowledge_search_query_started.
func NewKnowledgeSearchQueryStarted(who Identity, f KnowledgeSearchQueryStarted) Draft {
	return draft(who, f)
}

// KnowledgeSearchQueryCompleted is told when the knowledge for a task is found.
type KnowledgeSearchQueryCompleted struct {
	// Query is what was searched for, as a model rewrote it.
	Query              string `json:"query"`
	RetrievedKnowledge string `json:"retrieved_knowledge"`
}

func (KnowledgeSearchQueryCompleted) kind() Kind {
	return Kind{Type: "knowledge_search_query_completed", Closes: "knowledge_search_query"}
}

// NewKnowledgeSearchQueryCompleted drafts knowledge_search_query_completed.
func NewKnowledgeSearchQueryCompleted(who Identity, f KnowledgeSearchQueryCompleted) Draft {
	return draft(who, f)
}

// KnowledgeSearchQueryFailed is told when the knowledge for a task cannot be searched; the run goes on without.
type KnowledgeSearchQueryFailed struct {
	Query string `json:"query"`
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (KnowledgeSearchQueryFailed) kind() Kind {
	return Kind{Type: "knowledge_search_query_failed", Closes: "knowledge_search_query"}
}

// NewKnowledgeSearchQueryFailed drafts knowledge_search_query_failed.
func NewKnowledgeSearchQueryFailed(who Identity, f KnowledgeSearchQueryFailed) Draft {
	return draft(who, f)
}

// KnowledgeQueryStarted is told when a model is about to make a search query of a task.
type KnowledgeQueryStarted struct {
	TaskPrompt string `json:"task_prompt"`
}

func (KnowledgeQueryStarted) kind() Kind {
	return Kind{Type: "knowledge_query_started", Opens: "knowledge_query"}
}

// NewKnowledgeQueryStarted drafts knowledge_query_started.
func NewKnowledgeQueryStarted(who Identity, f KnowledgeQueryStarted) Draft { return draft(who, f) }

// KnowledgeQueryCompleted is told when a model has made a search query of a task.
type KnowledgeQueryCompleted struct {
	// Query is the prompt that asked for the search query.
	Query string `json:"query"`
}

func (KnowledgeQueryCompleted) kind() Kind {
	return Kind{Type: "knowledge_query_completed", Closes: "knowledge_query"}
}

// NewKnowledgeQueryCompleted drafts knowledge_query_completed.
func NewKnowledgeQueryCompleted(who Identity, f KnowledgeQueryCompleted) Draft { return draft(who, f) }

// KnowledgeQueryFailed is told when no search query can be made of a task.
type KnowledgeQueryFailed struct {
	// Error is a sentence for people.
	Error string `json:"error"`
}

func (KnowledgeQueryFailed) kind() Kind {
	return Kind{Type: "knowledge_query_failed", Closes: "knowledge_query"}
}

// NewKnowledgeQueryFailed drafts knowledge_query_failed.
func NewKnowledgeQueryFailed(who Identity, f KnowledgeQueryFailed) Draft { return draft(who, f) }
