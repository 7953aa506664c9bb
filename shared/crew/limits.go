package crew

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
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
	// MaxWaiting is how many may wait when they queue, 0 for as many as can.
	MaxWaiting int `json:"-"`
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
				return fault.New(fault.Invalid, "prices: those of %q must be dollars for a million tokens, 0 or more.", shorten(name))
			}
		}
	}
	return nil
}

// ParseLimits reads the limits of one kickoff. What it does not know is fault.Invalid: a limit with a slip in its name
// would bind nobody.
func ParseLimits(raw json.RawMessage) (l Limits, err error) {
	var given map[string]json.RawMessage
	if json.Unmarshal(raw, &given) == nil {
		for _, name := range slices.Sorted(maps.Keys(given)) {
			var n *float64
			if json.Unmarshal(given[name], &n) == nil && n != nil && *n == 0 { // nobody who says 0 or 0.0 means "without a limit"
				return Limits{}, fault.New(fault.Invalid, "limits: %q must be above 0.", name)
			}
		}
	}
	if err := strictly(raw, "limits", &l); err != nil {
		return Limits{}, err
	}
	return l, l.Check()
}

// Bounds are all limits of a deployment, as they are written and shown.
type Bounds struct {
	Limits
	Traffic
}

// Patch changes those limits and prices of a deployment that are named; null takes one away.
func (d *Deployment) Patch(limits, prices json.RawMessage) error {
	b := Bounds{d.Limits, d.Traffic}
	if err := merge(&b, limits, "limits"); err != nil {
		return err
	}
	own := d.Prices
	if err := merge(&own, prices, "prices"); err != nil {
		return err
	}
	if err := errors.Join(b.Limits.Check(), b.Traffic.Check(), CheckPrices(own)); err != nil {
		return err
	}
	d.Limits, d.Traffic, d.Prices = b.Limits, b.Traffic, own
	return nil
}

// merge lets the fields of a patch take the place of those of a value that is a JSON object; null takes a field away.
func merge[T any](v *T, patch json.RawMessage, field string) error {
	if len(patch) == 0 {
		return nil
	}
	var change map[string]json.RawMessage
	if json.Unmarshal(patch, &change) != nil {
		return fault.New(fault.Invalid, "%q must be an object.", field)
	}
	whole, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", field, err)
	}
	merged := map[string]json.RawMessage{}
	if err := json.Unmarshal(whole, &merged); err != nil {
		return fmt.Errorf("decode %s: %w", field, err)
	}
	if merged == nil {
		merged = map[string]json.RawMessage{}
	}
	for name, value := range change {
		if string(value) == "null" {
			delete(merged, name)
		} else {
			merged[name] = value
		}
	}
	if whole, err = json.Marshal(merged); err != nil {
		return fmt.Errorf("encode %s: %w", field, err)
	}
	var changed T
	if err := strictly(whole, field, &changed); err != nil {
		return err
	}
	*v = changed
	return nil
}

// strictly reads JSON into a value that must know every field of it.
func strictly(raw json.RawMessage, field string, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong) && wrong.Field != "":
		path := strings.Split(wrong.Field, ".")
		return fault.New(fault.Invalid, "%s: %q cannot be the %s that was given.", field, path[len(path)-1], wrong.Value)
	case errors.As(err, &wrong) && bytes.HasPrefix(raw, []byte("{")):
		return fault.New(fault.Invalid, "%s: a value cannot be the %s that was given.", field, wrong.Value)
	case errors.As(err, &wrong):
		return fault.New(fault.Invalid, "%q must be an object.", field)
	}
	return fault.New(fault.Invalid, "%s: %s.", field, strings.TrimPrefix(err.Error(), "json: "))
}
