package run

import (
	"context"
	"slices"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/record"
)

// Finding says what the matter is with a run, or a delivery, that somebody has to look after, in a word fit for a metric.
type Finding string

// The findings.
const (
	// LongQueued: its message was lost, or the runners are behind.
	LongQueued Finding = "queued_for_long"
	// LeaseRanOut: its owner died, or lost touch.
	LeaseRanOut Finding = "lease_ran_out"
	// NotTakenUp: its owner gave it back, and nobody came for it.
	NotTakenUp Finding = "not_taken_up"
	// Unanswered: a person did not answer in time.
	Unanswered Finding = "question_unanswered"
	// EndNotTold: a delivery of its end page has no record.
	EndNotTold Finding = "end_not_told"
	// NotDelivered, of a delivery: the time of its next attempt has gone by, and nobody made one.
	NotDelivered Finding = "attempt_overdue"
)

// Overdue is a run with a finding, and since when.
type Overdue struct {
	Run     Run
	Finding Finding
	Since   time.Time
}

// overdue says what the matter is with a run, if anything. The sweeper moves `due`, so what else the item says of the time
// comes first.
func (r Run) overdue(now time.Time) (o Overdue, found bool) {
	o = Overdue{Run: r, Since: r.Due}
	switch {
	case r.Due.IsZero():
		return o, false
	case r.Nonce != "":
		o.Finding, o.Since = LeaseRanOut, r.Lease
	case r.State.Ended():
		o.Finding, o.Since = EndNotTold, r.EndedAt.Add(tellGrace)
	case r.State == Waiting:
		o.Finding = Unanswered
	case r.State == Running:
		o.Finding = NotTakenUp
	default:
		o.Finding = LongQueued
		if r.StartedAt.IsZero() {
			o.Since = r.CreatedAt.Add(queuedGrace)
		}
	}
	return o, !o.Since.After(now)
}

// Overdue lists what somebody has to look after in a workspace, longest first and at most some hundreds: runs, and the keys
// of deliveries whose time has come. It reads indexes, and is for people: nothing depends on it.
func (s *Service) Overdue(ctx context.Context, workspaceID string) (runs []Overdue, deliveries []record.Key, err error) {
	const atMost = 100 // of a shard
	now := s.now()
	for shard := range record.Shards {
		due, err := s.Store.Due(ctx, shard, now.Add(wakeAgain), atMost)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range due {
			runID, isRun := strings.CutPrefix(e.Part, "R#")
			if !isRun {
				continue
			}
			r, err := s.Get(ctx, runID)
			if fault.Is(err, fault.NotFound) {
				continue // the index is behind
			}
			if err != nil {
				return nil, nil, err
			}
			switch o, found := r.overdue(now); {
			case r.WorkspaceID != workspaceID:
			case e.Sort != "RUN" && !e.Due.After(now):
				deliveries = append(deliveries, e.Key)
			case e.Sort == "RUN" && found:
				waits := false
				if o.Finding == LongQueued { // as long as it has no slot, that is as it should be
					if waits, err = s.waitsForSlot(ctx, r); err != nil {
						return nil, nil, err
					}
				}
				if !waits {
					runs = append(runs, o)
				}
			}
		}
	}
	slices.SortFunc(runs, func(a, b Overdue) int { return a.Since.Compare(b.Since) })
	return runs, deliveries, nil
}
