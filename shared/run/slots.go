package run

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/record"
)

// Where concurrent runs are limited there is a list of runs, in one record: a thread's, a trigger's, a deployment's, a
// workspace's. The first Max of a list have a slot; those behind wait for one, in their order. A run enters the lists in this
// order, each when it has a slot in the one before; so two lists never wait for each other. It leaves all before its item
// says that it is over, and all but its thread's after it says that it waits for a person. Whoever takes a run off a
// list knocks for the one that gets its slot.
//
// A death may leave a run on a list: one that never came to be, or one that waits or is over. Whoever finds a list full
// takes such runs off. A run that is to have a slot again after it has waited notes its epoch in the list, so nobody takes
// it off for the time before.

// slots is such a list.
type slots struct {
	Max  int    `json:"max"`
	Runs []slot `json:"runs"`

	// due is when the sweeper looks after the list; zero when nobody waits.
	due time.Time
	rev int64
}

type slot struct {
	Run string    `json:"run"`
	At  time.Time `json:"at"`
	// Epoch is that of the run when it entered: 0 for a new one.
	Epoch int `json:"epoch,omitempty"`
	// Ousts is that of the run, in the list of a thread.
	Ousts Oust `json:"ousts,omitempty"`
}

// maxWaiting is how many runs may wait in one list.
const maxWaiting = 1000

// unborn is how long a run on a list may have no item.
const unborn = time.Minute

// A knock can be lost: whoever takes a run off a list may die before it has knocked for the next. So a list where runs wait
// is looked after at each tick, as one record for all of them. Their own `due`, which costs a write for each, is for what
// that does not find.
const (
	slotLook  = 30 * time.Second
	slotGrace = 5 * time.Minute
)

// SlotsPart begins the partition of every list.
const SlotsPart = "S#"

// gate gives the partition of the list of a thread ('h'), a trigger ('t'), a deployment ('d') or a workspace ('w').
func gate(kind byte, id string) string { return SlotsPart + string(kind) + "/" + id }

func slotsKey(part string) record.Key { return record.Key{Part: part, Sort: "SLOTS"} }

// gates gives the lists where a run needs a slot, in the order in which it enters them.
func (r Run) gates() (parts []string) {
	if r.Thread != "" {
		parts = append(parts, gate('h', r.Thread))
	}
	if strings.Contains(r.Gates, "t") {
		parts = append(parts, gate('t', r.Trigger))
	}
	if strings.Contains(r.Gates, "d") {
		parts = append(parts, gate('d', r.DeploymentID))
	}
	if strings.Contains(r.Gates, "w") {
		parts = append(parts, gate('w', r.WorkspaceID))
	}
	return parts
}

func (l *slots) index(runID string) int {
	return slices.IndexFunc(l.Runs, func(e slot) bool { return e.Run == runID })
}

// has says whether the run at an index has a slot.
func (l *slots) has(i int) bool { return i >= 0 && (l.Max == 0 || i < l.Max) }

// holders gives the runs that have a slot.
func (l *slots) holders() []slot {
	if l.Max == 0 {
		return l.Runs
	}
	return l.Runs[:min(l.Max, len(l.Runs))]
}

// enterAll enters a new run into the lists that are kept for its trigger, deployment and workspace. admitted says whether it
// has every slot. fault.TooMany: it has not, and must not wait.
func (s *Service) enterAll(ctx context.Context, r *Run, q StartRequest) (admitted bool, err error) {
	bounds := []crew.Traffic{}
	for _, of := range []struct {
		gate  string
		bound crew.Traffic
	}{{"h", threadTraffic(q)}, {"t", q.Traffic}, {"d", q.Deployment.Traffic}, {"w", s.Traffic}} {
		if of.bound.MaxConcurrentRuns > 0 {
			r.Gates += of.gate
			bounds = append(bounds, of.bound)
		}
	}
	gates := r.gates()
	for i, part := range gates {
		has, err := s.enter(ctx, part, *r, bounds[i])
		if err != nil {
			if left := s.leaveAll(ctx, *r, gates[:i]); left != nil {
				s.log().Warn("a run that was refused keeps a slot until somebody needs it", "run", r.ID, "error", left)
			}
			if part == gate('h', q.Thread) && fault.Is(err, fault.TooMany) && !q.Enqueue {
				err = fault.New(fault.Conflict, "The thread is busy: a run of it is under way.")
			}
			return false, err
		}
		if !has {
			r.Due = s.now().Add(slotGrace).UTC()
			return false, nil
		}
	}
	return true, nil
}

// threadTraffic is the bound of a thread: one run at a time.
func threadTraffic(q StartRequest) (bound crew.Traffic) {
	if q.Thread == "" {
		return bound
	}
	bound.MaxConcurrentRuns, bound.WhenFull = 1, crew.Reject
	if q.Enqueue {
		bound.WhenFull, bound.MaxWaiting = "", q.MaxWaiting
	}
	return bound
}

// admitted says whether a queued run has every slot it needs; it enters the lists that it is not on.
func (s *Service) admitted(ctx context.Context, r Run) (bool, error) {
	for _, part := range r.gates() {
		has, err := s.enter(ctx, part, r, crew.Traffic{})
		if err != nil || !has {
			return false, err
		}
	}
	return true, nil
}

// enter puts a run on a list, unless it is there, and says whether it has a slot. Without a bound the list's own stays.
func (s *Service) enter(ctx context.Context, part string, r Run, bound crew.Traffic) (has bool, err error) {
	for swept := false; ; {
		refused := false
		l, err := s.changeSlots(ctx, part, func(l *slots) bool {
			changed := false
			if bound.MaxConcurrentRuns > 0 && l.Max != bound.MaxConcurrentRuns {
				l.Max, changed = bound.MaxConcurrentRuns, true
			}
			i := l.index(r.ID)
			if i >= 0 {
				changed = changed || l.Runs[i].Epoch != r.Epoch
				l.Runs[i].Epoch = r.Epoch
				return changed
			}
			most := maxWaiting
			if bound.MaxWaiting > 0 {
				most = bound.MaxWaiting
			}
			refused = bound.MaxConcurrentRuns > 0 && !l.has(len(l.Runs)) && (bound.WhenFull == crew.Reject || len(l.Runs) >= l.Max+most)
			if refused {
				return changed
			}
			e := slot{Run: r.ID, At: s.now().UTC().Truncate(time.Second), Epoch: r.Epoch}
			if part == gate('h', r.Thread) {
				e.Ousts = r.Ousts
			}
			l.Runs = append(l.Runs, e)
			return true
		})
		if err != nil {
			return false, err
		}
		if !refused {
			return l.has(l.index(r.ID)), nil
		}
		if !swept {
			swept = true
			if err := s.sweepSlots(ctx, part); err != nil {
				return false, err
			}
			continue
		}
		f := fault.New(fault.TooMany, "As many runs are under way as may be at a time (%d).", l.Max)
		if bound.MaxWaiting > 0 {
			f = fault.New(fault.TooMany, "As many runs are under way or wait as may (%d).", l.Max+bound.MaxWaiting)
		}
		f.RetryAfter = 10 * time.Second
		return false, f
	}
}

// leave takes a run off its lists: the slots of a run that is over, or waits for a person.
func (s *Service) leave(ctx context.Context, r Run) error {
	parts := r.gates()
	if r.Thread != "" && r.State == Waiting {
		parts = parts[1:]
	}
	return s.leaveAll(ctx, r, parts)
}

func (s *Service) leaveAll(ctx context.Context, r Run, parts []string) error {
	for _, part := range slices.Backward(parts) {
		var next []slot
		l, err := s.changeSlots(ctx, part, func(l *slots) bool {
			i := l.index(r.ID)
			if i < 0 || l.Runs[i].Epoch >= r.Epoch && r.State == Waiting {
				// Whoever took it off may have died before the knock.
				next = l.holders()
				next = next[max(0, len(next)-1):]
				return false
			}
			next = l.remove(func(e slot) bool { return e.Run == r.ID })
			return true
		})
		if err != nil {
			return err
		}
		if l.Max > 0 {
			s.knock(ctx, next)
		}
	}
	return nil
}

// remove takes runs off the list and gives those that have a slot now and had none.
func (l *slots) remove(gone func(slot) bool) (moved []slot) {
	before := slices.Clone(l.holders())
	l.Runs = slices.DeleteFunc(l.Runs, gone)
	for _, e := range l.holders() {
		if !slices.ContainsFunc(before, func(b slot) bool { return b.Run == e.Run }) {
			moved = append(moved, e)
		}
	}
	return moved
}

// knock sends the messages of queued runs. What cannot be sent now the sweeper will send.
func (s *Service) knock(ctx context.Context, runs []slot) {
	for _, e := range runs {
		err := s.Runs.Send(ctx, RunMessage{e.Run}.Message())
		for wait := 10 * time.Millisecond; err != nil && wait < time.Second && s.pause(ctx, wait) == nil; wait *= 2 {
			err = s.Runs.Send(ctx, RunMessage{e.Run}.Message())
		}
		if err != nil {
			s.log().Error("a run has a slot, but its message was not sent; the sweeper will send it", "run", e.Run, "error", err)
		}
	}
}

// sweepGates sweeps the lists that a run is on.
func (s *Service) sweepGates(ctx context.Context, r Run) error {
	for _, part := range r.gates() {
		if err := s.sweepSlots(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// looksAt is how many runs one sweep of a list looks at. A longer list is swept in turns, by the clock.
const looksAt = 20

// sweepSlots takes the runs off a list that have a slot and no use for it, and knocks for those that get one.
func (s *Service) sweepSlots(ctx context.Context, part string) error {
	l, err := s.readSlots(ctx, part)
	if err != nil || l.Max == 0 || len(l.Runs) < l.Max {
		return err
	}
	gone := map[string]bool{}
	holders := l.holders()
	first := int(s.now().Unix()/60) * looksAt
	for i := range min(looksAt, len(holders)) {
		e := holders[(first+i)%len(holders)]
		r, err := s.Get(ctx, e.Run)
		switch {
		case fault.Is(err, fault.NotFound):
			gone[e.Run] = s.now().Sub(e.At) > unborn
		case err != nil:
			return err
		default:
			over, err := s.over(ctx, r)
			if err != nil {
				return err
			}
			// An entry from before a wait counts for nothing, also when the run is queued again: it enters anew, and must not
			// hold here what it waits for elsewhere.
			gone[e.Run] = over || r.State != Running && e.Epoch < r.Epoch && part != gate('h', r.Thread)
		}
	}
	before := len(l.Runs)
	moved := l.remove(func(e slot) bool { return gone[e.Run] })
	if len(l.Runs) == before {
		return nil
	}
	if err := s.putSlots(ctx, part, &l); err != nil {
		if fault.Is(err, fault.Conflict) {
			return nil // the list has moved on
		}
		return err
	}
	s.knock(ctx, moved)
	return nil
}

// WakeSlots looks after a list that is due: it knocks again for runs that were given a slot and have not begun. The list is
// due again as long as anybody waits, or may not have heard.
func (s *Service) WakeSlots(ctx context.Context, part string) error {
	if err := s.sweepSlots(ctx, part); err != nil {
		return err
	}
	l, err := s.readSlots(ctx, part)
	if err != nil || l.due.IsZero() || l.due.After(s.now()) {
		return err
	}
	holders := l.holders()
	var unheard []slot
	for _, e := range holders[max(0, len(holders)-looksAt):] { // whoever was given a slot last is last
		r, err := s.Get(ctx, e.Run)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err == nil && part == gate('h', r.Thread) && !r.Cancel {
			_, err = s.giveWay(ctx, r)
		}
		if err != nil {
			return err
		}
		if r.State != Queued {
			continue
		}
		waits, err := s.waitsForSlot(ctx, r) // in another list
		if err != nil {
			return err
		}
		if !waits {
			unheard = append(unheard, e)
		}
	}
	s.knock(ctx, unheard)
	l.due = time.Time{}
	if len(unheard) > 0 {
		l.due = s.now().Add(slotLook).UTC()
	}
	if err := s.putSlots(ctx, part, &l); !fault.Is(err, fault.Conflict) {
		return err
	}
	return nil // the list has moved on, and is still due
}

// waitsForSlot says whether a run is on a list and has no slot there. Then it needs no message: somebody will knock.
func (s *Service) waitsForSlot(ctx context.Context, r Run) (bool, error) {
	for _, part := range r.gates() {
		l, err := s.readSlots(ctx, part)
		if err != nil {
			return false, err
		}
		i := l.index(r.ID)
		if i < 0 {
			return false, nil
		}
		if !l.has(i) {
			return true, nil
		}
	}
	return false, nil
}

// Resize makes a deployment's list as long as its new limit says, and knocks for the runs that have a slot now.
func (s *Service) Resize(ctx context.Context, d crew.Deployment) error {
	part := gate('d', d.ID)
	if l, err := s.readSlots(ctx, part); err != nil || l.rev == 0 {
		return err // no run ever needed a slot
	}
	var moved []slot
	_, err := s.changeSlots(ctx, part, func(l *slots) bool {
		before := len(l.holders())
		l.Max = d.Traffic.MaxConcurrentRuns
		moved = slices.Clone(l.holders())
		moved = moved[min(before, len(moved)):]
		return true
	})
	if err != nil {
		return err
	}
	s.knock(ctx, moved)
	return nil
}

// changeSlots changes a list, if f says that there is something to change. f may be called again for what somebody else
// made of the list.
func (s *Service) changeSlots(ctx context.Context, part string, f func(*slots) bool) (slots, error) {
	for {
		l, err := s.readSlots(ctx, part)
		if err != nil {
			return slots{}, err
		}
		if !f(&l) {
			return l, nil
		}
		err = s.putSlots(ctx, part, &l)
		if !fault.Is(err, fault.Conflict) {
			return l, err
		}
	}
}

func (s *Service) readSlots(ctx context.Context, part string) (slots, error) {
	rec, err := s.Store.Get(ctx, slotsKey(part))
	if fault.Is(err, fault.NotFound) {
		return slots{}, nil
	}
	if err != nil {
		return slots{}, fmt.Errorf("read the list %s: %w", part, err)
	}
	var l slots
	if err := json.Unmarshal(rec.Body, &l); err != nil {
		return slots{}, fmt.Errorf("decode the list %s: %w", part, err)
	}
	l.rev, l.due = rec.Rev, rec.Due
	return l, nil
}

func (s *Service) putSlots(ctx context.Context, part string, l *slots) error {
	if l.due.IsZero() && l.Max > 0 && len(l.Runs) > l.Max {
		l.due = s.now().Add(slotLook).UTC()
	}
	rec := record.Record{Key: slotsKey(part), Rev: l.rev, Due: l.due, Body: []byte(encode(l))}
	rev, err := s.repeat(ctx, func() (int64, error) { return s.Store.Put(ctx, rec) }, rec.Body)
	l.rev = rev
	return err
}
