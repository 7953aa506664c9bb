// Package runner does the runs: it handles the messages of the runs queue. A message is only a knock; the runner claims
// the run it names, lets the engine work through it, and ends it, or gives it back when the invocation is nearly over,
// when it waits for a person, or when it may go on only later. The message itself is the run's watchdog: it stays hidden as
// long as the lease is renewed, and wakes another runner when that stops.
package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"muster/shared/crew"
	"muster/shared/engine"
	"muster/shared/engine/llm"
	"muster/shared/engine/tool"
	"muster/shared/fault"
	"muster/shared/queue"
	"muster/shared/run"
)

// Hider hides a received message for a time: the part of queue.Queue that a runner needs.
type Hider interface {
	Hide(ctx context.Context, receipt string, d time.Duration) error
}

// Runner does runs.
type Runner struct {
	Runs   *run.Service
	Crews  *crew.Store
	Queue  Hider
	Models llm.Opener
	Tools  tool.Opener
	// Margin is how much of the invocation must be left to begin another step; 0 means 30 s, or a third of a short
	// invocation. When half of it is left, steps under way are cut off, and repeated in the next invocation.
	Margin time.Duration
	Now    func() time.Time
	Log    *slog.Logger

	room room
}

// watchdog is how much longer than its lease a run's message stays hidden.
const watchdog = 5 * time.Second

// Handle does the run of one message, as far as this invocation goes.
func (r *Runner) Handle(ctx context.Context, m queue.Received) queue.Answer {
	var knock run.RunMessage
	if err := json.Unmarshal([]byte(m.Body), &knock); err != nil || knock.Run == "" {
		return queue.Drop("not a message for the runner")
	}
	log := r.log().With("run", knock.Run)
	margin, bounded := r.margin(ctx)
	o, leave, err := r.claim(ctx, knock.Run, margin)
	defer leave()
	switch {
	case errors.Is(err, run.ErrNothing), errors.Is(err, run.ErrLost):
		return queue.Done()
	case errors.Is(err, run.ErrHeld):
		// Another message of the run is being handled. This one comes back when that owner's lease would be over.
		return queue.RetryIn(r.Runs.Lease() + watchdog)
	case errors.Is(err, errFull):
		return queue.RetryIn(5 * time.Second)
	case fault.Is(err, fault.NotFound):
		return queue.Drop("there is no such run")
	case err != nil:
		log.Error("a run could not be claimed", "error", err)
		return queue.RetryIn(5 * time.Second)
	}
	r.hide(ctx, m, r.Runs.Lease())

	keeping, stop := context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		o.Keep(keeping, func(lease time.Duration) { r.hide(ctx, m, lease) })
	}()
	stayed := func() {}
	if bounded {
		stayed = goInTime(ctx, o, margin)
	}
	root := o.Root()
	out, err := r.work(o, root)
	stayed()
	stop()
	<-kept

	answer, outcome := r.conclude(o, root, out, err)
	log.Info("a run was worked on", "outcome", outcome, "epoch", o.Run().Epoch)
	return answer
}

// Stop makes every run leave this process at once, because it is about to end. What is under way is lost, as if the process
// had died, but the runs are not suspected of it, and nobody has to wait for their leases.
func (r *Runner) Stop() { r.room.close() }

// errFull says that there was no room for the run in this invocation.
var errFull = errors.New("there is no room for the run")

// claim makes this process the owner of the run, beside others or, if need be, alone. leave is never nil.
func (r *Runner) claim(ctx context.Context, runID string, margin time.Duration) (o *run.Owner, leave func(), err error) {
	waiting, done := ctx, func() {}
	if end, ok := ctx.Deadline(); ok {
		waiting, done = context.WithDeadline(ctx, end.Add(-margin))
	}
	defer done()
	out, err := r.room.enter(waiting)
	if err != nil {
		return nil, func() {}, errFull
	}
	o, err = r.Runs.Claim(ctx, runID)
	alone := errors.Is(err, run.ErrAlone)
	if alone {
		out()
		if out, err = r.room.enterAlone(waiting); err != nil {
			return nil, func() {}, errFull
		}
		r.log().Warn("a run that owners died over is worked on alone", "run", runID)
		o, err = r.Runs.ClaimAlone(ctx, runID)
	}
	if err != nil {
		return nil, out, err
	}
	worked := r.room.works(o, alone)
	return o, func() { worked(); out() }, nil
}

// work lets the engine go through the run. A panic is a failure of the run, not of its siblings in this process. What
// fails because the run was stopped or lost meanwhile, or before it came here, fails for that reason.
func (r *Runner) work(o *run.Owner, root *run.Branch) (out run.Outcome, err error) {
	defer func() {
		if cause := context.Cause(o.Work()); cause != nil && errors.Is(err, context.Canceled) {
			err = cause
		}
	}()
	defer func() {
		if p := recover(); p != nil {
			r.log().Error("the engine panicked", "run", o.Run().ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	item := o.Run()
	def, err := r.Crews.Definition(o.Work(), item.VersionID)
	if err != nil {
		return out, fmt.Errorf("read the definition of version %s: %w", item.VersionID, err)
	}
	files, err := r.Crews.Files(o.Work(), item.VersionID)
	if err != nil {
		return out, fmt.Errorf("read the files of version %s: %w", item.VersionID, err)
	}
	inputs := o.Request().Inputs
	if o.Request().Agent != "" {
		if def, err = single(def, o.Request()); err != nil {
			return out, err
		}
		inputs = map[string]any{run.Message: inputs[run.Message]}
	}
	return engine.Run(o.Work(), root, engine.Input{
		RunID: item.ID, DeploymentID: item.DeploymentID, Definition: def, Inputs: inputs, Kept: o.Request().Kept, Files: files,
		Models: r.Models, Tools: r.Tools, Now: r.Now,
	})
}

var errPanic = errors.New("the engine panicked")

// conclude turns how the engine left the run into what becomes of it and of its message.
func (r *Runner) conclude(o *run.Owner, root *run.Branch, out run.Outcome, err error) (queue.Answer, string) {
	var later *run.Later
	var diverged *run.Diverged
	var reached *run.Reached
	var long *run.TooLong
	var cannot *impossible
	switch {
	case err == nil:
		err = o.End(out, root)
		return r.settled(err), string(out.State)
	case errors.Is(err, run.ErrCanceled):
		return r.settled(o.Fail(run.Outcome{State: run.Canceled, Error: run.Stopped})), "canceled"
	case errors.As(err, &reached):
		return r.settled(o.Exceed(reached)), reached.Limit
	case errors.As(err, &diverged):
		return r.settled(o.Fail(run.Outcome{State: run.Failed, Error: diverged.Error()})), "diverged"
	case errors.As(err, &long):
		return r.settled(o.Fail(run.Outcome{State: run.Failed, Error: long.Error()})), "too long"
	case errors.As(err, &cannot):
		return r.settled(o.Fail(run.Outcome{State: run.Failed, Error: cannot.why})), "impossible"
	case errors.Is(err, errPanic):
		return r.settled(o.Fail(run.Outcome{State: run.Failed, Error: "The run failed because of a fault in Muster itself. It is logged."})), "panicked"
	case errors.Is(err, run.ErrWaiting):
		waits, err := o.Wait()
		if err == nil && !waits {
			return r.handBack(o, time.Time{}), "answered"
		}
		return r.settled(err), "waiting"
	case errors.As(err, &later):
		return r.handBack(o, later.At), "later"
	case errors.Is(err, run.ErrYield):
		return r.handBack(o, time.Time{}), "yielded"
	case errors.Is(err, run.ErrLost):
		return queue.Done(), "lost"
	}
	r.log().Error("a run could not go on here", "run", o.Run().ID, "error", err)
	return r.handBack(o, r.now().Add(5*time.Second)), "interrupted"
}

// settled answers for a run that needs nobody now. When that could not be written, the message comes back for it.
func (r *Runner) settled(err error) queue.Answer {
	switch {
	case err == nil, errors.Is(err, run.ErrLost):
		return queue.Done()
	}
	r.log().Error("a run could not be concluded; it will be taken over", "error", err)
	return queue.RetryIn(r.Runs.Lease() + watchdog)
}

// handBack releases the run and leaves the message for the next invocation, at a time or at once.
func (r *Runner) handBack(o *run.Owner, at time.Time) queue.Answer {
	if err := o.Release(at); err != nil {
		return r.settled(err)
	}
	if at.IsZero() {
		return queue.RetryIn(0)
	}
	return queue.RetryIn(max(0, min(at.Sub(r.now()), 12*time.Hour)))
}

// margin gives how much of the invocation is kept for its end; bounded is false when it has none.
func (r *Runner) margin(ctx context.Context) (margin time.Duration, bounded bool) {
	end, bounded := ctx.Deadline()
	if !bounded || r.Margin > 0 {
		return r.Margin, bounded
	}
	return min(30*time.Second, time.Until(end)/3), true
}

// goInTime makes the run leave when the invocation is nearly over: first at a boundary, then where it is. The returned
// function calls that off.
func goInTime(ctx context.Context, o *run.Owner, margin time.Duration) (stayed func()) {
	end, _ := ctx.Deadline()
	yield := time.AfterFunc(time.Until(end)-margin, o.Yield)
	cut := time.AfterFunc(time.Until(end)-margin/2, o.Cut)
	return func() { yield.Stop(); cut.Stop() }
}

func (r *Runner) hide(ctx context.Context, m queue.Received, lease time.Duration) {
	if err := r.Queue.Hide(ctx, m.Receipt, lease+watchdog); err != nil && !fault.Is(err, fault.NotFound) {
		r.log().Warn("the message of a run could not be hidden; it may be handled twice", "error", err)
	}
}

func (r *Runner) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

func (r *Runner) log() *slog.Logger {
	if r.Log != nil {
		return r.Log
	}
	return slog.Default()
}
