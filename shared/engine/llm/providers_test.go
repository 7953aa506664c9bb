package llm_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/fault"
)

// opened is a model that shows the endpoint it was made of.
type opened struct {
	llm.Model
	endpoint llm.Endpoint
}

var operator, guarded, offline = &http.Client{}, &http.Client{}, &opened{}

func providers(env map[string]string) llm.Providers {
	return llm.Providers{
		Settings: llm.FromEnv(func(name string) string { return env[name] }),
		Operator: operator, Guarded: guarded, Offline: offline,
		OpenAI: func(e llm.Endpoint) llm.Model { return &opened{endpoint: e} },
	}
}

func TestOpenDecidesWhomToAsk(t *testing.T) {
	cases := []struct {
		name string
		env  map[string]string
		llm  crew.Model
		want llm.Endpoint
	}{
		{"an OpenAI key makes gpt-4.1-mini the default", map[string]string{"OPENAI_API_KEY": "k"}, crew.Model{},
			llm.Endpoint{Name: "gpt-4.1-mini", Model: "gpt-4.1-mini", BaseURL: "https://api.openai.com/v1", APIKey: "k", HTTP: operator}},
		{"MODEL is the default before MODEL_NAME", map[string]string{"MODEL": "ollama/llama3.2", "MODEL_NAME": "x"}, crew.Model{},
			llm.Endpoint{Name: "ollama/llama3.2", Model: "llama3.2", BaseURL: "http://localhost:11434/v1", HTTP: operator}},
		{"BASE_URL is for the default model", map[string]string{"OPENAI_MODEL_NAME": "m", "BASE_URL": "http://models/v1", "OPENAI_API_KEY": "k"}, crew.Model{},
			llm.Endpoint{Name: "m", Model: "m", BaseURL: "http://models/v1", APIKey: "k", HTTP: operator}},
		{"and for no other", map[string]string{"BASE_URL": "http://models/v1", "OPENAI_API_KEY": "k"}, crew.Model{Name: "openai/gpt-4.1"},
			llm.Endpoint{Name: "openai/gpt-4.1", Model: "gpt-4.1", BaseURL: "https://api.openai.com/v1", APIKey: "k", HTTP: operator}},
		{"a compatible server needs no key", map[string]string{"OPENAI_BASE_URL": "http://models/v1"}, crew.Model{Name: "openai/m"},
			llm.Endpoint{Name: "openai/m", Model: "m", BaseURL: "http://models/v1", HTTP: operator}},
		{"OLLAMA_HOST may be host and port", map[string]string{"OLLAMA_HOST": "box:11434"}, crew.Model{Name: "ollama_chat/qwen3:8b"},
			llm.Endpoint{Name: "ollama_chat/qwen3:8b", Model: "qwen3:8b", BaseURL: "http://box:11434/v1", HTTP: operator}},
		{"vLLM", map[string]string{"VLLM_BASE_URL": "http://gpu/v1", "VLLM_API_KEY": "k"}, crew.Model{Name: "hosted_vllm/org/m"},
			llm.Endpoint{Name: "hosted_vllm/org/m", Model: "org/m", BaseURL: "http://gpu/v1", APIKey: "k", HTTP: operator}},
		{"llama.cpp", nil, crew.Model{Name: "llama_cpp/any"},
			llm.Endpoint{Name: "llama_cpp/any", Model: "any", BaseURL: "http://localhost:8080/v1", HTTP: operator}},
		{"openrouter keeps the rest of the name", map[string]string{"OPENROUTER_API_KEY": "k"}, crew.Model{Name: "openrouter/anthropic/claude-sonnet"},
			llm.Endpoint{Name: "openrouter/anthropic/claude-sonnet", Model: "anthropic/claude-sonnet", BaseURL: "https://openrouter.ai/api/v1", APIKey: "k", HTTP: operator}},
		{"groq knows no JSON Schema", map[string]string{"GROQ_API_KEY": "k"}, crew.Model{Name: "groq/llama-3.3-70b"},
			llm.Endpoint{Name: "groq/llama-3.3-70b", Model: "llama-3.3-70b", BaseURL: "https://api.groq.com/openai/v1", APIKey: "k", HTTP: operator, LooseJSON: true}},
		{"a definition's base_url is guarded and gets no operator's key", map[string]string{"OPENAI_API_KEY": "k"}, crew.Model{Name: "openai/m", BaseURL: "https://theirs.example/v1"},
			llm.Endpoint{Name: "openai/m", Model: "m", BaseURL: "https://theirs.example/v1", HTTP: guarded}},
		{"but the definition's own", map[string]string{"OPENAI_API_KEY": "k"}, crew.Model{Name: "org/m", BaseURL: "https://theirs.example/v1", APIKey: "theirs"},
			llm.Endpoint{Name: "org/m", Model: "org/m", BaseURL: "https://theirs.example/v1", APIKey: "theirs", HTTP: guarded}},
		{"a definition may bring its key for a known provider", nil, crew.Model{Name: "gpt-4.1", APIKey: "theirs"},
			llm.Endpoint{Name: "gpt-4.1", Model: "gpt-4.1", BaseURL: "https://api.openai.com/v1", APIKey: "theirs", HTTP: operator}},
		{"a timeout is in seconds", nil, crew.Model{Name: "llama_cpp/m", Timeout: 1.5},
			llm.Endpoint{Name: "llama_cpp/m", Model: "m", BaseURL: "http://localhost:8080/v1", HTTP: operator, Timeout: 1500 * time.Millisecond}},
		{"and never above that of a step", nil, crew.Model{Name: "llama_cpp/m", Timeout: 1e300},
			llm.Endpoint{Name: "llama_cpp/m", Model: "m", BaseURL: "http://localhost:8080/v1", HTTP: operator}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m, err := providers(c.env).Open(c.llm)
			if err != nil {
				t.Fatal(err)
			}
			if c.want.Timeout == 0 {
				c.want.Timeout = 10 * time.Minute
			}
			got := m.(*opened).endpoint
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(llm.Endpoint{}, "HTTP")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.HTTP != c.want.HTTP {
				t.Error("it is asked by the wrong client")
			}
		})
	}
}

func TestWithoutAKeyTheDefaultIsOffline(t *testing.T) {
	for _, m := range []crew.Model{{}, {Name: "offline/extract"}} {
		if got, err := providers(nil).Open(m); err != nil || got != llm.Model(offline) {
			t.Errorf("%+v: got %v, %v", m, got, err)
		}
	}
	if got, err := (llm.Providers{Offline: offline}).Open(crew.Model{}); err != nil || got != llm.Model(offline) {
		t.Errorf("zero settings: got %v, %v", got, err)
	}
}

func TestOpenRefusesWithASentence(t *testing.T) {
	cases := []struct {
		name string
		llm  crew.Model
		want string // a part of the sentence
	}{
		{"a missing key is named by its variable", crew.Model{Name: "openai/gpt-4.1"}, "OPENAI_API_KEY"},
		{"for each provider", crew.Model{Name: "groq/x"}, "GROQ_API_KEY"},
		{"a provider with its own protocol is not built yet", crew.Model{Name: "anthropic/claude"}, "not built yet"},
		{"even by the name of its model", crew.Model{Name: "claude-sonnet-4"}, "not built yet"},
		{"an unknown provider", crew.Model{Name: "nobody/x"}, "not known"},
		{"a provider without a model", crew.Model{Name: "ollama/"}, "provider/name"},
		{"another offline model", crew.Model{Name: "offline/write"}, "offline/extract"},
		{"a base_url of another scheme", crew.Model{Name: "x", BaseURL: "file:///etc/passwd"}, "base_url"},
		{"a base_url with a password", crew.Model{Name: "x", BaseURL: "http://a:b@c/v1"}, "base_url"},
		{"a base_url without a model", crew.Model{BaseURL: "http://c/v1"}, "name the model"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := providers(nil).Open(c.llm)
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a sentence with %q", err, c.want)
			}
		})
	}
}
