package crew

import "encoding/json"

// Definition is a crew as data, checked and complete: what Parse makes of the files of a version. Everything that was not
// given has its default. Text still has its {placeholders}.
type Definition struct {
	Name string `json:"name"`
	// Inputs are default values of placeholders.
	Inputs map[string]any `json:"inputs,omitempty"`
	Agents []Agent        `json:"agents"`
	Tasks  []Task         `json:"tasks"`
	// MaxRPM limits model calls per minute over all agents; 0 is no limit.
	MaxRPM int  `json:"max_rpm,omitempty"`
	Cache  bool `json:"cache,omitempty"`
	Stream bool `json:"stream,omitempty"`
	// ToolFailurePolicy is ignore, warn (default) or raise.
	ToolFailurePolicy string `json:"tool_failure_policy"`
	// Knowledge names the files of the version that knowledge_search reads, for every agent.
	Knowledge []string `json:"knowledge,omitempty"`
	// Literal says that braces are text: With leaves the definition as it is.
	Literal bool `json:"-"`
}

// Agent is who does tasks.
type Agent struct {
	// Key is the agent's name in the definition (the YAML key, or the file's name), Role the text people see.
	Key       string   `json:"key"`
	Role      string   `json:"role"`
	Goal      string   `json:"goal"`
	Backstory string   `json:"backstory"`
	LLM       Model    `json:"llm"`
	Tools     []Tool   `json:"tools,omitempty"`
	Knowledge []string `json:"knowledge,omitempty"`
	// MaxIter (25), MaxRetryLimit (2); MaxRPM and MaxExecutionTime (seconds) are 0 for no limit.
	MaxIter          int `json:"max_iter"`
	MaxRetryLimit    int `json:"max_retry_limit"`
	MaxRPM           int `json:"max_rpm,omitempty"`
	MaxExecutionTime int `json:"max_execution_time,omitempty"`
	// UseSystemPrompt is true unless switched off.
	UseSystemPrompt   bool   `json:"use_system_prompt"`
	InjectDate        bool   `json:"inject_date,omitempty"`
	DateFormat        string `json:"date_format,omitempty"` // strftime codes, default %Y-%m-%d
	Cache             bool   `json:"cache"`
	Verbose           bool   `json:"verbose,omitempty"`
	SystemTemplate    string `json:"system_template,omitempty"`
	PromptTemplate    string `json:"prompt_template,omitempty"`
	ResponseTemplate  string `json:"response_template,omitempty"`
	ToolFailurePolicy string `json:"tool_failure_policy,omitempty"`
}

// Task is a piece of work.
type Task struct {
	// Key is the task's name in the definition; Name is its `name`, else the key.
	Key            string `json:"key"`
	Name           string `json:"name"`
	Description    string `json:"description"`
	ExpectedOutput string `json:"expected_output"`
	// Agent is the Key of an agent.
	Agent string `json:"agent"`
	Tools []Tool `json:"tools,omitempty"`
	// Context holds the Keys of earlier tasks when HasContext; without it, the task is given all earlier outputs.
	Context    []string `json:"context,omitempty"`
	HasContext bool     `json:"has_context,omitempty"`
	// Known is what the task is told before the outputs of earlier tasks.
	Known    string `json:"-"`
	Async    bool   `json:"async,omitempty"`
	Markdown bool   `json:"markdown,omitempty"`
	// OutputJSON is a JSON Schema; nil for free text.
	OutputJSON json.RawMessage `json:"output_json,omitempty"`
	// Guardrails are sentences that a model holds the output to, in order.
	Guardrails []string `json:"guardrails,omitempty"`
	// GuardrailMaxRetries is 3 unless given.
	GuardrailMaxRetries int `json:"guardrail_max_retries"`
	// HumanInput asks a person for approval of the output. HumanInputTimeout is how many seconds the question stands, 0 for no
	// limit; HumanInputDefault is the answer then: "approve", "reject", or "" to end the run.
	HumanInput        bool   `json:"human_input,omitempty"`
	HumanInputTimeout int    `json:"human_input_timeout,omitempty"`
	HumanInputDefault string `json:"human_input_default,omitempty"`
	// TriggerContext says whether crewai_trigger_payload is appended to the description; nil: to the first task's.
	TriggerContext    *bool  `json:"trigger_context,omitempty"`
	ToolFailurePolicy string `json:"tool_failure_policy,omitempty"`
}

// Tool names a built-in tool or one of the deployment, with its settings. In a definition it is a name, or an object
// {"type": name, …}.
type Tool struct {
	// Type is http_request, scrape_website, knowledge_search, lambda or emit_event.
	Type string `json:"type"`
	// Name is what the model calls it: the Type unless given.
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// Settings are the remaining fields of the object; which there are is the tool's matter (see engine/tool).
	Settings json.RawMessage `json:"settings,omitempty"`
	// ResultAsAnswer makes the tool's result the agent's final answer.
	ResultAsAnswer bool `json:"result_as_answer,omitempty"`
	// MaxUsageCount limits uses per run; 0 is no limit.
	MaxUsageCount int `json:"max_usage_count,omitempty"`
}

// Agent finds an agent by key.
func (d Definition) Agent(key string) (Agent, bool) {
	for _, a := range d.Agents {
		if a.Key == key {
			return a, true
		}
	}
	return Agent{}, false
}

// Model is what a crew definition says of a model. The zero Model means the default of the environment.
type Model struct {
	Name    string `json:"model,omitempty"`
	BaseURL string `json:"base_url,omitempty"`
	// APIKey belongs to the definition's own BaseURL; an operator's key is never sent there.
	APIKey string `json:"api_key,omitempty"`
	// Timeout in seconds, 0 for the default of 600.
	Timeout float64 `json:"timeout,omitempty"`
	ModelOptions
}

// ModelOptions are the settings of a call; nil and zero values are not sent.
type ModelOptions struct {
	Temperature      *float64 `json:"temperature,omitempty"`
	TopP             *float64 `json:"top_p,omitempty"`
	MaxTokens        *int64   `json:"max_tokens,omitempty"`
	Seed             *int64   `json:"seed,omitempty"`
	Stop             []string `json:"stop,omitempty"`
	FrequencyPenalty *float64 `json:"frequency_penalty,omitempty"`
	PresencePenalty  *float64 `json:"presence_penalty,omitempty"`
	ReasoningEffort  string   `json:"reasoning_effort,omitempty"`
}
