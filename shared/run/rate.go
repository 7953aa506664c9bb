package run

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/record"
)

// Rate is how many kickoffs are left in a minute of the clock.
type Rate struct {
	Limit, Remaining int
	// Reset is the time until the next minute begins.
	Reset time.Duration
}

// minute counts the kickoffs of one minute.
type minute struct {
	Minute int64 `json:"minute"`
	Count  int   `json:"count"`
}

// countKickoff counts a kickoff where they are limited, and gives the rate that binds first. One too many is
// fault.TooMany. Without a limit it reads and writes nothing.
func (s *Service) countKickoff(ctx context.Context, d crew.Deployment) (rate *Rate, err error) {
	for _, of := range []struct {
		part, whose string
		most        int
	}{
		{gate('d', d.ID), "This deployment", d.Traffic.MaxKickoffsPerMinute},
		{gate('w', d.WorkspaceID), "This workspace", s.Traffic.MaxKickoffsPerMinute},
	} {
		if of.most == 0 {
			continue
		}
		left, reset, err := s.count(ctx, of.part, of.most)
		if err != nil {
			return rate, err
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

// count adds one to the count of this minute and gives how many are left, -1 when there were none.
func (s *Service) count(ctx context.Context, part string, most int) (left int, reset time.Duration, err error) {
	for {
		now := s.now()
		m := minute{Minute: now.Unix() / 60}
		reset = time.Unix((m.Minute+1)*60, 0).Sub(now)
		rec, err := s.Store.Get(ctx, record.Key{Part: part, Sort: "RATE"})
		switch {
		case fault.Is(err, fault.NotFound):
			rec = record.Record{Key: record.Key{Part: part, Sort: "RATE"}}
		case err != nil:
			return 0, 0, fmt.Errorf("read how many kickoffs there were: %w", err)
		default:
			var there minute
			if err := json.Unmarshal(rec.Body, &there); err != nil {
				return 0, 0, fmt.Errorf("decode how many kickoffs there were: %w", err)
			}
			if there.Minute >= m.Minute {
				m = there
			}
		}
		if m.Count >= most {
			return -1, reset, nil
		}
		m.Count++
		rec.Body, rec.Expires = []byte(encode(m)), now.Add(time.Hour)
		// A write whose answer is lost may count twice: sooner too few kickoffs than too many.
		_, err = s.Store.Put(ctx, rec)
		if fault.Is(err, fault.Conflict) || fault.KindOf(err) == fault.Internal && s.pause(ctx, 10*time.Millisecond) == nil {
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("count a kickoff: %w", err)
		}
		return most - m.Count, reset, nil
	}
}
