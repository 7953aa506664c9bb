package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"muster/events"
	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
)

// Why a run cannot be claimed.
var (
	// ErrHeld says that an owner with a living lease has the run.
	ErrHeld = errors.New("the run is held")
	// ErrNothing says that there is nothing to do: the run waits, for a person or a slot, or is over.
	ErrNothing = errors.New("the run needs nobody")
	// ErrAlone says that owners died over the run: only ClaimAlone takes it.
	ErrAlone = errors.New("the run must be alone in its process")
)

// The rhythm of an owner: how often it reads the inbox, how often it does while a step is young, how often it renews the
// lease (a third of its time), and how much of a lease is not used, so that clocks may differ a little.
const (
	inboxPause  = 3 * time.Second
	youngPause  = 500 * time.Millisecond
	leaseMargin = 2 * time.Second
)

// A run that kills the process it is worked on in must not go on doing so, and a run that only happened to be there must
// not be blamed. So deaths are counted from the newest result on; a run with suspicious of them is worked on alone, until
// it has a new result; and one with poisoned of them is failed. All deaths between the two are its own doing.
const (
	suspicious = 2
	poisoned   = 5
)

// Claim makes the caller the owner of a run that is queued, was released, or whose owner's lease has run out. ctx is for
// everything the owner writes.
// Errors: ErrHeld, ErrNothing, ErrLost when another owner was quicker, ErrAlone, fault.NotFound.
func (s *Service) Claim(ctx context.Context, runID string) (*Owner, error) {
	return s.claimIf(ctx, runID, false)
}

// ClaimAlone is Claim for a caller that sees to it that no other run is worked on in this process before this owner has
// ended or released the run. A run that was suspected yields after its next result.
func (s *Service) ClaimAlone(ctx context.Context, runID string) (*Owner, error) {
	return s.claimIf(ctx, runID, true)
}

// claimIf claims a run. A claim that is lost to somebody who wants less than the run (the sweeper, who moves `due`, or an
// answer) is tried again: its message may be the only one that there is.
func (s *Service) claimIf(ctx context.Context, runID string, alone bool) (*Owner, error) {
	for again := false; ; again = true {
		o, err := s.tryClaim(ctx, runID, alone)
		switch {
		case again && errors.Is(err, ErrHeld):
			return nil, ErrLost
		case !errors.Is(err, ErrLost):
			return o, err
		}
	}
}

func (s *Service) tryClaim(ctx context.Context, runID string, alone bool) (*Owner, error) {
	r, q, err := s.Whole(ctx, runID)
	if err != nil {
		return nil, err
	}
	if r.State != Queued && r.State != Running {
		return nil, ErrNothing
	}
	if r.State == Queued {
		admitted, err := s.admitted(ctx, r)
		if err != nil {
			return nil, err
		}
		if !admitted {
			return nil, ErrNothing
		}
	}
	if r.Thread != "" && (r.Nonce == "" || !s.now().Before(r.Lease)) {
		ousted, err := s.giveWay(ctx, r)
		if err != nil {
			return nil, err
		}
		if ousted {
			return nil, ErrNothing
		}
		if r.State == Queued && r.Turn == 0 {
			if err := s.takeTurn(ctx, &r, &q); err != nil {
				return nil, err
			}
		}
	}
	if r.StartedAt.IsZero() && !r.Cancel { // one that is stopped before that never starts
		r.StartedAt = s.now().UTC().Truncate(time.Millisecond)
	}
	return s.claim(ctx, r, q, alone)
}

// claim takes the lease of a run as it was read, and enters its journal.
func (s *Service) claim(ctx context.Context, r Run, q Request, alone bool) (*Owner, error) {
	now := s.now()
	if r.Nonce != "" {
		if now.Before(r.Lease) {
			return nil, ErrHeld
		}
		r.TakeOvers++
	}
	if r.TakeOvers > 0 {
		if err := s.forgive(ctx, &r); err != nil {
			return nil, err
		}
		if r.TakeOvers >= suspicious && !alone {
			return nil, ErrAlone
		}
	}
	r.Epoch++
	r.Nonce = id.New()
	r.State = Running
	lease := now.Add(s.Lease())
	r.Lease, r.Due = lease.UTC(), lease.UTC()
	if err := s.put(ctx, &r); err != nil {
		if fault.Is(err, fault.Conflict) {
			return nil, ErrLost
		}
		return nil, fmt.Errorf("claim run %s: %w", r.ID, err)
	}
	o := s.newOwner(ctx, r, q, lease.Add(-s.margin()))
	o.suspected = r.TakeOvers >= suspicious
	ended, err := o.enter()
	if err != nil {
		o.giveUp(err)
		return nil, err
	}
	if ended {
		if err := o.settle(); err != nil {
			return nil, err
		}
		return nil, ErrNothing
	}
	if err := o.checkPoison(); err != nil {
		return nil, err
	}
	if err := errors.Join(o.readStanding(), o.readWatchers(r)); err != nil {
		o.giveUp(err)
		return nil, err
	}
	if r.Cancel {
		o.stop(ErrCanceled)
	}
	return o, nil
}

func (s *Service) margin() time.Duration { return min(leaseMargin, s.Lease()/10) }

// forgive forgets the deaths before the newest result, all but that of the last owner.
func (s *Service) forgive(ctx context.Context, r *Run) error {
	newest, err := s.Newest(ctx, r.ID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if grown := newest.Totals.Steps; grown > r.Grown {
		r.Grown, r.TakeOvers = grown, 0
		if r.Nonce != "" {
			r.TakeOvers = 1
		}
	}
	return nil
}

// checkPoison ends a run that kills whoever owns it.
func (o *Owner) checkPoison() error {
	if o.run.TakeOvers < poisoned {
		return nil
	}
	why := fmt.Sprintf("The run crashed the runner %d times without getting any further, so it was given up.", poisoned)
	if err := o.Fail(Outcome{State: Failed, Error: why}); err != nil {
		return err
	}
	return ErrNothing
}

// Keep renews the lease and reads the inbox until ctx ends, and ends Work when the run is lost or stopped. renewed is
// called after each renewal with the new length of the lease: the runner hides its message for as long.
func (o *Owner) Keep(ctx context.Context, renewed func(time.Duration)) {
	third := o.s.Lease() / 3
	longest := min(o.s.inboxPause(), third)
	tick := time.NewTicker(min(youngPause, longest))
	defer tick.Stop()
	read := o.s.now()
	next := read.Add(third)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if o.s.now().Sub(read) < min(o.patience(), longest) {
			continue
		}
		read = o.s.now()
		if err := o.readInbox(ctx); err != nil {
			if o.ended(err) || ctx.Err() != nil {
				return
			}
			o.s.log().Warn("reading the inbox of a run failed", "run", o.id, "error", err)
		}
		if o.s.now().Before(next) {
			continue
		}
		if err := o.renew(ctx); err != nil {
			if o.ended(err) || ctx.Err() != nil {
				return
			}
			o.s.log().Warn("renewing a lease failed", "run", o.id, "error", err)
			continue
		}
		next = o.s.now().Add(third)
		if renewed != nil {
			renewed(o.s.Lease())
		}
	}
}

// patience is how long the inbox may wait, as far as those count who come to watch a step that nobody was told of: a tenth
// of the time that the youngest has been under way.
func (o *Owner) patience() time.Duration {
	if o.watched() {
		return inboxPause
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	wait := inboxPause
	for e := range o.under {
		wait = min(wait, max(youngPause, o.s.now().Sub(e.began)/10))
	}
	return wait
}

// ended ends Work for an error that ends the ownership or the run.
func (o *Owner) ended(err error) bool {
	if errors.Is(err, ErrLost) || errors.Is(err, ErrCanceled) {
		o.stop(err)
		return true
	}
	return false
}

// renew lengthens the lease. `due` stays where it is: a sweeper that finds a living lease moves it.
func (o *Owner) renew(ctx context.Context) error {
	o.item.Lock()
	r := o.run
	o.item.Unlock()
	lease := o.s.now().Add(o.s.Lease())
	r.Lease = lease.UTC()
	if err := o.s.put(ctx, &r); err != nil {
		if !fault.Is(err, fault.Conflict) {
			return err
		}
		if err := o.readInbox(ctx); err != nil { // somebody wrote to the inbox in between
			return err
		}
		return nil
	}
	o.item.Lock()
	defer o.item.Unlock()
	o.run, o.lease = r, lease.Add(-o.s.margin())
	return nil
}

// readInbox reads the run item and the events told from outside in one query.
func (o *Owner) readInbox(ctx context.Context) error {
	recs, err := o.s.Store.Scan(ctx, record.Prefix(partition(o.id), "RUN"))
	if err != nil {
		return fmt.Errorf("read the inbox of run %s: %w", o.id, err)
	}
	for _, rec := range recs {
		if rec.Key != itemKey(o.id) {
			if err := o.tell(rec); err != nil {
				return err
			}
			continue
		}
		r, err := decodeRun(rec)
		if err != nil {
			return err
		}
		if r.Nonce != o.nonce {
			return ErrLost
		}
		if err := o.readWatchers(r); err != nil {
			return err
		}
		o.item.Lock()
		o.run = r
		o.item.Unlock()
		if r.Cancel {
			return ErrCanceled
		}
	}
	if o.watched() {
		o.tellOpenings()
	}
	return nil
}

// lastWords is how long after the end of its context an owner may still write that it gives the run up: the handlers'
// contexts end a little before their invocation does.
const lastWords = 900 * time.Millisecond

// change changes the run item as long as this owner holds it. It begins with the item as it was read last: whether that is
// still so, the condition of the write tells.
func (o *Owner) change(f func(*Run) error) error {
	ctx := o.ctx
	for before := o.Run(); ; {
		if before.Nonce != o.nonce {
			return ErrLost
		}
		r := before
		if err := f(&r); err != nil {
			return err
		}
		err := o.s.put(ctx, &r)
		switch {
		case fault.Is(err, fault.Conflict):
			if before, err = o.s.Get(ctx, o.id); err != nil {
				return err
			}
		case err != nil && ctx == o.ctx && ctx.Err() != nil:
			var done context.CancelFunc
			ctx, done = context.WithTimeout(context.WithoutCancel(ctx), lastWords)
			defer done()
		case err != nil:
			return err
		default:
			o.item.Lock()
			o.run = r
			o.item.Unlock()
			return nil
		}
	}
}

// Release gives the run back so that it goes on elsewhere, at a time or (zero) at once. The caller hands its message back
// after that; `due` covers the case that it cannot.
func (o *Owner) Release(at time.Time) error {
	if at.IsZero() {
		at = o.s.now()
	}
	return o.change(func(r *Run) error {
		r.Nonce, r.Lease, r.Due = "", time.Time{}, at.UTC()
		return nil
	})
}

// giveUp lets go of a run whose journal could not be entered, so that nobody has to wait for its lease.
func (o *Owner) giveUp(why error) {
	if errors.Is(why, ErrLost) {
		return
	}
	err := o.change(func(r *Run) error {
		r.Nonce, r.Lease, r.Due = "", time.Time{}, o.s.now().UTC()
		return nil
	})
	if err != nil {
		o.s.log().Warn("a run that could not be entered is held until its lease ends", "run", o.id, "error", err)
	}
}

// Wait moves the run to waiting: nobody holds it until a question is answered or has stood for too long. waits is false when an answer or a wish to
// stop has arrived in the meantime; then the run must go on.
func (o *Owner) Wait() (waits bool, err error) {
	errAnswered := errors.New("answered")
	err = o.change(func(r *Run) error {
		if r.Cancel || slices.ContainsFunc(o.newest.Open, r.answered) {
			return errAnswered
		}
		// All answers so far are in the journal.
		r.State, r.Nonce, r.Lease, r.Answers = Waiting, "", time.Time{}, nil
		r.Due, r.WaitsAfter = earliest(o.newest.Open).Expires, o.newest.Seq
		return nil
	})
	if errors.Is(err, errAnswered) {
		return false, nil
	}
	if err == nil {
		err = o.s.leave(o.ctx, o.Run())
	}
	return err == nil, err
}

// End puts the end page with what waits in the branch, sends its deliveries, and settles the run item. Nothing can be put
// after it. What was told from outside until now goes before it. Keep must have returned, as for Release and Wait.
func (o *Owner) End(out Outcome, b *Branch) error {
	err := o.readInbox(o.ctx)
	if errors.Is(err, ErrCanceled) && out.State != Canceled {
		return o.Fail(Outcome{State: Canceled, Error: Stopped}) // whoever stopped it may have been told so
	}
	if err != nil && !errors.Is(err, ErrCanceled) {
		return err
	}
	if err := o.readStanding(); err != nil {
		return err
	}
	if err := o.append(&Page{Kind: EndPage, Branch: b.name, Outcome: &out}, b.pending); err != nil {
		return err
	}
	return o.settle()
}

// Fail ends a run that its engine does not end itself: it was stopped, or cannot go on.
// What before drafts is told first.
func (o *Owner) Fail(out Outcome, before ...events.Draft) error {
	b := &Branch{o: o, name: "main", segment: "end", hold: make(chan struct{}, 1), now: o.created}
	for _, d := range before {
		b.Emit(d, Scope{Parent: o.kickoff})
	}
	b.Emit(events.NewCrewKickoffFailed(events.Identity{}, events.CrewKickoffFailed{Error: out.Error}), Scope{Started: o.kickoff})
	return o.End(out, b)
}

// tellGrace is how long the deliveries of an end page may be under way before the sweeper sends them again.
const tellGrace = time.Minute

// mostAhead is for how long a run keeps its slots because its end is ahead of this clock.
const mostAhead = 100 * time.Millisecond

// makeWay leaves the turn and the slots of a run whose end page is in the journal: whoever is told of the end may start the
// next run at once.
func (o *Owner) makeWay(end Page) error {
	if err := o.s.leaveTurn(o.ctx, o.Run(), o.req, end); err != nil {
		return err
	}
	if ahead := end.At.Sub(o.s.now()); o.Run().Gates != "" && ahead > 0 {
		// The events of a page are a millisecond apart, so its time can be ahead of the clock. The run that gets the slot
		// must not seem to begin before this one was over.
		_ = o.s.pause(o.ctx, min(ahead, mostAhead))
	}
	if err := o.s.leave(o.ctx, o.Run()); err != nil {
		return fmt.Errorf("give back the slots of run %s: %w", o.id, err)
	}
	return nil
}

// settle copies the outcome to the run item and gives the lease up.
func (o *Owner) settle() error {
	out := o.newest.Outcome
	err := o.change(func(r *Run) error {
		if err := o.tellLatecomers(*r); err != nil {
			return err
		}
		if !r.State.may(out.State) {
			return fmt.Errorf("run %s cannot go from %s to %s", r.ID, r.State, out.State)
		}
		r.State, r.EndedAt, r.Error = out.State, o.newest.At, clip(out.Error)
		r.Nonce, r.Lease, r.Due, r.Answers = "", time.Time{}, time.Time{}, nil
		if len(o.newest.Targets) > 0 && !r.Told {
			r.Due = o.s.now().Add(tellGrace).UTC()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("settle run %s: %w", o.id, err)
	}
	for _, q := range o.newest.Open {
		o.unlist(q.ID)
	}
	o.stop(context.Canceled)
	return nil
}

// tellLatecomers has those told of the end whom its page does not name, because they came while it was put. Who comes after
// the item says that the run is over finds the end page.
func (o *Owner) tellLatecomers(r Run) error {
	if err := o.readWatchers(r); err != nil {
		return err
	}
	p := o.newest
	if slices.Contains(p.Targets, Channels) {
		return nil
	}
	p.Targets = nil
	o.item.Lock()
	for _, t := range o.watchers {
		p.Targets = append(p.Targets, t.ID)
	}
	o.item.Unlock()
	return o.deliver(p)
}

// clip keeps the run item small; the end page has the whole sentence.
func clip(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && s[cut]&0xC0 == 0x80 {
		cut--
	}
	return s[:cut] + "…"
}

// Told notes that every delivery of a run's end page has its record, so that nobody looks after the run any more.
func (s *Service) Told(ctx context.Context, runID string, seq int) error {
	for {
		r, err := s.Get(ctx, runID)
		if err != nil {
			return err
		}
		if r.Told {
			return nil
		}
		r.Told = true
		if r.State.Ended() {
			r.Due = time.Time{}
		}
		if err := s.put(ctx, &r); !fault.Is(err, fault.Conflict) {
			return err
		}
	}
}
