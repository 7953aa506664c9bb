package crew

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// The defaults and limits of a definition.
const (
	defaultMaxIter         = 25
	defaultMaxRetryLimit   = 2
	defaultGuardrailTries  = 3
	defaultToolPolicy      = "warn"
	maxAgents, maxTasks    = 100, 200
	maxInputs, maxInputLen = 200, 100
	maxKey                 = 200
)

// builder makes a Definition; places holds, for every agent and task, where it came from.
type builder struct {
	report
	files    map[string][]byte
	def      Definition
	agentsAt []place
	tasksAt  []place
	// absent are agents that were named and could not be read; that is reported once.
	absent map[string]bool
}

// crew reads the fields that are the crew's own.
func (b *builder) crew(f *fields) {
	b.def.Name = f.text("name")
	if p := f.text("process"); p == "hierarchical" {
		f.fail(f.at("process"), "is 'hierarchical', which is not built yet: use 'sequential' and give every task an agent")
	} else if p != "" && p != "sequential" {
		f.fail(f.at("process"), "is '%s'; it can be sequential", shorten(p))
	}
	b.def.MaxRPM = f.whole("max_rpm", 0, 0)
	b.def.Cache = f.flag("cache", false)
	b.def.Stream = f.flag("stream", false)
	if b.def.ToolFailurePolicy = f.toolFailurePolicy(); b.def.ToolFailurePolicy == "" {
		b.def.ToolFailurePolicy = defaultToolPolicy
	}
	b.def.Knowledge = b.knowledge(f)
	b.def.Inputs = b.inputs(f)
}

// inputs reads the default values of placeholders. A Python reference is nothing special here: it would be a value.
func (b *builder) inputs(f *fields) map[string]any {
	f.seen["inputs"] = true
	v, ok := f.obj.get("inputs")
	if !ok {
		return nil
	}
	o, ok := v.(object)
	if !ok {
		f.fail(f.at("inputs"), "must be an object, not %s", kindOf(v))
		return nil
	}
	if len(o) == 0 {
		return nil
	}
	return plain(o).(map[string]any)
}

// plain turns a tree into what encoding/json would have made of it.
func plain(v any) any {
	switch v := v.(type) {
	case object:
		m := make(map[string]any, len(v))
		for _, f := range v {
			m[f.name] = plain(f.value)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = plain(v[i])
		}
		return list
	case int64:
		return float64(v)
	}
	return v
}

// agent reads one agent.
func (b *builder) agent(key string, v any, at place) {
	b.key(key, at)
	f, ok := b.fieldsOf(v, at)
	if !ok {
		b.absent[key] = true
		return
	}
	f.settings()
	f.typeIs("agent", "agent", "Agent", "crewai.Agent", "crewai.agent.core.Agent")
	a := Agent{Key: key}
	if repository, _ := f.obj.get("from_repository"); empty(repository) {
		a.Role, a.Goal, a.Backstory = f.required("role"), f.required("goal"), f.required("backstory")
	} else {
		a.Role, a.Goal, a.Backstory = f.text("role"), f.text("goal"), f.text("backstory")
	}
	a.LLM = f.model("llm")
	a.Tools = f.tools()
	a.Knowledge = b.knowledge(f)
	a.MaxIter = f.whole("max_iter", defaultMaxIter, 1)
	a.MaxRetryLimit = f.whole("max_retry_limit", defaultMaxRetryLimit, 0)
	a.MaxRPM = f.whole("max_rpm", 0, 0)
	a.MaxExecutionTime = f.whole("max_execution_time", 0, 1)
	a.UseSystemPrompt = f.flag("use_system_prompt", true)
	a.InjectDate = f.flag("inject_date", false)
	if a.DateFormat = f.text("date_format"); a.DateFormat == "" {
		a.DateFormat = "%Y-%m-%d"
	}
	a.Cache = f.flag("cache", true)
	if a.Verbose = f.flag("verbose", false); a.Verbose {
		f.warn(f.at("verbose"), "has no effect here: %s", noEffect["verbose"])
	}
	a.SystemTemplate, a.PromptTemplate = f.text("system_template"), f.text("prompt_template")
	a.ResponseTemplate = f.text("response_template")
	a.ToolFailurePolicy = f.toolFailurePolicy()
	if !f.flag("respect_context_window", true) {
		f.warn(f.at("respect_context_window"), "has no effect here: a conversation that grows too long is shortened, never the end of the run")
	}
	if g, ok := f.take("guardrail"); ok && !empty(g) {
		f.warn(f.at("guardrail"), "has no effect in a crew: put it on the task")
	}
	f.take("guardrail_max_retries")
	f.close()

	b.def.Agents = append(b.def.Agents, a)
	b.agentsAt = append(b.agentsAt, at)
}

// settings moves the fields below "settings" up; they win over those beside it.
func (f *fields) settings() {
	v, ok := f.take("settings")
	if !ok {
		return
	}
	o, ok := v.(object)
	if !ok {
		f.fail(f.at("settings"), "must be an object, not %s", kindOf(v))
		return
	}
	up := slices.Clone(o)
	for _, m := range f.obj {
		if _, wins := o.get(m.name); !wins {
			up = append(up, m)
		}
	}
	f.obj = up
	f.seen["settings"] = true
}

// typeIs reads "type", which may only say what the object is anyway.
func (f *fields) typeIs(what string, names ...string) {
	t := f.text("type")
	switch {
	case t == "" || slices.Contains(names, t):
	case strings.Contains(strings.ToLower(t), "conditional"):
		f.fail(f.at("type"), "is a conditional task, which is not built yet: %s", notBuilt["condition"])
	default:
		f.fail(f.at("type"), "is '%s'; it can be %s", shorten(t), what)
	}
}

// task reads one task. key is its name in the definition, given by the file's form.
func (b *builder) task(key string, v any, at place) {
	b.key(key, at)
	f, ok := b.fieldsOf(v, at)
	if !ok {
		return
	}
	f.typeIs("task", "task", "Task", "crewai.Task", "crewai.task.Task")
	t := Task{Key: key}
	if t.Name = f.text("name"); t.Name == "" {
		t.Name = key
	}
	t.Description, t.ExpectedOutput = f.required("description"), f.required("expected_output")
	t.Agent = f.text("agent")
	t.Tools = f.tools()
	t.Context, t.HasContext = f.texts("context")
	t.Async = f.flag("async_execution", false)
	t.Markdown = f.flag("markdown", false)
	for _, name := range []string{"output_json", "output_pydantic", "response_model"} {
		schema, given := f.schema(name)
		if given && t.OutputJSON != nil {
			f.fail(f.at(name), "is a second output model: give one of output_json, output_pydantic and response_model")
		}
		if given {
			t.OutputJSON = schema
		}
	}
	t.Guardrails = f.guardrails()
	t.GuardrailMaxRetries = f.whole("guardrail_max_retries", f.whole("max_retries", defaultGuardrailTries, 0), 0)
	t.HumanInput = f.flag("human_input", false)
	t.HumanInputTimeout = f.whole("human_input_timeout", 0, 1)
	t.HumanInputDefault = f.oneOf("human_input_default", "approve", "reject")
	if (t.HumanInputTimeout > 0 || t.HumanInputDefault != "") && !t.HumanInput {
		f.fail(f.place, "says what happens when nobody answers, and asks nobody: set human_input to true")
	}
	if t.HumanInputDefault != "" && t.HumanInputTimeout == 0 {
		f.fail(f.at("human_input_default"), "needs human_input_timeout, the seconds after which it is the answer")
	}
	if _, ok := f.take("allow_crewai_trigger_context"); ok {
		allow := f.flag("allow_crewai_trigger_context", false)
		t.TriggerContext = &allow
	}
	t.ToolFailurePolicy = f.toolFailurePolicy()
	f.close()

	b.def.Tasks = append(b.def.Tasks, t)
	b.tasksAt = append(b.tasksAt, at)
}

// guardrails reads the sentences that the output is held to. The list wins when both fields are there.
func (f *fields) guardrails() []string {
	var rules []string
	single, isText := f.take("guardrail")
	many, given := f.take("guardrails")
	switch {
	case given:
		if _, ok := many.(string); ok {
			rules = []string{f.text("guardrails")}
		} else {
			rules, _ = f.texts("guardrails")
		}
	case isText && !empty(single):
		rules = []string{f.text("guardrail")}
	}
	for i, rule := range rules {
		at := f.at("guardrail")
		if given {
			at = f.at("guardrails").index(i)
		}
		if isIdentifier(rule) {
			f.fail(at, "is '%s', which looks like the name of a Python function; functions are not built yet: "+
				"write the rule as a sentence that a model can check", shorten(rule))
		}
	}
	return rules
}

// isIdentifier tells whether a text is one (dotted) name rather than a sentence.
func isIdentifier(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && r != '.' && r != ':' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
}

// key holds the name of an agent or task to a readable length.
func (b *builder) key(key string, at place) {
	if strings.TrimSpace(key) == "" || len(key) > maxKey || strings.ContainsFunc(key, unicode.IsControl) {
		b.fail(at, "needs a name of 1 to %d readable characters", maxKey)
	}
}

func (f *fields) toolFailurePolicy() string {
	return f.oneOf("tool_failure_policy", "ignore", "warn", "raise")
}

// knowledge reads the names of knowledge files: a path among the files, or one below knowledge/.
func (b *builder) knowledge(f *fields) []string {
	names, _ := f.texts("knowledge")
	var found []string
	for i, name := range names {
		at := f.at("knowledge").index(i)
		data, ok := b.files[name]
		if !ok {
			if data, ok = b.files["knowledge/"+name]; ok {
				name = "knowledge/" + name
			}
		}
		switch {
		case !ok:
			f.fail(at, "names '%s', which is not among the files", shorten(name))
		case !readable(data):
			f.fail(at, "names '%s', which is not UTF-8 text: convert it to a .txt or .md file", shorten(name))
		case !slices.Contains(found, name):
			found = append(found, name)
		}
	}
	return found
}

// model reads what is said of a model: its name, or an object.
func (f *fields) model(name string) Model {
	v, ok := f.take(name)
	if !ok {
		return Model{}
	}
	if _, ok := v.(string); ok {
		return Model{Name: f.text(name)}
	}
	o, ok := f.fieldsOf(v, f.at(name))
	if !ok {
		return Model{}
	}
	var m Model
	for _, alias := range []string{"model", "model_name", "deployment_name"} {
		if s := o.text(alias); m.Name == "" {
			m.Name = s
		}
	}
	if provider := o.text("provider"); provider != "" && !strings.HasPrefix(m.Name, provider+"/") {
		m.Name = provider + "/" + m.Name
	}
	if m.Name == "" {
		o.fail(o.place, "missing required field 'model'")
	}
	for _, alias := range []string{"base_url", "api_base"} {
		if s := o.text(alias); m.BaseURL == "" && s != "" {
			if u, err := url.Parse(s); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				o.fail(o.at(alias), "must be an http or https URL")
			}
			m.BaseURL = s
		}
	}
	if m.APIKey = o.text("api_key"); m.APIKey != "" {
		o.warn(o.at("api_key"), "is kept in clear text with every version: better set the key where Muster runs")
	}
	if t := o.number("timeout"); t != nil {
		if m.Timeout = *t; m.Timeout < 0 {
			o.fail(o.at("timeout"), "must not be negative")
		}
	}
	m.Temperature, m.TopP = o.number("temperature"), o.number("top_p")
	m.FrequencyPenalty, m.PresencePenalty = o.number("frequency_penalty"), o.number("presence_penalty")
	m.Seed, m.MaxTokens = o.integer("seed"), o.integer("max_tokens")
	if n := o.integer("max_completion_tokens"); m.MaxTokens == nil {
		m.MaxTokens = n
	}
	m.Stop = o.stop()
	m.ReasoningEffort = o.text("reasoning_effort")
	for _, f := range o.obj {
		if !o.seen[f.name] && !empty(f.value) {
			o.warn(o.at(f.name), "is a setting that is not passed on to the model")
		}
	}
	return m
}

// stop reads the texts at which a model stops: one, or a list. White space counts in them.
func (f *fields) stop() []string {
	v, ok := f.take("stop")
	if !ok {
		return nil
	}
	items, ok := v.([]any)
	if !ok {
		items = []any{v}
	}
	var stop []string
	for _, v := range items {
		s, ok := v.(string)
		if !ok || s == "" {
			f.fail(f.at("stop"), "must be text, or a list of texts")
			return nil
		}
		stop = append(stop, s)
	}
	return stop
}

// toolTypes are the tools there are.
var toolTypes = []string{"http_request", "scrape_website", "knowledge_search", "lambda", "emit_event"}

// insteadOf names the tool here that does the work of a well-known one of CrewAI.
var insteadOf = map[string]string{
	"ScrapeWebsiteTool": "scrape_website", "ScrapeElementFromWebsiteTool": "scrape_website",
	"SeleniumScrapingTool": "scrape_website", "FirecrawlScrapeWebsiteTool": "scrape_website",
	"SerperDevTool": "http_request", "EXASearchTool": "http_request", "TavilySearchTool": "http_request",
	"BraveSearchTool": "http_request", "WebsiteSearchTool": "scrape_website", "GithubSearchTool": "http_request",
	"FileReadTool": "knowledge_search", "DirectoryReadTool": "knowledge_search", "DirectorySearchTool": "knowledge_search",
	"TXTSearchTool": "knowledge_search", "MDXSearchTool": "knowledge_search", "CSVSearchTool": "knowledge_search",
	"JSONSearchTool": "knowledge_search", "PDFSearchTool": "knowledge_search", "RagTool": "knowledge_search",
	"CodeInterpreterTool": "lambda",
}

// toolName is what models take for the name of a function.
var toolName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,63}$`)

// tools reads the tools of an agent or a task.
func (f *fields) tools() []Tool {
	items, _ := f.list("tools")
	var tools []Tool
	names := map[string]bool{}
	for i, v := range items {
		at := f.at("tools").index(i)
		t, ok := f.tool(v, at)
		if !ok {
			continue
		}
		if names[t.Name] {
			f.fail(at, "is a second tool called '%s': give it another name", shorten(t.Name))
		}
		names[t.Name] = true
		tools = append(tools, t)
	}
	return tools
}

// tool reads one tool: its type, or an object with its type and settings.
func (f *fields) tool(v any, at place) (Tool, bool) {
	if f.python(v, at) {
		return Tool{}, false
	}
	if name, ok := v.(string); ok {
		return Tool{Type: name, Name: name}, f.knownTool(name, at)
	}
	o, ok := f.fieldsOf(v, at)
	if !ok {
		return Tool{}, false
	}
	if _, has := o.obj.get("type"); !has {
		if class, ok := o.obj.get("tool_type"); ok {
			o.fail(o.at("tool_type"), "names the Python class %v, which is not built yet: give a 'type', one of %s", class, strings.Join(toolTypes, ", "))
			return Tool{}, false
		}
	}
	t := Tool{Type: o.required("type"), Name: o.text("name"), Description: o.text("description")}
	if t.Type == "" || !o.knownTool(t.Type, o.at("type")) {
		return Tool{}, false
	}
	if t.Name == "" {
		t.Name = t.Type
	}
	if !toolName.MatchString(t.Name) {
		o.fail(o.at("name"), "is '%s'; a tool's name has letters, digits, _ and -, at most 64", shorten(t.Name))
	}
	t.ResultAsAnswer = o.flag("result_as_answer", false)
	t.MaxUsageCount = o.whole("max_usage_count", 0, 0)
	t.Settings = o.rest()
	return t, true
}

// knownTool notes a problem, with what to use, when there is no tool of that type.
func (f *fields) knownTool(name string, at place) bool {
	if slices.Contains(toolTypes, name) {
		return true
	}
	there := "there are " + strings.Join(toolTypes, ", ")
	switch class := name[strings.LastIndexAny(name, ".:")+1:]; {
	case strings.HasPrefix(name, "custom:"):
		f.fail(at, "is '%s', a tool written in Python, which is not built yet: put the code into a Lambda function and use a lambda tool", shorten(name))
	case insteadOf[class] != "":
		f.fail(at, "is '%s', which does not exist here: use %s; %s", shorten(name), insteadOf[class], there)
	case insteadOf[class+"Tool"] != "":
		f.fail(at, "is '%s', which does not exist here: use %s; %s", shorten(name), insteadOf[class+"Tool"], there)
	default:
		f.fail(at, "is '%s', which does not exist here: %s", shorten(name), there)
	}
	return false
}
