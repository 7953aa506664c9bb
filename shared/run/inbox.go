package run

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
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

// Stop ends a run that somebody wants stopped. A queued or waiting run ends at once; a running one is told, and ends as
// soon as its owner hears of it. It gives the run as it is then. A run that is over is fault.Conflict, unless it was
// stopped before.
func (s *Service) Stop(ctx context.Context, runID string) (Run, error) {
	for {
		r, q, err := s.Whole(ctx, runID)
		if err != nil {
			return Run{}, err
		}
		switch {
		case r.State == Canceled || r.State == Running && r.Cancel:
			return r, nil
		case r.State.Ended():
			return r, fault.New(fault.Conflict, "The run is over: it %s.", strings.ReplaceAll(string(r.State), "_", " "))
		case r.State == Running && r.Nonce != "":
			r.Cancel = true
			err = s.put(ctx, &r)
		default:
			err = s.stopIdle(ctx, r, q)
		}
		if err != nil && !fault.Is(err, fault.Conflict) && !over(err) {
			return Run{}, err
		}
	}
}

// over says whether a claim was lost to somebody, which is a reason to look again.
func over(err error) bool { return err == ErrLost || err == ErrHeld || err == ErrNothing }

// stopIdle ends a run that nobody holds: it claims it like a runner (a waiting one by way of queued) and puts the end
// page. Should it die on the way, the flag makes whoever takes over do the same.
func (s *Service) stopIdle(ctx context.Context, r Run, q Request) error {
	r.Cancel = true
	o, err := s.claim(ctx, r, q, false)
	if err != nil {
		return err
	}
	return o.Fail(Outcome{State: Canceled, Error: Stopped})
}

// Stopped is the sentence of a run that was stopped.
const Stopped = "The run was stopped on request."

// Answer answers an open question. The same request may come twice; another answer to an answered question is
// fault.Conflict, a question that is not open fault.Invalid.
func (s *Service) Answer(ctx context.Context, runID, question string, a Answer) error {
	for {
		r, err := s.Get(ctx, runID)
		if err != nil {
			return err
		}
		if before, ok := r.Answers[question]; ok {
			if before.Request == a.Request {
				return nil
			}
			return fault.New(fault.Conflict, "This question has another answer already.")
		}
		newest, err := s.Newest(ctx, runID)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if r.State.Ended() || !slices.Contains(newest.Open, question) {
			return fault.New(fault.Invalid, "The run does not wait for an answer to this question.")
		}
		answers := map[string]Answer{question: a}
		for k, v := range r.Answers {
			answers[k] = v
		}
		r.Answers = answers
		wake := r.State == Waiting
		if wake {
			r.State, r.Due = Queued, s.now().UTC()
		}
		err = s.put(ctx, &r)
		if fault.Is(err, fault.Conflict) {
			continue
		}
		if err == nil && wake {
			err = s.Runs.Send(ctx, RunMessage{runID}.Message())
			if err != nil {
				s.log().Error("a run was answered, but its message was not sent; the sweeper will send it", "run", runID, "error", err)
			}
			return nil
		}
		return err
	}
}

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
