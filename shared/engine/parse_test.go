package engine

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestParseMove(t *testing.T) {
	cases := []struct {
		name, text string
		want       move
	}{
		{"an action", "Thought: look it up\nAction: search\nAction Input: {\"query\": \"rain\"}",
			move{thought: "look it up", tool: "search", input: `{"query": "rain"}`}},
		{"an action with decoration", "**Thought:** look\n**Action:** `search`\n**Action Input:**\n```json\n{\"query\": \"rain\"}\n```",
			move{thought: "look", tool: "search", input: `{"query": "rain"}`}},
		{"a dreamed observation is cut off", "Action: search\nAction Input: rain\nObservation: it rains",
			move{tool: "search", input: "rain"}},
		{"a final answer wins over an action", "Action: search\nAction Input: rain\nFinal Answer: It rains.",
			move{thought: "Action: search\nAction Input: rain", answer: "It rains."}},
		{"the last final answer counts", "Thought: sure\nFinal Answer: no\nFinal Answer: yes", move{thought: "sure\nFinal Answer: no", answer: "yes"}},
		{"an odd fence is trimmed", "```\nThought: ok\nFinal Answer: yes\n```", move{thought: "```\nThought: ok", answer: "yes"}},
		{"a whole fence stays", "Final Answer: ```go\nx\n```", move{answer: "```go\nx\n```"}},
		{"no marker at all", "  It rains.  ", move{thought: "It rains.", answer: "It rains."}},
		{"a thought alone", "Thought: It rains.", move{thought: "It rains.", answer: "It rains."}},
		{"an action without input", "Thought: look\nAction: search", move{thought: "look", tool: "search",
			problem: "there is a line \"Action:\" but no line \"Action Input:\" after it"}},
		{"an action without a name", "Action:\nAction Input: {}", move{problem: "the line \"Action:\" names no tool"}},
		{"a sentence about action is no action", "The best action: wait.", move{thought: "The best action: wait.", answer: "The best action: wait."}},
		{"nothing", "", move{}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, parseMove(c.text), cmp.AllowUnexported(move{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseMove(f *testing.F) {
	f.Add("Thought: a\nAction: b\nAction Input: {'c': 1}\nObservation: d")
	f.Add("Final Answer: **x** ```")
	f.Add("Action 1: \nAction 1 Input 1: ```json\n{")
	f.Fuzz(func(t *testing.T, text string) {
		m := parseMove(text)
		if m.answer != "" && (m.tool != "" || m.problem != "") {
			t.Errorf("both an answer and an action: %+v", m)
		}
		if strings.TrimSpace(text) != "" && !strings.Contains(text, finalMarker) && !strings.Contains(text, observationMarker) &&
			m.answer == "" && m.tool == "" && m.problem == "" {
			t.Errorf("text was lost: %+v", m)
		}
		if utf8.ValidString(text) && !utf8.ValidString(m.thought+m.tool+m.input+m.answer) {
			t.Errorf("valid text was cut inside a character: %+q", m)
		}
	})
}

func TestLoose(t *testing.T) {
	cases := []struct {
		name, text, want string // want "" is not JSON
	}{
		{"JSON", `{"a": [1, true, null, "x"]}`, `{"a":[1,true,null,"x"]}`},
		{"Python", `{'a': None, 'b': True, 'it''s': False}`, ``},
		{"Python's words", `{'a': None, 'b': True}`, `{"a":null,"b":true}`},
		{"trailing commas and a comment", "{\"a\": 1, // one\n \"b\": [1,2,],}", `{"a":1,"b":[1,2]}`},
		{"bare keys and words", `{query: rain in May, limit: 5}`, `{"limit":5,"query":"rain in May"}`},
		{"never closed", `{"a": {"b": [1, 2`, `{"a":{"b":[1,2]}}`},
		{"escapes", `{'a': 'it\'s \u00e4\n'}`, `{"a":"it's ä\n"}`},
		{"a line break inside a text", "{\"a\": \"one\ntwo\"}", `{"a":"one\ntwo"}`},
		{"a text that is never closed", `{"a": "one`, ``},
		{"two values", `{"a": 1} {"b": 2}`, ``},
		{"a stray bracket", `{]`, ``},
		{"no colon", `{"a"}`, ``},
		{"a bare word", `rain`, `"rain"`},
		{"nothing", ``, ``},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v, ok := loose(c.text)
			got := ""
			if ok {
				data, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				got = string(data)
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func FuzzLoose(f *testing.F) {
	f.Add(`{'a': [1, None, "x\u00e4"], b: c,}`)
	f.Add(`{"a": {"b": [1, 2`)
	f.Add(strings.Repeat("[", 200))
	f.Fuzz(func(t *testing.T, text string) {
		v, ok := loose(text)
		if !ok {
			if json.Valid([]byte(text)) {
				t.Errorf("refused JSON: %q", text)
			}
			return
		}
		if _, err := json.Marshal(v); err != nil {
			t.Errorf("%q became something that is no JSON: %v", text, err)
		}
	})
}

func TestSummaryIsTheLastParagraph(t *testing.T) {
	long := strings.Repeat("One sentence of some length. ", 40)
	cases := []struct{ name, raw, want string }{
		{"below the last heading", "**Report**\n1. Overview\nText ...\nConclusion:\nThe market is ready.", "The market is ready."},
		{"after the last empty line", "First.\n\nSecond\ngoes on.", "Second\ngoes on."},
		{"one line", "All of it.", "All of it."},
		{"a list keeps its items", "Text.\n\nKey points:\n- a\n- b", "- a\n- b"},
		{"a long one ends with a sentence", long, strings.TrimSpace(long[:17*29])},
		{"a long one without sentences ends with a word", strings.Repeat("word ", 200), strings.TrimSpace(strings.Repeat("word ", 99)) + "…"},
		{"nothing", " \n ", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := summaryOf(c.raw)
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if len(got) > summaryLength {
				t.Errorf("the summary has %d bytes", len(got))
			}
		})
	}
	if got := summaryOf(strings.Repeat("ä", 600)); !utf8.ValidString(got) || len(got) > summaryLength {
		t.Errorf("a text without spaces became %q", got)
	}
}

func TestReadJSON(t *testing.T) {
	schema := mustCompile(json.RawMessage(`{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}`))
	cases := []struct{ name, text, want, problem string }{
		{"the whole answer", ` {"n": 1} `, `{"n":1}`, ""},
		{"a code block", "```json\n{\"n\": 1}\n```", `{"n":1}`, ""},
		{"inside of prose", "Here {you} are: {\"n\": 12345678901234567890} bye", `{"n":12345678901234567890}`, ""},
		{"not what the schema wants", `{"n": "x"}`, "", "at '/n': got string, want integer"},
		{"a missing property", `{}`, "", "missing property 'n'"},
		{"no JSON", "sorry", "", "it is not JSON"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			value, problem := readJSON(c.text, schema)
			if string(value) != c.want || problem != c.problem {
				t.Errorf("got %s and %q, want %s and %q", value, problem, c.want, c.problem)
			}
		})
	}
}

func TestASchemaMayNotReadFiles(t *testing.T) {
	if _, err := compileSchema(json.RawMessage(`{"$ref": "file:///etc/passwd"}`)); err == nil {
		t.Error("a schema that refers to a file was compiled")
	}
}

func TestCutTextLosesNothing(t *testing.T) {
	text := strings.Repeat("ä line of text\n", 500) + strings.Repeat("ö", 900)
	parts := cutText(text, 300)
	if strings.Join(parts, "") != text {
		t.Error("the parts are not the text")
	}
	for _, p := range parts {
		if len(p) > 300 || !utf8.ValidString(p) {
			t.Errorf("a part has %d bytes, valid %v", len(p), utf8.ValidString(p))
		}
	}
}
