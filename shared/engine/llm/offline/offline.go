// Package offline is the model for those who have no key yet. It is no language model: it answers with the sentences of its
// input (task, context, what its tools found) that matter most, word for word, and it never makes anything up. The same
// conversation always has the same answer, and nothing leaves the process.
//
// When it is given a tool that searches knowledge it asks that tool once, with the words that say most about the task. When
// JSON is asked for, it fills the schema with values and sentences that it finds. Asked whether an answer keeps a rule, it
// says yes to everything but nothing, for it cannot judge.
package offline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"muster/shared/engine/llm"
)

// Note is the sentence that tells people what they are reading.
const Note = llm.OfflineName + " is not a language model: it answers with the sentences of its input that matter most. " +
	"Set OPENAI_API_KEY or MODEL to use a real one."

// Model is the offline model. The zero value is ready for use.
type Model struct{}

// New gives the model.
func New() Model { return Model{} }

// Name is llm.OfflineName.
func (Model) Name() string { return llm.OfflineName }

// Tools is true: it uses what searches knowledge and leaves the rest alone.
func (Model) Tools() bool { return true }

// Call answers. Usage counts words and not tokens: there are none.
func (Model) Call(ctx context.Context, c llm.Call) (llm.Reply, error) {
	if err := ctx.Err(); err != nil {
		return llm.Reply{}, err
	}
	p := readPrompt(c)
	r := llm.Reply{FinishReason: "stop", ResponseID: "offline-" + digest(c.Messages)}
	if name, ok := searchTool(c); ok {
		if query := p.query(); query != "" {
			arguments, err := json.Marshal(map[string]string{"query": query})
			if err != nil {
				return llm.Reply{}, fmt.Errorf("encode the query: %w", err)
			}
			r.FinishReason = "tool_calls"
			r.ToolCalls = []llm.ToolCall{{ID: "call_" + digest(c.Messages), Type: "function",
				Function: llm.FunctionCall{Name: name, Arguments: string(arguments)}}}
		}
	}
	if r.ToolCalls == nil {
		r.Text = p.answer()
	}
	r.Usage = count(c, r)
	stream(c, r)
	return r, nil
}

// answer gives the text of the answer, in the form that was asked for.
func (p prompt) answer() string {
	switch {
	case p.schema != nil && isVerdict(p.schema):
		verdict, _ := json.Marshal(map[string]any{"valid": strings.TrimSpace(p.judged) != "", "feedback": ""})
		return string(verdict)
	case p.schema != nil:
		return fillSchema(p)
	}
	return p.brief()
}

// searchTool finds the tool that searches knowledge, unless it was asked before.
func searchTool(c llm.Call) (string, bool) {
	asked := map[string]bool{}
	for _, m := range c.Messages {
		for _, call := range m.ToolCalls {
			asked[call.Function.Name] = true
		}
	}
	for _, f := range c.Tools {
		if !asked[f.Name] && searches(f) {
			return f.Name, true
		}
	}
	return "", false
}

var searchWords = regexp.MustCompile(`(?i)knowledge|search|research|look(s|ing)? up`)

// searches tells a search by its shape, for its name is the definition's choice: it needs a text "query" and nothing else.
func searches(f llm.Function) bool {
	var schema struct {
		Properties map[string]struct {
			Type any `json:"type"`
		} `json:"properties"`
		Required             []string `json:"required"`
		AdditionalProperties any      `json:"additionalProperties"`
	}
	if json.Unmarshal(f.Parameters, &schema) != nil || schema.Properties["query"].Type != "string" {
		return false
	}
	for _, name := range schema.Required {
		if name != "query" {
			return false
		}
	}
	return strings.Contains(strings.ToLower(f.Description), "knowledge") || schema.AdditionalProperties == false && searchWords.MatchString(f.Name+" "+f.Description)
}

func digest(messages []llm.Message) string {
	h := sha256.New()
	for _, m := range messages {
		fmt.Fprintf(h, "%s\x00%s\x00%s\x00", m.Role, m.Content, m.ToolCallID)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

func count(c llm.Call, r llm.Reply) llm.Usage {
	var u llm.Usage
	for _, m := range c.Messages {
		u.PromptTokens += len(strings.Fields(m.Content))
	}
	u.CompletionTokens = len(strings.Fields(r.Text))
	for _, call := range r.ToolCalls {
		u.CompletionTokens += len(strings.Fields(call.Function.Arguments))
	}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	return u
}

// stream passes the answer on word by word.
func stream(c llm.Call, r llm.Reply) {
	if c.Chunk == nil {
		return
	}
	for _, word := range strings.SplitAfter(r.Text, " ") {
		if word != "" {
			c.Chunk(llm.Chunk{Text: word, ResponseID: r.ResponseID})
		}
	}
	for i, call := range r.ToolCalls {
		c.Chunk(llm.Chunk{ToolCall: &call, Index: i, ResponseID: r.ResponseID})
	}
}
