package dispatch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/dispatch"
	"muster/shared/guard/guardtest"
	"muster/shared/id"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/storetest"
	"muster/shared/webhook"
)

// hall is a stage with endpoints, a queue that waits, and a sweeper that comes by every minute.
type hall struct {
	*stage
	waiting []waiting
	swept   time.Time
	// born is called when a process begins; one that died before has given no answer.
	born func() (died bool)
}

type waiting struct {
	at time.Time
	m  queue.Message
	n  int
}

func newHall(t testing.TB) *hall {
	records := &storetest.Memory{}
	h := &hall{stage: newStageOn(t, records)}
	records.Now = h.clock
	h.runs.run.Environment = crew.Production
	h.EndpointFormats = map[string]dispatch.Format{webhook.Crewship: named, webhook.AMPStream: batch}
	h.Notice = func(format string, n webhook.Notice) ([]byte, error) {
		return json.Marshal(map[string]any{"event": n.Event, "endpoint": n.About.Name, "why": n.Why})
	}
	h.Deployments = func(context.Context, string) ([]crew.Deployment, error) {
		return []crew.Deployment{{ID: h.runs.run.DeploymentID}}, nil
	}
	h.Pause = func(context.Context, time.Duration) {}
	h.swept = h.clock()
	return h
}

// named makes a body of each event that is asked for.
func named(_ run.Run, _ run.Request, p run.Page, t run.Target, _ []json.RawMessage) (bodies []webhook.Body, err error) {
	names := p.Lifecycle()
	for _, e := range p.Events {
		names = append(names, e.Type)
	}
	for _, name := range names {
		if t.Asks(name) {
			bodies = append(bodies, webhook.Body{JSON: fmt.Appendf(nil, `{"event":%q,"page":%d}`, name, p.Seq), Event: name})
		}
	}
	return bodies, nil
}

func (h *hall) all() webhook.Endpoints { return webhook.Endpoints{Store: h.store.Store, Now: h.clock} }

// endpoint registers an endpoint, as f wants it.
func (h *hall) endpoint(t testing.TB, url string, f func(*webhook.Endpoint)) webhook.Endpoint {
	t.Helper()
	e := webhook.Endpoint{
		ID: id.New(), WorkspaceID: h.runs.run.WorkspaceID, DeploymentID: h.runs.run.DeploymentID, Environment: crew.Production, Name: "hook",
		URL: url, Events: []string{"*"}, Format: webhook.Crewship, Enabled: true,
	}
	e.Secret = seal(e.WorkspaceID, e.ID, webhook.SecretField, secret)
	if f != nil {
		f(&e)
	}
	if err := h.all().Create(t.Context(), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// tell puts a page of one event and sends its message to an endpoint.
func (h *hall) tell(e webhook.Endpoint, kind run.PageKind) (seq int) {
	seq = len(h.runs.pages) + 1
	p := run.Page{Seq: seq, Kind: kind, Targets: []string{e.ID}}
	if kind == run.EndPage {
		p.Outcome = &run.Outcome{State: run.Succeeded}
	} else {
		p.Events = []events.Event{{ID: fmt.Sprint("e", seq), Type: "task_completed"}}
	}
	h.runs.pages[seq] = p
	h.enqueue(run.DeliveryMessage{Run: h.runs.run.ID, Seq: seq, Target: e.ID}.Message())
	return seq
}

func (h *hall) enqueue(all ...queue.Message) {
	for _, m := range all {
		h.waiting = append(h.waiting, waiting{at: h.clock().Add(m.Delay), m: m})
	}
}

// pass lets time pass: messages are handled when they are due, and the sweeper comes by every minute. Nothing is done at
// the same time as anything else.
func (h *hall) pass(t testing.TB, d time.Duration) {
	t.Helper()
	end := h.clock().Add(d)
	for {
		h.enqueue(h.queue.take()...)
		next := h.nextSweep()
		first := -1
		for i, w := range h.waiting {
			if !w.at.After(next) && (first < 0 || w.at.Before(h.waiting[first].at)) {
				first = i
			}
		}
		if first >= 0 {
			next = h.waiting[first].at
		}
		if next.After(end) {
			h.move(end)
			return
		}
		if next.After(h.clock()) {
			h.move(next)
		}
		if first < 0 {
			h.swept = next
			h.sweep(t)
			continue
		}
		w := h.waiting[first]
		h.waiting = slices.Delete(h.waiting, first, first+1)
		answer := h.Handle(t.Context(), queue.Received{Message: w.m, ID: "m", Receives: w.n + 1})
		if h.born != nil && h.born() {
			h.waiting = append(h.waiting, waiting{h.clock().Add(hidden), w.m, w.n + 1})
			continue
		}
		if reason, dropped := answer.Dropped(); dropped {
			t.Errorf("%s was dropped: %s", w.m.Body, reason)
		}
		if wait, retry := answer.Retry(); retry {
			h.waiting = append(h.waiting, waiting{h.clock().Add(max(wait, time.Second)), w.m, w.n + 1})
		}
	}
}

// nextSweep gives the next time when a sweep finds something.
func (h *hall) nextSweep() time.Time {
	next := h.swept.Add(time.Minute)
	records, ok := h.store.Store.(*storetest.Memory)
	if !ok {
		return next
	}
	var first time.Time
	for _, r := range records.Records {
		if !r.Due.IsZero() && (first.IsZero() || r.Due.Before(first)) {
			first = r.Due
		}
	}
	switch {
	case first.IsZero():
		return next.Add(1000 * time.Hour)
	case first.After(next):
		return next.Add(first.Sub(next).Truncate(time.Minute) + time.Minute)
	}
	return next
}

// sweep looks after what is due; what fails is due again.
func (h *hall) sweep(t testing.TB) {
	for shard := range record.Shards {
		due, err := h.store.Store.Due(t.Context(), shard, h.clock(), 10000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range due {
			if strings.HasPrefix(e.Part, "W#") {
				h.Tend(t.Context(), e.Key)
			} else {
				h.Parked(t.Context(), e.Key)
			}
			if h.born != nil {
				h.born()
			}
		}
	}
}

// hidden is how long a message is hidden from others while it is handled.
const hidden = 12 * time.Minute

func (h *hall) health(t testing.TB, e webhook.Endpoint) webhook.Health {
	t.Helper()
	_, health, err := h.all().Read(t.Context(), e.DeploymentID, e.ID)
	if err != nil {
		t.Fatal(err)
	}
	return health
}

// statuses counts the deliveries of an endpoint by where they stand.
func (h *hall) statuses(t testing.TB, e webhook.Endpoint) map[string]int {
	t.Helper()
	all, err := webhook.Deliveries{Store: h.store.Store}.OfRun(t.Context(), h.runs.run.ID)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, d := range all {
		if d.Target != e.ID {
			continue
		}
		if d.Parked {
			count["parked"]++
		} else {
			count[string(d.Status)]++
		}
	}
	return count
}

func (h *hall) change(t testing.TB, e webhook.Endpoint, f func(*webhook.Endpoint)) {
	t.Helper()
	if _, err := h.all().Change(t.Context(), e.ID, func(e *webhook.Endpoint) error { f(e); return nil }); err != nil {
		t.Fatal(err)
	}
}

// moody is a receiver whose answer can be changed.
type moody struct {
	*guardtest.Receiver
	code   atomic.Int64
	mu     sync.Mutex
	header http.Header
	taken  []string
}

// took gives the ids of what it took.
func (m *moody) took() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.taken)
}

func newMoody(t testing.TB, code int) *moody {
	m := &moody{header: http.Header{}}
	m.code.Store(int64(code))
	m.Receiver = guardtest.New(t, func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.code.Load() < 300 {
			m.taken = append(m.taken, r.Header.Get("webhook-id"))
		}
		for k, v := range m.header {
			w.Header()[k] = v
		}
		w.WriteHeader(int(m.code.Load()))
	})
	return m
}

func (m *moody) say(code int, headers ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.header = http.Header{}
	for i := 0; i < len(headers); i += 2 {
		m.header.Set(headers[i], headers[i+1])
	}
	m.code.Store(int64(code))
}

func TestAHealthyEndpointCostsOneWrite(t *testing.T) {
	h := newHall(t)
	r := newMoody(t, 200)
	e := h.endpoint(t, r.URL, func(e *webhook.Endpoint) {
		e.Headers = map[string]string{"X-Key": seal(e.WorkspaceID, e.ID, webhook.HeaderField("X-Key"), password)}
		e.Old, e.OldUntil = seal(e.WorkspaceID, e.ID, webhook.SecretField, oldSecret), h.clock().Add(time.Hour)
	})
	counted := &counting{Store: h.Store}
	h.Store = counted
	seq := h.tell(e, run.StepPage)
	if group := h.waiting[0].m.Group; group != e.ID {
		t.Errorf("the group is %q, want the endpoint", group)
	}
	h.pass(t, time.Second)
	got := r.Got()
	if len(got) != 1 || counted.puts.Load() != 1 || counted.scans.Load() != 2 {
		t.Fatalf("%d POSTs, %d writes and %d scans; want 1, 1 and 2", len(got), counted.puts.Load(), counted.scans.Load())
	}
	for _, one := range []string{secret, oldSecret} {
		if err := webhook.Verify(one, got[0].Header, got[0].Body, h.clock()); err != nil {
			t.Errorf("%s does not verify: %v", one, err)
		}
	}
	d := h.delivery(t, seq, e.ID, "0")
	for name, want := range map[string]string{"X-Key": password, "X-Crewship-Event": "task_completed", "X-Crewship-Delivery": d.Shown()} {
		if value := got[0].Header.Get(name); value != want {
			t.Errorf("%s: %q, want %q", name, value, want)
		}
	}
	log, _, err := webhook.Deliveries{Store: h.store.Store}.Log(t.Context(), webhook.LogRequest{Endpoint: e.ID})
	if err != nil || len(log) != 1 || log[0].Status != webhook.Succeeded {
		t.Errorf("the log is %+v, %v", log, err)
	}
}

const oldSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

// counting counts what a store is asked.
type counting struct {
	record.Store
	puts, scans atomic.Int64
}

func (c *counting) Put(ctx context.Context, r record.Record) (int64, error) {
	c.puts.Add(1)
	return c.Store.Put(ctx, r)
}

func (c *counting) Scan(ctx context.Context, s record.Scan) ([]record.Record, error) {
	c.scans.Add(1)
	return c.Store.Scan(ctx, s)
}

// What an endpoint has become since the message was sent decides.
func TestEndpointsAreReadAgainAtEachAttempt(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*testing.T, *hall, webhook.Endpoint)
		want   map[string]int
		posts  int
	}{
		{"nothing changed", func(*testing.T, *hall, webhook.Endpoint) {}, map[string]int{"succeeded": 2}, 2},
		{"another URL", func(t *testing.T, h *hall, e webhook.Endpoint) {
			h.change(t, e, func(e *webhook.Endpoint) { e.URL += "/other" })
		}, map[string]int{"succeeded": 2}, 2},
		{"the event is not asked for any more", func(t *testing.T, h *hall, e webhook.Endpoint) {
			h.change(t, e, func(e *webhook.Endpoint) { e.Events = []string{"run.failed"} })
		}, map[string]int{"canceled": 2}, 0},
		{"another environment", func(t *testing.T, h *hall, e webhook.Endpoint) {
			h.change(t, e, func(e *webhook.Endpoint) { e.Environment = crew.Staging })
		}, map[string]int{"canceled": 2}, 0},
		{"disabled", func(t *testing.T, h *hall, e webhook.Endpoint) {
			h.change(t, e, func(e *webhook.Endpoint) { e.Enabled = false })
		}, map[string]int{"parked": 2}, 0},
		{"deleted", func(t *testing.T, h *hall, e webhook.Endpoint) {
			if err := h.all().Delete(t.Context(), e.ID); err != nil {
				t.Fatal(err)
			}
		}, map[string]int{"canceled": 2}, 0},
		{"deleted and made again in the staging environment", func(t *testing.T, h *hall, e webhook.Endpoint) {
			if err := h.all().Delete(t.Context(), e.ID); err != nil {
				t.Fatal(err)
			}
			h.endpoint(t, e.URL, func(e *webhook.Endpoint) { e.Environment = crew.Staging })
		}, map[string]int{"canceled": 2}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHall(t)
			r := newMoody(t, 500)
			e := h.endpoint(t, r.URL, nil)
			h.tell(e, run.StepPage) // one retry is pending
			h.pass(t, time.Second)
			r.say(200)
			c.change(t, h, e)
			h.tell(e, run.EndPage) // one was not tried yet
			h.pass(t, 10*time.Minute)
			if diff := cmp.Diff(c.want, h.statuses(t, e)); diff != "" {
				t.Errorf("the deliveries (-want +got):\n%s", diff)
			}
			if n := len(r.Got()) - 1; n != c.posts {
				t.Errorf("%d POSTs, want %d", n, c.posts)
			}
			if h.runs.times() == 0 {
				t.Error("each delivery of the end has a record, but nobody was told")
			}
		})
	}
}

func TestWhatWaitsForADisabledEndpointGoesOutWhenItIsEnabled(t *testing.T) {
	h := newHall(t)
	r := newMoody(t, 200)
	e := h.endpoint(t, r.URL, nil)
	h.change(t, e, func(e *webhook.Endpoint) { e.Enabled = false })
	for range 25 {
		h.tell(e, run.StepPage)
		h.pass(t, time.Second)
	}
	h.pass(t, time.Hour)
	if diff := cmp.Diff(map[string]int{"parked": 25}, h.statuses(t, e)); diff != "" || len(r.Got()) != 0 {
		t.Fatalf("%d POSTs while it is disabled (-want +got):\n%s", len(r.Got()), diff)
	}
	if err := h.all().Resume(t.Context(), e); err != nil { // before the change
		t.Fatal(err)
	}
	h.change(t, e, func(e *webhook.Endpoint) { e.Enabled = true })
	h.pass(t, 90*time.Second)
	var first []string
	for _, got := range r.Got() {
		first = append(first, string(got.Body))
	}
	slices.Sort(first)
	if n := len(first); n != 10 || first[0] != `{"event":"task_completed","page":10}` || first[9] != `{"event":"task_completed","page":9}` {
		t.Errorf("at first the ten go that waited longest; %d went: %s", n, first)
	}
	h.pass(t, 10*time.Minute)
	if diff := cmp.Diff(map[string]int{"succeeded": 25}, h.statuses(t, e)); diff != "" || len(r.Got()) != 25 {
		t.Errorf("%d POSTs (-want +got):\n%s", len(r.Got()), diff)
	}
	h.pass(t, 48*time.Hour)
	if health := h.health(t, e); !health.Due.IsZero() {
		t.Errorf("nothing is left, but its health is due: %+v", health)
	}
}

func TestDeletingAnEndpointCallsOffWhatIsParked(t *testing.T) {
	h := newHall(t)
	r := newMoody(t, 200)
	e := h.endpoint(t, r.URL, nil)
	h.change(t, e, func(e *webhook.Endpoint) { e.Enabled = false })
	for range 30 {
		h.tell(e, run.StepPage)
	}
	h.pass(t, time.Minute)
	if err := h.all().Delete(t.Context(), e.ID); err != nil {
		t.Fatal(err)
	}
	h.pass(t, 10*time.Minute)
	if diff := cmp.Diff(map[string]int{"canceled": 30}, h.statuses(t, e)); diff != "" || len(r.Got()) != 0 {
		t.Errorf("%d POSTs (-want +got):\n%s", len(r.Got()), diff)
	}
	h.pass(t, 48*time.Hour)
	if left, err := h.store.Scan(t.Context(), record.Prefix("W#"+e.DeploymentID, "")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestABreakerOpensProbesAndReleases(t *testing.T) {
	h := newHall(t)
	r, others := newMoody(t, 500), newMoody(t, 200)
	e := h.endpoint(t, r.URL, nil)
	watcher := h.endpoint(t, others.URL, func(e *webhook.Endpoint) { e.Events = []string{events.EndpointRecovered} })
	for range 9 {
		h.tell(e, run.StepPage)
	}
	h.pass(t, time.Second)
	if state := h.health(t, e).State; state != webhook.Well {
		t.Fatalf("after nine failures the breaker is %q", state)
	}
	h.tell(e, run.StepPage)
	h.pass(t, time.Second)
	if state := h.health(t, e).State; state != webhook.Open || len(r.Got()) != 10 {
		t.Fatalf("after ten failures the breaker is %q, after %d POSTs", state, len(r.Got()))
	}
	for range 100 {
		h.tell(e, run.StepPage)
	}
	h.pass(t, 50*time.Second)
	if diff := cmp.Diff(map[string]int{"parked": 110}, h.statuses(t, e)); diff != "" || len(r.Got()) != 10 {
		t.Fatalf("%d POSTs while it is open (-want +got):\n%s", len(r.Got()), diff)
	}

	// Probes alone, further and further apart.
	h.pass(t, time.Hour)
	if n := len(r.Got()) - 10; n < 5 || n > 8 {
		t.Errorf("%d POSTs in an hour of probing", n)
	}
	r.say(200)
	before := len(r.Got())
	for len(r.Got()) == before {
		h.pass(t, time.Minute)
	}
	h.pass(t, time.Minute)
	if state := h.health(t, e).State; state != webhook.Well {
		t.Errorf("after a probe was taken the breaker is %q", state)
	}
	if n := len(r.Got()) - before; n > 40 {
		t.Errorf("%d POSTs in the first minutes", n)
	}
	h.pass(t, 15*time.Minute)
	if diff := cmp.Diff(map[string]int{"succeeded": 110}, h.statuses(t, e)); diff != "" {
		t.Errorf("after the release (-want +got):\n%s", diff)
	}
	ids := map[string]int{}
	for _, q := range r.Got() {
		ids[q.Header.Get("webhook-id")]++
	}
	if len(ids) != 110 {
		t.Errorf("%d ids of 110 deliveries", len(ids))
	}
	if got := others.Got(); len(got) != 1 || !strings.Contains(string(got[0].Body), events.EndpointRecovered) {
		t.Errorf("the other endpoint was told %d times", len(got))
	}
	if log, _, err := (webhook.Deliveries{Store: h.store.Store}).Log(t.Context(), webhook.LogRequest{Endpoint: watcher.ID}); err != nil || len(log) != 1 || log[0].Seq != 0 || log[0].Event != events.EndpointRecovered {
		t.Errorf("the log of the other is %+v, %v", log, err)
	}
}

func TestAnOpenBreakerWithoutTrafficCloses(t *testing.T) {
	h := newHall(t)
	r := newMoody(t, 410)
	e := h.endpoint(t, r.URL, nil)
	if err := h.all().ChangeHealth(t.Context(), ptr(h.health(t, e)), func(health *webhook.Health) bool {
		for range 10 {
			health.Note(webhook.Outcome{Failed: 1}, h.clock())
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	h.pass(t, 48*time.Hour)
	if health := h.health(t, e); health.State != webhook.Well || !health.Due.IsZero() {
		t.Errorf("nothing is parked and nothing comes, but its health is %+v", health)
	}
}

func ptr[T any](v T) *T { return &v }

func TestReceiversThatAreGoneOrFailForDaysAreDisabled(t *testing.T) {
	for _, c := range []struct {
		name string
		code int
		want webhook.DisabledBy
		in   time.Duration
	}{
		{"one 410", 410, webhook.ByGone, time.Second},
		{"nothing but failures for five days", 404, webhook.ByFailing, 5*24*time.Hour + time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHall(t)
			r, others := newMoody(t, c.code), newMoody(t, 200)
			e := h.endpoint(t, r.URL, func(e *webhook.Endpoint) { e.Name = "bad" })
			h.endpoint(t, others.URL, nil)
			h.endpoint(t, others.URL, func(e *webhook.Endpoint) { e.Events = []string{"run.failed"} })
			h.endpoint(t, others.URL, func(e *webhook.Endpoint) { e.Enabled = false })
			for range 12 {
				h.tell(e, run.StepPage)
			}
			h.pass(t, c.in)
			now, _, err := h.all().Read(t.Context(), e.DeploymentID, e.ID)
			if err != nil || now.Enabled || now.DisabledBy != c.want {
				t.Fatalf("it is %+v, %v", now, err)
			}
			// Another POST was under way, and its answer says the same a moment later.
			health := h.health(t, e)
			err = h.all().ChangeHealth(t.Context(), &health, func(health *webhook.Health) bool {
				health.News = append(health.News, webhook.News{Event: events.EndpointDisabled, Why: c.want, At: h.clock()})
				health.Due = h.clock()
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
			h.pass(t, 10*time.Minute)
			if got := others.Got(); len(got) != 1 || !strings.Contains(string(got[0].Body), `"endpoint":"bad"`) || !strings.Contains(string(got[0].Body), string(c.want)) {
				t.Errorf("the others were told %d times", len(got))
			}
			before := len(r.Got())
			h.tell(e, run.StepPage)
			h.pass(t, 24*time.Hour)
			if n := len(r.Got()) - before; n != 0 {
				t.Errorf("%d POSTs while it is disabled", n)
			}
			// Enabled again, it is taken at its word, and what waited goes out.
			r.say(200)
			h.all().Resume(t.Context(), e)
			h.change(t, e, func(e *webhook.Endpoint) { e.Enabled, e.DisabledBy = true, "" })
			h.pass(t, time.Hour)
			if left := h.statuses(t, e); left["parked"]+left["pending"]+left["failed"] != 0 || left["succeeded"] == 0 {
				t.Errorf("after it was enabled: %v", left)
			}
		})
	}
}

func TestOneSuccessKeepsAnEndpoint(t *testing.T) {
	h := newHall(t)
	r := newMoody(t, 500)
	e := h.endpoint(t, r.URL, nil)
	for day := range 12 {
		r.say(map[bool]int{true: 200, false: 500}[day%4 == 3])
		h.tell(e, run.StepPage)
		h.pass(t, 24*time.Hour)
	}
	if now, _, _ := h.all().Read(t.Context(), e.DeploymentID, e.ID); !now.Enabled {
		t.Error("an endpoint that takes something every four days was disabled")
	}
}

func TestRetryAfterHoldsTheWholeEndpoint(t *testing.T) {
	for _, wait := range []time.Duration{time.Minute, 3 * time.Hour} {
		h := newHall(t)
		r := newMoody(t, 200)
		e := h.endpoint(t, r.URL, nil)
		r.say(429, "Retry-After", fmt.Sprint(int(wait.Seconds())))
		h.tell(e, run.StepPage)
		h.pass(t, time.Second)
		r.say(200)
		for range 20 {
			h.tell(e, run.StepPage)
		}
		h.pass(t, wait-2*time.Second)
		if n := len(r.Got()); n != 1 {
			t.Fatalf("%d POSTs although it asked for %s", n, wait)
		}
		h.pass(t, wait/4+30*time.Minute)
		if diff := cmp.Diff(map[string]int{"succeeded": 21}, h.statuses(t, e)); diff != "" || len(r.Got()) != 22 {
			t.Errorf("after %s, %d POSTs (-want +got):\n%s", wait, len(r.Got()), diff)
		}
	}
}

func TestRetryAfterHoldsAKickoffTargetWithinThePage(t *testing.T) {
	s := newStage(t)
	r := guardtest.New(t, guardtest.Status(429, "Retry-After", "600"))
	target := s.target(run.StepTarget, r.URL)
	seq := s.page(run.StepPage, 100)
	s.send(t, seq, target, "")
	if n := len(r.Got()); n > 20 {
		t.Errorf("%d POSTs of 100 to a receiver that asked for time", n)
	}
	for i := range 100 {
		if d := s.delivery(t, seq, target, fmt.Sprint(i)); d.Over() || !d.NextAttempt.After(s.clock().Add(9*time.Minute)) {
			t.Fatalf("part %d is %+v", i, d)
		}
	}
}

// A backlog of a hundred thousand that is parked at full speed takes the store from everybody else.
func TestABacklogIsParkedAtAPace(t *testing.T) {
	h := newHall(t)
	var waited []time.Duration
	h.Pause = func(_ context.Context, wait time.Duration) { waited = append(waited, wait) }
	r := guardtest.New(t, guardtest.Status(500))
	e := h.endpoint(t, r.URL, func(e *webhook.Endpoint) { e.Enabled = false })
	const n = 100
	for range n {
		h.tell(e, run.StepPage)
	}
	h.pass(t, time.Second)
	if parked := h.statuses(t, e)["parked"]; parked != n || len(waited) != n-1 || waited[n-2] != (n-1)*5*time.Millisecond {
		t.Errorf("%d are parked; they waited %s", parked, waited)
	}
}

// At most so many a second go out, however many dispatchers there are; nothing is lost, and nothing waits for ever.
func TestMaxRPS(t *testing.T) {
	h := newHall(t)
	var mu sync.Mutex
	var times []time.Time
	var paused time.Duration // others go on meanwhile
	h.Pause = func(_ context.Context, wait time.Duration) { paused = wait }
	h.born = func() bool { paused = 0; return false }
	r := guardtest.New(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		times = append(times, h.clock().Add(paused))
		paused = 0
	})
	e := h.endpoint(t, r.URL, func(e *webhook.Endpoint) { e.MaxRPS = 2 })
	const n = 400 // more than three minutes' worth
	for range n {
		h.tell(e, run.StepPage)
	}
	h.pass(t, time.Minute)
	if parked := h.statuses(t, e)["parked"]; parked < 100 || parked > 200 {
		t.Errorf("%d are parked, want those that find no slot in two minutes", parked)
	}
	h.pass(t, 30*time.Minute)
	if diff := cmp.Diff(map[string]int{"succeeded": n}, h.statuses(t, e)); diff != "" || len(times) != n {
		t.Fatalf("%d POSTs (-want +got):\n%s", len(times), diff)
	}
	slices.SortFunc(times, time.Time.Compare)
	for i := 2; i < len(times); i++ {
		if gap := times[i].Sub(times[i-2]); gap < time.Second {
			t.Fatalf("three POSTs within %s, %s after the first", gap, times[i-2].Sub(times[0]))
		}
	}
	if took := times[n-1].Sub(times[0]); took > 12*time.Minute {
		t.Errorf("%d at 2 a second took %s", n, took)
	}
}

func TestSomeAnswersAreNotTriedAgainSoon(t *testing.T) {
	for _, code := range []int{501, 505} {
		h := newHall(t)
		r := newMoody(t, code)
		e := h.endpoint(t, r.URL, nil)
		h.tell(e, run.StepPage)
		h.pass(t, 25*time.Minute)
		if n := len(r.Got()); n != 1 {
			t.Errorf("%d: %d POSTs in 25 minutes", code, n)
		}
	}
}

// A receiver that refuses every body as such is not sent every event alone.
func TestBisectingStopsAtAReceiverThatRefusesEverything(t *testing.T) {
	h := newHall(t)
	h.Store, h.store.Store = &memory{}, nil
	r := guardtest.New(t, guardtest.Status(400))
	target := h.target(run.StreamTarget, r.URL)
	seq := h.page(run.StepPage, 100)
	wantDone(t, h.send(t, seq, target, ""))
	if n := len(r.Got()); n > 40 {
		t.Errorf("%d POSTs for 100 events that nobody takes", n)
	}
	h = newHall(t)
	r = guardtest.New(t, guardtest.Status(400))
	e := h.endpoint(t, r.URL, func(e *webhook.Endpoint) { e.Format = webhook.AMPStream })
	seq = h.page(run.StepPage, 100)
	h.enqueue(run.DeliveryMessage{Run: h.runs.run.ID, Seq: seq, Target: e.ID}.Message())
	h.pass(t, 2*time.Hour)
	if n := len(r.Got()); n > 60 {
		t.Errorf("%d POSTs in two hours for 100 events that nobody takes", n)
	}
	if left := h.statuses(t, e); left["parked"] == 0 || left["succeeded"] != 0 {
		t.Errorf("they are %v", left)
	}
}

// The bodies of a page are made as the first record says, whatever the endpoint has become.
func TestTheFirstRecordFixesTheShape(t *testing.T) {
	h := newHall(t)
	r := guardtest.New(t, guardtest.InTurn(guardtest.Status(200), guardtest.Status(500), guardtest.Status(200)))
	e := h.endpoint(t, r.URL, func(e *webhook.Endpoint) { e.Events = []string{"task_started", "task_completed"} })
	seq := len(h.runs.pages) + 1
	h.runs.pages[seq] = run.Page{Seq: seq, Kind: run.EndPage, Targets: []string{e.ID}, Outcome: &run.Outcome{State: run.Succeeded}, Events: []events.Event{
		{ID: "a", Type: "task_started"}, {ID: "b", Type: "task_completed"},
	}}
	message := run.DeliveryMessage{Run: h.runs.run.ID, Seq: seq, Target: e.ID}.Message()
	h.enqueue(message)
	h.pass(t, time.Second)
	if diff := cmp.Diff(map[string]int{"succeeded": 1, "failed": 1}, h.statuses(t, e)); diff != "" {
		t.Fatal(diff)
	}
	first := r.Got()
	// Now there would be three bodies, in another order and format.
	h.change(t, e, func(e *webhook.Endpoint) { e.Events, e.Format = []string{"*"}, webhook.AMPStream })
	h.enqueue(message)
	h.pass(t, time.Minute)
	got := r.Got()
	if diff := cmp.Diff(map[string]int{"succeeded": 2}, h.statuses(t, e)); diff != "" || len(got) != 3 {
		t.Fatalf("%d POSTs (-want +got):\n%s", len(got), diff)
	}
	again := got[2]
	same := slices.ContainsFunc(first, func(q guardtest.Request) bool {
		return string(q.Body) == string(again.Body) && q.Header.Get("webhook-id") == again.Header.Get("webhook-id")
	})
	if !same || h.runs.times() == 0 {
		t.Errorf("the retry sent %s; told %d times", again.Body, h.runs.times())
	}
}

func TestAPingIsPostedOnceAndRecorded(t *testing.T) {
	for _, code := range []int{200, 500} {
		h := newHall(t)
		r := guardtest.New(t, guardtest.Say(code, "I got it"))
		e := h.endpoint(t, r.URL, func(e *webhook.Endpoint) { e.Enabled = false })
		a, err := h.Ping(t.Context(), e)
		if err != nil || a.Code != code || a.Response != "I got it" || (a.Class == "") != (code == 200) {
			t.Errorf("%+v, %v", a, err)
		}
		got := r.Got()
		if len(got) != 1 || got[0].Header.Get("X-Crewship-Event") != "ping" || webhook.Verify(secret, got[0].Header, got[0].Body, h.clock()) != nil {
			t.Errorf("%d POSTs, or not signed", len(got))
		}
		h.pass(t, time.Hour)
		log, _, err := webhook.Deliveries{Store: h.store.Store}.Log(t.Context(), webhook.LogRequest{Endpoint: e.ID})
		if err != nil || len(log) != 1 || !log[0].Over() || len(r.Got()) != 1 || h.health(t, e).Failures != 0 {
			t.Errorf("the log is %+v, %v", log, err)
		}
		// It can be asked for again, like any delivery.
		log[0].Redeliver(h.clock(), h.clock().Add(time.Minute))
		h.change(t, e, func(e *webhook.Endpoint) { e.Enabled = true })
		if err := (webhook.Deliveries{Store: h.store.Store}).Put(t.Context(), &log[0]); err != nil {
			t.Fatal(err)
		}
		h.enqueue(run.DeliveryMessage{Run: log[0].RunID, Target: e.ID, Part: "0"}.Message())
		h.pass(t, time.Second)
		if again := r.Got(); len(again) != 2 || string(again[1].Body) != string(got[0].Body) || again[1].Header.Get("webhook-id") != got[0].Header.Get("webhook-id") {
			t.Errorf("asked for again, %d POSTs arrived", len(again))
		}
	}
}

func TestNoticesThatAreNotThereAreDropped(t *testing.T) {
	h := newHall(t)
	answer := h.Handle(t.Context(), queue.Received{Message: run.DeliveryMessage{Run: id.New(), Target: id.New(), Part: "0"}.Message()})
	if reason, dropped := answer.Dropped(); !dropped || reason != "There is no such notice." {
		t.Errorf("%+v", answer)
	}
}

// What is asked for says nothing of the endpoint's health when it fails, and all when it is taken.
func TestWhatIsAskedForIsNoTrouble(t *testing.T) {
	h := newHall(t)
	r := newMoody(t, 200)
	e := h.endpoint(t, r.URL, nil)
	seq := h.tell(e, run.StepPage)
	h.pass(t, time.Second)
	r.say(500)
	for range 15 {
		d := h.delivery(t, seq, e.ID, "0")
		d.Redeliver(h.clock(), h.clock().Add(time.Minute))
		if err := (webhook.Deliveries{Store: h.store.Store}).Put(t.Context(), &d); err != nil {
			t.Fatal(err)
		}
		wantDone(t, h.send(t, seq, e.ID, "0"))
	}
	if health := h.health(t, e); health.Failures != 0 || health.State != webhook.Well {
		t.Errorf("its health is %+v", health)
	}
}

// Two workspaces, two secrets, two endpoints with one URL: never in one POST, never each other's signature.
func TestEndpointsNeverShareAPost(t *testing.T) {
	h := newHall(t)
	r := newMoody(t, 200)
	first := h.endpoint(t, r.URL, nil)
	second := h.endpoint(t, r.URL, func(e *webhook.Endpoint) {
		e.WorkspaceID = id.New()
		e.Secret = seal(e.WorkspaceID, e.ID, webhook.SecretField, oldSecret)
	})
	for range 10 {
		seq := h.tell(first, run.StepPage)
		h.enqueue(run.DeliveryMessage{Run: h.runs.run.ID, Seq: seq, Target: second.ID}.Message())
	}
	h.pass(t, time.Minute)
	got := r.Got()
	if len(got) != 20 {
		t.Fatalf("%d POSTs", len(got))
	}
	for _, q := range got {
		place, ok := webhook.ParseDeliveryID(q.Header.Get("webhook-id"))
		by, others := secret, oldSecret
		if place.Target == second.ID {
			by, others = oldSecret, secret
		}
		at := h.clock().Add(-time.Minute)
		if !ok || webhook.Verify(by, q.Header, q.Body, at) != nil || webhook.Verify(others, q.Header, q.Body, at) == nil {
			t.Errorf("%s is not signed by its endpoint's secret alone", q.Header.Get("webhook-id"))
		}
	}
}

// Many dispatchers meet a receiver that is down: it is asked a few times, everything waits, and everything arrives.
func TestManyDispatchersAtAReceiverThatIsDown(t *testing.T) {
	h := newHall(t)
	r := newMoody(t, 500)
	e := h.endpoint(t, r.URL, nil)
	const n, dispatchers = 300, 20
	for range n {
		h.tell(e, run.StepPage)
	}
	all := make(chan queue.Message, n)
	for _, w := range h.waiting {
		all <- w.m
	}
	close(all)
	h.waiting = nil
	var wait sync.WaitGroup
	for range dispatchers {
		wait.Go(func() {
			for m := range all {
				if _, dropped := h.Handle(t.Context(), queue.Received{Message: m}).Dropped(); dropped {
					t.Errorf("%s was dropped", m.Body)
				}
			}
		})
	}
	wait.Wait()
	if asked := len(r.Got()); asked > 10+3*dispatchers {
		t.Errorf("the receiver was asked %d times", asked)
	}
	r.say(200)
	h.pass(t, 3*time.Hour)
	if diff := cmp.Diff(map[string]int{"succeeded": n}, h.statuses(t, e)); diff != "" {
		t.Errorf("the deliveries (-want +got):\n%s", diff)
	}
}

// The endpoint is enabled, and its release is over, between the moment it was read and the moment something is parked.
func TestWhatIsParkedTooLateComesBack(t *testing.T) {
	h := newHall(t)
	r := newMoody(t, 200)
	e := h.endpoint(t, r.URL, nil)
	h.change(t, e, func(e *webhook.Endpoint) { e.Enabled = false })
	records := h.store.Store.(*storetest.Memory)
	var once sync.Once
	h.Store = putting{records, func(p record.Record) {
		if p.List == webhook.ParkedList(e.ID) {
			once.Do(func() { h.change(t, e, func(e *webhook.Endpoint) { e.Enabled = true }) })
		}
	}}
	h.tell(e, run.StepPage)
	h.pass(t, time.Minute)
	if diff := cmp.Diff(map[string]int{"succeeded": 1}, h.statuses(t, e)); diff != "" {
		t.Errorf("the delivery (-want +got):\n%s", diff)
	}
}

// putting calls before each put.
type putting struct {
	record.Store
	before func(record.Record)
}

func (p putting) Put(ctx context.Context, r record.Record) (int64, error) {
	p.before(r)
	return p.Store.Put(ctx, r)
}
