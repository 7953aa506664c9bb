package run

import (
	"context"
	"encoding/json"

	"muster/events"
)

// Step is one act that asks the outside. Its page is put once; whoever replays the run gets the recorded result.
type Step struct {
	// Key names the step within the run, the same at every replay: "research/1/model/2".
	Key string
	// Request is digested; a replay with another request fails the run instead of paying again.
	Request any
	// Conversation names the line of messages that Messages continues; "" for a step that has none. Messages are all
	// messages of the request: the journal keeps only what is new.
	Conversation string
	Messages     []json.RawMessage
	// Open emits the events of the beginning (llm_call_started). attempt is 1, or more when an owner died in the step.
	Open func(e *Emitter, attempt int)
	// Cut emits the event that closes an attempt which an owner's death cut off (llm_call_failed, "interrupted").
	Cut func(e *Emitter, attempt int)
	// Do asks the outside and emits the events of the end; what it returns is recorded, as JSON. An error means that there
	// is no result and the run cannot go on here (the context ended, the journal failed): an error of the outside
	// that the crew should see is part of the result. Do must stop when ctx ends.
	Do func(ctx context.Context, e *Emitter, attempt int) (any, error)
}

// Scope names an event and what surrounds it: Parent is the id of the event that it is nested in, Started that of the
// event it closes.
type Scope struct{ Parent, Started string }

// Emitter takes the events of a branch in program order.
type Emitter struct {
	b   *Branch
	seg string
	n   int
}

// Sketch of the API that the engine uses (methods are in journal_*.go):
//
//	func (e *Emitter) Emit(d events.Draft, s Scope) (id string)   // id is derived from (run, branch, step, ordinal)
//	func (e *Emitter) Chunk(d events.Draft, s Scope)              // goes out in live pages only, at most one per 250 ms
//	func (e *Emitter) Note(n Note)                                // what the step target is told of this step
//	func (e *Emitter) Use(u Usage)                                // adds to the run's totals with this page
//	func (b *Branch) Emit(d events.Draft, s Scope) (id string)    // goes with the branch's next page
//	func (b *Branch) Mark(ctx, key string) error                  // puts a page of what is pending now
//	func (b *Branch) Step(ctx, s Step) (json.RawMessage, error)
//	func (b *Branch) Progress(f func(*Progress))                  // goes with the next page
//	func (b *Branch) Child(name string) *Branch
//	func (b *Branch) Wants(eventType string) bool                 // does any target, or watcher, ask for it
//	func (b *Branch) Now() time.Time                              // time of the branch's last page: deterministic
type Branch struct{ name string }

var _ = events.Draft{}
