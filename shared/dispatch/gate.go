package dispatch

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"muster/events"
	"muster/shared/queue"
	"muster/shared/run"
	"muster/shared/webhook"
)

// What stands between a delivery and its endpoint. A delivery that does not pass is, each by one record,
//
//	canceled  when the endpoint is deleted, belongs to another environment now, or does not ask for the event any more
//	parked    when it is disabled, or its breaker is open: nothing is due, the endpoint's health is
//	put off   when the receiver asked for time, or takes only so many POSTs a second and a slot is near
//
// A parked delivery must be found by the release that follows. So who has parked looks again: unless it still was right to
// do so, the message comes back and finds the way open. See webhook.Health for why the release finds all others.

const (
	// atHand is how long a dispatcher waits for a slot itself.
	atHand = time.Second
	// ahead is how far ahead slots are given; what does not find one is parked.
	ahead = 2 * time.Minute
	// slotLife is how long before and after its time a slot is good.
	slotLife = 10 * time.Second
	// manyRefusals is how many bodies a receiver may refuse as such, and take none, before it is not the bodies' fault.
	manyRefusals = 16
)

// readEndpoint reads the endpoint that is the target, and its health.
func (j *job) readEndpoint(ctx context.Context, deploymentID string) (err error) {
	j.standing = true
	if j.endpoint, j.health, err = j.endpoints().Read(ctx, deploymentID, j.target.ID); err != nil || j.endpoint == nil {
		return err
	}
	e := *j.endpoint
	j.to = receiver{e.URL, sync.OnceValues(func() (access, error) { return j.unsealEndpoint(ctx, e) })}
	return nil
}

// gone says that the target is an endpoint that must be told nothing of the run any more.
func (j *job) gone() bool {
	return j.standing && (j.endpoint == nil || j.page.Seq > 0 && j.endpoint.Environment != j.run.Environment)
}

// callOff cancels everything that the page has for the target.
func (j *job) callOff(ctx context.Context) error {
	if len(j.known) == 0 && j.page.Kind != run.EndPage {
		return nil
	}
	parts := 1
	for _, one := range j.known {
		parts = max(parts, one.Parts)
	}
	for i := range parts {
		if err := j.callOffPart(ctx, strconv.Itoa(i), parts); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) callOffPart(ctx context.Context, part string, parts int) error {
	one, tried := j.known[part]
	if !tried {
		one = j.new(part, webhook.Body{})
		one.Parts = parts
	}
	if err := j.cancel(ctx, &one); err != nil || !one.Halved {
		return err
	}
	if err := j.callOffPart(ctx, part+"a", parts); err != nil {
		return err
	}
	return j.callOffPart(ctx, part+"b", parts)
}

// gate says whether the delivery may be tried as things were when the endpoint was read. What may not is seen to.
func (j *job) gate(ctx context.Context, one *webhook.Delivery) (passes bool, err error) {
	now := j.now()
	j.mu.Lock()
	h, hold := j.health, j.hold
	j.mu.Unlock()
	if j.endpoint == nil {
		if now.Before(hold) {
			return false, j.putOff(ctx, one, after(*one, hold, now))
		}
		return true, nil
	}
	probe := h.State == webhook.Probing && (h.Probe == "" || h.Probe == one.Shown())
	switch {
	case !one.Asked && !j.wanted(*one):
		return false, j.cancel(ctx, one)
	case !j.endpoint.Enabled, h.State != webhook.Well && !probe:
		return false, j.park(ctx, one)
	case now.Before(h.Hold):
		return false, j.putOff(ctx, one, after(*one, h.Hold, now))
	}
	return true, nil
}

// wanted says whether the endpoint asks for the delivery as it is now.
func (j *job) wanted(one webhook.Delivery) bool {
	now := run.Target{Kind: run.EndpointTarget, Events: j.endpoint.Events}
	if one.Event == batch {
		return run.Wants(now, j.page)
	}
	return now.Asks(one.Event)
}

// batch is the event of a body that holds many.
const batch = "amp.stream"

// admit takes what only one delivery can have: the right to probe, and a slot of a bounded rate. What does not get it is
// seen to.
func (j *job) admit(ctx context.Context, one *webhook.Delivery) (passes bool, err error) {
	if j.endpoint == nil {
		return true, nil
	}
	if j.snapshot().State == webhook.Probing {
		ours := false
		err := j.changeHealth(ctx, func(h *webhook.Health) bool {
			ours = h.State == webhook.Well || h.State == webhook.Probing && h.Probe == one.Shown()
			if ours || h.State != webhook.Probing || h.Probe != "" {
				return false
			}
			h.Probe, h.Due, ours = one.Shown(), j.now().Add(lost).UTC(), true
			return true
		})
		if err != nil {
			return false, err
		}
		if !ours {
			return false, j.park(ctx, one)
		}
	}
	perSecond, now := j.endpoint.MaxRPS, j.now()
	if perSecond == 0 || !one.Slot.IsZero() && now.Sub(one.Slot).Abs() < slotLife {
		return true, nil
	}
	var slot time.Time
	err = j.changeHealth(ctx, func(h *webhook.Health) bool {
		before := *h
		if slot = h.Reserve(perSecond, now); slot.Sub(now) <= ahead {
			return true
		}
		*h = before
		return h.Overflow(now)
	})
	switch wait := slot.Sub(now); {
	case err != nil:
		return false, err
	case wait > ahead:
		return false, j.park(ctx, one)
	case wait > atHand:
		one.Slot = slot
		return false, j.putOff(ctx, one, slot)
	case wait > 0:
		if j.pause(ctx, wait); ctx.Err() != nil {
			j.again(0)
			return false, nil
		}
	}
	return true, nil
}

func (d *Dispatcher) pause(ctx context.Context, wait time.Duration) {
	if d.Pause != nil {
		d.Pause(ctx, wait)
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// after gives a moment behind the end of a wait that many share, so that they do not all come at once.
func after(one webhook.Delivery, end, now time.Time) time.Time {
	step, _ := webhook.Pause(one.ID, 1, 0)
	spread := min(end.Sub(now), 10*time.Minute)
	return end.Add(time.Duration(float64(spread) * (float64(step)/float64(5*time.Second) - 1)))
}

func (j *job) cancel(ctx context.Context, one *webhook.Delivery) error {
	if one.Over() {
		return nil
	}
	quiet(one)
	one.Status = webhook.Canceled
	return ignoreConflict(j.deliveries().Put(ctx, one))
}

// park leaves the delivery under its endpoint.
func (j *job) park(ctx context.Context, one *webhook.Delivery) error {
	j.mu.Lock()
	j.parked = true
	j.mu.Unlock()
	if one.Parked {
		return nil
	}
	if wait := j.parking.turn(j.target.ID, j.now()); wait > 0 {
		if j.pause(ctx, wait); ctx.Err() != nil {
			j.again(0)
			return nil
		}
	}
	quiet(one)
	one.Parked = true
	return ignoreConflict(j.deliveries().Put(ctx, one))
}

// parkEvery is the least time between two deliveries that a process parks under one endpoint: putting a backlog away must
// not take the store from those who are well.
const parkEvery = 5 * time.Millisecond

// turns lets deliveries of one endpoint be parked one after the other.
type turns struct {
	mu   sync.Mutex
	next map[string]time.Time
}

// turn gives the time until it is the caller's turn.
func (t *turns) turn(endpoint string, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next == nil {
		t.next = map[string]time.Time{}
	}
	mine := t.next[endpoint]
	if mine.Before(now) {
		mine = now
	}
	t.next[endpoint] = mine.Add(parkEvery)
	return mine.Sub(now)
}

// putOff lets the delivery wait until a time.
func (j *job) putOff(ctx context.Context, one *webhook.Delivery, until time.Time) error {
	wait, slot := until.Sub(j.now()), one.Slot
	quiet(one)
	one.Slot, one.NextAttempt, one.Due = slot, until.UTC(), until.UTC()
	if wait <= queue.MaxDelay {
		one.Due = until.Add(lost).UTC()
	}
	err := ignoreConflict(j.deliveries().Put(ctx, one))
	if err == nil && wait <= queue.MaxDelay {
		j.sendLater(ctx, *one, wait)
	}
	return err
}

// quiet takes back what was planned for the delivery.
func quiet(one *webhook.Delivery) {
	one.Parked, one.ClaimedUntil, one.NextAttempt, one.Slot, one.Due = false, time.Time{}, time.Time{}, time.Time{}, time.Time{}
}

// lookAgain makes the message come back if something was parked and that is no longer right.
func (j *job) lookAgain(ctx context.Context) error {
	if !j.parked {
		return nil
	}
	e, h, err := j.endpoints().Read(ctx, j.endpoint.DeploymentID, j.endpoint.ID)
	if err != nil {
		return err
	}
	if e == nil || e.Enabled && !h.StillParks(j.now()) {
		j.again(0)
	}
	return nil
}

// mayHalve says whether a body that was refused as such is to be cut in two. A receiver that refuses whatever it is sent, and
// one that is only probed, would have everything cut to pieces for nothing.
func (j *job) mayHalve(one webhook.Delivery) bool {
	newest := one.Attempts[len(one.Attempts)-1]
	j.mu.Lock()
	defer j.mu.Unlock()
	switch newest.Code {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		j.refused++
	}
	if newest.Class == "" {
		j.took++
	}
	return (j.took > 0 || j.refused <= manyRefusals) && j.health.State == webhook.Well
}

// probes says whether the delivery is the one that probes an open breaker.
func (j *job) probes(one webhook.Delivery) bool {
	h := j.snapshot()
	return h.State == webhook.Probing && h.Probe == one.Shown()
}

// learn notes what an attempt says of the receiver. What is lost of it is learned from the next.
func (j *job) learn(ctx context.Context, shown string, a webhook.Attempt, hint time.Duration, asked bool) {
	if a.Code != http.StatusTooManyRequests && a.Code != http.StatusServiceUnavailable {
		hint = 0
	}
	now := j.now()
	if j.endpoint == nil {
		if hint > 0 {
			j.mu.Lock()
			j.hold = now.Add(min(hint, queue.MaxDelay))
			j.mu.Unlock()
		}
		return
	}
	h := j.snapshot()
	o := webhook.Outcome{Probe: h.Probe == shown, Gone: a.Code == http.StatusGone, Hold: hint}
	switch {
	case a.Class == "" && h.Calm(now):
		return
	case a.Class == "" && h.State == webhook.Well && h.FailingSince.IsZero():
		if o.Taken = j.taken.add(j.endpoint.ID, now, false); o.Taken == 0 {
			return
		}
	case a.Class == "":
		o.Taken = 1 + j.taken.add(j.endpoint.ID, now, true)
	case !asked || o.Probe:
		o.Failed, o.Taken = 1, 0
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	err := j.changeHealth(ctx, func(h *webhook.Health) bool {
		why := h.Note(o, now)
		if why != "" && !slices.ContainsFunc(h.News, func(n webhook.News) bool { return n.Why == why }) {
			h.News = append(h.News, webhook.News{Event: events.EndpointDisabled, Why: why, At: now.UTC()})
			h.Due = now.UTC()
		}
		return true
	})
	if h := j.snapshot(); err == nil && len(h.News) > 0 {
		err = j.tellNews(ctx, j.endpoint, &h)
	}
	if err != nil {
		j.log.Warn("what an endpoint answered could not be noted", "endpoint", j.endpoint.ID, "error", err)
	}
}

func (j *job) snapshot() webhook.Health {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.health
}

func (j *job) changeHealth(ctx context.Context, f func(*webhook.Health) bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.endpoints().ChangeHealth(ctx, &j.health, f)
}

// tally counts what endpoints in some trouble have taken, so that it is written down now and then and not each time. What
// is lost of it makes a breaker open a little earlier.
type tally struct {
	mu    sync.Mutex
	taken map[string]int
	since map[string]time.Time
}

// countEvery is how often what was taken is written down.
const countEvery = 2 * time.Second

// add counts one more and, when it is time or all is wanted, gives how many there are, which begins anew.
func (t *tally) add(endpoint string, now time.Time, all bool) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken == nil {
		t.taken, t.since = map[string]int{}, map[string]time.Time{}
	}
	if all {
		n = t.taken[endpoint]
	} else if t.taken[endpoint]++; now.Sub(t.since[endpoint]) < countEvery {
		return 0
	} else {
		n = t.taken[endpoint]
	}
	delete(t.taken, endpoint)
	t.since[endpoint] = now
	return n
}
