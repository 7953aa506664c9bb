// Package events is the catalogue of what Muster tells the world: one struct and one constructor per type of event. An
// event is drafted by its constructor, given its id and place by the journal (package run), and shown in the streaming
// envelope by Publish. Field names and meanings are those of the CrewAI event bus, so that its consumers need no change.
package events

import (
	"encoding/json"
	"time"
)

// Identity says whose event it is. Unlike the original, every event of a task or an agent carries it.
type Identity struct {
	TaskID    string `json:"task_id,omitempty"`
	TaskName  string `json:"task_name,omitempty"`
	AgentID   string `json:"agent_id,omitempty"`
	AgentRole string `json:"agent_role,omitempty"`
}

// Draft is an event before the journal has given it an id, a number and a time. Only constructors make drafts.
type Draft struct {
	Type string
	Who  Identity
	// Data holds the event's own fields, as a JSON object.
	Data json.RawMessage
	// Prompt says that the event shows the conversation sent to the model under `messages`; the journal keeps it once for
	// all events of a page, so it is not in Data.
	Prompt bool
}

// Event is an event as the journal keeps it: the own fields in Data, the base fields beside it.
type Event struct {
	ID   string    `json:"id"`
	N    int64     `json:"n"`
	At   time.Time `json:"at"`
	Type string    `json:"type"`
	Identity
	// Parent is the id of the event this one is nested in, Started that of the event it closes, Previous that of the event
	// with the number before.
	Parent   string          `json:"parent,omitempty"`
	Started  string          `json:"started,omitempty"`
	Previous string          `json:"previous,omitempty"`
	Data     json.RawMessage `json:"data,omitempty"`
	Prompt   bool            `json:"prompt,omitempty"`
}

// Published is an event in the streaming envelope.
type Published struct {
	ID          string          `json:"id"`
	ExecutionID string          `json:"execution_id"`
	Timestamp   string          `json:"timestamp"`
	Type        string          `json:"type"`
	Data        json.RawMessage `json:"data"`
}

// TimeFormat is how every time is written: UTC, RFC 3339, milliseconds, Z.
const TimeFormat = "2006-01-02T15:04:05.000Z"
