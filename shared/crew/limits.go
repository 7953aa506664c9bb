package crew

import (
	"fmt"
	"math"
	"unicode/utf8"

	"muster/shared/fault"
	"muster/shared/price"
)

// Limits bound one run. Zero is no limit.
type Limits struct {
	MaxCostUSD         float64 `json:"max_cost_usd,omitempty"`
	MaxTokens          int     `json:"max_tokens,omitempty"`
	MaxDurationSeconds int     `json:"max_duration_seconds,omitempty"`
	MaxSteps           int     `json:"max_steps,omitempty"`
}

// Tighter gives, of each limit, the one that binds first.
func (l Limits) Tighter(m Limits) Limits {
	return Limits{
		tighter(l.MaxCostUSD, m.MaxCostUSD), tighter(l.MaxTokens, m.MaxTokens),
		tighter(l.MaxDurationSeconds, m.MaxDurationSeconds), tighter(l.MaxSteps, m.MaxSteps),
	}
}

func tighter[N int | float64](a, b N) N {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// Check tells which limit cannot be meant, as fault.Invalid.
func (l Limits) Check() error {
	if math.IsNaN(l.MaxCostUSD) || l.MaxCostUSD < 0 {
		return fault.New(fault.Invalid, "limits: \"max_cost_usd\" must be a number of dollars above 0.")
	}
	return notNegative(map[string]int{
		"max_tokens": l.MaxTokens, "max_duration_seconds": l.MaxDurationSeconds, "max_steps": l.MaxSteps,
	})
}

// Traffic bounds how many runs there are, of one deployment or of a whole workspace. Zero is no limit.
type Traffic struct {
	// MaxConcurrentRuns is how many may be under way at a time. A run that waits for a person does not count.
	MaxConcurrentRuns int `json:"max_concurrent_runs,omitempty"`
	// WhenFull says what becomes of a kickoff beyond that: Queue (also "") or Reject.
	WhenFull string `json:"when_full,omitempty"`
	// MaxKickoffsPerMinute is how many kickoffs are accepted in one minute of the clock.
	MaxKickoffsPerMinute int `json:"max_kickoffs_per_minute,omitempty"`
}

// What becomes of a kickoff when as many runs are under way as may.
const (
	// Queue accepts it; the run begins when another ends.
	Queue = "queue"
	// Reject refuses it.
	Reject = "reject"
)

// maxConcurrent is the largest MaxConcurrentRuns: the runs under way are kept in one record.
const maxConcurrent = 1000

// Check tells which limit cannot be meant, as fault.Invalid.
func (t Traffic) Check() error {
	if t.MaxConcurrentRuns > maxConcurrent {
		return fault.New(fault.Invalid, "limits: \"max_concurrent_runs\" can be at most %d.", maxConcurrent)
	}
	if t.WhenFull != "" && t.WhenFull != Queue && t.WhenFull != Reject {
		return fault.New(fault.Invalid, "limits: \"when_full\" must be %q or %q.", Queue, Reject)
	}
	return notNegative(map[string]int{
		"max_concurrent_runs": t.MaxConcurrentRuns, "max_kickoffs_per_minute": t.MaxKickoffsPerMinute,
	})
}

func notNegative(fields map[string]int) error {
	for name, n := range fields {
		if n < 0 {
			return fault.New(fault.Invalid, "limits: %q must be a whole number above 0.", name)
		}
	}
	return nil
}

// maxPrices is how many models a deployment may have prices for: they lie in the deployment's record.
const maxPrices = 50

// CheckPrices tells what is wrong with a deployment's own prices, as fault.Invalid.
func CheckPrices(t price.Table) error {
	if len(t) > maxPrices {
		return fault.New(fault.Invalid, "prices: at most %d models can have one.", maxPrices)
	}
	for name, m := range t {
		if name == "" || utf8.RuneCountInString(name) > maxName {
			return fault.New(fault.Invalid, "prices: a model's name has 1 to %d characters.", maxName)
		}
		for _, usd := range []float64{m.Prompt, m.Cached, m.Completion} {
			if usd < 0 || usd > 1e6 {
				return fault.New(fault.Invalid, "%s", fmt.Sprintf("prices: those of %q must be dollars for a million tokens, 0 or more.", shorten(name)))
			}
		}
	}
	return nil
}
