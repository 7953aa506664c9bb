package engine

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ncruces/go-strftime"

	"muster/shared/crew"
	"muster/shared/engine/llm"
)

// The sections of a task's prompt begin with these words, each at the start of a line; the offline model reads them too.
const (
	expectedMarker = "Expected output:"
	schemaMarker   = "Answer with JSON that satisfies this JSON Schema:"
	contextMarker  = "Context:"
	feedbackMarker = "A person said about this:"
)

// divider stands between the outputs that a task is given as context.
const divider = "\n\n----------\n\n"

const markdownRules = "Write the answer in Markdown: headings for its parts, lists for what is countable, tables for what is compared. " +
	"Do not put the whole answer into a code block."

// taskPrompt is what the user says: the task, what is expected, in which form, and what is known.
func taskPrompt(t crew.Task, given string) string {
	parts := []string{t.Description, expectedMarker + " " + t.ExpectedOutput}
	if t.Markdown {
		parts = append(parts, markdownRules)
	}
	if t.OutputJSON != nil {
		parts = append(parts, schemaSection(t.OutputJSON))
	}
	if strings.TrimSpace(given) != "" {
		parts = append(parts, contextMarker+"\n"+given)
	}
	return strings.Join(parts, "\n\n")
}

func schemaSection(schema json.RawMessage) string { return schemaMarker + "\n" + string(schema) }

// afterFeedback is the context of an agent whose answer was not accepted.
func afterFeedback(given, feedback, answer string) string {
	parts := []string{
		"Your previous answer was not accepted: " + feedback + "\nAnswer again so that it is.",
		"Your previous answer was:\n" + answer,
	}
	if strings.TrimSpace(given) != "" {
		parts = append([]string{given}, parts...)
	}
	return strings.Join(parts, divider)
}

// systemPrompt says who the agent is. manual explains the tools to a model that must be told in words; "" is none.
func systemPrompt(a crew.Agent, manual string, now time.Time) string {
	parts := []string{fmt.Sprintf("You are %s.\n%s", a.Role, a.Backstory), "Your goal: " + a.Goal}
	if manual != "" {
		parts = append(parts, manual)
	}
	if a.InjectDate {
		format := a.DateFormat
		if format == "" {
			format = "%Y-%m-%d"
		}
		parts = append(parts, "Current date: "+strftime.Format(format, now.UTC()))
	}
	return strings.Join(parts, "\n\n")
}

// conversation begins what is sent to the model: the system's message and the user's, or, for models and templates that
// want it so, one message of the user with both.
func conversation(a crew.Agent, system, user string) []llm.Message {
	if a.SystemTemplate != "" || a.PromptTemplate != "" || a.ResponseTemplate != "" {
		text := filled(a.SystemTemplate, "{{ .System }}", system) + filled(a.PromptTemplate, "{{ .Prompt }}", user)
		opening, _, _ := strings.Cut(a.ResponseTemplate, "{{ .Response }}")
		return []llm.Message{{Role: llm.User, Content: text + opening}}
	}
	if !a.UseSystemPrompt {
		return []llm.Message{{Role: llm.User, Content: system + "\n\n" + user}}
	}
	return []llm.Message{{Role: llm.System, Content: system}, {Role: llm.User, Content: user}}
}

func filled(template, mark, text string) string {
	if template == "" {
		return text + "\n"
	}
	return strings.ReplaceAll(template, mark, text)
}

// options are the settings of the agent's calls; the end of a response template ends an answer too.
func options(a crew.Agent, stop ...string) crew.ModelOptions {
	o := a.LLM.ModelOptions
	if _, closing, ok := strings.Cut(a.ResponseTemplate, "{{ .Response }}"); ok && strings.TrimSpace(closing) != "" {
		stop = append(stop, strings.TrimSpace(closing))
	}
	o.Stop = append(o.Stop[:len(o.Stop):len(o.Stop)], stop...)
	return o
}

// toolManual explains the tools and the form of an answer to a model that takes no functions.
func toolManual(functions []llm.Function) string {
	var b strings.Builder
	b.WriteString("You can use these tools:\n")
	var names []string
	for _, f := range functions {
		names = append(names, f.Name)
		fmt.Fprintf(&b, "\n%s: %s\nArguments of %s, as JSON Schema: %s\n", f.Name, f.Description, f.Name, f.Parameters)
	}
	fmt.Fprintf(&b, `
To use a tool, answer with these three lines and nothing else:

Thought: what you want to find out
Action: the name of one tool (%s)
Action Input: its arguments, as one JSON object

You are then told the result in a line that begins with "%s". When you know the answer, write:

Thought: why you know it
%s your complete answer`, strings.Join(names, ", "), observationMarker, finalMarker)
	return b.String()
}

const (
	afterObservation = "Read the observation. If it is enough, write \"" + finalMarker + "\" and your complete answer; else take the next action."
	finalInstruction = "You may not use any more tools. Give your complete final answer now, with what you know."
	toolsRefused     = "Tools cannot be called directly here. Use them in the written form that is explained above."
	somethingElse    = "You have just used this tool with the same arguments. The result would be the same, so do something else: " +
		"use other arguments, another tool, or give your final answer."
)

func notUnderstood(problem string) string {
	return "Your answer could not be read: " + problem + ". Keep exactly to the form that is explained above."
}

func guardrailPrompt(rule, raw string, schema json.RawMessage) []llm.Message {
	return []llm.Message{
		{Role: llm.System, Content: "You are " + guardrailAgent + ".\nYou judge whether an answer keeps a rule. You judge only that.\n\nYour goal: a fair verdict, with feedback that helps to repair the answer."},
		{Role: llm.User, Content: "Does this answer keep the rule?\n\nRule:\n" + rule + "\n\nAnswer:\n" + raw + "\n\n" +
			expectedMarker + " a verdict\n\n" + schemaSection(schema)},
	}
}

func convertPrompt(raw, problem string, schema json.RawMessage) []llm.Message {
	return []llm.Message{
		{Role: llm.System, Content: "You turn text into JSON.\nYou add nothing that the text does not say.\n\nYour goal: JSON that satisfies the schema."},
		{Role: llm.User, Content: "Turn the text into JSON. As it is, it cannot be used: " + problem + ".\n\n" + expectedMarker +
			" JSON and nothing else\n\n" + schemaSection(schema) + "\n\n" + contextMarker + "\n" + raw},
	}
}

func summaryPrompt(text string) []llm.Message {
	return []llm.Message{
		{Role: llm.System, Content: "You summarise the course of a piece of work.\n\nYour goal: a short text that keeps every fact, number, name and decision that the work still needs."},
		{Role: llm.User, Content: "Summarise this part of the work.\n\n" + expectedMarker + " a summary\n\n" + contextMarker + "\n" + text},
	}
}
