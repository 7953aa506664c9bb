package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"muster/events"
	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/webhook"
)

// ping is the event of a test.
const ping = "ping"

// pingTime is the time of a test, for whose answer somebody waits.
const pingTime = 20 * time.Second

// openNotice reads a delivery that belongs to no run: its record is all there is.
func (j *job) openNotice(ctx context.Context, m run.DeliveryMessage) error {
	one, ok := j.known["0"]
	if !ok || one.Body == "" {
		return fault.New(fault.NotFound, "There is no such notice.")
	}
	j.run.ID, j.target = m.Run, run.Target{ID: m.Target, Kind: run.EndpointTarget}
	j.bodies = []webhook.Body{{JSON: []byte(one.Body), Event: one.Event}}
	return j.readEndpoint(ctx, one.Deployment)
}

// Ping posts a test to an endpoint, once, enabled or not, and records it. It says nothing of the endpoint's health.
func (d *Dispatcher) Ping(ctx context.Context, e webhook.Endpoint) (webhook.Attempt, error) {
	one, err := d.notice(id.New(), e, webhook.News{Event: ping, At: d.now()}, e)
	if err != nil {
		return webhook.Attempt{}, err
	}
	to := receiver{e.URL, sync.OnceValues(func() (access, error) { return d.unsealEndpoint(ctx, e) })}
	posting, done := context.WithTimeout(ctx, pingTime)
	defer done()
	a, _, err := d.post(posting, to, one, []byte(one.Body))
	if err != nil {
		return webhook.Attempt{}, err
	}
	one.Add(a)
	if one.Status = webhook.Succeeded; a.Class != "" {
		one.Status = webhook.Exhausted
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	return a, d.deliveries().Put(ctx, &one)
}

// notice makes the delivery of news about one endpoint to another, or to itself.
func (d *Dispatcher) notice(noticeID string, about webhook.Endpoint, n webhook.News, to webhook.Endpoint) (webhook.Delivery, error) {
	body, err := d.Notice(to.Format, webhook.Notice{ID: noticeID, Event: n.Event, At: n.At, About: about, Why: n.Why})
	if err != nil {
		return webhook.Delivery{}, fmt.Errorf("write the notice %s: %w", n.Event, err)
	}
	return webhook.NewNotice(noticeID, to, n.Event, body, d.now()), nil
}

// tellNews does what the news of an endpoint ask for, disables it and tells the others, and forgets them then. It may be done
// twice: notices have ids that follow from what they tell.
func (d *Dispatcher) tellNews(ctx context.Context, e *webhook.Endpoint, h *webhook.Health) error {
	told, nowDisabled := map[webhook.News]bool{}, false
	for _, n := range h.News {
		told[n] = true
		if e == nil {
			continue
		}
		if n.Event == events.EndpointDisabled {
			at, stands, err := d.disable(ctx, e.ID, n)
			if err != nil {
				return err
			}
			if !stands {
				continue
			}
			n.At, nowDisabled = at, true
		}
		d.log().Warn("an endpoint's health has changed", "endpoint", e.ID, "deployment", e.DeploymentID, "event", n.Event, "why", n.Why)
		if err := d.spread(ctx, *e, n); err != nil {
			return err
		}
	}
	return d.endpoints().ChangeHealth(ctx, h, func(h *webhook.Health) bool {
		var left []webhook.News
		for _, n := range h.News {
			if !told[n] {
				left = append(left, n)
			}
		}
		if h.News = left; nowDisabled {
			h.Rest()
		}
		return true
	})
}

// disable switches an endpoint off, and says since when it is off for this reason: another answer of its receiver may have
// done it before. stands is false when its owner was quicker.
func (d *Dispatcher) disable(ctx context.Context, endpointID string, n webhook.News) (at time.Time, stands bool, err error) {
	errNo, errDone := errors.New("its owner has"), errors.New("it is")
	at = n.At
	_, err = d.endpoints().Change(ctx, endpointID, func(e *webhook.Endpoint) error {
		switch {
		case !e.Enabled && e.DisabledBy == n.Why:
			at = e.DisabledAt
			return errDone
		case !e.Enabled:
			return errNo
		}
		e.Enabled, e.DisabledBy, e.DisabledAt = false, n.Why, n.At
		return nil
	})
	switch {
	case err == nil, errors.Is(err, errDone):
		return at, true, nil
	case errors.Is(err, errNo), fault.Is(err, fault.NotFound):
		return at, false, nil
	}
	return at, false, fmt.Errorf("disable endpoint %s: %w", endpointID, err)
}

// spread tells the workspace's other endpoints that ask for it.
func (d *Dispatcher) spread(ctx context.Context, about webhook.Endpoint, n webhook.News) error {
	deployments, err := d.Deployments(ctx, about.WorkspaceID)
	if err != nil {
		return err
	}
	noticeID := id.Derive(about.ID, n.Event+"/"+n.At.Format(events.TimeFormat))
	for _, deployment := range deployments {
		all, err := d.endpoints().Of(ctx, deployment.ID)
		if err != nil {
			return err
		}
		for _, e := range all {
			asks := run.Target{Kind: run.EndpointTarget, Events: e.Events}.Asks(n.Event)
			if e.ID == about.ID || !e.Enabled || !asks {
				continue
			}
			one, err := d.notice(noticeID, about, n, e)
			if err != nil {
				return err
			}
			// The record comes first and is due: should the message get lost, the sweeper sends another.
			one.Due = d.now().Add(lost).UTC()
			if err := ignoreConflict(d.deliveries().Put(ctx, &one)); err != nil {
				return err
			}
			if err := d.Queue.Send(ctx, message(one)); err != nil {
				return err
			}
		}
	}
	return nil
}
