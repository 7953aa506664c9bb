package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"muster/shared/fault"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/webhook"
)

const (
	// claimTime is longer than a POST with its record.
	claimTime = postTime + 3*recordTime
	// lost is how long after the moment that something should have happened the sweeper steps in.
	lost = 2 * time.Minute
	// early is how far a message may be ahead of its time because clocks differ.
	early = 2 * time.Second
	// hopeless is the shortest wait after an answer that says that the receiver cannot do this at all.
	hopeless = 30 * time.Minute
)

// part sees to one delivery: it may be new, due, under way elsewhere, not due yet, cut in two, or over.
func (j *job) part(ctx context.Context, part string, body webhook.Body) error {
	one, tried := j.known[part]
	if !tried {
		one = j.new(part, body)
	}
	if !one.Over() {
		if err := j.try(ctx, &one, tried, body); err != nil {
			return err
		}
	}
	if one.Halved {
		return j.halves(ctx, part, body)
	}
	return nil
}

// try makes one attempt, if one is due and the receiver may be asked, and sees to the next.
func (j *job) try(ctx context.Context, one *webhook.Delivery, tried bool, body webhook.Body) error {
	j.slots <- struct{}{}
	defer func() { <-j.slots }()
	if late(ctx) {
		j.again(0)
		return nil
	}
	if tried && !j.ready(*one) {
		return nil
	}
	if passes, err := j.gate(ctx, one); err != nil || !passes {
		return err
	}
	if tried {
		if ours, err := j.claim(ctx, one); err != nil || !ours {
			return err
		}
	}
	if passes, err := j.admit(ctx, one); err != nil || !passes {
		return err
	}
	attempt, hint, err := j.post(ctx, j.to, *one, body.JSON)
	if err != nil {
		return err
	}
	if ctx.Err() != nil && attempt.Code == 0 {
		// It was us who stopped the POST, not the receiver.
		j.again(0)
		return nil
	}
	asked := one.Asked
	one.Add(attempt)
	wait := conclude(one, hint, body.Halves != nil && j.mayHalve(*one), j.probes(*one), j.now())
	j.logPost(ctx, *one)
	stands, err := j.record(ctx, one)
	if err == nil && stands && one.Status == webhook.Failed && !one.Parked && wait <= queue.MaxDelay {
		j.sendLater(ctx, *one, wait)
	}
	j.learn(ctx, one.Shown(), attempt, hint, asked)
	return err
}

// ready says whether it is time for an attempt at a delivery that has a record. When somebody else is at it, or it is not
// time, there is nothing to do here: another message or the due index has it.
func (j *job) ready(one webhook.Delivery) bool {
	now := j.now()
	switch {
	case one.Over():
		return false
	case now.Before(one.ClaimedUntil):
		j.again(one.ClaimedUntil.Sub(now))
		return false
	case now.Before(one.NextAttempt):
		if wait := one.NextAttempt.Sub(now); wait <= early {
			j.again(wait)
		}
		return false
	}
	return true
}

// claim makes a retry ours, unless somebody else was quicker.
func (j *job) claim(ctx context.Context, one *webhook.Delivery) (bool, error) {
	for {
		if !j.ready(*one) {
			return false, nil
		}
		now := j.now()
		one.ClaimedUntil = now.Add(claimTime).UTC()
		if one.Parked {
			one.Parked, one.Due = false, now.Add(lost).UTC()
		}
		// Any other due time stays what it was: should we die, the sweeper asks for another try after the claim.
		err := j.deliveries().Put(ctx, one)
		if err == nil {
			return true, nil
		}
		// The sweeper moves `due` of what it found, so that a changed record may still be there to claim.
		there, ok := webhook.Current(err)
		if !ok {
			return false, err
		}
		*one = there
	}
}

// conclude gives the delivery the status that follows from its newest attempt, and the wait until the next one. The failure of
// a probe is none of the delivery's tries: it is parked again.
func conclude(one *webhook.Delivery, hint time.Duration, halvable, probe bool, now time.Time) (wait time.Duration) {
	one.ClaimedUntil, one.NextAttempt, one.Slot, one.Due = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	one.Asked, one.Parked = false, false
	newest := one.Attempts[len(one.Attempts)-1]
	tooLarge := newest.Code == http.StatusRequestEntityTooLarge
	switch {
	case newest.Class == "":
		one.Status = webhook.Succeeded
		return 0
	case halvable && (tooLarge || newest.Code == http.StatusBadRequest):
		one.Status, one.Halved = webhook.Canceled, true
		return 0
	}
	if probe && !tooLarge && newest.Code != http.StatusGone {
		one.Status, one.Parked = webhook.Failed, true
		one.Before++
		return 0
	}
	if newest.Code == http.StatusNotImplemented || newest.Code == http.StatusHTTPVersionNotSupported {
		hint = max(hint, hopeless)
	}
	wait, more := webhook.Pause(one.ID, one.Tries(), hint)
	if !more || tooLarge || newest.Code == http.StatusGone {
		one.Status = webhook.Exhausted
		return 0
	}
	one.Status = webhook.Failed
	one.NextAttempt = now.Add(wait).UTC()
	if one.Due = one.NextAttempt; wait <= queue.MaxDelay {
		one.Due = one.NextAttempt.Add(lost)
	}
	return wait
}

// halves delivers the two halves of a part.
func (j *job) halves(ctx context.Context, part string, body webhook.Body) error {
	if body.Halves == nil {
		return fmt.Errorf("part %s was cut in two, and now it cannot be", part)
	}
	a, b := body.Halves()
	return j.all(2, func(i int) error {
		if i == 0 {
			return j.part(ctx, part+"a", a)
		}
		return j.part(ctx, part+"b", b)
	})
}

// record writes the delivery with its newest attempt. The POST is done, so the end of ctx does not stop it. stands is
// false when somebody else's record is there and stays.
func (j *job) record(ctx context.Context, one *webhook.Delivery) (stands bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	newest := one.Attempts[len(one.Attempts)-1]
	for tries := 0; ; tries++ {
		err := j.deliveries().Put(ctx, one)
		if err == nil {
			return true, nil
		}
		if !fault.Is(err, fault.Conflict) {
			// Whether the write happened is not known; a second one tells.
			if tries == 0 {
				continue
			}
			return false, err
		}
		there, ok := webhook.Current(err)
		switch n := len(there.Attempts); {
		case !ok:
			return false, err
		case n > 0 && there.Attempts[n-1].At.Equal(newest.At) && there.Status == one.Status:
			return true, nil // an earlier try got through
		case one.Status != webhook.Succeeded || there.Over():
			*one = there
			return false, nil
		}
		// A doubled message made a second POST, and only ours succeeded.
		there.Add(newest)
		conclude(&there, 0, false, false, newest.At)
		*one = there
	}
}

// sendLater sends the message of a short wait. Should that fail, the message at hand takes its place.
func (j *job) sendLater(ctx context.Context, one webhook.Delivery, wait time.Duration) {
	m := message(one)
	m.Delay = wait
	if err := j.Queue.Send(ctx, m); err != nil {
		j.log.Error("a retry could not be sent", "part", one.Part, "error", err)
		j.again(wait)
	}
}

func message(one webhook.Delivery) queue.Message {
	return run.DeliveryMessage{Run: one.RunID, Seq: one.Seq, Target: one.Target, Part: one.Part}.Message()
}

func (j *job) logPost(ctx context.Context, one webhook.Delivery) {
	a, level := one.Attempts[len(one.Attempts)-1], slog.LevelInfo
	if one.Status != webhook.Succeeded {
		level = slog.LevelWarn
	}
	j.log.Log(ctx, level, "webhook posted", "part", one.Part, "delivery", one.Shown(), "attempt", one.Made(),
		"status", one.Status, "code", a.Code, "class", a.Class, "latency_ms", a.LatencyMS, "next", one.NextAttempt)
}

// Parked sends the message of a delivery whose time has come and moves its due time forward; the sweeper calls it with
// the key that it found.
func (d *Dispatcher) Parked(ctx context.Context, k record.Key) error {
	one, err := d.deliveries().At(ctx, k)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	now := d.now()
	if one.Due.IsZero() || one.Due.After(now) {
		return nil
	}
	if err := d.Queue.Send(ctx, message(one)); err != nil {
		return fmt.Errorf("send the parked delivery %s: %w", one.ID, err)
	}
	one.Due = now.Add(lost).UTC()
	return ignoreConflict(d.deliveries().Put(ctx, &one))
}
