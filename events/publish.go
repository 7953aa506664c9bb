package events

import (
	"encoding/json"
	"maps"
	"slices"
)

// base is what every event shows first in its data. The own fields of the catalogue have none of these names, and no custom
// event may.
type base struct {
	// Timestamp is when the event was recorded: UTC, with milliseconds; it strictly increases within a run.
	Timestamp Time   `json:"timestamp"`
	Type      string `json:"type"`
	// SourceFingerprint is the id of the task or agent that the event comes from.
	SourceFingerprint Text `json:"source_fingerprint"`
	// SourceType is task or agent.
	SourceType Text `json:"source_type"`
	// FingerprintMetadata is always null.
	FingerprintMetadata map[string]any `json:"fingerprint_metadata"`
	TaskID              Text           `json:"task_id"`
	TaskName            Text           `json:"task_name"`
	AgentID             Text           `json:"agent_id"`
	AgentRole           Text           `json:"agent_role"`
	EventID             string         `json:"event_id"`
	// ParentEventID is the id of the event that this one is nested in.
	ParentEventID Text `json:"parent_event_id"`
	// PreviousEventID is the id of the event with the number before.
	PreviousEventID Text `json:"previous_event_id"`
	// TriggeredByEventID is always null: it is for flows.
	TriggeredByEventID Text `json:"triggered_by_event_id"`
	// StartedEventID is, on an event that closes a scope, the id of the one that opened it.
	StartedEventID Text `json:"started_event_id"`
	// EmissionSequence numbers the events of a run, from 1 and without gaps.
	EmissionSequence int64 `json:"emission_sequence"`
}

var baseNames = func() (names []string) {
	for _, f := range Common() {
		names = append(names, f.Name)
	}
	return names
}()

// Event gives the draft its id and its place: parent is the event it is nested in, started the event it closes, "" for
// none. The journal sets N, At and Previous when it puts the page.
func (d Draft) Event(id, parent, started string) Event {
	return Event{ID: id, Type: d.Type, Identity: d.Who, Parent: parent, Started: started, Data: d.Data, Prompt: d.Prompt}
}

// Publish shows the event in the streaming envelope of a run: in data the base fields in their order, then the own fields by
// name, always the same bytes for the same event. messages is the conversation of the event's page and is shown if the
// event asks for it.
func (e Event) Publish(executionID string, messages []json.RawMessage) Published {
	b := base{
		Timestamp: Time{e.At}, Type: e.Type,
		TaskID: Text(e.TaskID), TaskName: Text(e.TaskName), AgentID: Text(e.AgentID), AgentRole: Text(e.AgentRole),
		EventID: e.ID, ParentEventID: Text(e.Parent), PreviousEventID: Text(e.Previous), StartedEventID: Text(e.Started),
		EmissionSequence: e.N,
	}
	switch family := familyOf()[e.Type]; {
	case family == "task" && e.TaskID != "":
		b.SourceType, b.SourceFingerprint = "task", b.TaskID
	case (family == "agent" || family == "tool") && e.AgentID != "":
		b.SourceType, b.SourceFingerprint = "agent", b.AgentID
	}
	data := encode(b)
	if own := e.own(messages); len(own) > 0 {
		data = append(append(data[:len(data)-1], ','), encode(own)[1:]...)
	}
	return Published{ID: e.ID, ExecutionID: executionID, Timestamp: stamp(e.At), Type: e.Type, Data: data}
}

// own gives the own fields: none when Data is no object. A journal of another release may hold a field that has become a
// base field since; the base field is shown then.
func (e Event) own(messages []json.RawMessage) map[string]json.RawMessage {
	var own map[string]json.RawMessage
	if err := json.Unmarshal(e.Data, &own); err != nil || own == nil {
		own = map[string]json.RawMessage{}
	}
	maps.DeleteFunc(own, func(name string, _ json.RawMessage) bool { return slices.Contains(baseNames, name) })
	if e.Prompt {
		own["messages"] = encode(messages)
	}
	return own
}
