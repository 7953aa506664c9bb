// Package resend sends deliveries again because somebody asked for it: one, or many of an endpoint, which is a redrive.
//
// Nothing is posted here. A delivery that is asked for gets a time for its next attempt, and a message; the dispatcher does
// the rest, under the same id and with the same bytes as before. A redrive is a record that goes through the endpoint's log
// from its newest delivery to its oldest, portion by portion, and is due while it is under way: the sweeper sees to the next
// portion, so that no request is long and none is lost. What a portion sends is spread over the time until the next one.
package resend

import (
	"context"
	"fmt"
	"time"

	"muster/shared/fault"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/webhook"
)

// Runs is what this package needs of *run.Service.
type Runs interface {
	List(ctx context.Context, q run.ListRequest) (runs []run.Run, next string, err error)
	Pages(ctx context.Context, runID string, from, limit int) ([]run.Page, error)
}

// Service sends again.
type Service struct {
	Store record.Store
	Runs  Runs
	// Queue is the deliveries queue.
	Queue queue.Sender
	// Now is the clock, time.Now unless set.
	Now func() time.Time
}

// lost is how long after the moment that an attempt should have happened the sweeper steps in.
const lost = 2 * time.Minute

// races is how often a change that lost a race is made again on what won.
const races = 10

// Redeliver asks for an attempt of a delivery at once, and gives the delivery as it is then. One that is being attempted
// just now is left alone, and so is one without a record, whose first attempt is on its way.
func (s *Service) Redeliver(ctx context.Context, d webhook.Delivery) (webhook.Delivery, error) {
	if !d.Recorded() {
		return d, nil
	}
	d, asked, err := s.ask(ctx, d, s.now(), func(webhook.Delivery) bool { return true })
	if err != nil || !asked {
		return d, err
	}
	// Should this fail, the delivery is due: the sweeper sends the message a little later.
	if err := s.Queue.Send(ctx, message(d)); err != nil {
		return d, fmt.Errorf("send delivery %s again: %w", d.Shown(), err)
	}
	return d, nil
}

// Target asks for the deliveries of a run to one target that have a status, a few a second, and gives how many those are.
func (s *Service) Target(ctx context.Context, runID, target string, status webhook.Status) (sent int, err error) {
	all, err := s.deliveries().OfRun(ctx, runID)
	if err != nil {
		return 0, err
	}
	for _, d := range all {
		if d.Target != target || d.Parts == 0 {
			continue
		}
		wait := min(time.Duration(sent)*time.Second/rate, queue.MaxDelay).Truncate(time.Second)
		d, asked, err := s.ask(ctx, d, s.now().Add(wait), func(d webhook.Delivery) bool { return d.Status == status })
		if err != nil {
			return sent, err
		}
		if !asked {
			continue
		}
		m := message(d)
		m.Delay = wait
		if err := s.Queue.Send(ctx, m); err != nil {
			return sent, fmt.Errorf("send delivery %s again: %w", d.Shown(), err)
		}
		sent++
	}
	return sent, nil
}

// ask gives a delivery its time, if it is still wanted; asked is false for one that is not, or is being attempted just now.
func (s *Service) ask(ctx context.Context, d webhook.Delivery, at time.Time, wanted func(webhook.Delivery) bool) (_ webhook.Delivery, asked bool, err error) {
	for range races {
		if s.now().Before(d.ClaimedUntil) || !wanted(d) {
			return d, false, nil
		}
		changed := d
		changed.Redeliver(at, at.Add(lost))
		err := s.deliveries().Put(ctx, &changed)
		if err == nil {
			return changed, true, nil
		}
		there, ok := webhook.Current(err)
		if !ok {
			return d, false, err
		}
		d = there
	}
	return d, false, fault.New(fault.Conflict, "The delivery is being changed by someone else; please try again.")
}

func message(d webhook.Delivery) queue.Message {
	return run.DeliveryMessage{Run: d.RunID, Seq: d.Seq, Target: d.Target, Part: d.Part}.Message()
}

func (s *Service) deliveries() webhook.Deliveries { return webhook.Deliveries{Store: s.Store} }

func (s *Service) endpoints() webhook.Endpoints { return webhook.Endpoints{Store: s.Store, Now: s.Now} }

func (s *Service) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}
