package webhook_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster/shared/id"
	"muster/shared/record"
	"muster/shared/storetest"
	"muster/shared/webhook"
)

func TestBreaker(t *testing.T) {
	fail, take := webhook.Outcome{Failed: 1}, webhook.Outcome{Taken: 1}
	of := func(all ...any) (outcomes []webhook.Outcome) { // numbers and outcomes in turn
		for i := 0; i < len(all); i += 2 {
			for range all[i].(int) {
				outcomes = append(outcomes, all[i+1].(webhook.Outcome))
			}
		}
		return outcomes
	}
	for _, c := range []struct {
		name     string
		outcomes []webhook.Outcome
		every    time.Duration
		want     webhook.HealthState
	}{
		{"nine failures", of(9, fail), time.Second, webhook.Well},
		{"ten failures", of(10, fail), time.Second, webhook.Open},
		{"ten failures in ten minutes", of(10, fail), time.Minute, webhook.Well},
		{"seven in ten", of(1, fail, 3, take, 6, fail), time.Second, webhook.Open},
		{"six in ten", of(1, fail, 4, take, 5, fail), time.Second, webhook.Well},
		{"successes before the first failure do not count", of(100, take, 10, fail), time.Second, webhook.Open},
		{"one in ten for long", of(1, fail, 9, take, 1, fail, 9, take, 1, fail, 9, take), time.Second, webhook.Well},
	} {
		var h webhook.Health
		at := now
		for _, o := range c.outcomes {
			h.Note(o, at)
			at = at.Add(c.every)
		}
		if h.State != c.want {
			t.Errorf("%s: the breaker is %q, want %q", c.name, h.State, c.want)
		}
	}
}

func TestProbesAreFurtherAndFurtherApart(t *testing.T) {
	var h webhook.Health
	at := now
	for range 10 {
		h.Note(webhook.Outcome{Failed: 1}, at)
	}
	for _, want := range []time.Duration{1, 2, 4, 8, 15, 15, 15} {
		if pause := h.Due.Sub(at); pause != want*time.Minute || h.State != webhook.Open {
			t.Fatalf("the next probe is in %s, want %d minutes; the breaker is %q", pause, want, h.State)
		}
		at = h.Due
		h.State, h.Probe = webhook.Probing, "del_1"
		h.Note(webhook.Outcome{Failed: 1, Probe: true}, at)
	}
	h.State, h.Probe = webhook.Probing, "del_1"
	h.Note(webhook.Outcome{Taken: 1, Probe: true}, at)
	if h.State != webhook.Well || h.Drain.IsZero() || !h.Due.Equal(at) || len(h.News) != 1 || !h.FailingSince.IsZero() {
		t.Errorf("after a probe was taken: %+v", h)
	}
}

func TestWhoIsDisabled(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name string
		at   []time.Duration
		take int // which of them is taken
		want webhook.DisabledBy
	}{
		{"failures for less than five days", []time.Duration{0, day, 2 * day, 3 * day, 4 * day, 5*day - time.Second}, -1, ""},
		{"failures for five days", []time.Duration{0, day, 2 * day, 3 * day, 4 * day, 5 * day}, -1, webhook.ByFailing},
		{"one success in between", []time.Duration{0, day, 2 * day, 3 * day, 4 * day, 5 * day, 6 * day}, 2, ""},
		{"a failure a week", []time.Duration{0, 7 * day, 14 * day, 21 * day}, -1, ""},
		{"two bad days a week", []time.Duration{0, day, 7 * day, 8 * day}, -1, ""},
	} {
		var h webhook.Health
		var got webhook.DisabledBy
		for i, in := range c.at {
			o := webhook.Outcome{Failed: 1}
			if i == c.take {
				o = webhook.Outcome{Taken: 1}
			}
			got = h.Note(o, now.Add(in))
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := new(webhook.Health).Note(webhook.Outcome{Failed: 1, Gone: true}, now); got != webhook.ByGone {
		t.Errorf("one 410: %q", got)
	}
}

// Whatever happens, an endpoint that is not well is looked at again, and what is taken is no trouble.
func TestTroubleIsAlwaysLookedAtAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h webhook.Health
		at := now
		for range rapid.IntRange(1, 60).Draw(t, "acts") {
			at = at.Add(time.Duration(rapid.IntRange(0, 400).Draw(t, "seconds")) * time.Second)
			switch rapid.IntRange(0, 7).Draw(t, "act") {
			case 0, 1, 2:
				h.Note(webhook.Outcome{Failed: 1, Probe: h.Probe != ""}, at)
			case 3:
				calm := h.Calm(at)
				before := h
				if h.Note(webhook.Outcome{Taken: 1, Probe: h.Probe != ""}, at); calm && (h.State != before.State || !h.Due.Equal(before.Due) || h.Tries != 0) {
					t.Fatalf("nothing needed to be written, but %+v became %+v", before, h)
				}
			case 4:
				if h.State != webhook.Well {
					h.State, h.Probe, h.Due = webhook.Probing, "del_1", at.Add(2*time.Minute)
				}
			case 5:
				if h.State != webhook.Well {
					h.Idle(at)
				}
			case 6:
				if h.State == webhook.Well && !h.Drain.IsZero() {
					n := h.Next(0, at)
					h.Released(rapid.IntRange(0, n).Draw(t, "found"), n, at)
				}
			case 7:
				h.Overflow(at)
			}
			if (h.State != webhook.Well || !h.Drain.IsZero()) && h.Due.IsZero() {
				t.Fatalf("nobody looks at %+v again", h)
			}
			if h.StillParks(at) && h.State == webhook.Well && h.Drained(at) {
				t.Fatalf("a release is over although something may just have been parked: %+v", h)
			}
		}
	})
}

func TestHealthIsKeptBesideItsEndpoint(t *testing.T) {
	ctx, store := t.Context(), &storetest.Memory{}
	all := webhook.Endpoints{Store: store, Now: func() time.Time { return now }}
	e := endpoint(id.New())
	if err := all.Create(ctx, &e); err != nil {
		t.Fatal(err)
	}
	reads := store.Reads
	found, h, err := all.Read(ctx, e.DeploymentID, e.ID)
	if err != nil || found == nil || found.ID != e.ID || store.Reads != reads+1 {
		t.Fatalf("%+v, %v after %d reads", found, err, store.Reads-reads)
	}
	other := h
	for range 10 {
		if err := all.ChangeHealth(ctx, &h, func(h *webhook.Health) bool { h.Note(webhook.Outcome{Failed: 1}, now); return true }); err != nil {
			t.Fatal(err)
		}
	}
	// Somebody who has read it before changes what is there now.
	if err := all.ChangeHealth(ctx, &other, func(h *webhook.Health) bool { h.Hold = now.Add(time.Hour); return true }); err != nil {
		t.Fatal(err)
	}
	if _, h, err = all.Read(ctx, e.DeploymentID, e.ID); err != nil || h.State != webhook.Open || h.Hold.IsZero() || h.Due.IsZero() {
		t.Errorf("it is %+v, %v", h, err)
	}
	if all, err := all.Of(ctx, e.DeploymentID); err != nil || len(all) != 1 {
		t.Errorf("health is taken for an endpoint: %d, %v", len(all), err)
	}
	if err := all.ForgetHealth(ctx, other); err != nil {
		t.Fatal(err)
	}
	if found, h, err = all.Read(ctx, e.DeploymentID, e.ID); err != nil || found == nil || !h.Calm(now) {
		t.Errorf("forgotten, it is %+v, %v", h, err)
	}

	dep, ep, ok := webhook.HealthOf(record.Key{Part: "W#" + e.DeploymentID, Sort: "OUT#" + e.ID + "#HEALTH"})
	if !ok || dep != e.DeploymentID || ep != e.ID {
		t.Errorf("its key is read as %q, %q, %t", dep, ep, ok)
	}
	for _, k := range []record.Key{{Part: "W#d", Sort: "OUT#e"}, {Part: "R#r", Sort: "OUT#e#HEALTH"}, {Part: "W#d", Sort: "OF"}} {
		if _, _, ok := webhook.HealthOf(k); ok {
			t.Errorf("%+v is taken for health", k)
		}
	}
}

func TestHealthInAStoreThatIsDown(t *testing.T) {
	down := errors.New("down")
	store := &storetest.Memory{Before: func(record.Record) error { return down }}
	all := webhook.Endpoints{Store: store, Now: func() time.Time { return now }}
	_, h, err := all.Read(context.Background(), id.New(), id.New())
	if err != nil {
		t.Fatal(err)
	}
	before := h
	if err := all.ChangeHealth(t.Context(), &h, func(h *webhook.Health) bool { h.Tries = 7; return true }); !errors.Is(err, down) || h.Tries != before.Tries {
		t.Errorf("%v, and it is %+v", err, h)
	}
}

func TestSlotsAreSpreadOverTheSecond(t *testing.T) {
	var h webhook.Health
	for i := range 10 {
		if slot := h.Reserve(4, now); !slot.Equal(now.Add(time.Duration(i) * 250 * time.Millisecond)) {
			t.Errorf("slot %d is %s after now", i, slot.Sub(now))
		}
	}
	if slot := h.Reserve(4, now.Add(time.Hour)); !slot.Equal(now.Add(time.Hour)) {
		t.Errorf("after an hour of silence the slot is at %s", slot)
	}
}
