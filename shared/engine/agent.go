package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"muster/events"
	"muster/shared/engine/llm"
	"muster/shared/run"
)

// attempt is one go of an agent at its task, from agent_execution_started to its answer or error.
type attempt struct {
	*task
	b     *run.Branch
	key   string // "research/1"
	id    string // of agent_execution_started
	began time.Time

	user        string
	messages    []llm.Message
	asked, used int // steps so far
	summarised  bool
	previous    string // the last action of the text loop
}

// attempt sets the agent to the task once.
func (t *task) attempt(ctx context.Context, b *run.Branch, given string) (string, error) {
	t.attempts++
	a := &attempt{task: t, b: b, key: fmt.Sprintf("%s/%d", t.Key, t.attempts), began: b.Now(), user: taskPrompt(t.Task, given)}
	shared := events.AgentExecution{AgentGoal: t.agent.Goal, AgentBackstory: t.agent.Backstory}
	a.id = b.Emit(events.NewAgentExecutionStarted(t.who, events.AgentExecutionStarted{
		AgentExecution: shared, Tools: toldFunctions(t.tools.functions()), TaskPrompt: a.user,
	}), run.Scope{Parent: t.id})
	b.Emit(events.NewAgentLogsStarted(t.who, events.AgentLogsStarted{
		TaskDescription: events.Text(t.Description), Verbose: t.agent.Verbose,
	}), run.Scope{Parent: a.id})

	output, err := a.answer(ctx)
	end := run.Scope{Parent: t.id, Started: a.id}
	var broken *failure
	switch {
	case errors.As(err, &broken):
		b.Emit(events.NewAgentExecutionError(t.who, events.AgentExecutionError{AgentExecution: shared, Error: broken.text}), end)
		return "", err
	case err != nil:
		return "", err
	}
	b.Emit(events.NewAgentExecutionCompleted(t.who, events.AgentExecutionCompleted{AgentExecution: shared, Output: output}), end)
	return output, nil
}

// answer lets the agent find its answer, in the loop that its model is made for.
func (a *attempt) answer(ctx context.Context) (string, error) {
	if len(a.tools) > 0 && (a.textOnly || !a.model.Tools()) {
		return a.inWords(ctx, "")
	}
	output, err := a.natively(ctx)
	if errors.Is(err, errNoTools) {
		a.textOnly = true
		return a.inWords(ctx, toolsRefused)
	}
	return output, err
}

// begin begins the conversation.
func (a *attempt) begin(manual string) {

	a.messages = conversation(a.agent, systemPrompt(a.agent, manual, a.began), a.user)
}

// errNoTools says that the model turned out to refuse functions.
var errNoTools = errors.New("the model takes no functions")

// say asks the agent's model to go on with the conversation, within the agent's limits. A conversation that has become
// too long for the model is summarised once.
func (a *attempt) say(ctx context.Context, call llm.Call, note func(llm.Reply) *run.Note) (llm.Reply, error) {
	for {
		left, err := a.left()
		if err != nil {
			return llm.Reply{}, err
		}
		a.asked++
		call.Messages = a.messages
		got, err := a.k.ask(ctx, a.b, question{
			key: fmt.Sprintf("%s/model/%d", a.key, a.asked), conversation: a.Key, who: a.who, parent: a.id, model: a.model,
			call: call, pace: a.pace, within: left, note: note,
		})
		switch {
		case err != nil:
			return llm.Reply{}, err
		case got.Error == "":
			return got.Reply, nil
		case got.Late:
			return llm.Reply{}, a.late()
		case got.noTools() && len(call.Tools) > 0:
			return llm.Reply{}, errNoTools
		case got.tooLong() && !a.summarised:
			if err := a.summarise(ctx); err != nil {
				return llm.Reply{}, err
			}
		default:
			return llm.Reply{}, failed("%s", got.Error)
		}
	}
}

// left is how much of its max_execution_time the agent has, 0 for no limit. Only pages are its clock, so that a replay
// counts the same.
func (a *attempt) left() (time.Duration, error) {
	if a.agent.MaxExecutionTime <= 0 {
		return 0, nil
	}
	left := time.Duration(a.agent.MaxExecutionTime)*time.Second - a.b.Now().Sub(a.began)
	if left <= 0 {
		return 0, a.late()
	}
	return left, nil
}

func (a *attempt) late() error {
	return failedForGood("The agent %s did not finish within %d seconds (max_execution_time).", a.agent.Role, a.agent.MaxExecutionTime)
}

// lastWord asks for the final answer, without tools, when the agent has used up its rounds.
func (a *attempt) lastWord(ctx context.Context, call llm.Call, note func(llm.Reply) *run.Note) (string, error) {
	a.messages = append(a.messages, llm.Message{Role: llm.User, Content: finalInstruction})
	r, err := a.say(ctx, call, note)
	return r.Text, err
}

// finish tells the final answer.
func (a *attempt) finish(thought, output, text string) (string, error) {
	if strings.TrimSpace(output) == "" {
		return "", failed("The agent %s gave an empty answer.", a.agent.Role)
	}
	a.log(events.AgentFinish{Thought: thought, Output: output, Text: text})
	return output, nil
}

func (a *attempt) log(what events.Answer) {
	a.b.Emit(events.NewAgentLogsExecution(a.who, events.AgentLogsExecution{FormattedAnswer: what, Verbose: a.agent.Verbose}),
		run.Scope{Parent: a.id})
}

// thought is the note of an answer that uses no tool.
func (a *attempt) thought(r llm.Reply) *run.Note {
	if len(r.ToolCalls) > 0 {
		return nil
	}
	return &run.Note{Prompt: a.Description, Thought: strings.TrimSpace(r.Text)}
}

// summaryPart is how much of a long conversation is summarised in one call, in bytes: it fits into small models.
const summaryPart = 20_000

// summarise makes the conversation short: what was said after the system's message becomes a summary.
func (a *attempt) summarise(ctx context.Context) error {
	a.summarised = true
	var system []llm.Message
	rest := a.messages
	if len(rest) > 0 && rest[0].Role == llm.System {
		system, rest = rest[:1:1], rest[1:]
	}
	var whole strings.Builder
	for _, m := range rest {
		fmt.Fprintf(&whole, "%s: %s\n", m.Role, m.Content)
		for _, c := range m.ToolCalls {
			fmt.Fprintf(&whole, "%s uses %s: %s\n", m.Role, c.Function.Name, c.Function.Arguments)
		}
	}
	var summaries []string
	for i, part := range cutText(whole.String(), summaryPart) {
		left, err := a.left()
		if err != nil {
			return err
		}
		got, err := a.k.ask(ctx, a.b, question{
			key: fmt.Sprintf("%s/summary/%d", a.key, i+1), conversation: a.Key + "/summary", who: a.who, parent: a.id, model: a.model,
			call: llm.Call{Messages: summaryPrompt(part), Options: a.agent.LLM.ModelOptions}, pace: a.pace, within: left,
		})
		switch {
		case err != nil:
			return err
		case got.Late:
			return a.late()
		case got.Error != "":
			return failed("The conversation is too long for the model and could not be summarised: %s", got.Error)
		}
		summaries = append(summaries, got.Reply.Text)
	}
	a.messages = append(system, llm.Message{Role: llm.User, Content: "This is a summary of the task and of the work so far:\n\n" +
		strings.Join(summaries, "\n\n") + "\n\nGo on from here."})
	return nil
}

// cutText cuts text into parts of at most size bytes, between lines or characters.
func cutText(text string, size int) []string {
	var parts []string
	for len(text) > size {
		cut := strings.LastIndexByte(text[:size], '\n') + 1
		if cut < size/2 {
			cut = size
			for cut > 0 && text[cut]&0xC0 == 0x80 {
				cut--
			}
		}
		parts, text = append(parts, text[:cut]), text[cut:]
	}
	return append(parts, text)
}
