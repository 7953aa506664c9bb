package engine

import (
	"context"
	"fmt"
	"strings"

	"muster/events"
	"muster/shared/engine/llm"
	"muster/shared/run"
)

// inWords is the loop of a model that takes no functions: it writes its actions as text and reads the observations.
// reminder, when not "", is what the user adds to the task.
func (a *attempt) inWords(ctx context.Context, reminder string) (string, error) {
	a.begin(toolManual(a.tools.functions()))
	if reminder != "" {
		a.messages = append(a.messages, llm.Message{Role: llm.User, Content: reminder})
	}
	call := llm.Call{Options: options(a.agent, "\n"+observationMarker)}
	for round := 1; round <= max(a.agent.MaxIter, 1); round++ {
		r, err := a.say(ctx, call, a.thoughtInWords)
		if err != nil {
			return "", err
		}
		m := parseMove(r.Text)
		switch {
		case m.problem != "":
			a.reply(r.Text, notUnderstood(m.problem))
		case m.tool == "" && m.answer == "":
			a.reply(r.Text, notUnderstood("it has no text after \""+finalMarker+"\""))
		case m.tool == "":
			return a.finish(m.thought, m.answer, r.Text)
		default:
			did, err := a.actInWords(ctx, m)
			if err != nil {
				return "", err
			}
			a.log(events.AgentAction{Thought: m.thought, Tool: m.tool, ToolInput: m.input, Text: r.Text, Result: did.Text})
			if did.final {
				return a.finish(m.thought, did.Text, r.Text)
			}
			text, _, _ := strings.Cut(r.Text, "\n"+observationMarker)
			a.reply(strings.TrimSpace(text)+"\n"+observationMarker+" "+did.Text, afterObservation)
		}
	}
	text, err := a.lastWord(ctx, llm.Call{Options: options(a.agent)}, a.thoughtInWords)
	if err != nil {
		return "", err
	}
	if m := parseMove(text); m.answer != "" {
		return a.finish(m.thought, m.answer, text)
	}
	return a.finish("", text, text)
}

// reply adds what the model said and what the user answers.
func (a *attempt) reply(said, answered string) {
	a.messages = append(a.messages, llm.Message{Role: llm.Assistant, Content: said}, llm.Message{Role: llm.User, Content: answered})
}

// thoughtInWords is the note of an answer without an action; an action has its note in the page of the tool.
func (a *attempt) thoughtInWords(r llm.Reply) *run.Note {
	m := parseMove(r.Text)
	if m.tool != "" && m.problem == "" {
		return nil
	}
	thought := m.thought
	if thought == "" {
		thought = strings.TrimSpace(r.Text)
	}
	return &run.Note{Prompt: a.Description, Thought: thought}
}

// toolTries is how often a tool that breaks is tried before the model is told.
const toolTries = 3

// actInWords does one action of the text loop.
func (a *attempt) actInWords(ctx context.Context, m move) (deed, error) {
	act := a.readAction(m)
	this := act.name + " " + compact(act.arguments)
	if act.refused == nil && this == a.previous {
		act.repeated = true
	}
	a.previous = this
	a.used++
	for try := 1; ; try++ {
		act.tries, act.last = try-1, try == toolTries
		did, err := a.act(ctx, a.b, fmt.Sprintf("%s/tool/%d/%d", a.key, a.used, try), act)
		if err != nil {
			return deed{}, err
		}
		if !did.Broke || act.last {
			return did, a.settle([]action{act}, []deed{did})
		}
	}
}
