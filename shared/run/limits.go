package run

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/fault"
)

// The names of the limits of a run.
const (
	maxCost     = "max_cost_usd"
	maxTokens   = "max_tokens"
	maxDuration = "max_duration_seconds"
	maxSteps    = "max_steps"
)

// Reached says that a run has reached one of its limits, or cannot be held to it, and ends.
type Reached struct {
	Limit      string
	Value, Max float64
	// Silent is a model that did not say how many tokens it used: Value leaves those out. "" when all is counted.
	Silent string
}

var units = map[string]string{maxCost: " US dollars of models", maxTokens: " tokens", maxDuration: " seconds", maxSteps: " steps"}

func (r *Reached) Error() string {
	if r.Silent != "" {
		return fmt.Sprintf("The run cannot be held to its limit %s of %s%s: the model %s does not say how many tokens it uses.", r.Limit, number(r.Max), units[r.Limit], r.Silent)
	}
	return fmt.Sprintf("The run reached its limit %s: it has used %s of %s%s.", r.Limit, number(r.Value), number(r.Max), units[r.Limit])
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// outcome is how the run ends.
func (r *Reached) outcome() Outcome {
	state := Failed
	if r.Limit == maxDuration {
		state = TimedOut
	}
	return Outcome{State: state, Error: r.Error()}
}

// Exceed ends a run that has reached a limit.
func (o *Owner) Exceed(r *Reached) error {
	out := r.outcome()
	if r.Limit == maxDuration && o.req.Agent != "" {
		// Who has one agent do something waits for no more than its answer: one that is too late has failed.
		out = Outcome{State: Failed, Error: "timed out after " + spoken(time.Duration(r.Max)*time.Second)}
	}
	return o.Fail(out, events.NewRunBudgetReached(events.Identity{}, events.RunBudgetReached{Limit: r.Limit, Value: r.Value, Max: r.Max}))
}

// spoken writes a duration of whole seconds in words.
func spoken(d time.Duration) string {
	n, unit := int(d/time.Second), "second"
	if d%time.Minute == 0 {
		n, unit = int(d/time.Minute), "minute"
	}
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// within fails with a *Reached when no further step may begin. It is asked before steps that are not recorded, and goes by
// what is: the totals, and the time since the run began without what it waited for people. So whoever takes over comes
// to the same end.
func (o *Owner) within() error {
	l := o.req.Limits
	if l == (crew.Limits{}) {
		return nil
	}
	t := o.totals()
	for _, c := range []struct {
		limit      string
		value, max float64
	}{
		{maxCost, t.Models().CostUSD, l.MaxCostUSD},
		{maxTokens, float64(t.Usage.TotalTokens), float64(l.MaxTokens)},
		{maxSteps, float64(t.Steps), float64(l.MaxSteps)},
		{maxDuration, seconds(o.worked(t)), float64(l.MaxDurationSeconds)},
	} {
		if c.max > 0 && c.value >= c.max {
			return &Reached{Limit: c.limit, Value: c.value, Max: c.max}
		}
	}
	return unheld(l, t)
}

// unheld fails with a *Reached when a limit wants to know what a model has not told.
func unheld(l crew.Limits, t Totals) error {
	for _, model := range slices.Sorted(maps.Keys(t.ByModel)) {
		switch m := t.ByModel[model]; {
		case l.MaxTokens > 0 && m.Uncounted > 0:
			return &Reached{maxTokens, float64(t.Usage.TotalTokens), float64(l.MaxTokens), model}
		case l.MaxCostUSD > 0 && m.Uncounted > 0 && m.Unpriced > 0:
			return &Reached{maxCost, t.Models().CostUSD, l.MaxCostUSD, model}
		}
	}
	return nil
}

// totals gives those of the newest page.
func (o *Owner) totals() Totals {
	o.appender <- struct{}{}
	defer func() { <-o.appender }()
	return o.newest.Totals
}

// worked is how long the run has been under way, without what it waited for people.
func (o *Owner) worked(t Totals) time.Duration {
	o.item.Lock()
	defer o.item.Unlock()
	return o.s.now().Sub(o.run.StartedAt) - time.Duration(t.WaitedMS)*time.Millisecond
}

// inTime ends a context when the run's time is up, with a *Reached as its cause.
func (o *Owner) inTime(ctx context.Context) (context.Context, context.CancelFunc) {
	l := o.req.Limits.MaxDurationSeconds
	if l == 0 {
		return ctx, func() {}
	}
	left := time.Duration(min(l, longestRun))*time.Second - o.worked(o.totals())
	return context.WithTimeoutCause(ctx, left, &Reached{Limit: maxDuration, Value: float64(l), Max: float64(l)})
}

// longestRun is more seconds than any run lasts, and no more than a time.Duration holds.
const longestRun = 100 * 365 * 24 * 60 * 60

// outOfTime gives the *Reached that ended a context of inTime, if one did.
func outOfTime(ctx context.Context) error {
	var r *Reached
	if ctx.Err() != nil && errors.As(context.Cause(ctx), &r) {
		return r
	}
	return nil
}

// MayPay refuses a model that has no price in a run whose cost is limited, as fault.Invalid: a limit that cannot be
// counted would bind nobody.
func (b *Branch) MayPay(model string) error {
	if b.o.req.Limits.MaxCostUSD == 0 {
		return nil
	}
	if _, ok := b.o.req.Prices.Of(model); ok {
		return nil
	}
	return fault.New(fault.Invalid, "the run has a limit of cost (%s), and the model %s has no price; give it one with PATCH /v1/deployments/{id} {\"prices\": …}, or leave the limit out.", maxCost, model)
}
