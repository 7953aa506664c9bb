package webhook

import (
	"net/http"
	"testing"
	"time"
)

func TestPauses(t *testing.T) {
	want := []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour}
	var sum time.Duration
	for i, step := range want {
		pause, ok := Pause("delivery", i+1, 0)
		if !ok || pause < step*11/10 || pause > step*12/10 {
			t.Errorf("after attempt %d: %s, %t; want %s and 10 to 20 %%", i+1, pause, ok, step)
		}
		if again, _ := Pause("delivery", i+1, 0); again != pause {
			t.Errorf("after attempt %d: once %s and once %s", i+1, pause, again)
		}
		sum += step
	}
	if sum.Round(6*time.Minute) != 27*time.Hour+36*time.Minute {
		t.Errorf("the schedule lasts %s", sum)
	}
	for _, attempt := range []int{-1, 0, 8, 9} {
		if pause, ok := Pause("delivery", attempt, time.Hour); ok {
			t.Errorf("after attempt %d: %s", attempt, pause)
		}
	}
	seen := map[time.Duration]bool{}
	for _, id := range []string{"a", "b", "c", "d"} {
		pause, _ := Pause(id, 3, 0)
		seen[pause] = true
	}
	if len(seen) != 4 {
		t.Errorf("four deliveries share %d pauses", len(seen))
	}
}

func TestHints(t *testing.T) {
	for _, c := range []struct {
		name    string
		attempt int
		hint    time.Duration
		least   time.Duration
	}{
		{"shorter than the step", 2, time.Second, 5 * time.Minute},
		{"longer than the step", 1, 90 * time.Second, 90 * time.Second},
		{"a year", 1, 365 * 24 * time.Hour, 10 * time.Hour},
	} {
		if got, ok := Pause("delivery", c.attempt, c.hint); !ok || got < c.least*11/10 || got > c.least*12/10 {
			t.Errorf("%s: %s, want %s and 10 to 20 %%", c.name, got, c.least)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name   string
		values []string
		want   time.Duration
	}{
		{"none", nil, 0},
		{"seconds", []string{"120"}, 2 * time.Minute},
		{"seconds with space", []string{" 7 "}, 7 * time.Second},
		{"zero", []string{"0"}, 0},
		{"a date", []string{"Sun, 01 Mar 2026 12:01:30 GMT"}, 90 * time.Second},
		{"a date of RFC 850", []string{"Sunday, 01-Mar-26 12:01:30 GMT"}, 90 * time.Second},
		{"a past date", []string{"Sun, 01 Mar 2026 11:00:00 GMT"}, 0},
		{"a date in a year", []string{"Mon, 01 Mar 2027 12:00:00 GMT"}, 10 * time.Hour},
		{"a year of seconds", []string{"31536000"}, 10 * time.Hour},
		{"more digits than a number has", []string{"99999999999999999999999"}, 10 * time.Hour},
		{"negative", []string{"-5"}, 0},
		{"an exponent", []string{"1e9"}, 0},
		{"a fraction", []string{"1.5"}, 0},
		{"a word", []string{"abc"}, 0},
		{"empty", []string{""}, 0},
		{"a list", []string{"5, 10"}, 0},
		{"two headers", []string{"5", "10"}, 10 * time.Second},
		{"two headers, one malformed", []string{"soon", "10"}, 10 * time.Second},
	} {
		if got := RetryAfter(http.Header{"Retry-After": c.values}, now); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"5", "-1", "1e9", "Sun, 01 Mar 2026 12:01:30 GMT", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if got := RetryAfter(http.Header{"Retry-After": {value}}, time.Unix(1772366400, 0)); got < 0 || got > maxHint {
			t.Errorf("%q: %s", value, got)
		}
	})
}
