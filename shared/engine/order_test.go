package engine_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/engine/llm/scripted"
	"muster/shared/engine/tool"
	"muster/shared/run"
)

// say answers in words once the tool has answered; before that it calls the tool.
func useThenSay(name string, arguments any, text string) scripted.Script {
	return func(r scripted.Request) scripted.Reply {
		if r.Last().Role == llm.Tool || len(r.Tools) == 0 {
			return scripted.Text(text)
		}
		return scripted.Use(name, arguments)
	}
}

func joined(replies ...scripted.Reply) scripted.Reply {
	var all scripted.Reply
	for _, r := range replies {
		all.ToolCalls = append(all.ToolCalls, r.ToolCalls...)
	}
	return all
}

var ok = scripted.Text(`{"valid": true, "feedback": null}`)

func TestEventsComeInTheOrderOfTheOriginal(t *testing.T) {
	query := map[string]any{"query": "rain"}
	broken := &fakeTool{do: func(context.Context, tool.Call) (tool.Result, error) {
		return tool.Result{}, errors.New("the index is down")
	}}
	judge := func(verdicts ...scripted.Reply) scripted.Script {
		work, verdict := scripted.Text("An answer."), scripted.Sequence(verdicts...)
		return func(r scripted.Request) scripted.Reply {
			if strings.Contains(r.System(), "Guardrail Agent") {
				return verdict(r)
			}
			return work
		}
	}
	cases := []struct {
		name   string
		crew   crew.Definition
		script scripted.Script
		tool   *fakeTool
		state  run.State
		want   string
	}{
		{
			name:   "two tasks, a tool call in the first",
			crew:   newCrew(nativeModel, crew.Task{Key: "research", Tools: []crew.Tool{search("search")}}, crew.Task{Key: "write"}),
			script: useThenSay("search", query, "Done."),
			want: `
 1 crew_kickoff_started
 2   task_started
 3     agent_execution_started
 4       agent_logs_started
 5       llm_call_started
 6       llm_call_completed
 7       tool_usage_started
 8       tool_usage_finished
 9       llm_call_started
10       llm_call_completed
11       agent_logs_execution
12     agent_execution_completed
13   task_completed
14   task_started
15     agent_execution_started
16       agent_logs_started
17       llm_call_started
18       llm_call_completed
19       agent_logs_execution
20     agent_execution_completed
21   task_completed
22 crew_kickoff_completed
`,
		},
		{
			name:   "a model that fails is tried three times, then the task and the crew fail",
			crew:   newCrew(nativeModel, crew.Task{Key: "research"}),
			script: scripted.Sequence(scripted.Fail(400, "no such model")),
			state:  run.Failed,
			want: `
 1 crew_kickoff_started
 2   task_started
 3     agent_execution_started
 4       agent_logs_started
 5       llm_call_started
 6       llm_call_failed
 7     agent_execution_error
 8     agent_execution_started
 9       agent_logs_started
10       llm_call_started
11       llm_call_failed
12     agent_execution_error
13     agent_execution_started
14       agent_logs_started
15       llm_call_started
16       llm_call_failed
17     agent_execution_error
18   task_failed
19 crew_kickoff_failed
`,
		},
		{
			name:   "a guardrail that is not content sends the agent back once",
			crew:   newCrew(nativeModel, crew.Task{Key: "research", Guardrails: []string{"Name a source."}}),
			script: judge(scripted.Text(`{"valid": false, "feedback": "no source"}`), ok),
			want: `
 1 crew_kickoff_started
 2   task_started
 3     agent_execution_started
 4       agent_logs_started
 5       llm_call_started
 6       llm_call_completed
 7       agent_logs_execution
 8     agent_execution_completed
 9     llm_guardrail_started
10       llm_call_started
11       llm_call_completed
12     llm_guardrail_completed
13     agent_execution_started
14       agent_logs_started
15       llm_call_started
16       llm_call_completed
17       agent_logs_execution
18     agent_execution_completed
19     llm_guardrail_started
20       llm_call_started
21       llm_call_completed
22     llm_guardrail_completed
23   task_completed
24 crew_kickoff_completed
`,
		},
		{
			name: "two tools of one answer start together",
			crew: newCrew(nativeModel, crew.Task{Key: "research", Tools: []crew.Tool{search("search")}}),
			script: func(r scripted.Request) scripted.Reply {
				if r.Last().Role == llm.Tool {
					return scripted.Text("Done.")
				}
				return joined(scripted.Use("search", query), scripted.Use("search", map[string]any{"query": "sun"}))
			},
			want: oneTask(`
tool_usage_started
tool_usage_started
tool_usage_finished
tool_usage_finished`),
		},
		{
			name:   "a tool that breaks",
			crew:   newCrew(nativeModel, crew.Task{Key: "research", Tools: []crew.Tool{search("search")}}),
			script: useThenSay("search", query, "Done."),
			tool:   broken,
			want: oneTask(`
tool_usage_started
tool_usage_error
tool_failure_detected`),
		},
		{
			name:   "a tool that does not exist",
			crew:   newCrew(nativeModel, crew.Task{Key: "research", Tools: []crew.Tool{search("search")}}),
			script: useThenSay("serach", query, "Done."),
			want: oneTask(`
tool_usage_started
tool_usage_finished
tool_failure_detected`),
		},
		{
			name: "arguments that are no JSON",
			crew: newCrew(nativeModel, crew.Task{Key: "research", Tools: []crew.Tool{search("search")}}),
			script: func(r scripted.Request) scripted.Reply {
				if r.Last().Role == llm.Tool {
					return scripted.Text("Done.")
				}
				use := scripted.Use("search", query)
				use.ToolCalls[0].Function.Arguments = `{"query": `
				return use
			},
			want: oneTask(`
tool_failure_detected`),
		},
		{
			name:   "an argument that is missing",
			crew:   newCrew(nativeModel, crew.Task{Key: "research", Tools: []crew.Tool{search("search")}}),
			script: useThenSay("search", map[string]any{}, "Done."),
			want: oneTask(`
tool_usage_started
tool_usage_error
tool_failure_detected`),
		},
		{
			name:   "an action in words",
			crew:   newCrew(wordModel, crew.Task{Key: "research", Tools: []crew.Tool{search("search")}}),
			script: scripted.Sequence(scripted.Text("Thought: look\nAction: search\nAction Input: {'query': 'rain'}"), scripted.Text("Final Answer: Done.")),
			want: oneTask(`
tool_usage_started
tool_usage_finished
agent_logs_execution`),
		},
		{
			name:   "an action in words with a tool that does not exist",
			crew:   newCrew(wordModel, crew.Task{Key: "research", Tools: []crew.Tool{search("search")}}),
			script: scripted.Sequence(scripted.Text("Thought: look\nAction: browse\nAction Input: {}"), scripted.Text("Final Answer: Done.")),
			want: oneTask(`
tool_selection_error
tool_failure_detected
agent_logs_execution`),
		},
		{
			name:   "an action in words with arguments that cannot be read",
			crew:   newCrew(wordModel, crew.Task{Key: "research", Tools: []crew.Tool{search("search")}}),
			script: scripted.Sequence(scripted.Text("Thought: look\nAction: search\nAction Input: {]"), scripted.Text("Final Answer: Done.")),
			want: oneTask(`
tool_validate_input_error
tool_failure_detected
agent_logs_execution`),
		},
		{
			name:   "a tool that breaks is tried three times in the text loop",
			crew:   newCrew(wordModel, crew.Task{Key: "research", Tools: []crew.Tool{search("search")}}),
			script: scripted.Sequence(scripted.Text("Thought: look\nAction: search\nAction Input: rain"), scripted.Text("Final Answer: Done.")),
			tool:   broken,
			want: oneTask(`
tool_usage_started
tool_usage_error
tool_usage_started
tool_usage_error
tool_usage_started
tool_usage_error
tool_failure_detected
agent_logs_execution`),
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.script)
			w.withSearch()
			if c.tool != nil {
				w.tools["search"] = c.tool
			}
			runID, out := w.do(c.crew)
			if c.state == "" {
				c.state = run.Succeeded
			}
			if out.State != c.state {
				t.Errorf("the run ended as %q (%s), want %q", out.State, out.Error, c.state)
			}
			if diff := cmp.Diff(strings.TrimPrefix(c.want, "\n"), w.tree(runID)); diff != "" {
				t.Errorf("the order of events (-want +got):\n%s", diff)
			}
		})
	}
}

// oneTask puts the events between two model calls of one agent into the tree of a crew with one task.
func oneTask(between string) string {
	lines := []string{"crew_kickoff_started", "  task_started", "    agent_execution_started", "      agent_logs_started",
		"      llm_call_started", "      llm_call_completed"}
	for line := range strings.SplitSeq(strings.TrimSpace(between), "\n") {
		lines = append(lines, "      "+line)
	}
	lines = append(lines, "      llm_call_started", "      llm_call_completed", "      agent_logs_execution",
		"    agent_execution_completed", "  task_completed", "crew_kickoff_completed")
	var b strings.Builder
	for i, line := range lines {
		b.WriteString(strings.Repeat(" ", 2-len(strconv.Itoa(i+1))) + strconv.Itoa(i+1) + " " + line + "\n")
	}
	return b.String()
}
