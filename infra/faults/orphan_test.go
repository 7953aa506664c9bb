package faults_test

import (
	"testing"
	"time"

	"muster/infra"
	"muster/shared/run"
)

// TestAStoppedRunOfADeadProcessEnds takes a run over in a process that has never seen its crew, after its owner died and
// somebody stopped it. The stop once cancelled the reading of the crew's definition too: the run was claimed, fenced and
// given back every five seconds, for ever.
func TestAStoppedRunOfADeadProcessEnds(t *testing.T) {
	t.Parallel()
	s := newStage(t, onSQLite)
	c := &scene{stage: s, play: play{stopped: never}, asked: map[string][]int{}, heard: map[string]int{}}
	s.scene = c
	c.start()
	c.kickoff()

	dead := s.app(s.records, s.queues, "dead")
	if _, err := dead.Runs.Claim(t.Context(), c.runID); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { _, err := s.runs.Stop(t.Context(), c.runID); stopped <- err }()
	for asked := true; asked; {
		select {
		case err := <-stopped:
			if err != nil {
				t.Fatal(err)
			}
			asked = false
		case <-time.After(20 * time.Millisecond):
			s.pass(time.Second)
		}
	}
	s.pass(s.runs.Lease() + time.Second)
	for range 20 {
		c.feed(infra.Runs)
		s.pass(10 * time.Second)
	}
	r, err := s.runs.Get(t.Context(), c.runID)
	if err != nil || r.State != run.Canceled {
		t.Errorf("the run is %s after %d owners, %v", r.State, r.Epoch, err)
	}
}
