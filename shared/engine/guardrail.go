package engine

import (
	"context"
	"encoding/json"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/run"
)

// guardrailAgent is the role of whoever judges outputs.
const guardrailAgent = "Guardrail Agent"

// verdict is what a guardrail says of an output.
type verdict struct {
	Valid    bool   `json:"valid"`
	Feedback string `json:"feedback"`
}

var (
	verdictSchema = json.RawMessage(`{"type":"object","properties":{` +
		`"valid":{"type":"boolean","description":"whether the answer keeps the rule"},` +
		`"feedback":{"type":["string","null"],"description":"what to change when it does not"}},` +
		`"required":["valid","feedback"],"additionalProperties":false}`)
	verdictCheck = sync.OnceValue(func() *jsonschema.Schema { return mustCompile(verdictSchema) })
)

// hold holds an output to a guardrail and gives the output that passed. One that does not pass goes back to the agent
// with the feedback.
func (t *task) hold(ctx context.Context, b *run.Branch, place int, rule, raw string) (string, error) {
	for retry := 0; ; retry++ {
		v, err := t.judge(ctx, b, t.key("guardrail/%d/%d", place+1, retry), rule, raw, retry)
		if err != nil {
			return "", err
		}
		if v.Valid {
			return raw, nil
		}
		if retry >= t.GuardrailMaxRetries {
			return "", failedForGood("The output failed its guardrail validation after %d retries: %s", retry, v.Feedback)
		}
		if raw, err = t.work(ctx, b, afterFeedback(t.context, v.Feedback, raw)); err != nil {
			return "", err
		}
	}
}

// judge asks the agent's model whether an output keeps a rule. No verdict counts as a bad one.
func (t *task) judge(ctx context.Context, b *run.Branch, key, rule, raw string, retry int) (verdict, error) {
	kind := events.NamedGuardrail{GuardrailType: "llm", GuardrailName: events.Text(strings.TrimSpace(rule))}
	started := b.Emit(events.NewLLMGuardrailStarted(t.who,
		events.LLMGuardrailStarted{NamedGuardrail: kind, Guardrail: rule, RetryCount: retry}), run.Scope{Parent: t.id})

	who := t.who
	who.AgentID, who.AgentRole = crew.AgentID(t.k.DeploymentID, guardrailAgent), guardrailAgent
	a, err := t.k.ask(ctx, b, question{
		key: key, conversation: t.Key + "/guardrail", who: who, parent: started, model: t.model, pace: t.pace,
		call: llm.Call{Messages: guardrailPrompt(rule, raw, verdictSchema), Options: t.agent.LLM.ModelOptions, Schema: verdictSchema},
	})
	if err != nil {
		return verdict{}, err
	}
	v := readVerdict(a)
	told := events.LLMGuardrailCompleted{NamedGuardrail: kind, Success: v.Valid, RetryCount: retry}
	if v.Valid {
		told.Result = raw
	} else {
		told.Error = events.Text(v.Feedback)
	}
	b.Emit(events.NewLLMGuardrailCompleted(t.who, told), run.Scope{Parent: t.id, Started: started})
	return v, nil
}

func readVerdict(a answer) verdict {
	if a.Error != "" {
		return verdict{Feedback: "The guardrail could not be asked: " + a.Error}
	}
	value, problem := readJSON(a.Reply.Text, verdictCheck())
	if value == nil {
		return verdict{Feedback: "The guardrail gave no verdict: " + problem}
	}
	var v verdict
	if err := json.Unmarshal(value, &v); err != nil {
		return verdict{Feedback: "The guardrail gave no verdict: " + err.Error()}
	}
	if !v.Valid && strings.TrimSpace(v.Feedback) == "" {
		v.Feedback = "The answer does not keep the rule."
	}
	return v
}
