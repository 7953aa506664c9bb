package run_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"muster/events"
	"muster/shared/fault"
	"muster/shared/run"
)

// The stations of a run: its states, whether anybody began it, and for `running` whether an owner lives.
const (
	queued    = "queued"
	answered  = "answered"
	held      = "held"
	lapsed    = "lapsed"
	released  = "released"
	waiting   = "waiting"
	succeeded = "succeeded"
	failed    = "failed"
	canceled  = "canceled"
	timedOut  = "timed out"
)

var stations = []string{queued, answered, held, lapsed, released, waiting, succeeded, failed, canceled, timedOut}

// at brings a new run to a station. owner is the last one it had: its living owner in held, or else one whose time is over,
// and nil in queued.
func (s *stage) at(station string) (runID, question string, owner *run.Owner) {
	s.t.Helper()
	q := s.request()
	q.Targets = []run.Target{{ID: "crew", Kind: run.CrewTarget}}
	r := s.start(q)
	question = run.QuestionID(r.ID, "draft/human/1")
	if station == queued {
		return r.ID, question, nil
	}
	o := s.claim(r.ID)
	var err error
	switch station {
	case lapsed:
		s.die()
	case waiting, answered, timedOut:
		_, _ = s.approve(o, "draft/human/1", time.Hour, "") // it waits
		_, err = o.Wait()
		if station == answered {
			err = errors.Join(err, s.Answer(s.t.Context(), question, run.Reply{Approve: true}))
		}
		if station == timedOut {
			s.clock = s.clock.Add(time.Hour)
			_, wakes := s.Wake(s.t.Context(), r.ID)
			err = errors.Join(err, wakes)
		}
	case released:
		err = o.Release(time.Time{})
	case succeeded:
		err = o.End(run.Outcome{State: run.Succeeded}, o.Root())
	case failed:
		err = o.Fail(run.Outcome{State: run.Failed, Error: "It broke."}, nothing)
	case canceled:
		err = o.Fail(run.Outcome{State: run.Canceled, Error: run.Stopped}, nothing)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return r.ID, question, o
}

var nothing = events.Draft{}

// station names the station where a run is.
func (s *stage) station(runID string) string {
	r := s.state(runID)
	switch {
	case r.State == run.Running && r.Nonce == "":
		return released
	case r.State == run.Running && !s.clock.Before(r.Lease):
		return lapsed
	case r.State == run.Running:
		return held
	case r.State == run.Queued && r.Epoch > 0:
		return answered
	case r.State == run.TimedOut:
		return timedOut
	}
	return string(r.State)
}

// TestEveryMoveFromEveryState does everything that can be done with a run wherever a run can be. What is not in the table
// leaves it where it is; ended runs never move.
func TestEveryMoveFromEveryState(t *testing.T) {
	claim := func(s *stage, runID, _ string, _ *run.Owner) error {
		_, err := s.Claim(s.t.Context(), runID)
		return err
	}
	stop := func(s *stage, runID, _ string, _ *run.Owner) error {
		s.Now = func() time.Time { // it waits some seconds for an owner that lives
			s.clock = s.clock.Add(time.Second)
			return s.clock
		}
		_, err := s.Stop(s.t.Context(), runID)
		return err
	}
	answer := func(s *stage, _, question string, _ *run.Owner) error {
		return s.Answer(s.t.Context(), question, run.Reply{Approve: true})
	}
	wake := func(s *stage, runID, _ string, _ *run.Owner) error {
		s.clock = s.clock.Add(2 * time.Hour)
		_, err := s.Wake(s.t.Context(), runID)
		return err
	}
	told := func(s *stage, runID, _ string, _ *run.Owner) error { return s.Told(s.t.Context(), runID, 1) }
	alone := func(s *stage, runID, _ string, _ *run.Owner) error {
		_, err := s.ClaimAlone(s.t.Context(), runID)
		return err
	}
	watch := func(s *stage, runID, _ string, _ *run.Owner) error { return s.Watch(s.t.Context(), runID, true) }
	tell := func(s *stage, runID, _ string, _ *run.Owner) error {
		s.Now = func() time.Time { // it waits some seconds for an owner that lives
			s.clock = s.clock.Add(10 * time.Second)
			return s.clock
		}
		_, _, err := s.Tell(s.t.Context(), runID, "order.shipped", json.RawMessage(`{}`))
		s.Now = func() time.Time { return s.clock }
		return err
	}
	withdraw := func(s *stage, runID, _ string, _ *run.Owner) error {
		_, err := s.Withdraw(s.t.Context(), runID, "Nobody began it.")
		return err
	}
	restart := func(s *stage, _, _ string, _ *run.Owner) error {
		_, err := s.ExpireLeases(s.t.Context())
		return err
	}
	// What the last owner does is all the same to a run that it has lost.
	end := func(_ *stage, _, _ string, o *run.Owner) error {
		return o.End(run.Outcome{State: run.Succeeded}, o.Root())
	}
	fail := func(_ *stage, _, _ string, o *run.Owner) error {
		return o.Fail(run.Outcome{State: run.Failed}, nothing)
	}
	release := func(_ *stage, _, _ string, o *run.Owner) error { return o.Release(time.Time{}) }
	wait := func(_ *stage, _, _ string, o *run.Owner) error { _, err := o.Wait(); return err }
	exceed := func(_ *stage, _, _ string, o *run.Owner) error {
		return o.Exceed(&run.Reached{Limit: "max_steps", Value: 1, Max: 1})
	}
	late := func(_ *stage, _, _ string, o *run.Owner) error {
		return o.Exceed(&run.Reached{Limit: "max_duration_seconds", Value: 1, Max: 1})
	}
	quit := func(how func(*run.Owner)) func(*stage, string, string, *run.Owner) error {
		return func(_ *stage, _, _ string, o *run.Owner) error { how(o); return nil }
	}

	type refusal = func(error) bool
	is := func(want error) refusal { return func(err error) bool { return errors.Is(err, want) } }
	kind := func(k fault.Kind) refusal { return func(err error) bool { return fault.Is(err, k) } }
	var (
		fine     refusal = func(err error) bool { return err == nil }
		nobody           = is(run.ErrNothing)
		lost             = is(run.ErrLost)
		conflict         = kind(fault.Conflict)
	)
	over := []string{succeeded, failed, canceled, timedOut}
	for _, act := range []struct {
		name string
		do   func(*stage, string, string, *run.Owner) error
		// to says where a run gets from somewhere; from anywhere else it does not move.
		to map[string]string
		// says is what the act answers somewhere, "" stands for the other stations.
		says map[string]refusal
		// owner is for acts of an owner, which a run that nobody ever began does not have.
		owner bool
	}{
		{name: "claim", do: claim, to: map[string]string{queued: held, answered: held, lapsed: held, released: held},
			says: map[string]refusal{"": nobody, queued: fine, answered: fine, lapsed: fine, released: fine, held: is(run.ErrHeld)}},
		{name: "claim alone", do: alone, to: map[string]string{queued: held, answered: held, lapsed: held, released: held},
			says: map[string]refusal{"": nobody, queued: fine, answered: fine, lapsed: fine, released: fine, held: is(run.ErrHeld)}},
		{name: "watch", do: watch, says: map[string]refusal{"": fine}},
		{name: "tell", do: tell, says: map[string]refusal{"": fine, succeeded: conflict, failed: conflict, canceled: conflict, timedOut: conflict}},
		{name: "withdraw", do: withdraw, to: map[string]string{queued: canceled}, says: map[string]refusal{"": fine}},
		{name: "start the only process again", do: restart, to: map[string]string{held: lapsed}, says: map[string]refusal{"": fine}},
		{name: "stop", do: stop, to: map[string]string{queued: canceled, answered: canceled, lapsed: canceled, released: canceled, waiting: canceled},
			says: map[string]refusal{"": fine, succeeded: conflict, failed: conflict, timedOut: conflict}},
		{name: "answer", do: answer, to: map[string]string{waiting: answered},
			says: map[string]refusal{"": kind(fault.NotFound), waiting: fine, answered: fine, timedOut: kind(fault.Invalid)}},
		{name: "wake, two hours later", do: wake, to: map[string]string{waiting: timedOut, held: lapsed},
			says: map[string]refusal{"": fine}},
		{name: "told", do: told, says: map[string]refusal{"": fine}},
		{name: "end", do: end, owner: true, to: map[string]string{held: succeeded, lapsed: succeeded}, says: map[string]refusal{"": lost, held: fine, lapsed: fine}},
		{name: "fail", do: fail, owner: true, to: map[string]string{held: failed, lapsed: failed}, says: map[string]refusal{"": lost, held: fine, lapsed: fine}},
		{name: "release", do: release, owner: true, to: map[string]string{held: released, lapsed: released}, says: map[string]refusal{"": lost, held: fine, lapsed: fine}},
		{name: "exceed a limit", do: exceed, owner: true, to: map[string]string{held: failed, lapsed: failed}, says: map[string]refusal{"": lost, held: fine, lapsed: fine}},
		{name: "exceed the limit of time", do: late, owner: true, to: map[string]string{held: timedOut, lapsed: timedOut}, says: map[string]refusal{"": lost, held: fine, lapsed: fine}},
		{name: "yield", do: quit((*run.Owner).Yield), owner: true, says: map[string]refusal{"": fine}},
		{name: "cut", do: quit((*run.Owner).Cut), owner: true, says: map[string]refusal{"": fine}},
		{name: "leave", do: quit((*run.Owner).Leave), owner: true, says: map[string]refusal{"": fine}},
		{name: "wait", do: wait, owner: true, to: map[string]string{held: waiting, lapsed: waiting}, says: map[string]refusal{"": lost, held: fine, lapsed: fine}},
	} {
		for _, from := range stations {
			t.Run(act.name+" when "+from, func(t *testing.T) {
				s := newStage(t)
				runID, question, o := s.at(from)
				if act.owner && o == nil {
					return
				}
				says, ok := act.says[from]
				if !ok {
					says = act.says[""]
				}
				if err := act.do(s, runID, question, o); !says(err) {
					t.Errorf("it says %v", err)
				}
				want, moves := act.to[from]
				if !moves {
					want = from
				}
				if moves && slices.Contains(over, from) {
					t.Error("the table lets an ended run move")
				}
				if got := s.station(runID); got != want {
					t.Errorf("the run is %s, want %s", got, want)
				}
				pages, err := s.Pages(t.Context(), runID, 1, 0)
				if err != nil {
					t.Fatal(err)
				}
				ends := 0
				for _, p := range pages {
					if p.Kind == run.EndPage {
						ends++
					}
				}
				if r := s.state(runID); (r.State == run.Queued || r.State == run.Running) && r.Due.IsZero() {
					t.Error("nobody looks after it")
				}
				if isOver := slices.Contains(over, want) && !s.state(runID).Withdrawn; isOver != (ends == 1) || ends > 1 {
					t.Errorf("a run that is %s has %d end pages", want, ends)
				}
			})
		}
	}
}
