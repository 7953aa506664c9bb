package schedule

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// zone loads a time zone.
func zone(t interface{ Fatal(...any) }, name string) *time.Location {
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// firings gives the first few firings of an expression after a local time, as local times.
func firings(t *testing.T, expression, zoneName, after string, n int) []string {
	t.Helper()
	e, err := Parse(expression)
	if err != nil {
		t.Fatal(err)
	}
	z := zone(t, zoneName)
	at, err := time.ParseInLocation("2006-01-02 15:04:05", after, z)
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{}
	for at = e.Next(at, z, at); len(shown) < n && !at.IsZero(); at = e.Next(at, z, at) {
		shown = append(shown, at.Format("Mon 2006-01-02 15:04 MST"))
	}
	return shown
}

func TestWhenExpressionsFire(t *testing.T) {
	for _, c := range []struct {
		name, expression, zone, after string
		want                          []string
	}{
		{"every day at a time", "cron(0 10 * * ? *)", "UTC", "2026-01-01 10:00:00", []string{"Fri 2026-01-02 10:00 UTC", "Sat 2026-01-03 10:00 UTC"}},
		{"a time of today that is not over", "cron(30 10 * * ? *)", "UTC", "2026-01-01 10:29:59", []string{"Thu 2026-01-01 10:30 UTC"}},
		{"in its zone", "cron(0 9 * * ? *)", "Europe/Berlin", "2026-03-28 00:00:00", []string{"Sat 2026-03-28 09:00 CET", "Sun 2026-03-29 09:00 CEST"}},
		{"steps from a start", "cron(1/25 0 * * ? *)", "UTC", "2026-01-01 00:00:00", []string{"Thu 2026-01-01 00:01 UTC", "Thu 2026-01-01 00:26 UTC", "Thu 2026-01-01 00:51 UTC", "Fri 2026-01-02 00:01 UTC"}},
		{"steps in a range", "cron(0 8-12/2 * * ? *)", "UTC", "2026-01-01 00:00:00", []string{"Thu 2026-01-01 08:00 UTC", "Thu 2026-01-01 10:00 UTC", "Thu 2026-01-01 12:00 UTC", "Fri 2026-01-02 08:00 UTC"}},
		{"weekdays by name", "cron(0 18 ? * MON-FRI *)", "UTC", "2026-01-02 18:00:00", []string{"Mon 2026-01-05 18:00 UTC"}},
		{"weekdays by number, from Sunday", "cron(0 18 ? * 2,7 *)", "UTC", "2026-01-01 18:00:00", []string{"Sat 2026-01-03 18:00 UTC", "Mon 2026-01-05 18:00 UTC"}},
		{"a range around the end of the week", "cron(0 0 ? * sat-mon *)", "UTC", "2026-01-01 18:00:00", []string{"Sat 2026-01-03 00:00 UTC", "Sun 2026-01-04 00:00 UTC", "Mon 2026-01-05 00:00 UTC", "Sat 2026-01-10 00:00 UTC"}},
		{"the last day of the month", "cron(0 0 L * ? *)", "UTC", "2028-01-15 00:00:00", []string{"Mon 2028-01-31 00:00 UTC", "Tue 2028-02-29 00:00 UTC"}},
		{"the last weekday of the month", "cron(0 0 LW * ? *)", "UTC", "2026-01-01 00:00:00", []string{"Fri 2026-01-30 00:00 UTC", "Fri 2026-02-27 00:00 UTC"}},
		{"the weekday nearest to the first stays in its month", "cron(0 0 1W * ? *)", "UTC", "2026-07-15 00:00:00", []string{"Mon 2026-08-03 00:00 UTC", "Tue 2026-09-01 00:00 UTC"}},
		{"the weekday nearest to a Sunday", "cron(0 0 15W 11 ? *)", "UTC", "2026-01-01 00:00:00", []string{"Mon 2026-11-16 00:00 UTC"}},
		{"the weekday nearest to a Sunday at the end of a month", "cron(0 0 31W 5 ? *)", "UTC", "2026-01-01 00:00:00", []string{"Fri 2026-05-29 00:00 UTC"}},
		{"a weekday that some months do not have", "cron(0 0 31W 4,5 ? *)", "UTC", "2026-04-01 00:00:00", []string{"Fri 2026-05-29 00:00 UTC"}},
		{"the last Friday", "cron(15 10 ? * 6L 2026)", "UTC", "2026-10-31 00:00:00", []string{"Fri 2026-11-27 10:15 UTC", "Fri 2026-12-25 10:15 UTC"}},
		{"the last day of the week", "cron(0 0 ? * L *)", "UTC", "2026-01-01 00:00:00", []string{"Sat 2026-01-03 00:00 UTC", "Sat 2026-01-10 00:00 UTC"}},
		{"the second Tuesday", "cron(0 0 ? * 3#2 *)", "UTC", "2026-01-01 00:00:00", []string{"Tue 2026-01-13 00:00 UTC", "Tue 2026-02-10 00:00 UTC"}},
		{"the fifth Friday, where there is one", "cron(0 0 ? * FRI#5 *)", "UTC", "2026-01-31 00:00:00", []string{"Fri 2026-05-29 00:00 UTC", "Fri 2026-07-31 00:00 UTC"}},
		{"leap days", "cron(0 12 29 FEB ? *)", "UTC", "2026-01-01 00:00:00", []string{"Tue 2028-02-29 12:00 UTC", "Sun 2032-02-29 12:00 UTC"}},
		{"years", "cron(0 0 1 1 ? 2027,2030-2031,2040/50)", "UTC", "2026-01-01 00:00:00", []string{"Fri 2027-01-01 00:00 UTC", "Tue 2030-01-01 00:00 UTC", "Wed 2031-01-01 00:00 UTC", "Sun 2040-01-01 00:00 UTC", "Sun 2090-01-01 00:00 UTC"}},
		{"a day that no month has", "cron(0 0 31 2,4 ? *)", "UTC", "2026-01-01 00:00:00", nil},
		{"years that are over", "cron(0 0 * * ? 2025)", "UTC", "2026-01-01 00:00:00", nil},
		{"a local time that is left out", "cron(30 2 * * ? *)", "Europe/Berlin", "2026-03-28 00:00:00", []string{"Sat 2026-03-28 02:30 CET", "Mon 2026-03-30 02:30 CEST"}},
		{"a local time that comes twice fires the first time", "cron(30 2 * * ? *)", "Europe/Berlin", "2026-10-24 12:00:00", []string{"Sun 2026-10-25 02:30 CEST", "Mon 2026-10-26 02:30 CET"}},
		{"nor does it fire again for who comes in between", "cron(0/30 1 * * ? *)", "America/New_York", "2026-11-01 01:10:00", []string{"Sun 2026-11-01 01:30 EDT", "Mon 2026-11-02 01:00 EST"}},
		{"a whole day that is left out", "cron(0 12 29-31 12 ? 2011)", "Pacific/Apia", "2011-12-28 00:00:00", []string{"Thu 2011-12-29 12:00 -10", "Sat 2011-12-31 12:00 +14"}},
		{"midnights that are left out", "cron(0 0 * 9 ? 2026)", "America/Santiago", "2026-09-05 00:00:00", []string{"Mon 2026-09-07 00:00 -03"}},
		{"once", "at(2026-03-01T09:30:00)", "Asia/Kolkata", "2026-01-01 00:00:00", []string{"Sun 2026-03-01 09:30 IST"}},
		{"once, and it is over", "at(2026-03-01T09:30:00)", "UTC", "2026-03-01 09:30:00", nil},
		{"once, when there is no such time", "at(2026-03-29T02:30:00)", "Europe/Berlin", "2026-01-01 00:00:00", nil},
		{"at a rate", "rate(90 minutes)", "Europe/Berlin", "2026-01-01 00:10:00", []string{"Thu 2026-01-01 01:40 CET", "Thu 2026-01-01 03:10 CET"}},
		{"a rate of days has no winter time", "rate(1 day)", "Europe/Berlin", "2026-10-24 12:00:00", []string{"Sun 2026-10-25 11:00 CET"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := firings(t, c.expression, c.zone, c.after, max(1, len(c.want)))
			if diff := cmp.Diff(append([]string{}, c.want...), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.expression, diff)
			}
		})
	}
}

func TestExpressionsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ expression, because string }{
		{"", "must be cron(…), rate(…) or at(…)"},
		{"every(1 day)", "must be cron(…), rate(…) or at(…)"},
		{"cron(0 10 * * ? *", "must be cron(…), rate(…) or at(…)"},
		{"Cron(0 10 * * ? *)", "must be cron(…), rate(…) or at(…)"},
		{"*/5 * * * *", "must be cron(…), rate(…) or at(…)"},
		{"cron(0 10 * * ?)", "has six fields, minutes hours day-of-month month day-of-week year, and here are 5"},
		{"cron(0 10 * * * *)", "Exactly one of day-of-month and day-of-week must be \"?\""},
		{"cron(0 10 ? * ? *)", "Exactly one of day-of-month and day-of-week must be \"?\""},
		{"cron(0 10 1 * MON *)", "Exactly one of day-of-month and day-of-week must be \"?\""},
		{"cron(60 10 * * ? *)", "The minutes takes 0 to 59, and \"60\" is something else"},
		{"cron(0 24 * * ? *)", "The hours takes 0 to 23"},
		{"cron(0 0 32 * ? *)", "The day-of-month takes 1 to 31"},
		{"cron(0 0 0W * ? *)", "The day-of-month takes 1 to 31, and \"0\""},
		{"cron(0 0 1-5W * ? *)", "The day-of-month takes 1 to 31, and \"1-5\""},
		{"cron(0 0 L-3 * ? *)", "The day-of-month takes 1 to 31, and \"L\""},
		{"cron(0 0 1,L * ? *)", "The day-of-month takes 1 to 31, and \"L\""},
		{"cron(0 0 1 13 ? *)", "The month takes 1 to 12 or JAN to DEC, and \"13\""},
		{"cron(0 0 1 JANUARY ? *)", "The month takes 1 to 12 or JAN to DEC"},
		{"cron(0 0 ? * 0 *)", "The day-of-week takes 1 to 7 or SUN to SAT, and \"0\""},
		{"cron(0 0 ? * 2/2 *)", "The day-of-week takes no \"/\""},
		{"cron(0 0 ? * 3#6 *)", "there must be one number from 1 to 5, and it is \"6\""},
		{"cron(0 0 ? * 3#1,6#3 *)", "there must be one number from 1 to 5, and it is \"1,6#3\""},
		{"cron(0 0 ? * 3L,4 *)", "The day-of-week takes 1 to 7 or SUN to SAT, and \"3L\""},
		{"cron(0 0 1 1 ? 1969)", "The year takes 1970 to 2199"},
		{"cron(0 0 1 1 ? 2030-2027)", "In the year, 2030-2027 ends before it begins"},
		{"cron(*/0 0 1 1 ? *)", "After \"/\" in the minutes there must be a number from 1 on, and it is \"0\""},
		{"cron(/5 0 1 1 ? *)", "The minutes takes 0 to 59, and \"\""},
		{"cron(1, 0 1 1 ? *)", "The minutes takes 0 to 59, and \"\""},
		{"cron(+1 0 1 1 ? *)", "The minutes takes 0 to 59, and \"+1\""},
		{"rate(5)", "takes a number and a unit"},
		{"rate(0 minutes)", "must be a whole number from 1 on, and it is \"0\""},
		{"rate(1.5 hours)", "must be a whole number from 1 on"},
		{"rate(5 seconds)", "must be minutes, hours or days, and it is \"seconds\""},
		{"rate(1 minutes)", "It is rate(1 minute), with the unit in the singular for 1"},
		{"rate(2 minute)", "It is rate(2 minutes), with the unit"},
		{"rate(3 day)", "It is rate(3 days)"},
		{"rate(99999999 days)", "at most ten years"},
		{"at(2026-03-01)", "takes a local time like"},
		{"at(2026-03-01T09:30:00Z)", "takes a local time like"},
		{"at(2026-02-30T09:30:00)", "takes a local time like"},
		{"rate(1 day)" + strings.Repeat(" ", 300), "longer than 256 characters"},
	} {
		if _, err := Parse(c.expression); err == nil || !strings.Contains(err.Error(), c.because) {
			t.Errorf("%q: got %v, want one that says: %s", c.expression, err, c.because)
		}
	}
}

// matches is the oracle: it says of one field whether it takes a number, by another way than the parser's.
func matches(field string, n, min, max int) bool {
	for _, part := range strings.Split(field, ",") {
		from, to, step := 0, 0, 1
		span, by, stepped := strings.Cut(part, "/")
		if stepped {
			step = atoi(by)
		}
		first, last, ranged := strings.Cut(span, "-")
		switch {
		case span == "*":
			from, to = min, max
		case ranged:
			from, to = atoi(first), atoi(last)
		case stepped:
			from, to = atoi(first), max
		default:
			from, to = atoi(first), atoi(first)
		}
		for i := from; i <= to; i += step {
			if i == n {
				return true
			}
		}
	}
	return false
}

func atoi(s string) (n int) {
	for _, c := range s {
		n = 10*n + int(c-'0')
	}
	return n
}

// fires says whether a cron expression takes a local time.
func fires(fields []string, at time.Time) bool {
	if !matches(fields[0], at.Minute(), 0, 59) || !matches(fields[1], at.Hour(), 0, 23) ||
		!matches(fields[3], int(at.Month()), 1, 12) || !matches(fields[5], at.Year(), minYear, maxYear) {
		return false
	}
	last := time.Date(at.Year(), at.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day()
	day, week := true, true
	switch dom := fields[2]; {
	case dom == "?":
	case dom == "L":
		day = at.Day() == last
	case strings.HasSuffix(dom, "W"):
		want := last
		if dom != "LW" {
			want = atoi(strings.TrimSuffix(dom, "W"))
		}
		day = false
		for _, off := range []int{0, -1, 1, -2, 2} { // the nearest first, to Friday before to Monday, as a Saturday or Sunday needs it
			d := time.Date(at.Year(), at.Month(), want+off, 0, 0, 0, 0, time.UTC)
			if want <= last && d.Month() == at.Month() && d.Weekday() >= time.Monday && d.Weekday() <= time.Friday {
				day = at.Day() == want+off
				break
			}
		}
	default:
		day = matches(dom, at.Day(), 1, 31)
	}
	weekday := int(at.Weekday()) + 1
	switch dow := fields[4]; {
	case dow == "?":
	case dow == "L":
		week = weekday == 7
	case strings.HasSuffix(dow, "L"):
		week = weekday == atoi(dow[:1]) && at.Day() > last-7
	case strings.Contains(dow, "#"):
		week = weekday == atoi(dow[:1]) && (at.Day()+6)/7 == atoi(dow[2:])
	default:
		week = matches(dow, weekday, 1, 7)
	}
	return day && week
}

// numbers draws a field of numbers.
func numbers(min, max int, steps bool) *rapid.Generator[string] {
	value := rapid.IntRange(min, max)
	return rapid.Custom(func(t *rapid.T) string {
		var parts []string
		for range rapid.IntRange(1, 3).Draw(t, "parts") {
			from := value.Draw(t, "from")
			to := rapid.IntRange(from, max).Draw(t, "to")
			forms := []string{itoa(from), itoa(from) + "-" + itoa(to), "*"}
			if steps {
				step := itoa(rapid.IntRange(1, max-min+1).Draw(t, "step"))
				forms = append(forms, itoa(from)+"/"+step, itoa(from)+"-"+itoa(to)+"/"+step, "*/"+step)
			}
			parts = append(parts, rapid.SampledFrom(forms).Draw(t, "form"))
		}
		return strings.Join(parts, ",")
	})
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

// TestCronFiresAtTheMinutesThatAWalkFinds holds Next to a walk through every minute of some days, in zones that change
// their clocks in those days, and elsewhere.
func TestCronFiresAtTheMinutesThatAWalkFinds(t *testing.T) {
	turns := []struct {
		zone string
		at   time.Time // near a change of the clocks
	}{
		{"UTC", time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC)},
		{"Europe/Berlin", time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC)},
		{"Europe/Berlin", time.Date(2026, 10, 25, 1, 0, 0, 0, time.UTC)},
		{"America/New_York", time.Date(2026, 11, 1, 6, 0, 0, 0, time.UTC)},
		{"America/Santiago", time.Date(2026, 9, 6, 4, 0, 0, 0, time.UTC)},
		{"America/Havana", time.Date(2026, 11, 1, 5, 0, 0, 0, time.UTC)},
		{"Australia/Lord_Howe", time.Date(2026, 4, 4, 15, 0, 0, 0, time.UTC)},
		{"Asia/Kathmandu", time.Date(2026, 12, 31, 18, 15, 0, 0, time.UTC)},
		{"Pacific/Apia", time.Date(2011, 12, 30, 10, 0, 0, 0, time.UTC)},
		{"Africa/Casablanca", time.Date(2026, 2, 15, 2, 0, 0, 0, time.UTC)},
	}
	rapid.Check(t, func(t *rapid.T) {
		turn := rapid.SampledFrom(turns).Draw(t, "turn")
		z := zone(t, turn.zone)
		day := rapid.OneOf(
			numbers(1, 31, true), rapid.Just("*"), rapid.SampledFrom([]string{"L", "LW", "1W", "15W", "28W", "30W", "31W"}),
		).Draw(t, "day of month")
		week := "?"
		if rapid.Bool().Draw(t, "by week") {
			day = "?"
			week = rapid.OneOf(numbers(1, 7, false), rapid.SampledFrom([]string{"L", "1L", "6L", "7#1", "1#5", "2#4"})).Draw(t, "day of week")
		}
		fields := []string{
			numbers(0, 59, true).Draw(t, "minutes"), rapid.OneOf(rapid.Just("*"), numbers(0, 23, true)).Draw(t, "hours"), day,
			rapid.OneOf(rapid.Just("*"), numbers(1, 12, true)).Draw(t, "month"), week, rapid.SampledFrom([]string{"*", "2011-2026", "2026/2"}).Draw(t, "year"),
		}
		text := "cron(" + strings.Join(fields, " ") + ")"
		e, err := Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}

		from := turn.at.Add(time.Duration(rapid.IntRange(-30*60, 10*60).Draw(t, "minutes before")) * time.Minute)
		to := from.Add(20 * time.Hour)
		local := func(m time.Time) int64 { // what the clocks show, in minutes
			_, offset := m.In(z).Zone()
			return (m.Unix() + int64(offset)) / 60
		}
		shown := map[int64]bool{} // before
		for m := from.Add(-3 * time.Hour); !m.After(from); m = m.Add(time.Minute) {
			shown[local(m)] = true
		}
		var want, got []string
		for m := from.Add(time.Minute); !m.After(to); m = m.Add(time.Minute) {
			if !shown[local(m)] && fires(fields, m.In(z)) {
				want = append(want, m.UTC().Format("2006-01-02 15:04"))
			}
			shown[local(m)] = true
		}
		for at := e.Next(from, z, from); !at.IsZero() && !at.After(to); at = e.Next(at, z, from) {
			got = append(got, at.UTC().Format("2006-01-02 15:04"))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s in %s from %s (-walk +next):\n%s", text, turn.zone, from, diff)
		}
	})
}

// FuzzParse: nothing that can be sent makes the parser or the calendar panic, and firings come after the time asked for.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"cron(0/15 8-18 ? * MON-FRI *)", "cron(0 0 LW * ? 2030/3)", "cron(0 0 ? * 6L *)", "cron(0 0 ? * TUE#2 *)", "cron(0 0 31W 2 ? *)",
		"rate(5 minutes)", "rate(1 day)", "at(2027-01-31T09:30:00)", "cron(59 23 31 12 ? 2199)", "cron()", "at(0000-01-01T00:00:00)", "at(9999-12-31T23:59:59)",
	} {
		f.Add(seed)
	}
	z := zone(f, "Europe/Berlin")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse(text)
		if err != nil {
			return
		}
		after := time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC)
		for range 3 {
			next := e.Next(after, z, after)
			if next.IsZero() {
				return
			}
			if !next.After(after) {
				t.Fatalf("%q fires at %s after %s", text, next, after)
			}
			after = next
		}
	})
}
