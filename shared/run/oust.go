package run

import (
	"context"
	"slices"

	"muster/shared/fault"
)

// A run may oust those of its thread that are before it. Who is before whom is said by the thread's list, where each run is
// put by one conditional write: so of any number that come at once, each ousts those before it and is ousted by those behind
// it, and the last one of them is left. A run counts for that from when its item is there (a request that was refused
// ousts nobody), and its item is there before it looks who is behind it and who is before: so of any two, at least one
// sees the other. Should whoever started it die before it has stopped the others, a claim of theirs does, or the sweep
// of the list.

// Oust says what a run does with those of its thread that are before it.
type Oust string

// The ways to oust a run. "" leaves it alone.
const (
	Interrupt Oust = "interrupt" // it is stopped; what it recorded stays
	Rollback  Oust = "rollback"  // it is stopped, and leaves nothing in the thread
)

// takePlace lets a run that has been put oust those before it, or gives way to one that ousts it. It gives the run as it
// is then.
func (s *Service) takePlace(ctx context.Context, r Run) (Run, error) {
	if r.Thread == "" {
		return r, nil
	}
	l, err := s.readSlots(ctx, gate('h', r.Thread))
	if err != nil {
		return r, err
	}
	if i := l.index(r.ID); r.Ousts != "" && i > 0 {
		// Those that wait first: then nobody begins who is to be stopped.
		for _, e := range slices.Backward(l.Runs[:i]) {
			if err := s.oust(ctx, e.Run, r.Ousts); err != nil {
				s.log().Error("a run is not stopped yet that another has ousted; the sweeper will do it", "run", e.Run, "by", r.ID, "error", err)
			}
		}
	}
	how, err := s.ousted(ctx, l, r.ID)
	if err != nil || how == "" {
		return r, err
	}
	if err := s.oust(ctx, r.ID, how); err != nil {
		return r, err
	}
	return s.Get(ctx, r.ID)
}

// ousted says whether a run on the list of a thread has been ousted, and how.
func (s *Service) ousted(ctx context.Context, l slots, runID string) (how Oust, err error) {
	i := l.index(runID)
	if i < 0 {
		return "", nil
	}
	for _, e := range l.Runs[i+1:] {
		if e.Ousts == "" || e.Ousts == how {
			continue
		}
		switch _, err := s.Get(ctx, e.Run); {
		case fault.Is(err, fault.NotFound): // not accepted, or not yet
		case err != nil:
			return "", err
		case how != Rollback:
			how = e.Ousts
		}
	}
	return how, nil
}

// oust stops a run, if it is there and not over. One that does not end at once, for its owner may be dead, ends as soon as it
// is taken over.
func (s *Service) oust(ctx context.Context, runID string, how Oust) error {
	_, err := s.stop(ctx, runID, func(r Run) error {
		if how == Rollback {
			return s.disown(ctx, r)
		}
		return nil
	})
	if fault.Is(err, fault.Conflict) || fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// giveWay stops a run that was ousted and that nobody holds, and says whether it was so.
func (s *Service) giveWay(ctx context.Context, r Run) (ousted bool, err error) {
	l, err := s.readSlots(ctx, gate('h', r.Thread))
	if err != nil {
		return false, err
	}
	how, err := s.ousted(ctx, l, r.ID)
	if err != nil || how == "" {
		return false, err
	}
	return true, s.oust(ctx, r.ID, how)
}
