package crew

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/shared/fault"
)

func TestInterpolate_fills_names_in_braces_and_nothing_else(t *testing.T) {
	inputs := map[string]any{
		"topic": "AI", "company-name": "Acme", "_x1": "y", "n": 10.0, "big": json.Number("12345678901234567890"), "half": 0.5,
		"yes": true, "none": nil, "list": []any{"a", 1.0, nil}, "object": map[string]any{"b": "<&>", "a": false}, "tricky": "{topic}", "int": 3,
	}
	for text, want := range map[string]string{
		"About {topic}.":              "About AI.",
		"{topic}{topic}":              "AIAI",
		"{company-name} {_x1}":        "Acme y",
		"{n} {big} {half} {int}":      "10 12345678901234567890 0.5 3",
		"{yes} {none}":                "true null",
		"{list}":                      `["a",1,null]`,
		"{object}":                    `{"a":false,"b":"<&>"}`,
		"{tricky}":                    "{topic}",
		"{{topic}}":                   "{AI}",
		`{"topic": "x"} { topic } {}`: `{"topic": "x"} { topic } {}`,
		"{1topic} {to pic} {topic":    "{1topic} {to pic} {topic",
		"{topïc}":                     "{topïc}",
		"":                            "",
	} {
		if got, err := interpolate(text, inputs); err != nil || got != want {
			t.Errorf("%q gives %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestInterpolate_leaves_braces_without_any_inputs(t *testing.T) {
	for _, inputs := range []map[string]any{nil, {}} {
		if got, err := interpolate("About {topic}.", inputs); err != nil || got != "About {topic}." {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestInterpolate_says_which_variable_is_missing(t *testing.T) {
	_, err := interpolate("{b} {topic} {a} {b}", map[string]any{"topic": "AI"})
	if !fault.Is(err, fault.Missing) || err.Error() != "Missing required template variable 'a', 'b' in the description of task 't'." {
		t.Errorf("got %v", err)
	}
}

func TestInterpolate_refuses_values_that_json_does_not_have(t *testing.T) {
	for name, v := range map[string]any{"function": func() {}, "channel": []any{make(chan int)}, "struct": map[string]any{"a": struct{}{}}} {
		_, err := interpolate("x", map[string]any{name: v})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "'"+name+"'") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzInterpolate(f *testing.F) {
	f.Add("About {topic} and {\"a\": 1}", "topic", "{topic}")
	f.Add("{{a}}", "a", "}{")
	f.Fuzz(func(t *testing.T, text, name, value string) {
		d := Definition{Tasks: []Task{{Key: "t", Description: text}}}
		inputs := map[string]any{name: value}
		missing := MissingInputs(d, inputs)
		got, err := interpolate(text, inputs)
		if (err != nil) != (len(missing) > 0) {
			t.Fatalf("missing %q, and %v", missing, err)
		}
		if err == nil && !strings.Contains(text, "{"+name+"}") && got != text {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

func TestInterpolate_undoes_a_split_text(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var text, want strings.Builder
		inputs := map[string]any{}
		for range rapid.IntRange(1, 8).Draw(t, "pieces") {
			plain := rapid.StringMatching(`[a-z ":,]*`).Draw(t, "plain")
			name := rapid.StringMatching(`[A-Za-z_][A-Za-z0-9_-]{0,6}`).Draw(t, "name")
			if _, ok := inputs[name]; !ok {
				inputs[name] = rapid.String().Draw(t, "value")
			}
			text.WriteString(plain + "{" + name + "}")
			want.WriteString(plain + inputs[name].(string))
		}
		if got, err := interpolate(text.String(), inputs); err != nil || got != want.String() {
			t.Fatalf("%q gives %q, %v; want %q", text.String(), got, err, want.String())
		}
	})
}

func TestDefinition_names_its_inputs(t *testing.T) {
	d := Definition{
		Agents: []Agent{{Role: "{role_in}", Goal: "{goal_in} {topic}", Backstory: "{story-in}", SystemTemplate: "{not_this}"}},
		Tasks:  []Task{{Description: `{topic} like {"title": "x"}`, ExpectedOutput: "{expected_in}", Guardrails: []string{"{nor_this}"}}},
		Inputs: map[string]any{"topic": "AI", "unused": 1},
	}
	if diff := cmp.Diff([]string{"expected_in", "goal_in", "role_in", "story-in", "topic"}, d.InputNames()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"expected_in", "goal_in", "role_in"}, MissingInputs(d, map[string]any{"story-in": nil, "extra": 1})); diff != "" {
		t.Error(diff)
	}
}

func TestDefinition_with_inputs_is_a_copy_filled_in(t *testing.T) {
	d := Definition{
		Agents: []Agent{{Key: "a", Role: "{topic} Researcher", Goal: "{topic}", Backstory: "{tone}"}},
		Tasks:  []Task{{Key: "t", Name: "{topic}", Description: "On {topic}.", ExpectedOutput: "{tone} text"}},
		Inputs: map[string]any{"topic": "cats", "tone": "dry"},
	}
	got, err := d.With(map[string]any{"topic": "dogs"})
	if err != nil {
		t.Fatal(err)
	}
	want := Definition{
		Agents: []Agent{{Key: "a", Role: "dogs Researcher", Goal: "dogs", Backstory: "dry"}},
		Tasks:  []Task{{Key: "t", Name: "{topic}", Description: "On dogs.", ExpectedOutput: "dry text"}},
		Inputs: map[string]any{"topic": "dogs", "tone": "dry"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if d.Tasks[0].Description != "On {topic}." || d.Agents[0].Role != "{topic} Researcher" || d.Inputs["topic"] != "cats" {
		t.Errorf("the original has changed: %+v", d)
	}
}

func TestDefinition_with_too_few_inputs_says_where(t *testing.T) {
	d := Definition{Tasks: []Task{{Key: "research", Description: "On {topic}."}}}
	_, err := d.With(map[string]any{"other": 1})
	if want := "Missing required template variable 'topic' in the description of task 'research'."; fault.Message(err) != want {
		t.Errorf("got %q", fault.Message(err))
	}
	if got, err := d.With(nil); err != nil || got.Tasks[0].Description != "On {topic}." {
		t.Errorf("without inputs: %q, %v", got.Tasks[0].Description, err)
	}
}

func TestDefinition_shows_the_trigger_payload_to_the_first_task_and_to_those_that_ask(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		allow [3]*bool
		input any
		want  [3]bool
	}{
		"by default the first":    {[3]*bool{}, "p", [3]bool{true, false, false}},
		"one that asks":           {[3]*bool{nil, nil, &yes}, "p", [3]bool{true, false, true}},
		"the first may refuse":    {[3]*bool{&no, &yes, nil}, "p", [3]bool{false, true, false}},
		"an empty payload":        {[3]*bool{}, "", [3]bool{}},
		"null":                    {[3]*bool{}, nil, [3]bool{}},
		"an object shown as JSON": {[3]*bool{}, map[string]any{"a": "{b}"}, [3]bool{true, false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			d := Definition{}
			for _, allow := range c.allow {
				d.Tasks = append(d.Tasks, Task{Description: "d", TriggerContext: allow})
			}
			got, err := d.With(map[string]any{TriggerPayload: c.input})
			if err != nil {
				t.Fatal(err)
			}
			for i, task := range got.Tasks {
				if has := task.Description != "d"; has != c.want[i] {
					t.Errorf("task %d: %q", i, task.Description)
				}
			}
			if m, ok := c.input.(map[string]any); ok && m != nil && got.Tasks[0].Description != "d\n\nTrigger Payload: {\"a\":\"{b}\"}" {
				t.Errorf("got %q", got.Tasks[0].Description)
			}
		})
	}
}

// interpolate fills the placeholders of a task's description.
func interpolate(text string, inputs map[string]any) (string, error) {
	d, err := Definition{Tasks: []Task{{Key: "t", Description: text}}}.With(inputs)
	if err != nil {
		return "", err
	}
	return d.Tasks[0].Description, nil
}
