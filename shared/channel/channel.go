// Package channel lets connections that stay open be told of runs. A connection subscribes to channels (a workspace, a
// deployment, an agent, a thread, one run) and is then told every event of every run of theirs once and in order, from
// the moment of the subscription on; of a run that begins later, everything. One that was cut off comes back and resumes
// each run where it was.
//
// Connections are records with an end, so whoever tells them may be any process. What each has been told of a run is a
// record too, its cursor: telling reads the journal from there, so that what is lost, doubled or late on the way to the
// teller makes no gap and no repetition. See relay.go. Only the last step, from here to the other end of the
// wire, cannot be certain: a teller that dies between a push and its note of it pushes again under the same number.
//
// How frames look is a Dialect's, what carries them is behind Pusher. The records, which all end by themselves:
//
//	CONN#<connection> / CONN      whose the connection is; until it says who it is, due when it must have (due index)
//	CONN#<connection> / R#<run>   the cursor
//	HERE#<workspace> / <connection>   who is there, and what for (due index)
package channel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/workspace"
)

// Pusher carries messages to connections.
type Pusher interface {
	// Push sends one message. It fails with ErrGone or ErrSlow, or with another error when it may be tried again.
	Push(ctx context.Context, connectionID string, message []byte) error
	// Close ends a connection after a last message, if it still takes one. One that is not there is no error.
	Close(ctx context.Context, connectionID string, last []byte) error
}

// Why a connection cannot be told anything.
var (
	ErrGone = errors.New("the connection is gone")
	ErrSlow = errors.New("the connection takes messages too slowly")
)

// Dialect is how a wire spells what connections are told.
type Dialect struct {
	// Spell makes the messages that a page has for a channel, in the order of their numbers.
	Spell func(c Channel, about About, p run.Page) ([]Message, error)
	// Ping is told every now and then, so that nothing on the way forgets the connection.
	Ping []byte
	// Goodbye is the last thing that a connection is told.
	Goodbye func(Reason) []byte
}

// About is what messages tell of a run beside its pages.
type About struct {
	Run        run.Run
	Request    run.Request
	Definition crew.Definition
}

// Message is one event for a connection; N is its number in its run.
type Message struct {
	N    int64
	Body []byte
}

// Reason says why a connection is ended.
type Reason string

// The reasons.
const (
	Nobody   Reason = "It was not said in time who this is."
	Revoked  Reason = "The token was revoked."
	Idle     Reason = "Nothing was heard for ten minutes; a ping now and then keeps a connection open."
	TooOld   Reason = "The connection has lasted as long as one may; come back and resume."
	Slow     Reason = "Messages were taken too slowly; come back and resume."
	TooMany  Reason = "The workspace has as many connections as it may."
	TooLarge Reason = "A message is larger than 64 KiB."
)

const (
	// authTime is how long a connection may be silent about who it is.
	authTime = 10 * time.Second
	// tendTime is how often a connection is looked after: is its token still good, does it still live.
	tendTime = 30 * time.Second
	// idleTime is how long nothing may be heard of a connection, heardTime how exactly that is known.
	idleTime  = 10 * time.Minute
	heardTime = time.Minute
	// lifeTime is how long a connection lasts, which is how long API Gateway lets one.
	lifeTime = 2 * time.Hour
	// keepTime is how long its records are kept at most.
	keepTime = lifeTime + 10*time.Minute
	// maxConnections is how many connections a workspace may have, maxChannels how many channels one.
	maxConnections = 100
	maxChannels    = 50
	// maxUnderWay bounds how many runs under way a new subscription looks for in a deployment, and in how many deployments.
	maxUnderWay = 25
	maxLooked   = 50
)

// Hub is everything that can be done with connections.
type Hub struct {
	Store   record.Store
	Runs    *run.Service
	Crews   *crew.Store
	Tokens  *workspace.Tokens
	Push    Pusher
	Dialect Dialect
	// Lag is how far the lists of runs may be behind; 0 for lists that never are. Whoever subscribes waits for as long.
	Lag time.Duration
	// Now is the clock, time.Now unless set.
	Now func() time.Time
	Log *slog.Logger
}

// Channel is what a connection subscribes to. Of the fields after Name those that are set say which runs are meant.
type Channel struct {
	// Name is the dialect's.
	Name        string `json:"name"`
	WorkspaceID string `json:"workspace"`
	// DeploymentID is set for all but the channel of the whole workspace.
	DeploymentID string `json:"deployment,omitempty"`
	// AgentID is set for the channel of an agent, which has the runs of its deployment; the dialect picks the agent's part.
	AgentID string `json:"agent,omitempty"`
	Thread  string `json:"thread,omitempty"`
	RunID   string `json:"run,omitempty"`
	// Since is when the connection subscribed: what was put before is not told. It is zero for a run that is resumed.
	Since time.Time `json:"since,omitzero"`
}

// Has says whether the run is one of the channel's.
func (c Channel) Has(r run.Run) bool {
	return c.WorkspaceID == r.WorkspaceID &&
		(c.DeploymentID == "" || c.DeploymentID == r.DeploymentID) &&
		(c.Thread == "" || c.Thread == r.Thread) &&
		(c.RunID == "" || c.RunID == r.ID)
}

// Connection is one that has said who it is.
type Connection struct {
	ID     string           `json:"id"`
	Caller workspace.Caller `json:"caller"`
	// Token is the hash of the token that it came with.
	Token    string    `json:"token"`
	OpenedAt time.Time `json:"opened_at"`
	HeardAt  time.Time `json:"heard_at"`
	Channels []Channel `json:"channels,omitempty"`

	rev int64
}

// of gives the channel by which the connection is told of a run: the first that has it, since the oldest of those that do.
// A run that was over before that is not told of.
func (c Connection) of(r run.Run) (ch Channel, told bool) {
	for _, one := range c.Channels {
		switch {
		case !one.Has(r):
		case !told:
			ch, told = one, true
		case one.Since.Before(ch.Since):
			ch.Since = one.Since
		}
	}
	return ch, told && !(r.State.Ended() && r.EndedAt.Before(ch.Since))
}

// Watchers gives the target of a run's pages that stands for all connections that are told of it, if there are any. It is
// what run.Service asks.
func Watchers(store record.Store) func(context.Context, run.Run) ([]run.Target, error) {
	return func(ctx context.Context, r run.Run) ([]run.Target, error) {
		all, err := connections(ctx, store, r.WorkspaceID)
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			if _, told := c.of(r); told {
				return []run.Target{{ID: run.Channels, Kind: run.ChannelTarget, Realtime: true}}, nil
			}
		}
		return nil, nil
	}
}

func connections(ctx context.Context, store record.Store, workspaceID string) ([]Connection, error) {
	recs, err := store.Scan(ctx, record.Scan{Part: present + workspaceID})
	if err != nil {
		return nil, fmt.Errorf("read the connections of workspace %s: %w", workspaceID, err)
	}
	all := make([]Connection, 0, len(recs))
	for _, rec := range recs {
		c, err := decode(rec)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

const (
	present  = "HERE#"
	incoming = "CONN#"
)

func presentKey(workspaceID, connectionID string) record.Key {
	return record.Key{Part: present + workspaceID, Sort: connectionID}
}

func doorKey(connectionID string) record.Key {
	return record.Key{Part: incoming + connectionID, Sort: "CONN"}
}

func decode(rec record.Record) (c Connection, err error) {
	if err := json.Unmarshal(rec.Body, &c); err != nil {
		return c, fmt.Errorf("decode connection %s: %w", rec.Sort, err)
	}
	c.rev = rec.Rev
	return c, nil
}

func (h *Hub) put(ctx context.Context, c *Connection) error {
	body, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode connection %s: %w", c.ID, err)
	}
	c.rev, err = h.Store.Put(ctx, record.Record{
		Key: presentKey(c.Caller.WorkspaceID, c.ID), Rev: c.rev, Body: body, Due: h.now().Add(tendTime), Expires: c.OpenedAt.Add(keepTime),
	})
	return err
}

// change changes a connection that is there.
func (h *Hub) change(ctx context.Context, workspaceID, connectionID string, f func(*Connection) error) (Connection, error) {
	for {
		rec, err := h.Store.Get(ctx, presentKey(workspaceID, connectionID))
		if fault.Is(err, fault.NotFound) {
			return Connection{}, ErrGone
		}
		if err != nil {
			return Connection{}, fmt.Errorf("read connection %s: %w", connectionID, err)
		}
		c, err := decode(rec)
		if err != nil {
			return c, err
		}
		if err := f(&c); err != nil {
			return c, err
		}
		if err := h.put(ctx, &c); !fault.Is(err, fault.Conflict) {
			return c, err
		}
	}
}

// IsDue says whether a record that is due is Tend's.
func IsDue(k record.Key) bool {
	return strings.HasPrefix(k.Part, present) || strings.HasPrefix(k.Part, incoming)
}

func (h *Hub) now() time.Time {
	if h.Now != nil {
		return h.Now().UTC()
	}
	return time.Now().UTC()
}

func (h *Hub) log() *slog.Logger {
	if h.Log != nil {
		return h.Log
	}
	return slog.Default()
}
