package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"muster/events"
	"muster/shared/engine/llm"
	"muster/shared/engine/tool"
	"muster/shared/id"
	"muster/shared/run"
)

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
			if did.Called {
				e.UseTool()
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
