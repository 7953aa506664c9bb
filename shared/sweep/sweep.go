// Package sweep is the one loop over what is due: runs whose message was lost or whose owner died, ended runs whose
// deliveries have no record, parked deliveries, open connections, the health of endpoints, schedules, lists where runs wait for a slot, and questions that have stood for too long, which package run answers. It
// decides nothing. It sends first and moves `due` forward then, on condition that it is still what was read; so whatever
// it finds is knocked for at least once, however often a sweeper dies.
package sweep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"muster/shared/channel"
	"muster/shared/record"
	"muster/shared/resend"
	"muster/shared/run"
	"muster/shared/schedule"
)

// Sweeper sweeps.
type Sweeper struct {
	Store record.Store
	Runs  *run.Service
	// Parked sends a parked delivery again and moves its due; given the record's key. It is dispatch's.
	Parked func(ctx context.Context, k record.Key) error
	// Health looks after an endpoint whose health is due, given its record's key. It is dispatch's.
	Health func(ctx context.Context, k record.Key) error
	// Redrive sees to the next portion of a redrive, given its record's key.
	Redrive func(ctx context.Context, k record.Key) error
	// Connection looks after an open connection, given its record's key.
	Connection func(ctx context.Context, k record.Key) error
	// Schedule fires a schedule, given its record's key, and moves its due.
	Schedule func(ctx context.Context, k record.Key) error
	// Report is told how many runs had each finding, after a sweep with any; they are logged unless it is set.
	Report func(found map[run.Finding]int)
	Now    func() time.Time
	Log    *slog.Logger
}

// batch is how many due records are looked after at once.
const batch = 100

// Sweep looks after everything that is due. It goes on past failures and reports them together.
func (s *Sweeper) Sweep(ctx context.Context) error {
	var failures []error
	found := map[run.Finding]int{}
	for shard := range record.Shards {
		if err := s.shard(ctx, shard, found); err != nil {
			failures = append(failures, fmt.Errorf("shard %d: %w", shard, err))
		}
	}
	if len(found) > 0 {
		s.report(found)
	}
	return errors.Join(failures...)
}

func (s *Sweeper) report(found map[run.Finding]int) {
	if s.Report != nil {
		s.Report(found)
		return
	}
	for finding, n := range found {
		s.log().Info("runs were due", "finding", finding, "runs", n)
	}
}

// shard looks after one shard of the due index until nothing new turns up. The index may be stale: what was seen is not
// looked at again.
func (s *Sweeper) shard(ctx context.Context, shard int, found map[run.Finding]int) error {
	now := s.now()
	seen := map[record.Key]bool{}
	var failures []error
	for {
		due, err := s.Store.Due(ctx, shard, now, batch+len(seen))
		if err != nil {
			return errors.Join(append(failures, err)...)
		}
		fresh := 0
		for _, r := range due {
			if seen[r.Key] {
				continue
			}
			seen[r.Key] = true
			fresh++
			if err := s.one(ctx, r, found); err != nil {
				failures = append(failures, err)
			}
		}
		if fresh == 0 || len(seen) > 10000 || ctx.Err() != nil {
			return errors.Join(failures...)
		}
	}
}

func (s *Sweeper) one(ctx context.Context, r record.Entry, found map[run.Finding]int) error {
	runID, ok := strings.CutPrefix(r.Part, "R#")
	switch {
	case ok && r.Sort == "RUN":
		finding, err := s.Runs.Wake(ctx, runID)
		if err != nil {
			return fmt.Errorf("wake run %s: %w", runID, err)
		}
		if finding != "" {
			s.log().Debug("a run was due", "run", runID, "finding", finding)
			found[finding]++
		}
		return nil
	case ok && strings.HasPrefix(r.Sort, "D#"):
		return s.Parked(ctx, r.Key)
	case strings.HasPrefix(r.Part, "W#") && strings.HasSuffix(r.Sort, "#HEALTH"):
		return s.Health(ctx, r.Key)
	case resend.IsRedrive(r.Key):
		return s.Redrive(ctx, r.Key)
	case strings.HasPrefix(r.Part, run.SlotsPart):
		return s.Runs.WakeSlots(ctx, r.Part)
	case channel.IsDue(r.Key):
		return s.Connection(ctx, r.Key)
	case strings.HasPrefix(r.Part, schedule.Partition):
		return s.Schedule(ctx, r.Key)
	}
	return fmt.Errorf("a record %s %s is due, but nobody looks after such", r.Part, r.Sort)
}

func (s *Sweeper) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Sweeper) log() *slog.Logger {
	if s.Log != nil {
		return s.Log
	}
	return slog.Default()
}
