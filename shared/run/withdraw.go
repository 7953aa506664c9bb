package run

import (
	"context"
	"time"

	"muster/shared/fault"
)

// How often AwaitStart looks: soon at first, since most runs begin at once, then ever more rarely.
const (
	firstLook  = 10 * time.Millisecond
	rarestLook = time.Second
)

// AwaitStart waits until somebody has begun the run, or it was withdrawn or stopped, and at most until a time. It gives the run as it
// was read last; one that was begun has StartedAt.
func (s *Service) AwaitStart(ctx context.Context, runID string, until time.Time) (Run, error) {
	for wait := firstLook; ; wait = min(wait*3/2, rarestLook) {
		r, err := s.Get(ctx, runID)
		if err != nil || !r.StartedAt.IsZero() || r.State.Ended() {
			return r, err
		}
		left := until.Sub(s.now())
		if left <= 0 {
			return r, nil
		}
		if err := s.pause(ctx, min(wait, left)); err != nil {
			return r, err
		}
	}
}

// Withdraw takes a run back that nobody has begun, by one conditional write: from then on nobody will, its message finds
// nothing to do, and no webhook tells of it. It is shown as canceled, with the reason. A run that was begun before goes on
// as if nothing had been asked; what came of it is in the run that is returned: Withdrawn, or StartedAt.
func (s *Service) Withdraw(ctx context.Context, runID, why string) (Run, error) {
	for {
		r, err := s.Get(ctx, runID)
		if err != nil || r.State != Queued || !r.StartedAt.IsZero() {
			return r, err
		}
		r.State, r.Withdrawn, r.Told, r.Due = Canceled, true, true, time.Time{}
		r.EndedAt, r.Error = s.now().UTC().Truncate(time.Millisecond), clip(why)
		err = s.put(ctx, &r)
		if fault.Is(err, fault.Conflict) {
			continue // somebody was quicker, perhaps an owner
		}
		if err != nil {
			return Run{}, err
		}
		if err := s.leave(ctx, r); err != nil {
			s.log().Warn("a run that was withdrawn keeps a slot until somebody needs it", "run", r.ID, "error", err)
		}
		return r, nil
	}
}
