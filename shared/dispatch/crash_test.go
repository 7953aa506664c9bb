package dispatch_test

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/shared/mean"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/webhook"
)

var every = flag.Int("every", 37, "let each so-many-th call be the one that fails or kills; 1 is all")

// sending is a queue of which only the sending half is used.
type sending struct {
	queue.Queue
	*outbox
}

func (s sending) Send(ctx context.Context, m ...queue.Message) error { return s.outbox.Send(ctx, m...) }

// trouble runs an endpoint through everything that may happen to it: healthy deliveries, failures until the breaker opens,
// parking, probes, recovery and release, a wait that it asks for, being disabled and enabled, and the end of the run.
func trouble(t *testing.T, h *hall, r *moody, e webhook.Endpoint) {
	h.tell(e, run.StepPage)
	h.pass(t, time.Second)
	r.say(503)
	for range 12 {
		h.tell(e, run.StepPage)
	}
	h.pass(t, 4*time.Minute)
	r.say(429, "Retry-After", "20")
	h.pass(t, 2*time.Minute)
	r.say(200)
	h.pass(t, 10*time.Minute)
	h.change(t, e, func(e *webhook.Endpoint) { e.Enabled = false })
	for range 3 {
		h.tell(e, run.StepPage)
	}
	h.tell(e, run.EndPage)
	h.pass(t, 20*time.Minute)
	if err := h.all().Resume(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	h.change(t, e, func(e *webhook.Endpoint) { e.Enabled = true })
	h.pass(t, 48*time.Hour)
}

// Whatever call of the store or the queue fails, before it has happened or after, or is the last of its process: nothing is
// lost, and a crash makes at most one POST twice, under the same id.
func TestNothingOfAnEndpointIsLostWhereverItBreaks(t *testing.T) {
	calls := 0
	for _, how := range []string{"nothing", "fails before", "fails after", "dies before", "dies after"} {
		first, last := 1+7*len(how)%*every, calls
		if how == "nothing" {
			last = first
		}
		for n := first; n <= last; n += *every {
			h := newHall(t)
			r := newMoody(t, 200)
			e := h.endpoint(t, r.URL, nil)
			m := mean.New(0)
			m.Odds = mean.Odds{}
			var dead atomic.Bool
			m.Plan = func(c mean.Call) mean.Fate {
				switch {
				case dead.Load():
					return mean.Before
				case how == "nothing" || c.N != n:
					return mean.Fine
				}
				dead.Store(strings.HasPrefix(how, "dies"))
				if strings.HasSuffix(how, "after") {
					return mean.After
				}
				return mean.Before
			}
			h.Store, h.Queue = m.Store(h.store.Store), m.Queue(sending{outbox: h.queue})
			// A process that has died gives no answer: its message is seen again when it is not hidden any more.
			h.born = func() (died bool) { return dead.Swap(false) }
			trouble(t, h, r, e)
			if how == "nothing" {
				calls = len(m.Calls())
			}
			name := how
			if n <= len(m.Calls()) {
				name = fmt.Sprintf("call %d of %d (%s) %s", n, calls, m.Calls()[n-1].What, how)
			}
			check(t, name, h, r, e, min(m.Faults(), 1))
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d calls", calls)
}

// The same on a bad day: calls fail by chance, indexes are behind, messages come twice and late.
func TestNothingOfAnEndpointIsLostOnABadDay(t *testing.T) {
	for seed := range uint64(3) {
		h := newHall(t)
		r := newMoody(t, 200)
		e := h.endpoint(t, r.URL, nil)
		m := mean.New(seed)
		h.Store, h.Queue = m.Store(h.store.Store), m.Queue(sending{outbox: h.queue})
		trouble(t, h, r, e)
		m.Odds = mean.Odds{}
		h.pass(t, 48*time.Hour)
		check(t, fmt.Sprint("seed ", seed), h, r, e, m.Faults())
	}
}

func check(t *testing.T, name string, h *hall, r *moody, e webhook.Endpoint, faults int) {
	t.Helper()
	all, err := webhook.Deliveries{Store: h.store.Store}.OfRun(t.Context(), h.runs.run.ID)
	if err != nil {
		t.Fatal(err)
	}
	taken := map[string]int{}
	for _, q := range r.took() {
		taken[q]++
	}
	if len(all) != len(h.runs.pages) {
		t.Errorf("%s: %d of %d deliveries have a record", name, len(all), len(h.runs.pages))
	}
	twice := 0
	for _, d := range all {
		if d.Status != webhook.Succeeded || taken[d.Shown()] == 0 {
			t.Errorf("%s: %s was taken %d times, its record is %+v", name, d.Shown(), taken[d.Shown()], d)
		}
		twice += taken[d.Shown()] - 1
	}
	if twice > faults {
		t.Errorf("%s: %d POSTs were taken twice", name, twice)
	}
	if health := h.health(t, e); !health.Due.IsZero() || health.State != webhook.Well {
		t.Errorf("%s: in the end its health is %+v", name, health)
	}
	if h.runs.times() == 0 {
		t.Errorf("%s: nobody was told of the end", name)
	}
	left, err := h.store.Due(t.Context(), record.Shard("R#"+h.runs.run.ID), h.clock().Add(1000*time.Hour), 100)
	if err != nil || len(left) != 0 {
		t.Errorf("%s: still due: %v, %v", name, left, err)
	}
}
