package engine

import (
	"context"

	"muster/shared/engine/llm"
)

// natively is the loop of a model that takes functions: it calls tools until it answers in words. Without tools it is one
// plain call.
func (a *attempt) natively(ctx context.Context) (string, error) {
	a.begin("")
	plain := llm.Call{Options: options(a.agent), Schema: a.OutputJSON}
	withTools := plain
	if withTools.Tools = a.tools.functions(); withTools.Tools != nil {
		withTools.Schema = nil // a form for the answer would keep the model from calling tools
	}
	for round := 1; round <= max(a.agent.MaxIter, 1); round++ {
		r, err := a.say(ctx, withTools, a.thought)
		if err != nil {
			return "", err
		}
		if len(r.ToolCalls) == 0 {
			return a.finish(r.Text, r.Text, r.Text)
		}
		a.messages = append(a.messages, llm.Message{Role: llm.Assistant, Content: r.Text, ToolCalls: r.ToolCalls})
		results, final, err := a.actAll(ctx, r.ToolCalls, r.Text)
		if err != nil {
			return "", err
		}
		if final != nil {
			return a.finish(r.Text, *final, *final)
		}
		for i, c := range r.ToolCalls {
			a.messages = append(a.messages, llm.Message{Role: llm.Tool, Content: results[i], ToolCallID: c.ID, Name: c.Function.Name})
		}
	}
	text, err := a.lastWord(ctx, plain, a.thought)
	if err != nil {
		return "", err
	}
	return a.finish(text, text, text)
}
