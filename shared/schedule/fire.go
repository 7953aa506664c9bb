package schedule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/record"
	"muster/shared/run"
)

const (
	// onTime is how late a firing may be: the sweep of AWS comes once a minute, and may come a minute late.
	onTime = 2 * time.Minute
	// mostMissed is how many missed firings are made up for.
	mostMissed = 100
)

// Origin is that of the runs that schedules start.
const Origin = "schedule"

// Wake fires a schedule that is due, given its record's key: it starts what is to be started, and moves on to the next firing.
func (s *Schedules) Wake(ctx context.Context, k record.Key) error {
	deploymentID := strings.TrimPrefix(k.Part, Partition)
	for {
		c, err := s.Get(ctx, deploymentID, k.Sort)
		if fault.Is(err, fault.NotFound) {
			return nil // deleted: the index is behind
		}
		if err != nil {
			return err
		}
		if c.Next.IsZero() || c.Next.After(s.now()) {
			return nil
		}
		if err := s.fire(ctx, c); err != nil {
			return fmt.Errorf("fire schedule %s: %w", c.ID, err)
		}
	}
}

// fire deals with the next firing of a schedule: it decides whether that has a run, starts it, and moves on.
func (s *Schedules) fire(ctx context.Context, c Schedule) error {
	p, err := c.plan()
	if err != nil {
		return err
	}
	now := s.now()
	f := Firing{At: c.Next, FiredAt: now}
	next := p.next(c.Next)
	if late := now.Add(-onTime); c.Next.Before(late) {
		if r, found, err := s.began(ctx, c); err != nil {
			return err
		} else if found {
			f.Run = r.ID
			return s.moveOn(ctx, c, f, next)
		}
		missed, after := p.newest(c.Next, late)
		if c.CatchUp == All {
			if f.At = missed[0]; f.At.After(c.Next) {
				f.Reason = fmt.Sprintf("What was missed before it was dropped: at most %d firings are made up for.", mostMissed)
			}
			next = p.next(f.At)
		} else {
			last := len(missed) - 1
			f.At, f.Missed, next = missed[last], last, after
			// One that is on time stands for those that were missed.
			if c.CatchUp == Skip || !after.IsZero() && !after.After(now) {
				f.Reason = "It was missed: nothing swept in time."
				return s.moveOn(ctx, c, f, next)
			}
		}
	}
	r, err := s.start(ctx, c, run.StartRequest{IdempotencyKey: firingKey(c, f.At), KeyLife: keyLife})
	if f.Run = r.ID; err != nil {
		if fault.KindOf(err) == fault.Internal {
			return err // nobody knows how it went: the next sweep finds out
		}
		f.Run, f.Reason = "", clip(fault.Message(err))
	}
	return s.moveOn(ctx, c, f, next)
}

// newest gives the newest firings from one on and before a time, at most mostMissed, and the firing after them. It does
// not walk through all of what a long time holds: it looks back farther and farther until it has enough.
func (p plan) newest(first, before time.Time) (firings []time.Time, next time.Time) {
	const day = 24 * time.Hour
	for _, back := range []time.Duration{2 * time.Hour, 2 * day, 10 * day, 120 * day, 3000 * day, 100000 * day} {
		at := first
		if from := before.Add(-back); from.After(first) {
			at = p.next(from)
		}
		firings = firings[:0]
		for ; !at.IsZero() && at.Before(before); at = p.next(at) {
			firings = append(firings, at)
		}
		if len(firings) >= mostMissed || len(firings) > 0 && firings[0].Equal(first) {
			return slices.Clone(firings[max(0, len(firings)-mostMissed):]), at
		}
	}
	return []time.Time{first}, p.next(first)
}

// keyLife is longer than any time for which nobody sweeps, with some hope.
const keyLife = 60 * 24 * time.Hour

// firingKey is the idempotency key of a firing. No header can have a zero byte, so no caller's key is like it.
func firingKey(c Schedule, at time.Time) string {
	return "schedule\x00" + c.ID + "\x00" + at.UTC().Format(time.RFC3339Nano)
}

// began finds the run of a firing that was in time, by a sweeper that died before it could say so.
func (s *Schedules) began(ctx context.Context, c Schedule) (r run.Run, found bool, err error) {
	d, err := s.Crews.Deployment(ctx, c.DeploymentID)
	if err != nil {
		return run.Run{}, false, err
	}
	return s.Runs.Earlier(ctx, run.StartRequest{Deployment: d, IdempotencyKey: firingKey(c, c.Next)})
}

// start starts a run for a schedule, the same one for the same key of q.
func (s *Schedules) start(ctx context.Context, c Schedule, q run.StartRequest) (run.Run, error) {
	d, err := s.Crews.Deployment(ctx, c.DeploymentID)
	if err != nil {
		return run.Run{}, err
	}
	q.Deployment, q.Environment, q.Inputs, q.Origin = d, c.Environment, c.Inputs, Origin
	if c.VersionNumber > 0 {
		version, err := s.version(ctx, d, c)
		if err != nil {
			return run.Run{}, err
		}
		q.Version = &version
	}
	return s.Runs.Start(ctx, q)
}

// RunNow starts a run as the schedule would, with inputs laid over its own: the same one for the same idempotency key, unless that
// is "", and digest of the request. It is no firing: those go on as they were.
func (s *Schedules) RunNow(ctx context.Context, c Schedule, inputs map[string]any, key, digest string) (run.Run, error) {
	all := maps.Clone(c.Inputs)
	if all == nil {
		all = map[string]any{}
	}
	maps.Copy(all, inputs)
	c.Inputs = all
	return s.start(ctx, c, run.StartRequest{IdempotencyKey: key, BodyDigest: digest})
}

// errElsewhere says that another sweeper was quicker.
var errElsewhere = errors.New("somebody else dealt with this firing")

// moveOn remembers what became of a firing and moves on to the next, unless the schedule was changed in between: then it
// only remembers.
func (s *Schedules) moveOn(ctx context.Context, fired Schedule, f Firing, next time.Time) error {
	_, err := s.change(ctx, fired.DeploymentID, fired.ID, func(c *Schedule) error {
		pending := c.Next.Equal(fired.Next)
		if pending {
			c.Next = next
		}
		i := slices.IndexFunc(c.Firings, func(g Firing) bool { return g.At.Equal(f.At) })
		switch known := i >= 0 && (c.Firings[i].Run != "" || f.Run == ""); {
		case known && !pending:
			return errElsewhere
		case known:
			return nil
		case i >= 0: // it was refused there, and not here
			c.Firings = slices.Delete(c.Firings, i, i+1)
		}
		c.remember(f)
		return nil
	})
	if errors.Is(err, errElsewhere) || fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// clip keeps reasons small.
func clip(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
