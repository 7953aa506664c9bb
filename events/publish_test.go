package events

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPublish(t *testing.T) {
	who := Identity{TaskID: taskID, TaskName: "classify", AgentID: agentID, AgentRole: "Support Analyst"}
	conversation := []json.RawMessage{json.RawMessage(`{"role":"user","content":"<b>&</b>"}`)}
	tests := []struct {
		name  string
		draft Draft
		want  map[string]any
	}{
		{"an event of a task comes from the task", NewTaskFailed(who, TaskFailed{}), object{"source_type": "task", "source_fingerprint": taskID}},
		{"an event of an agent comes from the agent", NewAgentLogsStarted(who, AgentLogsStarted{}), object{"source_type": "agent", "source_fingerprint": agentID, "task_id": taskID}},
		{"an event of a tool comes from the agent that uses it", NewToolUsageError(who, ToolUsageError{}), object{"source_type": "agent", "source_fingerprint": agentID}},
		{"a model call carries its identity and no source", NewLLMCallFailed(who, LLMCallFailed{}), object{"source_type": nil, "agent_role": "Support Analyst", "task_name": "classify"}},
		{"an event without an identity shows null", NewCrewKickoffFailed(Identity{}, CrewKickoffFailed{}), object{"source_type": nil, "task_id": nil, "agent_role": nil, "crew_name": nil}},
		{"an event of a task without an id has no source", NewTaskFailed(Identity{}, TaskFailed{}), object{"source_type": nil, "source_fingerprint": nil}},
		{"what the journal has not set is null", NewTaskFailed(who, TaskFailed{}), object{"parent_event_id": nil, "started_event_id": nil, "previous_event_id": nil, "triggered_by_event_id": nil, "fingerprint_metadata": nil}},
		{"a prompt is shown", NewLLMCallStarted(who, LLMCallStarted{}), object{"messages": []any{object{"role": "user", "content": "<b>&</b>"}}}},
		{"the page's prompt is not shown where it does not belong", NewLLMCallFailed(who, LLMCallFailed{}), object{"messages": nil}},
		{"a long task name is cut between characters", NewTaskStarted(Identity{TaskName: strings.Repeat("ü", 81)}, TaskStarted{}), object{"task_display_name": strings.Repeat("ü", 80) + "..."}},
		{"a task name of 80 characters is shown whole", NewTaskStarted(Identity{TaskName: strings.Repeat("ü", 80)}, TaskStarted{}), object{"task_display_name": strings.Repeat("ü", 80)}},
		{"an output is repeated under the small names", NewTaskCompleted(who, TaskCompleted{Output: TaskOutput{Description: "d", Raw: "r", OutputFormat: "raw"}}), object{"task_description": "d", "output_raw": "r", "output_format": "raw"}},
		{"a broken text becomes valid UTF-8", NewTaskFailed(who, TaskFailed{Error: "a\xffb"}), object{"error": "a\ufffdb"}},
		{"data of another release does not double a base field", Draft{Type: "task_failed", Data: json.RawMessage(`{"timestamp":"x","task_id":"y","error":"z"}`)}, object{"task_id": nil, "error": "z", "timestamp": "2025-02-16T10:58:44.965Z"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := test.draft.Event("id", "", "")
			e.At = time.Date(2025, 2, 16, 11, 58, 44, 965_999_999, time.FixedZone("", 3600))
			p := e.Publish("run", conversation)
			got := decodeObject(t, p.Data)
			for name, want := range test.want {
				if !bytes.Equal(encode(got[name]), encode(want)) {
					t.Errorf("%s is %v, want %v", name, got[name], want)
				}
			}
			if p.ID != "id" || p.ExecutionID != "run" || p.Type != e.Type || p.Timestamp != "2025-02-16T10:58:44.965Z" {
				t.Errorf("envelope %+v", p)
			}
		})
	}
}

func TestCodeIsPublishedWithoutHTMLEscapes(t *testing.T) {
	d := NewAgentExecutionCompleted(Identity{AgentRole: "<A&B>"}, AgentExecutionCompleted{Output: "if a < b && c > d {}"})
	data := string(d.Event("id", "", "").Publish("run", nil).Data)
	if !strings.Contains(data, `"if a < b && c > d {}"`) || !strings.Contains(data, `"<A&B>"`) {
		t.Error(data)
	}
}

func TestWhatNoJSONCanHoldPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("raw JSON that is none was drafted")
		}
	}()
	NewTaskCompleted(Identity{}, TaskCompleted{Output: TaskOutput{JSONDict: json.RawMessage("{")}})
}

func FuzzPublish(f *testing.F) {
	f.Add("task_started", taskID, "Analyst", []byte(`{"a":1,"a":2,"task_id":"mine","messages":[1]}`), []byte(`{"role":"user"}`), true)
	f.Add("order.shipped", "", "\xff", []byte(`null`), []byte(`1`), false)
	f.Add("", "", "", []byte(`[1`), []byte(`{`), true)
	f.Fuzz(func(t *testing.T, typ, taskID, role string, data, message []byte, prompt bool) {
		if !json.Valid(message) {
			message = []byte("null")
		}
		e := Event{ID: "id", N: 1, Type: typ, Identity: Identity{TaskID: taskID, AgentRole: role}, Data: data, Prompt: prompt}
		p := e.Publish("run", []json.RawMessage{message})
		if again := e.Publish("run", []json.RawMessage{message}); !bytes.Equal(p.Data, again.Data) {
			t.Errorf("two publications differ: %s and %s", p.Data, again.Data)
		}
		names := memberNames(t, p.Data)
		if !slices.Equal(names[:len(baseNames)], baseNames) {
			t.Errorf("base fields are not first: %v", names)
		}
		if unique := slices.Compact(slices.Sorted(slices.Values(names))); len(unique) != len(names) {
			t.Errorf("a field is there twice: %v", names)
		}
		if prompt && !slices.Contains(names, "messages") {
			t.Errorf("no messages: %v", names)
		}
	})
}

// memberNames reads the names of an object in their order, doubles included.
func memberNames(t *testing.T, data json.RawMessage) (names []string) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		t.Fatalf("%s is no object: %v", data, err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			t.Fatal(err)
		}
		names = append(names, name.(string))
	}
	d.Token()
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("%s goes on after the object", data)
	}
	return names
}

func decodeObject(t *testing.T, data json.RawMessage) map[string]any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal(data, &o); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return o
}
