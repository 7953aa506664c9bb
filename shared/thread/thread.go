// Package thread is the thread: a line of runs of one deployment, one at a time, each of which begins with what those before
// it left. The values of a thread are those it was made with; a run of it gets them with its own input laid over, and when it
// succeeds the thread's values are that run's inputs and its result, as "output" (text) and "output_json" (when it is
// JSON). A run that fails or is stopped leaves the values as they were.
//
// What keeps runs in their line, and their turns through every death, is in package run (see its turn.go): this
// package keeps the thread itself, and says what a new run does with one that is under way.
//
// Records: "THREAD#<thread>" / THREAD (list "threads/<deployment>", by id), beside the turns.
package thread

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
	"muster/shared/run"
)

// Thread is a thread.
type Thread struct {
	ID           string    `json:"id"`
	WorkspaceID  string    `json:"workspace"`
	DeploymentID string    `json:"deployment"`
	CreatedAt    time.Time `json:"created_at"`
	// Metadata is a JSON object, given back as it came.
	Metadata json.RawMessage `json:"metadata,omitempty"`
}

// Status says what a thread is doing.
type Status string

// The statuses.
const (
	Idle        Status = "idle"
	Busy        Status = "busy"        // a run is under way
	Interrupted Status = "interrupted" // a run waits for a person
	Error       Status = "error"       // the last run failed
)

// State is what a thread holds at a time.
type State struct {
	Status    Status
	Values    map[string]any
	UpdatedAt time.Time
}

// Strategy says what a new run does when one of its thread is under way.
type Strategy string

// The strategies.
const (
	Reject    Strategy = "reject"    // it is refused
	Enqueue   Strategy = "enqueue"   // it waits for its turn
	Interrupt Strategy = "interrupt" // those that came before it are stopped; what they recorded stays
	Rollback  Strategy = "rollback"  // those that came before it are stopped, and leave nothing in the thread
)

// Threads keeps threads.
type Threads struct {
	Store record.Store
	Runs  *run.Service
	// Now is the clock, time.Now unless set.
	Now func() time.Time
}

const (
	// maxMetadata is how large the metadata of a thread may be.
	maxMetadata = 64 << 10
	maxListed   = 100
)

func key(threadID string) record.Key {
	return record.Key{Part: run.ThreadPart(threadID), Sort: "THREAD"}
}

func list(deploymentID string) string { return "threads/" + deploymentID }

// New is a thread that is to be made. Nothing of it is needed.
type New struct {
	// ID is for a thread that is to be found again by something else: then the thread that has it already is as good. (Where
	// it mostly has, Get first: that is one read.)
	ID string
	// IdempotencyKey makes a repeated request give the same thread for record.KeyLife. BodyDigest tells a repetition from another
	// request with the same key.
	IdempotencyKey, BodyDigest string
	Metadata                   json.RawMessage
	// Values are the first ones.
	Values map[string]any
}

// Create makes a thread. Errors: fault.TooLarge for its metadata, fault.Conflict for a key that was used with another body.
func (s *Threads) Create(ctx context.Context, d crew.Deployment, n New) (Thread, error) {
	if len(n.Metadata) > maxMetadata {
		return Thread{}, fault.New(fault.TooLarge, "The metadata of a thread has at most %d KiB.", maxMetadata>>10)
	}
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	t := Thread{
		ID: n.ID, WorkspaceID: d.WorkspaceID, DeploymentID: d.ID, CreatedAt: now().UTC().Truncate(time.Millisecond), Metadata: n.Metadata,
	}
	if t.ID == "" {
		var err error
		once := record.Once{Deployment: d.ID, Key: n.IdempotencyKey, Digest: n.BodyDigest}
		if t.ID, err = once.ID(ctx, s.Store, id.New(), t.CreatedAt, nil); err != nil {
			return Thread{}, err
		}
	}
	if n.Values == nil {
		n.Values = map[string]any{}
	}
	// The values first: there is never a thread without.
	if err := s.Runs.PutTurn(ctx, t.ID, run.Turn{At: t.CreatedAt, Values: n.Values}); err != nil {
		return Thread{}, err
	}
	body, err := json.Marshal(t)
	if err != nil {
		return Thread{}, fmt.Errorf("encode thread %s: %w", t.ID, err)
	}
	_, err = s.Store.Put(ctx, record.Record{Key: key(t.ID), Body: body, List: list(t.DeploymentID), Order: t.ID})
	if there, ok := record.Current(err); ok {
		return decode(there)
	}
	if err != nil {
		return Thread{}, fmt.Errorf("put thread %s: %w", t.ID, err)
	}
	return t, nil
}

// Get gives a thread; fault.NotFound when there is none.
func (s *Threads) Get(ctx context.Context, threadID string) (Thread, error) {
	rec, err := s.Store.Get(ctx, key(threadID))
	if fault.Is(err, fault.NotFound) {
		return Thread{}, fault.New(fault.NotFound, "There is no thread %s.", id.Show("thr", threadID))
	}
	if err != nil {
		return Thread{}, fmt.Errorf("read thread %s: %w", threadID, err)
	}
	return decode(rec)
}

func decode(rec record.Record) (t Thread, err error) {
	if err := json.Unmarshal(rec.Body, &t); err != nil {
		return t, fmt.Errorf("decode %s: %w", rec.Part, err)
	}
	return t, nil
}

// State says what a thread holds and does.
func (s *Threads) State(ctx context.Context, t Thread) (State, error) {
	runs, err := s.Runs.OnThread(ctx, t.ID, 1)
	if err != nil {
		return State{}, err
	}
	newest, valued, err := s.Runs.LastTurn(ctx, t.ID)
	if err != nil {
		return State{}, err
	}
	state := State{Status: Idle, Values: valued.Values, UpdatedAt: newest.At}
	switch {
	case len(runs) > 0 && runs[0].State == run.Waiting:
		state.Status = Interrupted
	case len(runs) > 0:
		state.Status = Busy
	case newest.State == run.Failed || newest.State == run.TimedOut:
		state.Status = Error
	}
	return state, nil
}

// Run starts a run in a thread. What q says of the thread is filled in.
// Errors: those of run.Start; fault.Conflict when the thread is busy and the strategy is Reject.
func (s *Threads) Run(ctx context.Context, t Thread, strategy Strategy, q run.StartRequest) (run.Run, error) {
	q.Thread, q.Enqueue = t.ID, true
	switch strategy {
	case "", Reject:
		q.Enqueue = false
	case Enqueue:
	case Interrupt, Rollback:
		q.Ousts = run.Oust(strategy)
	default:
		return run.Run{}, fault.New(fault.Invalid, "\"multitask_strategy\" must be reject, enqueue, interrupt or rollback.")
	}
	return s.Runs.Start(ctx, q)
}

// History gives the turns of a thread that changed its values, newest first, at most limit; next is where to go on, 0 at
// the end.
func (s *Threads) History(ctx context.Context, t Thread, before, limit int) (turns []run.Turn, next int, err error) {
	all, err := s.Runs.Turns(ctx, t.ID, before, limit)
	if err != nil {
		return nil, 0, err
	}
	for _, turn := range all {
		if turn.N > 0 && turn.Values != nil {
			turns = append(turns, turn)
		}
	}
	if len(all) == limit {
		next = all[len(all)-1].N
	}
	return turns, next, nil
}

// List gives threads of deployments, newest first, at most limit and a hundred; next is where to go on, "" at the end.
func (s *Threads) List(ctx context.Context, deploymentIDs []string, before string, limit int) (threads []Thread, next string, err error) {
	limit = min(max(limit, 1), maxListed)
	var ids []string
	for _, d := range deploymentIDs {
		found, err := s.Store.List(ctx, list(d), before, limit)
		if err != nil {
			return nil, "", fmt.Errorf("list the threads of deployment %s: %w", d, err)
		}
		for _, e := range found {
			ids = append(ids, e.Order)
		}
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	for _, threadID := range ids[:min(limit, len(ids))] {
		t, err := s.Get(ctx, threadID)
		if err != nil {
			return nil, "", err
		}
		threads = append(threads, t)
	}
	if len(ids) >= limit {
		next = ids[limit-1]
	}
	return threads, next, nil
}
