package engine

import (
	"time"

	"muster/events"
	"muster/shared/engine/tool"
	"muster/shared/run"
)

// tell emits the events of an action's end, and its note.
func (a *attempt) tell(e *run.Emitter, act action, did *deed, began time.Time, policy string) {
	use := a.use(act)
	started := act.started
	if started == "" {
		started = e.Opened()
	}
	inside, end := run.Scope{Parent: started}, run.Scope{Parent: a.id, Started: started}
	for _, ev := range did.events {
		draft, err := events.NewCustom(ev.Type, ev.Data, a.who)
		if err != nil {
			did.Failure = &tool.Failure{Reason: "tool_reported", Message: err.Error()}
			did.Text += "\n" + err.Error()
			continue
		}
		e.Emit(draft, inside)
	}
	switch {
	case act.repeated, act.refused != nil && act.told == toldAlone:
	case act.refused != nil && act.told == toldSelection:
		e.Emit(events.NewToolSelectionError(a.who, events.ToolSelectionError{ToolUse: use, Error: did.Text}), run.Scope{Parent: a.id})
	case act.refused != nil && act.told == toldInput:
		e.Emit(events.NewToolValidateInputError(a.who, events.ToolValidateInputError{ToolUse: use, Error: did.Text}), run.Scope{Parent: a.id})
	case did.Broke, act.refused != nil && act.told == toldError:
		e.Emit(events.NewToolUsageError(a.who, events.ToolUsageError{ToolUse: use, Error: did.Failure.Message}), end)
	default:
		f := events.ToolUsageFinished{
			ToolUse: use, StartedAt: events.Time{Time: began}, FinishedAt: events.Time{Time: a.k.Now()}, FromCache: did.Cached, Output: did.Text,
		}
		if did.Failure != nil {
			told := toldFailure(*did.Failure)
			f.Failure = &told
		}
		e.Emit(events.NewToolUsageFinished(a.who, f), end)
	}
	if did.Broke && !act.last {
		return // it is tried again; the last try tells
	}
	if did.Failure != nil && policy != "ignore" {
		e.Emit(events.NewToolFailureDetected(a.who, events.ToolFailureDetected{ToolUse: use, Failure: toldFailure(*did.Failure), Policy: policy}),
			run.Scope{Parent: a.id})
	}
	e.Note(run.Note{Prompt: a.Description, Thought: act.thought, Tool: act.name, ToolInput: inputOf(act.arguments), Result: did.Text})
}

// use is what all events of an action say of it.
func (a *attempt) use(act action) events.ToolUse {
	u := events.ToolUse{
		AgentKey: events.Text(a.agent.Key), ToolName: act.name, ToolArgs: act.arguments, RunAttempts: act.tries,
	}
	if act.tool != nil {
		u.ToolClass = events.Text(act.tool.Type)
	}
	return u
}

func (a *attempt) record(act action, f tool.Failure) events.ToolFailureRecord {
	return events.ToolFailureRecord{
		ToolName: act.name, Failure: toldFailure(f), ToolArgs: act.arguments, AgentRole: events.Text(a.who.AgentRole),
		TaskName: events.Text(a.who.TaskName), TaskID: events.Text(a.who.TaskID),
	}
}

func toldFailure(f tool.Failure) events.ToolFailure {
	return events.ToolFailure{Message: f.Message, Reason: f.Reason, Code: events.Text(f.Code), Retryable: f.Retryable, Details: f.Details}
}
