package run

import (
	"encoding/json"
	"time"

	"muster/events"
)

// PageKind says what a page is for.
type PageKind string

const (
	// FencePage is put by a take-over and by nobody else: no events, no result. From it on, older epochs cannot write.
	FencePage PageKind = "fence"
	// MarkPage holds events and no result: a task starts, a branch ends, the outside adds an event.
	MarkPage PageKind = "mark"
	// LivePage tells events of a step that has no result yet.
	LivePage PageKind = "live"
	// CutPage says that the end of an invocation cut a step off. It tells what the step did until then.
	CutPage PageKind = "cut"
	// QuestionPage opens a question to a person; the step page with the same key closes it.
	QuestionPage PageKind = "question"
	// StepPage holds the result of a step.
	StepPage PageKind = "step"
	// EndPage is the last page of a run and carries its outcome.
	EndPage PageKind = "end"
)

// Page is one record of the journal: checkpoint, event log and source of every webhook at once.
type Page struct {
	Seq   int       `json:"seq"`
	Kind  PageKind  `json:"kind"`
	At    time.Time `json:"at"`
	Epoch int       `json:"epoch"`
	Nonce string    `json:"nonce"`

	// Branch and Key name the step (or mark) within the run; Attempt counts its openings, from 1.
	Branch  string `json:"branch,omitempty"`
	Key     string `json:"key,omitempty"`
	Attempt int    `json:"attempt,omitempty"`
	// Digest is that of the step's request; a different one on replay fails the run.
	Digest string          `json:"digest,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	// Prompt is the conversation that the page's events show.
	Prompt *Prompt `json:"prompt,omitempty"`

	Events []events.Event `json:"events,omitempty"`
	// Notes are what the step target is told, Tasks the tasks that ended since the page before.
	Notes []Note       `json:"notes,omitempty"`
	Tasks []TaskOutput `json:"tasks,omitempty"`
	// Targets are the ids of the targets that are told something of this page.
	Targets []string `json:"targets,omitempty"`

	// Totals and Progress are running values: those of the newest page are the run's.
	Totals   Totals   `json:"totals"`
	Progress Progress `json:"progress"`
	// Asked is the question of a question page; Open holds those that have no answer in the journal.
	Asked *Asked `json:"asked,omitempty"`
	Open  []Open `json:"open,omitempty"`

	// Outcome is set on the end page only.
	Outcome *Outcome `json:"outcome,omitempty"`
}

// Prompt is a conversation, kept without what an earlier page already has.
type Prompt struct {
	// From is the seq of the page whose conversation this one continues, 0 when it begins here; Keep is how many of that
	// page's messages come first; Begin is the seq of the page where the conversation begins.
	From  int               `json:"from,omitempty"`
	Keep  int               `json:"keep,omitempty"`
	Begin int               `json:"begin,omitempty"`
	New   []json.RawMessage `json:"new,omitempty"`
}

// Note is one thought or action of an agent, as the step target is told. Tool is "" for a thought without a tool.
type Note struct {
	Prompt    string `json:"prompt"`
	Thought   string `json:"thought"`
	Tool      string `json:"tool,omitempty"`
	ToolInput string `json:"tool_input,omitempty"`
	Result    string `json:"result,omitempty"`
}

// Totals are running sums over the whole run.
type Totals struct {
	// Events is the number of the last event, LastEvent its id, LastAt its time.
	Events    int64     `json:"events"`
	LastEvent string    `json:"last_event,omitempty"`
	LastType  string    `json:"last_type,omitempty"`
	LastAt    time.Time `json:"last_at,omitzero"`
	// ByType counts the events of each type.
	ByType map[string]int64 `json:"by_type,omitempty"`
	Usage  Usage            `json:"usage"`
	// ByModel is what Usage is made of, and what it cost.
	ByModel map[string]ModelUsage `json:"by_model,omitempty"`
	// Steps counts pages with a result, ToolCalls the tools that were called, Deliveries what targets were told.
	Steps      int `json:"steps"`
	ToolCalls  int `json:"tool_calls,omitempty"`
	Deliveries int `json:"deliveries,omitempty"`
	// WaitedMS is how long the run waited for people, in milliseconds.
	WaitedMS int64 `json:"waited_ms,omitempty"`
}

// Usage is what model calls cost, summed from the calls and never from anything else.
type Usage struct {
	TotalTokens         int `json:"total_tokens"`
	PromptTokens        int `json:"prompt_tokens"`
	CachedPromptTokens  int `json:"cached_prompt_tokens"`
	CompletionTokens    int `json:"completion_tokens"`
	ReasoningTokens     int `json:"reasoning_tokens"`
	CacheCreationTokens int `json:"cache_creation_tokens"`
	SuccessfulRequests  int `json:"successful_requests"`
}

// Add gives the sum.
func (u Usage) Add(v Usage) Usage {
	return Usage{
		u.TotalTokens + v.TotalTokens, u.PromptTokens + v.PromptTokens, u.CachedPromptTokens + v.CachedPromptTokens,
		u.CompletionTokens + v.CompletionTokens, u.ReasoningTokens + v.ReasoningTokens,
		u.CacheCreationTokens + v.CacheCreationTokens, u.SuccessfulRequests + v.SuccessfulRequests,
	}
}

// Progress says how far the crew has come.
type Progress struct {
	Completed int `json:"completed"`
	Total     int `json:"total"`
	// Current is the name of the task under way, CurrentAgent the role that does it.
	Current      string `json:"current,omitempty"`
	CurrentAgent string `json:"current_agent,omitempty"`
	// TaskPage and NotePage are the seqs of the newest pages with Tasks and with Notes, 0 for none: no output is kept twice.
	// Service.LastTask and Service.LastNote read them.
	TaskPage int `json:"task_page,omitempty"`
	NotePage int `json:"note_page,omitempty"`
}

// TaskOutput is what a task gave.
type TaskOutput struct {
	TaskID         string          `json:"task_id"`
	Description    string          `json:"description"`
	Name           string          `json:"name"`
	ExpectedOutput string          `json:"expected_output"`
	Summary        string          `json:"summary"`
	Raw            string          `json:"raw"`
	JSON           json.RawMessage `json:"json,omitempty"`
	Agent          string          `json:"agent"`
	// Feedback is all that a person said about it.
	Feedback string `json:"feedback,omitempty"`
}

// Outcome is how a run ended.
type Outcome struct {
	State  State           `json:"state"`
	Result string          `json:"result,omitempty"`
	JSON   json.RawMessage `json:"json,omitempty"`
	// Error is a sentence for people; set unless the run succeeded.
	Error string `json:"error,omitempty"`
}
