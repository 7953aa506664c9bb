package trigger_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/trigger"
)

// agent enlists the agents of the stage's deployment and gives the trigger of the one it has.
func (s *stage) agent() (trigger.Trigger, string) {
	s.t.Helper()
	v, err := s.Crews.Version(s.t.Context(), s.d.Environments[crew.Production].VersionID)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.Enlist(s.t.Context(), s.d, v); err != nil {
		s.t.Fatal(err)
	}
	t, secret, known, err := s.AgentTrigger(s.t.Context(), s.d.ID, "a")
	if err != nil || !known {
		s.t.Fatalf("there is no trigger: %v", err)
	}
	return t, secret
}

// event lets the agent be told of an event.
func (s *stage) event(t trigger.Trigger, body string, pairs ...string) (run.Run, *trigger.Request, error) {
	s.t.Helper()
	p, err := trigger.ReadPayload([]byte(body))
	if err != nil {
		s.t.Fatal(err)
	}
	q := s.Begin(t, headers(pairs...), []byte(body))
	r, err := s.StartAgent(s.t.Context(), q, p)
	return r, q, err
}

func TestTheTriggersOfAgents(t *testing.T) {
	in(t, "an agent has one secret, however often it is enlisted", func(t *testing.T, s *stage) {
		first, secret := s.agent()
		second, again := s.agent()
		if first != second || secret != again || !strings.HasPrefix(secret, "mus_agent_") || strings.Contains(first.Secret, secret) {
			t.Errorf("they are %+v with %q and %+v with %q", first, secret, second, again)
		}
		if all, err := s.Of(t.Context(), s.d.ID); err != nil || len(all) != 0 {
			t.Errorf("it is an incoming webhook: %v, %v", all, err)
		}
		if _, err := s.Find(t.Context(), first.ID); !fault.Is(err, fault.NotFound) {
			t.Errorf("it can be changed as an incoming webhook: %v", err)
		}
	})
	in(t, "it is found by ids, by the key of the agent, and by a name that only one deployment has", func(t *testing.T, s *stage) {
		s.agent()
		agentID := crew.AgentID(s.d.ID, "a")
		for _, c := range []struct {
			crew, agent string
			known       bool
		}{
			{s.d.ID, agentID, true}, {"dep_" + strings.ReplaceAll(s.d.ID, "-", ""), "a", true}, {"tea", "a", true}, {"tea", agentID, true},
			{"coffee", "a", false}, {s.d.ID, "b", false}, {agentID, agentID, false}, {s.d.ID, s.d.ID, false},
		} {
			if _, _, known, err := s.AgentTrigger(t.Context(), c.crew, c.agent); known != c.known || err != nil {
				t.Errorf("%s, %s: known is %t, %v", c.crew, c.agent, known, err)
			}
		}
		if err := s.Enlist(t.Context(), crew.Deployment{ID: agentID, Name: "tea"}, crew.Version{}); err != nil {
			t.Fatal(err)
		}
		if _, _, known, err := s.AgentTrigger(t.Context(), "tea", "a"); known || err != nil {
			t.Errorf("by a name that two have: known is %t, %v", known, err)
		}
	})
	in(t, "to look for one that is not there takes the same reads", func(t *testing.T, s *stage) {
		s.agent()
		counted := &counter{Store: s.mem}
		s.Store = counted
		reads := func(crew, agent string) int {
			counted.gets = 0
			if _, secret, _, err := s.AgentTrigger(t.Context(), crew, agent); err != nil || secret == "" {
				t.Errorf("%s, %s: %v", crew, agent, err)
			}
			return counted.gets
		}
		nothing := "01a20000-0000-7000-8000-000000000001"
		for _, c := range [][2]string{{s.d.ID, nothing}, {s.d.ID, "b"}, {nothing, nothing}, {nothing, "a"}} {
			if known, unknown := reads(s.d.ID, "a"), reads(c[0], c[1]); known != unknown {
				t.Errorf("%v: %d reads, and %d for one that is there", c, unknown, known)
			}
		}
		if known, unknown := reads("tea", "a"), reads("coffee", "a"); known != unknown {
			t.Errorf("by name: %d reads, and %d for one that is there", unknown, known)
		}
	})
	in(t, "another secret kills the old one", func(t *testing.T, s *stage) {
		first, old := s.agent()
		rotated, err := s.RotateAgentSecret(t.Context(), first.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, now := s.agent(); now != rotated || now == old {
			t.Errorf("the secrets are %q, %q, %q", old, rotated, now)
		}
		if _, err := s.RotateAgentSecret(t.Context(), s.d.ID); !fault.Is(err, fault.NotFound) {
			t.Errorf("an agent that is not there: %v", err)
		}
	})
	in(t, "a run is the agent's alone, for ten minutes, in its session, and needs no inputs", func(t *testing.T, s *stage) {
		s.begin = -1
		a, _ := s.agent()
		r, _, err := s.event(a, `{"event": "e", "source": "s"}`)
		if err != nil {
			t.Fatal(err)
		}
		asked, err := s.Runs.Request(t.Context(), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		if r.Agent != "a" || r.Origin != "trigger" || r.Trigger != a.ID || r.Thread != trigger.SessionThread(a.ID) || r.Environment != crew.Production {
			t.Errorf("the run is %+v", r)
		}
		if asked.Agent != "a" || asked.Limits.MaxDurationSeconds != 600 || asked.Inputs[run.Message] != "Webhook event received:\nEvent: e\nSource: s" ||
			string(asked.Meta) != `{"event":"e","source":"s","trigger":"webhook"}` || asked.Remember != trigger.Remembered {
			t.Errorf("what is asked for is %+v", asked)
		}
	})
	in(t, "eight are under way or wait, and the ninth is one too many", func(t *testing.T, s *stage) {
		s.begin = -1
		a, _ := s.agent()
		for i := range 8 {
			if _, _, err := s.event(a, fmt.Sprint(i)); err != nil {
				t.Fatalf("event %d: %v", i, err)
			}
		}
		if _, _, err := s.event(a, "8"); !fault.Is(err, fault.TooMany) {
			t.Errorf("the ninth: %v", err)
		}
	})
	in(t, "sixty are taken in a minute", func(t *testing.T, s *stage) {
		s.begin = -1
		a, _ := s.agent()
		take := func(i int) error {
			r, _, err := s.event(a, fmt.Sprint(i))
			if err == nil {
				_, err = s.Runs.Withdraw(t.Context(), r.ID, "enough")
			}
			return err
		}
		for i := range 60 {
			if err := take(i); err != nil {
				t.Fatalf("event %d: %v", i, err)
			}
		}
		if err := take(60); !fault.Is(err, fault.TooMany) {
			t.Errorf("the one after: %v", err)
		}
		time.Sleep(time.Minute) // of the test's own clock
		if err := take(61); err != nil {
			t.Errorf("a minute later: %v", err)
		}
	})
	in(t, "the same signature is the same run for a minute, and another one the next day", func(t *testing.T, s *stage) {
		s.begin = -1
		a, _ := s.agent()
		send := func() run.Run {
			q := s.Begin(a, headers(), []byte("1"))
			q.Signature = "abc"
			r, err := s.StartAgent(t.Context(), q, trigger.Payload{Message: "m"})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		first := send()
		if again := send(); again.ID != first.ID || !again.Before {
			t.Errorf("the runs are %s and %s", first.ID, again.ID)
		}
		time.Sleep(24 * time.Hour)
		if later := send(); later.ID == first.ID {
			t.Error("the next day it is the same run")
		}
	})
	in(t, "an agent that left the version in production has no runs", func(t *testing.T, s *stage) {
		a, _ := s.agent()
		v, _, err := s.Crews.AddVersion(t.Context(), s.d.ID, map[string][]byte{
			"agents.yaml": []byte("b:\n  role: r\n  goal: g\n  backstory: b\n"),
			"tasks.yaml":  []byte("t:\n  description: d\n  expected_output: o\n  agent: b\n"),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Crews.Promote(t.Context(), s.d.ID, crew.Production, v.Number); err != nil {
			t.Fatal(err)
		}
		_, q, err := s.event(a, "{}")
		if err != trigger.ErrNoAgent || q.ReceiptID() == "" {
			t.Errorf("got %v, receipt %q", err, q.ReceiptID())
		}
	})
	in(t, "a receipt of an agent's trigger can be replayed", func(t *testing.T, s *stage) {
		s.begin = -1
		a, _ := s.agent()
		first, q, err := s.event(a, `{"event": "e"}`, "Idempotency-Key", "k")
		if err != nil {
			t.Fatal(err)
		}
		triggerID, receiptID, _ := trigger.ParseReceipt(q.ReceiptID())
		receipt, body, err := s.Receipt(t.Context(), triggerID, receiptID)
		if err != nil || receipt.Run != first.ID {
			t.Fatalf("the receipt is %+v, %v", receipt, err)
		}
		again, _, err := s.Replay(t.Context(), receipt, body)
		if err != nil || again.Run.ID == first.ID || again.Run.Agent != "a" {
			t.Errorf("got %+v, %v", again, err)
		}
	})
}

// counter counts reads.
type counter struct {
	record.Store
	gets int
}

func (c *counter) Get(ctx context.Context, k record.Key) (record.Record, error) {
	c.gets++
	return c.Store.Get(ctx, k)
}
