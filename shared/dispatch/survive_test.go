package dispatch_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/shared/crew"
	"muster/shared/guard"
	"muster/shared/guard/guardtest"
	"muster/shared/id"
	"muster/shared/queue"
	"muster/shared/run"
	"muster/shared/webhook"
)

// attempt delivers a page that the target was not told of yet, and gives what is recorded.
func (s *stage) attempt(t *testing.T, target string) webhook.Delivery {
	t.Helper()
	seq := s.page(run.StepPage, 0)
	wantDone(t, s.send(t, seq, target, ""))
	return s.delivery(t, seq, target, "0")
}

func TestAReceiverThatNeverAnswersCostsItsTimeAndNothingElse(t *testing.T) {
	s := newStage(t)
	s.Client = guard.New(guard.Options{AllowLoopback: true, HeaderTimeout: 100 * time.Millisecond})
	t.Cleanup(s.Client.CloseIdle)
	hanging, quick := guardtest.New(t, guardtest.Hang), guardtest.New(t, guardtest.Say(200, ""))
	deaf := s.target(run.CrewTarget, "http://"+guardtest.Deaf(t))
	hangs, answers := s.target(run.CrewTarget, hanging.URL), s.target(run.CrewTarget, quick.URL)
	seq := s.page(run.StepPage, 0)
	var all sync.WaitGroup
	for _, target := range []string{deaf, hangs, answers} {
		all.Go(func() { s.send(t, seq, target, "") })
	}
	all.Wait()
	for target, want := range map[string]string{deaf: guard.Timeout, hangs: guard.Timeout, answers: ""} {
		if d := s.delivery(t, seq, target, "0"); len(d.Attempts) != 1 || d.Attempts[0].Class != want || (d.Status == webhook.Failed) != (want != "") {
			t.Errorf("%s: %s, %+v; want one attempt of the class %q", target, d.Status, d.Attempts, want)
		}
	}
}

func TestAKeptConnectionThatClosesIsOneAttempt(t *testing.T) {
	s := newStage(t)
	var requests atomic.Int64
	target := s.target(run.CrewTarget, "http://"+guardtest.OneAnswer(t, &requests))
	first, second := s.attempt(t, target), s.attempt(t, target)
	if first.Status != webhook.Succeeded || second.Status != webhook.Failed || second.Attempts[0].Class != guard.Reset || requests.Load() != 2 {
		t.Errorf("%d requests, %s and then %s %+v; want 2, a success and a reset", requests.Load(), first.Status, second.Status, second.Attempts)
	}
}

func TestAReceiverThatFlapsGetsEverything(t *testing.T) {
	s := newStage(t)
	r := guardtest.New(t, guardtest.Flap(2, guardtest.Reset, guardtest.Say(200, "")))
	target := s.target(run.CrewTarget, r.URL)
	posts := map[string]int{}
	for range 6 {
		d := s.attempt(t, target)
		for d.Status == webhook.Failed {
			s.move(d.NextAttempt)
			wantDone(t, s.send(t, d.Seq, target, d.Part))
			d = s.delivery(t, d.Seq, target, d.Part)
		}
		if d.Status != webhook.Succeeded {
			t.Errorf("page %d: %s", d.Seq, d.Status)
		}
		posts[d.Shown()] = len(d.Attempts)
	}
	for _, q := range r.Got() {
		posts[q.Header.Get("webhook-id")]--
	}
	for shown, left := range posts {
		if left != 0 {
			t.Errorf("delivery %s: %d attempts more than requests", shown, left)
		}
	}
}

func TestTLSThatIsNotSafeIsTriedAgain(t *testing.T) {
	s := newStage(t)
	authority := guardtest.NewAuthority(t)
	s.Client = guard.New(guard.Options{AllowLoopback: true, Roots: authority.Roots()})
	t.Cleanup(s.Client.CloseIdle)
	expired := guardtest.Certificate{Template: x509.Certificate{NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour)}}
	for class, c := range map[string]guardtest.Certificate{guard.TLSExpired: expired, guard.TLSAuthority: {SelfSigned: true}, "": {}} {
		r := authority.Receiver(t, c, guardtest.Say(200, ""))
		d := s.attempt(t, s.target(run.CrewTarget, r.URL))
		if a := d.Attempts[0]; a.Class != class || (class != "") != (d.Status == webhook.Failed && d.NextAttempt.After(s.clock())) {
			t.Errorf("class %q: %s, next %s, %+v", class, d.Status, d.NextAttempt, a)
		}
	}
}

func TestEveryStatusIsSuccessOrNot(t *testing.T) {
	s := newStage(t)
	var code atomic.Int64
	r := guardtest.New(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(code.Load())) })
	for _, c := range []int{200, 201, 202, 203, 204, 205, 206, 226, 299, 300, 304, 305, 400, 401, 403, 404, 405, 408, 409, 415, 418, 421, 422, 425, 429, 451, 499, 500, 501, 502, 503, 504, 505, 511, 520, 599, 600, 799, 999} {
		code.Store(int64(c))
		want := webhook.Failed
		if c < 300 {
			want = webhook.Succeeded
		}
		d := s.attempt(t, s.target(run.CrewTarget, r.URL))
		if d.Status != want || d.Attempts[0].Code != c || want == webhook.Failed && d.NextAttempt.Before(s.clock().Add(5*time.Second)) {
			t.Errorf("%d: %s, next %s, %+v", c, d.Status, d.NextAttempt, d.Attempts)
		}
	}
}

// tenants are some journals, each with a deployment and a secret of its own.
type tenants map[string]*journal

func (ts tenants) Whole(ctx context.Context, runID string) (run.Run, run.Request, error) {
	return ts[runID].Whole(ctx, runID)
}

func (ts tenants) Page(ctx context.Context, runID string, seq int) (run.Page, error) {
	return ts[runID].Page(ctx, runID, seq)
}

func (ts tenants) Messages(ctx context.Context, runID string, p run.Page) ([]json.RawMessage, error) {
	return nil, nil
}

func (ts tenants) Told(context.Context, string, int) error { return nil }

func (ts tenants) Deployment(_ context.Context, deploymentID string) (crew.Deployment, error) {
	for _, j := range ts {
		if j.run.DeploymentID == deploymentID {
			return crew.Deployment{ID: deploymentID, WebhookSecret: seal(j.run.WorkspaceID, deploymentID, "webhook_secret", secretOf(j.run.ID))}, nil
		}
	}
	return crew.Deployment{}, fmt.Errorf("no such deployment")
}

func secretOf(runID string) string { return "whsec_" + strings.ReplaceAll(runID, "-", "") }

func TestNoPostIsSharedAndNoSecretCrosses(t *testing.T) {
	s := newStage(t)
	r := guardtest.New(t, guardtest.Say(200, ""))
	all := tenants{}
	var messages []queue.Received
	for range 3 {
		j := &journal{run: run.Run{ID: id.New(), WorkspaceID: id.New(), DeploymentID: id.New()}, pages: map[int]run.Page{}}
		for n := range 2 {
			target := fmt.Sprintf("t%d", n)
			j.request.Targets = append(j.request.Targets, run.Target{
				ID: target, Kind: run.CrewTarget, URL: r.URL + "/hook", Authorization: seal(j.run.WorkspaceID, j.run.ID, "target/"+target, "Bearer "+j.run.ID+"/"+target),
			})
			for seq := 1; seq <= 3; seq++ {
				j.pages[seq] = run.Page{Seq: seq, Kind: run.StepPage, Targets: []string{"t0", "t1"}}
				messages = append(messages, message(j.run.ID, seq, target, ""))
			}
		}
		all[j.run.ID] = j
	}
	s.Runs, s.Crews = all, all
	var wait sync.WaitGroup
	for _, m := range messages {
		wait.Go(func() { wantDone(t, s.Handle(t.Context(), m)) })
	}
	wait.Wait()
	seen := map[string]bool{}
	for _, q := range r.Got() {
		var body struct {
			Run string `json:"kickoff_id"`
		}
		if err := json.Unmarshal(q.Body, &body); err != nil {
			t.Fatal(err)
		}
		seen[q.Header.Get("webhook-id")] = true
		for owner := range all {
			own := owner == body.Run
			if verified := webhook.Verify(secretOf(owner), q.Header, q.Body, s.clock()) == nil; verified != own {
				t.Errorf("a POST of run %s verifies with the secret of %s: %t", body.Run, owner, verified)
			}
			if strings.HasPrefix(q.Header.Get("Authorization"), "Bearer "+owner) != own {
				t.Errorf("a POST of run %s carries %s", body.Run, q.Header.Get("Authorization"))
			}
		}
	}
	if len(seen) != len(messages) || len(r.Got()) != len(messages) {
		t.Errorf("%d messages made %d POSTs of %d deliveries", len(messages), len(r.Got()), len(seen))
	}
}

func TestWhatIsSignedIsWhatIsSent(t *testing.T) {
	s := newStage(t)
	bodies := [][]byte{
		[]byte(`{"text":"caf\u00e9 \u65e5\u672c \U0001f600 </script>&amp;` + "\u2028" + `"}`), []byte(`{"n":1.0,"big":1e21,"small":-0.0}`), []byte(`{"a":1,"a":2}`), []byte(`{"2":0,"1":0}`),
		[]byte(`{"text":"` + strings.Repeat("x", 20<<10) + `"}`), {}, {0xff, 0xfe, 0x00}, []byte(" \r\n{}\n"),
	}
	s.Formats[run.TaskTarget] = func(run.Run, run.Request, run.Page, run.Target, []json.RawMessage) (made []webhook.Body, err error) {
		for _, b := range bodies {
			made = append(made, webhook.Body{JSON: b})
		}
		return made, nil
	}
	r := guardtest.New(t, guardtest.Say(200, ""))
	target := s.target(run.TaskTarget, r.URL)
	wantDone(t, s.send(t, s.page(run.StepPage, 0), target, ""))
	got := r.Got()
	if len(got) != len(bodies) {
		t.Fatalf("%d bodies made %d POSTs", len(bodies), len(got))
	}
	for _, q := range got {
		if err := webhook.Verify(secret, q.Header, q.Body, s.clock()); err != nil || !slices.ContainsFunc(bodies, func(b []byte) bool { return bytes.Equal(b, q.Body) }) {
			t.Errorf("%.60q: %v", q.Body, err)
		}
	}
}
