package dispatch_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/shared/guard/guardtest"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/webhook"
)

func TestAPostIsSignedAndRecorded(t *testing.T) {
	s := newStage(t)
	r := guardtest.New(t, guardtest.Say(202, "thanks"))
	target := s.target(run.CrewTarget, r.URL+"/hook?key=1")
	s.runs.request.Targets[0].Authorization = seal(s.runs.run.WorkspaceID, s.runs.run.ID, "target/"+target, "Bearer "+password)
	seq := s.page(run.StepPage, 0)
	wantDone(t, s.send(t, seq, target, ""))

	got := r.Got()
	if len(got) != 1 {
		t.Fatalf("%d requests arrived", len(got))
	}
	d := s.delivery(t, seq, target, "0")
	if err := webhook.Verify(secret, got[0].Header, got[0].Body, s.clock()); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer " + password, "Content-Type": "application/json", "User-Agent": "Muster/1",
		"X-Crewship-Event": "amp.crew", "X-Crewship-Delivery": d.Shown(), "Accept-Encoding": "identity",
	} {
		if value := got[0].Header.Get(name); value != want {
			t.Errorf("%s: %q, want %q", name, value, want)
		}
	}
	if a := d.Attempts; d.Status != webhook.Succeeded || len(a) != 1 || a[0].Code != 202 || a[0].Response != "thanks" || !a[0].At.Equal(s.clock()) || !d.Due.IsZero() {
		t.Errorf("the record is %+v", d)
	}
	if sent := s.queue.take(); len(sent) != 0 {
		t.Errorf("messages were sent: %v", sent)
	}
	// The message arrives again.
	wantDone(t, s.send(t, seq, target, ""))
	wantDone(t, s.send(t, seq, target, "0"))
	if n := len(r.Got()); n != 1 {
		t.Errorf("a doubled message made %d requests", n)
	}
}

func TestAnswersOfReceivers(t *testing.T) {
	var sent atomic.Int64
	soon, parked := 5*time.Second, 2*time.Hour
	for _, c := range []struct {
		name    string
		answer  guardtest.Behaviour
		url     string // instead of a receiver
		status  webhook.Status
		class   string
		atLeast time.Duration
	}{
		{"200", guardtest.Status(200), "", webhook.Succeeded, "", 0},
		{"204", guardtest.Status(204), "", webhook.Succeeded, "", 0},
		{"an endless body after 200", guardtest.Endless(&sent), "", webhook.Succeeded, "", 0},
		{"a body that breaks off after 200", guardtest.Raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), "", webhook.Succeeded, "", 0},
		{"a dripping body after 200", guardtest.Drip(time.Second), "", webhook.Succeeded, "", 0},
		{"a redirect", guardtest.Status(308, "Location", "http://169.254.169.254/"), "", webhook.Failed, "redirect", soon},
		{"400 for what cannot be cut", guardtest.Status(400), "", webhook.Failed, "status", soon},
		{"404", guardtest.Status(404), "", webhook.Failed, "status", soon},
		{"410", guardtest.Status(410), "", webhook.Exhausted, "gone", 0},
		{"413 for what cannot be cut", guardtest.Status(413), "", webhook.Exhausted, "too_large", 0},
		{"500", guardtest.Status(500), "", webhook.Failed, "status", soon},
		{"a status that is none", guardtest.Raw("HTTP/1.1 799 What\r\nContent-Length: 0\r\n\r\n"), "", webhook.Failed, "status", soon},
		{"429 with a wait", guardtest.Status(429, "Retry-After", "60"), "", webhook.Failed, "status", time.Minute},
		{"503 with a long wait", guardtest.Status(503, "Retry-After", "7200"), "", webhook.Failed, "status", parked},
		{"503 with a date far away", guardtest.Status(503, "Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"), "", webhook.Failed, "status", 10 * time.Hour},
		{"503 with nonsense", guardtest.Status(503, "Retry-After", "1e9"), "", webhook.Failed, "status", soon},
		{"a reset", guardtest.Reset, "", webhook.Failed, "reset", soon},
		{"no HTTP", guardtest.Raw("SSH-2.0\r\n"), "", webhook.Failed, "protocol", soon},
		{"a flood of headers", guardtest.Flood(100_000), "", webhook.Failed, "too_large", soon},
		{"nobody there", nil, "http://" + guardtest.Refused(t), webhook.Failed, "connect", soon},
		{"an address inside", nil, "http://169.254.169.254/latest", webhook.Failed, "blocked", soon},
		{"no URL at all", nil, "http://a b/", webhook.Failed, "invalid", soon},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			url := c.url
			if c.answer != nil {
				url = guardtest.New(t, c.answer).URL
			}
			target := s.target(run.CrewTarget, url)
			seq := s.page(run.StepPage, 0)
			wantDone(t, s.send(t, seq, target, ""))

			d := s.delivery(t, seq, target, "0")
			a := d.Attempts[0]
			if d.Status != c.status || a.Class != c.class || (a.Error == "") != (c.class == "") || len(a.Response) > 16<<10 {
				t.Fatalf("status %s, attempt %+v; want %s, class %q", d.Status, a, c.status, c.class)
			}
			messages := s.queue.take()
			if c.atLeast == 0 {
				if !d.NextAttempt.IsZero() || !d.Due.IsZero() || len(messages) != 0 {
					t.Errorf("it is over, but next is %s, due %s, sent %v", d.NextAttempt, d.Due, messages)
				}
				return
			}
			wait := d.NextAttempt.Sub(s.clock())
			if wait < c.atLeast*11/10 || wait > c.atLeast*12/10 {
				t.Errorf("the wait is %s, want %s and 10 to 20 %%", wait, c.atLeast)
			}
			if wait > queue.MaxDelay {
				if len(messages) != 0 || !d.Due.Equal(d.NextAttempt) {
					t.Errorf("a long wait is parked, but due is %s and sent %v", d.Due, messages)
				}
			} else if len(messages) != 1 || messages[0].Delay != wait || messages[0].Group != s.runs.run.ID+"/"+target || !d.Due.After(d.NextAttempt) {
				t.Errorf("a short wait rides in the queue, but due is %s and sent %+v", d.Due, messages)
			}
		})
	}
}

// The whole schedule of a receiver that never recovers: messages while the wait is short, the due index while it is long.
func TestTheScheduleToItsEnd(t *testing.T) {
	s := newStage(t)
	r := guardtest.New(t, guardtest.Say(500, "down"))
	target := s.target(run.CrewTarget, r.URL)
	seq := s.page(run.StepPage, 0)
	began := s.clock()
	wantDone(t, s.send(t, seq, target, ""))
	d := s.delivery(t, seq, target, "0")
	for attempt := 1; attempt < webhook.MaxAttempts; attempt++ {
		want, _ := webhook.Pause(d.ID, attempt, 0)
		if got := d.NextAttempt.Sub(s.clock()); got != want {
			t.Errorf("after attempt %d: %s, want %s", attempt, got, want)
		}
		if want > queue.MaxDelay {
			s.move(d.NextAttempt.Add(-time.Millisecond))
			if err := s.Parked(t.Context(), s.due(t)); err != nil {
				t.Fatal(err)
			}
			if early := s.queue.take(); len(early) != 0 {
				t.Fatalf("sent before it was due: %v", early)
			}
		}
		s.move(d.NextAttempt)
		if want > queue.MaxDelay {
			if err := s.Parked(t.Context(), s.due(t)); err != nil {
				t.Fatal(err)
			}
		}
		sent := s.queue.take()
		if len(sent) != 1 {
			t.Fatalf("after attempt %d the messages are %v", attempt, sent)
		}
		wantDone(t, s.Handle(t.Context(), queue.Received{Message: sent[0]}))
		d = s.delivery(t, seq, target, "0")
	}
	if d.Status != webhook.Exhausted || len(d.Attempts) != 8 || !d.Due.IsZero() || !d.NextAttempt.IsZero() {
		t.Errorf("after the last attempt the record is %+v", d)
	}
	if took := s.clock().Sub(began); took < 30*time.Hour || took > 33*time.Hour+10*time.Minute {
		t.Errorf("the schedule took %s", took)
	}
	wantDone(t, s.send(t, seq, target, ""))
	wantDone(t, s.send(t, seq, target, "0"))

	got := r.Got()
	if len(got) != 8 {
		t.Fatalf("%d requests arrived, want 8", len(got))
	}
	timestamps := map[string]bool{}
	for i, q := range got {
		if !bytes.Equal(q.Body, got[0].Body) || q.Header.Get("webhook-id") != got[0].Header.Get("webhook-id") {
			t.Errorf("attempt %d: %s %s, the first was %s %s", i+1, q.Header.Get("webhook-id"), q.Body, got[0].Header.Get("webhook-id"), got[0].Body)
		}
		if err := webhook.Verify(secret, q.Header, q.Body, d.Attempts[i].At); err != nil {
			t.Errorf("attempt %d: %v", i+1, err)
		}
		timestamps[q.Header.Get("webhook-timestamp")] = true
	}
	if len(timestamps) != 8 {
		t.Errorf("8 attempts have %d timestamps", len(timestamps))
	}
}

// due finds the one delivery that has a due time.
func (s *stage) due(t *testing.T) record.Key {
	t.Helper()
	due, err := s.store.Due(t.Context(), record.Shard("R#"+s.runs.run.ID), s.clock().Add(100*time.Hour), 10)
	if err != nil || len(due) != 1 {
		t.Fatalf("due: %v, %v", due, err)
	}
	return due[0].Key
}

func TestParkedSendsFirstAndThenMovesTheDueTime(t *testing.T) {
	s := newStage(t)
	target := s.target(run.CrewTarget, guardtest.New(t, guardtest.Status(503, "Retry-After", "3600")).URL)
	seq := s.page(run.StepPage, 0)
	wantDone(t, s.send(t, seq, target, ""))
	key, next := s.due(t), s.delivery(t, seq, target, "0").NextAttempt
	s.move(next)

	s.queue.fail = errors.New("the queue is down")
	if err := s.Parked(t.Context(), key); err == nil || !s.delivery(t, seq, target, "0").Due.Equal(next) {
		t.Errorf("nothing could be sent, but %v and the due time moved", err)
	}
	s.queue.fail = nil
	if err := s.Parked(t.Context(), key); err != nil || !s.delivery(t, seq, target, "0").Due.After(next) {
		t.Errorf("it was sent, but %v and the due time is what it was", err)
	}
	if sent := s.queue.take(); len(sent) != 1 || !strings.Contains(sent[0].Body, `"part":"0"`) {
		t.Errorf("sent %v", sent)
	}
	if err := s.Parked(t.Context(), key); err != nil || len(s.queue.take()) != 0 {
		t.Errorf("it is not due any more, but was sent again: %v", err)
	}
	if err := s.Parked(t.Context(), record.Key{Part: "R#gone", Sort: "D#000001#t1#0"}); err != nil {
		t.Errorf("a record that has expired: %v", err)
	}
}

func TestDoubledRetriesMakeOnePost(t *testing.T) {
	s := newStage(t)
	r := guardtest.New(t, guardtest.InTurn(guardtest.Say(500, "no"), guardtest.Say(200, "yes")))
	target := s.target(run.CrewTarget, r.URL)
	seq := s.page(run.StepPage, 0)
	wantDone(t, s.send(t, seq, target, ""))
	s.move(s.delivery(t, seq, target, "0").NextAttempt)
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() { s.send(t, seq, target, []string{"", "0"}[i%2]) })
	}
	wait.Wait()
	d := s.delivery(t, seq, target, "0")
	if n := len(r.Got()); n != 2 || d.Status != webhook.Succeeded || len(d.Attempts) != 2 {
		t.Errorf("%d requests arrived, want 2; the record is %+v", n, d)
	}
}

func TestARetryThatIsUnderWayElsewhereIsLookedAtLater(t *testing.T) {
	s := newStage(t)
	r := guardtest.New(t, guardtest.Say(500, "no"))
	target := s.target(run.CrewTarget, r.URL)
	seq := s.page(run.StepPage, 0)
	wantDone(t, s.send(t, seq, target, ""))
	d := s.delivery(t, seq, target, "0")

	s.move(d.NextAttempt.Add(-time.Second))
	if wait, retry := s.send(t, seq, target, "0").Retry(); !retry || wait != time.Second {
		t.Errorf("a message a second too early waits for %s, %t", wait, retry)
	}
	s.move(d.NextAttempt)
	s.store.Put(t.Context(), claimed(t, s, d, d.NextAttempt.Add(40*time.Second)))
	if wait, retry := s.send(t, seq, target, "0").Retry(); !retry || wait != 40*time.Second {
		t.Errorf("while another has the claim the message waits for %s, %t", wait, retry)
	}
	s.move(d.NextAttempt.Add(40 * time.Second)) // the other has died
	wantDone(t, s.send(t, seq, target, "0"))
	if n := len(r.Got()); n != 2 {
		t.Errorf("%d requests arrived, want 2", n)
	}
}

// claimed gives the record of a delivery that somebody else has claimed.
func claimed(t *testing.T, s *stage, d webhook.Delivery, until time.Time) record.Record {
	r, err := s.store.Get(t.Context(), s.due(t))
	if err != nil {
		t.Fatal(err)
	}
	d.ClaimedUntil = until
	if r.Body, err = json.Marshal(d); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDeathsBetweenPostAndRecord(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after error
		comesBack     bool
		posts         int
	}{
		{"nothing was recorded", errors.New("down"), nil, true, 2},
		{"it was recorded, and the answer got lost", nil, errors.New("timeout"), false, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			r := guardtest.New(t, guardtest.Say(200, ""))
			target := s.target(run.CrewTarget, r.URL)
			seq := s.page(run.StepPage, 0)
			s.store.before, s.store.after = c.before, c.after
			_, retry := s.send(t, seq, target, "").Retry()
			if retry != c.comesBack {
				t.Errorf("the message comes back: %t, want %t", retry, c.comesBack)
			}
			s.store.before, s.store.after = nil, nil
			wantDone(t, s.send(t, seq, target, ""))
			got := r.Got()
			if len(got) != c.posts || got[0].Header.Get("webhook-id") != got[len(got)-1].Header.Get("webhook-id") {
				t.Errorf("%d posts, want %d under the same id", len(got), c.posts)
			}
			if d := s.delivery(t, seq, target, "0"); d.Status != webhook.Succeeded || len(d.Attempts) != 1 {
				t.Errorf("the record is %+v", d)
			}
		})
	}
}

// Two dispatchers have the same first message: a success is never overwritten by the other's failure.
func TestASuccessStands(t *testing.T) {
	for _, order := range [][]int{{200, 500}, {500, 200}} {
		s := newStage(t)
		asked, second := make(chan struct{}), make(chan struct{})
		var turn atomic.Int64
		r := guardtest.New(t, func(w http.ResponseWriter, _ *http.Request) {
			if turn.Add(1) == 1 { // the first to ask is the last to be answered
				close(asked)
				<-second
				w.WriteHeader(order[1])
				return
			}
			w.WriteHeader(order[0])
		})
		target := s.target(run.CrewTarget, r.URL)
		seq := s.page(run.StepPage, 0)
		var wait sync.WaitGroup
		wait.Go(func() { s.send(t, seq, target, "") })
		<-asked
		wantDone(t, s.send(t, seq, target, ""))
		close(second)
		wait.Wait()
		if d := s.delivery(t, seq, target, "0"); d.Status != webhook.Succeeded || !d.Due.IsZero() {
			t.Errorf("answers %v: the record is %+v", order, d)
		}
	}
}

func TestARetryThatCannotBeSentStaysWithItsMessage(t *testing.T) {
	s := newStage(t)
	r := guardtest.New(t, guardtest.InTurn(guardtest.Say(500, ""), guardtest.Say(200, "")))
	target := s.target(run.CrewTarget, r.URL)
	seq := s.page(run.StepPage, 0)
	s.queue.fail = errors.New("down")
	wait, retry := s.send(t, seq, target, "").Retry()
	d := s.delivery(t, seq, target, "0")
	if !retry || wait != d.NextAttempt.Sub(s.clock()) {
		t.Fatalf("the message comes back in %s, %t; want at %s", wait, retry, d.NextAttempt)
	}
	s.move(d.NextAttempt)
	wantDone(t, s.send(t, seq, target, ""))
	if d = s.delivery(t, seq, target, "0"); d.Status != webhook.Succeeded {
		t.Errorf("the record is %+v", d)
	}
}

func TestASlowReceiverDelaysNobody(t *testing.T) {
	s := newStage(t)
	slow, quick := guardtest.New(t, guardtest.Hang), guardtest.New(t, guardtest.Say(200, ""))
	a, b := s.target(run.CrewTarget, slow.URL), s.target(run.CrewTarget, quick.URL)
	seq := s.page(run.StepPage, 0)
	ctx, stop := context.WithCancel(t.Context())
	answer := make(chan queue.Answer)
	go func() { answer <- s.Handle(ctx, message(s.runs.run.ID, seq, a, "")) }()
	slow.Await(t, 1)
	wantDone(t, s.send(t, seq, b, ""))
	stop()
	if wait, retry := (<-answer).Retry(); !retry || wait != 0 || !s.untried(t, seq, a, "0") {
		t.Errorf("a POST that we stopped ourselves counts as an attempt: %s, %t", wait, retry)
	}
}

func TestNothingIsStartedNearTheDeadline(t *testing.T) {
	s := newStage(t)
	r := guardtest.New(t, guardtest.Say(200, ""))
	target := s.target(run.CrewTarget, r.URL)
	seq := s.page(run.StepPage, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 34*time.Second)
	defer cancel()
	if wait, retry := s.Handle(ctx, message(s.runs.run.ID, seq, target, "")).Retry(); !retry || wait != 0 || len(r.Got()) != 0 {
		t.Errorf("34 s before the end: %s, %t, %d requests", wait, retry, len(r.Got()))
	}
}

func TestPartsOfAPage(t *testing.T) {
	s := newStage(t)
	r := guardtest.New(t, guardtest.InTurn(guardtest.Say(500, ""), guardtest.Say(200, "")))
	target := s.target(run.StepTarget, r.URL)
	seq := s.page(run.StepPage, 20)
	wantDone(t, s.send(t, seq, target, ""))
	var bodies []string
	deliveries := map[string]bool{}
	for _, q := range r.Got() {
		bodies = append(bodies, ids(t, q.Body)...)
		deliveries[q.Header.Get("webhook-id")] = true
	}
	slices.Sort(bodies)
	if len(slices.Compact(bodies)) != 20 || len(deliveries) != 20 {
		t.Errorf("20 events, each its own delivery, went out as %d events in %d deliveries", len(bodies), len(deliveries))
	}
	sent := s.queue.take()
	if len(sent) != 1 {
		t.Fatalf("one of 20 failed, and %d messages were sent", len(sent))
	}
	s.move(s.clock().Add(sent[0].Delay))
	wantDone(t, s.Handle(t.Context(), queue.Received{Message: sent[0]}))
	if got := r.Got(); len(got) != 21 || !deliveries[got[20].Header.Get("webhook-id")] {
		t.Errorf("the retry made %d requests, or a new id", len(got)-20)
	}
}

// picky refuses whatever holds the poison event, and keeps the ids of what it took.
type picky struct {
	*guardtest.Receiver
	mu     sync.Mutex
	code   int
	poison string
	taken  []string
}

func newPicky(t testing.TB, code int, poison string) *picky {
	p := &picky{code: code, poison: poison}
	p.Receiver = guardtest.New(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		all := ids(t, body)
		p.mu.Lock()
		defer p.mu.Unlock()
		if slices.Contains(all, p.poison) {
			w.WriteHeader(p.code)
			return
		}
		p.taken = append(p.taken, all...)
	})
	return p
}

func TestAPoisonEventIsIsolated(t *testing.T) {
	s, r := newStage(t), newPicky(t, 0, "")
	s.Store = &memory{}
	target := s.target(run.StreamTarget, r.URL)
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 100).Draw(rt, "events")
		poison := rapid.IntRange(0, n-1).Draw(rt, "poison")
		r.code = rapid.SampledFrom([]int{400, 413}).Draw(rt, "code")
		r.poison, r.taken = fmt.Sprintf("e%d", poison), nil
		seq, before := s.page(run.StepPage, n), len(r.Got())
		wantDone(rt, s.send(t, seq, target, ""))

		posts := len(r.Got()) - before
		if most := 1 + 2*bits.Len(uint(n-1)); posts > most {
			rt.Errorf("%d posts for one bad event of %d, want at most %d", posts, n, most)
		}
		if slices.Sort(r.taken); len(r.taken) != n-1 || len(slices.Compact(r.taken)) != n-1 {
			rt.Errorf("%d of %d good events were taken: %v", len(r.taken), n-1, r.taken)
		}
		all, err := webhook.Deliveries{Store: s.Store}.OfPage(t.Context(), s.runs.run.ID, seq, target)
		if err != nil || len(all) != posts {
			rt.Errorf("%d records of %d posts, %v", len(all), posts, err)
		}
		left := map[webhook.Status]int{}
		for _, d := range all {
			left[d.Status]++
		}
		if r.code == 413 && left[webhook.Exhausted] != 1 || r.code == 400 && left[webhook.Failed] != 1 {
			rt.Errorf("answered %d, the deliveries are %v", r.code, left)
		}

		// What is sent again, message or retry, touches nothing but the poison event.
		retries := s.queue.take()
		wantDone(rt, s.send(t, seq, target, ""))
		for _, m := range retries {
			s.move(s.clock().Add(m.Delay))
			wantDone(rt, s.Handle(t.Context(), queue.Received{Message: m}))
			if got := r.Got(); !slices.Equal(ids(t, got[len(got)-1].Body), []string{r.poison}) {
				rt.Errorf("the retry sent %s", got[len(got)-1].Body)
			}
		}
		if again := len(r.Got()) - before - posts; again != len(retries) || len(s.queue.take()) != len(retries) {
			rt.Errorf("%d retries made %d posts", len(retries), again)
		}
	})
}

func TestMessagesThatCannotBeDelivered(t *testing.T) {
	s := newStage(t)
	target := s.target(run.CrewTarget, "http://127.0.0.1:1")
	odd := s.target("odd", "http://127.0.0.1:1")
	s.page(run.StepPage, 0)
	runID := s.runs.run.ID
	for _, c := range []struct{ name, body, reason string }{
		{"no JSON", "hello", "The message is not the JSON of a delivery."},
		{"another type", `{"run":7}`, "The message is not the JSON of a delivery."},
		{"empty", `{}`, "The message names no run, page and target."},
		{"a run that is no id", `{"run":"x","seq":1,"target":"t1"}`, "The message names no run, page and target."},
		{"an odd part", `{"run":"` + runID + `","seq":1,"target":"t1","part":"c"}`, `There is no part "c" of a delivery.`},
		{"no such run", `{"run":"0190e2a4-7d1c-7c3e-8f00-5f3f9d0b8a11","seq":1,"target":"t1"}`, "There is no such run."},
		{"no such page", message(runID, 9, target, "").Body, "The run has no page 9."},
		{"no such target", message(runID, 1, "t9", "").Body, `The run has no target "t9".`},
		{"no such part", message(runID, 1, target, "7").Body, `The page has no part "7" for the target.`},
		{"no such half", message(runID, 1, target, "0a").Body, `The page has no part "0a" for the target.`},
		{"a kind nobody knows", message(runID, 1, odd, "").Body, `Nobody knows how to tell a target of kind "odd".`},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer := s.Handle(t.Context(), queue.Received{Message: queue.Message{Body: c.body}})
			if reason, dropped := answer.Dropped(); !dropped || reason != c.reason {
				t.Errorf("dropped %t: %s; want %s", dropped, reason, c.reason)
			}
		})
	}
}

func TestOurOwnFaultsBringTheMessageBack(t *testing.T) {
	for _, c := range []struct {
		name   string
		breaks func(*stage)
	}{
		{"the run cannot be read", func(s *stage) { s.runs.fail = errors.New("down") }},
		{"the format fails", func(s *stage) {
			s.Formats[run.CrewTarget] = func(run.Run, run.Request, run.Page, run.Target, []json.RawMessage) ([]webhook.Body, error) {
				return nil, errors.New("broken")
			}
		}},
		{"the format panics", func(s *stage) {
			s.Formats[run.CrewTarget] = func(run.Run, run.Request, run.Page, run.Target, []json.RawMessage) ([]webhook.Body, error) {
				panic("broken")
			}
		}},
		{"cutting a body panics", func(s *stage) {
			s.Formats[run.CrewTarget] = func(run.Run, run.Request, run.Page, run.Target, []json.RawMessage) ([]webhook.Body, error) {
				return []webhook.Body{{JSON: []byte("{}"), Halves: func() (webhook.Body, webhook.Body) { panic("broken") }}}, nil
			}
		}},
		{"the authorization does not open", func(s *stage) { s.runs.request.Targets[0].Authorization = "moved" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			target := s.target(run.CrewTarget, guardtest.New(t, guardtest.Status(400)).URL)
			seq := s.page(run.StepPage, 0)
			c.breaks(s)
			if wait, retry := s.send(t, seq, target, "").Retry(); !retry || wait == 0 {
				t.Errorf("the message comes back in %s, %t", wait, retry)
			}
			if !strings.Contains(s.log.String(), `"level":"ERROR"`) {
				t.Errorf("nothing in the log: %s", s.log)
			}
		})
	}
}

func TestTheRunIsToldWhenEveryDeliveryOfItsEndHasARecord(t *testing.T) {
	s := newStage(t)
	crew := s.target(run.CrewTarget, guardtest.New(t, guardtest.Say(500, "")).URL)
	steps := s.target(run.StepTarget, guardtest.New(t, guardtest.Say(200, "")).URL)
	stream := s.target(run.StreamTarget, newPicky(t, 400, "e1").URL)
	step, end := s.page(run.StepPage, 4), s.page(run.EndPage, 4)
	for i, c := range []struct {
		seq    int
		target string
		told   int
	}{{step, crew, 0}, {step, steps, 0}, {step, stream, 0}, {end, crew, 0}, {end, stream, 0}, {end, steps, 1}, {end, steps, 2}} {
		wantDone(t, s.send(t, c.seq, c.target, ""))
		if got := s.runs.times(); got != c.told {
			t.Errorf("after message %d the run was told %d times, want %d", i+1, got, c.told)
		}
	}
}

func TestHalvesThatAreUnderWayAreNotToldYet(t *testing.T) {
	s := newStage(t)
	release := make(chan struct{})
	halves := func(w http.ResponseWriter, _ *http.Request) { <-release }
	r := guardtest.New(t, guardtest.InTurn(guardtest.Status(400), halves))
	stream := s.target(run.StreamTarget, r.URL)
	crew := s.target(run.CrewTarget, guardtest.New(t, guardtest.Say(200, "")).URL)
	seq := s.page(run.EndPage, 2)
	var wait sync.WaitGroup
	wait.Go(func() { s.send(t, seq, stream, "") })
	r.Await(t, 3)
	wantDone(t, s.send(t, seq, crew, ""))
	if s.runs.times() != 0 {
		t.Error("the run was told while two halves had no record")
	}
	close(release)
	wait.Wait()
	if s.runs.times() != 1 {
		t.Errorf("at the end the run was told %d times", s.runs.times())
	}
}

func TestAnEndWithNothingForATargetIsToldToo(t *testing.T) {
	s := newStage(t)
	target := s.target(run.StreamTarget, "http://127.0.0.1:1")
	seq := s.page(run.EndPage, 0)
	wantDone(t, s.send(t, seq, target, ""))
	wantDone(t, s.send(t, seq, target, ""))
	if s.runs.times() == 0 {
		t.Error("the run stays due for ever")
	}
}

func TestSecretsAreNeitherKeptNorLogged(t *testing.T) {
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+password))
	for _, authorization := range []string{"Bearer " + password, basic} {
		s := newStage(t)
		r := guardtest.New(t, func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("X-Echo", q.Header.Get("Authorization"))
			w.Header().Set("X-"+strings.ReplaceAll(password, " ", "-"), "a name")
			w.Header().Set("Set-Cookie", "session=theirs")
			w.Header().Set("X-Long", strings.Repeat("x", 1000))
			w.WriteHeader(500)
			said := "got " + q.Header.Get("Authorization") + " password " + password + " for " + secret + " "
			// The end of what is kept falls into a secret.
			io.WriteString(w, said+strings.Repeat(".", 16<<10-len(said)-len(password)+2)+password+strings.Repeat(".", 1000))
		})
		target := s.target(run.CrewTarget, r.URL+"/?token="+password)
		s.runs.request.Targets[0].Authorization = seal(s.runs.run.WorkspaceID, s.runs.run.ID, "target/"+target, authorization)
		seq := s.page(run.StepPage, 0)
		wantDone(t, s.send(t, seq, target, ""))
		kept := s.delivery(t, seq, target, "0").Attempts[0]
		if !kept.Truncated || len(kept.Response) > 16<<10 || !strings.Contains(kept.Response, "got [secret] password [secret] for [secret]") {
			t.Errorf("kept %d bytes: %.100s", len(kept.Response), kept.Response)
		}
		want := map[string]string{"Content-Type": "text/plain; charset=utf-8", "X-Echo": "[secret]", "X-Long": strings.Repeat("x", 200)}
		if diff := cmp.Diff(want, kept.Headers); diff != "" {
			t.Errorf("headers (-want +got):\n%s", diff)
		}
		for _, hidden := range []string{password, strings.TrimPrefix(secret, "whsec_"), strings.TrimPrefix(basic, "Basic "), password[:10]} {
			if strings.Contains(kept.Response, hidden) || strings.Contains(s.log.String(), hidden) {
				t.Errorf("%s is kept or logged", hidden)
			}
		}
		if log := s.log.String(); strings.Contains(log, "127.0.0.1") || strings.Count(log, "\n") != 1 || strings.Contains(log, "kickoff_id") {
			t.Errorf("the log is %s", log)
		}
	}
}

// Receivers in trouble like to answer with what they were sent, in the spelling of their page or log.
func TestSecretsAreNotKeptInOtherSpellings(t *testing.T) {
	const key = `a/b+c "d" <e>&\f`
	for name, answer := range map[string]string{
		"plain":                  key,
		"JSON":                   `{"key":"a/b+c \"d\" <e>&\\f"}`,
		"JSON of Go":             `{"key":"a/b+c \"d\" \u003ce\u003e\u0026\\f"}`,
		"JSON of PHP":            `{"key":"a\/b+c \"d\" <e>&\\f"}`,
		"a form":                 "key=a%2Fb%2Bc+%22d%22+%3Ce%3E%26%5Cf",
		"a URL":                  "?key=a%2Fb%2Bc%20%22d%22%20%3Ce%3E%26%5Cf",
		"HTML":                   "<i>a/b+c &#34;d&#34; &lt;e&gt;&amp;\\f</i>",
		"HTML with named quotes": "<i>a/b+c &quot;d&quot; &lt;e&gt;&amp;\\f</i>",
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			r := guardtest.New(t, func(w http.ResponseWriter, q *http.Request) {
				w.WriteHeader(500)
				io.WriteString(w, answer)
			})
			target := s.target(run.CrewTarget, r.URL)
			s.runs.request.Targets[0].Authorization = seal(s.runs.run.WorkspaceID, s.runs.run.ID, "target/"+target, "Bearer "+key)
			seq := s.page(run.StepPage, 0)
			wantDone(t, s.send(t, seq, target, ""))
			if kept := s.delivery(t, seq, target, "0").Attempts[0].Response; !strings.Contains(kept, "[secret]") || strings.Contains(kept, "b") {
				t.Errorf("kept %s", kept)
			}
		})
	}
}
