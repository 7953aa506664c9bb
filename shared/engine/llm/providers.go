package llm

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
)

// Endpoint is where, as whom and by which client a model is asked.
type Endpoint struct {
	// Name is the model string as the definition gave it, for events and errors; Model is what the server knows it as.
	Name, Model string
	BaseURL     string
	// APIKey is "" when there is none to send.
	APIKey string
	// Timeout is for one attempt.
	Timeout time.Duration
	HTTP    *http.Client
	// LooseJSON says that the server knows JSON mode and no JSON Schema.
	LooseJSON bool
}

// Providers is the Opener. It decides whom to ask and with which key; adapters know how.
//
// A base_url in a definition is somebody's wish, not the operator's: it goes through Guarded and never receives an
// operator's key, only the api_key of that same definition, or none.
type Providers struct {
	Settings
	// Operator is the client for URLs of the operator's environment and of known providers, Guarded for those of definitions.
	// Neither may give up on a response header earlier than a model thinks, which is 600 s.
	Operator, Guarded *http.Client
	// OpenAI makes a model that speaks the OpenAI protocol.
	OpenAI func(Endpoint) Model
	// Offline answers to OfflineName.
	Offline Model
}

// provider is a row of the table of those that speak the OpenAI protocol.
type provider struct {
	prefix    string
	aliases   []string
	base      string
	urlEnv    []string
	keyEnv    string
	needsKey  bool
	looseJSON bool
}

var protocol = []provider{
	{prefix: "openai", base: "https://api.openai.com/v1", urlEnv: []string{"OPENAI_BASE_URL", "OPENAI_API_BASE"}, keyEnv: "OPENAI_API_KEY", needsKey: true},
	{prefix: "ollama", aliases: []string{"ollama_chat"}, base: "http://localhost:11434/v1", urlEnv: []string{"OLLAMA_HOST"}, keyEnv: "OLLAMA_API_KEY"},
	{prefix: "hosted_vllm", aliases: []string{"vllm"}, base: "http://localhost:8000/v1", urlEnv: []string{"VLLM_BASE_URL"}, keyEnv: "VLLM_API_KEY"},
	{prefix: "llama_cpp", aliases: []string{"llama.cpp"}, base: "http://localhost:8080/v1", urlEnv: []string{"LLAMA_CPP_BASE_URL"}, keyEnv: "LLAMA_CPP_API_KEY"},
	{prefix: "openrouter", base: "https://openrouter.ai/api/v1", urlEnv: []string{"OPENROUTER_BASE_URL"}, keyEnv: "OPENROUTER_API_KEY", needsKey: true},
	{prefix: "groq", base: "https://api.groq.com/openai/v1", urlEnv: []string{"GROQ_BASE_URL"}, keyEnv: "GROQ_API_KEY", needsKey: true, looseJSON: true},
	{prefix: "deepseek", base: "https://api.deepseek.com/v1", urlEnv: []string{"DEEPSEEK_BASE_URL"}, keyEnv: "DEEPSEEK_API_KEY", needsKey: true, looseJSON: true},
	{prefix: "cerebras", base: "https://api.cerebras.ai/v1", urlEnv: []string{"CEREBRAS_BASE_URL"}, keyEnv: "CEREBRAS_API_KEY", needsKey: true},
	{prefix: "dashscope", base: "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", urlEnv: []string{"DASHSCOPE_BASE_URL"}, keyEnv: "DASHSCOPE_API_KEY", needsKey: true, looseJSON: true},
}

// elsewhere are prefixes of CrewAI whose own protocols are not built.
var elsewhere = []string{"anthropic", "claude", "azure", "azure_openai", "google", "gemini", "bedrock", "aws", "snowflake", "watsonx"}

// maxTimeout is the default too: a step of a run takes no longer.
const maxTimeout = 600 * time.Second

// Open finds the model for a definition's llm setting. It asks nobody: a wrong key shows itself at the first call.
func (p Providers) Open(m crew.Model) (Model, error) {
	base := m.BaseURL
	named := m.Name != ""
	if !named {
		if base != "" {
			return nil, fault.New(fault.Invalid, "The llm has a base_url and no model; name the model too.")
		}
		m.Name = p.NameOf(m)
	}
	prefix, model, found := strings.Cut(m.Name, "/")
	if prefix == "offline" {
		if m.Name != OfflineName || p.Offline == nil {
			return nil, fault.New(fault.Invalid, "The model %s is not known; the one without a network is %s.", m.Name, OfflineName)
		}
		return p.Offline, nil
	}
	row, known := lookup(prefix)
	if !found {
		row, known, model = protocol[0], true, m.Name
		if strings.HasPrefix(m.Name, "claude-") || strings.HasPrefix(m.Name, "gemini-") {
			prefix, known = strings.SplitN(m.Name, "-", 2)[0], false
		}
	}
	e := Endpoint{Name: m.Name, Model: model, Timeout: maxTimeout, LooseJSON: row.looseJSON}
	if m.Timeout > 0 && m.Timeout < maxTimeout.Seconds() {
		e.Timeout = time.Duration(m.Timeout * float64(time.Second))
	}

	switch {
	case base != "":
		// A server of one's own may well know its model as "org/name".
		if !known {
			e.Model = m.Name
		}
		e.BaseURL, e.APIKey, e.HTTP = base, m.APIKey, p.Guarded
	case !known && slices.Contains(elsewhere, prefix):
		return nil, fault.New(fault.Invalid, "The model %s needs the provider %q, which is not built yet; name it through openrouter/…, "+
			"or give a base_url that speaks the OpenAI protocol.", m.Name, prefix)
	case !known:
		return nil, fault.New(fault.Invalid, "The model %s has the provider %q, which is not known; known are %s, or give a base_url.",
			m.Name, prefix, prefixes())
	default:
		access := p.Settings.Providers[row.prefix]
		e.BaseURL, e.APIKey, e.HTTP = access.BaseURL, access.APIKey, p.Operator
		if !named && p.DefaultBaseURL != "" {
			e.BaseURL = p.DefaultBaseURL
		}
		if m.APIKey != "" {
			e.APIKey = m.APIKey
		}
		if e.APIKey == "" && e.BaseURL == "" && row.needsKey {
			return nil, fault.New(fault.Invalid, "The model %s needs a key: set the environment variable %s, or use %s, which needs none.",
				m.Name, row.keyEnv, OfflineName)
		}
		if e.BaseURL == "" {
			e.BaseURL = row.base
		}
	}
	if e.Model == "" {
		return nil, fault.New(fault.Invalid, "The model %q has a provider and no name; write it as provider/name.", m.Name)
	}
	if u, err := url.Parse(e.BaseURL); err != nil || u.Host == "" || u.User != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fault.New(fault.Invalid, "The base_url of the model %s is no http or https address without a user and password.", m.Name)
	}
	if e.HTTP == nil || p.OpenAI == nil {
		return nil, fault.New(fault.Internal, "This Muster was put together without a client for the model %s.", m.Name)
	}
	return p.OpenAI(e), nil
}

func lookup(prefix string) (provider, bool) {
	for _, row := range protocol {
		if row.prefix == prefix || slices.Contains(row.aliases, prefix) {
			return row, true
		}
	}
	return provider{}, false
}

func prefixes() string {
	names := []string{"offline"}
	for _, row := range protocol {
		names = append(names, row.prefix)
	}
	return strings.Join(names, ", ")
}
