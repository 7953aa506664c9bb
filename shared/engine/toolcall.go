package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"muster/events"
	"muster/shared/engine/llm"
	"muster/shared/engine/tool"
	"muster/shared/id"
	"muster/shared/run"
)

// telling says with which events an action that was refused is told.
type telling int

const (
	toldFinished  telling = iota // started, finished with the failure
	toldError                    // started, error
	toldAlone                    // nothing but tool_failure_detected
	toldSelection                // tool_selection_error
	toldInput                    // tool_validate_input_error
)

// action is the use of a tool that a model wants.
type action struct {
	tool      *armed // nil for one that does not exist
	name      string
	arguments any            // as events show them: an object, or the text that could not be read
	args      map[string]any // as the tool gets them
	thought   string

	// refused says why the tool is not called; told how that is told.
	refused *tool.Failure
	told    telling
	// repeated says that the same was done just before; the model is told to do something else.
	repeated bool
	// tries counts earlier tries; last says that none follows.
	tries int
	last  bool
	// started is the id of tool_usage_started when it was told before, together with those of parallel actions.
	started string
}

// refuse keeps the action from its tool.
func (act *action) refuse(reason string, how telling, format string, args ...any) {
	act.refused = &tool.Failure{Message: fmt.Sprintf(format, args...), Reason: reason}
	act.told = how
}

// deed is what became of an action, as the journal keeps it.
type deed struct {
	Text    string        `json:"text"`
	Failure *tool.Failure `json:"failure,omitempty"`
	// Broke says that the tool gave an error instead of a result.
	Broke bool `json:"broke,omitempty"`
	// Called says that the tool was called; Cached that the result of an earlier call was used.
	Called bool `json:"called,omitempty"`
	Cached bool `json:"cached,omitempty"`
	// Keep says that the same call may be answered with this text.
	Keep bool `json:"keep,omitempty"`

	events []tool.Event
	final  bool // the text is the agent's answer
}

// parallel is how many tools of one answer are used at a time.
const parallel = 8

// actAll does what a model asked for in one answer. The results come back in the order of the request; final is set when
// one of them is the agent's answer.
func (a *attempt) actAll(ctx context.Context, calls []llm.ToolCall, thought string) (results []string, final *string, err error) {
	actions := make([]action, len(calls))
	serial := len(calls) == 1
	for i, c := range calls {
		actions[i] = a.readCall(c, thought)
		if t := actions[i].tool; t != nil && (t.ResultAsAnswer || t.MaxUsageCount > 0) {
			serial = true
		}
	}
	if !serial {
		results, err := a.actBeside(ctx, actions)
		return results, nil, err
	}
	for i, act := range actions {
		did, err := a.act(ctx, a.b, a.nextUse(), act)
		if err != nil {
			return nil, nil, err
		}
		if err := a.settle(actions[i:i+1], []deed{did}); err != nil {
			return nil, nil, err
		}
		if did.final {
			return nil, &did.Text, nil
		}
		results = append(results, did.Text)
	}
	return results, nil, nil
}

func (a *attempt) nextUse() string {
	a.used++
	return fmt.Sprintf("%s/tool/%d", a.key, a.used)
}

// actBeside does actions in parallel, each in a branch of its own. That they start is told together, before the first.
func (a *attempt) actBeside(ctx context.Context, actions []action) ([]string, error) {
	for i := range actions {
		act := &actions[i]
		if act.refused == nil || act.told != toldAlone {
			act.started = a.b.Emit(events.NewToolUsageStarted(a.who, events.ToolUsageStarted{ToolUse: a.use(*act)}), run.Scope{Parent: a.id})
		}
	}
	if err := a.k.halted(); err != nil {
		return nil, err
	}
	if err := a.b.Mark(ctx, fmt.Sprintf("%s/tools/%d", a.key, a.used+1)); err != nil {
		return nil, a.k.halt(err)
	}
	deeds := make([]deed, len(actions))
	errs := make([]error, len(actions))
	room := make(chan struct{}, parallel)
	var all sync.WaitGroup
	for i, act := range actions {
		key := a.nextUse()
		branch := a.b.Child(key)
		all.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			errs[i] = a.k.branch(func() (err error) {
				deeds[i], err = a.act(ctx, branch, key, act)
				return err
			})
		})
	}
	all.Wait()
	if err := worst(errs); err != nil {
		return nil, err
	}
	if err := a.settle(actions, deeds); err != nil {
		return nil, err
	}
	results := make([]string, len(deeds))
	for i, d := range deeds {
		results[i] = d.Text
	}
	return results, nil
}

// readCall finds the tool of a call and reads its arguments.
func (a *attempt) readCall(c llm.ToolCall, thought string) action {
	name, text := c.Function.Name, c.Function.Arguments
	act := action{tool: a.tools.named(name), name: name, arguments: text, thought: thought, last: true}
	if strings.TrimSpace(text) == "" {
		text = "{}"
	}
	if err := json.Unmarshal([]byte(text), &act.args); err != nil || act.args == nil {
		act.refuse("invalid_input", toldAlone, "The arguments of %s are not a JSON object: %s", name, shorten(c.Function.Arguments, 200))
		return act
	}
	act.arguments = act.args
	if act.tool == nil {
		act.refuse("unknown_tool", toldFinished, "Tool not found: there is no tool %q. The tools are: %s.", name, strings.Join(a.tools.names(), ", "))
		return act
	}
	a.check(&act)
	return act
}

// check holds the arguments to the schema of the tool.
func (a *attempt) check(act *action) {
	// The validator wants the values of its own JSON reader.
	value, err := decodeForSchema(act.args)
	problem := ""
	if err != nil {
		problem = err.Error()
	} else {
		problem = complaint(act.tool.schema, value)
	}
	if problem != "" {
		act.refuse("invalid_input", toldError, "The arguments of %s are not right: %s", act.name, problem)
	}
}

// act does one action as a step. Its events are told as the native and the text loop of the original tell them.
func (a *attempt) act(ctx context.Context, b *run.Branch, key string, act action) (deed, error) {
	policy := a.policy()
	here := false // the action was done in this process, and is counted
	silent := act.repeated || act.refused != nil && act.told >= toldAlone
	result, err := a.k.step(ctx, b, run.Step{
		Key: key, Request: map[string]any{"tool": act.name, "arguments": act.arguments},
		Open: func(e *run.Emitter, _ int) {
			if !silent && act.started == "" {
				e.Emit(events.NewToolUsageStarted(a.who, events.ToolUsageStarted{ToolUse: a.use(act)}), run.Scope{Parent: a.id})
			}
		},
		Cut: func(e *run.Emitter, _ int) {
			if !silent && act.started == "" {
				e.Emit(events.NewToolUsageError(a.who, events.ToolUsageError{ToolUse: a.use(act), Error: "The call was interrupted; it is made again."}),
					run.Scope{Parent: a.id, Started: e.Opened()})
			}
		},
		Do: func(ctx context.Context, e *run.Emitter, _ int) (any, error) {
			began := a.k.Now()
			did := a.perform(ctx, key, act)
			if did.Broke && ctx.Err() != nil {
				return nil, ctx.Err()
			}
			here = true
			a.tell(e, act, &did, began, policy)
			return did, nil
		},
	})
	if err != nil {
		return deed{}, err
	}
	var did deed
	if err := json.Unmarshal(result, &did); err != nil {
		return deed{}, fmt.Errorf("read the recorded result of step %s: %w", key, err)
	}
	if !here {
		a.remember(act, did)
	}
	did.final = act.tool != nil && act.tool.ResultAsAnswer && did.Failure == nil && !act.repeated
	return did, nil
}

// settle draws the conclusions from deeds, in their order: which failures the output lists, and whether one ends the crew.
func (a *attempt) settle(actions []action, deeds []deed) error {
	policy := a.policy()
	for i, did := range deeds {
		if did.Failure == nil || policy == "ignore" {
			continue
		}
		a.failures = append(a.failures, a.record(actions[i], *did.Failure))
		if policy == "raise" {
			return failedForGood("The tool %s failed: %s", actions[i].name, did.Failure.Message)
		}
	}
	return nil
}

// perform calls the tool, unless there is a reason not to.
func (a *attempt) perform(ctx context.Context, key string, act action) deed {
	switch {
	case act.repeated:
		return deed{Text: somethingElse}
	case act.refused != nil:
		return deed{Text: act.refused.Message, Failure: act.refused}
	}
	if text, ok := a.cached(act); ok {
		return deed{Text: text, Cached: true}
	}
	if !a.k.mayUse(act.tool) {
		f := &tool.Failure{Reason: "usage_limit", Message: fmt.Sprintf("The tool %s may be used %d times in a run, and was. Go on without it.", act.name, act.tool.MaxUsageCount)}
		return deed{Text: f.Message, Failure: f}
	}
	timed, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	r, err := act.tool.tool.Call(timed, tool.Call{Arguments: act.args, StepID: id.Derive(a.k.RunID, key)})
	if err != nil {
		text := sentence(err)
		if timed.Err() != nil {
			text = fmt.Sprintf("it took longer than %s", stepTime)
		}
		f := &tool.Failure{Reason: "exception", Message: text, Retryable: true}
		return deed{Text: fmt.Sprintf("The tool %s failed: %s", act.name, text), Failure: f, Broke: true, Called: true}
	}
	did := deed{Text: r.Text, Failure: r.Failure, Called: true, events: r.Events}
	if did.Failure != nil && did.Failure.Reason == "" {
		did.Failure.Reason = "tool_reported"
	}
	// The events of a tool belong to the call that made them, so a result with events is no result for another call.
	did.Keep = did.Failure == nil && len(did.events) == 0
	if did.Keep {
		a.keep(act, did.Text)
	}
	return did
}

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

// mayUse counts a use of a tool with a limit, and refuses one too many.
func (k *kickoff) mayUse(t *armed) bool {
	if t.MaxUsageCount <= 0 {
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.uses[t.limit] >= t.MaxUsageCount {
		return false
	}
	k.uses[t.limit]++
	return true
}

// remember takes over from the journal what an owner before this one had in its memory.
func (a *attempt) remember(act action, did deed) {
	if did.Called && act.tool != nil {
		a.k.mayUse(act.tool)
	}
	if did.Keep {
		a.keep(act, did.Text)
	}
}

func (a *attempt) cacheKey(act action) string { return act.tool.limit + " " + compact(act.args) }

func (a *attempt) cached(act action) (string, bool) {
	a.k.mu.Lock()
	defer a.k.mu.Unlock()
	text, ok := a.k.cache[a.cacheKey(act)]
	return text, ok
}

func (a *attempt) keep(act action, text string) {
	if !a.k.Definition.Cache || !a.agent.Cache {
		return
	}
	a.k.mu.Lock()
	defer a.k.mu.Unlock()
	a.k.cache[a.cacheKey(act)] = text
}
