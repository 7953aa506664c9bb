package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"muster/events"
	"muster/shared/record"
)

// Why a branch stops before its end. None of them is a failure of the crew.
var (
	// ErrLost says that another owner has taken over, or that this one can no longer write.
	ErrLost = errors.New("the run has another owner")
	// ErrCanceled says that somebody stopped the run.
	ErrCanceled = errors.New("the run was stopped")
	// ErrYield says that the run goes on in another invocation.
	ErrYield = errors.New("the run goes on in another invocation")
	// ErrWaiting says that a branch waits for a person.
	ErrWaiting = errors.New("the run waits for a person")
)

// Later says that the run can go on at a time, and holds nobody until then.
type Later struct{ At time.Time }

func (l *Later) Error() string { return "the run goes on at " + l.At.UTC().Format(events.TimeFormat) }

// Diverged says that a replay asked something else than what is recorded.
type Diverged struct{ Key string }

func (d *Diverged) Error() string {
	return fmt.Sprintf("Step %s asks something else than when it was recorded. The run is stopped rather than paid for twice.", d.Key)
}

// TooLong says that a step does not fit into an invocation: mostCuts of them ended while it was under way.
type TooLong struct{ Key string }

func (t *TooLong) Error() string {
	return fmt.Sprintf("Step %s was cut off %d times because it takes longer than one invocation may. The run was given up.", t.Key, mostCuts)
}

// mostCuts is how many invocations may end in one and the same step.
const mostCuts = 3

// errCut is ErrYield for the steps that Cut ended.
var errCut = fmt.Errorf("%w: this one is over", ErrYield)

// Owner holds the lease of a run and is its only writer.
type Owner struct {
	s       *Service
	ctx     context.Context // of the invocation: for writes
	work    context.Context // for the engine: ends when the run is lost or stopped
	stop    context.CancelCauseFunc
	id      string
	created time.Time
	expires time.Time
	epoch   int
	nonce   string
	req     Request
	// suspected says that owners died over the run; it yields when it has a new result, and is suspected no more.
	suspected bool

	item  sync.Mutex // guards run and renewed
	run   Run
	lease time.Time // the end of the lease on this process's own clock
	yield bool

	// appender is the right to append, held from composing a page until its deliveries are sent. It guards what follows.
	appender chan struct{}
	newest   Page
	kickoff  string // the id of crew_kickoff_started
	dead     error
	standing []Target // those that are not the kickoff's, guarded by item
	watchers []Target // those who are told while they are there, likewise
	// watchersAt is what the item said of who watches when they were read, likewise; nil before that.
	watchersAt *time.Time

	mu    sync.Mutex           // guards all below, never during a call to the outside
	steps map[string]*Page     // by key: the results and marks found when the run was claimed
	tried map[string]tried     // by key: the attempts of earlier owners at steps without a result
	open  map[string]bool      // by key: questions that were asked
	lines map[string]conversed // by name: how far a conversation is in the journal
	under map[*Emitter]bool    // the steps under way
}

// tried is what earlier owners made of a step that has no result.
type tried struct {
	attempt int  // the newest one that was told of
	closed  bool // its end was told too
	cuts    int  // how many attempts the end of an invocation cut off
}

// conversed is the page where a conversation was recorded last, and what it said.
type conversed struct {
	seq, begin int
	messages   []json.RawMessage
}

// Run gives the run item as this owner last knew it.
func (o *Owner) Run() Run {
	o.item.Lock()
	defer o.item.Unlock()
	return o.run
}

// Request gives what the kickoff asked for.
func (o *Owner) Request() Request { return o.req }

// Work is the context for the engine. It ends when the run is lost or stopped.
func (o *Owner) Work() context.Context { return o.work }

// Root gives the branch where the run begins.
func (o *Owner) Root() *Branch {
	return &Branch{o: o, name: "main", segment: "start", hold: make(chan struct{}, 1), now: o.created}
}

// Yield asks the branches to stop at their next boundary.
func (o *Owner) Yield() {
	o.item.Lock()
	defer o.item.Unlock()
	o.yield = true
}

// Cut ends the steps that are under way, because the invocation is over. Each puts a page that says so.
func (o *Owner) Cut() {
	o.Yield()
	o.stop(errCut)
}

// Leave ends the steps that are under way, because the process is about to end. It leaves no trace: the next owner repeats
// them.
func (o *Owner) Leave() { o.stop(ErrYield) }

// mayGoOn says why no further step may begin, if so.
func (o *Owner) mayGoOn(ctx context.Context) error {
	if err := context.Cause(o.work); err != nil {
		return err
	}
	o.item.Lock()
	lapsed, yield := o.s.now().After(o.lease), o.yield
	o.item.Unlock()
	if lapsed {
		o.stop(ErrLost)
		return ErrLost
	}
	if yield {
		return ErrYield
	}
	return ctx.Err()
}

// append puts a page with what waits in a branch, and sends its deliveries before anybody puts the next.
func (o *Owner) append(p *Page, w pending) error {
	o.appender <- struct{}{}
	defer func() { <-o.appender }()
	if o.dead != nil {
		return o.dead
	}
	o.compose(p, w)
	if err := o.put(p); err != nil {
		return o.die(err)
	}
	o.newest = *p
	if o.suspected && p.Kind == StepPage {
		o.Yield()
	}
	if err := o.send(*p); err != nil {
		return o.die(fmt.Errorf("send the deliveries of page %d of run %s: %w", p.Seq, o.id, err))
	}
	return nil
}

// die makes an error the last word of this owner: whoever takes over finds out what is in the journal.
func (o *Owner) die(err error) error {
	o.dead = err
	o.stop(err)
	return err
}

// compose fills in what follows from the page before: number, times, totals, progress, open questions.
func (o *Owner) compose(p *Page, w pending) {
	last := o.newest
	p.Seq, p.Epoch, p.Nonce = last.Seq+1, o.epoch, o.nonce
	p.Totals, p.Progress, p.Open = last.Totals, last.Progress, last.Open

	t := &p.Totals
	t.ByType = make(map[string]int64, len(last.Totals.ByType)+2)
	for k, n := range last.Totals.ByType {
		t.ByType[k] = n
	}
	at := o.s.now().UTC().Truncate(time.Millisecond)
	for _, e := range w.events {
		e.At = e.At.UTC().Truncate(time.Millisecond)
		if !e.At.After(t.LastAt) {
			e.At = t.LastAt.Add(time.Millisecond)
		}
		t.Events++
		e.N, e.Previous = t.Events, t.LastEvent
		t.LastEvent, t.LastType, t.LastAt = e.ID, e.Type, e.At
		t.ByType[e.Type]++
		o.noteKickoff(e)
		p.Events = append(p.Events, e)
	}
	if at.Before(t.LastAt) {
		at = t.LastAt
	}
	if at.Before(last.At) {
		at = last.At
	}
	p.At = at
	t.charge(w.calls, o.req.Prices)
	t.ToolCalls += w.tools

	p.Notes, p.Tasks = w.notes, w.tasks
	for _, change := range w.progress {
		change(&p.Progress)
	}
	if len(p.Notes) > 0 {
		p.Progress.NotePage = p.Seq
	}
	if len(p.Tasks) > 0 {
		p.Progress.TaskPage = p.Seq
	}
	switch p.Kind {
	case QuestionPage:
		p.Open = append(slices.Clone(p.Open), Open{
			ID: p.Asked.ID, Key: p.Key, TaskID: p.Asked.Task.TaskID, Page: p.Seq, Expires: p.Asked.Expires, Default: p.Asked.Default,
		})
	case StepPage:
		t.Steps++
		p.Open = slices.DeleteFunc(slices.Clone(p.Open), func(q Open) bool { return q.Key == p.Key })
	case FencePage:
		if o.run.WaitsAfter == last.Seq && last.Seq > 0 {
			t.WaitedMS += p.At.Sub(last.At).Milliseconds()
		}
		return
	}
	p.Targets = tell(o.targets(), *p)
	t.Deliveries += len(p.Targets)
}

func (o *Owner) noteKickoff(e events.Event) {
	if o.kickoff == "" && e.Type == kickoffStarted {
		o.kickoff = e.ID
	}
}

// kickoffStarted is the first event of every run that begins.
const kickoffStarted = "crew_kickoff_started"

// targets gives everybody who is told of the run: the kickoff's targets, those that stand beside them, and who watches.
func (o *Owner) targets() []Target {
	o.item.Lock()
	defer o.item.Unlock()
	return slices.Concat(o.req.Targets, o.standing, o.watchers)
}

// readStanding finds out who stands beside the kickoff's targets now.
func (o *Owner) readStanding() error {
	if o.s.Standing == nil {
		return nil
	}
	standing, err := o.s.Standing(o.ctx, o.Run())
	if err != nil {
		return fmt.Errorf("read the standing targets of run %s: %w", o.id, err)
	}
	o.item.Lock()
	defer o.item.Unlock()
	o.standing = standing
	return nil
}

// readWatchers finds out whether anybody is told while he is there, if the item says that somebody has come since the last time.
func (o *Owner) readWatchers(r Run) error {
	o.item.Lock()
	known := o.watchersAt != nil && !r.WatchedUntil.After(*o.watchersAt)
	o.item.Unlock()
	if o.s.Watchers == nil || known {
		return nil
	}
	watchers, err := o.s.Watchers(o.ctx, r)
	if err != nil {
		return fmt.Errorf("read who watches run %s: %w", o.id, err)
	}
	o.item.Lock()
	defer o.item.Unlock()
	o.watchers, o.watchersAt = watchers, &r.WatchedUntil
	return nil
}

// errTaken says that a page of a lower epoch has the number: only a fence may meet that.
var errTaken = errors.New("the number of the page is taken by an earlier owner")

// put puts a page, if need be again and again with the same bytes, until it is known to be there or not.
func (o *Owner) put(p *Page) error {
	body, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode page %d of run %s: %w", p.Seq, o.id, err)
	}
	rec := record.Record{Key: pageKey(o.id, p.Seq), Body: body, Expires: o.expires}
	_, err = o.s.repeat(o.ctx, func() (int64, error) { return record.PutBlob(o.ctx, o.s.Store, rec) }, nil)
	there, taken := record.Current(err)
	if !taken {
		if err != nil {
			return fmt.Errorf("put page %d of run %s: %w", p.Seq, o.id, err)
		}
		return nil
	}
	if there, err = record.Inflate(o.ctx, o.s.Store, there); err != nil {
		return err
	}
	q, err := decodePage(there)
	switch {
	case err != nil:
		return err
	case q.Nonce == o.nonce:
		return nil // mine: the answer to an earlier try was lost
	case q.Epoch > o.epoch:
		return ErrLost
	case p.Kind == FencePage:
		return errTaken
	}
	return fmt.Errorf("page %d of run %s was put by epoch %d behind the fence of epoch %d", p.Seq, o.id, q.Epoch, o.epoch)
}

// send sends the deliveries of a page: all of them, or it fails. Before those of the end page it makes way for the next run.
func (o *Owner) send(p Page) error {
	if p.Kind == EndPage {
		if err := o.makeWay(p); err != nil {
			return err
		}
	}
	return o.deliver(p)
}

func (o *Owner) deliver(p Page) error {
	if len(p.Targets) == 0 {
		return nil
	}
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := o.s.SendDeliveries(o.ctx, o.id, p)
		if err == nil || o.ctx.Err() != nil {
			return err
		}
		if o.s.pause(o.ctx, wait) != nil {
			return err
		}
	}
}

// load reads the journal from the newest page that is known. It fails with ErrLost when it meets a higher epoch.
func (o *Owner) load() error {
	pages, err := o.s.Pages(o.ctx, o.id, o.newest.Seq+1, 0)
	if err != nil {
		return err
	}
	for i := range pages {
		p := &pages[i]
		if p.Epoch > o.epoch {
			return ErrLost
		}
		if p.Seq != o.newest.Seq+1 {
			return fmt.Errorf("the journal of run %s goes from page %d to %d", o.id, o.newest.Seq, p.Seq)
		}
		o.newest = *p
		for _, e := range p.Events {
			o.noteKickoff(e)
		}
		switch p.Kind {
		case StepPage, MarkPage:
			o.steps[p.Key] = p
			delete(o.tried, p.Key)
		case LivePage:
			o.tried[p.Key] = tried{attempt: p.Attempt, cuts: o.tried[p.Key].cuts}
		case CutPage:
			o.tried[p.Key] = tried{attempt: p.Attempt, closed: true, cuts: o.tried[p.Key].cuts + 1}
		case QuestionPage:
			o.open[p.Key] = true
		}
	}
	return nil
}

// enter makes the journal this owner's: it reads to the end, sends again what the last owner may not have sent, and puts
// a fence behind which no earlier owner can write. ended says that there is an end page, which is never fenced.
func (o *Owner) enter() (ended bool, err error) {
	for {
		if err := o.load(); err != nil {
			return false, err
		}
		if o.newest.Seq == 0 && o.epoch == 1 {
			return false, nil
		}
		if err := o.send(o.newest); err != nil {
			return false, err
		}
		if o.newest.Kind == EndPage {
			return true, nil
		}
		fence := &Page{Kind: FencePage}
		o.compose(fence, pending{})
		err := o.put(fence)
		if errors.Is(err, errTaken) {
			continue
		}
		if err != nil {
			return false, err
		}
		o.newest = *fence
		return false, nil
	}
}

func (o *Owner) recorded(key string) *Page {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.steps[key]
}

func (o *Owner) triedBefore(key string) tried {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tried[key]
}

// watched says whether somebody watches the run live.
func (o *Owner) watched() bool {
	o.item.Lock()
	defer o.item.Unlock()
	return o.s.now().Before(o.run.WatchedUntil)
}

// wants says whether anybody asks for events of this type. Whoever watches asks for all but chunks, which are many.
func (o *Owner) wants(eventType string) bool {
	o.item.Lock()
	until := o.run.WatchedUntil
	if eventType == "llm_stream_chunk" {
		until = o.run.ChunksUntil
	}
	o.item.Unlock()
	return o.s.now().Before(until) || slices.ContainsFunc(o.targets(), func(t Target) bool { return t.Asks(eventType) })
}

// tellsNow says whether any of these events must go out before the step's result is there.
func (o *Owner) tellsNow(waiting []events.Event) bool {
	if len(waiting) == 0 {
		return false
	}
	if o.watched() {
		return true
	}
	return slices.ContainsFunc(o.targets(), func(t Target) bool {
		return t.Realtime && slices.ContainsFunc(waiting, func(e events.Event) bool { return t.Asks(e.Type) })
	})
}

// prompt gives the conversation of a step without what the journal has of it.
func (o *Owner) prompt(st Step) *Prompt {
	if st.Conversation == "" {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	c, ok := o.lines[st.Conversation]
	keep := 0
	for keep < len(c.messages) && keep < len(st.Messages) && string(c.messages[keep]) == string(st.Messages[keep]) {
		keep++
	}
	if !ok || keep == 0 {
		return &Prompt{New: st.Messages}
	}
	return &Prompt{From: c.seq, Keep: keep, Begin: c.begin, New: st.Messages[keep:]}
}

// continueConversation notes that the page seq has all messages of the step.
func (o *Owner) continueConversation(st Step, p *Page) {
	if st.Conversation == "" || p.Prompt == nil {
		return
	}
	begin := p.Prompt.Begin
	if begin == 0 {
		begin = p.Seq
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines[st.Conversation] = conversed{seq: p.Seq, begin: begin, messages: st.Messages}
}

// newOwner makes the owner of a run whose item was just claimed.
func (s *Service) newOwner(ctx context.Context, r Run, req Request, lease time.Time) *Owner {
	o := &Owner{
		appender: make(chan struct{}, 1),
		s:        s, ctx: ctx, id: r.ID, created: r.CreatedAt, expires: s.expires(r), epoch: r.Epoch, nonce: r.Nonce, req: req, run: r, lease: lease,
		steps: map[string]*Page{}, tried: map[string]tried{}, open: map[string]bool{}, lines: map[string]conversed{}, under: map[*Emitter]bool{},
	}
	o.work, o.stop = context.WithCancelCause(ctx)
	return o
}
