package schedule

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"muster/shared/fault"
)

// Expression says at which times something fires.
type Expression struct {
	cron *cron         // for cron(…)
	rate time.Duration // for rate(…)
	at   time.Time     // for at(…): a local time, as if it were UTC
}

// maxExpression is how many characters an expression may have; EventBridge takes as many.
const maxExpression = 256

// Parse reads an expression. What is wrong with it is fault.Invalid, in a sentence that names the field.
func Parse(text string) (Expression, error) {
	if len(text) > maxExpression {
		return Expression{}, invalid("It is longer than %d characters.", maxExpression)
	}
	kind, rest, opened := strings.Cut(strings.TrimSpace(text), "(")
	inner, closed := strings.CutSuffix(rest, ")")
	if !opened || !closed {
		return Expression{}, invalid("It must be cron(…), rate(…) or at(…).")
	}
	switch kind {
	case "cron":
		c, err := parseCron(inner)
		return Expression{cron: c}, err
	case "rate":
		d, err := parseRate(inner)
		return Expression{rate: d}, err
	case "at":
		at, err := time.Parse("2006-01-02T15:04:05", inner)
		if err != nil {
			return Expression{}, invalid("at(…) takes a local time like at(2027-01-31T09:30:00), without a zone; the time zone is a field of its own.")
		}
		return Expression{at: at}, nil
	}
	return Expression{}, invalid("It must be cron(…), rate(…) or at(…).")
}

func invalid(format string, args ...any) error {
	f := fault.New(fault.Invalid, format, args...)
	f.Message = "The schedule expression is not valid. " + f.Message
	return f
}

// units are those of rate(…): one minute is a minute, and more are minutes, as EventBridge has it.
var units = map[string]time.Duration{
	"minute": time.Minute, "minutes": time.Minute, "hour": time.Hour, "hours": time.Hour, "day": 24 * time.Hour, "days": 24 * time.Hour,
}

// maxRate keeps intervals within what a time can hold.
const maxRate = 10 * 366 * 24 * time.Hour

func parseRate(text string) (time.Duration, error) {
	words := strings.Fields(text)
	if len(words) != 2 {
		return 0, invalid("rate(…) takes a number and a unit, like rate(5 minutes).")
	}
	n, err := strconv.Atoi(words[0])
	if err != nil || n < 1 || strings.HasPrefix(words[0], "+") {
		return 0, invalid("The value of rate(…) must be a whole number from 1 on, and it is %q.", words[0])
	}
	unit, ok := units[words[1]]
	if !ok {
		return 0, invalid("The unit of rate(…) must be minutes, hours or days, and it is %q.", words[1])
	}
	if one, singular := strings.TrimSuffix(words[1], "s"), !strings.HasSuffix(words[1], "s"); (n == 1) != singular {
		right := "rate(1 " + one + ")"
		if n > 1 {
			right = fmt.Sprintf("rate(%d %ss)", n, one)
		}
		return 0, invalid("It is %s, with the unit in the singular for 1 and in the plural for more, as EventBridge wants it.", right)
	}
	if n > int(maxRate/unit) {
		return 0, invalid("An interval of rate(…) has at most ten years.")
	}
	return time.Duration(n) * unit, nil
}

// Next gives the first firing after a time: zero when there is none any more. The zone is that of cron(…) and at(…), and
// rate(…) counts from its begin.
func (e Expression) Next(after time.Time, zone *time.Location, begin time.Time) time.Time {
	switch {
	case e.cron != nil:
		return e.cron.next(after, zone)
	case e.rate > 0:
		if after.Before(begin) {
			return begin
		}
		passed := after.Sub(begin) / e.rate
		return begin.Add((passed + 1) * e.rate)
	}
	if at := instant(e.at, zone); at.After(after) {
		return at
	}
	return time.Time{}
}

// instant gives the first time at which the clocks of a zone show a local time (given as if it were UTC), zero when they
// leave it out.
func instant(local time.Time, zone *time.Location) time.Time {
	const most = 26 * time.Hour // no zone is farther from UTC
	for t := local.Add(-most).In(zone); !t.After(local.Add(most)); {
		_, offset := t.Zone()
		from, to := t.ZoneBounds()
		is := local.Add(-time.Duration(offset) * time.Second)
		if !is.Before(from) && (to.IsZero() || is.Before(to)) {
			return is.In(zone)
		}
		if to.IsZero() {
			break
		}
		t = to
	}
	return time.Time{}
}
