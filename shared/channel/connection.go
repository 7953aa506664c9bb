package channel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"muster/shared/fault"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/workspace"
)

// door is what is known of every connection by its id alone.
type door struct {
	OpenedAt time.Time `json:"opened_at"`
	// Workspace is "" until the connection has said who it is.
	Workspace string `json:"workspace,omitempty"`
}

// Open takes a new connection in. It has a few seconds to say who it is.
func (h *Hub) Open(ctx context.Context, connectionID string) error {
	body, err := json.Marshal(door{OpenedAt: h.now()})
	if err != nil {
		return fmt.Errorf("encode connection %s: %w", connectionID, err)
	}
	_, err = h.Store.Put(ctx, record.Record{Key: doorKey(connectionID), Body: body, Due: h.now().Add(authTime), Expires: h.now().Add(keepTime)})
	if fault.Is(err, fault.Conflict) {
		return nil // the gateway says it twice
	}
	return err
}

// Admit takes a connection that was opened as whom its token says. fault.Unauthorized: the token is nobody's, or may not
// watch. fault.TooMany: the workspace has no room for another connection.
func (h *Hub) Admit(ctx context.Context, connectionID, token string) (Connection, error) {
	caller, err := h.Tokens.Authenticate(ctx, token)
	if err != nil {
		return Connection{}, err
	}
	if caller.Kind != workspace.Workspace && caller.Kind != workspace.Deployment {
		return Connection{}, fault.New(fault.Unauthorized, "This token is of the kind %q and cannot be used for this.", caller.Kind)
	}
	there, err := connections(ctx, h.Store, caller.WorkspaceID)
	if err != nil {
		return Connection{}, err
	}
	if len(there) >= maxConnections {
		return Connection{}, fault.New(fault.TooMany, "%s", TooMany)
	}
	rec, opened, err := h.opened(ctx, connectionID)
	if err != nil {
		return Connection{}, err
	}
	opened.Workspace = caller.WorkspaceID
	c := Connection{ID: connectionID, Caller: caller, Token: workspace.Hash(token), OpenedAt: opened.OpenedAt, HeardAt: h.now()}
	if err := h.put(ctx, &c); err != nil {
		return Connection{}, fmt.Errorf("note connection %s: %w", connectionID, err)
	}
	if rec.Body, err = json.Marshal(opened); err != nil {
		return Connection{}, fmt.Errorf("encode connection %s: %w", connectionID, err)
	}
	rec.Due = time.Time{}
	if _, err := h.Store.Put(ctx, rec); err != nil {
		return Connection{}, fmt.Errorf("note whose connection %s is: %w", connectionID, err)
	}
	return c, nil
}

func (h *Hub) opened(ctx context.Context, connectionID string) (rec record.Record, d door, err error) {
	rec, err = h.Store.Get(ctx, doorKey(connectionID))
	if fault.Is(err, fault.NotFound) {
		return rec, d, ErrGone
	}
	if err != nil {
		return rec, d, fmt.Errorf("read connection %s: %w", connectionID, err)
	}
	if err := json.Unmarshal(rec.Body, &d); err != nil {
		return rec, d, fmt.Errorf("decode connection %s: %w", connectionID, err)
	}
	return rec, d, nil
}

// Hear gives the connection that a message came from; ok is false for one that has not said who it is. ErrGone: there is
// no such connection. fault.Unauthorized: its token was revoked.
func (h *Hub) Hear(ctx context.Context, connectionID string) (c Connection, ok bool, err error) {
	_, d, err := h.opened(ctx, connectionID)
	if err != nil || d.Workspace == "" {
		return Connection{}, false, err
	}
	rec, err := h.Store.Get(ctx, presentKey(d.Workspace, connectionID))
	if fault.Is(err, fault.NotFound) {
		return Connection{}, false, ErrGone
	}
	if err != nil {
		return Connection{}, false, fmt.Errorf("read connection %s: %w", connectionID, err)
	}
	if c, err = decode(rec); err != nil {
		return c, false, err
	}
	if _, err := h.Tokens.OfHash(ctx, c.Token); err != nil {
		return c, true, err
	}
	if h.now().Sub(c.HeardAt) < heardTime {
		return c, true, nil
	}
	c, err = h.change(ctx, d.Workspace, connectionID, func(c *Connection) error {
		c.HeardAt = h.now()
		return nil
	})
	return c, true, err
}

// Subscribe has the connection told of the runs of a channel: of those under way from now on, of those that begin later
// everything, and of those that are over nothing.
func (h *Hub) Subscribe(ctx context.Context, c Connection, ch Channel) error {
	ch.Since = h.now().Truncate(time.Millisecond) // as the times of pages are
	if err := h.add(ctx, c, ch); err != nil {
		return err
	}
	if err := h.join(ctx, c, ch, false); err != nil || h.Lag == 0 || ch.RunID != "" || ch.Thread != "" {
		return err
	}
	select {
	case <-time.After(h.Lag):
	case <-ctx.Done():
		return ctx.Err()
	}
	return h.join(ctx, c, ch, true)
}

func (h *Hub) add(ctx context.Context, c Connection, ch Channel) error {
	_, err := h.change(ctx, c.Caller.WorkspaceID, c.ID, func(c *Connection) error {
		i := slices.IndexFunc(c.Channels, func(o Channel) bool { return o.Name == ch.Name })
		switch {
		case i >= 0 && ch.Since.Before(c.Channels[i].Since):
			c.Channels[i].Since = ch.Since
		case i >= 0:
		case len(c.Channels) >= maxChannels:
			return fault.New(fault.TooMany, "A connection may have %d channels, and this one has.", maxChannels)
		default:
			c.Channels = append(c.Channels, ch)
		}
		return nil
	})
	return err
}

// Unsubscribe undoes Subscribe. A channel that the connection does not have is no error.
func (h *Hub) Unsubscribe(ctx context.Context, c Connection, name string) error {
	_, err := h.change(ctx, c.Caller.WorkspaceID, c.ID, func(c *Connection) error {
		c.Channels = slices.DeleteFunc(c.Channels, func(o Channel) bool { return o.Name == name })
		return nil
	})
	return err
}

// join has the connection told of the channel's runs under way, and tells their owners that somebody watches. An owner
// that claims its run later finds the subscription itself. The second look is for runs that were too new for the lists.
func (h *Hub) join(ctx context.Context, c Connection, ch Channel, second bool) error {
	var made time.Time
	if second {
		made = ch.Since.Add(-h.Lag)
	}
	runs, err := h.underWay(ctx, ch, made)
	if err != nil {
		return err
	}
	for _, r := range runs {
		if !ch.Has(r) || r.State.Ended() && r.EndedAt.Before(ch.Since) {
			continue
		}
		if err := h.joinRun(ctx, c, ch, r, second); err != nil {
			return err
		}
	}
	return nil
}

// underWay finds runs that may be under way in a channel; of whole deployments those that were made since a time.
func (h *Hub) underWay(ctx context.Context, ch Channel, made time.Time) (all []run.Run, err error) {
	deployments := []string{ch.DeploymentID}
	switch {
	case ch.RunID != "":
		r, err := h.Runs.Get(ctx, ch.RunID)
		return []run.Run{r}, err
	case ch.Thread != "":
		return h.Runs.OnThread(ctx, ch.Thread, 0)
	case ch.DeploymentID == "":
		there, err := h.Crews.Deployments(ctx, ch.WorkspaceID)
		if err != nil {
			return nil, err
		}
		deployments = nil
		for _, d := range there[:min(len(there), maxLooked)] {
			deployments = append(deployments, d.ID)
		}
	}
	for _, id := range deployments {
		runs, _, err := h.Runs.List(ctx, run.ListRequest{DeploymentIDs: []string{id}, Since: made, Limit: maxUnderWay})
		if err != nil {
			return nil, err
		}
		all = append(all, runs...)
	}
	return all, nil
}

// joinRun begins to tell of a run from now on: from its newest page, or in the second look from the subscription. The owner is told of the watcher first: so either it sees to it
// that the end is told, or the end is what is found here.
func (h *Hub) joinRun(ctx context.Context, c Connection, ch Channel, r run.Run, second bool) error {
	if err := h.Runs.Subscribed(ctx, r.ID); err != nil {
		return err
	}
	newest, err := h.Runs.Newest(ctx, r.ID)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	began := !r.StartedAt.IsZero() && r.StartedAt.Before(ch.Since)
	if newest.Kind == run.EndPage || !began || second && !newest.At.Before(ch.Since) {
		return h.tell(ctx, r.ID, newest)
	}
	at := cursor{N: newest.Totals.Events, Page: newest.Seq + 1}
	if err := h.putCursor(ctx, c.ID, r.ID, &at); err != nil && !fault.Is(err, fault.Conflict) {
		return fmt.Errorf("begin to tell connection %s of run %s: %w", c.ID, r.ID, err)
	}
	return nil
}

// tell has connections told of a page that its owner may have put without knowing of them.
func (h *Hub) tell(ctx context.Context, runID string, p run.Page) error {
	p.Targets = []string{run.Channels}
	return h.Runs.SendDeliveries(ctx, runID, p)
}

// Close forgets a connection that is gone.
func (h *Hub) Close(ctx context.Context, connectionID string) error {
	rec, d, err := h.opened(ctx, connectionID)
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	if d.Workspace != "" {
		there, err := h.Store.Get(ctx, presentKey(d.Workspace, connectionID))
		if err == nil {
			err = h.Store.Delete(ctx, there.Key, there.Rev)
		}
		if err != nil && !fault.Is(err, fault.NotFound) {
			return fmt.Errorf("forget connection %s: %w", connectionID, err)
		}
	}
	if err := h.Store.Delete(ctx, rec.Key, rec.Rev); err != nil {
		return fmt.Errorf("forget connection %s: %w", connectionID, err)
	}
	return nil
}

// End tells a connection why it is ended, and ends it.
func (h *Hub) End(ctx context.Context, connectionID string, why Reason) error {
	return h.EndWith(ctx, connectionID, h.Dialect.Goodbye(why))
}

// EndWith is End for one that is told something of its own.
func (h *Hub) EndWith(ctx context.Context, connectionID string, last []byte) error {
	return errors.Join(h.Push.Close(ctx, connectionID, last), h.Close(ctx, connectionID))
}

// Tend looks after a connection that is due, given its record's key: one that never said who it is, whose token was
// revoked, that is silent or too old is ended; any other is sent a ping.
func (h *Hub) Tend(ctx context.Context, k record.Key) error {
	rec, err := h.Store.Get(ctx, k)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s %s: %w", k.Part, k.Sort, err)
	}
	if rec.Due.IsZero() || rec.Due.After(h.now()) {
		return nil
	}
	if k == doorKey(k.Part[len(incoming):]) {
		return h.End(ctx, k.Part[len(incoming):], Nobody)
	}
	c, err := decode(rec)
	if err != nil {
		return err
	}
	_, err = h.Tokens.OfHash(ctx, c.Token)
	switch now := h.now(); {
	case fault.Is(err, fault.Unauthorized):
		return h.End(ctx, c.ID, Revoked)
	case err != nil:
		return err
	case now.Sub(c.HeardAt) > idleTime:
		return h.End(ctx, c.ID, Idle)
	case now.Sub(c.OpenedAt) > lifeTime-2*tendTime:
		return h.End(ctx, c.ID, TooOld)
	}
	err = h.Push.Push(ctx, c.ID, h.Dialect.Ping)
	switch {
	case errors.Is(err, ErrGone):
		return h.Close(ctx, c.ID)
	case errors.Is(err, ErrSlow):
		return h.End(ctx, c.ID, Slow)
	case err != nil:
		return fmt.Errorf("ping connection %s: %w", c.ID, err)
	}
	if err := h.put(ctx, &c); err != nil && !fault.Is(err, fault.Conflict) {
		return fmt.Errorf("note connection %s: %w", c.ID, err)
	}
	return nil
}
