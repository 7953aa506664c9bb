// Package engine drives a crew through one run: which task comes next, what an agent is told, which tools it uses, when
// its answer is good enough. It learns everything from outside in steps of a run.Branch, so that a runner that takes over
// calls Run again from the top and comes, step by recorded step, to the same place.
//
//	Run ─▶ kickoff      crew.go      tasks in order, asynchronous ones beside each other
//	       └─ task      task.go      begin, agent, guardrails, output; human.go asks a person what it is worth
//	          └─ attempt agent.go    one go of the agent; native.go and text.go are its two loops
//	             ├─ ask  model.go    one step: a model call
//	             └─ act  toolcall.go one step: a tool call
//
// What an agent says to itself or to a tool is in prompt.go. Three kinds of errors meet here. What goes wrong outside is
// part of a step's result. A *failure ends an attempt, a task or the crew, and is told in events. Every other error
// comes from the branch: the run stops here and goes on elsewhere, or not at all, and Run returns it as it is.
package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/engine/tool"
	"muster/shared/fault"
	"muster/shared/run"
)

// Input is what a run is made of.
type Input struct {
	RunID        string
	DeploymentID string
	// Definition still has its placeholders; Inputs fill them.
	Definition crew.Definition
	Inputs     map[string]any
	// Kept are the outputs of tasks that an earlier run did, by key: these tasks are not done again, and nothing is told of
	// them.
	Kept map[string]run.Kept
	// Files are those of the version, for tools that read knowledge.
	Files  map[string][]byte
	Models llm.Opener
	Tools  tool.Opener
	// Now is the wall clock, which only limits use; nil is time.Now.
	Now func() time.Time
}

// Run does the crew in the branch and says how it ended. The events of the end wait in the branch, for the end page. An
// error is no end: it is one of package run, and the run stops here.
func Run(ctx context.Context, b *run.Branch, in Input) (run.Outcome, error) {
	if in.Now == nil {
		in.Now = time.Now
	}
	k := &kickoff{
		Input: in, pace: newPace(in.Definition.MaxRPM), paces: map[string]*pace{},
		cache: map[string]string{}, uses: map[string]int{},
	}
	name := events.Text(in.Definition.Name)
	k.id = b.Emit(events.NewCrewKickoffStarted(events.Identity{},
		events.CrewKickoffStarted{CrewName: name, Inputs: in.Inputs}), run.Scope{})

	last, err := k.run(ctx, b)
	end := run.Scope{Started: k.id}
	var (
		broken *failure
		crash  *panicked
	)
	switch {
	case errors.As(err, &crash):
		panic(crash)
	case errors.As(err, &broken):
		b.Emit(events.NewCrewKickoffFailed(events.Identity{},
			events.CrewKickoffFailed{CrewName: name, Error: broken.text}), end)
		return run.Outcome{State: run.Failed, Error: broken.text}, nil
	case err != nil:
		return run.Outcome{}, err
	}
	output := last.told()
	b.Emit(events.NewCrewKickoffCompleted(events.Identity{},
		events.CrewKickoffCompleted{CrewName: name, Output: &output, TotalTokens: int(k.tokens.Load())}), end)
	return run.Outcome{State: run.Succeeded, Result: last.out.Raw, JSON: last.out.JSON}, nil
}

// failure is an error of the crew itself: a sentence for people. A final one is not cured by trying again.
type failure struct {
	text  string
	final bool
}

func (f *failure) Error() string { return f.text }

func failed(format string, args ...any) *failure { return &failure{text: fmt.Sprintf(format, args...)} }

func failedForGood(format string, args ...any) *failure {
	return &failure{text: fmt.Sprintf(format, args...), final: true}
}

// sentence is what people may read of an error.
func sentence(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Message
	}
	return err.Error()
}

// kickoff is one run of a crew.
type kickoff struct {
	Input
	id    string // of crew_kickoff_started
	tasks []*task

	pace  *pace            // the crew's
	paces map[string]*pace // of agents with a limit of their own, by key

	tokens atomic.Int64

	mu    sync.Mutex
	why   error             // why the run stops here
	cache map[string]string // results of tools by call
	uses  map[string]int    // of tools with a limit
}

// run does the tasks and gives the one whose output is the crew's.
func (k *kickoff) run(ctx context.Context, b *run.Branch) (*task, error) {
	if err := k.prepare(b); err != nil {
		return nil, err
	}
	if err := k.all(ctx, b); err != nil {
		return nil, err
	}
	for i := len(k.tasks) - 1; i >= 0; i-- {
		if strings.TrimSpace(k.tasks[i].out.Raw) != "" {
			return k.tasks[i], nil
		}
	}
	return nil, failed("No task of the crew gave an output.")
}

// prepare fills in the inputs and opens every model and tool, so that a wrong setting fails the crew before it costs.
func (k *kickoff) prepare(b *run.Branch) error {
	d, err := k.Definition.With(k.Inputs)
	if err != nil {
		return failed("%s", sentence(err))
	}
	k.Definition = d
	for _, def := range d.Tasks {
		t, err := k.open(def)
		if err == nil && !t.kept {
			err = b.MayPay(t.model.Name())
		}
		if err != nil {
			return failed("Task %q cannot begin: %s", def.Name, sentence(err))
		}
		k.tasks = append(k.tasks, t)
	}
	return nil
}

// all does the tasks in order. Asynchronous ones go beside each other; whoever needs them, and at the latest the next
// synchronous task, waits for them in order.
func (k *kickoff) all(ctx context.Context, b *run.Branch) (err error) {
	var beside besides
	for _, t := range k.tasks {
		if t.kept {
			b.Progress(func(p *run.Progress) { p.Completed++ })
			continue
		}
		if !t.Async || beside.has(t.Context) {
			if err := beside.join(); err != nil {
				return err
			}
		}
		if err := t.begin(ctx, b, k.given(t)); err != nil {
			k.halt(err)
			_ = beside.join()
			return err
		}
		if t.Async {
			child := b.Child(t.Key)
			beside.add(t, func() error { return k.branch(func() error { return t.doBeside(ctx, child) }) })
			continue
		}
		if err := t.do(ctx, b); err != nil {
			return err
		}
	}
	return beside.join()
}

// given is the context of a task: the outputs it names, or else those of all tasks before. An asynchronous task that names
// none is given that of the last synchronous task only, because nothing else is sure to be there.
func (k *kickoff) given(t *task) string {
	before := k.tasks[:t.place]
	var from []*task
	switch {
	case t.HasContext:
		for _, key := range t.Context {
			if i := slices.IndexFunc(before, func(b *task) bool { return b.Key == key }); i >= 0 {
				from = append(from, before[i])
			}
		}
	case t.Async:
		for _, b := range before {
			if !b.Async {
				from = []*task{b}
			}
		}
	default:
		from = before
	}
	var outputs []string
	if t.Known != "" {
		outputs = append(outputs, t.Known)
	}
	for _, b := range from {
		if strings.TrimSpace(b.out.Raw) != "" {
			outputs = append(outputs, b.known())
		}
	}
	return strings.Join(outputs, divider)
}

// besides are asynchronous tasks under way.
type besides struct {
	tasks []*task
	ends  []chan error
}

func (s *besides) add(t *task, do func() error) {
	end := make(chan error, 1)
	s.tasks, s.ends = append(s.tasks, t), append(s.ends, end)
	go func() { end <- do() }()
}

func (s *besides) has(keys []string) bool {
	return slices.ContainsFunc(s.tasks, func(t *task) bool { return slices.Contains(keys, t.Key) })
}

// join waits for all of them. That the run stops here goes before the failure of a task, which a replay will find again.
func (s *besides) join() error {
	var errs []error
	for _, end := range s.ends {
		errs = append(errs, <-end)
	}
	*s = besides{}
	return worst(errs)
}

// worst gives the first error that stops the run here, or else the first failure, which no answer of a person will mend, or
// else that a task waits for a person.
func worst(errs []error) error {
	var first, waiting error
	for _, err := range errs {
		var broken *failure
		switch {
		case errors.Is(err, run.ErrWaiting):
			waiting = err
		case err != nil && !errors.As(err, &broken):
			return err
		case first == nil:
			first = err
		}
	}
	if first == nil {
		return waiting
	}
	return first
}

// step does a step unless the run stops here already: a branch that meets its end takes the others along at their next
// boundary, and no call under way is thrown away.
func (k *kickoff) step(ctx context.Context, b *run.Branch, s run.Step) ([]byte, error) {
	if err := k.halted(); err != nil {
		return nil, err
	}
	result, err := b.Step(ctx, s)
	if err != nil {
		return nil, k.halt(err)
	}
	return result, nil
}

// panicked is a panic in a branch of its own, on its way to whoever called Run.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("%v\n%s", p.value, p.stack) }

// branch does what runs in a goroutine of its own. A panic there would end the process, and every other run in it; so it
// stops this run and goes on in Run.
func (k *kickoff) branch(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = k.halt(&panicked{p, debug.Stack()})
		}
	}()
	return do()
}

func (k *kickoff) halted() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.why
}

// halt stops all branches and gives the error that did it first.
func (k *kickoff) halt(err error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.why == nil {
		k.why = err
	}
	return k.why
}

// paceOf gives the limiter of an agent: its own, or the crew's.
func (k *kickoff) paceOf(a crew.Agent) *pace {
	if a.MaxRPM <= 0 {
		return k.pace
	}
	if k.paces[a.Key] == nil {
		k.paces[a.Key] = newPace(a.MaxRPM)
	}
	return k.paces[a.Key]
}
