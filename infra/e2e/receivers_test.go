package e2e_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"muster/shared/webhook"
)

// receivers is about receivers that misbehave.
var receivers = []behaviour{
	{"a receiver that says it is gone is told no more of that, and the run and the others go on", respectsGone},
	{"a receiver that takes its time keeps nobody else waiting", waitsForNobody},
	{"a body that a receiver finds too large or bad is cut in two until the rest is through", cutsInTwo},
}

func respectsGone(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	r, gone := newReceiver(t, h), newReceiver(t, h)
	gone.reply = func(post) int { return http.StatusGone }
	body := r.webhooks(false)
	body["taskWebhookUrl"] = gone.url + "/task"
	runID := d.kickoff(t, about("farewells", body))
	r.hear(t, d, runID)
	gone.until(t, "the task", func(posts []post) bool { return len(posts) > 0 })
	if s := d.status(t, runID); s.State != "SUCCESS" {
		t.Errorf("the run is %s", s.State)
	}
}

// waitsForNobody has a receiver that does not answer before another one has heard the end of the run.
func waitsForNobody(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	r, slow := newReceiver(t, h), newReceiver(t, h)
	open := make(chan struct{})
	slow.reply = func(post) int {
		select {
		case <-open:
		case <-time.After(patience):
		}
		return http.StatusOK
	}
	body := r.webhooks(true)
	body["stepWebhookUrl"], body["taskWebhookUrl"] = slow.url+"/step", slow.url+"/task"
	runID := d.kickoff(t, about("patience", body))
	r.hear(t, d, runID)
	close(open)
	slow.until(t, "step and task", func(posts []post) bool {
		return len(distinct(posts, "/step")) == 1 && len(distinct(posts, "/task")) == 1
	})
}

func cutsInTwo(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	r := newReceiver(t, h)
	r.reply = func(p post) int {
		if p.path == "/events" && len(eventsOf(t, []post{p})) > 1 {
			return http.StatusRequestEntityTooLarge
		}
		return http.StatusOK
	}
	runID := d.kickoff(t, about("scissors", r.webhooks(false)))
	posts := r.until(t, "the end, one event at a time", func(posts []post) bool {
		single := slices.DeleteFunc(slices.Clone(posts), func(p post) bool { return p.path == "/events" && len(eventsOf(t, []post{p})) > 1 })
		return ended(t, single)
	})
	holdEvents(t, eventsOf(t, posts), runID)
}

// more is about what needs a home of its own: a clock that is moved, short invocations, an idle machine.
func more(t *testing.T, open opener) {
	t.Run("a receiver that fails twice is told for the third time", func(t *testing.T) {
		t.Parallel()
		triesAgain(t, newHome(t, open, settings{every: 500 * time.Millisecond}))
	})
	t.Run("after its sunset the old header of the agents' trigger is refused", func(t *testing.T) {
		t.Parallel()
		afterTheSunset(t, newHome(t, open, settings{every: 500 * time.Millisecond}))
	})
	t.Run("a run of twenty steps goes through many short invocations and repeats nothing", func(t *testing.T) {
		t.Parallel()
		goesOnElsewhere(t, newHome(t, open, settings{
			every: 500 * time.Millisecond, timeouts: map[string]time.Duration{"runner": 3 * time.Second}, margin: time.Second,
		}))
	})
}

func triesAgain(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	r, failing := newReceiver(t, h), newReceiver(t, h)
	failing.reply = func(p post) int {
		if p.nth <= 2 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	}
	body := r.webhooks(false)
	body["crewWebhookUrl"] = failing.url + "/crew"
	runID := d.kickoff(t, about("persistence", map[string]any{"webhooks": body["webhooks"], "meta": body["meta"], "crewWebhookUrl": body["crewWebhookUrl"]}))
	r.until(t, "the end", func(posts []post) bool { return ended(t, posts) })
	tries := func(n int) []post {
		return failing.until(t, "the end", func(posts []post) bool { return len(posts) >= n })
	}
	tries(1)
	tries(2) // after five seconds, which ride in the queue
	end, err := h.app.Runs.Newest(t.Context(), runID)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second try is recorded", func() bool {
		told, err := webhook.Deliveries{Store: h.backend.records}.OfPage(t.Context(), runID, end.Seq, "crew")
		return err == nil && len(told) == 1 && len(told[0].Attempts) == 2
	})
	// After five minutes and a part of one more. The message is in the queue for as long; where that has a clock of its
	// own, the sweeper finds the delivery when it is two minutes late.
	h.pass(9 * time.Minute)
	posts := tries(3)
	for _, p := range posts {
		if err := webhook.Verify(d.WebhookSecret, p.header, p.body, p.at); err != nil {
			t.Error(err)
		}
		if string(p.body) != string(posts[0].body) || p.header.Get(webhook.HeaderDelivery) != posts[0].header.Get(webhook.HeaderDelivery) {
			t.Errorf("a try has another body or another id than the first")
		}
	}
	if posts[2].header.Get(webhook.HeaderTimestamp) == posts[0].header.Get(webhook.HeaderTimestamp) {
		t.Errorf("a try carries the timestamp of another")
	}
	if s := d.status(t, runID); s.State != "SUCCESS" {
		t.Errorf("the run is %s", s.State)
	}
}
