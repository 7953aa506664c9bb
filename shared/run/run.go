package run

import (
	"encoding/json"
	"slices"
	"time"

	"muster/shared/crew"
	"muster/shared/price"
)

// Run is the run item: lease, inbox, and a copy of the state for lists. It stays under 1 KB. The newest page, not this, is
// the truth about how far a run has come.
type Run struct {
	// ID is a UUIDv7 in its canonical form.
	ID            string `json:"id"`
	WorkspaceID   string `json:"workspace"`
	DeploymentID  string `json:"deployment"`
	VersionID     string `json:"version"`
	VersionNumber int    `json:"version_number"`
	Environment   string `json:"environment"`
	// Origin says what started the run: "api", "trigger", "schedule", "replay".
	Origin string `json:"origin"`
	// Trigger is the id of the trigger that started it, "" for none.
	Trigger string `json:"trigger,omitempty"`
	// Agent is the key of the agent that does the run alone, "" when the whole crew does it.
	Agent     string    `json:"agent,omitempty"`
	CreatedAt time.Time `json:"created_at"`

	// State, StartedAt (the first claim of somebody who was to execute it), EndedAt and Error (a sentence, failed runs only) are copies for lists.
	State     State     `json:"state"`
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Error     string    `json:"error,omitempty"`

	// Epoch counts the claims; Nonce is that of the owner, "" when nobody holds the lease; Lease is its end.
	Epoch int       `json:"epoch,omitempty"`
	Nonce string    `json:"nonce,omitempty"`
	Lease time.Time `json:"lease,omitzero"`
	// TakeOvers counts owners that died since the journal last had a new result; Grown is how many it had then.
	TakeOvers int `json:"take_overs,omitempty"`
	Grown     int `json:"grown,omitempty"`

	// WaitsAfter is the number of the newest page when the run last began to wait for a person.
	WaitsAfter int `json:"waits_after,omitempty"`
	// Thread is the thread that the run is in, "" for none. Turn is its number there, 0 until it has one, and Base that of
	// the turn whose values it builds on.
	Thread string `json:"thread,omitempty"`
	Turn   int    `json:"turn,omitempty"`
	Base   int    `json:"base,omitempty"`
	// Ousts says what becomes of the runs of the thread that are before it.
	Ousts Oust `json:"ousts,omitempty"`
	// Gates are the lists where the run needs a slot: "h" for its thread's, "t" for its trigger's, "d" for its deployment's, "w" for its workspace's.
	Gates string `json:"gates,omitempty"`

	// The inbox: a wish to stop, answers by the id of their question, and until when somebody watches live, and wants to see
	// the answers of models grow.
	Cancel       bool              `json:"cancel,omitempty"`
	Answers      map[string]Answer `json:"answers,omitempty"`
	WatchedUntil time.Time         `json:"watched_until,omitzero"`
	ChunksUntil  time.Time         `json:"chunks_until,omitzero"`
	// Targets names the reply that came with other targets than the kickoff's, "" for none.
	Targets string `json:"targets,omitempty"`

	// Withdrawn says that the run was taken back before anybody began it. It has no pages.
	Withdrawn bool `json:"withdrawn,omitempty"`

	// Told says that every delivery of the end page has its record.
	Told bool `json:"told,omitempty"`

	// Due is when the sweeper must look at the run if nothing else happened; zero when it is over and everything was told.
	Due time.Time `json:"due,omitzero"`

	// Rate is how many kickoffs are left; only Start says so, and only where they are limited.
	Rate *Rate `json:"-"`
	// Waits says that the run waits for its turn or for a slot; only Start says so.
	Waits bool `json:"-"`
	// Before says that an earlier request with the same key started the run; only Start says so.
	Before bool `json:"-"`

	rev int64
}

// Answer says that a question was answered, until the journal does. What was said may be long, so it has a record of its
// own, which Record names; Digest tells a repetition from another answer.
type Answer struct {
	Digest string `json:"digest"`
	Record string `json:"record"`
}

// Request is what the kickoff asked for: written once, before the run item. Only its targets may change later, with a reply.
type Request struct {
	Inputs map[string]any  `json:"inputs"`
	Meta   json.RawMessage `json:"meta,omitempty"`
	// Targets are those given at kickoff.
	Targets []Target `json:"targets,omitempty"`

	// Limits bind the run: those of its deployment when it started and the kickoff's own (Asked), whichever is tighter.
	Limits crew.Limits `json:"limits,omitzero"`
	Asked  crew.Limits `json:"asked,omitzero"`
	// Prices are the deployment's own when the run started.
	Prices price.Table `json:"prices,omitempty"`
	// Of is the earlier run that this one repeats, Kept what it takes over from there, by the key of the task.
	Of   string          `json:"of,omitempty"`
	Kept map[string]Kept `json:"kept,omitempty"`
	// Agent is the key of the agent that does the run alone: its task is the input Message.
	Agent string `json:"agent,omitempty"`
	// Remember is how many earlier turns of its thread the run wants to know; Earlier are those, newest first, once it has
	// its turn.
	Remember int    `json:"remember,omitempty"`
	Earlier  []Turn `json:"-"`
}

// Kind says what a target is told.
type Kind string

// The kinds of targets given at kickoff.
const (
	StepTarget   Kind = "step"        // every model answer and tool result
	TaskTarget   Kind = "task"        // every finished task
	CrewTarget   Kind = "crew"        // the end of the run
	StreamTarget Kind = "stream"      // the events it asked for
	HumanTarget  Kind = "human_input" // every question to a person
)

// EndpointTarget is a target that stands beside those of the kickoff: an endpoint of the deployment, told of what it asked for.
const EndpointTarget Kind = "endpoint"

// ChannelTarget is the one target, with the id Channels, that stands for all connections that are told of the run while they
// are open: of every event but chunks.
const (
	ChannelTarget Kind   = "channel"
	Channels      string = "channels"
)

// StateAt gives the state of the run as its newest page shows it: nobody who was told of a page finds an older state. A run
// waits from the page that asks a person on, whatever its other branches still do, and until nothing is unanswered.
func (r Run) StateAt(newest Page) State {
	switch {
	case newest.Outcome != nil:
		return newest.Outcome.State
	case r.State == Running && slices.ContainsFunc(newest.Open, func(o Open) bool { return !r.answered(o) }):
		return Waiting
	}
	return r.State
}

// answered says that the inbox has an answer to an open question.
func (r Run) answered(o Open) bool {
	_, ok := r.Answers[o.ID]
	return ok
}

// Target is where events of a run go. A target given at kickoff belongs to one run; of one that stands beside it (see
// Service.Standing) only ID, Kind and Events are set, the rest is read by whoever tells it.
type Target struct {
	// ID is short and unique within the run.
	ID   string `json:"id"`
	Kind Kind   `json:"kind"`
	URL  string `json:"url"`
	// Events are the types a stream asked for, "*" for all.
	Events []string `json:"events,omitempty"`
	// Realtime wants each event alone and at once.
	Realtime bool `json:"realtime,omitempty"`
	// Authorization is the sealed value of the Authorization header, "" for none.
	Authorization string `json:"authorization,omitempty"`
}
