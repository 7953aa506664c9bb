package record

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"muster/shared/fault"
)

// minute is a count for one minute of the clock.
type minute struct {
	Minute int64 `json:"minute"`
	Count  int   `json:"count"`
}

// CountMinute adds one to the count kept under k for the minute of now, of which there may be so many. left is how many more there may be,
// -1 when this one was one too many, and reset the time until the next minute begins. A write whose answer is lost
// may count twice: sooner too few than too many.
func CountMinute(ctx context.Context, s Store, k Key, now func() time.Time, most int) (left int, reset time.Duration, err error) {
	for {
		at := now()
		m := minute{Minute: at.Unix() / 60}
		reset = time.Unix((m.Minute+1)*60, 0).Sub(at)
		rec, err := s.Get(ctx, k)
		switch {
		case fault.Is(err, fault.NotFound):
			rec = Record{Key: k}
		case err != nil:
			return 0, 0, fmt.Errorf("read a count: %w", err)
		default:
			var there minute
			if err := json.Unmarshal(rec.Body, &there); err != nil {
				return 0, 0, fmt.Errorf("decode a count: %w", err)
			}
			if there.Minute >= m.Minute {
				m = there
			}
		}
		if m.Count >= most {
			return -1, reset, nil
		}
		m.Count++
		if rec.Body, err = json.Marshal(m); err != nil {
			return 0, 0, fmt.Errorf("encode a count: %w", err)
		}
		rec.Expires = at.Add(time.Hour)
		_, err = s.Put(ctx, rec)
		switch {
		case err == nil:
			return most - m.Count, reset, nil
		case fault.Is(err, fault.Conflict):
			continue
		case fault.KindOf(err) != fault.Internal:
			return 0, 0, fmt.Errorf("count: %w", err)
		}
		again := time.NewTimer(10 * time.Millisecond)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return 0, 0, fmt.Errorf("count: %w", err)
		}
	}
}
