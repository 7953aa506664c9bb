package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"muster/events"
	"muster/shared/fault"
	"muster/shared/record"
)

// Health is what is known of an endpoint's receiver: whether it is worth asking, and when. It lies beside the endpoint. A
// receiver that takes what it is sent has none, or one that is not touched: only trouble is written down.
//
//	well ──▶ open          of at least ten attempts within five minutes, seven in ten failed
//	open ──▶ probing       after a pause that doubles: one delivery may try, all others are parked
//	probing ──▶ open       it failed
//	probing ──▶ well       it was taken; what is parked is released, a little at first
//
// Beside that: after five days of nothing but failures, or one 410, the endpoint is disabled; and a receiver that says
// Retry-After, or takes so many POSTs a second only, is given the time.
type Health struct {
	State HealthState `json:"state,omitempty"`
	// Since is when the failure happened with which the window begins, Tries and Failures are its attempts.
	Since    time.Time `json:"since,omitzero"`
	Tries    int       `json:"tries,omitempty"`
	Failures int       `json:"failures,omitempty"`
	// FailingSince is when the first failure happened after which nothing was taken any more, and no day was quiet; FailedAt
	// is the newest.
	FailingSince time.Time `json:"failing_since,omitzero"`
	FailedAt     time.Time `json:"failed_at,omitzero"`
	// Opened counts how often the breaker opened without anything being taken in between.
	Opened int `json:"opened,omitempty"`
	// OpenSince is when the first of these times was.
	OpenSince time.Time `json:"open_since,omitzero"`
	// Probe is the delivery that may try while the state is probing, as Shown; "" for the next one that comes.
	Probe string `json:"probe,omitempty"`
	// Hold is until when the receiver wants to be left alone.
	Hold time.Time `json:"hold,omitzero"`
	// Slot is when the next POST may go out, where their number a second is bounded.
	Slot time.Time `json:"slot,omitzero"`
	// Drain is when the release of what is parked began, zero when nothing is; Ramp is how much goes next.
	Drain time.Time `json:"drain,omitzero"`
	Ramp  int       `json:"ramp,omitempty"`
	// News are for the workspace's other endpoints, and not told yet.
	News []News `json:"news,omitempty"`

	// Due is when the sweeper looks at the record.
	Due time.Time `json:"-"`

	deployment, endpoint string
	rev                  int64
}

// HealthState is the state of the breaker.
type HealthState string

// The states of the breaker.
const (
	Well    HealthState = ""
	Open    HealthState = "open"
	Probing HealthState = "probing"
)

// News is a change that others are told of: an event, and why.
type News struct {
	Event string     `json:"event"`
	Why   DisabledBy `json:"why,omitempty"`
	At    time.Time  `json:"at"`
}

const (
	window     = 5 * time.Minute
	enoughSeen = 10
	// badShare of ten attempts must have failed for the breaker to open.
	badShare = 7
	// giveUp is how long a receiver may do nothing but fail. When nobody asked it anything for a quietDay the time begins
	// anew: one that is told something once a week has not failed for days after its second failure.
	giveUp   = 5 * 24 * time.Hour
	quietDay = 36 * time.Hour
	// firstPause is before the first probe; each further one waits twice as long, up to longestPause.
	firstPause   = time.Minute
	longestPause = 15 * time.Minute
	// firstRamp is how many parked deliveries are released at first; each minute twice as many, up to most.
	firstRamp = 10
	mostRamp  = 500
	// settled is how long after the last delivery can have been parked the release goes on looking for some: more than a
	// dispatcher has for a message, and far more than an index is behind.
	settled = 4 * time.Minute
	// looksFor is how long a release looks for what an index may not have shown.
	looksFor = 24 * time.Hour
	// mayPark is how long into a release a delivery may still be parked.
	mayPark = 2 * time.Minute
	// Tick is how often the sweeper comes by.
	Tick = time.Minute
)

// Outcome is what an attempt says of the receiver.
type Outcome struct {
	// Taken counts deliveries that were taken, Failed is 1 for one that was not.
	Taken, Failed int
	// Probe is set for the attempt of the delivery that may try alone.
	Probe bool
	// Gone says that the receiver wants no more, ever; Hold is how long it wants to be left alone.
	Gone bool
	Hold time.Duration
}

// Calm says that an attempt that is taken need not be written down at all.
func (h Health) Calm(now time.Time) bool {
	return h.State == Well && h.FailingSince.IsZero() && (h.Tries == 0 || now.Sub(h.Since) >= window)
}

// Note takes an outcome into account. disable says that the endpoint should be disabled, and why.
func (h *Health) Note(o Outcome, now time.Time) (disable DisabledBy) {
	now = now.UTC().Truncate(time.Millisecond)
	if o.Hold > 0 {
		if until := now.Add(min(o.Hold, maxHint)); until.After(h.Hold) {
			h.Hold = until
		}
	}
	switch {
	case o.Taken > 0:
		h.FailingSince, h.FailedAt = time.Time{}, time.Time{}
	case o.Failed > 0:
		if h.FailingSince.IsZero() || now.Sub(h.FailedAt) > quietDay {
			h.FailingSince = now
		}
		h.FailedAt = now
	}
	if now.Sub(h.Since) >= window {
		h.Since, h.Tries, h.Failures = time.Time{}, 0, 0
	}
	if o.Failed > 0 && h.Tries == 0 {
		h.Since = now
	}
	if h.Tries > 0 || o.Failed > 0 {
		h.Tries += o.Taken + o.Failed
		h.Failures += o.Failed
	}
	switch {
	case o.Probe && h.State == Probing && o.Taken > 0:
		h.State, h.Probe, h.Opened, h.OpenSince, h.Since, h.Tries, h.Failures = Well, "", 0, time.Time{}, time.Time{}, 0, 0
		h.drain(now)
		h.News = append(h.News, News{Event: events.EndpointRecovered, At: now})
	case o.Probe && h.State == Probing && o.Failed > 0:
		h.open(now)
	case h.State == Well && h.Tries >= enoughSeen && 10*h.Failures >= badShare*h.Tries:
		h.open(now)
	}
	switch {
	case o.Gone:
		return ByGone
	case !h.FailingSince.IsZero() && now.Sub(h.FailingSince) >= giveUp:
		return ByFailing
	}
	return ""
}

func (h *Health) open(now time.Time) {
	pause := min(firstPause<<min(h.Opened, 10), longestPause)
	h.State, h.Probe, h.Since, h.Tries, h.Failures = Open, "", time.Time{}, 0, 0
	h.Drain, h.Ramp = time.Time{}, 0
	if h.Opened++; h.Opened == 1 {
		h.OpenSince = now
	}
	h.Due = now.Add(pause)
}

// drain begins to release what is parked.
func (h *Health) drain(now time.Time) {
	h.Drain, h.Ramp, h.Due = now, firstRamp, now
}

// Parks says that deliveries other than a probe wait under the endpoint, for the breaker is open.
func (h Health) Parks() bool { return h.State == Open || h.State == Probing && h.Probe != "" }

// StillParks says that what was parked before now will be found: the breaker is open, or a release has only just begun.
func (h Health) StillParks(now time.Time) bool {
	return h.Parks() || !h.Drain.IsZero() && now.Sub(h.Drain) < mayPark
}

// AtOnce is how many parked deliveries are called off at a time.
const AtOnce = mostRamp

// Drained says that a release that finds nothing is over for good.
func (h Health) Drained(now time.Time) bool { return now.Sub(h.Drain) >= looksFor }

// Overflow notes that deliveries are parked because there are more than go out for a while.
func (h *Health) Overflow(now time.Time) (changed bool) {
	if !h.Drain.IsZero() && now.Sub(h.Drain) < mayPark/2 {
		return false
	}
	ramp := h.Ramp
	h.drain(now.UTC())
	h.Ramp, h.Due = max(ramp, firstRamp), h.Due.Add(Tick)
	return true
}

// Reserve gives the moment of the next POST where at most perSecond go out.
func (h *Health) Reserve(perSecond int, now time.Time) (slot time.Time) {
	slot = now.UTC()
	if h.Slot.After(slot) {
		slot = h.Slot
	}
	h.Slot = slot.Add(time.Second / time.Duration(perSecond))
	return slot
}

// Next gives how many parked deliveries go now. perSecond is the endpoint's bound, 0 for none.
func (h Health) Next(perSecond int, now time.Time) (n int) {
	n = max(h.Ramp, firstRamp)
	if perSecond > 0 {
		free := Tick - max(h.Slot.Sub(now), 0)
		n = min(n, max(int(free.Seconds()*float64(perSecond)), 0))
	}
	return n
}

// Released notes that of up to n parked deliveries so many were found and went. Next time there may be more. When none are
// left and none can come, it is for an index that is behind to show that there are: the release looks less and less often,
// and is over after a day.
func (h *Health) Released(found, n int, now time.Time) {
	age := now.Sub(h.Drain)
	switch {
	case found > 0 || n == 0 || age < settled:
		h.Ramp = min(2*max(h.Ramp, firstRamp), mostRamp)
		h.Due = now.Add(Tick).UTC()
	case age < looksFor:
		h.Due = now.Add(age).UTC()
	default:
		h.Rest()
	}
}

// Wait notes that the endpoint is disabled: what is parked stays so until somebody enables it.
func (h *Health) Wait(now time.Time) {
	if h.Drain.IsZero() || now.Sub(h.Drain) >= settled {
		h.Rest()
		return
	}
	h.Due = now.Add(Tick).UTC()
}

// Rest ends a release, and lets nobody look at the record.
func (h *Health) Rest() { h.Drain, h.Ramp, h.Due = time.Time{}, 0, time.Time{} }

// Deployment gives the deployment of the endpoint.
func (h Health) Deployment() string { return h.deployment }

func healthKey(deploymentID, endpointID string) record.Key {
	return record.Key{Part: "W#" + deploymentID, Sort: outgoing + endpointID + healthSuffix}
}

const healthSuffix = "#HEALTH"

// Idle notes that a probe was due and nothing is parked that could be one: the next delivery that comes is. After the
// second time in a row the breaker closes, for nobody needs it.
func (h *Health) Idle(now time.Time) {
	if h.State == Probing && h.Probe == "" {
		h.State, h.Opened, h.OpenSince = Well, 0, time.Time{}
		h.drain(now.UTC())
		return
	}
	h.State, h.Probe, h.Due = Probing, "", now.Add(longestPause).UTC()
}

// HealthOf gives the endpoint whose health a record is; ok is false when it is something else.
func HealthOf(k record.Key) (deploymentID, endpointID string, ok bool) {
	deploymentID, ours := strings.CutPrefix(k.Part, "W#")
	endpointID, of := strings.CutPrefix(k.Sort, outgoing)
	endpointID, suffix := strings.CutSuffix(endpointID, healthSuffix)
	return deploymentID, endpointID, ours && of && suffix
}

// Read reads an endpoint and its health at once. e is nil when there is no such endpoint.
func (s Endpoints) Read(ctx context.Context, deploymentID, endpointID string) (e *Endpoint, h Health, err error) {
	h.deployment, h.endpoint = deploymentID, endpointID
	k := endpointKey(deploymentID, endpointID)
	records, err := s.Store.Scan(ctx, record.Scan{Part: k.Part, From: k.Sort, To: k.Sort + healthSuffix + "\x00"})
	if err != nil {
		return nil, h, fmt.Errorf("read endpoint %s: %w", endpointID, err)
	}
	for _, r := range records {
		switch r.Key {
		case k:
			found, err := decodeEndpoint(r)
			if err != nil {
				return nil, h, err
			}
			e = &found
		case healthKey(deploymentID, endpointID):
			if h, err = decodeHealth(r); err != nil {
				return nil, h, err
			}
		}
	}
	return e, h, nil
}

// ChangeHealth changes an endpoint's health, beginning with what was read. f may be called again when somebody else was
// quicker; unless it gives true nothing is written.
func (s Endpoints) ChangeHealth(ctx context.Context, h *Health, f func(*Health) bool) error {
	for range changes {
		next := *h
		if !f(&next) {
			*h = next
			return nil
		}
		err := s.putHealth(ctx, &next)
		if err == nil {
			*h = next
			return nil
		}
		if !fault.Is(err, fault.Conflict) {
			return err
		}
		there, ok := record.Current(err)
		if !ok {
			*h = Health{deployment: h.deployment, endpoint: h.endpoint}
			continue
		}
		if *h, err = decodeHealth(there); err != nil {
			return err
		}
	}
	return fmt.Errorf("the health of endpoint %s is changed by too many at once", h.endpoint)
}

// ForgetHealth removes a record that has nothing to say any more, unless it was changed since it was read.
func (s Endpoints) ForgetHealth(ctx context.Context, h Health) error {
	err := s.Store.Delete(ctx, healthKey(h.deployment, h.endpoint), h.rev)
	if err != nil && !fault.Is(err, fault.Conflict) {
		return fmt.Errorf("delete the health of endpoint %s: %w", h.endpoint, err)
	}
	return nil
}

// Resume forgets all trouble with an endpoint and releases what is parked under it. It is for an endpoint that is about to
// be enabled or changed by its owner, or deleted: then what is parked is canceled. Called before the change, nothing is
// forgotten whenever the caller dies; once more after it does no harm.
func (s Endpoints) Resume(ctx context.Context, e Endpoint) error {
	_, h, err := s.Read(ctx, e.DeploymentID, e.ID)
	if err != nil {
		return err
	}
	return s.ChangeHealth(ctx, &h, func(h *Health) bool {
		*h = Health{Slot: h.Slot, deployment: h.deployment, endpoint: h.endpoint, rev: h.rev}
		h.drain(s.now())
		return true
	})
}

func (s Endpoints) putHealth(ctx context.Context, h *Health) error {
	body, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode the health of endpoint %s: %w", h.endpoint, err)
	}
	rev, err := s.Store.Put(ctx, record.Record{Key: healthKey(h.deployment, h.endpoint), Rev: h.rev, Body: body, Due: h.Due})
	if err != nil {
		return fmt.Errorf("write the health of endpoint %s: %w", h.endpoint, err)
	}
	h.rev = rev
	return nil
}

func decodeHealth(r record.Record) (h Health, err error) {
	if err := json.Unmarshal(r.Body, &h); err != nil {
		return h, fmt.Errorf("decode %s of %s: %w", r.Sort, r.Part, err)
	}
	h.deployment, h.endpoint, _ = HealthOf(r.Key)
	h.Due, h.rev = r.Due, r.Rev
	return h, nil
}
