package run_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/run/runtest"
	"muster/shared/storetest"
)

// world runs owners, zombies, /stop, /resume, a sweeper and a queue against one real store, one call at a time, as a
// schedule says. Every call to the store or a queue waits for its turn; in its turn it may fail before it did
// anything, fail after it did it, or never return (its caller dies). Time passes when the schedule says so, so a caller
// whose turn comes late is a zombie. It is the implementation's counterpart of models/journal.py.
type world struct {
	schedule
	store *elsewhere
	real  record.Store
	runID string
	rnd   *rand.Rand
	log   []string

	mu       sync.Mutex
	problems []string
	turns    int
	waiting  []*turn
	runs     []*message
	sent     map[string]int        // "seq/target"
	item     run.Run               // as it was written last
	owners   map[string]*ownership // by nonce
	yields   bool                  // the next runner yields
	cuts     bool                  // the next runner is cut
	answered bool                  // somebody was told that the answer is accepted
	stopped  bool                  // somebody was told that the run is stopped
	repeated int                   // model calls of an owner although the result was recorded
	zombies  int                   // the same by somebody who had lost the run
	actors   int
}

// ownership is who claimed the run, and until when it was the owner's.
type ownership struct {
	by    *actor
	until time.Time
}

// turn is a call that waits.
type turn struct {
	actor *actor
	what  string
	since int // how many turns there had been
	go_   chan verdict
}

// schedule is what is done to a run, and when. The smallest one is a run that nothing happens to.
type schedule struct {
	realtime bool
	// The question stands for patience, 0 for ever, and otherwise is its answer then.
	patience  time.Duration
	otherwise string
	// silent says that nobody answers: the run is stopped when it waits.
	silent bool
	// order says whose turn it is; 0 is first come, first served.
	order uint32
	// races has whoever stalls before a write wake when another is about to write the same, and be quicker.
	races bool
	moves []move
}

// move is something that happens a number of turns after the move before.
type move struct {
	after int
	act   act
	// whom is which of the calls that wait, long how many turns of others or ten seconds it takes.
	whom, long int
}

type act string

const (
	nothingYet act = "nothing"
	failsOnce  act = "a call fails"
	lostAnswer act = "a call happens, and fails"
	dies       act = "a process dies"
	stalls     act = "a process stalls"
	passes     act = "time passes"
	answers    act = "a person answers"
	stops      act = "somebody stops the run"
	sweeps     act = "the sweeper comes"
	watches    act = "somebody watches"
	doubles    act = "a message comes twice"
	yieldsNext act = "the next runner yields"
	cutsNext   act = "the next runner is cut"
)

// schedules draws them.
var schedules = rapid.Custom(func(t *rapid.T) schedule {
	s := schedule{
		realtime: rapid.Bool().Draw(t, "realtime"),
		silent:   rapid.SampledFrom([]bool{false, false, false, false, true}).Draw(t, "silent"),
		order:    rapid.Uint32().Draw(t, "order"),
		races:    rapid.Bool().Draw(t, "races"),
	}
	if rapid.SampledFrom([]bool{false, false, true}).Draw(t, "patient") {
		s.patience = time.Duration(rapid.IntRange(1, 10).Draw(t, "patience")) * time.Minute
		s.otherwise = rapid.SampledFrom([]string{"", run.Approve, run.Reject}).Draw(t, "otherwise")
	}
	acts := []act{
		nothingYet, failsOnce, lostAnswer, dies, dies, stalls, stalls, passes, passes, answers, answers, sweeps, watches, stops, doubles, yieldsNext, cutsNext,
	}
	s.moves = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) move {
		return move{
			after: rapid.IntRange(0, 40).Draw(t, "after"), act: rapid.SampledFrom(acts).Draw(t, "act"),
			whom: rapid.IntRange(0, 3).Draw(t, "whom"), long: rapid.IntRange(1, 60).Draw(t, "long"),
		}
	}), 6, 20).Draw(t, "moves")
	return s
})

type verdict int

const (
	goOn verdict = iota
	failBefore
	failAfter
	die
)

type message struct {
	run     string
	visible time.Time
}

// actor is one process.
type actor struct {
	w    *world
	name string
	ctx  context.Context
	kill context.CancelFunc
	dead bool
	// stalled is how many turns of others this process sleeps through: it wakes as a zombie.
	stalled int
}

var (
	errLostAnswer = errors.New("the connection broke")
	errDead       = errors.New("this process is dead")
)

// elsewhere executes calls in a goroutine outside of the synctest bubble, whose real I/O must not count as "blocked".
type elsewhere struct {
	now  atomic.Int64 // the bubble's time, for the store's own clock
	mu   sync.Mutex
	call chan func()
	done chan struct{}
}

func newElsewhere(t *testing.T) *elsewhere {
	e := &elsewhere{call: make(chan func()), done: make(chan struct{})}
	go func() {
		for f := range e.call {
			f()
			e.done <- struct{}{}
		}
	}()
	t.Cleanup(func() { close(e.call) })
	return e
}

func (e *elsewhere) do(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now.Store(time.Now().UnixNano())
	e.call <- f
	<-e.done
}

// memory gives a store with the bubble's time.
func (e *elsewhere) memory() *storetest.Memory {
	return &storetest.Memory{Now: func() time.Time { return time.Unix(0, e.now.Load()) }}
}

func (w *world) actor(name string) *actor {
	a := &actor{w: w, name: name}
	a.ctx, a.kill = context.WithCancel(context.Background())
	return a
}

// turn waits for the actor's turn and then does f, or not.
func (a *actor) turn(what string, f func()) error {
	w := a.w
	w.mu.Lock()
	if a.dead {
		w.mu.Unlock()
		return errDead
	}
	t := &turn{actor: a, what: what, since: w.turns, go_: make(chan verdict)}
	w.waiting = append(w.waiting, t)
	w.mu.Unlock()
	switch <-t.go_ {
	case failBefore:
		return errLostAnswer
	case failAfter:
		w.store.do(f)
		return errLostAnswer
	case die:
		return errDead
	}
	w.store.do(f)
	return nil
}

// bounded is the store as one actor has it.
type bounded struct {
	*actor
	real record.Store
}

func (b bounded) Get(_ context.Context, k record.Key) (r record.Record, err error) {
	if gate := b.turn("get "+k.Sort, func() { r, err = b.real.Get(context.Background(), k) }); gate != nil {
		return record.Record{}, gate
	}
	return r, err
}

func (b bounded) Put(_ context.Context, r record.Record) (rev int64, err error) {
	put := func() {
		if rev, err = b.real.Put(context.Background(), r); err == nil {
			b.w.written(b.actor, r)
		}
	}
	if gate := b.turn("put "+r.Sort, put); gate != nil {
		return 0, gate
	}
	return rev, err
}

func (b bounded) Delete(_ context.Context, k record.Key, rev int64) (err error) {
	if gate := b.turn("delete "+k.Sort, func() { err = b.real.Delete(context.Background(), k, rev) }); gate != nil {
		return gate
	}
	return err
}

func (b bounded) Scan(_ context.Context, s record.Scan) (rs []record.Record, err error) {
	if gate := b.turn("scan "+s.From, func() { rs, err = b.real.Scan(context.Background(), s) }); gate != nil {
		return nil, gate
	}
	return rs, err
}

func (b bounded) Due(_ context.Context, shard int, until time.Time, limit int) (rs []record.Entry, err error) {
	if gate := b.turn("due", func() { rs, err = b.real.Due(context.Background(), shard, until, limit) }); gate != nil {
		return nil, gate
	}
	return rs, err
}

func (b bounded) Oldest(_ context.Context, list string, limit int) (rs []record.Entry, err error) {
	b.turn("oldest", func() { rs, err = b.real.Oldest(context.Background(), list, limit) })
	return rs, err
}

func (b bounded) List(_ context.Context, list, before string, limit int) (rs []record.Entry, err error) {
	if gate := b.turn("list", func() { rs, err = b.real.List(context.Background(), list, before, limit) }); gate != nil {
		return nil, gate
	}
	return rs, err
}

// knocks and tells are the two queues as one actor has them.
type knocks struct{ *actor }

func (k knocks) Send(_ context.Context, ms ...queue.Message) error {
	now := time.Now() // the bubble's
	return k.turn("knock", func() {
		for _, m := range ms {
			var r run.RunMessage
			_ = json.Unmarshal([]byte(m.Body), &r)
			k.w.mu.Lock()
			k.w.runs = append(k.w.runs, &message{run: r.Run, visible: now})
			k.w.mu.Unlock()
		}
	})
}

type tells struct{ *actor }

func (k tells) Send(_ context.Context, ms ...queue.Message) error {
	return k.turn("send", func() {
		for _, m := range ms {
			var d run.DeliveryMessage
			_ = json.Unmarshal([]byte(m.Body), &d)
			if _, err := k.w.calm().Page(context.Background(), d.Run, d.Seq); err != nil {
				k.w.wrong("page %d was sent to %s before it was there: %v", d.Seq, d.Target, err)
			}
			k.w.mu.Lock()
			k.w.sent[fmt.Sprintf("%d/%s", d.Seq, d.Target)]++
			k.w.mu.Unlock()
		}
	})
}

func (a *actor) service() *run.Service {
	return &run.Service{
		Store: bounded{a, a.w.real}, Runs: knocks{a}, Deliveries: tells{a}, LeaseTime: time.Minute,
		Seal: func(_ context.Context, _, _, _, plain string) (string, error) { return plain, nil },
		Log:  slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// start begins an actor in a goroutine of its own.
func (w *world) start(name string, f func(a *actor)) *actor {
	a := w.actor(name)
	w.mu.Lock()
	w.actors++
	w.mu.Unlock()
	go func() {
		defer func() {
			a.kill()
			w.mu.Lock()
			w.actors--
			w.mu.Unlock()
		}()
		f(a)
	}()
	return a
}

// alive counts the actors that have not finished.
func (w *world) alive() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.actors
}

// next gives the calls that wait, those that have waited longest first; synctest starts the rest in any order.
func (w *world) next() []*turn {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortFunc(w.waiting, func(a, b *turn) int {
		kind := func(t *turn) string { k, _, _ := strings.Cut(t.what, "#"); return k }
		return cmp.Or(cmp.Compare(a.since, b.since), cmp.Compare(a.actor.name, b.actor.name), cmp.Compare(kind(a), kind(b)), cmp.Compare(a.what, b.what))
	})
	return slices.Clone(w.waiting)
}

// step gives one waiting call its turn, and says whether there was any.
func (w *world) step() bool {
	var ready []*turn
	all := w.next()
	for _, t := range all {
		if t.actor.stalled == 0 {
			ready = append(ready, t)
		}
	}
	if w.races {
		for _, t := range ready {
			quicker := slices.IndexFunc(all, func(o *turn) bool { return o.actor.stalled > 0 && o.what == t.what && strings.HasPrefix(o.what, "put") })
			if quicker >= 0 {
				all[quicker].actor.stalled = 0
				w.give(all[quicker], goOn)
				return true
			}
		}
	}
	for _, t := range all {
		t.actor.stalled = max(0, t.actor.stalled-1)
	}
	switch {
	case len(all) == 0:
		return false
	case len(ready) == 0:
		time.Sleep(10 * time.Second)
	case w.order == 0:
		w.give(ready[0], goOn)
	default:
		w.give(ready[w.rnd.IntN(len(ready))], goOn)
	}
	return true
}

// give gives a call its turn.
func (w *world) give(t *turn, v verdict) {
	w.mu.Lock()
	w.turns++
	gone := []*turn{t}
	if v == die {
		t.actor.dead = true
		t.actor.kill()
		for _, o := range w.waiting {
			if o != t && o.actor == t.actor {
				gone = append(gone, o) // its other goroutines die with it
			}
		}
	}
	w.waiting = slices.DeleteFunc(w.waiting, func(o *turn) bool { return slices.Contains(gone, o) })
	w.log = append(w.log, fmt.Sprintf("%s %s%s", t.actor.name, t.what, []string{"", ", fails before", ", fails after", ", dies"}[v]))
	w.mu.Unlock()
	for _, o := range gone {
		o.go_ <- v
	}
}

// do does what the schedule says next.
func (w *world) do(m move) {
	w.log = append(w.log, "--- "+string(m.act))
	all := w.next()
	verdicts := map[act]verdict{failsOnce: failBefore, lostAnswer: failAfter, dies: die}
	switch m.act {
	case failsOnce, lostAnswer, dies:
		if len(all) > 0 {
			w.give(all[m.whom%len(all)], verdicts[m.act])
		}
	case stalls:
		if len(all) > 0 {
			a := all[m.whom%len(all)].actor
			a.stalled = 5 + m.long
			w.log = append(w.log, a.name+" stalls")
		}
	case passes:
		time.Sleep(time.Duration(m.long) * 3 * time.Second / 2)
	case answers:
		w.answer()
	case stops:
		w.stop()
	case sweeps:
		w.sweep()
	case watches:
		w.start("watcher", func(a *actor) { _ = a.service().Watch(a.ctx, w.runID, false) })
	case doubles:
		w.knockAt(w.runID, time.Now())
	case yieldsNext:
		w.yields = true
	case cutsNext:
		w.cuts = true
	}
}

func (w *world) answer() {
	w.mu.Lock()
	done := w.answered || w.silent || w.stopped
	w.mu.Unlock()
	if done {
		return
	}
	w.start("answer", func(a *actor) {
		err := a.service().Answer(a.ctx, run.QuestionID(w.runID, "right/q"), run.Reply{Approve: true})
		w.mu.Lock()
		defer w.mu.Unlock()
		w.answered = w.answered || err == nil
		if fault.Is(err, fault.Conflict) && w.otherwise != run.Reject {
			w.problems = append(w.problems, fmt.Sprintf("the same answer again: %v", err))
		}
	})
}

func (w *world) stop() {
	w.start("stop", func(a *actor) {
		if _, err := a.service().Stop(a.ctx, w.runID); err == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.stopped = true
		}
	})
}

func (w *world) sweep() {
	w.start("sweeper", func(a *actor) { _, _ = a.service().Wake(a.ctx, w.runID) })
}

func (w *world) wrong(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

// calm is the service without turns and faults, for whoever only looks.
func (w *world) calm() *run.Service { return &run.Service{Store: w.real} }

// table is what may follow what, beside a state that stays.
var table = map[run.State][]run.State{
	"":          {run.Queued},
	run.Queued:  {run.Running, run.Canceled, run.TimedOut},
	run.Running: {run.Waiting, run.Succeeded, run.Failed, run.Canceled, run.TimedOut},
	run.Waiting: {run.Queued, run.Canceled, run.TimedOut},
}

// moved looks at what somebody has made of the run item.
func (w *world) moved(by *actor, item run.Run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wrong := func(format string, args ...any) {
		w.problems = append(w.problems, by.name+": "+fmt.Sprintf(format, args...))
	}
	before := w.item
	w.item = item
	if item.State != before.State && !slices.Contains(table[before.State], item.State) {
		wrong("the run went from %s to %s", before.State, item.State)
	}
	if (item.State == run.Queued || item.State == run.Running) && item.Due.IsZero() {
		wrong("the run is %s, and nobody looks after it", item.State)
	}
	if item.State == run.Waiting && item.Cancel {
		wrong("the run waits, and is to be stopped")
	}
	if item.Nonce != before.Nonce && item.Nonce != "" {
		if now := time.Unix(0, w.store.now.Load()); before.Nonce != "" && now.Before(before.Lease) {
			wrong("the run was claimed when it was held")
		}
		w.owners[item.Nonce] = &ownership{by: by}
	}
	if item.Nonce != "" {
		w.owners[item.Nonce].until = item.Lease
	}
	if item.Nonce == "" && before.Nonce != "" && w.owners[before.Nonce].by != by {
		wrong("the run was given up by somebody who does not own it")
	}
}

// held looks whether an owner has given the run up that says so.
func (w *world) held(a *actor, nonce string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.item.Nonce == nonce {
		w.problems = append(w.problems, a.name+" has given the run up, and holds it")
	}
}

// written looks at what was just written.
func (w *world) written(a *actor, r record.Record) {
	kind, number, _ := strings.Cut(r.Sort, "#")
	switch {
	case w.runID == "": // there are many
	case r.Sort == "RUN":
		item, err := w.calm().Get(context.Background(), w.runID)
		if err != nil {
			w.wrong("%v", err)
			return
		}
		w.moved(a, item)
	case kind == "P":
		seq, _ := strconv.Atoi(number)
		if seq < 2 {
			return
		}
		before, err := w.calm().Page(context.Background(), w.runID, seq-1)
		if err != nil {
			w.wrong("page %d was put behind none: %v", seq, err)
			return
		}
		if before.Kind == run.EndPage {
			w.wrong("page %d was put behind the end page", seq)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, target := range before.Targets {
			if w.sent[fmt.Sprintf("%d/%s", before.Seq, target)] == 0 {
				w.problems = append(w.problems, fmt.Sprintf("page %d was put before page %d was sent to %s", seq, before.Seq, target))
			}
		}
	}
}

// take gives the next visible message and hides it, for so long that whoever takes it would have renewed its lease.
func (w *world) take() (*message, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.runs {
		if !m.visible.After(time.Now()) {
			m.visible = time.Now().Add(hidden)
			return m, true
		}
	}
	return nil, false
}

const hidden = 65 * time.Second

// handed does with a message as its runner wishes: to have it again, or never.
func (w *world) handed(m *message, again bool, in time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m.visible = time.Now().Add(in)
	if !again {
		w.runs = slices.DeleteFunc(w.runs, func(o *message) bool { return o == m })
	}
}

func (w *world) knockAt(runID string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs = append(w.runs, &message{runID, at})
}

// program is the reference run: marks, model steps, a live page, parallel branches, a question, and an end.
func (w *world) program(a *actor, o *run.Owner, b *run.Branch) (run.Outcome, error) {
	ctx, nonce := o.Work(), o.Run().Nonce
	say := func(key string) events.Draft {
		d, err := events.NewCustom("test."+strings.ReplaceAll(key, "/", "."), nil, events.Identity{})
		if err != nil {
			w.wrong("%v", err)
		}
		return d
	}
	model := func(b *run.Branch, key string) error {
		began := time.Now()
		_, err := b.Step(ctx, run.Step{
			Key: key, Request: key, Conversation: key, Messages: []json.RawMessage{json.RawMessage(`"hello"`)},
			Open: func(e *run.Emitter, n int) { e.Emit(say(fmt.Sprintf("%s.started.%d", key, n)), run.Scope{}) },
			Cut:  func(e *run.Emitter, n int) { e.Emit(say(fmt.Sprintf("%s.failed.%d", key, n)), run.Scope{}) },
			Do: func(ctx context.Context, e *run.Emitter, n int) (any, error) {
				w.mu.Lock()
				if began.After(w.owners[nonce].until) {
					w.problems = append(w.problems, fmt.Sprintf("%s began the step %s when its lease was over", a.name, key))
				}
				w.mu.Unlock()
				if err := a.turn("ask "+key, func() {}); err != nil {
					return nil, err
				}
				w.call(o, key)
				if err := a.turn("hear "+key, func() {}); err != nil || ctx.Err() != nil {
					return nil, errors.Join(err, ctx.Err())
				}
				e.Emit(say(fmt.Sprintf("%s.completed.%d", key, n)), run.Scope{})
				e.Use("test", run.Usage{TotalTokens: 1})
				return key, nil
			},
		})
		return err
	}
	b.Emit(say("begin"), run.Scope{})
	if err := b.Mark(ctx, "mark/1"); err != nil {
		return run.Outcome{}, err
	}
	b.Emit(say("before"), run.Scope{})
	if err := model(b, "m1"); err != nil {
		return run.Outcome{}, err
	}
	b.Emit(say("after"), run.Scope{})
	var both [2]error
	var all sync.WaitGroup
	for i, name := range []string{"left", "right"} {
		child := b.Child(name)
		all.Go(func() {
			if both[i] = model(child, name+"/m"); both[i] != nil {
				return
			}
			if name == "right" {
				_, both[i] = child.Ask(ctx, run.Asking{
					Key: "right/q", Timeout: w.patience, Default: w.otherwise,
					Opened: func(e *run.Emitter, _ string) { e.Emit(say("asked"), run.Scope{}) },
					Closed: func(e *run.Emitter, _ string, _ run.Reply) { e.Emit(say("answered"), run.Scope{}) },
				})
				if both[i] != nil {
					return
				}
			}
			child.Emit(say(name+".done"), run.Scope{})
			both[i] = child.Close(ctx)
		})
	}
	all.Wait()
	for _, err := range both {
		if err != nil && !errors.Is(err, run.ErrWaiting) {
			return run.Outcome{}, err
		}
	}
	if err := errors.Join(both[:]...); err != nil {
		return run.Outcome{}, err
	}
	if err := model(b, "m2"); err != nil {
		return run.Outcome{}, err
	}
	b.Emit(say("end"), run.Scope{})
	return run.Outcome{State: run.Succeeded, Result: "done"}, nil
}

// call is a model call: it looks whether the journal had the result already.
func (w *world) call(o *run.Owner, key string) {
	var pages []run.Page
	var item run.Run
	w.store.do(func() {
		pages, _ = w.calm().Pages(context.Background(), w.runID, 1, 0)
		item, _ = w.calm().Get(context.Background(), w.runID)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.ContainsFunc(pages, func(p run.Page) bool { return p.Kind == run.StepPage && p.Key == key }) {
		if item.Nonce == o.Run().Nonce && time.Now().Before(item.Lease) {
			w.repeated++
		} else {
			w.zombies++
		}
	}
}

// runner handles one message as package runner does.
func (w *world) runner(a *actor, m *message, yields, cuts bool) {
	again, in := false, time.Duration(0)
	w.own(a, m.run, yields, cuts, func(d time.Duration) { again, in = true, d })
	if !a.dead {
		w.handed(m, again, in)
	}
}

// own owns the run as far as it goes.
func (w *world) own(a *actor, runID string, yields, cuts bool, again func(time.Duration)) {
	s := a.service()
	o, err := s.Claim(a.ctx, runID)
	if errors.Is(err, run.ErrAlone) {
		o, err = s.ClaimAlone(a.ctx, runID)
	}
	switch {
	case errors.Is(err, run.ErrNothing), errors.Is(err, run.ErrLost):
		return
	case err != nil:
		again(hidden)
		return
	}
	keeping, stop := context.WithCancel(a.ctx)
	kept := make(chan struct{})
	go func() { defer close(kept); o.Keep(keeping, nil) }()
	if yields {
		o.Yield()
	}
	if cuts {
		go func() {
			if a.turn("cut", func() {}) == nil {
				o.Cut()
			}
		}()
	}
	b, nonce := o.Root(), o.Run().Nonce
	out, err := w.program(a, o, b)
	stop()
	<-kept
	var long *run.TooLong
	switch {
	case err == nil:
		err = o.End(out, b)
	case errors.As(err, &long):
		err = o.Fail(run.Outcome{State: run.Failed, Error: long.Error()})
	case errors.Is(err, run.ErrCanceled):
		err = o.Fail(run.Outcome{State: run.Canceled, Error: run.Stopped})
	case errors.Is(err, run.ErrWaiting):
		var waits bool
		if waits, err = o.Wait(); err == nil && !waits {
			err = o.Release(time.Time{})
			again(0)
		}
	case errors.Is(err, run.ErrYield):
		err = o.Release(time.Time{})
		again(0)
	}
	if err == nil {
		w.held(a, nonce)
	}
	if err != nil && strings.Contains(err.Error(), "behind the fence") {
		w.wrong("%v", err)
	}
	if err != nil && !errors.Is(err, run.ErrLost) {
		again(hidden)
	}
}

// check holds the journal to what it promises, whatever happened.
func (w *world) check() {
	ctx := context.Background()
	s := w.calm()
	item, err := s.Get(ctx, w.runID)
	pages, err2 := s.Pages(ctx, w.runID, 1, 0)
	req, err3 := s.Request(ctx, w.runID)
	if err := errors.Join(err, err2, err3); err != nil || len(pages) == 0 {
		w.wrong("%d pages, %v", len(pages), err)
		return
	}
	w.problems = append(w.problems, runtest.Problems(item, req, pages)...)
	results := map[string]run.Page{}
	for _, p := range pages {
		if p.Kind == run.StepPage {
			results[p.Key] = p
		}
		for _, target := range p.Targets {
			if w.sent[fmt.Sprintf("%d/%s", p.Seq, target)] == 0 {
				w.wrong("page %d was never sent to target %s", p.Seq, target)
			}
		}
	}
	end := pages[len(pages)-1]
	if end.Outcome != nil && end.Outcome.State == run.Succeeded {
		for _, key := range []string{"m1", "left/m", "right/m", "right/q", "m2"} {
			if results[key].Seq == 0 {
				w.wrong("the run succeeded without a result of %s", key)
			}
		}
		if len(end.Open) > 0 {
			w.wrong("the run succeeded with open questions: %+v", end.Open)
		}
		if end.Totals.Usage.TotalTokens != 4 {
			w.wrong("usage %d, want 4", end.Totals.Usage.TotalTokens)
		}
	}
	if reply, ok := results["right/q"]; ok && w.answered && !strings.Contains(string(reply.Result), `"approve":true`) {
		w.wrong("an accepted answer became %s", reply.Result)
	}
	if w.stopped && item.State != run.Canceled {
		w.wrong("the run was stopped, and %s", item.State)
	}
	if w.repeated > 0 {
		w.wrong("%d completed model calls were repeated by an owner", w.repeated)
	}
}

// play plays a schedule, and then on without faults until everything has come to rest.
func play(t *testing.T, real record.Store, e *elsewhere, what schedule) (w *world) {
	synctest.Test(t, func(t *testing.T) {
		w = &world{schedule: what, rnd: rand.New(rand.NewPCG(uint64(what.order), 7)), store: e, real: real, sent: map[string]int{}, item: run.Run{State: run.Queued}, owners: map[string]*ownership{}}
		// The kickoff itself is not this test's matter, so it goes straight to the store.
		e.do(func() {
			direct := &run.Service{Store: real, Runs: none{}, Deliveries: none{}}
			r, err := direct.Start(context.Background(), run.StartRequest{
				Deployment: crew.Deployment{ID: "d", WorkspaceID: "w", Environments: map[string]crew.Pointer{"production": {VersionID: "v", Number: 1}}},
				Targets: []run.Target{
					{ID: "all", Kind: run.StreamTarget, Events: []string{"*"}, Realtime: what.realtime},
					{ID: "crew", Kind: run.CrewTarget},
				},
			})
			if err != nil {
				w.wrong("%v", err)
			}
			w.runID = r.ID
		})
		w.knockAt(w.runID, time.Now())
		w.moves = slices.Clone(w.moves)
		for i := range 3000 {
			if w.alive() < 4 {
				if m, ok := w.take(); ok {
					yields, cuts := w.yields, w.cuts
					w.yields, w.cuts = false, false
					w.start(fmt.Sprintf("runner%04d", i), func(a *actor) { w.runner(a, m, yields, cuts) })
				}
			}
			for len(w.moves) > 0 && w.moves[0].after == 0 {
				w.do(w.moves[0])
				w.moves = w.moves[1:]
			}
			if len(w.moves) > 0 {
				w.moves[0].after--
			}
			if w.step() {
				continue
			}
			var item run.Run
			e.do(func() { item, _ = w.calm().Get(context.Background(), w.runID) })
			switch {
			case w.alive() > 0 || len(w.moves) > 0:
			case item.State.Ended() && item.Due.IsZero():
				if !item.Told {
					w.wrong("the run ended, and nobody looks after its deliveries")
				}
				i = 3000
			case item.State.Ended():
				w.start("dispatcher", func(a *actor) { _ = a.service().Told(a.ctx, w.runID, 0) })
			case item.State == run.Waiting && w.silent && !w.stopped:
				w.stop()
			case item.State == run.Waiting:
				w.answer()
			}
			if i == 3000 {
				break
			}
			time.Sleep(5 * time.Second)
			if w.alive() == 0 {
				w.sweep()
			}
		}
		for w.alive() > 0 {
			for _, turn := range w.next() {
				w.give(turn, die)
				break
			}
			time.Sleep(time.Second)
		}
		e.do(w.check)
	})
	return w
}

type none struct{}

func (none) Send(context.Context, ...queue.Message) error { return nil }
