package run_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"muster/events"
	"muster/shared/fault"
	"muster/shared/run"
)

// The stations of a run: its states, and for `running` whether an owner lives.
const (
	queued    = "queued"
	held      = "held"
	lapsed    = "lapsed"
	released  = "released"
	waiting   = "waiting"
	succeeded = "succeeded"
	failed    = "failed"
	canceled  = "canceled"
	timedOut  = "timed out"
)

var stations = []string{queued, held, lapsed, released, waiting, succeeded, failed, canceled, timedOut}

// at brings a new run to a station. owner is the last one it had: its living owner in held, or else one whose time is over.
func (s *stage) at(station string) (runID, question string, owner *run.Owner) {
	s.t.Helper()
	q := s.request()
	q.Targets = []run.Target{{ID: "crew", Kind: run.CrewTarget}}
	if station == waiting || station == timedOut {
		r, question := s.waiting(q, time.Hour, "")
		if station == timedOut {
			s.clock = s.clock.Add(time.Hour)
			if _, err := s.Wake(s.t.Context(), r.ID); err != nil {
				s.t.Fatal(err)
			}
		}
		return r.ID, question, nil
	}
	r := s.start(q)
	if station == queued {
		return r.ID, run.QuestionID(r.ID, "any"), nil
	}
	o := s.claim(r.ID)
	var err error
	switch station {
	case lapsed:
		s.die()
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
	return r.ID, run.QuestionID(r.ID, "any"), o
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
	// What the last owner does is all the same to a run that it has lost.
	end := func(_ *stage, _, _ string, o *run.Owner) error {
		return o.End(run.Outcome{State: run.Succeeded}, o.Root())
	}
	fail := func(_ *stage, _, _ string, o *run.Owner) error {
		return o.Fail(run.Outcome{State: run.Failed}, nothing)
	}
	release := func(_ *stage, _, _ string, o *run.Owner) error { return o.Release(time.Time{}) }
	wait := func(_ *stage, _, _ string, o *run.Owner) error { _, err := o.Wait(); return err }

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
		// owner is for acts of an owner; a run that never had one is left out.
		owner bool
	}{
		{name: "claim", do: claim, to: map[string]string{queued: held, lapsed: held, released: held},
			says: map[string]refusal{"": nobody, queued: fine, lapsed: fine, released: fine, held: is(run.ErrHeld)}},
		{name: "stop", do: stop, to: map[string]string{queued: canceled, lapsed: canceled, released: canceled, waiting: canceled},
			says: map[string]refusal{"": fine, succeeded: conflict, failed: conflict, timedOut: conflict}},
		{name: "answer", do: answer, to: map[string]string{waiting: queued},
			says: map[string]refusal{"": kind(fault.NotFound), waiting: fine, timedOut: kind(fault.Invalid)}},
		{name: "wake, two hours later", do: wake, to: map[string]string{waiting: timedOut, held: lapsed},
			says: map[string]refusal{"": fine}},
		{name: "told", do: told, says: map[string]refusal{"": fine}},
		{name: "end", do: end, owner: true, to: map[string]string{held: succeeded, lapsed: succeeded}, says: map[string]refusal{"": lost, held: fine, lapsed: fine}},
		{name: "fail", do: fail, owner: true, to: map[string]string{held: failed, lapsed: failed}, says: map[string]refusal{"": lost, held: fine, lapsed: fine}},
		{name: "release", do: release, owner: true, to: map[string]string{held: released, lapsed: released}, says: map[string]refusal{"": lost, held: fine, lapsed: fine}},
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
				if isOver := slices.Contains(over, want); isOver != (ends == 1) || ends > 1 {
					t.Errorf("a run that is %s has %d end pages", want, ends)
				}
			})
		}
	}
}
