package run

import "slices"

// State is the state of a run.
type State string

// The states.
const (
	Queued    State = "queued"
	Running   State = "running"
	Waiting   State = "waiting"
	Succeeded State = "succeeded"
	Failed    State = "failed"
	Canceled  State = "canceled"
	TimedOut  State = "timed_out"
)

// moves is the whole of what may follow what. A state without moves is terminal.
var moves = map[State][]State{
	Queued:  {Running, Canceled, TimedOut},
	Running: {Running, Waiting, Succeeded, Failed, Canceled, TimedOut}, // to itself: a yield or a take-over
	Waiting: {Queued, Canceled, TimedOut},
}

// Ended says whether a run in this state is over for good.
func (s State) Ended() bool { return len(moves[s]) == 0 }

// may says whether the move is in the table.
func (s State) may(next State) bool { return slices.Contains(moves[s], next) }
