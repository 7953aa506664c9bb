package schedule

import (
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// cron is a parsed cron(…).
type cron struct {
	minutes, hours, months bitset
	years                  [maxYear - minYear + 1]bool
	dayOfMonth             monthDay
	dayOfWeek              weekDay
}

const minYear, maxYear = 1970, 2199

// bitset holds numbers from 0 to 63.
type bitset uint64

func (s bitset) has(n int) bool { return s>>n&1 == 1 }

// monthDay says which days of a month are meant. It is zero for "?".
type monthDay struct {
	set     bitset
	last    bool // L, or LW
	weekday bool // the weekday nearest to the only one in set, or to the last day
}

// weekDay says which days of a week are meant, 1 for Sunday to 7 for Saturday. It is zero for "?".
type weekDay struct {
	set  bitset
	nth  int  // #: which one of the month; 0 for every
	last bool // L: the last one of the month
}

// field is one of the six.
type field struct {
	name     string
	min, max int
	names    []string // of the values, from min on
}

var (
	minuteField     = field{name: "minutes", max: 59}
	hourField       = field{name: "hours", max: 23}
	dayOfMonthField = field{name: "day-of-month", min: 1, max: 31}
	monthField      = field{"month", 1, 12, []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}}
	dayOfWeekField  = field{"day-of-week", 1, 7, []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}}
	yearField       = field{name: "year", min: minYear, max: maxYear}
)

func parseCron(text string) (*cron, error) {
	parts := strings.Fields(text)
	if len(parts) != 6 {
		return nil, invalid("cron(…) has six fields, minutes hours day-of-month month day-of-week year, and here are %d.", len(parts))
	}
	if (parts[2] == "?") == (parts[4] == "?") {
		return nil, invalid("Exactly one of day-of-month and day-of-week must be \"?\".")
	}
	c := &cron{}
	var errs [6]error
	c.minutes, errs[0] = minuteField.bits(parts[0])
	c.hours, errs[1] = hourField.bits(parts[1])
	c.dayOfMonth, errs[2] = parseMonthDay(parts[2])
	c.months, errs[3] = monthField.bits(parts[3])
	c.dayOfWeek, errs[4] = parseWeekDay(parts[4])
	errs[5] = yearField.each(parts[5], func(n int) { c.years[n-minYear] = true })
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

func parseMonthDay(text string) (d monthDay, err error) {
	switch {
	case text == "?":
		return d, nil
	case strings.EqualFold(text, "L"):
		return monthDay{last: true}, nil
	case strings.EqualFold(text, "LW"):
		return monthDay{last: true, weekday: true}, nil
	}
	if day, ok := cutLast(text, "W"); ok {
		n, err := dayOfMonthField.value(day)
		return monthDay{set: 1 << n, weekday: true}, err
	}
	d.set, err = dayOfMonthField.bits(text)
	return d, err
}

func parseWeekDay(text string) (d weekDay, err error) {
	if text == "?" {
		return d, nil
	}
	if strings.EqualFold(text, "L") {
		return weekDay{set: 1 << 7}, nil // the last day of the week
	}
	if strings.Contains(text, "/") {
		return d, invalid("The day-of-week takes no \"/\".")
	}
	if day, which, ok := strings.Cut(text, "#"); ok {
		n, err := dayOfWeekField.value(day)
		if err != nil {
			return d, err
		}
		d = weekDay{set: 1 << n}
		if d.nth, err = strconv.Atoi(which); err != nil || d.nth < 1 || d.nth > 5 || len(which) > 1 {
			return d, invalid("After \"#\" in the day-of-week there must be one number from 1 to 5, and it is %q.", which)
		}
		return d, nil
	}
	if day, ok := cutLast(text, "L"); ok {
		n, err := dayOfWeekField.value(day)
		return weekDay{set: 1 << n, last: true}, err
	}
	d.set, err = dayOfWeekField.bits(text)
	return d, err
}

// cutLast cuts a letter, large or small, off the end of a text.
func cutLast(text, letter string) (string, bool) {
	if n := len(text) - 1; n > 0 && strings.EqualFold(text[n:], letter) {
		return text[:n], true
	}
	return "", false
}

// bits reads a field of numbers below 64.
func (f field) bits(text string) (s bitset, err error) {
	err = f.each(text, func(n int) { s |= 1 << n })
	return s, err
}

// each reads a list of values, ranges and steps.
func (f field) each(text string, do func(int)) error {
	for _, part := range strings.Split(text, ",") {
		span, by, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			var err error
			if step, err = number(by); err != nil || step < 1 {
				return invalid("After \"/\" in the %s there must be a number from 1 on, and it is %q.", f.name, by)
			}
		}
		from, to, err := f.span(span, stepped)
		if err != nil {
			return err
		}
		if from > to { // FRI-MON goes around
			if f.name == yearField.name {
				return invalid("In the year, %s ends before it begins.", span)
			}
			to += f.max - f.min + 1
		}
		for n := from; n <= to; n += step {
			do((n-f.min)%(f.max-f.min+1) + f.min)
		}
	}
	return nil
}

// span reads the part of a list before a step.
func (f field) span(text string, stepped bool) (from, to int, err error) {
	if text == "*" {
		return f.min, f.max, nil
	}
	first, last, ranged := strings.Cut(text, "-")
	if from, err = f.value(first); err != nil {
		return 0, 0, err
	}
	switch {
	case ranged:
		to, err = f.value(last)
		return from, to, err
	case stepped:
		return from, f.max, nil
	}
	return from, from, nil
}

// value reads a number or a name.
func (f field) value(text string) (int, error) {
	for i, name := range f.names {
		if strings.EqualFold(text, name) {
			return f.min + i, nil
		}
	}
	n, err := number(text)
	if err != nil || n < f.min || n > f.max {
		names := ""
		if f.names != nil {
			names = " or " + f.names[0] + " to " + f.names[len(f.names)-1]
		}
		return 0, invalid("The %s takes %d to %d%s, and %q is something else.", f.name, f.min, f.max, names, text)
	}
	return n, nil
}

// number reads digits, at most as many as a year has.
func number(text string) (int, error) {
	if text == "" || len(text) > 4 || strings.Trim(text, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.Atoi(text)
}

// next gives the first firing after a time, zero when there is none.
func (c *cron) next(after time.Time, zone *time.Location) time.Time {
	// Local times are walked through as if they were UTC. Those that the clocks have shown by now are over: a second showing
	// does not count.
	now := after.In(zone)
	shown := time.Date(now.Year(), now.Month(), now.Day(), now.Hour(), now.Minute(), now.Second(), now.Nanosecond(), time.UTC)
	for year := max(now.Year(), minYear); year <= maxYear; year++ {
		if !c.years[year-minYear] {
			continue
		}
		for month := time.January; month <= time.December; month++ {
			if !c.months.has(int(month)) || year == now.Year() && month < now.Month() {
				continue
			}
			for days := c.days(year, month); days != 0; days &= days - 1 {
				day := time.Date(year, month, bits.TrailingZeros64(uint64(days)), 0, 0, 0, 0, time.UTC)
				if !day.Add(24 * time.Hour).After(shown) {
					continue
				}
				for hours := c.hours; hours != 0; hours &= hours - 1 {
					hour := day.Add(time.Duration(bits.TrailingZeros64(uint64(hours))) * time.Hour)
					if !hour.Add(time.Hour).After(shown) {
						continue
					}
					for minutes := c.minutes; minutes != 0; minutes &= minutes - 1 {
						local := hour.Add(time.Duration(bits.TrailingZeros64(uint64(minutes))) * time.Minute)
						if !local.After(shown) {
							continue
						}
						if is := instant(local, zone); is.After(after) {
							return is
						}
					}
				}
			}
		}
	}
	return time.Time{}
}

// days gives the days of a month that are meant.
func (c *cron) days(year int, month time.Month) (days bitset) {
	first := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
	length := first.AddDate(0, 1, -1).Day()
	// weekday gives that of a day, 1 for Sunday.
	weekday := func(day int) int { return (int(first.Weekday())+day-1)%7 + 1 }

	if d := c.dayOfMonth; d.last || d.weekday {
		day := length
		if !d.last {
			if day = bits.TrailingZeros64(uint64(d.set)); day > length {
				return 0
			}
		}
		if d.weekday {
			day = nearest(day, length, weekday(day))
		}
		return 1 << day
	}
	for day := 1; day <= length; day++ {
		nth, last := (day-1)/7+1, day+7 > length
		w := c.dayOfWeek
		if c.dayOfMonth.set.has(day) || w.set.has(weekday(day)) && (w.nth == 0 || w.nth == nth) && (!w.last || last) {
			days |= 1 << day
		}
	}
	return days
}

// nearest gives the day from Monday to Friday that is nearest to a day, in the same month.
func nearest(day, length, weekday int) int {
	switch {
	case weekday == 7 && day > 1: // Saturday
		return day - 1
	case weekday == 7:
		return day + 2
	case weekday == 1 && day < length: // Sunday
		return day + 1
	case weekday == 1:
		return day - 2
	}
	return day
}
