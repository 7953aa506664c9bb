package crew

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/fault"
)

// project makes files of a txt: "-- name --" begins each.
func project(text string) map[string][]byte {
	files := map[string][]byte{}
	var name string
	for line := range strings.Lines(text) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "-- "); ok {
			name = strings.TrimSuffix(n, " --")
			continue
		}
		if name != "" {
			files[name] = append(files[name], line...)
		}
	}
	return files
}

// with gives files with some of them replaced or added.
func with(files map[string][]byte, more map[string]string) map[string][]byte {
	all := map[string][]byte{}
	for name, data := range files {
		all[name] = data
	}
	for name, text := range more {
		all[name] = []byte(text)
	}
	return all
}

var yamlCrew = project(`
-- agents.yaml --
researcher:
  role: >
    {topic} Researcher
  goal: Find what matters about {topic}
  backstory: You read a lot.
writer:
  role: Writer
  goal: Write it down
  backstory: You write short sentences.
-- tasks.yaml --
zeta:
  description: Research {topic} in {year}.
  expected_output: A list
  agent: researcher
alpha:
  description: Write about it.
  expected_output: A text
  agent: writer
  context: [zeta]
`)

var jsonCrew = project(`
-- crew.jsonc --
{
  // The crew of the tests.
  "name": "Review",
  "agents": ["researcher"],
  "tasks": [
    {"name": "Look", "description": "Look at {thing}.", "expected_output": "A list", "agent": "researcher"},
    {"description": "Look again.", "expected_output": "A list", "agent": "researcher"},
  ],
}
-- agents/researcher.jsonc --
{"role": "Researcher", "goal": "Find", "backstory": "Reads",} /* trailing comma */
`)

func mustParse(t *testing.T, files map[string][]byte) Definition {
	t.Helper()
	d, warnings, err := Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 {
		t.Fatalf("warnings: %v", warnings)
	}
	return d
}

func TestParse_gives_a_yaml_crew_its_defaults_in_the_order_of_the_file(t *testing.T) {
	want := Definition{
		Name: "crew",
		Agents: []Agent{
			{Key: "researcher", Role: "{topic} Researcher", Goal: "Find what matters about {topic}", Backstory: "You read a lot.",
				MaxIter: 25, MaxRetryLimit: 2, UseSystemPrompt: true, DateFormat: "%Y-%m-%d", Cache: true},
			{Key: "writer", Role: "Writer", Goal: "Write it down", Backstory: "You write short sentences.",
				MaxIter: 25, MaxRetryLimit: 2, UseSystemPrompt: true, DateFormat: "%Y-%m-%d", Cache: true},
		},
		Tasks: []Task{
			{Key: "zeta", Name: "zeta", Description: "Research {topic} in {year}.", ExpectedOutput: "A list", Agent: "researcher",
				GuardrailMaxRetries: 3},
			{Key: "alpha", Name: "alpha", Description: "Write about it.", ExpectedOutput: "A text", Agent: "writer",
				Context: []string{"zeta"}, HasContext: true, GuardrailMaxRetries: 3},
		},
		ToolFailurePolicy: "warn",
	}
	if diff := cmp.Diff(want, mustParse(t, yamlCrew)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestParse_reads_a_json_first_project(t *testing.T) {
	d := mustParse(t, jsonCrew)
	if d.Name != "Review" || len(d.Agents) != 1 || d.Agents[0].Key != "researcher" || d.Agents[0].Role != "Researcher" {
		t.Errorf("got %+v", d)
	}
	if keys := []string{d.Tasks[0].Key, d.Tasks[1].Key}; !slices.Equal(keys, []string{"Look", "task_2"}) {
		t.Errorf("tasks %v", keys)
	}
}

func TestParse_finds_the_files_where_projects_have_them(t *testing.T) {
	for name, dir := range map[string]string{"at the top": "", "in config": "config/", "in a classic project": "src/support/config/"} {
		t.Run(name, func(t *testing.T) {
			for _, ext := range []string{".yaml", ".yml"} {
				files := map[string][]byte{
					dir + "agents" + ext: yamlCrew["agents.yaml"], dir + "tasks" + ext: yamlCrew["tasks.yaml"],
					dir + "crew" + ext: []byte("name: Found"), "README.md": []byte("# hi"), "logo.png": {0, 1, 2, 255},
				}
				if d := mustParse(t, files); d.Name != "Found" {
					t.Errorf("name %q", d.Name)
				}
			}
		})
	}
	d := mustParse(t, map[string][]byte{"crew.json": jsonCrew["crew.jsonc"], "agents/researcher.json": jsonCrew["agents/researcher.jsonc"]})
	if d.Name != "Review" {
		t.Errorf("name %q", d.Name)
	}
}

func TestParse_reads_every_field(t *testing.T) {
	files := project(`
-- crew.jsonc --
{
  "name": "All", "process": "sequential", "max_rpm": 30, "cache": true, "stream": true, "tool_failure_policy": "raise",
  "knowledge": ["notes.md", "knowledge/more.txt"], "inputs": {"topic": "AI", "n": 10, "deep": {"list": [1, 2.5, null, true]}},
  "memory": false, "planning": null, "verbose": false, "manager_llm": "",
  "agents": ["a"],
  "tasks": [
    {"name": "one", "description": "d", "expected_output": "e", "agent": "a", "async_execution": true, "context": [],
     "allow_crewai_trigger_context": false, "type": "Task"},
    {"name": "two", "description": "d", "expected_output": "e", "agent": "a", "context": ["one"], "markdown": true,
     "guardrails": ["The output names a source.", "It is polite."], "guardrail_max_retries": 1, "tool_failure_policy": "ignore",
     "tools": ["http_request", {"type": "lambda", "name": "score_lead", "description": "Scores", "function": "score", "timeout": 5,
       "result_as_answer": true, "max_usage_count": 2}],
     "output_pydantic": {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}, "required": ["z"]}}
  ]
}
-- agents/a.jsonc --
{"role": "r", "goal": "g", "backstory": "b", "max_iter": 9,
 "llm": {"model": "gpt-4.1-mini", "provider": "openai", "temperature": 0, "max_tokens": 500, "stop": "\n", "seed": 7,
   "base_url": "https://models.example/v1", "timeout": 30, "reasoning_effort": "low", "top_p": 0.5},
 "tools": [{"type": "knowledge_search", "name": "research_tool"}], "knowledge": ["more.txt"],
 "settings": {"max_iter": 5, "max_retry_limit": 0, "max_rpm": 10, "max_execution_time": 60},
 "use_system_prompt": false, "inject_date": true, "date_format": "%d.%m.%Y", "cache": false, "system_template": "{{ .System }}",
 "prompt_template": "{{ .Prompt }}", "response_template": "{{ .Response }}", "tool_failure_policy": "warn", "type": "agent",
 "allow_delegation": false, "mcps": [], "respect_context_window": true}
-- knowledge/notes.md --
Notes.
-- knowledge/more.txt --
More.
`)
	zero, half, tokens, seed, no := 0.0, 0.5, int64(500), int64(7), false
	want := Definition{
		Name: "All", MaxRPM: 30, Cache: true, Stream: true, ToolFailurePolicy: "raise",
		Knowledge: []string{"knowledge/notes.md", "knowledge/more.txt"},
		Inputs:    map[string]any{"topic": "AI", "n": 10.0, "deep": map[string]any{"list": []any{1.0, 2.5, nil, true}}},
		Agents: []Agent{{
			Key: "a", Role: "r", Goal: "g", Backstory: "b", MaxIter: 5, MaxRPM: 10, MaxExecutionTime: 60,
			LLM: Model{Name: "openai/gpt-4.1-mini", BaseURL: "https://models.example/v1", Timeout: 30, ModelOptions: ModelOptions{
				Temperature: &zero, TopP: &half, MaxTokens: &tokens, Seed: &seed, Stop: []string{"\n"}, ReasoningEffort: "low"}},
			Tools: []Tool{{Type: "knowledge_search", Name: "research_tool"}}, Knowledge: []string{"knowledge/more.txt"},
			InjectDate: true, DateFormat: "%d.%m.%Y", SystemTemplate: "{{ .System }}", PromptTemplate: "{{ .Prompt }}",
			ResponseTemplate: "{{ .Response }}", ToolFailurePolicy: "warn",
		}},
		Tasks: []Task{
			{Key: "one", Name: "one", Description: "d", ExpectedOutput: "e", Agent: "a", Async: true, HasContext: true,
				GuardrailMaxRetries: 3, TriggerContext: &no},
			{Key: "two", Name: "two", Description: "d", ExpectedOutput: "e", Agent: "a", Context: []string{"one"}, HasContext: true,
				Markdown: true, Guardrails: []string{"The output names a source.", "It is polite."}, GuardrailMaxRetries: 1,
				ToolFailurePolicy: "ignore", Tools: []Tool{{Type: "http_request", Name: "http_request"},
					{Type: "lambda", Name: "score_lead", Description: "Scores", Settings: json.RawMessage(`{"function":"score","timeout":5}`),
						ResultAsAnswer: true, MaxUsageCount: 2}},
				OutputJSON: json.RawMessage(`{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"integer"}},"required":["z"]}`)},
		},
	}
	got := mustParse(t, files)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	raw, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var back Definition
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, back); diff != "" {
		t.Errorf("a definition changes when it is kept (-want +got)\n%s", diff)
	}
}

func TestParse_warns_of_what_has_no_effect(t *testing.T) {
	yaml := func(agent, task, options string) map[string][]byte {
		return project("-- agents.yaml --\na:\n  role: r\n  goal: g\n  backstory: b\n" + agent +
			"-- tasks.yaml --\nt:\n  description: d\n  expected_output: e\n  agent: a\n" + task + "-- crew.yaml --\nname: n\n" + options)
	}
	for name, c := range map[string]struct {
		files map[string][]byte
		want  []string
	}{
		"an unknown field of an agent": {yaml("  colour: red\n", "", ""), []string{"agents.yaml: a.colour is an unknown field and was ignored"}},
		"an unknown field of a task":   {yaml("", "  priority: 1\n", ""), []string{"tasks.yaml: t.priority is an unknown field and was ignored"}},
		"an unknown field of the crew": {yaml("", "", "motto: go\n"), []string{"crew.yaml: motto is an unknown field and was ignored"}},
		"a runtime field":              {yaml("", "  used_tools: 3\n", ""), []string{"tasks.yaml: t.used_tools is an unknown field and was ignored"}},
		"fields of a console": {yaml("  verbose: true\n  allow_code_execution: true\n", "", "output_log_file: true\nshare_crew: true\ntracing: true\n"), []string{
			"crew.yaml: output_log_file has no effect here: the journal of the run is its log",
			"crew.yaml: share_crew has no effect here: nothing is shared",
			"crew.yaml: tracing has no effect here: events show every step anyway",
			"agents.yaml: a.verbose has no effect here: events and webhooks show every step anyway",
			"agents.yaml: a.allow_code_execution has no effect here: no code is executed"}},
		"a key in clear text": {yaml("  llm: {model: m, api_key: sk-1}\n", "", ""), []string{
			"agents.yaml: a.llm.api_key is kept in clear text with every version: better set the key where Muster runs"}},
		"a setting of a model that is not passed on": {yaml("  llm: {model: m, logprobs: true}\n", "", ""), []string{
			"agents.yaml: a.llm.logprobs is a setting that is not passed on to the model"}},
		"a guardrail of an agent":       {yaml("  guardrail: Be nice to people.\n", "", ""), []string{"agents.yaml: a.guardrail has no effect in a crew: put it on the task"}},
		"a search in nothing":           {yaml("  tools: [knowledge_search]\n", "", ""), []string{"agents.yaml: a has a knowledge_search and no 'knowledge' to search"}},
		"a search of a task in nothing": {yaml("", "  tools: [knowledge_search]\n", ""), []string{"tasks.yaml: t has a knowledge_search and no 'knowledge' to search"}},
		"Python beside YAML":            {with(yamlCrew, map[string]string{"crew.py": "class C: pass"}), []string{"crew.py is Python code and was not read: put the crew's options into crew.yaml"}},
		"YAML beside JSON":              {with(jsonCrew, map[string]string{"agents.yaml": "a: {}"}), []string{"agents.yaml was not read, because there is crew.jsonc"}},
		"two files of one agent":        {with(jsonCrew, map[string]string{"agents/researcher.json": "{}"}), []string{"agents/researcher.json was not read, because there is agents/researcher.jsonc"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, warnings, err := Parse(c.files)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range warnings {
				got = append(got, w.String())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// complaints parses files that are wrong and gives what Parse says, line by line.
func complaints(t *testing.T, files map[string][]byte) []string {
	t.Helper()
	_, _, err := Parse(files)
	if !fault.Is(err, fault.Invalid) {
		t.Fatalf("want fault.Invalid, got %v", err)
	}
	f := err.(*fault.Error)
	problems, ok := f.Details["errors"].([]Problem)
	if !ok {
		return []string{f.Message}
	}
	var lines []string
	for _, p := range problems {
		if !strings.Contains(f.Message, p.String()) {
			t.Errorf("the message does not hold %q: %s", p, f.Message)
		}
		lines = append(lines, p.String())
	}
	return lines
}

func TestParse_collects_all_errors_of_a_json_project(t *testing.T) {
	files := project(`
-- crew.jsonc --
{
  "agents": ["good", "zz", "bad", "good"], "foo": 1, "bar": 2, "id": "x", "max_rpm": "many",
  "tasks": [
    {"description": "d", "agent": "good"},
    {"name": "t", "description": "", "expected_output": 7, "agent": "nobody", "output": "x", "context": ["later", "t", "none"]},
    {"name": "later", "description": "d", "expected_output": "e", "agent": "zz", "tools": ["ScrapeWebsiteTool", "SerperDev", "magic", "custom:mine"]},
    {"name": "later", "description": "d", "expected_output": "e"},
    3,
  ]
}
-- agents/good.json --
{"role": "r", "goal": "g", "backstory": "b"}
-- agents/bad.jsonc --
{"role": "r",
 "goal": }
`)
	want := []string{
		"crew.jsonc: max_rpm must be a whole number, not text",
		"crew.jsonc: agent 'zz' not found in agents (tried zz.jsonc and zz.json)",
		"agents/bad.jsonc: is not valid JSON: line 2, column 10: invalid character '}' at start of value",
		"crew.jsonc: agents[3] names the agent 'good' a second time",
		"crew.jsonc: tasks[0] missing required field 'expected_output'",
		"crew.jsonc: tasks[1].description must not be empty",
		"crew.jsonc: tasks[1].expected_output must be text, not a number",
		"crew.jsonc: tasks[1] runtime-only field(s) are not supported in JSON config: output",
		"crew.jsonc: tasks[2].tools[0] is 'ScrapeWebsiteTool', which does not exist here: use scrape_website; there are http_request, scrape_website, knowledge_search, lambda, emit_event",
		"crew.jsonc: tasks[2].tools[1] is 'SerperDev', which does not exist here: use http_request; there are http_request, scrape_website, knowledge_search, lambda, emit_event",
		"crew.jsonc: tasks[2].tools[2] is 'magic', which does not exist here: there are http_request, scrape_website, knowledge_search, lambda, emit_event",
		"crew.jsonc: tasks[2].tools[3] is 'custom:mine', a tool written in Python, which is not built yet: put the code into a Lambda function and use a lambda tool",
		"crew.jsonc: tasks[4] must be an object, not a number",
		"crew.jsonc: runtime-only field(s) are not supported in JSON config: id",
		"crew.jsonc: unsupported field(s): foo, bar",
		"crew.jsonc: tasks[1].agent is 'nobody', which is none of the crew's agents",
		"crew.jsonc: tasks[1].context[0] is 'later', which is not an earlier task",
		"crew.jsonc: tasks[1].context[1] is 't', which is not an earlier task",
		"crew.jsonc: tasks[1].context[2] is 'none', which is none of the crew's tasks",
		"crew.jsonc: tasks[3] missing required field 'agent': in the sequential process every task has one",
		"crew.jsonc: tasks[3] has the name 'later' of an earlier task: give it another",
	}
	if diff := cmp.Diff(want, complaints(t, files)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestParse_collects_all_errors_of_yaml(t *testing.T) {
	files := project(`
-- agents.yaml --
a: {role: r, goal: g, max_iter: 0, max_execution_time: 0.5, cache: maybe}
b: just text
-- tasks.yaml --
t: {description: [], expected_output: e, agent: c, knowledge: x, tools: knowledge_search}
u: {description: d, expected_output: e, agent: b, tools: [knowledge_search, {type: knowledge_search}, {name: x}, {type: lambda, name: "no way"}]}
-- crew.yaml --
process: consensual
knowledge: [missing.md, 3]
inputs: [topic]
tool_failure_policy: explode
`)
	want := []string{
		"crew.yaml: process is 'consensual'; it can be sequential",
		"crew.yaml: tool_failure_policy is 'explode'; it can be ignore, warn, raise",
		"crew.yaml: knowledge[1] must be text, not a number",
		"crew.yaml: knowledge[0] names 'missing.md', which is not among the files",
		"crew.yaml: inputs must be an object, not a list",
		"agents.yaml: a missing required field 'backstory'",
		"agents.yaml: a.max_iter must be at least 1",
		"agents.yaml: a.max_execution_time must be a whole number, not a number with a fraction",
		"agents.yaml: a.cache must be true or false, not text",
		"agents.yaml: b must be an object, not text",
		"tasks.yaml: t.description must be text, not a list",
		"tasks.yaml: t.tools must be a list, not text",
		"tasks.yaml: u.tools[1] is a second tool called 'knowledge_search': give it another name",
		"tasks.yaml: u.tools[2] missing required field 'type'",
		"tasks.yaml: u.tools[3].name is 'no way'; a tool's name has letters, digits, _ and -, at most 64",
		"tasks.yaml: t.agent is 'c', which is none of the crew's agents",
	}
	if diff := cmp.Diff(want, complaints(t, files)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestParse_names_what_is_not_built_and_what_to_do_instead(t *testing.T) {
	agent := func(field string) map[string][]byte {
		return with(yamlCrew, map[string]string{"agents.yaml": "researcher: {role: r, goal: g, backstory: b, " + field +
			"}\nwriter: {role: r, goal: g, backstory: b}\n"})
	}
	task := func(field string) map[string][]byte {
		return with(yamlCrew, map[string]string{"tasks.yaml": "t: {description: d, expected_output: e, agent: writer, " + field + "}\n"})
	}
	options := func(field string) map[string][]byte { return with(yamlCrew, map[string]string{"crew.yaml": field}) }
	for _, c := range []struct {
		files map[string][]byte
		want  []string // the field, and the alternative
	}{
		{options("process: hierarchical"), []string{"crew.yaml: process", "'sequential'"}},
		{options("manager_llm: gpt-4o"), []string{"crew.yaml: manager_llm", "give every task an agent"}},
		{options("manager_agent: boss"), []string{"crew.yaml: manager_agent", "give every task an agent"}},
		{options("memory: true"), []string{"crew.yaml: memory", "'knowledge'"}},
		{options("embedder: {provider: openai}"), []string{"crew.yaml: embedder", "leave it out"}},
		{options("planning: true"), []string{"crew.yaml: planning", "as tasks"}},
		{options("knowledge_sources: [{source_type: pdf}]"), []string{"crew.yaml: knowledge_sources", "'knowledge'"}},
		{options("skills: ['@org/x']"), []string{"crew.yaml: skills", "backstory"}},
		{options("step_callback: f"), []string{"crew.yaml: step_callback", "stepWebhookUrl"}},
		{options("task_callback: f"), []string{"crew.yaml: task_callback", "taskWebhookUrl"}},
		{options("before_kickoff_callbacks: [f]"), []string{"crew.yaml: before_kickoff_callbacks", "inputs"}},
		{options("checkpoint: {on: true}"), []string{"crew.yaml: checkpoint", "kept anyway"}},
		{options("trained_agents_file: x.pkl"), []string{"crew.yaml: trained_agents_file", "backstory"}},
		{options("prompt_file: x.json"), []string{"crew.yaml: prompt_file", "system_template"}},
		{agent("allow_delegation: true"), []string{"agents.yaml: researcher.allow_delegation", "'context'"}},
		{agent("memory: true"), []string{"agents.yaml: researcher.memory", "'knowledge'"}},
		{agent("planning_config: {max_steps: 3}"), []string{"agents.yaml: researcher.planning_config", "as tasks"}},
		{agent("reasoning: true"), []string{"agents.yaml: researcher.reasoning", "description"}},
		{agent("mcps: ['https://x.example/mcp']"), []string{"agents.yaml: researcher.mcps", "http_request"}},
		{agent("apps: [gmail]"), []string{"agents.yaml: researcher.apps", "http_request"}},
		{agent("from_repository: r"), []string{"agents.yaml: researcher.from_repository", "role, goal and backstory"}},
		{agent("a2a: {url: 'https://x.example'}"), []string{"agents.yaml: researcher.a2a", "http_request"}},
		{agent("multimodal: true"), []string{"agents.yaml: researcher.multimodal", "input"}},
		{agent("step_callback: f"), []string{"agents.yaml: researcher.step_callback", "stepWebhookUrl"}},
		{agent("llm: {python: my.llm}"), []string{"agents.yaml: researcher.llm", "model's name"}},
		{agent("tools: ['custom:x']"), []string{"agents.yaml: researcher.tools[0]", "lambda tool"}},
		{agent("tools: [{python: tools.x}]"), []string{"agents.yaml: researcher.tools[0]", "lambda tool"}},
		{agent("tools: [{tool_type: crewai_tools.X}]"), []string{"agents.yaml: researcher.tools[0].tool_type", "'type'"}},
		{task("output_file: report.md"), []string{"tasks.yaml: t.output_file", "webhook"}},
		{task("input_files: {a: a.png}"), []string{"tasks.yaml: t.input_files", "'knowledge'"}},
		{task("type: conditional"), []string{"tasks.yaml: t.type", "description"}},
		{task("condition: {python: a.b}"), []string{"tasks.yaml: t.condition", "description"}},
		{task("callback: f"), []string{"tasks.yaml: t.callback", "taskWebhookUrl"}},
		{task("callbacks: [f]"), []string{"tasks.yaml: t.callbacks", "webhook"}},
		{task("converter_cls: C"), []string{"tasks.yaml: t.converter_cls", "JSON Schema"}},
		{task("output_pydantic: Report"), []string{"tasks.yaml: t.output_pydantic", "JSON Schema"}},
		{task("output_json: {python: a.Report}"), []string{"tasks.yaml: t.output_json", "JSON Schema"}},
		{task("guardrail: check_sources"), []string{"tasks.yaml: t.guardrail", "sentence"}},
		{task("guardrail: {python: a.check}"), []string{"tasks.yaml: t.guardrail", "sentence"}},
		{task("guardrails: ['It is short.', {python: a.check}]"), []string{"tasks.yaml: t.guardrails[1]", "sentence"}},
		{project("-- flow.yaml --\nschema: crewai.flow/v1\n"), []string{"flow.yaml", "as a crew"}},
		{project("-- crew.jsonc --\n{\"schema\": \"crewai.flow/v1\"}\n"), []string{"crew.jsonc", "as a crew"}},
		{project("-- flow.yaml --\nname: x\n"), []string{"flow.yaml", "as a crew"}},
		{project("-- crew.jsonc --\n{\"type\": \"flow\"}\n"), []string{"crew.jsonc", "as a crew"}},
	} {
		t.Run(c.want[0], func(t *testing.T) {
			got := complaints(t, c.files)
			if len(got) != 1 {
				t.Fatalf("want one error, got %q", got)
			}
			for _, part := range append(c.want, "not built yet") {
				if !strings.Contains(got[0], part) {
					t.Errorf("%q does not hold %q", got[0], part)
				}
			}
		})
	}
}

func TestParse_accepts_what_is_not_built_when_it_is_switched_off(t *testing.T) {
	for name := range notBuilt {
		for _, off := range []string{"null", "false", "''", "[]", "{}"} {
			files := with(yamlCrew, map[string]string{"crew.yaml": name + ": " + off})
			if _, warnings, err := Parse(files); err != nil || len(warnings) > 0 {
				t.Errorf("%s: %s gives %v %v", name, off, warnings, err)
			}
		}
	}
}

func TestParse_holds_asynchronous_tasks_to_the_rules(t *testing.T) {
	crew := func(tasks string) map[string][]byte {
		text := ""
		for _, t := range strings.Fields(tasks) { // name[:async[:context,context]]
			p := append(strings.Split(t, ":"), "", "")
			text += fmt.Sprintf("%s: {description: d, expected_output: e, agent: writer, async_execution: %v", p[0], p[1] == "async")
			if p[2] != "" {
				text += ", context: [" + p[2] + "]"
			}
			text += "}\n"
		}
		return with(yamlCrew, map[string]string{"tasks.yaml": text})
	}
	for tasks, want := range map[string]string{
		"a":                           "",
		"a:async":                     "",
		"a:async b:async c":           "",
		"a b:async":                   "",
		"a:async b":                   "",
		"a b:async c:async":           "tasks.yaml: c ends the crew as one of 2 asynchronous tasks in a row: only one may come last",
		"a:async b:async:a c":         "tasks.yaml: b.context[0] is 'a', an asynchronous task that runs at the same time: put a synchronous task between them",
		"a:async x b:async:a c":       "",
		"a:async b c:async:a":         "",
		"a:async b:async c::a,b":      "",
		"a:async b:async c:async:a d": "tasks.yaml: c.context[0] is 'a', an asynchronous task that runs at the same time: put a synchronous task between them",
	} {
		t.Run(tasks, func(t *testing.T) {
			if want == "" {
				mustParse(t, crew(tasks))
				return
			}
			if diff := cmp.Diff([]string{want}, complaints(t, crew(tasks))); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestParse_compiles_schemas_and_loads_nothing(t *testing.T) {
	task := func(schema string) map[string][]byte {
		return with(yamlCrew, map[string]string{"tasks.yaml": "t: {description: d, expected_output: e, agent: writer, " + schema + "}\n"})
	}
	mustParse(t, task(`output_json: {type: object, properties: {children: {type: array, items: {$ref: '#'}}}}`))
	for schema, want := range map[string]string{
		`output_json: {type: object, properties: {a: {type: strange}}}`:                       "tasks.yaml: t.output_json is not a valid JSON Schema",
		`output_json: {type: array}`:                                                          `must describe an object`,
		`output_json: {type: object, properties: {a: {$ref: 'https://evil.example/s.json'}}}`: "may refer to nothing outside itself",
		`output_json: {type: object, properties: {a: {$ref: 'file:///etc/passwd'}}}`:          "may refer to nothing outside itself",
		`output_json: {type: object, properties: {a: {$ref: '#/nowhere'}}}`:                   "is not a valid JSON Schema",
		`output_json: {type: object}, output_pydantic: {type: object}`:                        "second output model",
		`output_json: [1]`: "must be a JSON Schema object, not a list",
	} {
		got := complaints(t, task(schema))
		if len(got) != 1 || !strings.Contains(got[0], want) || strings.Contains(got[0], "\n") {
			t.Errorf("%s: %q", schema, got)
		}
	}
}

func TestParse_reads_anchors_aliases_and_merge_keys(t *testing.T) {
	d := mustParse(t, with(yamlCrew, map[string]string{"agents.yaml": `
researcher: &base
  role: &r Researcher
  goal: g
  backstory: b
  max_iter: 3
writer:
  <<: *base
  max_iter: 4
  goal: *r
`}))
	w := d.Agents[1]
	if w.Key != "writer" || w.Role != "Researcher" || w.Goal != "Researcher" || w.MaxIter != 4 || d.Agents[0].MaxIter != 3 {
		t.Errorf("got %+v", w)
	}
}

func TestParse_does_not_warn_of_a_search_in_the_knowledge_folder(t *testing.T) {
	mustParse(t, with(yamlCrew, map[string]string{
		"tasks.yaml":         "t: {description: d, expected_output: e, agent: writer, tools: [knowledge_search]}",
		"knowledge/notes.md": "Notes.",
	}))
}

func TestParse_takes_yes_and_no_in_yaml_as_python_does(t *testing.T) {
	d := mustParse(t, with(yamlCrew, map[string]string{"crew.yaml": "cache: yes\nstream: Off\nmemory: false\n"}))
	if !d.Cache || d.Stream {
		t.Errorf("cache %v, stream %v", d.Cache, d.Stream)
	}
}

func TestParse_refuses_bombs_quickly(t *testing.T) {
	laughs := "a0: &a0 lol\n"
	for i := 1; i < 30; i++ {
		laughs += fmt.Sprintf("a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), i-1)
	}
	long := "a: &a " + strings.Repeat("x", 900_000) + "\nb: [" + strings.Repeat("*a, ", 1000) + "]\n"
	yaml := func(agents string) map[string][]byte { return with(yamlCrew, map[string]string{"agents.yaml": agents}) }
	json := func(crew string) map[string][]byte { return map[string][]byte{"crew.jsonc": []byte(crew)} }
	for name, c := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"a billion laughs":               {yaml(laughs), "agents.yaml: grows too large when its aliases are filled in"},
		"one long text many times":       {yaml(long), "agents.yaml: grows too large when its aliases are filled in"},
		"an anchor that holds itself":    {yaml("a: &a [*a]\n"), "before its anchor is complete"},
		"an alias of nothing":            {yaml("a: *b\n"), "agents.yaml: "},
		"brackets in YAML":               {yaml(strings.Repeat("[", 500_000)), "nested more than 64 levels"},
		"braces in YAML":                 {yaml(strings.Repeat("{a: ", 20_000)), "nested more than 64 levels"},
		"lists in one line":              {yaml(strings.Repeat("- ", 40_000)), "nested more than 64 levels"},
		"keys in one line":               {yaml(strings.Repeat("? ", 40_000)), "nested more than 64 levels"},
		"anchors in one line":            {yaml("a: " + strings.Repeat("&a ", 20_000)), "nested more than 64 levels"},
		"tags in one line":               {yaml("a: " + strings.Repeat("!!str ", 20_000)), "nested more than 64 levels"},
		"brackets in JSON":               {json(strings.Repeat("[", 900_000)), "nested more than 64 levels"},
		"objects in JSON":                {json(strings.Repeat(`{"a":`, 200_000)), "nested more than 64 levels"},
		"brackets behind a comment":      {json("/* \" */" + strings.Repeat("[", 900_000)), "nested more than 64 levels"},
		"a long file":                    {json(strings.Repeat(" ", 1<<20) + "{}"), "at most 1048576 are allowed"},
		"a comment without end":          {json("/* {}"), "crew.jsonc: is not valid JSON"},
		"a NUL character":                {json("{\"name\": \"a\x00\"}"), "holds a NUL character"},
		"an escaped NUL character":       {json(`{"name": "a\u0000"}`), "holds a NUL character"},
		"an escaped NUL in YAML":         {yaml(`a: "x\0y"`), "holds a NUL character"},
		"text that is not UTF-8":         {json("{\"name\": \"\xff\"}"), "is not UTF-8 text"},
		"a field twice in JSON":          {json(`{"name": "a", "name": "b"}`), `has the field "name" twice`},
		"a field twice in YAML":          {yaml("a: 1\nb: 2\na: 3\n"), `line 3 has the field "a" a second time`},
		"two documents":                  {yaml("a: 1\n---\nb: 2\n"), "more than one YAML document"},
		"a Python object":                {yaml("a: !!python/object/apply:os.system ['true']\n"), "which means nothing here"},
		"a list at the top":              {yaml("- a\n"), "must hold an object at the top, not a list"},
		"an empty file":                  {yaml(""), "must hold an object at the top, not null"},
		"an empty mapping":               {yaml("{}"), "agents.yaml: must not be empty"},
		"no tasks":                       {map[string][]byte{"agents.yaml": yamlCrew["agents.yaml"]}, "tasks.yaml: is missing"},
		"nothing known":                  {map[string][]byte{"main.py": nil}, "crew.jsonc: is missing"},
		"two crews":                      {with(yamlCrew, map[string]string{"config/tasks.yaml": "x"}), "a deployment has one crew"},
		"YAML that is broken":            {yaml("a: b: c\n"), "agents.yaml: is not valid YAML: line 1, column"},
		"a number out of range":          {json(`{"max_rpm": 1e999}`), "out of range"},
		"a Python file as knowledge":     {with(yamlCrew, map[string]string{"crew.yaml": "knowledge: [k.pdf]", "k.pdf": "%PDF\x00"}), "is not UTF-8 text: convert it"},
		"an agent in another folder":     {with(jsonCrew, map[string]string{"crew.jsonc": `{"agents": ["../x"], "tasks": []}`}), "agent '../x' not found"},
		"a project without agents":       {with(jsonCrew, map[string]string{"crew.jsonc": `{"tasks": []}`}), "crew.jsonc: missing required field 'agents'"},
		"a project with no tasks in it":  {with(jsonCrew, map[string]string{"crew.jsonc": `{"agents": ["researcher"], "tasks": []}`}), "crew.jsonc: tasks must not be empty"},
		"a model at a place that is odd": {yaml("researcher: {role: r, goal: g, backstory: b, llm: {model: m, base_url: 'ftp://x'}}\n"), "must be an http or https URL"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			got := strings.Join(complaints(t, c.files), "\n")
			if !strings.Contains(got, c.want) {
				t.Errorf("%q does not hold %q", got, c.want)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func TestParse_refuses_files_that_cannot_be_kept(t *testing.T) {
	for name, want := range map[string]string{
		"../crew.yaml": "inside", "a/../../b": "inside", "/etc/passwd": "inside", `a\b`: "backslash", "": "1 to 255", "a//b": "plain path",
		"./a": "plain path", "a/": "plain path", "a\x00b": "readable", "\xff": "readable", "..": "inside", strings.Repeat("x", 300): "1 to 255",
	} {
		_, _, err := Parse(with(yamlCrew, map[string]string{name: "x"}))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(fault.Message(err), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, _, err := Parse(nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("no files: %v", err)
	}
	if _, _, err := Parse(with(yamlCrew, map[string]string{"big.txt": strings.Repeat("x", MaxFilesSize)})); !fault.Is(err, fault.TooLarge) {
		t.Errorf("too much: %v", err)
	}
	many := map[string]string{}
	for i := range maxFiles {
		many[fmt.Sprintf("f%d", i)] = ""
	}
	if _, _, err := Parse(with(yamlCrew, many)); !fault.Is(err, fault.TooLarge) {
		t.Errorf("too many: %v", err)
	}
}

func TestParse_limits_agents_tasks_and_placeholders(t *testing.T) {
	repeat := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	agents := repeat(150, "a%d: {role: r, goal: g, backstory: b}\n")
	tasks := repeat(300, "t%d: {description: d, expected_output: e, agent: a1}\n")
	got := complaints(t, project("-- agents.yaml --\n"+agents+"-- tasks.yaml --\n"+tasks))
	want := []string{"tasks.yaml: has 101 agents; at most 100 are allowed", "tasks.yaml: has 201 tasks; at most 200 are allowed"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	got = complaints(t, with(yamlCrew, map[string]string{"tasks.yaml": "t: {expected_output: e, agent: writer, description: '" +
		repeat(250, "{p%d} ") + "{" + strings.Repeat("x", 200) + "}'}"}))
	if len(got) != 2 || !strings.Contains(got[0], "252 different {placeholders}") || !strings.Contains(got[1], "longer than 100") {
		t.Errorf("got %q", got)
	}
	got = complaints(t, with(yamlCrew, map[string]string{"tasks.yaml": repeat(150, "t%d: {}\n")}))
	if len(got) != maxReported {
		t.Errorf("%d errors are shown", len(got))
	}
}

func FuzzParse(f *testing.F) {
	f.Add(string(yamlCrew["agents.yaml"]), string(yamlCrew["tasks.yaml"]), string(jsonCrew["crew.jsonc"]))
	f.Add("a: &a {role: *b, <<: [*a]}", "? [x]\n: y", `{"agents": [{"python": "a.b"}], "tasks": [null, {"tools": [{}]}]}`)
	f.Add("a: |\n  x\n b: >-\n", "- - - x", "{/**/}//")
	f.Add("a: !!str 1\nb: !!binary aGk=\nc: 0x1F\nd: .inf\ne: 2001-01-01", "%YAML 1.2\n---\na: 1", `{"tasks": {}}`)
	f.Fuzz(func(t *testing.T, agents, tasks, crew string) {
		for _, files := range []map[string][]byte{
			{"agents.yaml": []byte(agents), "tasks.yaml": []byte(tasks)},
			{"crew.jsonc": []byte(crew), "agents/researcher.json": []byte(agents)},
		} {
			d, _, err := Parse(files)
			if err != nil {
				if k := fault.KindOf(err); k != fault.Invalid && k != fault.TooLarge {
					t.Fatalf("%v is %s", err, k)
				}
				continue
			}
			raw, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			var back Definition
			if err := json.Unmarshal(raw, &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(d, back); diff != "" {
				t.Fatalf("a definition changes when it is kept:\n%s", diff)
			}
			for _, task := range d.Tasks {
				if _, ok := d.Agent(task.Agent); !ok {
					t.Fatalf("task %q has no agent", task.Key)
				}
			}
		}
	})
}

func TestHumanInput(t *testing.T) {
	for _, c := range []struct {
		name, task string
		want       Task
		complaint  string
	}{
		{"asks without a limit", "human_input: true", Task{HumanInput: true}, ""},
		{"asks for a time", "human_input: true\n  human_input_timeout: 3600", Task{HumanInput: true, HumanInputTimeout: 3600}, ""},
		{"has a default", "human_input: true\n  human_input_timeout: 5\n  human_input_default: reject", Task{HumanInput: true, HumanInputTimeout: 5, HumanInputDefault: "reject"}, ""},
		{"asks nobody", "human_input: false", Task{}, ""},
		{"has a time and asks nobody", "human_input_timeout: 5", Task{}, "set human_input to true"},
		{"has a default and no time", "human_input: true\n  human_input_default: approve", Task{}, "t.human_input_default needs human_input_timeout"},
		{"has another default", "human_input: true\n  human_input_timeout: 5\n  human_input_default: maybe", Task{}, "it can be approve, reject"},
		{"has no time at all", "human_input: true\n  human_input_timeout: 0", Task{}, "at least 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := with(yamlCrew, map[string]string{"tasks.yaml": "t:\n  description: d\n  expected_output: e\n  agent: writer\n  " + c.task + "\n"})
			if c.complaint != "" {
				if got := complaints(t, files); len(got) != 1 || !strings.Contains(got[0], c.complaint) {
					t.Errorf("got %q, want %q", got, c.complaint)
				}
				return
			}
			d, _, err := Parse(files)
			if err != nil {
				t.Fatal(err)
			}
			got := d.Tasks[0]
			if got.HumanInput != c.want.HumanInput || got.HumanInputTimeout != c.want.HumanInputTimeout || got.HumanInputDefault != c.want.HumanInputDefault {
				t.Errorf("got %v, %d, %q", got.HumanInput, got.HumanInputTimeout, got.HumanInputDefault)
			}
		})
	}
}
