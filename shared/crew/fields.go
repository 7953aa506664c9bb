package crew

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
)

// notBuilt holds the fields that mean something to CrewAI and cannot be honoured here, each with what to do instead.
var notBuilt = map[string]string{
	// Who does what.
	"manager_agent":    "use the sequential process and give every task an agent",
	"manager_llm":      "use the sequential process and give every task an agent",
	"allow_delegation": "give the other agent a task of its own and name it in 'context'",
	"from_repository":  "write role, goal and backstory of the agent into the definition",
	"a2a":              "call the remote agent with an http_request tool",
	// What it remembers and knows.
	"memory":              "list files under 'knowledge', or hand earlier results in as inputs",
	"embedder":            "knowledge_search needs none; leave it out",
	"knowledge_sources":   "list text files under 'knowledge'",
	"knowledge_config":    "put settings on a knowledge_search tool",
	"skills":              "put the instructions into the agent's backstory or into a file under 'knowledge'",
	"trained_agents_file": "put what was learned into the agent's backstory",
	// How it thinks.
	"planning":        "write the plan down as tasks",
	"planning_config": "write the plan down as tasks",
	"reasoning":       "write the steps into the task's description",
	"prompt_file":     "use system_template and prompt_template of the agents",
	"multimodal":      "describe what is in the image in an input",
	// What it can do.
	"mcps": "use an http_request or lambda tool",
	"apps": "use an http_request or lambda tool",
	// Where people and code come in.
	"condition":                "let the task's description say when there is nothing to do",
	"step_callback":            "give stepWebhookUrl at kickoff",
	"task_callback":            "give taskWebhookUrl at kickoff",
	"callback":                 "give taskWebhookUrl at kickoff",
	"callbacks":                "give webhook URLs at kickoff",
	"before_kickoff_callbacks": "prepare the inputs before the kickoff",
	"after_kickoff_callbacks":  "give crewWebhookUrl at kickoff",
	"converter_cls":            "give output_json a JSON Schema object",
	// Where things are kept.
	"output_file": "take the output from the task's webhook or from the status",
	"input_files": "list text files under 'knowledge', or give the text as an input",
	"checkpoint":  "leave it out; every step of a run is kept anyway",
	"config":      "put the fields into the crew's own files",
}

// noEffect holds the fields that work on a developer's own machine only, or are deprecated without a successor.
var noEffect = map[string]string{
	"verbose":                "events and webhooks show every step anyway",
	"output_log_file":        "the journal of the run is its log",
	"share_crew":             "nothing is shared",
	"tracing":                "events show every step anyway",
	"security_config":        "ids are derived from the deployment",
	"allow_code_execution":   "no code is executed",
	"code_execution_mode":    "no code is executed",
	"executor_class":         "there is one executor",
	"function_calling_llm":   "the agent's llm calls the tools",
	"planning_llm":           "there is no planning",
	"chat_llm":               "there is no chat",
	"max_reasoning_attempts": "there is no reasoning step",
	"max_tokens":             "set max_tokens of the llm",
	"create_directory":       "no files are written",
}

// runtimeOnly holds fields that CrewAI fills in itself.
var runtimeOnly = func() map[string]bool {
	names := map[string]bool{}
	for _, n := range strings.Fields(`id crew cache_handler tools_handler tools_results knowledge knowledge_storage
		adapted_agent agent_knowledge_context crew_knowledge_context knowledge_search_query execution_context
		used_tools tools_errors delegations output processed_by_agents retry_count start_time end_time
		usage_metrics task_execution_output_json_files execution_logs token_usage checkpoint_inputs checkpoint_train
		checkpoint_kickoff_event_id checkpoint_original_description checkpoint_original_expected_output`) {
		names[n] = true
	}
	return names
}()

// fields reads one object of a definition, field by field, and in the end says what was in it besides.
type fields struct {
	*report
	place
	obj  object
	seen map[string]bool
}

// fieldsOf begins to read v; ok is false, and a problem noted, when it is no object.
func (r *report) fieldsOf(v any, at place) (f *fields, ok bool) {
	o, ok := v.(object)
	if !ok {
		r.fail(at, "must be an object, not %s", kindOf(v))
	}
	return &fields{r, at, o, map[string]bool{}}, ok
}

// take gives the value of a field that is there and not null. Python references end here.
func (f *fields) take(name string) (v any, ok bool) {
	f.seen[name] = true
	v, ok = f.obj.get(name)
	if ok && f.python(v, f.at(name)) {
		return nil, false
	}
	return v, ok
}

// python notes a problem when v is a reference to Python code.
func (r *report) python(v any, at place) bool {
	o, ok := v.(object)
	if !ok || len(o) != 1 || o[0].name != "python" {
		return false
	}
	name := at.path[strings.LastIndexByte(at.path, '.')+1:]
	name, _, _ = strings.Cut(name, "[")
	instead := map[string]string{
		"guardrail": "write it as a sentence that a model can check", "guardrails": "write each as a sentence that a model can check",
		"output_json": "give a JSON Schema object", "output_pydantic": "give a JSON Schema object",
		"response_model": "give a JSON Schema object", "tools": "put the code into a Lambda function and use a lambda tool",
		"llm": "give the model's name, or an object with 'model'",
	}[name]
	if instead == "" {
		instead = notBuilt[name]
	}
	if instead == "" {
		instead = "write the value itself"
	}
	r.fail(at, "refers to Python code, which is not built yet: %s", instead)
	return true
}

// text reads a string, without the white space around it, which is where YAML's folding leaves a line break.
func (f *fields) text(name string) string {
	v, ok := f.take(name)
	if !ok {
		return ""
	}
	s, ok := v.(string)
	if !ok {
		f.fail(f.at(name), "must be text, not %s", kindOf(v))
	}
	return strings.TrimSpace(s)
}

// required reads a string that has to be there.
func (f *fields) required(name string) string {
	f.seen[name] = true
	v, ok := f.obj.get(name)
	if !ok {
		f.fail(f.place, "missing required field '%s'", name)
		return ""
	}
	if s, ok := v.(string); ok && strings.TrimSpace(s) == "" {
		f.fail(f.at(name), "must not be empty")
		return ""
	}
	return f.text(name)
}

// flag reads true or false.
func (f *fields) flag(name string, absent bool) bool {
	v, ok := f.take(name)
	if !ok {
		return absent
	}
	if b, ok := v.(bool); ok {
		return b
	}
	// YAML 1.1, which Python reads, takes these words for booleans.
	if s, ok := v.(string); ok && !f.strict {
		switch strings.ToLower(s) {
		case "yes", "on":
			return true
		case "no", "off":
			return false
		}
	}
	f.fail(f.at(name), "must be true or false, not %s", kindOf(v))
	return absent
}

// whole reads a whole number of at least least.
func (f *fields) whole(name string, absent, least int) int {
	v, ok := f.take(name)
	if !ok {
		return absent
	}
	if x, ok := v.(float64); ok && x == math.Trunc(x) && math.Abs(x) < 1<<31 {
		v = int64(x)
	}
	n, ok := v.(int64)
	switch {
	case !ok:
		f.fail(f.at(name), "must be a whole number, not %s", kindOf(v))
	case n < int64(least):
		f.fail(f.at(name), "must be at least %d", least)
	case n > math.MaxInt32:
		f.fail(f.at(name), "is too large")
	default:
		return int(n)
	}
	return absent
}

// number reads any number; nil is absent.
func (f *fields) number(name string) *float64 {
	v, ok := f.take(name)
	if !ok {
		return nil
	}
	switch n := v.(type) {
	case int64:
		x := float64(n)
		return &x
	case float64:
		return &n
	}
	f.fail(f.at(name), "must be a number, not %s", kindOf(v))
	return nil
}

// integer reads a whole number of 64 bits; nil is absent.
func (f *fields) integer(name string) *int64 {
	v, ok := f.take(name)
	if !ok {
		return nil
	}
	n, ok := v.(int64)
	if !ok {
		f.fail(f.at(name), "must be a whole number, not %s", kindOf(v))
		return nil
	}
	return &n
}

// oneOf reads one of a few words, "" when absent.
func (f *fields) oneOf(name string, words ...string) string {
	s := f.text(name)
	if s != "" && !slices.Contains(words, s) {
		f.fail(f.at(name), "is '%s'; it can be %s", shorten(s), strings.Join(words, ", "))
		return ""
	}
	return s
}

// list reads a list; given tells an empty list from none.
func (f *fields) list(name string) (items []any, given bool) {
	v, ok := f.take(name)
	if !ok {
		return nil, false
	}
	items, ok = v.([]any)
	if !ok {
		f.fail(f.at(name), "must be a list, not %s", kindOf(v))
	}
	return items, ok
}

// texts reads a list of strings.
func (f *fields) texts(name string) (texts []string, given bool) {
	items, given := f.list(name)
	for i, v := range items {
		if f.python(v, f.at(name).index(i)) {
			continue
		}
		s, ok := v.(string)
		if s = strings.TrimSpace(s); !ok || s == "" {
			f.fail(f.at(name).index(i), "must be text, not %s", kindOf(v))
			continue
		}
		texts = append(texts, s)
	}
	return texts, given
}

// rest gives, as JSON, the fields that were not read; nil when there are none.
func (f *fields) rest() json.RawMessage {
	var left object
	for _, m := range f.obj {
		if !f.seen[m.name] {
			left = append(left, m)
		}
	}
	if left == nil {
		return nil
	}
	raw, err := json.Marshal(left)
	if err != nil {
		f.fail(f.place, "cannot be written as JSON: %s", err)
	}
	return raw
}

// close says what was there besides the fields that were read.
func (f *fields) close() {
	var unknown, runtime []string
	for _, m := range f.obj {
		if f.seen[m.name] {
			continue
		}
		if instead, ok := notBuilt[m.name]; ok {
			if !empty(m.value) {
				f.fail(f.at(m.name), "is not built yet: %s", instead)
			}
			continue
		}
		if why, ok := noEffect[m.name]; ok {
			if !empty(m.value) {
				f.warn(f.at(m.name), "has no effect here: %s", why)
			}
			continue
		}
		switch {
		case !f.strict:
			f.warn(f.at(m.name), "is an unknown field and was ignored")
		case runtimeOnly[m.name]:
			runtime = append(runtime, m.name)
		default:
			unknown = append(unknown, shorten(m.name))
		}
	}
	if runtime != nil {
		f.fail(f.place, "runtime-only field(s) are not supported in JSON config: %s", strings.Join(runtime, ", "))
	}
	if unknown != nil {
		f.fail(f.place, "unsupported field(s): %s", strings.Join(unknown, ", "))
	}
}
