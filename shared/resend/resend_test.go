package resend_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/resend"
	"muster/shared/run"
	"muster/shared/storetest"
	"muster/shared/webhook"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// stage is the service on a store in memory, with a queue and runs that can be looked at.
type stage struct {
	*resend.Service
	t        *testing.T
	store    *storetest.Memory
	clock    time.Time
	endpoint webhook.Endpoint
	sent     []queue.Message
	broken   error
	sending  func()
	runs     []run.Run // newest first
	pages    map[string][]run.Page
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, clock: start, store: &storetest.Memory{}, pages: map[string][]run.Page{}}
	s.store.Now = s.now
	s.Service = &resend.Service{Store: s.store, Runs: s, Queue: s, Now: s.now}
	s.endpoint = webhook.Endpoint{
		ID: id.New(), WorkspaceID: id.New(), DeploymentID: id.New(), Environment: "production", Enabled: true, Events: []string{"run.failed", "run.succeeded"},
	}
	if err := (webhook.Endpoints{Store: s.store, Now: s.now}).Create(t.Context(), &s.endpoint); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stage) now() time.Time { return s.clock }

func (s *stage) Send(_ context.Context, m ...queue.Message) error {
	if s.broken != nil {
		return s.broken
	}
	s.sent = append(s.sent, m...)
	if s.sending != nil {
		s.sending()
	}
	return nil
}

func (s *stage) List(_ context.Context, q run.ListRequest) (runs []run.Run, next string, err error) {
	for _, r := range s.runs {
		if !slices.Contains(q.DeploymentIDs, r.DeploymentID) || r.ID >= q.Cursor {
			continue
		}
		if runs = append(runs, r); len(runs) == q.Limit {
			return runs, r.ID, nil
		}
	}
	return runs, "", nil
}

func (s *stage) Pages(_ context.Context, runID string, from, limit int) (pages []run.Page, err error) {
	for _, p := range s.pages[runID] {
		if p.Seq >= from && len(pages) < limit {
			pages = append(pages, p)
		}
	}
	return pages, nil
}

// delivery keeps one that was made so many minutes before the start, and tried then.
func (s *stage) delivery(minutes int, status webhook.Status, event string) webhook.Delivery {
	s.t.Helper()
	made := start.Add(-time.Duration(minutes) * time.Minute)
	d := webhook.New(id.New(), 1, s.endpoint.ID, "0", event, made)
	d.Parts, d.Status = 1, status
	d.Add(webhook.Attempt{At: made, Code: 500, Class: "status"})
	if status == webhook.Failed {
		d.NextAttempt, d.Due = start.Add(time.Hour), start.Add(time.Hour)
	}
	if err := (webhook.Deliveries{Store: s.store}).Put(s.t.Context(), &d); err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *stage) read(d webhook.Delivery) webhook.Delivery {
	s.t.Helper()
	d, err := (webhook.Deliveries{Store: s.store}).Get(s.t.Context(), d.RunID, d.Seq, d.Target, d.Part)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *stage) begin(ask resend.Ask, key string) resend.Redrive {
	s.t.Helper()
	r, err := s.Start(s.t.Context(), s.endpoint, ask, key)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// sweep does what the sweeper does once a minute.
func (s *stage) sweep() {
	s.t.Helper()
	for shard := range record.Shards {
		due, err := s.store.Due(s.t.Context(), shard, s.clock, 100)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, one := range due {
			if !resend.IsRedrive(one.Key) {
				continue
			}
			if err := s.Advance(s.t.Context(), one.Key); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// finish sweeps until the redrive is over.
func (s *stage) finish(r resend.Redrive) resend.Redrive {
	s.t.Helper()
	for range 100 {
		r, err := s.Redrive(s.t.Context(), s.endpoint.ID, r.ID)
		if err != nil {
			s.t.Fatal(err)
		}
		if r.State != resend.Running {
			return r
		}
		s.clock = s.clock.Add(time.Minute)
		s.sweep()
	}
	s.t.Fatal("the redrive does not end")
	return r
}

func TestADeliveryThatIsAskedForIsDueAtOnce(t *testing.T) {
	for _, status := range []webhook.Status{webhook.Failed, webhook.Exhausted, webhook.Succeeded, webhook.Canceled} {
		s := newStage(t)
		d := s.delivery(10, status, "run.failed")
		got, err := s.Redeliver(t.Context(), d)
		if err != nil || got.Shown() != d.Shown() || got.Over() {
			t.Fatalf("%s: %+v, %v", status, got, err)
		}
		kept := s.read(d)
		if !kept.NextAttempt.Equal(start) || !kept.Due.After(start) || kept.Due.After(start.Add(5*time.Minute)) {
			t.Errorf("%s: the next attempt is at %s, and the sweeper looks at %s", status, kept.NextAttempt, kept.Due)
		}
		var asked run.DeliveryMessage
		want := run.DeliveryMessage{Run: d.RunID, Seq: 1, Target: s.endpoint.ID, Part: "0"}
		if len(s.sent) != 1 || json.Unmarshal([]byte(s.sent[0].Body), &asked) != nil || asked != want {
			t.Errorf("%s: sent %v", status, s.sent)
		}
	}
}

func TestADeliveryThatIsBeingAttemptedIsLeftAlone(t *testing.T) {
	s := newStage(t)
	d := s.delivery(10, webhook.Failed, "run.failed")
	claimed := d
	claimed.ClaimedUntil = start.Add(time.Minute)
	if err := (webhook.Deliveries{Store: s.store}).Put(t.Context(), &claimed); err != nil {
		t.Fatal(err)
	}
	// What is asked for was read before the claim.
	if got, err := s.Redeliver(t.Context(), d); err != nil || !got.ClaimedUntil.Equal(claimed.ClaimedUntil) || len(s.sent) != 0 {
		t.Errorf("%+v, %v, %d sent", got, err, len(s.sent))
	}
}

func TestADeliveryIsDueEvenIfItsMessageCannotBeSent(t *testing.T) {
	s := newStage(t)
	d := s.delivery(10, webhook.Exhausted, "run.failed")
	s.broken = errors.New("no queue")
	if _, err := s.Redeliver(t.Context(), d); err == nil {
		t.Error("nobody was told")
	}
	if kept := s.read(d); kept.Over() || kept.Due.IsZero() {
		t.Errorf("%+v", kept)
	}
}

func TestWhatATargetOfARunDidNotTakeIsSentAgain(t *testing.T) {
	s := newStage(t)
	runID := id.New()
	for seq, c := range []struct {
		target string
		status webhook.Status
		parts  int
	}{{"step", webhook.Exhausted, 1}, {"step", webhook.Succeeded, 1}, {"task", webhook.Exhausted, 1}, {"step", webhook.Exhausted, 1}, {"step", webhook.Exhausted, 0}} {
		d := webhook.New(runID, seq+1, c.target, "0", "amp.step", start)
		d.Status, d.Parts = c.status, c.parts
		if err := (webhook.Deliveries{Store: s.store}).Put(t.Context(), &d); err != nil {
			t.Fatal(err)
		}
	}
	sent, err := s.Target(t.Context(), runID, "step", webhook.Exhausted)
	if err != nil || sent != 2 || len(s.sent) != 2 {
		t.Errorf("%d of %d, %v", len(s.sent), sent, err)
	}
}

func TestARedriveSendsWhatIsAskedFor(t *testing.T) {
	minutes := func(n int) time.Time { return start.Add(-time.Duration(n) * time.Minute) }
	for _, c := range []struct {
		name string
		ask  resend.Ask
		want []int // the minutes of those sent
	}{
		{"what is exhausted", resend.Ask{Status: webhook.Exhausted}, []int{10, 30}},
		{"what failed, before its time", resend.Ask{Status: webhook.Failed}, []int{20}},
		{"what succeeded", resend.Ask{Status: webhook.Succeeded}, []int{40, 50}},
		{"of one event", resend.Ask{Status: webhook.Succeeded, Event: "run.failed"}, []int{50}},
		{"from a time on", resend.Ask{Status: webhook.Exhausted, Since: minutes(10)}, []int{10}},
		{"up to a time", resend.Ask{Status: webhook.Exhausted, Until: minutes(11)}, []int{30}},
		{"of a time without any", resend.Ask{Status: webhook.Exhausted, Since: minutes(29), Until: minutes(11)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			all := map[int]webhook.Delivery{
				10: s.delivery(10, webhook.Exhausted, "run.failed"), 20: s.delivery(20, webhook.Failed, "run.failed"),
				30: s.delivery(30, webhook.Exhausted, "run.succeeded"), 40: s.delivery(40, webhook.Succeeded, "run.succeeded"),
				50: s.delivery(50, webhook.Succeeded, "run.failed"),
			}
			r := s.finish(s.begin(c.ask, ""))
			var got []int
			for n, d := range all {
				if s.read(d).Asked {
					got = append(got, n)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(c.want, got); diff != "" || len(s.sent) != len(c.want) || r.Sent != len(c.want) || r.State != resend.Done {
				t.Errorf("%d sent, %+v (-want +got):\n%s", len(s.sent), r, diff)
			}
		})
	}
}

func TestARedriveSaysWhatItCovers(t *testing.T) {
	for name, c := range map[string]struct{ until, want time.Time }{
		"what was made a moment ago may not be in the log yet": {time.Time{}, start.Add(-time.Minute)},
		"even if that was asked for":                           {start.Add(-time.Second), start.Add(-time.Minute)},
		"what is older is":                                     {start.Add(-time.Hour), start.Add(-time.Hour)},
	} {
		s := newStage(t)
		r := s.begin(resend.Ask{Status: webhook.Exhausted, Until: c.until}, "")
		if got := r.CoversUntil(); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestALongRedriveIsSpreadOverTime(t *testing.T) {
	s := newStage(t)
	const many = 1500
	for n := range many {
		s.delivery(n+1, webhook.Exhausted, "run.failed")
	}
	r := s.begin(resend.Ask{Status: webhook.Exhausted}, "")
	if r.State != resend.Running || r.Sent == 0 || r.Sent > 60 {
		t.Errorf("at once %d are sent, %s", r.Sent, r.State)
	}
	for before := len(s.sent); r.State == resend.Running; before = len(s.sent) {
		s.clock = s.clock.Add(time.Minute)
		s.sweep()
		var err error
		if r, err = s.Redrive(t.Context(), s.endpoint.ID, r.ID); err != nil {
			t.Fatal(err)
		}
		if n := len(s.sent) - before; n > 600 {
			t.Errorf("%d are sent in a minute", n)
		}
		for _, m := range s.sent[before:] {
			if m.Delay > time.Minute {
				t.Errorf("a message waits for %s", m.Delay)
			}
		}
	}
	if r.Sent != many || r.Looked != many || len(s.sent) != many {
		t.Errorf("%d messages, %+v", len(s.sent), r)
	}
}

func TestAnEndpointsOwnBoundIsKept(t *testing.T) {
	s := newStage(t)
	for n := range 10 {
		s.delivery(n+1, webhook.Exhausted, "run.failed")
	}
	var err error
	s.endpoint, err = webhook.Endpoints{Store: s.store}.Change(t.Context(), s.endpoint.ID, func(e *webhook.Endpoint) error { e.MaxRPS = 1; return nil })
	if err != nil {
		t.Fatal(err)
	}
	s.begin(resend.Ask{Status: webhook.Exhausted}, "")
	var delays []string
	for _, m := range s.sent {
		delays = append(delays, m.Delay.String())
	}
	if diff := cmp.Diff([]string{"0s", "1s", "2s", "3s", "4s"}, delays); diff != "" {
		t.Error(diff)
	}
}

func TestARedriveIsTheSameHoweverOftenItIsAskedFor(t *testing.T) {
	s := newStage(t)
	for n := range 100 {
		s.delivery(n+1, webhook.Exhausted, "run.failed")
	}
	exhausted, failed := resend.Ask{Status: webhook.Exhausted}, resend.Ask{Status: webhook.Failed}
	first := s.begin(exhausted, "")
	if again := s.begin(exhausted, ""); again.ID != first.ID {
		t.Error("while it is under way it is another one")
	}
	s.finish(first)
	second := s.begin(exhausted, "")
	if second.ID == first.ID {
		t.Error("after its end it is the same")
	}
	named := s.begin(failed, "key")
	s.finish(named)
	if again := s.begin(failed, "key"); again.ID != named.ID || again.State != resend.Done {
		t.Errorf("with its key it is %s, %s", again.ID, again.State)
	}
	if _, err := s.Start(t.Context(), s.endpoint, exhausted, "key"); !fault.Is(err, fault.Conflict) {
		t.Errorf("something else with the same key: %v", err)
	}
	if all, err := s.Redrives(t.Context(), s.endpoint.ID); err != nil || len(all) != 3 || all[0].CreatedAt.Before(all[2].CreatedAt) {
		t.Errorf("%d redrives, %v", len(all), err)
	}
}

func TestARedriveCanBeStopped(t *testing.T) {
	s := newStage(t)
	for n := range 100 {
		s.delivery(n+1, webhook.Exhausted, "run.failed")
	}
	r := s.begin(resend.Ask{Status: webhook.Exhausted}, "")
	stopped, err := s.Cancel(t.Context(), s.endpoint.ID, r.ID)
	if err != nil || stopped.State != resend.Canceled || stopped.EndedAt.IsZero() {
		t.Fatalf("%+v, %v", stopped, err)
	}
	sent := len(s.sent)
	s.clock = s.clock.Add(time.Hour)
	s.sweep()
	if len(s.sent) != sent || sent == 0 {
		t.Errorf("%d were sent after %d", len(s.sent)-sent, sent)
	}
	if again, err := s.Cancel(t.Context(), s.endpoint.ID, r.ID); err != nil || again.State != resend.Canceled {
		t.Errorf("stopped twice: %+v, %v", again, err)
	}
	if _, err := s.Cancel(t.Context(), s.endpoint.ID, id.New()); !fault.Is(err, fault.NotFound) {
		t.Errorf("one that is not there: %v", err)
	}
}

func TestARedriveThatIsStoppedWhileItWorksStaysStopped(t *testing.T) {
	s := newStage(t)
	for n := range 60 {
		s.delivery(n+1, webhook.Exhausted, "run.failed")
	}
	r := s.begin(resend.Ask{Status: webhook.Exhausted}, "")
	s.sending = func() {
		if _, err := s.Cancel(t.Context(), s.endpoint.ID, r.ID); err != nil {
			t.Error(err)
		}
	}
	s.clock = s.clock.Add(time.Minute)
	s.sweep()
	r, err := s.Redrive(t.Context(), s.endpoint.ID, r.ID)
	if err != nil || r.State != resend.Canceled || r.Sent != len(s.sent) {
		t.Errorf("%d sent, %+v, %v", len(s.sent), r, err)
	}
}

func TestAfterADeathARedriveGoesOn(t *testing.T) {
	s := newStage(t)
	for n := range 100 {
		s.delivery(n+1, webhook.Exhausted, "run.failed")
	}
	s.broken = errors.New("no queue")
	r := s.begin(resend.Ask{Status: webhook.Exhausted}, "")
	if r.State != resend.Running || r.Sent != 0 {
		t.Errorf("%+v", r)
	}
	s.broken = nil
	s.finish(r)
	// The ten whose messages were lost have a due time: the sweeper sends them.
	waiting := map[bool]int{}
	for k := range s.store.Records {
		if d, err := (webhook.Deliveries{Store: s.store}).At(t.Context(), k); err == nil && k.Sort[0] == 'D' {
			waiting[!d.Over() && !d.Due.IsZero()]++
		}
	}
	if waiting[true] != 100 || len(s.sent) != 90 {
		t.Errorf("%v wait, %d were sent", waiting, len(s.sent))
	}
}

func TestARedriveWaitsForItsEndpoint(t *testing.T) {
	s := newStage(t)
	for n := range 60 {
		s.delivery(n+1, webhook.Exhausted, "run.failed")
	}
	r := s.begin(resend.Ask{Status: webhook.Exhausted}, "")
	enable := func(on bool) {
		t.Helper()
		var err error
		s.endpoint, err = webhook.Endpoints{Store: s.store}.Change(t.Context(), s.endpoint.ID, func(e *webhook.Endpoint) error { e.Enabled = on; return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	enable(false)
	before := len(s.sent)
	s.clock = s.clock.Add(time.Minute)
	s.sweep()
	if len(s.sent) != before {
		t.Error("a disabled endpoint is told")
	}
	if _, err := s.Start(t.Context(), s.endpoint, resend.Ask{Status: webhook.Failed}, ""); !fault.Is(err, fault.Conflict) {
		t.Errorf("for a disabled one: %v", err)
	}
	enable(true)
	if r = s.finish(r); r.Sent != 60 || r.State != resend.Done {
		t.Errorf("%+v", r)
	}

	other := s.begin(resend.Ask{Status: webhook.Failed}, "")
	if err := (webhook.Endpoints{Store: s.store}).Delete(t.Context(), s.endpoint.ID); err != nil {
		t.Fatal(err)
	}
	s.clock = s.clock.Add(time.Minute)
	s.sweep()
	if _, err := s.Redrive(t.Context(), s.endpoint.ID, other.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("of a deleted endpoint: %v", err)
	}
}

func TestNobodyCanAskForThis(t *testing.T) {
	s := newStage(t)
	for name, c := range map[string]struct {
		ask resend.Ask
		key string
	}{
		"no status":                {ask: resend.Ask{}},
		"an unknown status":        {ask: resend.Ask{Status: "broken"}},
		"what will be sent anyway": {ask: resend.Ask{Status: webhook.Pending}},
		"an end before its start":  {ask: resend.Ask{Status: webhook.Failed, Since: start, Until: start.Add(-time.Hour)}},
		"a very long key":          {ask: resend.Ask{Status: webhook.Failed}, key: fmt.Sprintf("%300d", 1)},
	} {
		if _, err := s.Start(t.Context(), s.endpoint, c.ask, c.key); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.clock = start
	for n := range 3 {
		for range 60 {
			s.delivery(n+1, webhook.Exhausted, "run.failed")
		}
		s.begin(resend.Ask{Status: webhook.Exhausted, Since: start.Add(-time.Duration(n+1) * time.Hour)}, "")
	}
	if _, err := s.Start(t.Context(), s.endpoint, resend.Ask{Status: webhook.Failed}, ""); !fault.Is(err, fault.TooMany) {
		t.Errorf("a fourth at a time: %v", err)
	}
}

func TestWhatWasNeverSentIsFoundInTheRuns(t *testing.T) {
	s := newStage(t)
	at := func(minutes int) time.Time { return start.Add(-time.Duration(minutes) * time.Minute) }
	add := func(minutes int, change func(*run.Run, *run.Page)) run.Run {
		r := run.Run{ID: id.From(at(minutes)), DeploymentID: s.endpoint.DeploymentID, Environment: "production", CreatedAt: at(minutes), State: run.Failed, EndedAt: at(minutes)}
		end := run.Page{Seq: 2, Kind: run.EndPage, At: at(minutes), Outcome: &run.Outcome{State: run.Failed}}
		if change != nil {
			change(&r, &end)
		}
		s.runs = append(s.runs, r)
		s.pages[r.ID] = []run.Page{{Seq: 1, Kind: run.StepPage, At: at(minutes)}, end}
		return r
	}
	add(1, nil) // too late
	first := add(10, nil)
	add(11, func(r *run.Run, _ *run.Page) { r.Environment = "staging" })
	add(12, func(r *run.Run, _ *run.Page) { r.DeploymentID = id.New() })
	add(13, func(_ *run.Run, p *run.Page) { p.Targets = []string{s.endpoint.ID} })
	add(14, func(r *run.Run, p *run.Page) { r.State, p.Outcome.State = run.Canceled, run.Canceled }) // not asked for
	add(15, func(r *run.Run, p *run.Page) { r.State, p.Outcome.State = run.Succeeded, run.Succeeded })
	tried := add(16, nil)
	d := webhook.New(tried.ID, 2, s.endpoint.ID, "0", "run.failed", at(16))
	if err := (webhook.Deliveries{Store: s.store}).Put(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
	second := add(100, func(r *run.Run, p *run.Page) { r.EndedAt, p.At = at(20), at(20) }) // began before the range
	add(101, nil)                                                                          // too early

	r := s.finish(s.begin(resend.Ask{Status: resend.Skipped, Event: "run.failed", Since: at(30), Until: at(5)}, ""))
	var got []string
	for _, m := range s.sent {
		var asked run.DeliveryMessage
		if err := json.Unmarshal([]byte(m.Body), &asked); err != nil || asked.Seq != 2 || asked.Target != s.endpoint.ID || asked.Part != "" {
			t.Errorf("sent %s", m.Body)
		}
		got = append(got, asked.Run)
	}
	if diff := cmp.Diff([]string{first.ID, second.ID}, got); diff != "" || r.Sent != 2 {
		t.Errorf("%+v (-want +got):\n%s", r, diff)
	}
}
