package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"muster/shared/fault"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/webhook"
)

// Tend looks after an endpoint whose health is due: it tells the news of it, sends the one delivery that may probe an open
// breaker, and releases what is parked. The sweeper calls it with the key that it found.
func (d *Dispatcher) Tend(ctx context.Context, k record.Key) error {
	deploymentID, endpointID, ok := webhook.HealthOf(k)
	if !ok {
		return fmt.Errorf("the record %s %s is not about the health of an endpoint", k.Part, k.Sort)
	}
	e, h, err := d.endpoints().Read(ctx, deploymentID, endpointID)
	if err != nil {
		return err
	}
	now := d.now()
	if h.Due.IsZero() || h.Due.After(now) {
		return nil
	}
	if len(h.News) > 0 {
		if err := d.tellNews(ctx, e, &h); err != nil {
			return err
		}
		if e, h, err = d.endpoints().Read(ctx, deploymentID, endpointID); err != nil {
			return err
		}
	}
	switch {
	case e == nil && !h.Drain.IsZero():
		return d.release(ctx, endpointID, h, webhook.AtOnce)
	case e == nil:
		return d.endpoints().ForgetHealth(ctx, h)
	case !e.Enabled:
		// Whoever is about to enable it has said so before.
		return d.later(ctx, h, func(h *webhook.Health) { h.Wait(now) })
	case h.State != webhook.Well:
		return d.probe(ctx, *e, h)
	case now.Before(h.Hold):
		return d.later(ctx, h, func(h *webhook.Health) { h.Due = h.Hold })
	case !h.Drain.IsZero():
		return d.release(ctx, endpointID, h, h.Next(e.MaxRPS, now))
	}
	return d.later(ctx, h, func(h *webhook.Health) { h.Due = time.Time{} })
}

// later changes when the record is looked at next, unless it is not what it was.
func (d *Dispatcher) later(ctx context.Context, h webhook.Health, f func(*webhook.Health)) error {
	was := h.Due
	return d.endpoints().ChangeHealth(ctx, &h, func(h *webhook.Health) bool {
		if !h.Due.Equal(was) {
			return false
		}
		f(h)
		return true
	})
}

// probe picks one of the parked deliveries and lets it try. The record names it first: should its message get lost, the
// record is due again.
func (d *Dispatcher) probe(ctx context.Context, e webhook.Endpoint, h webhook.Health) error {
	const some = 10
	found, err := d.Store.Oldest(ctx, webhook.ParkedList(e.ID), some)
	if err != nil {
		return fmt.Errorf("list what is parked under endpoint %s: %w", e.ID, err)
	}
	for i := range found {
		// Not always the same one: it may be the body that the receiver cannot take.
		one, err := d.deliveries().At(ctx, found[(i+h.Opened)%len(found)].Key)
		if fault.Is(err, fault.NotFound) || err == nil && !one.Parked {
			continue // the index is behind
		}
		if err != nil {
			return err
		}
		ours := false
		err = d.later(ctx, h, func(h *webhook.Health) {
			h.State, h.Probe, h.Due, ours = webhook.Probing, one.Shown(), d.now().Add(lost).UTC(), true
		})
		if err != nil || !ours {
			return err
		}
		return d.Queue.Send(ctx, message(one))
	}
	return d.later(ctx, h, func(h *webhook.Health) { h.Idle(d.now()) })
}

// release sends the messages of up to n parked deliveries, and takes them from under the endpoint then.
func (d *Dispatcher) release(ctx context.Context, endpointID string, h webhook.Health, n int) error {
	var found []record.Entry
	if n > 0 {
		var err error
		if found, err = d.Store.Oldest(ctx, webhook.ParkedList(endpointID), n); err != nil {
			return fmt.Errorf("list what is parked under endpoint %s: %w", endpointID, err)
		}
	}
	all, err := d.parked(ctx, found)
	if err != nil {
		return err
	}
	now := d.now()
	var messages []queue.Message
	for _, one := range all {
		messages = append(messages, message(one))
	}
	if len(messages) > 0 {
		if err := d.Queue.Send(ctx, messages...); err != nil {
			return fmt.Errorf("send what was parked under endpoint %s: %w", endpointID, err)
		}
	}
	err = inTurn(all, func(one *webhook.Delivery) error {
		one.Parked, one.NextAttempt, one.Due = false, now.UTC(), now.Add(lost).UTC()
		return ignoreConflict(d.deliveries().Put(ctx, one))
	})
	if err != nil {
		return err
	}
	e, fresh, err := d.endpoints().Read(ctx, h.Deployment(), endpointID)
	if err != nil {
		return err
	}
	if e == nil && n > 0 && len(found) == 0 && h.Drained(now) {
		return d.endpoints().ForgetHealth(ctx, fresh)
	}
	return d.later(ctx, h, func(h *webhook.Health) { h.Released(len(found), n, now) })
}

// parked reads deliveries that an index has found, those that are parked still.
func (d *Dispatcher) parked(ctx context.Context, found []record.Entry) ([]webhook.Delivery, error) {
	read := make([]webhook.Delivery, len(found))
	at := map[*webhook.Delivery]record.Key{}
	for i := range found {
		at[&read[i]] = found[i].Key
	}
	err := inTurn(read, func(one *webhook.Delivery) error {
		there, err := d.deliveries().At(ctx, at[one])
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		*one = there
		return err
	})
	var all []webhook.Delivery
	for _, one := range read {
		if one.Parked {
			all = append(all, one)
		}
	}
	return all, err
}

// inTurn calls f for all, a few at the same time.
func inTurn(all []webhook.Delivery, f func(*webhook.Delivery) error) error {
	var (
		wait sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	slots := make(chan struct{}, atOnce)
	for i := range all {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			if err := f(&all[i]); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}
