package trigger_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/queue"
	"muster/shared/run"
	"muster/shared/storetest"
	"muster/shared/trigger"
	"muster/shared/trigger/cel"
	"muster/shared/workspace"
)

// stage is a service on a store in memory, and a deployment that wants a topic. begin says how long after its message a
// run is begun, which is never when it is negative.
type stage struct {
	*trigger.Service
	t     *testing.T
	mem   *storetest.Memory
	d     crew.Deployment
	begin time.Duration
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, mem: &storetest.Memory{}}
	sealer, err := workspace.NewSealer(map[string][]byte{"k": make([]byte, 32)}, "k")
	if err != nil {
		t.Fatal(err)
	}
	crews := &crew.Store{Records: s.mem}
	runs := &run.Service{Store: s.mem, Crews: crews, Runs: s, Deliveries: s, Seal: sealer.Seal, Log: slog.New(slog.DiscardHandler)}
	s.Service = &trigger.Service{Store: s.mem, Crews: crews, Runs: runs, Sealer: sealer, Rules: &cel.Rules{}, Log: slog.New(slog.DiscardHandler)}
	s.d, _, _, err = crews.Create(t.Context(), "01a20000-0000-7000-8000-0000000000ff", "tea", map[string][]byte{
		"agents.yaml": []byte("a:\n  role: r\n  goal: g\n  backstory: b\n"),
		"tasks.yaml":  []byte("t:\n  description: About {topic}\n  expected_output: o\n  agent: a\n"),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Send is the queue of runs.
func (s *stage) Send(_ context.Context, messages ...queue.Message) error {
	for _, m := range messages {
		var knock run.RunMessage
		if err := json.Unmarshal([]byte(m.Body), &knock); err != nil || s.begin < 0 {
			return err
		}
		time.AfterFunc(s.begin, func() { _, _ = s.Runs.Claim(context.Background(), knock.Run) })
	}
	return nil
}

// make makes a trigger and gives its token.
func (s *stage) make(secret string, t trigger.Trigger) (trigger.Trigger, string) {
	s.t.Helper()
	t.WorkspaceID, t.DeploymentID, t.Name = s.d.WorkspaceID, s.d.ID, "of a test"
	token, _, err := s.Create(s.t.Context(), &t, secret)
	if err != nil {
		s.t.Fatal(err)
	}
	return t, token
}

// come lets a request come to a token.
func (s *stage) come(token, body string, pairs ...string) (trigger.Answer, *trigger.Request, error) {
	s.t.Helper()
	t, err := s.ByToken(s.t.Context(), token)
	if err != nil {
		return trigger.Answer{}, nil, err
	}
	q := s.Begin(t, headers(pairs...), []byte(body))
	a, err := s.Receive(s.t.Context(), q, false)
	return a, q, err
}

// took lets a request come that must be taken.
func (s *stage) took(token, body string, pairs ...string) run.Run {
	s.t.Helper()
	a, _, err := s.come(token, body, pairs...)
	if err != nil || a.Run.ID == "" {
		s.t.Fatalf("got %+v, %v", a, err)
	}
	return a.Run
}

// receipts gives the receipts of a trigger, the newest first.
func (s *stage) receipts(t trigger.Trigger) []trigger.Receipt {
	s.t.Helper()
	all, _, err := s.Receipts(s.t.Context(), trigger.ReceiptQuery{DeploymentIDs: []string{s.d.ID}, Trigger: t.ID, Limit: 100})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

const tea = `{"topic": "tea"}`

// in runs a test with a clock of its own.
func in(t *testing.T, name string, f func(t *testing.T, s *stage)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, newStage(t)) })
	})
}

func TestReceive(t *testing.T) {
	in(t, "a request is taken once its run was begun", func(t *testing.T, s *stage) {
		s.begin = 2 * time.Second
		tr, token := s.make("", trigger.Trigger{})
		before := time.Now()
		r := s.took(token, tea)
		if took := time.Since(before); took < 2*time.Second || took > 4*time.Second || r.StartedAt.IsZero() || r.State != run.Running {
			t.Errorf("after %s got %+v", took, r)
		}
		if r.Origin != "trigger" || r.Trigger != tr.ID || r.Environment != "production" {
			t.Errorf("got %+v", r)
		}
		q, err := s.Runs.Request(t.Context(), r.ID)
		if err != nil || len(q.Inputs) != 1 || q.Inputs["topic"] != "tea" {
			t.Errorf("its inputs are %v, %v", q.Inputs, err)
		}
	})
	in(t, "a run that nobody begins is withdrawn after 25 seconds, and never begins", func(t *testing.T, s *stage) {
		s.begin = 26 * time.Second
		tr, token := s.make("", trigger.Trigger{})
		before := time.Now()
		_, _, err := s.come(token, tea)
		if !fault.Is(err, fault.Unavailable) || time.Since(before) != 25*time.Second {
			t.Fatalf("after %s got %v", time.Since(before), err)
		}
		time.Sleep(time.Minute)
		got := s.receipts(tr)
		if len(got) != 1 || got[0].Status != trigger.Failed || !strings.Contains(got[0].Reason, "25 seconds") {
			t.Fatalf("the receipts are %+v", got)
		}
		r, err := s.Runs.Get(t.Context(), got[0].Run)
		if err != nil || !r.Withdrawn || r.State != run.Canceled {
			t.Errorf("the run is %+v, %v", r, err)
		}
		s.begin = 0
		if again := s.took(token, tea); again.ID == r.ID {
			t.Error("the next request gave the run that was withdrawn")
		}
	})
	in(t, "a sender that hangs up early is told in time, and its run begins later", func(t *testing.T, s *stage) {
		s.begin = 30 * time.Second
		_, token := s.make("open sesame", trigger.Trigger{Sender: trigger.Sender{Scheme: trigger.GitHub}})
		before := time.Now()
		a, _, err := s.come(token, tea, "X-Hub-Signature-256", "sha256="+hexMAC("open sesame", tea))
		if err != nil || !a.Pending || time.Since(before) > 9*time.Second {
			t.Fatalf("after %s got %+v, %v", time.Since(before), a, err)
		}
		time.Sleep(time.Minute)
		if r, err := s.Runs.Get(t.Context(), a.Run.ID); err != nil || r.StartedAt.IsZero() {
			t.Errorf("the run is %+v, %v", r, err)
		}
	})
	in(t, "a run is begun or withdrawn, and the answer says which, however close", func(t *testing.T, s *stage) {
		tr, token := s.make("", trigger.Trigger{})
		begun, withdrawn := 0, 0
		for off := -3; off <= 3; off++ {
			s.begin = 25*time.Second + time.Duration(off)*time.Nanosecond
			_, _, err := s.come(token, tea)
			time.Sleep(time.Minute)
			r, failed := s.Runs.Get(t.Context(), s.receipts(tr)[0].Run)
			if failed != nil || r.Withdrawn == !r.StartedAt.IsZero() || r.Withdrawn != (err != nil) {
				t.Errorf("%d ns: %v, and the run is %+v, %v", off, err, r, failed)
			}
			if r.Withdrawn {
				withdrawn++
			} else {
				begun++
			}
		}
		if begun == 0 || withdrawn == 0 {
			t.Errorf("%d were begun, %d withdrawn", begun, withdrawn)
		}
	})
	in(t, "an invocation that ends soon is answered in time", func(t *testing.T, s *stage) {
		s.begin = -1
		_, token := s.make("", trigger.Trigger{})
		tr, err := s.ByToken(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := s.Service.Receive(ctx, s.Begin(tr, headers(), []byte(tea)), false); !fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			t.Errorf("got %v, %v", err, ctx.Err())
		}
	})
	in(t, "who does not want to wait is told that the run is pending", func(t *testing.T, s *stage) {
		s.begin = -1
		_, token := s.make("", trigger.Trigger{})
		tr, err := s.ByToken(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		a, err := s.Service.Receive(t.Context(), s.Begin(tr, headers(), []byte(tea)), true)
		if err != nil || !a.Pending || time.Since(before) > 0 {
			t.Errorf("got %+v, %v", a, err)
		}
		time.Sleep(time.Minute)
		if r, err := s.Runs.Get(t.Context(), a.Run.ID); err != nil || r.Withdrawn {
			t.Errorf("the run is %+v, %v", r, err)
		}
	})
	in(t, "a second request with the same key does not withdraw the run of the first", func(t *testing.T, s *stage) {
		s.begin = time.Minute
		_, token := s.make("", trigger.Trigger{})
		tr, err := s.ByToken(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		first, err := s.Service.Receive(t.Context(), s.Begin(tr, headers("Idempotency-Key", "k"), []byte(tea)), true)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.come(token, tea, "Idempotency-Key", "k"); !fault.Is(err, fault.Unavailable) {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Minute)
		if r, err := s.Runs.Get(t.Context(), first.Run.ID); err != nil || r.StartedAt.IsZero() {
			t.Errorf("the run is %+v, %v", r, err)
		}
	})
	in(t, "no room for another run is a 503 that says when to come back", func(t *testing.T, s *stage) {
		s.Runs.Traffic = crew.Traffic{MaxConcurrentRuns: 1, WhenFull: crew.Reject}
		tr, token := s.make("", trigger.Trigger{})
		s.took(token, tea)
		_, _, err := s.come(token, tea)
		var f *fault.Error
		if !fault.Is(err, fault.Unavailable) {
			t.Fatalf("got %v", err)
		}
		if f, _ = err.(*fault.Error); f == nil || f.RetryAfter == 0 {
			t.Errorf("got %+v", f)
		}
		if got := s.receipts(tr)[0]; got.Status != trigger.Failed || got.Kept == 0 {
			t.Errorf("the receipt is %+v", got)
		}
	})
	in(t, "each environment has its own version", func(t *testing.T, s *stage) {
		_, token := s.make("", trigger.Trigger{Environment: "staging"})
		if r := s.took(token, tea); r.Environment != "staging" {
			t.Errorf("got %+v", r)
		}
	})
	in(t, "what is no input is refused or fails, with a sentence", func(t *testing.T, s *stage) {
		tr, token := s.make("", trigger.Trigger{})
		for _, test := range []struct {
			name, body string
			headers    []string
			kind       fault.Kind
			want       string
			status     trigger.Status
		}{
			{"an input that is missing", `{"year": 1}`, nil, fault.Missing, "Missing inputs: topic", trigger.Failed},
			{"nothing, for a crew with inputs", ``, nil, fault.Missing, "Missing inputs: topic", trigger.Failed},
			{"a list", `["tea"]`, nil, fault.Invalid, "The request body must be a JSON object: the inputs of the run by their names.", trigger.Failed},
			{"no JSON", `topic=tea`, nil, fault.Invalid, "The request body is not JSON", trigger.Refused},
			{"two values", `{} {}`, nil, fault.Invalid, "The request body is not JSON: something follows the value.", trigger.Refused},
			{"bytes that are no text", "{\"topic\": \"\xff\"}", nil, fault.Invalid, "The request body is not valid UTF-8.", trigger.Refused},
			{"a hundred thousand brackets", strings.Repeat("[", 100_000), nil, fault.Invalid, "The request body is nested more than 100 levels deep.", trigger.Refused},
			{"a hundred and one levels", strings.Repeat("[", 101) + strings.Repeat("]", 101), nil, fault.Invalid, "The request body is nested more than 100 levels deep.", trigger.Refused},
			{"gzip", tea, []string{"Content-Encoding", "gzip"}, fault.Unsupported, "A body with a Content-Encoding is not accepted; send it as it is.", trigger.Refused},
			{"XML", `<tea/>`, []string{"Content-Type", "text/xml"}, fault.Invalid, `The Content-Type is "text/xml"; send JSON, as application/json.`, trigger.Refused},
			{"a type that cannot be read", tea, []string{"Content-Type", ";;"}, fault.Invalid, "The Content-Type cannot be read; send JSON, as application/json.", trigger.Refused},
			{"a key that is too long", tea, []string{"Idempotency-Key", strings.Repeat("k", 256)}, fault.Invalid, "The Idempotency-Key is longer than 255 characters.", trigger.Failed},
		} {
			_, _, err := s.come(token, test.body, test.headers...)
			if !fault.Is(err, test.kind) || !strings.HasPrefix(fault.Message(err), test.want) {
				t.Errorf("%s: got %v, want %q", test.name, err, test.want)
			}
			time.Sleep(time.Millisecond)
			got := s.receipts(tr)[0]
			if got.Status != test.status || got.Reason != fault.Message(err) || got.Run != "" || got.Size != len(test.body) {
				t.Errorf("%s: the receipt is %+v", test.name, got)
			}
			if kept := got.Kept > 0; kept != (test.status == trigger.Failed && test.body != "") {
				t.Errorf("%s: %d bytes of the body are kept", test.name, got.Kept)
			}
		}
	})
	in(t, "what curl calls its JSON does not matter", func(t *testing.T, s *stage) {
		_, token := s.make("", trigger.Trigger{})
		for _, kind := range []string{"", "application/json; charset=utf-8", "application/cloudevents+json", "text/plain", "application/x-www-form-urlencoded"} {
			s.took(token, tea, "Content-Type", kind)
		}
	})
}

func TestTokens(t *testing.T) {
	in(t, "unknown, deleted and disabled ones are the same", func(t *testing.T, s *stage) {
		tr, token := s.make("", trigger.Trigger{})
		_, _, unknown := s.come("mus_in_x", tea)
		if _, _, err := s.Change(t.Context(), tr.ID, nil, func(t *trigger.Trigger) error { t.Enabled = false; return nil }); err != nil {
			t.Fatal(err)
		}
		_, _, disabled := s.come(token, tea)
		if got := s.receipts(tr); len(got) != 1 || got[0].Status != trigger.Refused {
			t.Errorf("the receipts of a disabled one are %+v", got)
		}
		if err := s.Delete(t.Context(), tr.ID); err != nil {
			t.Fatal(err)
		}
		_, _, deleted := s.come(token, tea)
		for _, err := range []error{unknown, disabled, deleted} {
			if !fault.Is(err, fault.NotFound) || fault.Message(err) != fault.Message(unknown) {
				t.Errorf("got %v", err)
			}
		}
		if len(s.receipts(tr)) != 1 {
			t.Error("a request to a deleted one left a receipt")
		}
	})
	in(t, "a new token kills the old one at once", func(t *testing.T, s *stage) {
		tr, old := s.make("", trigger.Trigger{})
		s.took(old, tea)
		_, token, err := s.Regenerate(t.Context(), tr.ID)
		if err != nil || token == old {
			t.Fatal(token == old, err)
		}
		if _, _, err := s.come(old, tea); !fault.Is(err, fault.NotFound) {
			t.Errorf("the old one: %v", err)
		}
		s.took(token, tea)
	})
	in(t, "a token is kept as its hash, and a secret sealed", func(t *testing.T, s *stage) {
		_, token := s.make("open sesame", trigger.Trigger{Sender: trigger.Sender{Scheme: trigger.GitHub}})
		for _, rec := range s.mem.Puts {
			if text := fmt.Sprintf("%v %s", rec.Key, rec.Body); strings.Contains(text, token) || strings.Contains(text, "open sesame") {
				t.Errorf("it is in %s", text)
			}
		}
	})
	in(t, "another sender gets another secret, and the same one keeps its own", func(t *testing.T, s *stage) {
		tr, _ := s.make("open sesame", trigger.Trigger{Sender: trigger.Sender{Scheme: trigger.GitHub}})
		same, made, err := s.Change(t.Context(), tr.ID, nil, func(t *trigger.Trigger) error { t.Name = "other"; return nil })
		if err != nil || made != "" || same.Secret != tr.Secret {
			t.Errorf("got %+v, %q, %v", same, made, err)
		}
		other, made, err := s.Change(t.Context(), tr.ID, nil, func(t *trigger.Trigger) error { t.Sender.Scheme = trigger.Standard; return nil })
		if err != nil || !strings.HasPrefix(made, "whsec_") || other.Secret == tr.Secret {
			t.Errorf("got %+v, %q, %v", other, made, err)
		}
		none, made, err := s.Change(t.Context(), tr.ID, nil, func(t *trigger.Trigger) error { t.Sender.Scheme = trigger.None; return nil })
		if err != nil || made != "" || none.Secret != "" {
			t.Errorf("got %+v, %q, %v", none, made, err)
		}
	})
	in(t, "what a trigger cannot be is refused", func(t *testing.T, s *stage) {
		for want, test := range map[string]struct {
			t      trigger.Trigger
			secret string
		}{
			`"name" must have 1 to 100 characters.`: {t: trigger.Trigger{}},
			`There is no environment 'moon'`:        {t: trigger.Trigger{Name: "n", Environment: "moon"}},
			`There is no sender "mail"`:             {t: trigger.Trigger{Name: "n", Sender: trigger.Sender{Scheme: "mail"}}},
			`The header, prefix and encoding of a signature are for the sender "generic-hmac" only.`:       {t: trigger.Trigger{Name: "n", Sender: trigger.Sender{Scheme: trigger.GitHub, Header: "X"}}},
			`"a b" is not the name of a header.`:                                                           {t: trigger.Trigger{Name: "n", Sender: trigger.Sender{Scheme: trigger.HMAC, Header: "a b"}}},
			`A signature's encoding is "hex" or "base64".`:                                                 {t: trigger.Trigger{Name: "n", Sender: trigger.Sender{Scheme: trigger.HMAC, Encoding: "rot13"}}},
			`A timestamp's header is for the sender "grafana" only.`:                                       {t: trigger.Trigger{Name: "n", Sender: trigger.Sender{Scheme: trigger.Slack, TimestampHeader: "X"}}},
			`A secret needs a sender that uses it; the sender is "none".`:                                  {trigger.Trigger{Name: "n"}, "open sesame"},
			`"secret" must have 8 to 1024 characters.`:                                                     {trigger.Trigger{Name: "n", Sender: trigger.Sender{Scheme: trigger.GitHub}}, "short"},
			`The "secret" of the sender "basic" is user:password.`:                                         {trigger.Trigger{Name: "n", Sender: trigger.Sender{Scheme: trigger.Basic}}, "open sesame"},
			`The "secret" of the sender "standard" is whsec_ and base64.`:                                  {trigger.Trigger{Name: "n", Sender: trigger.Sender{Scheme: trigger.Standard}}, "open sesame"},
			`"filter" is not right: A filter must give true or false, and this gives int.`:                 {t: trigger.Trigger{Name: "n", Filter: "1"}},
			`"input" is not right: undeclared reference to 'payload' (in container '') (line 1, column 1)`: {t: trigger.Trigger{Name: "n", Input: "payload"}},
			`"filter" is not right: It is longer than 4096 bytes.`:                                         {t: trigger.Trigger{Name: "n", Filter: strings.Repeat("1", 5000)}},
		} {
			test.t.DeploymentID, test.t.WorkspaceID = s.d.ID, s.d.WorkspaceID
			if _, _, err := s.Create(t.Context(), &test.t, test.secret); !fault.Is(err, fault.Invalid) || !strings.HasPrefix(fault.Message(err), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		}
		if all, err := s.Of(t.Context(), s.d.ID); err != nil || len(all) > 0 {
			t.Errorf("there are %+v, %v", all, err)
		}
	})
}

func TestRepetitions(t *testing.T) {
	github := func(secret, body string, more ...string) []string {
		return append([]string{"X-Hub-Signature-256", "sha256=" + hexMAC(secret, body)}, more...)
	}
	in(t, "the sender's id gives the same run for a day, whatever else comes between", func(t *testing.T, s *stage) {
		tr, token := s.make("open sesame", trigger.Trigger{Sender: trigger.Sender{Scheme: trigger.GitHub}})
		h := github("open sesame", tea, "X-Github-Delivery", "d1")
		first := s.took(token, tea, h...)
		time.Sleep(23 * time.Hour)
		if again := s.took(token, tea, h...); again.ID != first.ID {
			t.Error("another run")
		}
		time.Sleep(61 * time.Second)
		if other := s.took(token, tea, github("open sesame", tea, "X-Github-Delivery", "d2")...); other.ID == first.ID {
			t.Error("another delivery gave the same run")
		}
		time.Sleep(time.Hour + time.Minute)
		if next := s.took(token, tea, h...); next.ID == first.ID {
			t.Error("the same run the next day")
		}
		statuses := []trigger.Status{}
		for _, r := range s.receipts(tr) {
			statuses = append(statuses, r.Status)
		}
		if fmt.Sprint(statuses) != "[accepted accepted duplicate accepted]" {
			t.Errorf("the receipts are %v", statuses)
		}
	})
	in(t, "a signature alone gives the same run for a minute, and another the next day", func(t *testing.T, s *stage) {
		_, token := s.make("open sesame", trigger.Trigger{Sender: trigger.Sender{Scheme: trigger.GitHub}})
		first := s.took(token, tea, github("open sesame", tea)...)
		time.Sleep(50 * time.Second)
		if again := s.took(token, tea, github("open sesame", tea)...); again.ID != first.ID {
			t.Error("another run")
		}
		time.Sleep(15 * time.Second)
		if next := s.took(token, tea, github("open sesame", tea)...); next.ID == first.ID {
			t.Error("the same run after a minute")
		}
	})
	in(t, "an Idempotency-Key goes before the sender's id, and holds for one body", func(t *testing.T, s *stage) {
		_, token := s.make("", trigger.Trigger{})
		first := s.took(token, tea, "Idempotency-Key", "k", "Webhook-Id", "1")
		if again := s.took(token, tea, "Idempotency-Key", "k", "Webhook-Id", "2"); again.ID != first.ID {
			t.Error("another run")
		}
		if _, _, err := s.come(token, `{"topic": "coffee"}`, "Idempotency-Key", "k"); !fault.Is(err, fault.Conflict) {
			t.Errorf("another body: %v", err)
		}
	})
	// Whoever replays a signed body under a fresh id that is not signed used to start another run each time.
	in(t, "a signed request under another id is the same request: for a minute by its signature, for a day by an id that is signed", func(t *testing.T, s *stage) {
		standard := "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
		for _, c := range []struct {
			name   string
			sender trigger.Sender
			secret string
			body   string
			sign   func() []string
			day    bool // it is known for a day
		}{
			{"github", trigger.Sender{Scheme: trigger.GitHub}, "open sesame", tea, func() []string { return github("open sesame", tea) }, false},
			{"generic-hmac", trigger.Sender{Scheme: trigger.HMAC}, "open sesame", tea, func() []string { return []string{"X-Signature", hexMAC("open sesame", tea)} }, false},
			{"grafana", trigger.Sender{Scheme: trigger.Grafana}, "open sesame", tea, func() []string {
				return []string{"X-Grafana-Alerting-Signature", hexMAC("open sesame", tea)}
			}, false},
			{"stripe", trigger.Sender{Scheme: trigger.Stripe}, "open sesame", `{"id": "evt_1", "topic": "tea"}`, func() []string {
				return []string{"Stripe-Signature", "t=" + seconds(time.Now()) + ",v1=" + hexMAC("open sesame", seconds(time.Now())+`.{"id": "evt_1", "topic": "tea"}`)}
			}, true},
			{"standard", trigger.Sender{Scheme: trigger.Standard}, standard, tea, func() []string {
				signature := mac("0123456789abcdef0123456789abcdef", "msg_1."+seconds(time.Now())+"."+tea)
				return []string{"Webhook-Id", "msg_1", "Webhook-Timestamp", seconds(time.Now()), "Webhook-Signature", "v1," + base64.StdEncoding.EncodeToString(signature)}
			}, true},
		} {
			tr, token := s.make(c.secret, trigger.Trigger{Sender: c.sender})
			first := s.took(token, c.body, c.sign()...)
			for _, fresh := range [][]string{{"X-Github-Delivery", "fresh"}, {"Idempotency-Key", "fresh"}, {"X-Crewship-Delivery", "fresh"}, nil} {
				meant := c.name == "generic-hmac" && fresh != nil && fresh[0] == "Idempotency-Key"
				if again := s.took(token, c.body, append(c.sign(), fresh...)...); (again.ID != first.ID) != meant {
					t.Errorf("%s with %v: another run: %t", c.name, fresh, !meant)
				}
			}
			if r := s.receipts(tr)[0]; r.Status != trigger.Duplicate && r.Status != trigger.Accepted {
				t.Errorf("%s: the receipt says %s", c.name, r.Status)
			}
			time.Sleep(61 * time.Second)
			if later := s.took(token, c.body, append(c.sign(), "Idempotency-Key", "another")...); (later.ID == first.ID) != c.day {
				t.Errorf("%s: after a minute, the same run: %t", c.name, later.ID == first.ID)
			}
		}
	})
	in(t, "a signed request that came under an id first is known without it", func(t *testing.T, s *stage) {
		_, token := s.make("open sesame", trigger.Trigger{Sender: trigger.Sender{Scheme: trigger.GitHub}})
		first := s.took(token, tea, github("open sesame", tea, "X-Github-Delivery", "d1")...)
		if again := s.took(token, tea, github("open sesame", tea)...); again.ID != first.ID {
			t.Error("another run")
		}
	})
	in(t, "without any of them each request is a run of its own, and so is each trigger's", func(t *testing.T, s *stage) {
		_, token := s.make("", trigger.Trigger{})
		if first, second := s.took(token, tea), s.took(token, tea); first.ID == second.ID {
			t.Error("the same run")
		}
		_, other := s.make("", trigger.Trigger{})
		if s.took(token, tea, "Webhook-Id", "1").ID == s.took(other, tea, "Webhook-Id", "1").ID {
			t.Error("two triggers, and one run")
		}
	})
	in(t, "Slack and Stripe have their id in the body", func(t *testing.T, s *stage) {
		_, token := s.make("open sesame", trigger.Trigger{Sender: trigger.Sender{Scheme: trigger.Stripe}})
		event := `{"id": "evt_1", "topic": "tea"}`
		sign := func() string {
			return "t=" + seconds(time.Now()) + ",v1=" + hexMAC("open sesame", seconds(time.Now())+"."+event)
		}
		first := s.took(token, event, "Stripe-Signature", sign())
		time.Sleep(2 * time.Hour)
		if again := s.took(token, event, "Stripe-Signature", sign()); again.ID != first.ID {
			t.Error("another run")
		}
	})
}

func TestRulesOfATrigger(t *testing.T) {
	in(t, "a filter that says no, or cannot say, starts nothing and is no error", func(t *testing.T, s *stage) {
		tr, token := s.make("", trigger.Trigger{Filter: `body.action == "opened"`, Input: `{"topic": "PR " + string(body.number)}`})
		r := s.took(token, `{"action": "opened", "number": 42}`)
		if q, err := s.Runs.Request(t.Context(), r.ID); err != nil || q.Inputs["topic"] != "PR 42" {
			t.Errorf("the inputs are %v, %v", q.Inputs, err)
		}
		for body, why := range map[string]string{`{"action": "closed"}`: "The filter said no.", `{}`: "The filter cannot be evaluated: no such key: action."} {
			a, _, err := s.come(token, body)
			if err != nil || !a.Ignored || a.Run.ID != "" {
				t.Errorf("%s: got %+v, %v", body, a, err)
			}
			time.Sleep(time.Millisecond)
			if got := s.receipts(tr)[0]; got.Status != trigger.Ignored || got.Reason != why {
				t.Errorf("%s: the receipt is %+v", body, got)
			}
		}
		if _, _, err := s.come(token, `{"action": "opened"}`); !fault.Is(err, fault.Invalid) || !strings.Contains(fault.Message(err), "no such key: number") {
			t.Errorf("inputs that cannot be made: %v", err)
		}
	})
	in(t, "an expression sees no secret of the request", func(t *testing.T, s *stage) {
		_, token := s.make("", trigger.Trigger{Input: `{"topic": headers["authorization"] + headers["x-kind"]}`})
		r := s.took(token, tea, "Authorization", "Bearer secret", "X-Kind", "tea")
		if q, err := s.Runs.Request(t.Context(), r.ID); err != nil || q.Inputs["topic"] != "********tea" {
			t.Errorf("the inputs are %v, %v", q.Inputs, err)
		}
	})
}

func TestGreetings(t *testing.T) {
	in(t, "Slack's challenge is answered when it is signed, and not otherwise", func(t *testing.T, s *stage) {
		tr, token := s.make("open sesame", trigger.Trigger{Sender: trigger.Sender{Scheme: trigger.Slack}})
		body, at := `{"type": "url_verification", "challenge": "3eZbrw1a"}`, seconds(time.Now())
		a, _, err := s.come(token, body, "X-Slack-Request-Timestamp", at, "X-Slack-Signature", "v0="+hexMAC("open sesame", "v0:"+at+":"+body))
		if reply, ok := a.Reply.(map[string]string); err != nil || !ok || reply["challenge"] != "3eZbrw1a" {
			t.Errorf("got %+v, %v", a, err)
		}
		if got := s.receipts(tr); len(got) != 1 || got[0].Status != trigger.Answered {
			t.Errorf("the receipts are %+v", got)
		}
		if _, _, err := s.come(token, body); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("without a signature: %v", err)
		}
	})
	in(t, "GitHub's ping is answered, and its form read", func(t *testing.T, s *stage) {
		_, token := s.make("open sesame", trigger.Trigger{Sender: trigger.Sender{Scheme: trigger.GitHub}})
		ping := `{"zen": "Keep it logically awesome."}`
		if a, _, err := s.come(token, ping, "X-Github-Event", "ping", "X-Hub-Signature-256", "sha256="+hexMAC("open sesame", ping)); err != nil || a.Reply == nil || a.Run.ID != "" {
			t.Errorf("got %+v, %v", a, err)
		}
		form := "payload=" + url.QueryEscape(tea)
		r := s.took(token, form, "Content-Type", "application/x-www-form-urlencoded", "X-Hub-Signature-256", "sha256="+hexMAC("open sesame", form))
		if q, err := s.Runs.Request(t.Context(), r.ID); err != nil || q.Inputs["topic"] != "tea" {
			t.Errorf("the inputs are %v, %v", q.Inputs, err)
		}
	})
}

func TestReceipts(t *testing.T) {
	in(t, "what may be a secret is masked, and a long body cut", func(t *testing.T, s *stage) {
		_, token := s.make("open sesame", trigger.Trigger{Sender: trigger.Sender{Scheme: trigger.HMAC, Header: "X-Mine"}})
		body := `{"topic": "` + strings.Repeat("tea", 30_000) + `"}`
		_, q, err := s.come(token, body, "X-Mine", hexMAC("open sesame", body), "Authorization", "Bearer x", "Cookie", "a=b", "X-Api-Key", "k",
			"X-Gitlab-Token", "t", "User-Agent", "curl", "Idempotency-Key", "k1")
		if err != nil {
			t.Fatal(err)
		}
		triggerID, receiptID, ok := trigger.ParseReceipt(q.ReceiptID())
		if !ok {
			t.Fatal(q.ReceiptID())
		}
		got, kept, err := s.Receipt(t.Context(), triggerID, receiptID)
		if err != nil || got.Size != len(body) || got.Kept != trigger.MaxKept || string(kept) != body[:trigger.MaxKept] || got.Delivery != "k1" {
			t.Errorf("got %+v with %d bytes, %v", got, len(kept), err)
		}
		for name, want := range map[string]string{"x-mine": trigger.Masked, "authorization": trigger.Masked, "cookie": trigger.Masked, "x-api-key": trigger.Masked, "x-gitlab-token": trigger.Masked, "user-agent": "curl", "idempotency-key": "k1"} {
			if got.Headers[name] != want {
				t.Errorf("%s is kept as %q", name, got.Headers[name])
			}
		}
		if _, _, err := s.Replay(t.Context(), got, kept); !fault.Is(err, fault.Conflict) {
			t.Errorf("replayed what is cut: %v", err)
		}
	})
	in(t, "sixty refused ones a minute leave a receipt, without a body", func(t *testing.T, s *stage) {
		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)))
		tr, token := s.make("open sesame", trigger.Trigger{Sender: trigger.Sender{Scheme: trigger.GitHub}})
		for i := range 70 {
			_, q, err := s.come(token, tea, "X-Hub-Signature-256", "sha256=x")
			if !fault.Is(err, fault.Unauthorized) || (q.ReceiptID() == "") != (i >= 60) {
				t.Fatalf("the %d.: %v, %q", i+1, err, q.ReceiptID())
			}
		}
		if got := s.receipts(tr); len(got) != 60 || got[0].Kept != 0 {
			t.Errorf("there are %d", len(got))
		}
		s.took(token, tea, "X-Hub-Signature-256", "sha256="+hexMAC("open sesame", tea))
		time.Sleep(time.Minute)
		if _, q, _ := s.come(token, tea); q.ReceiptID() == "" {
			t.Error("none a minute later")
		}
	})
	in(t, "they are listed by trigger, status and time, in pages", func(t *testing.T, s *stage) {
		one, first := s.make("", trigger.Trigger{})
		_, second := s.make("", trigger.Trigger{})
		began := time.Now()
		for i := range 10 {
			token := []string{first, second}[i%2]
			if i < 8 {
				s.took(token, tea)
			} else if _, _, err := s.come(token, "x"); err == nil {
				t.Fatal("taken")
			}
			time.Sleep(time.Minute)
		}
		count := func(q trigger.ReceiptQuery) (n, pages int) {
			q.DeploymentIDs = []string{s.d.ID}
			last := "~"
			for {
				found, next, err := s.Receipts(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range found {
					if n++; r.ID >= last {
						t.Errorf("%s comes after %s", r.ID, last)
					}
					last = r.ID
				}
				if pages++; next == "" {
					return n, pages
				}
				q.Cursor = next
			}
		}
		for _, test := range []struct {
			name string
			q    trigger.ReceiptQuery
			want int
		}{
			{"all", trigger.ReceiptQuery{Limit: 3}, 10},
			{"of one trigger", trigger.ReceiptQuery{Trigger: one.ID, Limit: 2}, 5},
			{"refused", trigger.ReceiptQuery{Status: trigger.Refused, Limit: 1}, 2},
			{"of one trigger, accepted", trigger.ReceiptQuery{Trigger: one.ID, Status: trigger.Accepted, Limit: 1}, 4},
			{"in a time", trigger.ReceiptQuery{Since: began.Add(2 * time.Minute), Until: began.Add(5 * time.Minute), Limit: 2}, 3},
			{"of one trigger in a time", trigger.ReceiptQuery{Trigger: one.ID, Since: began.Add(2 * time.Minute), Until: began.Add(5 * time.Minute), Limit: 2}, 2},
			{"of another deployment's trigger", trigger.ReceiptQuery{Trigger: "01a20000-0000-7000-8000-000000000009"}, 0},
		} {
			if n, _ := count(test.q); n != test.want {
				t.Errorf("%s: %d, want %d", test.name, n, test.want)
			}
		}
		last, used, err := s.LastUse(t.Context(), one)
		if err != nil || !used || last.Run == "" || last.At.Sub(began.Add(6*time.Minute)).Abs() > time.Second {
			t.Errorf("the last use is %+v, %v, %v", last, used, err)
		}
	})
	in(t, "a receipt is gone after thirty days", func(t *testing.T, s *stage) {
		tr, token := s.make("", trigger.Trigger{})
		s.took(token, tea)
		time.Sleep(30*24*time.Hour + time.Second)
		if got := s.receipts(tr); len(got) != 0 {
			t.Errorf("there are %+v", got)
		}
	})
}

func TestReplay(t *testing.T) {
	in(t, "a request that failed is replayed as the trigger is now", func(t *testing.T, s *stage) {
		tr, token := s.make("open sesame", trigger.Trigger{Sender: trigger.Sender{Scheme: trigger.GitHub}})
		body := `{"subject": "tea"}`
		_, q, err := s.come(token, body, "X-Hub-Signature-256", "sha256="+hexMAC("open sesame", body), "X-Github-Delivery", "d1")
		if !fault.Is(err, fault.Missing) {
			t.Fatal(err)
		}
		if _, _, err := s.Change(t.Context(), tr.ID, nil, func(t *trigger.Trigger) error { t.Input = `{"topic": body.subject}`; return nil }); err != nil {
			t.Fatal(err)
		}
		triggerID, receiptID, _ := trigger.ParseReceipt(q.ReceiptID())
		old, kept, err := s.Receipt(t.Context(), triggerID, receiptID)
		if err != nil {
			t.Fatal(err)
		}
		runs := map[string]bool{}
		for range 2 { // each replay is a run of its own
			time.Sleep(time.Second)
			a, replayed, err := s.Replay(t.Context(), old, kept)
			if err != nil {
				t.Fatal(err)
			}
			runs[a.Run.ID] = true
			if got := s.receipts(tr)[0]; got.ReplayOf != old.ID || got.Run != a.Run.ID || trigger.ShowReceipt(got.Trigger, got.ID) != replayed.ReceiptID() {
				t.Errorf("its receipt is %+v", got)
			}
		}
		if len(runs) != 2 {
			t.Errorf("there are the runs %v", runs)
		}
	})
	in(t, "a request that was refused cannot be replayed", func(t *testing.T, s *stage) {
		_, token := s.make("open sesame", trigger.Trigger{Sender: trigger.Sender{Scheme: trigger.GitHub}})
		_, q, _ := s.come(token, tea)
		triggerID, receiptID, _ := trigger.ParseReceipt(q.ReceiptID())
		old, kept, err := s.Receipt(t.Context(), triggerID, receiptID)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Replay(t.Context(), old, kept); !fault.Is(err, fault.Conflict) {
			t.Errorf("got %v", err)
		}
	})
}

func TestDirect(t *testing.T) {
	in(t, "the same execution is one run", func(t *testing.T, s *stage) {
		d, err := trigger.ParseDirect([]byte(`{"deployment": "` + s.d.ID + `", "environment": "staging", "inputs": {"topic": "tea", "n": 12345678901234567890}, "execution_id": "e1"}`))
		if err != nil {
			t.Fatal(err)
		}
		first, err := s.StartDirect(t.Context(), d)
		if err != nil || first.Environment != "staging" || first.Origin != "schedule" {
			t.Fatalf("got %+v, %v", first, err)
		}
		if q, err := s.Runs.Request(t.Context(), first.ID); err != nil || fmt.Sprint(q.Inputs["n"]) != "12345678901234567890" {
			t.Errorf("the inputs are %v, %v", q.Inputs, err)
		}
		if again, err := s.StartDirect(t.Context(), d); err != nil || again.ID != first.ID || !again.Before {
			t.Errorf("again: %+v, %v", again, err)
		}
		d.Execution = "e2"
		if other, err := s.StartDirect(t.Context(), d); err != nil || other.ID == first.ID {
			t.Errorf("another execution: %+v, %v", other, err)
		}
	})
	t.Run("what cannot be read is refused", func(t *testing.T) {
		for _, payload := range []string{``, `{}`, `[]`, `null`, `{"deployment": 1}`, `{"deployment": "d", "inputs": []}`, strings.Repeat(`{"a":`, 100_000), "\xff"} {
			if d, err := trigger.ParseDirect([]byte(payload)); !fault.Is(err, fault.Invalid) {
				t.Errorf("%.20q gave %+v, %v", payload, d, err)
			}
		}
	})
}

func TestBoundsOfATrigger(t *testing.T) {
	in(t, "a wire that knows its callers starts runs within the trigger's bounds", func(t *testing.T, s *stage) {
		tr := trigger.Trigger{
			ID: "01a20000-0000-7000-8000-0000000000aa", WorkspaceID: s.d.WorkspaceID, DeploymentID: s.d.ID, Enabled: true,
			Traffic: crew.Traffic{MaxConcurrentRuns: 2, WhenFull: crew.Reject, MaxKickoffsPerMinute: 60},
		}
		start := func(id string) (run.Run, error) {
			q := s.Begin(tr, http.Header{}, []byte(`{}`))
			q.Signature = id
			return s.Start(t.Context(), q, run.StartRequest{Deployment: s.d, Inputs: map[string]any{"topic": "tea"}})
		}
		for i := range 2 {
			if _, err := start(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := start("2"); !fault.Is(err, fault.TooMany) {
			t.Errorf("the third: %v", err)
		}
		if r, err := start("1"); err != nil || !r.Before {
			t.Errorf("the second again: %+v, %v", r, err)
		}
		statuses := []trigger.Status{}
		for _, r := range s.receipts(tr) {
			statuses = append(statuses, r.Status)
		}
		if len(statuses) != 4 {
			t.Errorf("the receipts are %v", statuses)
		}
	})
}

// A token that stands for nothing leaves a metric, whose name says nothing of the token.
func TestStrangersAreCounted(t *testing.T) {
	in(t, "every one", func(t *testing.T, s *stage) {
		counted := map[string]int{}
		s.Count = func(counts map[string]int) {
			for name, n := range counts {
				counted[name] += n
			}
		}
		_, token := s.make("", trigger.Trigger{})
		for _, shown := range []string{"mus_in_x", "mus_in_y", "", token} {
			_, err := s.ByToken(t.Context(), shown)
			s.Stray(t.Context(), err)
		}
		if len(counted) != 1 || counted[trigger.UnknownTrigger] != 3 {
			t.Errorf("counted were %v", counted)
		}
	})
}

func FuzzParseReceipt(f *testing.F) {
	f.Add("rec_019ab0c45b007a10b1c23d4e5f607182_019ab0c45b007a10b1c23d4e5f607183")
	f.Add("rec__")
	f.Fuzz(func(t *testing.T, shown string) {
		if triggerID, receiptID, ok := trigger.ParseReceipt(shown); ok {
			if again := trigger.ShowReceipt(triggerID, receiptID); !strings.EqualFold(again, shown) {
				t.Errorf("%q is shown as %q", shown, again)
			}
		}
	})
}
