// Package openai asks models that speak the OpenAI protocol (chat completions): OpenAI itself, Ollama, vLLM, llama.cpp,
// OpenRouter, Groq and whoever else does. It uses the official SDK with the SDK's own two retries, and reads nothing from
// the environment. What goes wrong is told in a sentence that holds no secret.
package openai

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/shared"

	"muster/shared/engine/llm"
)

// maxAnswer is the number of bytes of an answer that are read, far above what a model writes in one go.
const maxAnswer = 16 << 20

// Model is one model at one endpoint.
type Model struct {
	endpoint llm.Endpoint
	options  []option.RequestOption
}

// New makes a model of an endpoint; it fits llm.Providers.OpenAI.
func New(e llm.Endpoint) llm.Model {
	m := &Model{endpoint: e, options: []option.RequestOption{
		option.WithBaseURL(e.BaseURL),
		option.WithHTTPClient(e.HTTP),
		option.WithRequestTimeout(e.Timeout),
		option.WithMaxRetries(2),
	}}
	if e.APIKey != "" {
		m.options = append(m.options, option.WithAPIKey(e.APIKey))
	}
	return m
}

// Name is the model string as the definition gave it.
func (m *Model) Name() string { return m.endpoint.Name }

// Tools says whether the model takes functions. It goes by the name, so that a replay finds the same answer.
func (m *Model) Tools() bool { return takesTools(m.endpoint.Model) }

// withoutTools are families of chat models whose servers refuse functions; each stands for itself and for what follows
// after a colon, which is how Ollama writes sizes.
var withoutTools = []string{
	"o1-mini", "o1-preview", "codellama", "deepseek-r1", "gemma", "gemma2", "gemma3", "llama2", "llama3", "orca-mini", "phi", "phi3", "tinyllama", "vicuna",
}

func takesTools(model string) bool {
	family, _, _ := strings.Cut(model, ":")
	for _, name := range withoutTools {
		if family == name {
			return false
		}
	}
	return true
}

// Call asks.
func (m *Model) Call(ctx context.Context, c llm.Call) (llm.Reply, error) {
	var tries attempts
	// The service is made without a client, because a client of the SDK would read the operator's key, organisation and
	// headers from the environment and send them to whatever base_url a definition names.
	service := openai.NewChatCompletionService(append(m.options[:len(m.options):len(m.options)], option.WithMiddleware(tries.watch))...)
	params := m.params(c)
	var (
		reply llm.Reply
		err   error
	)
	if c.Chunk != nil {
		params.StreamOptions.IncludeUsage = openai.Bool(true)
		var all whole
		reply, err = readStream(service.NewStreaming(ctx, params, option.WithMiddleware(all.watch)), c.Chunk)
		if all.body != nil {
			reply, err = all.read(c.Chunk)
		}
	} else {
		var answer *openai.ChatCompletion
		if answer, err = service.New(ctx, params); err == nil {
			reply, err = read(answer)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return llm.Reply{}, ctx.Err()
		}
		return llm.Reply{}, m.explain(err, tries)
	}
	return reply, nil
}

func (m *Model) params(c llm.Call) openai.ChatCompletionNewParams {
	o := c.Options
	p := openai.ChatCompletionNewParams{
		Model:            m.endpoint.Model,
		Temperature:      optional(o.Temperature),
		TopP:             optional(o.TopP),
		Seed:             optional(o.Seed),
		FrequencyPenalty: optional(o.FrequencyPenalty),
		PresencePenalty:  optional(o.PresencePenalty),
		ReasoningEffort:  shared.ReasoningEffort(o.ReasoningEffort),
	}
	if reasons(m.endpoint.Model) {
		p.MaxCompletionTokens = optional(o.MaxTokens)
	} else {
		p.MaxTokens = optional(o.MaxTokens)
	}
	if len(o.Stop) > 0 {
		p.Stop.OfStringArray = o.Stop
	}
	for _, message := range c.Messages {
		p.Messages = append(p.Messages, wireMessage(message))
	}
	for _, f := range c.Tools {
		p.Tools = append(p.Tools, wireTool(f))
	}
	if c.Schema != nil {
		p.ResponseFormat = m.format(c.Schema)
	}
	return p
}

func optional[T comparable](v *T) param.Opt[T] {
	if v == nil {
		return param.Opt[T]{}
	}
	return param.NewOpt(*v)
}

// reasons tells the models of OpenAI that refuse max_tokens and want max_completion_tokens; other servers know the first.
func reasons(model string) bool {
	for _, family := range []string{"o1", "o3", "o4", "gpt-5"} {
		if model == family || strings.HasPrefix(model, family+"-") || strings.HasPrefix(model, family+".") {
			return true
		}
	}
	return false
}

func wireMessage(m llm.Message) openai.ChatCompletionMessageParamUnion {
	switch m.Role {
	case llm.System:
		return openai.SystemMessage(m.Content)
	case llm.Tool:
		return openai.ToolMessage(m.Content, m.ToolCallID)
	case llm.Assistant:
		a := openai.ChatCompletionAssistantMessageParam{}
		if m.Content != "" || len(m.ToolCalls) == 0 {
			a.Content.OfString = param.NewOpt(m.Content)
		}
		for _, c := range m.ToolCalls {
			a.ToolCalls = append(a.ToolCalls, openai.ChatCompletionMessageToolCallUnionParam{
				OfFunction: &openai.ChatCompletionMessageFunctionToolCallParam{
					ID:       c.ID,
					Function: openai.ChatCompletionMessageFunctionToolCallFunctionParam{Name: c.Function.Name, Arguments: c.Function.Arguments},
				},
			})
		}
		return openai.ChatCompletionMessageParamUnion{OfAssistant: &a}
	default:
		return openai.UserMessage(m.Content)
	}
}

func wireTool(f llm.Function) openai.ChatCompletionToolUnionParam {
	d := shared.FunctionDefinitionParam{Name: f.Name}
	if f.Description != "" {
		d.Description = param.NewOpt(f.Description)
	}
	schema, strict := strictSchema(f.Parameters, optionalIsNull)
	d.Parameters, _ = schema.(map[string]any)
	if strict {
		d.Strict = param.NewOpt(true)
	}
	return openai.ChatCompletionFunctionTool(d)
}

func (m *Model) format(schema json.RawMessage) openai.ChatCompletionNewParamsResponseFormatUnion {
	if m.endpoint.LooseJSON {
		return openai.ChatCompletionNewParamsResponseFormatUnion{OfJSONObject: &shared.ResponseFormatJSONObjectParam{}}
	}
	tight, strict := strictSchema(schema, optionalIsRequired)
	s := shared.ResponseFormatJSONSchemaJSONSchemaParam{Name: "answer", Schema: tight}
	if strict {
		s.Strict = param.NewOpt(true)
	}
	return openai.ChatCompletionNewParamsResponseFormatUnion{OfJSONSchema: &shared.ResponseFormatJSONSchemaParam{JSONSchema: s}}
}
