package webhook

import (
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// steps are the pauses after the first, second, … failed attempt: 27.6 h in all, so that a receiver that was down over
// night, or over a working day, gets everything.
var steps = [...]time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour,
}

const (
	// MaxAttempts is how often a delivery is tried before it is exhausted.
	MaxAttempts = len(steps) + 1
	// maxHint is the longest pause that a receiver can ask for.
	maxHint = 10 * time.Hour
)

// Pause gives the time to wait after the attempt-th attempt (from 1) of a delivery has failed; ok is false when that was
// the last one. hint is what the receiver asked for, see RetryAfter: the pause is not shorter, up to ten hours. 10 to 20 %
// are added, which are a function of delivery and attempt: what failed together does not come back together.
func Pause(deliveryID string, attempt int, hint time.Duration) (pause time.Duration, ok bool) {
	if attempt < 1 || attempt >= MaxAttempts {
		return 0, false
	}
	pause = max(steps[attempt-1], min(hint, maxHint))
	sum := sha256.Sum256([]byte(deliveryID + "/" + strconv.Itoa(attempt)))
	tenth := float64(pause) / 10
	share := float64(binary.BigEndian.Uint32(sum[:])) / (1 << 32)
	return (pause + time.Duration(tenth*(1+share))).Truncate(time.Millisecond), true
}

// RetryAfter reads the Retry-After of a response: how long to wait from now, 0 for none, a past one, or one that is
// neither a number of seconds nor an HTTP date. Of several the longest counts.
func RetryAfter(h http.Header, now time.Time) (hint time.Duration) {
	for _, value := range h.Values("Retry-After") {
		hint = max(hint, retryAfter(strings.TrimSpace(value), now))
	}
	return hint
}

func retryAfter(value string, now time.Time) time.Duration {
	if value != "" && strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(maxHint/time.Second) {
			return maxHint
		}
		return time.Duration(seconds) * time.Second
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(date.Sub(now), 0), maxHint)
}
