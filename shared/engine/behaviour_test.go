package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/engine/llm/scripted"
	"muster/shared/engine/tool"
	"muster/shared/run"
)

// echo answers with the first line of the task.
func echo(r scripted.Request) scripted.Reply {
	return scripted.Text("Answer to: " + strings.SplitN(r.User(), "\n", 2)[0])
}

// asked gives the first user message of the call that did a task.
func (w *world) asked(task string) string {
	w.t.Helper()
	for _, c := range w.server.Calls() {
		if strings.HasPrefix(c.User(), "Do "+task+".") {
			return c.User()
		}
	}
	w.t.Fatalf("nobody was asked to do %s", task)
	return ""
}

func TestEveryEventOfATaskSaysWhoseItIs(t *testing.T) {
	w := newWorld(t, busyScript)
	w.withSearch()
	runID, _ := w.do(busyCrew())
	for _, e := range w.events(runID) {
		if strings.HasPrefix(e.Type, "crew_") {
			continue
		}
		if e.TaskID == "" || e.TaskName == "" || e.AgentID == "" || e.AgentRole == "" {
			t.Errorf("%s says %+v", e.Type, e.Identity)
		}
		if e.AgentRole == "Guardrail Agent" && !strings.HasPrefix(e.Type, "llm_call_") {
			t.Errorf("%s is told of the Guardrail Agent", e.Type)
		}
	}
}

func TestWhatATaskIsGivenAsContext(t *testing.T) {
	one := "Answer to: Do one."
	two := "Answer to: Do two."
	cases := []struct {
		name  string
		tasks []crew.Task
		want  map[string]string // the context by task, "" for none
	}{
		{"all outputs before, in order", []crew.Task{{Key: "one"}, {Key: "two"}, {Key: "three"}},
			map[string]string{"one": "", "two": one, "three": one + "\n\n----------\n\n" + two}},
		{"those it names", []crew.Task{{Key: "one"}, {Key: "two"}, {Key: "three", HasContext: true, Context: []string{"two"}}},
			map[string]string{"three": two}},
		{"none when it names none", []crew.Task{{Key: "one"}, {Key: "two", HasContext: true}}, map[string]string{"two": ""}},
		{"the last synchronous one for tasks beside each other",
			[]crew.Task{{Key: "one"}, {Key: "two", Async: true}, {Key: "three", Async: true}, {Key: "four"}},
			map[string]string{"two": one, "three": one, "four": one + "\n\n----------\n\n" + two + "\n\n----------\n\nAnswer to: Do three."}},
		{"an asynchronous one that is named is waited for",
			[]crew.Task{{Key: "one", Async: true}, {Key: "two", Async: true}, {Key: "three", Async: true, HasContext: true, Context: []string{"one"}}},
			map[string]string{"two": "", "three": one}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, echo)
			w.do(newCrew(nativeModel, c.tasks...))
			for task, want := range c.want {
				_, got, _ := strings.Cut(w.asked(task), "\n\nContext:\n")
				if got != want {
					t.Errorf("%s was given %q, want %q", task, got, want)
				}
			}
		})
	}
}

func TestPrompts(t *testing.T) {
	messages := func(t *testing.T, change func(*crew.Definition)) []llm.Message {
		w := newWorld(t, func(scripted.Request) scripted.Reply { return scripted.Text(`{"a": 1}`) })
		d := newCrew(nativeModel, crew.Task{Key: "one"})
		change(&d)
		w.do(d)
		return w.server.Calls()[0].Messages
	}
	const system = "You are Role of one_agent.\nA story.\n\nYour goal: A goal."
	const user = "Do one.\n\nExpected output: The result of one."
	cases := []struct {
		name   string
		change func(*crew.Definition)
		want   []llm.Message
	}{
		{"system and user", func(*crew.Definition) {}, []llm.Message{{Role: llm.System, Content: system}, {Role: llm.User, Content: user}}},
		{"without a system prompt", func(d *crew.Definition) { d.Agents[0].UseSystemPrompt = false },
			[]llm.Message{{Role: llm.User, Content: system + "\n\n" + user}}},
		{"templates", func(d *crew.Definition) {
			d.Agents[0].SystemTemplate = "<s>{{ .System }}</s>"
			d.Agents[0].PromptTemplate = "<u>{{ .Prompt }}</u>"
			d.Agents[0].ResponseTemplate = "<a>{{ .Response }}</a>"
		}, []llm.Message{{Role: llm.User, Content: "<s>" + system + "</s><u>" + user + "</u><a>"}}},
		{"the date of the run", func(d *crew.Definition) { d.Agents[0].InjectDate, d.Agents[0].DateFormat = true, "%d %B %Y" },
			[]llm.Message{{Role: llm.System, Content: system + "\n\nCurrent date: 01 March 2030"}, {Role: llm.User, Content: user}}},
		{"a schema", func(d *crew.Definition) { d.Tasks[0].OutputJSON = json.RawMessage(`{"type":"object"}`) },
			[]llm.Message{{Role: llm.System, Content: system},
				{Role: llm.User, Content: user + "\n\nAnswer with JSON that satisfies this JSON Schema:\n{\"type\":\"object\"}"}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, messages(t, c.change)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAMissingVariableFailsTheCrewBeforeAnyTask(t *testing.T) {
	w := newWorld(t, echo)
	w.inputs = map[string]any{"city": "Rome"}
	runID, out := w.do(newCrew(nativeModel, crew.Task{Key: "one", Description: "Look up {city} in {year}."}))
	if out.State != run.Failed || !strings.Contains(out.Error, "Missing required template variable 'year'") {
		t.Errorf("the run ended with %+v", out)
	}
	if got, want := w.tree(runID), " 1 crew_kickoff_started\n 2 crew_kickoff_failed\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestFailures(t *testing.T) {
	withTool := func(model crew.Model, change func(*crew.Definition)) crew.Definition {
		d := newCrew(model, crew.Task{Key: "one", Tools: []crew.Tool{search("search")}})
		change(&d)
		return d
	}
	again := func(r scripted.Request) scripted.Reply {
		return scripted.Use("search", map[string]any{"query": "rain"})
	}
	cases := []struct {
		name   string
		crew   crew.Definition
		script scripted.Script
		error  string
	}{
		{"a model that answers nothing", newCrew(nativeModel, crew.Task{Key: "one"}), scripted.Sequence(scripted.Text("  ")), `Task "one" failed: `},
		{"a guardrail that is never content", newCrew(nativeModel, crew.Task{Key: "one", Guardrails: []string{"Rhyme."}, GuardrailMaxRetries: 1}),
			func(r scripted.Request) scripted.Reply {
				if strings.Contains(r.System(), "Guardrail") {
					return scripted.Text(`{"valid": false, "feedback": "no rhyme"}`)
				}
				return scripted.Text("x")
			}, `Task "one" failed: The output failed its guardrail validation after 1 retries: no rhyme`},
		{"a guardrail without a verdict", newCrew(nativeModel, crew.Task{Key: "one", Guardrails: []string{"Rhyme."}, GuardrailMaxRetries: 1}),
			scripted.Sequence(scripted.Text("x")), `The guardrail gave no verdict: it is not JSON`},
		{"a failing tool under the policy raise", withTool(nativeModel, func(d *crew.Definition) { d.Tasks[0].ToolFailurePolicy = "raise" }),
			again, `Task "one" failed: The tool search failed: the index is down`},
		{"an unknown model", newCrew(crew.Model{Name: "nobody/x"}, crew.Task{Key: "one"}), echo, `Task "one" cannot begin: `},
		{"an unknown tool", newCrew(nativeModel, crew.Task{Key: "one", Tools: []crew.Tool{search("browse")}}), echo,
			`Task "one" cannot begin: there is no tool "browse"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.script)
			w.withSearch().do = func(context.Context, tool.Call) (tool.Result, error) {
				return tool.Result{}, fmt.Errorf("the index is down")
			}
			runID, out := w.do(c.crew)
			if out.State != run.Failed || !strings.Contains(out.Error, c.error) {
				t.Errorf("the run ended as %s with %q, want %q", out.State, out.Error, c.error)
			}
			all := w.events(runID)
			if last := all[len(all)-1]; last.Type != "crew_kickoff_failed" || last.Started != all[0].ID {
				t.Errorf("the last event is %s, closing %q", last.Type, last.Started)
			}
			w.tree(runID)
		})
	}
}

func TestPolicies(t *testing.T) {
	for policy, detected := range map[string]int{"ignore": 0, "warn": 1, "": 1} {
		t.Run("policy "+policy, func(t *testing.T) {
			w := newWorld(t, useThenSay("search", map[string]any{"query": "x"}, "Done."))
			w.withSearch().do = func(context.Context, tool.Call) (tool.Result, error) {
				return tool.Result{Text: "nothing there", Failure: &tool.Failure{Message: "empty", Reason: "tool_reported"}}, nil
			}
			d := newCrew(nativeModel, crew.Task{Key: "one", Tools: []crew.Tool{search("search")}})
			d.ToolFailurePolicy = policy
			runID, out := w.do(d)
			if out.State != run.Succeeded {
				t.Fatalf("the run ended with %+v", out)
			}
			if got := len(w.ofType(runID, "tool_failure_detected")); got != detected {
				t.Errorf("%d failures were told, want %d", got, detected)
			}
			output := w.ofType(runID, "task_completed")[0]["output"].(map[string]any)
			if got := len(output["tool_failures"].([]any)); got != detected {
				t.Errorf("the output lists %d failures, want %d", got, detected)
			}
		})
	}
}

func TestMaxIterForcesAFinalAnswerWithoutTools(t *testing.T) {
	for _, model := range []crew.Model{nativeModel, wordModel} {
		t.Run(model.Name, func(t *testing.T) {
			w := newWorld(t, func(r scripted.Request) scripted.Reply {
				if strings.Contains(r.Last().Content, "final answer now") {
					return scripted.Text("Final Answer: Enough.")
				}
				if model.Name == nativeModel.Name {
					return scripted.Use("search", map[string]any{"query": "x"})
				}
				return scripted.Text(fmt.Sprintf("Action: search\nAction Input: %d", len(r.Messages)))
			})
			f := w.withSearch()
			d := newCrew(model, crew.Task{Key: "one", Tools: []crew.Tool{search("search")}})
			d.Agents[0].MaxIter = 3
			_, out := w.do(d)
			if out.State != run.Succeeded || !strings.HasSuffix(out.Result, "Enough.") {
				t.Errorf("the run ended with %+v", out)
			}
			calls := w.server.Calls()
			if len(calls) != 4 || f.count() != 3 {
				t.Errorf("%d model calls and %d tool calls, want 4 and 3", len(calls), f.count())
			}
			if last := calls[len(calls)-1]; len(last.Tools) != 0 {
				t.Error("the last call offers tools")
			}
		})
	}
}

func TestMaxExecutionTimeIsCountedFromPages(t *testing.T) {
	w := newWorld(t, func(scripted.Request) scripted.Reply { return scripted.Use("search", map[string]any{"query": "x"}) })
	w.withSearch().do = func(context.Context, tool.Call) (tool.Result, error) {
		w.pass(40 * time.Second)
		return tool.Result{Text: "slow"}, nil
	}
	w.runs.LeaseTime = time.Hour
	d := newCrew(nativeModel, crew.Task{Key: "one", Tools: []crew.Tool{search("search")}})
	d.Agents[0].MaxExecutionTime = 60
	runID, out := w.do(d)
	if out.State != run.Failed || !strings.Contains(out.Error, "60 seconds (max_execution_time)") {
		t.Errorf("the run ended with %+v", out)
	}
	if got := len(w.ofType(runID, "agent_execution_error")); got != 1 {
		t.Errorf("%d attempts failed, want 1: it is not tried again", got)
	}
	if n := len(w.server.Calls()); n != 2 {
		t.Errorf("%d model calls, want 2", n)
	}
}

func TestAConversationThatIsTooLongIsSummarisedOnce(t *testing.T) {
	w := newWorld(t, func(r scripted.Request) scripted.Reply {
		switch {
		case strings.Contains(r.System(), "summarise"):
			return scripted.Text("It rained a lot.")
		case strings.Contains(r.User(), "summary of the task"):
			return scripted.Text("Done: " + r.User()[strings.Index(r.User(), "It rained"):][:16])
		case r.Last().Role == llm.Tool:
			return scripted.Fail(400, "This model's maximum context length is 8192 tokens.")
		}
		return scripted.Use("search", map[string]any{"query": "x"})
	})
	w.withSearch().do = func(context.Context, tool.Call) (tool.Result, error) {
		return tool.Result{Text: strings.Repeat("rain ", 10_000)}, nil
	}
	runID, out := w.do(newCrew(nativeModel, crew.Task{Key: "one", Tools: []crew.Tool{search("search")}}))
	if out.State != run.Succeeded || out.Result != "Done: It rained a lot." {
		t.Errorf("the run ended with %+v", out)
	}
	if got := w.ofType(runID, "agent_execution_error"); got != nil {
		t.Errorf("the agent failed: %v", got)
	}
}

func TestAProviderThatRefusesToolsIsToldInWords(t *testing.T) {
	w := newWorld(t, func(r scripted.Request) scripted.Reply {
		switch {
		case len(r.Tools) > 0:
			return scripted.Fail(400, "some-model does not support tools")
		case strings.Contains(r.Last().Content, "Read the observation"):
			return scripted.Text("Thought: known\nFinal Answer: It rains.")
		}
		return scripted.Text("Thought: look\nAction: search\nAction Input: rain")
	})
	f := w.withSearch()
	_, out := w.do(newCrew(nativeModel, crew.Task{Key: "one", Tools: []crew.Tool{search("search")}}))
	if out.State != run.Succeeded || out.Result != "It rains." || f.count() != 1 {
		t.Errorf("the run ended with %+v after %d tool calls", out, f.count())
	}
}

func TestAProviderThatRefusesTheSchemaIsAskedWithoutIt(t *testing.T) {
	w := newWorld(t, func(r scripted.Request) scripted.Reply {
		if r.Schema != nil {
			return scripted.Fail(400, "This model does not support response format `json_schema`")
		}
		return scripted.Text(`{"n": 1}`)
	})
	runID, out := w.do(newCrew(nativeModel, crew.Task{Key: "one", OutputJSON: json.RawMessage(`{"type":"object"}`)}))
	if out.State != run.Succeeded || string(out.JSON) != `{"n":1}` || len(w.ofType(runID, "agent_execution_error")) != 0 {
		t.Errorf("the run ended with %+v", out)
	}
}

func TestOutputJSON(t *testing.T) {
	schema := json.RawMessage(`{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}`)
	cases := []struct {
		name   string
		first  string
		second string
		json   string
		calls  int
	}{
		{"an answer that is JSON", `{"n": 1}`, "", `{"n":1}`, 1},
		{"an answer that contains JSON", `Sure: {"n": 2}.`, "", `{"n":2}`, 1},
		{"an answer that must be converted", "Three.", `{"n": 3}`, `{"n":3}`, 2},
		{"an answer that cannot be converted stays text", "Three.", "Sorry.", "", 4},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, scripted.Sequence(scripted.Text(c.first), scripted.Text(c.second)))
			runID, out := w.do(newCrew(nativeModel, crew.Task{Key: "one", OutputJSON: schema}))
			if out.State != run.Succeeded || string(out.JSON) != c.json || out.Result != c.first {
				t.Errorf("the run ended with %+v", out)
			}
			if got := len(w.server.Calls()); got != c.calls {
				t.Errorf("%d model calls, want %d", got, c.calls)
			}
			if w.server.Calls()[0].Schema == nil {
				t.Error("the provider was not told the schema")
			}
			w.tree(runID)
		})
	}
}

func TestTools(t *testing.T) {
	twice := func(r scripted.Request) scripted.Reply {
		if len(r.Messages) < 6 {
			return scripted.Use("search", map[string]any{"query": "rain"})
		}
		return scripted.Text("Done: " + r.Last().Content)
	}
	cases := []struct {
		name   string
		change func(*crew.Definition)
		script scripted.Script
		calls  int
		result string
	}{
		{"the same call is made again", func(*crew.Definition) {}, twice, 2, "Done: found rain"},
		{"with a cache it is not", func(d *crew.Definition) { d.Cache = true }, twice, 1, "Done: found rain"},
		{"a tool that may be used once", func(d *crew.Definition) { d.Tasks[0].Tools[0].MaxUsageCount = 1 }, twice, 1,
			"Done: The tool search may be used 1 times in a run, and was. Go on without it."},
		{"a result that is the answer", func(d *crew.Definition) { d.Tasks[0].Tools[0].ResultAsAnswer = true }, twice, 1, "found rain"},
		{"an unknown argument is told", func(*crew.Definition) {},
			func(r scripted.Request) scripted.Reply {
				if r.Last().Role == llm.Tool {
					return scripted.Text(r.Last().Content)
				}
				return scripted.Use("search", map[string]any{"query": "x", "limit": 3})
			}, 0, "The arguments of search are not right: additional properties 'limit' not allowed"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.script)
			f := w.withSearch()
			d := newCrew(nativeModel, crew.Task{Key: "one", Tools: []crew.Tool{search("search")}})
			c.change(&d)
			runID, out := w.do(d)
			if out.State != run.Succeeded || out.Result != c.result {
				t.Errorf("the run ended with %+v, want %q", out, c.result)
			}
			if f.count() != c.calls {
				t.Errorf("the tool was called %d times, want %d", f.count(), c.calls)
			}
			w.tree(runID)
		})
	}
}

func TestTheSameActionTwiceInARowIsNotDone(t *testing.T) {
	w := newWorld(t, func(r scripted.Request) scripted.Reply {
		if len(r.Messages) < 6 {
			return scripted.Text("Action: search\nAction Input: rain")
		}
		return scripted.Text("Final Answer: " + r.Messages[4].Content)
	})
	f := w.withSearch()
	_, out := w.do(newCrew(wordModel, crew.Task{Key: "one", Tools: []crew.Tool{search("search")}}))
	if f.count() != 1 || !strings.Contains(out.Result, "do something else") {
		t.Errorf("%d calls, result %q", f.count(), out.Result)
	}
}

func TestAToolMayTellEventsOfItsOwn(t *testing.T) {
	w := newWorld(t, useThenSay("search", map[string]any{"query": "x"}, "Done."))
	f := w.withSearch()
	f.do = func(context.Context, tool.Call) (tool.Result, error) {
		return tool.Result{Text: "ok", Events: []tool.Event{{Type: "order_placed", Data: json.RawMessage(`{"id": 7}`)}}}, nil
	}
	runID, _ := w.do(newCrew(nativeModel, crew.Task{Key: "one", Tools: []crew.Tool{search("search")}}))
	if got := w.ofType(runID, "order_placed"); len(got) != 1 || got[0]["id"] != 7.0 {
		t.Errorf("got %v", got)
	}
	if f.calls[0].StepID == "" {
		t.Error("the call has no step id")
	}
}

func TestNotesAreWhatTheStepTargetIsTold(t *testing.T) {
	cases := []struct {
		model    crew.Model
		replies  []scripted.Reply
		thoughts [2]string
	}{
		{nativeModel, []scripted.Reply{scripted.Use("search", map[string]any{"query": "rain"}), scripted.Text("It rains.")}, [2]string{"", "It rains."}},
		{wordModel, []scripted.Reply{scripted.Text("Thought: look\nAction: search\nAction Input: {\"query\": \"rain\"}"),
			scripted.Text("Thought: known\nFinal Answer: It rains.")}, [2]string{"look", "known"}},
	}
	for _, c := range cases {
		t.Run(c.model.Name, func(t *testing.T) {
			w := newWorld(t, scripted.Sequence(c.replies...))
			w.withSearch()
			runID, _ := w.do(newCrew(c.model, crew.Task{Key: "one", Tools: []crew.Tool{search("search")}}))
			var got []run.Note
			for _, p := range w.pages(runID) {
				got = append(got, p.Notes...)
			}
			want := []run.Note{
				{Prompt: "Do one.", Thought: c.thoughts[0], Tool: "search", ToolInput: "rain", Result: "found rain"},
				{Prompt: "Do one.", Thought: c.thoughts[1]},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPagesCountUsageAndProgress(t *testing.T) {
	w := newWorld(t, busyScript)
	w.withSearch()
	runID, _ := w.do(busyCrew())
	pages := w.pages(runID)
	last := pages[len(pages)-1]
	if last.Progress.Completed != 4 || last.Progress.Total != 4 {
		t.Errorf("the progress ends as %+v", last.Progress)
	}
	sum, calls := 0, 0
	for _, done := range w.ofType(runID, "llm_call_completed") {
		sum += int(done["usage"].(map[string]any)["total_tokens"].(float64))
		calls++
	}
	if u := last.Totals.Usage; u.TotalTokens != sum || u.SuccessfulRequests != calls || sum == 0 {
		t.Errorf("the usage ends as %+v, want %d tokens in %d calls", u, sum, calls)
	}
	if got := w.ofType(runID, "crew_kickoff_completed")[0]["total_tokens"]; got != float64(sum) {
		t.Errorf("total_tokens is %v, want %d", got, sum)
	}
	var names []string
	for _, p := range pages {
		for _, task := range p.Tasks {
			names = append(names, task.Name)
		}
	}
	if len(names) != 4 {
		t.Errorf("the tasks %v were told to have ended", names)
	}
}

func TestConversationsAreReadBackFromTheJournal(t *testing.T) {
	w := newWorld(t, useThenSay("search", map[string]any{"query": "rain"}, "Done."))
	w.withSearch()
	runID, _ := w.do(newCrew(nativeModel, crew.Task{Key: "one", Tools: []crew.Tool{search("search")}}))
	calls := w.server.Calls()
	n := 0
	for _, p := range w.pages(runID) {
		if p.Prompt == nil {
			continue
		}
		raw, err := w.runs.Messages(w.ctx, runID, p)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) != len(calls[n].Messages) {
			t.Errorf("call %d had %d messages, the journal has %d", n+1, len(calls[n].Messages), len(raw))
		}
		n++
	}
	if n != len(calls) {
		t.Errorf("%d pages show a conversation, want %d", n, len(calls))
	}
}

func TestChunksAreToldOnlyToWhoeverAsks(t *testing.T) {
	for _, asked := range []bool{false, true} {
		t.Run(fmt.Sprint("asked ", asked), func(t *testing.T) {
			w := newWorld(t, func(scripted.Request) scripted.Reply { return scripted.Text("one two three") })
			if asked {
				w.targets = []run.Target{{ID: "s", Kind: run.StreamTarget, URL: "https://example.com", Events: []string{"llm_stream_chunk"}}}
			}
			d := newCrew(nativeModel, crew.Task{Key: "one"})
			d.Stream = true
			runID, out := w.do(d)
			var text strings.Builder
			for _, e := range w.ofType(runID, "llm_stream_chunk") {
				text.WriteString(e["chunk"].(string))
			}
			want := ""
			if asked {
				want = "one two three"
			}
			if text.String() != want || out.Result != "one two three" {
				t.Errorf("told %q, want %q", text.String(), want)
			}
			if !w.server.Calls()[0].Stream {
				t.Error("the answer was not streamed")
			}
			w.tree(runID)
		})
	}
}

func TestABranchThatStopsTakesTheOthersAlongWithoutLosingACall(t *testing.T) {
	fastWasAsked := make(chan struct{})
	var once sync.Once
	w := newWorld(t, func(r scripted.Request) scripted.Reply {
		if strings.HasPrefix(r.User(), "Do slow.") && r.Last().Role == llm.User {
			reply := scripted.Use("search", map[string]any{"query": "x"})
			reply.Wait = fastWasAsked
			return reply
		}
		once.Do(func() { close(fastWasAsked) })
		return scripted.Text("Done.")
	})
	w.withSearch()
	// fast needs two calls, and one is all that its agent may make in a minute.
	d := newCrew(nativeModel,
		crew.Task{Key: "slow", Async: true, Tools: []crew.Tool{search("search")}},
		crew.Task{Key: "fast", Async: true, Guardrails: []string{"Rhyme."}},
	)
	d.Agents[1].MaxRPM = 1
	r := w.start()
	if _, err := w.goOn(r.ID, d); err == nil || !strings.HasPrefix(err.Error(), "the run goes on at") {
		t.Fatalf("the run stopped with %v", err)
	}
	recorded := 0
	for _, p := range w.pages(r.ID) {
		if p.Kind == run.StepPage {
			recorded++
		}
	}
	if recorded < 2 {
		t.Errorf("%d steps are recorded, want those of both branches", recorded)
	}
}

func TestAPanicInABranchReachesWhoeverCalledRun(t *testing.T) {
	w := newWorld(t, func(r scripted.Request) scripted.Reply {
		return joined(scripted.Use("search", map[string]any{"query": "rain"}), scripted.Use("search", map[string]any{"query": "sun"}))
	})
	w.withSearch().do = func(_ context.Context, c tool.Call) (tool.Result, error) {
		if c.Arguments["query"] == "sun" {
			panic("no sun")
		}
		return tool.Result{}, nil
	}
	d := newCrew(nativeModel, crew.Task{Key: "one", Async: true, Tools: []crew.Tool{search("search")}})
	defer func() {
		if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "no sun") {
			t.Errorf("Run panicked with %v", p)
		}
	}()
	_, _ = w.goOn(w.start().ID, d)
}
