package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/fault"
	"muster/shared/run"
)

// task is a task of the crew with all that it needs. It is used by one branch at a time.
type task struct {
	k *kickoff
	crew.Task
	place  int
	agent  crew.Agent
	who    events.Identity
	model  llm.Model
	pace   *pace
	tools  toolbox
	schema *jsonschema.Schema // of OutputJSON, or nil

	kept     bool   // its output is from an earlier run
	id       string // of task_started
	context  string
	round    int // how often the output was made: once, and once more after each rejection
	attempts int // how often the agent was set to it
	retries  int // how many of those after an error, in this round
	textOnly bool
	failures []events.ToolFailureRecord
	out      run.TaskOutput
}

func (k *kickoff) open(def crew.Task) (*task, error) {
	agent, ok := k.Definition.Agent(def.Agent)
	if !ok {
		return nil, fault.New(fault.Invalid, "there is no agent %q", def.Agent)
	}
	t := &task{
		k: k, Task: def, place: len(k.tasks), agent: agent, pace: k.paceOf(agent),
		who: events.Identity{
			TaskID: run.TaskID(k.RunID, def.Key), TaskName: def.Name, AgentID: crew.AgentID(k.DeploymentID, agent.Key), AgentRole: agent.Role,
		},
	}
	var err error
	if t.model, err = k.Models.Open(agent.LLM); err != nil {
		return nil, err
	}
	if t.tools, err = k.openTools(def, agent); err != nil {
		return nil, err
	}
	if def.OutputJSON != nil {
		if t.schema, err = compileSchema(def.OutputJSON); err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "its output_json is not a JSON Schema that can be used")
		}
	}
	if earlier, ok := k.Kept[def.Key]; ok {
		t.kept, t.out = true, earlier.Output
		t.out.TaskID = t.who.TaskID
	}
	return t, nil
}

// begin tells that the task starts, in a page of its own: that the task before has ended goes out with it.
func (t *task) begin(ctx context.Context, b *run.Branch, given string) error {
	if err := t.k.halted(); err != nil {
		return err
	}
	t.context = given
	t.id = b.Emit(events.NewTaskStarted(t.who, events.TaskStarted{
		Context: given, TaskDescription: t.Description, ExpectedOutput: t.ExpectedOutput,
	}), run.Scope{Parent: t.k.id})
	b.Progress(func(p *run.Progress) {
		p.Total, p.Current, p.CurrentAgent = len(t.k.Definition.Tasks), t.Name, t.agent.Role
	})
	return b.Mark(ctx, t.Key+"/start")
}

// do does a task that has begun, and tells how it ended.
func (t *task) do(ctx context.Context, b *run.Branch) error {
	scope := run.Scope{Parent: t.k.id, Started: t.id}
	err := t.produce(ctx, b)
	var broken *failure
	switch {
	case errors.As(err, &broken):
		b.Emit(events.NewTaskFailed(t.who, events.TaskFailed{Error: broken.text}), scope)
		return failedForGood("Task %q failed: %s", t.Name, broken.text)
	case err != nil:
		return err
	}
	b.Emit(events.NewTaskCompleted(t.who, events.TaskCompleted{Output: t.told()}), scope)
	b.Finished(t.out)
	b.Progress(func(p *run.Progress) { p.Completed++ })
	return nil
}

// doBeside does a task in a branch of its own, and puts what waits in it at the end.
func (t *task) doBeside(ctx context.Context, b *run.Branch) error {
	err := t.do(ctx, b)
	var broken *failure
	if err != nil && !errors.As(err, &broken) {
		return err
	}
	if stopped := b.Close(ctx); stopped != nil {
		return t.k.halt(stopped)
	}
	return err
}

// produce makes the output; if a person is to approve it, again after each rejection.
func (t *task) produce(ctx context.Context, b *run.Branch) error {
	given, feedback := t.context, ""
	for {
		t.round++
		t.retries = 0
		if err := t.make(ctx, b); err != nil || !t.HumanInput {
			return err
		}
		a, err := t.review(ctx, b)
		if err != nil {
			return err
		}
		feedback = heard(feedback, a.Feedback)
		if a.Approve {
			t.out.Feedback = feedback
			return nil
		}
		t.context = afterFeedback(given, cmp.Or(feedback, "a person rejected it and gave no reason."), t.out.Raw)
	}
}

// make lets the agent work until every guardrail is content, and makes the output.
func (t *task) make(ctx context.Context, b *run.Branch) error {
	raw, err := t.work(ctx, b, t.context)
	if err != nil {
		return err
	}
	for i, rule := range t.Guardrails {
		if raw, err = t.hold(ctx, b, i, rule, raw); err != nil {
			return err
		}
	}
	t.out = run.TaskOutput{
		TaskID: t.who.TaskID, Description: t.Description, Name: t.Name, ExpectedOutput: t.ExpectedOutput,
		Summary: summaryOf(raw), Raw: raw, Agent: t.agent.Role,
	}
	if t.schema != nil {
		t.out.JSON, err = t.convert(ctx, b, raw)
	}
	return err
}

// work sets the agent to the task, again after an error as often as it may.
func (t *task) work(ctx context.Context, b *run.Branch, given string) (string, error) {
	for {
		answer, err := t.attempt(ctx, b, given)
		var broken *failure
		if !errors.As(err, &broken) {
			return answer, err
		}
		if broken.final || t.retries >= t.agent.MaxRetryLimit {
			return "", err
		}
		t.retries++
	}
}

// convertTries is how often a model may try to write an output again as JSON.
const convertTries = 3

// convert finds the JSON that the task asks for in its output, or lets the model write it. An output that cannot be
// converted stays what it is: text without JSON.
func (t *task) convert(ctx context.Context, b *run.Branch, raw string) ([]byte, error) {
	value, problem := readJSON(raw, t.schema)
	for try := 1; value == nil && try <= convertTries; try++ {
		a, err := t.k.ask(ctx, b, question{
			key: t.key("convert/%d", try), conversation: t.Key + "/convert", who: t.who, parent: t.id,
			model: t.model, pace: t.pace,
			call: llm.Call{Messages: convertPrompt(raw, problem, t.OutputJSON), Options: t.agent.LLM.ModelOptions, Schema: t.OutputJSON},
		})
		if err != nil {
			return nil, err
		}
		if a.Error == "" {
			value, problem = readJSON(a.Reply.Text, t.schema)
		}
	}
	return value, nil
}

// key names a step of the round, so that a round after a rejection asks anew.
func (t *task) key(format string, args ...any) string {
	key := t.Key + "/" + fmt.Sprintf(format, args...)
	if t.round > 1 {
		key += fmt.Sprintf("/round/%d", t.round)
	}
	return key
}

// told is the task's output as events show it.
func (t *task) told() events.TaskOutput {
	o := events.TaskOutput{
		Description: t.out.Description, Name: t.out.Name, ExpectedOutput: t.out.ExpectedOutput, Summary: t.out.Summary,
		Raw: t.out.Raw, JSONDict: t.out.JSON, Agent: t.out.Agent, OutputFormat: "raw", ToolFailures: t.failures,
	}
	if t.out.JSON != nil {
		o.OutputFormat = "json"
	}
	return o
}

// policy says what a failing tool of the task means: ignore, warn or raise.
func (t *task) policy() string {
	for _, policy := range []string{t.ToolFailurePolicy, t.agent.ToolFailurePolicy, t.k.Definition.ToolFailurePolicy} {
		if policy = strings.ToLower(policy); policy != "" {
			return policy
		}
	}
	return "warn"
}
