package offline_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"strings"
	"testing"

	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/engine/llm/offline"
	"muster/shared/engine/rank"
	"muster/shared/engine/tool"
)

// The sample crews of the repository are what a newcomer sees first, so they are run here in prompts like the engine's.

func sample(t *testing.T, name string) (crew.Definition, map[string][]byte) {
	t.Helper()
	dir := os.DirFS("../../../../testevents/crews/" + name)
	files := map[string][]byte{}
	err := fs.WalkDir(dir, ".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files[path], err = fs.ReadFile(dir, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	definition, _, err := crew.Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	var inputs map[string]any
	if err := json.Unmarshal(files["inputs.json"], &inputs); err != nil {
		t.Fatal(err)
	}
	if definition, err = definition.With(inputs); err != nil {
		t.Fatal(err)
	}
	return definition, files
}

// answered is what a task came to: the answer, everything the model was told, and what it searched for.
type answered struct{ text, told, query string }

func work(t *testing.T, task crew.Task, agent crew.Agent, given string, source tool.Source) answered {
	t.Helper()
	user := task.Description + "\n\nExpected output: " + task.ExpectedOutput
	if task.OutputJSON != nil {
		user += "\n\nAnswer with JSON that satisfies this JSON Schema:\n" + string(task.OutputJSON)
	}
	if given != "" {
		user += "\n\nContext:\n" + given
	}
	c := llm.Call{Messages: []llm.Message{
		{Role: llm.System, Content: "You are " + agent.Role + ".\n" + agent.Backstory + "\n\nYour goal: " + agent.Goal},
		{Role: llm.User, Content: user},
	}}
	made := map[string]tool.Tool{}
	for _, def := range agent.Tools {
		opened, err := tool.Box{}.Open(def, source)
		if err != nil {
			t.Fatal(err)
		}
		made[opened.Function().Name] = opened
		c.Tools = append(c.Tools, opened.Function())
	}
	a := answered{told: user}
	for range 3 {
		r, err := offline.New().Call(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.ToolCalls) == 0 {
			a.text = r.Text
			return a
		}
		c.Messages = append(c.Messages, llm.Message{Role: llm.Assistant, ToolCalls: r.ToolCalls})
		for _, call := range r.ToolCalls {
			var arguments map[string]any
			if err := json.Unmarshal([]byte(call.Function.Arguments), &arguments); err != nil {
				t.Fatal(err)
			}
			a.query, _ = arguments["query"].(string)
			result, err := made[call.Function.Name].Call(context.Background(), tool.Call{Arguments: arguments})
			if err != nil {
				t.Fatal(err)
			}
			a.told += "\n" + result.Text
			c.Messages = append(c.Messages, llm.Message{Role: llm.Tool, Content: result.Text, ToolCallID: call.ID})
		}
	}
	t.Fatalf("%s never answers", task.Name)
	return a
}

func TestTheSampleCrewsAreAnsweredFromTheirInput(t *testing.T) {
	for _, name := range []string{"lead-research", "support-triage", "incident-review"} {
		t.Run(name, func(t *testing.T) {
			definition, files := sample(t, name)
			outputs := map[string]string{}
			for _, task := range definition.Tasks {
				agent, _ := definition.Agent(task.Agent)
				var given []string
				for _, key := range task.Context {
					given = append(given, outputs[key])
				}
				a := work(t, task, agent, strings.Join(given, "\n\n----------\n\n"), tool.Source{Files: files, Knowledge: definition.Knowledge})
				outputs[task.Key] = a.text
				t.Logf("%s searched for %q and answers:\n%s\n", task.Name, a.query, a.text)
				for _, s := range sentencesOf(t, a.text) {
					if !strings.Contains(flat(a.told), flat(s)) {
						t.Errorf("%s: %q is in no input", task.Name, s)
					}
				}
				if task.OutputJSON != nil {
					satisfies(t, string(task.OutputJSON), a.text)
				}
				if (a.query == "") != (len(agent.Tools) == 0) {
					t.Errorf("%s: searched for %q with %d tools", task.Name, a.query, len(agent.Tools))
				}
			}
		})
	}
}

// sentencesOf gives what an answer consists of: the items of its list, its text, or the texts of its JSON.
func sentencesOf(t *testing.T, text string) []string {
	t.Helper()
	var value any
	if json.Unmarshal([]byte(text), &value) == nil {
		return stringsOf(value)
	}
	if !strings.HasPrefix(text, "- ") {
		return rank.Sentences(text)
	}
	var all []string
	for line := range strings.SplitSeq(text, "\n") {
		all = append(all, strings.TrimPrefix(line, "- "))
	}
	return all
}

func stringsOf(value any) (all []string) {
	switch v := value.(type) {
	case string:
		return []string{v}
	case []any:
		for _, item := range v {
			all = append(all, stringsOf(item)...)
		}
	case map[string]any:
		for _, item := range v {
			all = append(all, stringsOf(item)...)
		}
	}
	return all
}

// flat makes one line of a text, without the escapes of JSON.
func flat(text string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(text, `\"`, `"`)), " ")
}
