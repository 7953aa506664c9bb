package dispatch_test

import (
	"testing"
	"time"

	"muster/shared/guard/guardtest"
	"muster/shared/queue"
	"muster/shared/resend"
	"muster/shared/run"
	"muster/shared/webhook"
)

// again asks for a delivery as a user does, and gives the message.
func (s *stage) again(t *testing.T, d webhook.Delivery) queue.Received {
	t.Helper()
	by := resend.Service{Store: s.store, Queue: s.queue, Now: s.clock}
	if _, err := by.Redeliver(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	sent := s.queue.take()
	if len(sent) != 1 {
		t.Fatalf("sent %v", sent)
	}
	return queue.Received{Message: sent[0]}
}

func TestAPendingRetryAndOneThatIsAskedForMakeOneSchedule(t *testing.T) {
	s := newStage(t)
	r := guardtest.New(t, guardtest.Status(500))
	target := s.target(run.CrewTarget, r.URL)
	seq := s.page(run.StepPage, 0)
	wantDone(t, s.send(t, seq, target, ""))
	first := s.delivery(t, seq, target, "0")
	pending := s.queue.take()

	s.move(s.clock().Add(time.Second))
	asked := s.again(t, first)
	wantDone(t, s.Handle(t.Context(), asked))
	second := s.delivery(t, seq, target, "0")
	after := s.queue.take()
	if len(r.Got()) != 2 || second.Tries() != 2 || second.NextAttempt.Sub(s.clock()) < 5*time.Minute || len(after) != 1 {
		t.Fatalf("%d POSTs, %d messages, %+v", len(r.Got()), len(after), second)
	}

	// The retry that was pending comes at its time, and so do copies of what was asked for: none is a third POST.
	s.move(first.NextAttempt)
	wantDone(t, s.Handle(t.Context(), queue.Received{Message: pending[0]}))
	wantDone(t, s.Handle(t.Context(), asked))
	if len(r.Got()) != 2 || len(s.queue.take()) != 0 {
		t.Errorf("%d POSTs", len(r.Got()))
	}
	s.move(second.NextAttempt)
	wantDone(t, s.Handle(t.Context(), queue.Received{Message: after[0]}))
	posts := r.Got()
	if len(posts) != 3 || s.delivery(t, seq, target, "0").Tries() != 3 {
		t.Errorf("%d POSTs", len(posts))
	}
	for _, p := range posts {
		if p.Header.Get(webhook.HeaderDelivery) != first.Shown() || string(p.Body) != string(posts[0].Body) {
			t.Error("a POST has another id or another body")
		}
	}
}

func TestWhatWasGivenUpGoesThroughTheScheduleOnceMore(t *testing.T) {
	s := newStage(t)
	r := guardtest.New(t, guardtest.Status(500))
	target := s.target(run.CrewTarget, r.URL)
	seq := s.page(run.StepPage, 0)
	d := webhook.New(s.runs.run.ID, seq, target, "0", "amp.crew", s.clock())
	d.Parts, d.Status = 1, webhook.Exhausted
	for range 8 {
		d.Add(webhook.Attempt{At: s.clock().Add(-time.Hour), Code: 500, Class: "status"})
	}
	if err := (webhook.Deliveries{Store: s.store}).Put(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
	for _, status := range []webhook.Status{webhook.Exhausted, webhook.Succeeded} {
		if status == webhook.Succeeded {
			d = s.delivery(t, seq, target, "0")
			d.Status = status
			if err := (webhook.Deliveries{Store: s.store}).Put(t.Context(), &d); err != nil {
				t.Fatal(err)
			}
		}
		made := d.Made()
		wantDone(t, s.Handle(t.Context(), s.again(t, d)))
		s.queue.take()
		d = s.delivery(t, seq, target, "0")
		if d.Status != webhook.Failed || d.Made() != made+1 || d.Tries() != 1 || d.NextAttempt.Sub(s.clock()) > 10*time.Second {
			t.Errorf("what was %s is %+v", status, d)
		}
	}
}
