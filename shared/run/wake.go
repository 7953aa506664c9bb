package run

import (
	"context"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/record"
)

// wakeAgain is how long what was woken has until it is looked at again.
const wakeAgain = time.Minute

// Wake looks after a run that is due. A question that stood for too long is answered by its default, or ends the run. For
// everything else it sends what the run needs and moves `due` forward, on condition that nobody
// did anything to the run in between. finding says what was the matter, "" when nothing was: the index was stale.
func (s *Service) Wake(ctx context.Context, runID string) (finding Finding, err error) {
	r, q, err := s.Whole(ctx, runID)
	if fault.Is(err, fault.NotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	now := s.now()
	if r.Due.IsZero() || r.Due.After(now) {
		return "", nil
	}
	if r.Nonce != "" && now.Before(r.Lease) {
		r.Due = r.Lease // a living owner; renewing its lease leaves `due` to the sweeper
		return "", s.moved(ctx, r)
	}
	if r.State == Queued && r.Gates != "" {
		if err := s.sweepGates(ctx, r); err != nil {
			return "", err
		}
		waits, err := s.waitsForSlot(ctx, r)
		if err != nil {
			return "", err
		}
		if waits {
			r.Due = now.Add(slotGrace).UTC()
			return "", s.moved(ctx, r)
		}
	}
	if r.State == Waiting {
		return s.expire(ctx, r, q)
	}
	o, _ := r.overdue(now)
	if o.Finding == EndNotTold {
		p, err := s.Newest(ctx, runID)
		if err != nil {
			return "", err
		}
		if err := s.SendDeliveries(ctx, runID, p); err != nil {
			return "", err
		}
	} else if err := s.Runs.Send(ctx, RunMessage{runID}.Message()); err != nil {
		return "", err
	}
	r.Due = now.Add(min(wakeAgain, s.Lease())).UTC()
	return o.Finding, s.moved(ctx, r)
}

// moved writes a run whose due has moved; when somebody was quicker, the run is looked after.
func (s *Service) moved(ctx context.Context, r Run) error {
	err := s.put(ctx, &r)
	if fault.Is(err, fault.Conflict) {
		return nil
	}
	return err
}

// ExpireLeases ends every lease, for a home that knows that no other process is left: what was running goes on with its
// next knock. It gives how many there were.
func (s *Service) ExpireLeases(ctx context.Context) (expired int, err error) {
	far := s.now().Add(10 * 365 * 24 * time.Hour)
	for shard := range record.Shards {
		due, err := s.Store.Due(ctx, shard, far, 1_000_000)
		if err != nil {
			return expired, err
		}
		for _, rec := range due {
			runID, isRun := strings.CutPrefix(rec.Part, "R#")
			if !isRun || rec.Sort != "RUN" {
				continue
			}
			r, err := s.Get(ctx, runID)
			if err != nil {
				return expired, err
			}
			if r.Nonce == "" || r.State.Ended() {
				continue
			}
			r.Lease = s.now().UTC()
			r.Due = r.Lease
			if err := s.moved(ctx, r); err != nil {
				return expired, err
			}
			expired++
		}
	}
	return expired, nil
}
