package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/run/runtest"
)

// world runs owners, zombies, /stop, /resume, a sweeper and a queue against one real store, one call at a time, in an
// order drawn from a seed. Every call to the store or a queue waits for its turn; in its turn it may fail before it did
// anything, fail after it did it, or never return (its caller dies). Time passes when the seed says so, so a caller
// whose turn comes late is a zombie. It is the implementation's counterpart of models/journal.py.
type world struct {
	t      *testing.T
	rnd    *rand.Rand
	store  *elsewhere
	faults int // how many are left
	rarity int // one of so many calls fails, while some are left: often early in the run, or now and then all along it
	log    []string

	mu      sync.Mutex
	waiting []*turn
	runs    []message
	sent    map[string]int // "seq/target"
	calls   map[string]int // completed model calls, by key
	// The question stands for patience, and otherwise is its answer then.
	patience  time.Duration
	otherwise string
	repeated  int // model calls of an owner although the result was recorded
	zombies   int // the same by somebody who had lost the run
	actors    int
}

type turn struct {
	actor *actor
	what  string
	go_   chan verdict
}

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
	t := &turn{actor: a, what: what, go_: make(chan verdict)}
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
	if gate := b.turn("put "+r.Sort, func() { rev, err = b.real.Put(context.Background(), r) }); gate != nil {
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
			k.w.runs = append(k.w.runs, message{run: r.Run, visible: now})
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
			k.w.mu.Lock()
			k.w.sent[fmt.Sprintf("%d/%s", d.Seq, d.Target)]++
			k.w.mu.Unlock()
		}
	})
}

func (a *actor) service(real record.Store) *run.Service {
	return &run.Service{
		Store: bounded{a, real}, Runs: knocks{a}, Deliveries: tells{a}, LeaseTime: time.Minute,
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

// step gives one waiting call its turn. random says whether the seed may choose a fault.
func (w *world) step(random bool) bool {
	synctest.Wait()
	w.mu.Lock()
	if len(w.waiting) == 0 {
		w.mu.Unlock()
		return false
	}
	i := w.rnd.IntN(len(w.waiting))
	if a := w.waiting[i].actor; random && w.faults > 0 && a.stalled == 0 && w.rnd.IntN(w.rarity) == 0 {
		w.faults--
		a.stalled = 10 + w.rnd.IntN(60)
		w.log = append(w.log, a.name+" stalls")
	}
	for tries := 0; w.waiting[i].actor.stalled > 0 && tries < len(w.waiting); tries++ {
		w.waiting[i].actor.stalled--
		i = (i + 1) % len(w.waiting)
	}
	t := w.waiting[i]
	if t.actor.stalled > 0 {
		w.mu.Unlock()
		time.Sleep(10 * time.Second)
		return true
	}
	w.waiting = slices.Delete(w.waiting, i, i+1)
	v := goOn
	rarity := w.rarity
	if !strings.HasPrefix(t.actor.name, "runner") {
		rarity = min(rarity, 8) // these make few calls, and each matters
	}
	if random && w.faults > 0 && w.rnd.IntN(rarity) == 0 {
		w.faults--
		v = []verdict{failBefore, failAfter, die}[w.rnd.IntN(3)]
	}
	if v == die {
		t.actor.dead = true
		t.actor.kill()
		// Its other goroutines die with it.
		w.waiting = slices.DeleteFunc(w.waiting, func(o *turn) bool {
			if o.actor == t.actor {
				o.go_ <- die
				return true
			}
			return false
		})
	}
	w.log = append(w.log, fmt.Sprintf("%s %s%s", t.actor.name, t.what, []string{"", ", fails before", ", fails after", ", dies"}[v]))
	w.mu.Unlock()
	t.go_ <- v
	return true
}

// take gives the next visible message and hides it.
func (w *world) take() (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, m := range w.runs {
		if !m.visible.After(time.Now()) {
			w.runs = slices.Delete(w.runs, i, i+1)
			return m.run, true
		}
	}
	return "", false
}

func (w *world) knockAt(runID string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs = append(w.runs, message{runID, at})
}

// program is the reference run: marks, model steps, a live page, parallel branches, a question, and an end.
func (w *world) program(a *actor, real record.Store, o *run.Owner, b *run.Branch) (run.Outcome, error) {
	ctx := o.Work()
	say := func(key string) events.Draft {
		d, err := events.NewCustom("test."+strings.ReplaceAll(key, "/", "."), nil, events.Identity{})
		if err != nil {
			w.t.Error(err)
		}
		return d
	}
	model := func(b *run.Branch, key string) error {
		_, err := b.Step(ctx, run.Step{
			Key: key, Request: key, Conversation: key, Messages: []json.RawMessage{json.RawMessage(`"hello"`)},
			Open: func(e *run.Emitter, n int) { e.Emit(say(fmt.Sprintf("%s.started.%d", key, n)), run.Scope{}) },
			Cut:  func(e *run.Emitter, n int) { e.Emit(say(fmt.Sprintf("%s.failed.%d", key, n)), run.Scope{}) },
			Do: func(ctx context.Context, e *run.Emitter, n int) (any, error) {
				w.call(real, o, key)
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

// call is a model call: it counts what it costs, and whether the journal had the result already.
func (w *world) call(real record.Store, o *run.Owner, key string) {
	var pages []run.Page
	var item run.Run
	w.store.do(func() {
		s := &run.Service{Store: real}
		pages, _ = s.Pages(context.Background(), o.Run().ID, 1, 0)
		item, _ = s.Get(context.Background(), o.Run().ID)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[key]++
	if slices.ContainsFunc(pages, func(p run.Page) bool { return p.Kind == run.StepPage && p.Key == key }) {
		if item.Nonce == o.Run().Nonce && time.Now().Before(item.Lease) {
			w.repeated++
		} else {
			w.zombies++
		}
	}
}

// runner handles one message as package runner does.
func (w *world) runner(a *actor, real record.Store, runID string, yields, cuts bool) {
	s := a.service(real)
	again := func(d time.Duration) { w.knockAt(runID, time.Now().Add(d)) }
	o, err := s.Claim(a.ctx, runID)
	if errors.Is(err, run.ErrAlone) {
		o, err = s.ClaimAlone(a.ctx, runID)
	}
	switch {
	case errors.Is(err, run.ErrNothing), errors.Is(err, run.ErrLost):
		return
	case err != nil:
		again(65 * time.Second)
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
	b := o.Root()
	out, err := w.program(a, real, o, b)
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
	if err != nil && strings.Contains(err.Error(), "behind the fence") {
		w.t.Error(err)
	}
	if err != nil && !errors.Is(err, run.ErrLost) {
		again(65 * time.Second)
	}
}

// check holds the journal to what it promises, whatever happened.
func (w *world) check(s *run.Service, runID string) {
	t := w.t
	ctx := context.Background()
	item, err := s.Get(ctx, runID)
	pages, err2 := s.Pages(ctx, runID, 1, 0)
	req, err3 := s.Request(ctx, runID)
	if err := errors.Join(err, err2, err3); err != nil || len(pages) == 0 {
		t.Errorf("%d pages, %v", len(pages), err)
		return
	}
	for _, problem := range runtest.Problems(item, req, pages) {
		t.Error(problem)
	}
	results := map[string]bool{}
	for _, p := range pages {
		if p.Kind == run.StepPage {
			results[p.Key] = true
		}
		for _, target := range p.Targets {
			if w.sent[fmt.Sprintf("%d/%s", p.Seq, target)] == 0 {
				t.Errorf("page %d was never sent to target %s", p.Seq, target)
			}
		}
	}
	end := pages[len(pages)-1]
	if end.Outcome != nil && end.Outcome.State == run.Succeeded {
		for _, key := range []string{"m1", "left/m", "right/m", "right/q", "m2"} {
			if !results[key] {
				t.Errorf("the run succeeded without a result of %s", key)
			}
		}
		if end.Totals.Usage.TotalTokens != 4 {
			t.Errorf("usage %d, want 4", end.Totals.Usage.TotalTokens)
		}
	}
	if w.repeated > 0 {
		t.Errorf("%d completed model calls were repeated by an owner", w.repeated)
	}
}

// play plays one seed to rest.
func play(t *testing.T, real record.Store, e *elsewhere, seed uint64) (faults, zombies int) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), store: e, sent: map[string]int{}, calls: map[string]int{}}
		w.faults = w.rnd.IntN(8)
		w.rarity = []int{12, 40, 100}[w.rnd.IntN(3)]
		budget := w.faults
		if w.rnd.IntN(3) == 0 {
			w.patience = time.Duration(1+w.rnd.IntN(10)) * time.Minute
			w.otherwise = []string{"", run.Approve, run.Reject}[w.rnd.IntN(3)]
		}
		defer func() {
			if t.Failed() {
				t.Logf("%d actors, %d messages, waiting %d; seed %d:\n%s", w.actors, len(w.runs), len(w.waiting), seed, strings.Join(w.log, "\n"))
			}
		}()
		// The kickoff itself is not this test's matter, so it goes straight to the store.
		var r run.Run
		e.do(func() {
			direct := &run.Service{Store: real, Runs: none{}, Deliveries: none{}}
			var err error
			r, err = direct.Start(context.Background(), run.StartRequest{
				Deployment: crew.Deployment{ID: "d", WorkspaceID: "w", Environments: map[string]crew.Pointer{"production": {VersionID: "v", Number: 1}}},
				Targets: []run.Target{
					{ID: "all", Kind: run.StreamTarget, Events: []string{"*"}, Realtime: w.rnd.IntN(2) == 0},
					{ID: "crew", Kind: run.CrewTarget},
				},
			})
			if err != nil {
				t.Error(err)
			}
		})
		w.knockAt(r.ID, time.Now())

		stops := w.rnd.IntN(3) == 0
		silent := stops && w.rnd.IntN(2) == 0 // nobody ever answers
		var answered, stopped atomic.Bool
		stop := func() {
			w.start("stop", func(a *actor) {
				if _, err := a.service(real).Stop(a.ctx, r.ID); err == nil {
					stopped.Store(true)
				}
			})
		}
		for i := range 3000 {
			random := i < 400
			if runID, ok := w.take(); ok && w.alive() < 4 {
				yields, cuts := w.rnd.IntN(4) == 0, w.rnd.IntN(6) == 0
				w.start(fmt.Sprintf("runner%d", i), func(a *actor) { w.runner(a, real, runID, yields, cuts) })
			} else if ok {
				w.knockAt(runID, time.Now())
			}
			switch draw := w.rnd.IntN(100); {
			case random && stops && draw < 3:
				stops = false
				stop()
			case draw < 8 && !silent && !(answered.Load() && random):
				w.start("answer", func(a *actor) {
					err := a.service(real).Answer(a.ctx, run.QuestionID(r.ID, "right/q"), run.Reply{Approve: true})
					if err == nil {
						answered.Store(true)
					}
					if fault.Is(err, fault.Conflict) && w.otherwise != run.Reject {
						t.Errorf("the same answer again: %v", err)
					}
				})
			case draw < 12:
				w.start("sweeper", func(a *actor) { _, _ = a.service(real).Wake(a.ctx, r.ID) })
			case draw < 15:
				w.start("watcher", func(a *actor) { _ = a.service(real).Watch(a.ctx, r.ID, false) })
			case draw < 20:
				time.Sleep(time.Duration(w.rnd.IntN(90)) * time.Second)
			case draw < 22 && random && w.faults > 0:
				w.faults--
				w.knockAt(r.ID, time.Now()) // a doubled message
			}
			if !w.step(random) && !random {
				var item run.Run
				e.do(func() { item, _ = (&run.Service{Store: real}).Get(context.Background(), r.ID) })
				if silent && !stopped.Load() && !item.State.Ended() && w.alive() == 0 {
					stop()
				}
				if item.State.Ended() && w.alive() == 0 {
					if item.Due.IsZero() {
						if !item.Told {
							t.Error("the run ended, and nobody looks after its deliveries")
						}
						break
					}
					w.start("dispatcher", func(a *actor) { _ = a.service(real).Told(a.ctx, r.ID, 0) })
				}
				time.Sleep(5 * time.Second)
			}
		}
		for w.step(false) {
		}
		synctest.Wait()
		e.do(func() { w.check(&run.Service{Store: real}, r.ID) })
		zombies = w.zombies
		faults = budget - w.faults
	})
	return faults, zombies
}

type none struct{}

func (none) Send(context.Context, ...queue.Message) error { return nil }
