package channel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/workspace"
)

// cursor is how far a connection has been told of a run. Tellers may come together, late, twice, and die. So whoever tells
// holds the cursor, reads the journal from it, pushes page by page, and lets go on condition that nobody asked meanwhile;
// else it looks for more. Whoever finds it held asks, by a write, and comes back when the hold must have ended: then either
// all has been told, or the holder has died and it goes on from the cursor itself.
type cursor struct {
	// N is the number of the last event that was told, Page that of the page to read next.
	N    int64 `json:"n"`
	Page int   `json:"page"`
	// Holder tells, until Until at the latest. Asked counts those who found it held.
	Holder string    `json:"holder,omitempty"`
	Until  time.Time `json:"until,omitzero"`
	Asked  int       `json:"asked,omitempty"`
	// Failures counts the attempts in a row that pushed nothing.
	Failures int `json:"failures,omitempty"`

	rev int64
}

const (
	// holdTime is how long a cursor is held at most without a note of progress.
	holdTime = 30 * time.Second
	// pushTime is how long a push may take.
	pushTime = 12 * time.Second
	// mostFailures is how many attempts in a row may push nothing before the connection counts as too slow.
	mostFailures = 5
	// atOnce is how many pages are read at a time, and how many connections are told at a time.
	atOnce = 16
	// again is when to come back after a push that failed.
	again = 2 * time.Second
)

func cursorKey(connectionID, runID string) record.Key {
	return record.Key{Part: incoming + connectionID, Sort: "R#" + runID}
}

func (h *Hub) cursor(ctx context.Context, connectionID, runID string) (at cursor, err error) {
	var rec record.Record
	err = try(ctx, func() error {
		rec, err = h.Store.Get(ctx, cursorKey(connectionID, runID))
		return err
	})
	if fault.Is(err, fault.NotFound) {
		return cursor{Page: 1}, nil // the run began after the subscription, or was not known to be under way
	}
	if err != nil {
		return at, fmt.Errorf("read what connection %s was told of run %s: %w", connectionID, runID, err)
	}
	if err := json.Unmarshal(rec.Body, &at); err != nil {
		return at, fmt.Errorf("decode %s of %s: %w", rec.Sort, rec.Part, err)
	}
	at.rev = rec.Rev
	return at, nil
}

// putCursor writes a cursor on condition of its revision. A write of unknown outcome is repeated: a cursor that is held by
// accident is held for long.
func (h *Hub) putCursor(ctx context.Context, connectionID, runID string, at *cursor) error {
	body, err := json.Marshal(at)
	if err != nil {
		return fmt.Errorf("encode a cursor of connection %s: %w", connectionID, err)
	}
	rec := record.Record{Key: cursorKey(connectionID, runID), Rev: at.rev, Body: body, Expires: h.now().Add(keepTime)}
	return try(ctx, func() error {
		rev, err := h.Store.Put(ctx, rec)
		if there, taken := record.Current(err); taken && string(there.Body) == string(body) {
			rev, err = there.Rev, nil // an earlier try got through
		}
		if err == nil {
			at.rev = rev
		}
		return err
	})
}

// try tries what fails for no reason of its own again, for about a second.
func try(ctx context.Context, f func() error) error {
	for wait := 10 * time.Millisecond; ; wait *= 2 {
		err := f()
		if err == nil || fault.KindOf(err) != fault.Internal || wait > time.Second || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// Relay tells all connections whose channels have the run what they do not know of it yet, up to page seq and what has come
// since. again > 0 says that it must be called again after that time.
func (h *Hub) Relay(ctx context.Context, runID string, seq int) (again time.Duration, err error) {
	r, request, err := h.Runs.Whole(ctx, runID)
	if err != nil {
		return 0, err
	}
	all, err := connections(ctx, h.Store, r.WorkspaceID)
	if err != nil {
		return 0, err
	}
	all = slices.DeleteFunc(all, func(c Connection) bool { _, told := c.of(r); return !told })
	if len(all) == 0 {
		return 0, nil
	}
	definition, err := h.Crews.Definition(ctx, r.VersionID)
	if err != nil {
		return 0, err
	}
	about := About{r, request, definition}
	var (
		mu    sync.Mutex
		errs  []error
		wait  sync.WaitGroup
		slots = make(chan struct{}, atOnce)
		pages = &pages{runs: h.Runs, runID: runID}
		valid = &callers{tokens: h.Tokens}
	)
	for _, c := range all {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			in, err := h.relay(ctx, c, about, seq, pages, valid)
			mu.Lock()
			defer mu.Unlock()
			if in > 0 && (again == 0 || in < again) {
				again = in
			}
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wait.Wait()
	return again, errors.Join(errs...)
}

// relay tells one connection.
func (h *Hub) relay(ctx context.Context, c Connection, about About, seq int, pages *pages, valid *callers) (time.Duration, error) {
	me, r := id.New(), about.Run
	var at cursor
	for {
		var err error
		if at, err = h.cursor(ctx, c.ID, r.ID); err != nil {
			return 0, err
		}
		if at.Page > seq {
			return 0, nil
		}
		if at.Holder == me {
			break // the answer to the write was lost
		}
		held := at.Holder != "" && h.now().Before(at.Until)
		left := at.Until.Sub(h.now())
		if held {
			at.Asked++
		} else {
			at.Holder, at.Until = me, h.now().Add(holdTime)
		}
		err = h.putCursor(ctx, c.ID, r.ID, &at)
		if fault.Is(err, fault.Conflict) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("note that connection %s is told of run %s: %w", c.ID, r.ID, err)
		}
		if held {
			return max(left, time.Second), nil
		}
		break
	}
	if err := valid.check(ctx, c.Token); fault.Is(err, fault.Unauthorized) {
		return 0, h.End(ctx, c.ID, Revoked)
	} else if err != nil {
		return 0, h.letGo(ctx, c, r, &at, me, err)
	}
	for {
		more, err := h.push(ctx, c, about, &at, pages)
		switch {
		case errors.Is(err, ErrGone):
			return 0, h.Close(ctx, c.ID)
		case errors.Is(err, ErrSlow), err != nil && at.Failures >= mostFailures:
			h.log().Warn("a connection takes nothing", "connection", c.ID, "error", err)
			return 0, h.End(ctx, c.ID, Slow)
		case err != nil:
			h.log().Warn("telling a connection failed", "connection", c.ID, "run", r.ID, "error", err)
			return again, h.letGo(ctx, c, r, &at, me, nil)
		case more && late(ctx):
			return time.Second, h.letGo(ctx, c, r, &at, me, nil)
		case more:
			at.Until = h.now().Add(holdTime)
		default:
			at.Holder, at.Until = "", time.Time{}
		}
		err = h.putCursor(ctx, c.ID, r.ID, &at)
		switch {
		case fault.Is(err, fault.Conflict):
			there, err := h.cursor(ctx, c.ID, r.ID)
			if err != nil {
				return 0, err // the hold ends by itself
			}
			if there.Holder != me {
				return 0, nil // it took too long and another goes on, or the connection resumes from elsewhere
			}
			at.Holder, at.Until, at.Asked, at.rev = me, h.now().Add(holdTime), there.Asked, there.rev
			pages.forget(at.Page)
		case err != nil:
			return 0, fmt.Errorf("note what connection %s was told of run %s: %w", c.ID, r.ID, err)
		case !more:
			return 0, nil
		}
	}
}

// late says that there is hardly time for another page.
func late(ctx context.Context) bool {
	end, bounded := ctx.Deadline()
	return bounded && time.Until(end) < pushTime+time.Second
}

// letGo notes the progress and lets the cursor go, because of why.
func (h *Hub) letGo(ctx context.Context, c Connection, r run.Run, at *cursor, me string, why error) error {
	ctx = context.WithoutCancel(ctx)
	at.Holder, at.Until = "", time.Time{}
	err := h.putCursor(ctx, c.ID, r.ID, at)
	if fault.Is(err, fault.Conflict) {
		there, readErr := h.cursor(ctx, c.ID, r.ID)
		if readErr != nil || there.Holder != me {
			return errors.Join(why, readErr)
		}
		at.Asked, at.rev = there.Asked, there.rev
		err = h.putCursor(ctx, c.ID, r.ID, at)
	}
	return errors.Join(why, err)
}

// push pushes what the next pages have for the connection, and moves the cursor in memory. more says that there may be
// further pages.
func (h *Hub) push(ctx context.Context, c Connection, about About, at *cursor, pages *pages) (more bool, err error) {
	ch, _ := c.of(about.Run)
	next, err := pages.from(ctx, at.Page)
	if err != nil {
		return false, err
	}
	for _, p := range next {
		var messages []Message
		if !p.At.Before(ch.Since) {
			if messages, err = h.Dialect.Spell(ch, about, p); err != nil {
				return false, fmt.Errorf("spell page %d of run %s: %w", p.Seq, about.Run.ID, err)
			}
		}
		for _, m := range messages {
			if m.N <= at.N {
				continue
			}
			if late(ctx) || at.Until.Sub(h.now()) < pushTime {
				return true, nil
			}
			pushing, done := context.WithTimeout(ctx, pushTime)
			err := h.Push.Push(pushing, c.ID, m.Body)
			done()
			if err != nil {
				at.Failures++
				return false, err
			}
			at.N, at.Failures = m.N, 0
		}
		at.N, at.Page = max(at.N, p.Totals.Events), p.Seq+1
	}
	return len(next) == atOnce, nil
}

// Resume has a connection told of runs from where it was: everything after the event that it names of each. The runs are
// its channels from then on. fault.Invalid: a run has not come that far.
func (h *Hub) Resume(ctx context.Context, c Connection, ch Channel, r run.Run, after int64) error {
	seq, err := h.Runs.PageAfter(ctx, r.ID, after)
	if err != nil {
		return err
	}
	for {
		at, err := h.cursor(ctx, c.ID, r.ID)
		if err != nil {
			return err
		}
		at = cursor{N: after, Page: max(seq, 1), rev: at.rev}
		if err = h.putCursor(ctx, c.ID, r.ID, &at); err == nil {
			break
		}
		if !fault.Is(err, fault.Conflict) {
			return fmt.Errorf("resume run %s on connection %s: %w", r.ID, c.ID, err)
		}
	}
	if err := h.add(ctx, c, ch); err != nil {
		return err
	}
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
	return h.tell(ctx, r.ID, newest)
}

// pages are those of a run, read once for all connections that are told of it together.
type pages struct {
	runs  *run.Service
	runID string

	mu    sync.Mutex
	known map[int][]run.Page
}

func (p *pages) from(ctx context.Context, seq int) ([]run.Page, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.known[seq]; len(known) > 0 {
		return known, nil
	}
	read, err := p.runs.Pages(ctx, p.runID, seq, atOnce)
	if err != nil {
		return nil, err
	}
	if p.known == nil {
		p.known = map[int][]run.Page{}
	}
	p.known[seq] = read
	return read, nil
}

// forget has pages from a number on read again: there may be more of them.
func (p *pages) forget(seq int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, seq)
}

// callers remembers, for a moment, which tokens are good.
type callers struct {
	tokens *workspace.Tokens

	mu   sync.Mutex
	seen map[string]error
}

func (s *callers) check(ctx context.Context, token string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err, seen := s.seen[token]; seen {
		return err
	}
	_, err := s.tokens.OfHash(ctx, token)
	if err == nil || fault.Is(err, fault.Unauthorized) {
		if s.seen == nil {
			s.seen = map[string]error{}
		}
		s.seen[token] = err
	}
	return err
}
