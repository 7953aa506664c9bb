package events

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestNewCustom(t *testing.T) {
	nested := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	long := func(n int) string { return `{"a":"` + strings.Repeat("x", n-8) + `"}` }
	tests := []struct {
		name, typ, data string
		want            string // the data, "" for an error
		err             string // a part of the sentence
	}{
		{"an object is taken", "order.shipped", `{"id": 7, "to": "Ulm"}`, `{"id":7,"to":"Ulm"}`, ""},
		{"no data is an empty object", "order.shipped", "", `{}`, ""},
		{"null is an empty object", "order.shipped", " null ", `{}`, ""},
		{"long numbers keep their digits", "order.shipped", `{"id":12345678901234567890,"sum":0.10}`, `{"id":12345678901234567890,"sum":0.10}`, ""},
		{"of a field that is there twice the last counts, at any depth", "order.shipped", `{"a":{"b":1,"b":2},"a":{"b":3,"b":4}}`, `{"a":{"b":4}}`, ""},
		{"broken text becomes valid UTF-8", "order.shipped", "{\"a\":\"\xff\"}", "{\"a\":\"\ufffd\"}", ""},
		{"a type of 64 characters is taken", strings.Repeat("a", 64), `{}`, `{}`, ""},
		{"a system word later in the type is no matter", "acme:task_started", `{}`, `{}`, ""},
		{"a word that only resembles a prefix is no matter", "tasks_done", `{}`, `{}`, ""},
		{"data up to the limit is taken", "order.shipped", long(MaxCustomData), long(MaxCustomData), ""},
		{"data at the deepest level is taken", "order.shipped", nested(64), nested(64), ""},

		{"an empty type is refused", "", `{}`, "", "1 to 64 characters"},
		{"a type of 65 characters is refused", strings.Repeat("a", 65), `{}`, "", "1 to 64 characters"},
		{"capitals are refused", "OrderShipped", `{}`, "", "small letter"},
		{"a line end is refused", "order\n", `{}`, "", "small letter"},
		{"a star is refused: targets use it for all", "*", `{}`, "", "small letter"},
		{"a system event is refused", "task_started", `{}`, "", `begin with "task_" are kept`},
		{"a system event of two words is refused", "human_feedback_received", `{}`, "", `begin with "human_feedback_" are kept`},
		{"a name that a system event may get is refused", "llm_call_retried", `{}`, "", `begin with "llm_" are kept`},
		{"a name of Muster's own is refused", "run_budget_reached", `{}`, "", `begin with "run_" are kept`},
		{"an array is refused", "order.shipped", `[1]`, "", "must be a JSON object"},
		{"a text is refused", "order.shipped", `"x"`, "", "must be a JSON object"},
		{"half an object is refused", "order.shipped", `{"a":`, "", "not valid JSON"},
		{"two objects are refused", "order.shipped", `{}{}`, "", "not valid JSON"},
		{"a base field is refused", "order.shipped", `{"emission_sequence":1}`, "", `"emission_sequence": every event has one`},
		{"data over the limit is refused", "order.shipped", long(MaxCustomData + 1), "", "262145 bytes"},
		{"data nested too deep is refused", "order.shipped", nested(65), "", "64 levels"},
		{"arrays count as levels", "order.shipped", `{"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`, "", "64 levels"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			who := Identity{TaskID: taskID}
			d, err := NewCustom(test.typ, json.RawMessage(test.data), who)
			switch {
			case test.err != "":
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, want an error with %q", err, test.err)
				}
			case err != nil:
				t.Error(err)
			case d.Type != test.typ || d.Who != who || d.Prompt || string(d.Data) != test.want:
				t.Errorf("got %s, want %s", fmt.Sprintf("%+v with %.200s", d, d.Data), test.want)
			}
		})
	}
}

func FuzzNewCustom(f *testing.F) {
	f.Add("order.shipped", []byte(`{"id": 7, "a": {"b": [1, 1e400, null, "\ud800"]}}`))
	f.Add("task_started", []byte(`null`))
	f.Add("x", []byte(`{"a":1,"a":2}{}`))
	f.Fuzz(func(t *testing.T, typ string, data []byte) {
		d, err := NewCustom(typ, data, Identity{})
		if err != nil {
			if err.Error() == "" || d.Type != "" {
				t.Errorf("error %q with draft %+v", err, d)
			}
			return
		}
		again, err := NewCustom(d.Type, d.Data, Identity{})
		if err != nil && len(d.Data) <= MaxCustomData {
			t.Errorf("its own data %s is refused: %v", d.Data, err)
		}
		if err == nil && string(again.Data) != string(d.Data) {
			t.Errorf("%s became %s", d.Data, again.Data)
		}
		own := memberNames(t, d.Data)
		published := memberNames(t, d.Event("id", "", "").Publish("run", nil).Data)
		if len(published) != len(baseNames)+len(own) {
			t.Errorf("own fields %v, published %v", own, published)
		}
	})
}
