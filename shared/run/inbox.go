package run

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"muster/events"
	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/queue"
	"muster/shared/record"
)

// SendDeliveries knocks at the dispatcher for every target that the page tells something. It is also how the sweeper
// sends again.
func (s *Service) SendDeliveries(ctx context.Context, runID string, p Page) error {
	if len(p.Targets) == 0 {
		return nil
	}
	messages := make([]queue.Message, len(p.Targets))
	for i, t := range p.Targets {
		messages[i] = DeliveryMessage{Run: runID, Seq: p.Seq, Target: t}.Message()
	}
	return s.Deliveries.Send(ctx, messages...)
}

// How long Stop waits for the owner of a run to end it, which takes a look into its inbox and a page, and how often it looks.
const (
	stopWait = 6 * time.Second
	stopPoll = 250 * time.Millisecond
)

// Stop ends a run that somebody wants stopped. A run that nobody holds ends at once; an owner is told, and Stop waits a
// little for it, because the run may be at its end already. It gives the run as it is then: should it still be running,
// it will end as soon as its owner hears of it. A run that is over is fault.Conflict, unless it was stopped before.
func (s *Service) Stop(ctx context.Context, runID string) (Run, error) {
	return s.stop(ctx, runID, func(Run) error { return nil })
}

// stop is Stop; before is given the run as it was read before each write that stops it.
func (s *Service) stop(ctx context.Context, runID string, before func(Run) error) (Run, error) {
	for until := s.now().Add(stopWait); ; {
		r, q, err := s.Whole(ctx, runID)
		if err != nil {
			return Run{}, err
		}
		held := r.Nonce != "" && s.now().Before(r.Lease)
		if held && r.Cancel && !s.now().Before(until) {
			newest, err := s.Newest(ctx, runID)
			if err != nil && !fault.Is(err, fault.NotFound) {
				return Run{}, err
			}
			r.State = r.StateAt(newest)
			held = !r.State.Ended()
			if held {
				return r, nil
			}
		}
		switch {
		case r.State == Canceled:
			return r, nil
		case r.State.Ended():
			return r, fault.New(fault.Conflict, "The run is over: it %s.", strings.ReplaceAll(string(r.State), "_", " "))
		}
		if err := before(r); err != nil {
			return r, err
		}
		switch {
		case held && r.Cancel:
			err = s.pause(ctx, stopPoll)
		case held:
			r.Cancel = true
			err = s.put(ctx, &r)
		default:
			r.Cancel = true // should this process die on the way, whoever takes over does the same
			err = s.endIdle(ctx, r, q, Outcome{State: Canceled, Error: Stopped})
		}
		if err != nil && !fault.Is(err, fault.Conflict) && !lost(err) {
			return Run{}, err
		}
	}
}

// lost says whether a claim was lost to somebody, which is a reason to look again.
func lost(err error) bool { return err == ErrLost || err == ErrHeld || err == ErrNothing }

// endIdle ends a run that nobody holds: it claims it like a runner (a waiting one by way of queued) and puts the end page.
func (s *Service) endIdle(ctx context.Context, r Run, q Request, out Outcome) error {
	if r.State == Waiting {
		r.State, r.Due = Queued, s.now().UTC()
		if err := s.put(ctx, &r); err != nil {
			return err
		}
	}
	o, err := s.claim(ctx, r, q, true) // nothing is executed, so it may be beside others
	if err != nil {
		return err
	}
	return o.Fail(out)
}

// Stopped is the sentence of a run that was stopped.
const Stopped = "The run was stopped on request."

// told is an event from outside on its way into the journal.
type told struct {
	Type string          `json:"type"`
	Data json.RawMessage `json:"data"`
}

// Tell adds an event from outside to a run: same pages, numbers, filters and deliveries as the system's own. It waits a
// little for the event to be in the journal and gives its id; recorded is false when the run's owner will do that
// later. Errors: fault.Invalid for a wrong event, fault.Conflict when the run is over.
func (s *Service) Tell(ctx context.Context, runID, eventType string, data json.RawMessage) (eventID string, recorded bool, err error) {
	if _, err := events.NewCustom(eventType, data, events.Identity{}); err != nil {
		return "", false, fault.New(fault.Invalid, "%s", err)
	}
	r, err := s.Get(ctx, runID)
	if err != nil {
		return "", false, err
	}
	over := fault.New(fault.Conflict, "The run is over; nothing can be added to it.")
	if r.State.Ended() {
		return "", false, over
	}
	key := record.Key{Part: partition(runID), Sort: "RUN#" + id.New()}
	rec := record.Record{Key: key, Body: []byte(encode(told{eventType, data})), Expires: s.expires(r)}
	if _, err := s.repeat(ctx, func() (int64, error) { return s.Store.Put(ctx, rec) }, rec.Body); err != nil {
		return "", false, fmt.Errorf("keep an event for run %s: %w", runID, err)
	}
	eventID = id.Derive(runID, key.Sort)

	// What was here before the end page goes in before it, so an end page without it means that it came too late.
	for until := s.now().Add(tellWait); s.now().Before(until); {
		if s.pause(ctx, tellPoll) != nil {
			break
		}
		if _, err := s.Store.Get(ctx, key); fault.Is(err, fault.NotFound) {
			return eventID, true, nil
		}
		if newest, err := s.Newest(ctx, runID); err == nil && newest.Kind == EndPage {
			if _, err := s.Store.Get(ctx, key); fault.Is(err, fault.NotFound) {
				return eventID, true, nil
			}
			_ = s.Store.Delete(ctx, key, 1)
			return "", false, over
		}
	}
	return eventID, false, nil
}

const (
	tellWait = 5 * time.Second
	tellPoll = 200 * time.Millisecond
)

// tell puts an event from outside into the journal, once, and removes it from the inbox.
func (o *Owner) tell(rec record.Record) error {
	var t told
	if err := json.Unmarshal(rec.Body, &t); err != nil {
		return fmt.Errorf("decode %s of run %s: %w", rec.Sort, o.id, err)
	}
	if o.recorded(rec.Sort) == nil {
		d, err := events.NewCustom(t.Type, t.Data, events.Identity{})
		if err != nil {
			return fmt.Errorf("event %s of run %s: %w", rec.Sort, o.id, err)
		}
		e := d.Event(id.Derive(o.id, rec.Sort), "", "")
		e.At = o.s.now()
		p := &Page{Kind: MarkPage, Branch: "outside", Key: rec.Sort}
		if err := o.append(p, pending{events: []events.Event{e}}); err != nil {
			return err
		}
		o.mu.Lock()
		o.steps[rec.Sort] = p
		o.mu.Unlock()
	}
	if err := o.s.Store.Delete(o.ctx, rec.Key, rec.Rev); err != nil {
		o.s.log().Warn("an event from outside stays in the inbox of its run", "run", o.id, "error", err)
	}
	return nil
}
