package webhook_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
	"muster/shared/storetest"
	"muster/shared/webhook"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestADeliverysIDIsAFunctionOfItsPlace(t *testing.T) {
	runID := id.New()
	first := webhook.New(runID, 7, "t1", "0", "amp.step", now)
	again := webhook.New(runID, 7, "t1", "0", "amp.step", now.Add(time.Hour))
	if first.ID != again.ID || strings.Contains(first.Shown(), ".") || !strings.HasPrefix(first.Shown(), "del_") {
		t.Errorf("ids %s and %s, shown as %s", first.ID, again.ID, first.Shown())
	}
	seen := map[string]bool{first.ID: true}
	for _, other := range []webhook.Delivery{
		webhook.New(runID, 7, "t1", "0a", "amp.step", now), webhook.New(runID, 7, "t1", "1", "amp.step", now),
		webhook.New(runID, 7, "t2", "0", "amp.step", now), webhook.New(runID, 8, "t1", "0", "amp.step", now),
		webhook.New(id.New(), 7, "t1", "0", "amp.step", now),
	} {
		if seen[other.ID] {
			t.Errorf("%+v has the id of another delivery", other)
		}
		seen[other.ID] = true
	}
}

func TestDeliveriesAreKept(t *testing.T) {
	ctx, db := t.Context(), &storetest.Memory{}
	s := webhook.Deliveries{Store: db}
	runID := id.New()
	now := time.Now().UTC().Truncate(time.Millisecond)
	d := webhook.New(runID, 7, "t1", "0", "amp.step", now)
	if _, err := s.Get(ctx, runID, 7, "t1", "0"); !fault.Is(err, fault.NotFound) {
		t.Fatalf("a delivery that was never tried: %v", err)
	}
	d.Add(webhook.Attempt{At: now, LatencyMS: 12, Code: 500, Class: "status", Error: "The receiver answered 500.", Response: "oops"})
	d.Status, d.NextAttempt, d.Due = webhook.Failed, now.Add(time.Hour), now.Add(time.Hour)
	if err := s.Put(ctx, &d); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(ctx, runID, 7, "t1", "0")
	if diff := cmp.Diff(d, got, cmpopts.IgnoreUnexported(webhook.Delivery{})); diff != "" || err != nil {
		t.Fatalf("%v\n%s", err, diff)
	}

	due, err := db.Due(ctx, record.Shard("R#"+runID), now.Add(time.Hour), 10)
	if len(due) != 1 || err != nil {
		t.Fatalf("due: %v, %v", due, err)
	}
	if got, err = s.At(ctx, due[0].Key); got.ID != d.ID || err != nil {
		t.Errorf("at the key that is due: %v, %v", got, err)
	}

	stale := webhook.New(runID, 7, "t1", "0", "amp.step", now)
	err = s.Put(ctx, &stale)
	if there, ok := webhook.Current(err); !fault.Is(err, fault.Conflict) || !ok || there.Status != webhook.Failed {
		t.Errorf("a second first record: %v, %+v", err, there)
	}
	for _, place := range []struct {
		seq          int
		target, part string
	}{{7, "t1", "0a"}, {7, "t11", "0"}, {8, "t1", "0"}} {
		other := webhook.New(runID, place.seq, place.target, place.part, "amp.step", now)
		if err := s.Put(ctx, &other); err != nil {
			t.Fatal(err)
		}
	}
	for target, want := range map[string]int{"t1": 2, "t11": 1, "": 3} {
		if all, err := s.OfPage(ctx, runID, 7, target); len(all) != want || err != nil {
			t.Errorf("page 7, target %q: %d deliveries, %v; want %d", target, len(all), err, want)
		}
	}
}

func TestARecordIsBoundedHoweverOftenADeliveryIsTried(t *testing.T) {
	d := webhook.New(id.New(), 1, "t1", "0", "amp.step", now)
	for range 100 {
		d.Add(webhook.Attempt{Response: strings.Repeat("é", 8<<10)})
	}
	if len(d.Attempts) != 20 || d.Made() != 100 || d.Tries() != 100 {
		t.Errorf("%d attempts are kept of %d, %d in this round", len(d.Attempts), d.Made(), d.Tries())
	}
	for i, a := range d.Attempts {
		if newest := i == 19; newest && len(a.Response) != 16<<10 || !newest && (len(a.Response) != 1<<10 || !a.Truncated) {
			t.Errorf("attempt %d keeps %d bytes of its response", i, len(a.Response))
		}
	}
}

func TestRedeliver(t *testing.T) {
	at, due := now.Add(time.Minute), now.Add(2*time.Minute)
	tried := []webhook.Attempt{{Code: 500}, {Code: 500}}
	for _, c := range []struct {
		name         string
		before, want webhook.Delivery
	}{
		{"what is over begins a new round", webhook.Delivery{Status: webhook.Exhausted, Attempts: tried},
			webhook.Delivery{Status: webhook.Pending, Attempts: tried, Before: 2, NextAttempt: at, Due: due, Asked: true}},
		{"what succeeded, too", webhook.Delivery{Status: webhook.Succeeded, Attempts: tried, Forgotten: 3},
			webhook.Delivery{Status: webhook.Pending, Attempts: tried, Forgotten: 3, Before: 5, NextAttempt: at, Due: due, Asked: true}},
		{"what was cut in two is whole again", webhook.Delivery{Status: webhook.Canceled, Halved: true, Attempts: tried},
			webhook.Delivery{Status: webhook.Pending, Attempts: tried, Before: 2, NextAttempt: at, Due: due, Asked: true}},
		{"a pending retry comes earlier, in the same round", webhook.Delivery{Status: webhook.Failed, Attempts: tried, NextAttempt: now.Add(time.Hour), Due: now.Add(time.Hour)},
			webhook.Delivery{Status: webhook.Failed, Attempts: tried, NextAttempt: at, Due: due, Asked: true}},
		{"what is parked is not any more", webhook.Delivery{Status: webhook.Pending, Parked: true},
			webhook.Delivery{Status: webhook.Pending, NextAttempt: at, Due: due, Asked: true}},
	} {
		c.before.Redeliver(at, due)
		if diff := cmp.Diff(c.want, c.before, cmpopts.IgnoreUnexported(webhook.Delivery{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestPartNames(t *testing.T) {
	for part, want := range map[string]struct {
		index  int
		halves string
	}{"0": {0, ""}, "12": {12, ""}, "0a": {0, "a"}, "3abba": {3, "abba"}} {
		index, halves, err := webhook.SplitPart(part)
		if index != want.index || halves != want.halves || err != nil {
			t.Errorf("SplitPart(%q) = %d, %q, %v", part, index, halves, err)
		}
	}
	for _, part := range []string{"", "a", "00", "-1", "1c", "a1", "1a1", "+1", "1 ", "99999999999999999999"} {
		if index, halves, err := webhook.SplitPart(part); !fault.Is(err, fault.Invalid) {
			t.Errorf("SplitPart(%q) = %d, %q, %v", part, index, halves, err)
		}
	}
}

func TestADeliverysIDSaysWhichItIs(t *testing.T) {
	runID, endpoint := id.New(), id.New()
	for _, place := range []webhook.Place{
		{RunID: runID, Seq: 7, Target: "human_input", Part: "0"}, {RunID: runID, Seq: 123456, Target: endpoint, Part: "12abba"},
		{RunID: runID, Seq: 0, Target: endpoint, Part: "0"}, {RunID: runID, Seq: 1, Target: "t1", Part: "0"},
	} {
		d := webhook.New(place.RunID, place.Seq, place.Target, place.Part, "ping", now)
		if got, ok := webhook.ParseDeliveryID(d.Shown()); !ok || got != place || strings.ContainsAny(d.Shown(), ".-") {
			t.Errorf("%s is read as %+v, %t", d.Shown(), got, ok)
		}
	}
	good := webhook.New(runID, 7, "t1", "0", "ping", now).Shown()
	for _, bad := range []string{
		"", "del_", good[:36], good[:37], good + "x", good + "_", strings.Replace(good, "_7_", "_07_", 1), strings.Replace(good, "_7_", "_-7_", 1),
		strings.ToUpper(good), "run" + good[3:], strings.Replace(good, "_7_t1", "_7_", 1),
	} {
		if got, ok := webhook.ParseDeliveryID(bad); ok {
			t.Errorf("%q is read as %+v", bad, got)
		}
	}
}

func FuzzParseDeliveryID(f *testing.F) {
	f.Add(webhook.New(id.New(), 7, id.New(), "0ab", "ping", now).Shown())
	f.Add("del_")
	f.Fuzz(func(t *testing.T, shown string) {
		p, ok := webhook.ParseDeliveryID(shown)
		if ok && webhook.New(p.RunID, p.Seq, p.Target, p.Part, "", now).Shown() != shown {
			t.Errorf("%q is read as %+v", shown, p)
		}
	})
}
