package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/shared/engine/llm"
	"muster/shared/engine/llm/scripted"
)

// agent is an agent of a definition, on one line of YAML for each field.
func agent(key, model string, lines ...string) string {
	fields := append([]string{"role: Role of " + key, "goal: Do it well", "backstory: Knows the trade", "llm: " + model}, lines...)
	return key + ":\n  " + strings.Join(fields, "\n  ") + "\n"
}

// task is a task of a definition.
func task(key, agent, description string, lines ...string) string {
	fields := append([]string{"description: " + description, "expected_output: A text", "agent: " + agent}, lines...)
	return key + ":\n  " + strings.Join(fields, "\n  ") + "\n"
}

// crew makes the files of a definition.
func crew(agents, tasks string) map[string]string {
	return map[string]string{"agents.yaml": agents, "tasks.yaml": tasks}
}

// simple is a crew of one agent with one task and the input {topic}.
func simple(model string, lines ...string) map[string]string {
	return crew(agent("worker", model, lines...), task("work", "worker", "Work on {topic}"))
}

// about are the fields of a kickoff with the input of a simple crew.
func about(topic string, more ...map[string]any) map[string]any {
	body := map[string]any{"inputs": map[string]any{"topic": topic}}
	for _, m := range more {
		for k, v := range m {
			body[k] = v
		}
	}
	return body
}

// withTool is a simple crew whose agent searches.
func withTool(model string, lines ...string) map[string]string {
	files := simple(model, append([]string{"tools: [{type: knowledge_search, name: search}]", "knowledge: [notes.md]"}, lines...)...)
	files["notes.md"] = "Rain falls on Tuesdays. The sun shines on Sundays. Snow is rare."
	return files
}

// reference is the crew that the suite looks at most closely: three tasks, tools, one of them twice in parallel, a task
// beside another, a guardrail that is content the second time, a result in JSON, and an event of the crew's own.
func reference(model string) map[string]string {
	return map[string]string{
		"crew.yaml": "name: Reference\nstream: true\n",
		"agents.yaml": agent("researcher", model, "tools: [{type: knowledge_search, name: research_tool}, emit_event]", "knowledge: [notes.md]") +
			agent("writer", model),
		"tasks.yaml": task("research", "researcher", "Research the industry of {company}", "name: Industry Research Task") +
			task("aside", "writer", "Look beside the road for {company}", "async_execution: true") +
			task("report", "writer", "Write the report on {company}", "context: [research, aside]", "guardrail: The report names its source.",
				"output_json: {type: object, properties: {score: {type: string}, source: {type: string}}, required: [score], additionalProperties: false}"),
		"notes.md": "Banks answer 40,000 letters a month.\n\nPenalties are smaller than the audit that follows.",
	}
}

// referenceModel answers the reference crew. What it says depends on nothing but the request. research, when not nil, is
// asked before the first answer.
func referenceModel(before func()) scripted.Script {
	return func(r scripted.Request) scripted.Reply {
		user := r.User()
		switch {
		case strings.Contains(r.System(), "Guardrail Agent"):
			if strings.Contains(string(r.Body), "the annual") {
				return scripted.Text(`{"valid": true, "feedback": null}`)
			}
			return scripted.Text(`{"valid": false, "feedback": "There is no source."}`)
		case strings.HasPrefix(user, "Research"):
			switch results(r) {
			case 0:
				if before != nil {
					before()
				}
				return both(scripted.Use("research_tool", map[string]any{"query": "letters of banks"}), scripted.Use("research_tool", map[string]any{"query": "penalties"}))
			case 2:
				return scripted.Use("emit_event", map[string]any{"type": "lead_found", "data": map[string]any{"fact": "Banks write letters."}})
			}
			return scripted.Text("Banks answer many letters.\n\nAn audit costs more than a penalty.")
		case strings.HasPrefix(user, "Look beside"):
			return scripted.Text("There is nothing beside the road.")
		case strings.HasPrefix(user, "Write the report"):
			if strings.Contains(user, "not accepted") {
				return scripted.Text(`{"score": "high", "source": "the annual report"}`)
			}
			return scripted.Text(`{"score": "high"}`)
		}
		return scripted.Fail(400, "unexpected: "+user)
	}
}

// results counts the results of tools in a conversation.
func results(r scripted.Request) (n int) {
	for _, m := range r.Messages {
		if m.Role == llm.Tool {
			n++
		}
	}
	return n
}

// both joins the tool calls of two replies.
func both(a, b scripted.Reply) scripted.Reply {
	a.ToolCalls = append(a.ToolCalls, b.ToolCalls...)
	return a
}

// say answers everything with a text.
func say(text string) scripted.Script { return scripted.Sequence(scripted.Text(text)) }

// once uses a tool and then answers.
func once(tool string, arguments any) scripted.Script {
	return func(r scripted.Request) scripted.Reply {
		if r.Last().Role == llm.Tool {
			return scripted.Text("Done.")
		}
		return scripted.Use(tool, arguments)
	}
}

// chain is a crew of n tasks, each of which is one model call.
func chain(model string, n int) map[string]string {
	var tasks strings.Builder
	for i := range n {
		tasks.WriteString(task(fmt.Sprintf("link%02d", i), "worker", fmt.Sprintf("Forge link %d of {topic}", i)))
	}
	return crew(agent("worker", model), tasks.String())
}

// sample reads a sample crew and its inputs.
func sample(t *testing.T, name string) (map[string]string, map[string]any) {
	t.Helper()
	dir := filepath.Join("..", "..", "testevents", "crews", name)
	files := map[string]string{}
	for _, pattern := range []string{"*.yaml", "knowledge/*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				t.Fatal(err)
			}
			files[filepath.ToSlash(rel)] = string(text)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "inputs.json"))
	if err != nil {
		t.Fatal(err)
	}
	var inputs map[string]any
	if err := json.Unmarshal(raw, &inputs); err != nil {
		t.Fatal(err)
	}
	return files, inputs
}
