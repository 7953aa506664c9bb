package run

import (
	"context"
	"fmt"
	"time"

	"muster/shared/fault"
	"muster/shared/record"
)

// Rate is how many kickoffs are left in a minute of the clock.
type Rate struct {
	Limit, Remaining int
	// Reset is the time until the next minute begins.
	Reset time.Duration
}

// countKickoff counts a kickoff where they are limited, and gives the rate that binds first. One too many is
// fault.TooMany. Without a limit it reads and writes nothing.
func (s *Service) countKickoff(ctx context.Context, q StartRequest) (rate *Rate, err error) {
	for _, of := range []struct {
		part, whose string
		most        int
	}{
		{gate('t', q.Trigger), "This trigger", q.Traffic.MaxKickoffsPerMinute},
		{gate('d', q.Deployment.ID), "This deployment", q.Deployment.Traffic.MaxKickoffsPerMinute},
		{gate('w', q.Deployment.WorkspaceID), "This workspace", s.Traffic.MaxKickoffsPerMinute},
	} {
		if of.most == 0 {
			continue
		}
		left, reset, err := record.CountMinute(ctx, s.Store, record.Key{Part: of.part, Sort: "RATE"}, s.now, of.most)
		if err != nil {
			return rate, fmt.Errorf("count a kickoff: %w", err)
		}
		if rate == nil || left < rate.Remaining {
			rate = &Rate{of.most, max(left, 0), reset}
		}
		if left < 0 {
			f := fault.New(fault.TooMany, "%s takes %d kickoffs a minute; try again in a moment.", of.whose, of.most)
			f.RetryAfter = reset
			return rate, f
		}
	}
	return rate, nil
}
