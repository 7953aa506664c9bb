package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/mean"
	"muster/shared/run"
)

const threadID = "01a20000-0000-7000-8000-0000000000aa"

// inThread makes a thread with values, and a request for a run of it.
func (s *stage) inThread(values map[string]any) run.StartRequest {
	s.t.Helper()
	if err := s.PutTurn(s.t.Context(), threadID, run.Turn{At: s.clock, Values: values}); err != nil {
		s.t.Fatal(err)
	}
	q := s.request()
	q.Thread, q.Enqueue = threadID, true
	return q
}

func (s *stage) finish(o *run.Owner, out run.Outcome) {
	s.t.Helper()
	if err := o.End(out, o.Root()); err != nil {
		s.t.Fatal(err)
	}
}

type values = map[string]any

func TestARunOfAThreadBuildsOnThoseBeforeIt(t *testing.T) {
	s := newStage(t)
	q := s.inThread(values{"language": "en", "topic": "milk"})
	one := s.claim(s.start(q).ID)
	s.want("the first run has the thread's values, and its own over them", one.Request().Inputs, values{"language": "en", "topic": "tea"})
	s.finish(one, run.Outcome{State: run.Succeeded, Result: `{"n": 12345678901234567890}`, JSON: json.RawMessage(`{"n":12345678901234567890}`)})

	q.Inputs = values{"topic": "rum"}
	two := s.claim(s.start(q).ID)
	after := values{"language": "en", "topic": "rum", "output": `{"n": 12345678901234567890}`, "output_json": values{"n": json.Number("12345678901234567890")}}
	s.want("the second has the result of the first", two.Request().Inputs, after)
	s.finish(two, run.Outcome{State: run.Failed, Error: "No."})

	q.Inputs = values{}
	three := s.claim(s.start(q).ID)
	after["topic"] = "tea"
	s.want("a run that failed left nothing, and an input may come from the thread", three.Request().Inputs, after)
	s.finish(three, run.Outcome{State: run.Succeeded, Result: "Done."})

	var story []string
	turns, err := s.Turns(t.Context(), threadID, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, turn := range turns {
		story = append(story, fmt.Sprint(turn.N, " ", turn.State, " ", turn.Values))
	}
	s.want("the turns", story, []string{
		"3 succeeded map[language:en output:Done. topic:tea]", "2 failed map[]",
		`1 succeeded map[language:en output:{"n": 12345678901234567890} output_json:map[n:12345678901234567890] topic:tea]`, "0  map[language:en topic:milk]",
	})
	newest, valued, err := s.LastTurn(t.Context(), threadID)
	if err != nil || newest.N != 3 || valued.N != 3 {
		t.Errorf("the last turns are %d and %d, %v", newest.N, valued.N, err)
	}
}

func TestAThreadHasOneRunAtATime(t *testing.T) {
	s := newStage(t)
	q := s.inThread(values{})
	one := s.start(q)
	q.Enqueue = false
	if _, err := s.Start(t.Context(), q); !fault.Is(err, fault.Conflict) {
		t.Errorf("a busy thread: %v", err)
	}
	q.Enqueue = true
	two, three := s.start(q), s.start(q)
	s.want("who has the thread is knocked for", s.knocked(), []string{one.ID})
	if _, err := s.Claim(t.Context(), two.ID); !errors.Is(err, run.ErrNothing) {
		t.Errorf("a run behind another: %v", err)
	}
	on, err := s.OnThread(t.Context(), threadID, 0)
	if err != nil || len(on) != 3 || on[0].ID != one.ID || on[2].ID != three.ID {
		t.Errorf("on the thread are %v, %v", on, err)
	}
	if _, err := s.Stop(t.Context(), two.ID); err != nil {
		t.Fatal(err)
	}
	s.finish(s.claim(one.ID), run.Outcome{State: run.Succeeded, Result: "1"})
	s.want("the next is knocked for", s.knocked(), []string{three.ID})
	o := s.claim(three.ID)
	s.want("one that was stopped before it began had no turn", []int{o.Run().Turn, o.Run().Base}, []int{2, 1})
}

func TestARunThatWaitsForAPersonKeepsItsThread(t *testing.T) {
	s := newStage(t)
	q := s.inThread(values{})
	q.Deployment.Traffic = crew.Traffic{MaxConcurrentRuns: 1}
	one, question := s.waiting(q, 0, "")
	s.knocked()
	two := s.start(q)
	elsewhere := q
	elsewhere.Thread = ""
	other := s.start(elsewhere)
	s.want("its slot in the deployment is free", s.knocked(), []string{other.ID})
	if finding, err := s.Wake(t.Context(), two.ID); finding != "" || err != nil {
		t.Errorf("nothing is the matter with a run that waits for its thread: %q, %v", finding, err)
	}
	s.finish(s.claim(other.ID), run.Outcome{State: run.Succeeded})

	if err := s.Answer(t.Context(), question, run.Reply{Approve: true}); err != nil {
		t.Fatal(err)
	}
	o := s.claim(one.ID)
	if _, err := s.approve(o, "draft/human/1", 0, ""); err != nil {
		t.Fatal(err)
	}
	s.knocked()
	s.finish(o, run.Outcome{State: run.Succeeded, Result: "Yes."})
	s.want("then the next has it", s.knocked(), []string{two.ID})
	s.want("with what was left", s.claim(two.ID).Request().Inputs, values{"topic": "tea", "output": "Yes."})
}

func TestARunThatIsRolledBackLeavesNothing(t *testing.T) {
	s := newStage(t)
	q := s.inThread(values{"language": "en"})
	one := s.claim(s.start(q).ID)
	if err := one.Release(time.Time{}); err != nil { // so whoever stops it may end it
		t.Fatal(err)
	}
	q.Ousts = run.Rollback
	two := s.claim(s.start(q).ID)
	s.want("the run in the way", s.state(one.Run().ID).State, run.Canceled)
	s.want("the values", two.Request().Inputs, values{"language": "en", "topic": "tea"})
	s.finish(two, run.Outcome{State: run.Succeeded, Result: "2"})
	s.want("one that is over keeps what it left", s.claim(s.start(q).ID).Request().Inputs, values{"language": "en", "topic": "tea", "output": "2"})
}

func TestARunMayRememberEarlierTurns(t *testing.T) {
	s := newStage(t)
	q := s.inThread(values{})
	for i := range 7 {
		q.Inputs = values{"topic": fmt.Sprint(i)}
		state := run.Succeeded
		if i == 5 {
			state = run.Failed
		}
		s.finish(s.claim(s.start(q).ID), run.Outcome{State: state, Result: fmt.Sprint("about ", i)})
	}
	for most, want := range map[int][]string{
		0: nil, 2: {"6: about 6", "4: about 4"}, 100: {"6: about 6", "4: about 4", "3: about 3", "2: about 2", "1: about 1", "0: about 0"},
	} {
		q.Remember = most
		o := s.claim(s.start(q).ID)
		var remembered []string
		for _, turn := range o.Request().Earlier {
			remembered = append(remembered, fmt.Sprint(turn.Values["topic"], ": ", turn.Values[run.Output]))
		}
		s.want(fmt.Sprint("the newest ", most), remembered, want)
		s.finish(o, run.Outcome{State: run.Failed})
	}
}

// TestATurnSurvivesEveryDeath lets each call of a run's beginning and end fail, before and after it was done, and its process die
// with it. Whoever takes over finds the same inputs and leaves the same turn, and the next run builds on it.
func TestATurnSurvivesEveryDeath(t *testing.T) {
	calls := 0
	for n := 0; n <= calls; n++ {
		for _, fate := range []mean.Fate{mean.Before, mean.After} {
			s := newStage(t)
			q := s.inThread(values{"language": "en"})
			one, two := s.start(q), s.start(q)
			sound := s.Store

			m := mean.Failing(n, fate)
			plan := m.Plan
			ctx, die := context.WithCancel(t.Context())
			m.Plan = func(c mean.Call) mean.Fate {
				fate := plan(c)
				if fate != mean.Fine {
					die()
				}
				return fate
			}
			s.Store = m.Store(sound)
			if o, err := s.Claim(ctx, one.ID); err == nil {
				_ = o.End(run.Outcome{State: run.Succeeded, Result: "1"}, o.Root())
			}
			die()
			if n == 0 {
				calls = len(m.Calls())
			}

			s.Store = sound
			s.die()
			for s.state(one.ID).State != run.Succeeded {
				o, err := s.Claim(t.Context(), one.ID)
				if err != nil {
					if !errors.Is(err, run.ErrNothing) {
						t.Fatalf("call %d: %v", n, err)
					}
					continue
				}
				s.want(fmt.Sprintf("call %d: the inputs", n), o.Request().Inputs, values{"language": "en", "topic": "tea"})
				s.finish(o, run.Outcome{State: run.Succeeded, Result: "1"})
			}
			s.clock = s.clock.Add(10 * time.Minute)
			if _, err := s.Wake(t.Context(), two.ID); err != nil {
				t.Fatal(err)
			}
			knocked := s.knocked()
			if knocked[len(knocked)-1] != two.ID {
				t.Errorf("call %d: nobody knocked for the next run: %v", n, knocked)
			}
			o := s.claim(two.ID)
			s.want(fmt.Sprintf("call %d: the next run", n), o.Request().Inputs, values{"language": "en", "topic": "tea", "output": "1"})
			s.want(fmt.Sprintf("call %d: its turn", n), []int{o.Run().Turn, o.Run().Base}, []int{2, 1})
		}
	}
	if calls < 10 {
		t.Errorf("there were only %d calls", calls)
	}
}
