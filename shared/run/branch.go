package run

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/events"
	"muster/shared/id"
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
	// Cut emits the event that closes an attempt which an owner's death or the end of an invocation cut off
	// (llm_call_failed, "interrupted").
	Cut func(e *Emitter, attempt int)
	// Do asks the outside and emits the events of the end; what it returns is recorded, as JSON. An error means that there
	// is no result and the run cannot go on here (the context ended): an error of the outside that the crew should see is
	// part of the result. Do must stop when ctx ends.
	Do func(ctx context.Context, e *Emitter, attempt int) (any, error)
}

// Scope names what surrounds an event: Parent is the id of the event that it is nested in, Started that of the event it
// closes.
type Scope struct{ Parent, Started string }

// Branch is one line of steps inside a run: a task, or one of several parallel tool calls. A branch belongs to one
// goroutine; its siblings run beside it, and the owner's one appender puts their pages in turn.
//
// What is emitted waits in the branch for its next page. On replay, a step or mark that is in the journal drops what
// waits, because its page has it.
type Branch struct {
	o       *Owner
	name    string
	segment string // the boundary passed last: with a counter it names the next event
	n       int

	// hold is the right to what follows while a step is under way, because the owner may tell of it then. It is held while a
	// live page is put.
	hold    chan struct{}
	now     time.Time
	pending pending
}

// pending is what the next page of a branch will carry.
type pending struct {
	events   []events.Event
	notes    []Note
	tasks    []TaskOutput
	calls    []call
	tools    int
	progress []func(*Progress)
}

// Now is the time of the branch's newest page: a clock that tells a replay the same time again.
func (b *Branch) Now() time.Time { return b.now }

// Emit drafts an event that goes with the branch's next page, and gives its id.
func (b *Branch) Emit(d events.Draft, s Scope) string {
	b.n++
	return b.emit(b.name+"/"+b.segment+"/"+strconv.Itoa(b.n), d, s)
}

func (b *Branch) emit(name string, d events.Draft, s Scope) string {
	e := d.Event(id.Derive(b.o.id, name), s.Parent, s.Started)
	e.At = b.o.s.now()
	b.pending.events = append(b.pending.events, e)
	return e.ID
}

// Progress changes the run's progress with the branch's next page.
func (b *Branch) Progress(f func(*Progress)) {
	b.pending.progress = append(b.pending.progress, f)
}

// Finished tells with the branch's next page that a task ended.
func (b *Branch) Finished(t TaskOutput) { b.pending.tasks = append(b.pending.tasks, t) }

// Wants says whether any target, or somebody who watches, asks for events of this type.
func (b *Branch) Wants(eventType string) bool { return b.o.wants(eventType) }

// Recorded says whether the step of this key has its result in the journal already.
func (b *Branch) Recorded(key string) bool { return b.o.recorded(key) != nil }

// Child begins a line of its own beside this one, to be used by one other goroutine. What waits in the parent goes
// with the child's first page.
func (b *Branch) Child(name string) *Branch {
	c := &Branch{o: b.o, name: b.name + "/" + name, segment: b.segment, hold: make(chan struct{}, 1), now: b.now, pending: b.pending}
	b.pending = pending{}
	return c
}

// Close puts what still waits in a child branch that is at its end.
func (b *Branch) Close(ctx context.Context) error { return b.Mark(ctx, b.name+"/closed") }

// Mark puts a page of what waits, so that it is told now. With nothing waiting it does nothing.
func (b *Branch) Mark(ctx context.Context, key string) error {
	if p := b.o.recorded(key); p != nil {
		b.passed(key, p)
		return nil
	}
	if err := b.o.mayGoOn(ctx); err != nil {
		return err
	}
	if len(b.pending.events) == 0 && len(b.pending.tasks) == 0 {
		return nil
	}
	return b.put(&Page{Kind: MarkPage, Key: key}, key)
}

// Step gives the recorded result of the step, or does it and records the result. An error ends the branch: the run
// was stopped or lost, has reached a limit, must wait, or goes on in another invocation.
func (b *Branch) Step(ctx context.Context, st Step) (json.RawMessage, error) {
	digest, err := digestOf(st.Request)
	if err != nil {
		return nil, fmt.Errorf("digest the request of step %s: %w", st.Key, err)
	}
	if p := b.o.recorded(st.Key); p != nil {
		if p.Digest != digest {
			return nil, &Diverged{Key: st.Key}
		}
		b.o.continueConversation(st, p)
		b.passed(st.Key, p)
		return p.Result, nil
	}
	if err := b.o.mayGoOn(ctx); err != nil {
		return nil, err
	}
	if err := b.o.within(); err != nil {
		return nil, err
	}

	before := b.o.triedBefore(st.Key)
	if before.cuts >= mostCuts {
		return nil, &TooLong{Key: st.Key}
	}
	if before.attempt > 0 {
		// The pages of the attempt that was cut have what was emitted up to its opening.
		b.pending = pending{}
		if !before.closed {
			b.close(st, before.attempt)
		}
	}
	attempt := before.attempt + 1
	e := &Emitter{b: b, segment: st.Key + "#" + strconv.Itoa(attempt), key: st.Key, attempt: attempt}
	if st.Open != nil {
		st.Open(e, attempt)
	}
	e.prompt = b.o.prompt(st)
	b.o.begin(e)
	if err := e.tellOpening(); err != nil {
		b.o.finish(e)
		return nil, err
	}

	doing, done := b.o.inTime(ctx)
	v, err := st.Do(doing, e, attempt)
	done()
	b.o.finish(e)
	if e.err != nil {
		return nil, e.err
	}
	if err != nil {
		why := b.o.mayGoOn(ctx)
		late := outOfTime(doing)
		if why == nil {
			why = late
		}
		if errors.Is(why, errCut) || why != nil && why == late {
			b.close(st, attempt)
			if err := b.put(&Page{Kind: CutPage, Key: st.Key, Attempt: attempt, Prompt: e.prompt}, ""); err != nil {
				return nil, err
			}
		}
		if why != nil {
			return nil, why
		}
		return nil, err
	}
	result, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode the result of step %s: %w", st.Key, err)
	}
	p := &Page{Kind: StepPage, Key: st.Key, Attempt: attempt, Digest: digest, Result: result, Prompt: e.prompt}
	if err := b.put(p, st.Key); err != nil {
		return nil, err
	}
	b.o.continueConversation(st, p)
	return result, nil
}

// close emits the event that closes an attempt without a result.
func (b *Branch) close(st Step, attempt int) {
	if st.Cut != nil {
		st.Cut(&Emitter{b: b, segment: st.Key + "#" + strconv.Itoa(attempt) + "/cut"}, attempt)
	}
}

// put puts a page with everything that waits. passing is the boundary that the branch has passed then, "" for none.
func (b *Branch) put(p *Page, passing string) error {
	p.Branch = b.name
	if err := b.o.append(p, b.pending); err != nil {
		return err
	}
	b.pending = pending{}
	b.now = p.At
	if passing != "" {
		b.segment, b.n = passing, 0
	}
	return nil
}

// passed goes over a boundary that is in the journal.
func (b *Branch) passed(key string, p *Page) {
	b.pending = pending{}
	b.now = p.At
	b.segment, b.n = key, 0
}

// Emitter takes the events of one step in program order.
type Emitter struct {
	b       *Branch
	segment string
	key     string
	attempt int
	began   time.Time

	// What follows is for whoever holds the branch.
	n      int
	prompt *Prompt
	said   bool      // something was emitted since the opening
	over   bool      // the step is not under way any more
	told   time.Time // when chunks last went out
	err    error
}

// Emit drafts an event that goes with the step's page and gives its id.
func (e *Emitter) Emit(d events.Draft, s Scope) string {
	e.b.hold <- struct{}{}
	defer func() { <-e.b.hold }()
	return e.emit(d, s)
}

func (e *Emitter) emit(d events.Draft, s Scope) string {
	e.n++
	e.said = true
	return e.b.emit(e.b.name+"/"+e.segment+"/"+strconv.Itoa(e.n), d, s)
}

// Opened gives the id of the first event that Open emitted for this attempt: what the closing event names as started.
func (e *Emitter) Opened() string {
	return id.Derive(e.b.o.id, e.b.name+"/"+strings.TrimSuffix(e.segment, "/cut")+"/1")
}

// chunkPause is the least time between two pages of chunks.
const chunkPause = 250 * time.Millisecond

// Chunk emits a piece of a streamed answer. Pieces are collected and go out as live pages while the answer still comes,
// at most one page per 250 ms.
func (e *Emitter) Chunk(d events.Draft, s Scope) {
	e.b.hold <- struct{}{}
	defer func() { <-e.b.hold }()
	e.emit(d, s)
	now := e.b.o.s.now()
	if e.told.IsZero() {
		e.told = now
	}
	if e.err == nil && now.Sub(e.told) >= chunkPause {
		e.told = now
		e.err = e.putLive()
	}
}

// tellOpening puts the opening of a step that is under way, if somebody is to be told of it now: before it is done, or when
// the owner hears of somebody who watches. What the step itself has emitted is never told ahead of its result.
func (e *Emitter) tellOpening() error {
	e.b.hold <- struct{}{}
	defer func() { <-e.b.hold }()
	if e.over || e.said || e.err != nil || !e.b.o.tellsNow(e.b.pending.events) {
		return e.err
	}
	e.err = e.putLive()
	return e.err
}

// putLive puts what waits before the step has its result. The step's page then continues the conversation of this one.
func (e *Emitter) putLive() error {
	p := &Page{Kind: LivePage, Key: e.key, Attempt: e.attempt, Prompt: e.prompt}
	if err := e.b.put(p, ""); err != nil {
		return err
	}
	if e.prompt != nil && e.prompt.New != nil {
		begin := e.prompt.Begin
		if begin == 0 {
			begin = p.Seq
		}
		e.prompt = &Prompt{From: p.Seq, Keep: e.prompt.Keep + len(e.prompt.New), Begin: begin}
	}
	return nil
}

// Note is what the step target is told of this step.
func (e *Emitter) Note(n Note) {
	e.add(func(p *pending) { p.notes = append(p.notes, n) })
}

// Use adds a model call and its usage to the run's totals.
func (e *Emitter) Use(model string, u Usage) {
	e.add(func(p *pending) { p.calls = append(p.calls, call{model, u}) })
}

// UseTool adds a tool call to the run's totals.
func (e *Emitter) UseTool() {
	e.add(func(p *pending) { p.tools++ })
}

func (e *Emitter) add(to func(*pending)) {
	e.b.hold <- struct{}{}
	defer func() { <-e.b.hold }()
	e.said = true
	to(&e.b.pending)
}

// begin notes that a step is under way and has emitted its opening.
func (o *Owner) begin(e *Emitter) {
	e.said = false
	e.began = o.s.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.under[e] = true
}

// finish gives the branch back to its own goroutine.
func (o *Owner) finish(e *Emitter) {
	o.mu.Lock()
	delete(o.under, e)
	o.mu.Unlock()
	e.b.hold <- struct{}{}
	defer func() { <-e.b.hold }()
	e.over = true
}

// tellOpenings tells of the steps under way what was not told yet, because somebody watches now.
func (o *Owner) tellOpenings() {
	o.mu.Lock()
	under := slices.Collect(maps.Keys(o.under))
	o.mu.Unlock()
	for _, e := range under {
		_ = e.tellOpening() // the step finds it out itself
	}
}

func digestOf(request any) (string, error) {
	data, err := json.Marshal(request)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16]), nil
}
