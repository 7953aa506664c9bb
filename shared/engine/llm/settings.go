package llm

import (
	"cmp"
	"strings"

	"muster/shared/crew"
)

// OfflineName is the model that is no LLM: it picks sentences out of what it is given, without network or key. It is the
// default when the environment names no model and has no OpenAI key.
const OfflineName = "offline/extract"

// Settings is what the operator's environment says of models.
type Settings struct {
	// Default is the model of a definition that names none. "" means OfflineName.
	Default string
	// DefaultBaseURL, when set, is where the Default model is asked instead of its provider's URL.
	DefaultBaseURL string
	// Providers holds what is set for a provider, by the prefix of its models ("openai", "ollama", …).
	Providers map[string]Access
}

// Access is an operator's way to a provider. An empty BaseURL means the provider's own.
type Access struct {
	BaseURL string
	APIKey  string
}

// NameOf gives the name of the model that a definition's llm setting means.
func (s Settings) NameOf(m crew.Model) string { return cmp.Or(m.Name, s.Default, OfflineName) }

// FromEnv reads Settings from the variables that CrewAI users have set already:
//
//	MODEL, MODEL_NAME, OPENAI_MODEL_NAME       the default model; else gpt-4.1-mini with an OpenAI key, else offline/extract
//	BASE_URL                                   where the default model is asked
//	OPENAI_API_KEY                             OPENAI_BASE_URL or OPENAI_API_BASE for a compatible server
//	OLLAMA_HOST                                http://localhost:11434; OLLAMA_API_KEY if it wants one
//	VLLM_BASE_URL                              http://localhost:8000/v1; VLLM_API_KEY if it wants one
//	LLAMA_CPP_BASE_URL                         http://localhost:8080/v1; LLAMA_CPP_API_KEY if it wants one
//	OPENROUTER_API_KEY, GROQ_API_KEY, DEEPSEEK_API_KEY, CEREBRAS_API_KEY, DASHSCOPE_API_KEY
//	                                           and <NAME>_BASE_URL to go elsewhere
func FromEnv(getenv func(string) string) Settings {
	s := Settings{Providers: map[string]Access{}, DefaultBaseURL: getenv("BASE_URL")}
	for _, p := range protocol {
		a := Access{BaseURL: first(getenv, p.urlEnv...), APIKey: getenv(p.keyEnv)}
		if a.BaseURL != "" && p.prefix == "ollama" {
			a.BaseURL = ollamaURL(a.BaseURL)
		}
		if a != (Access{}) {
			s.Providers[p.prefix] = a
		}
	}
	s.Default = first(getenv, "MODEL", "MODEL_NAME", "OPENAI_MODEL_NAME")
	if s.Default == "" {
		s.Default = OfflineName
		if s.Providers["openai"].APIKey != "" {
			s.Default = "gpt-4.1-mini"
		}
	}
	return s
}

func first(getenv func(string) string, names ...string) string {
	for _, name := range names {
		if v := getenv(name); v != "" {
			return v
		}
	}
	return ""
}

// ollamaURL turns OLLAMA_HOST, which is often no more than host:port and has no path, into a base URL.
func ollamaURL(host string) string {
	if !strings.Contains(host, "://") {
		host = "http://" + host
	}
	host = strings.TrimRight(host, "/")
	if !strings.HasSuffix(host, "/v1") {
		host += "/v1"
	}
	return host
}
