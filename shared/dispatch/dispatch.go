// Package dispatch is what the dispatcher does: it answers the messages of the deliveries queue by posting what a page has
// to tell a target. It alone talks to receivers.
//
// A message names a run, a page and a target. The bodies are made from the page by the Format of the target's kind; each
// is a delivery:
//
//  1. What was tried before is read; what is over is left alone. A first attempt needs no claim: two dispatchers with
//     the same message may both post, under the same id. A retry is claimed, so that a doubled message makes one POST.
//  2. The body is signed with a fresh timestamp and posted. Nothing is kept from message to message: the target, its
//     secret and its authorization are read for each.
//  3. One put records the attempt and what is next. What failed is tried again by the schedule of package webhook: a short
//     wait rides in the queue as a message for this part, a long one is parked under a due time for the sweeper.
//  4. A body that was refused as such (400, 413) is cut in two until the event that is at fault stands alone.
//
// Endpoints are receivers that stand beside those of a kickoff. Endpoint and health are read once for each message, and say
// whether a delivery goes out, is canceled, waits, or is parked under its endpoint: see gate. Trouble is noted, and Tend,
// which the sweeper calls, probes, releases what is parked, and tells others.
//
// A dispatcher that dies before the record leaves the message, and the same POST goes out again under the same id. A
// failing receiver is never an error of the handler.
package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/guard"
	"muster/shared/id"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/webhook"
)

// Format makes the bodies that a page has for a target. It is a function of the page: called again, on another machine and
// in a year, it makes the same bytes. Dialects provide formats.
type Format = func(r run.Run, q run.Request, p run.Page, t run.Target, messages []json.RawMessage) ([]webhook.Body, error)

// Runs is what a dispatcher needs of *run.Service.
type Runs interface {
	Whole(ctx context.Context, runID string) (run.Run, run.Request, error)
	Page(ctx context.Context, runID string, seq int) (run.Page, error)
	Messages(ctx context.Context, runID string, p run.Page) ([]json.RawMessage, error)
	Told(ctx context.Context, runID string, seq int) error
}

// Crews is what a dispatcher needs of *crew.Store.
type Crews interface {
	Deployment(ctx context.Context, deploymentID string) (crew.Deployment, error)
}

// Channels is what a dispatcher needs of *channel.Hub.
type Channels interface {
	// Relay tells connections of a run what they do not know up to a page, and says when to call it again, if at all.
	Relay(ctx context.Context, runID string, seq int) (again time.Duration, err error)
}

// Dispatcher delivers. It is safe for concurrent use.
type Dispatcher struct {
	Runs    Runs
	Crews   Crews
	Sealer  webhook.Opener
	Formats map[run.Kind]Format
	// EndpointFormats are the formats of endpoints by name, Notice writes in one of them what belongs to no run.
	EndpointFormats map[string]Format
	Notice          func(format string, n webhook.Notice) ([]byte, error)
	// Channels tells connections, the target run.Channels. None unless set.
	Channels Channels
	// Deployments gives those of a workspace: their endpoints are told news of each other.
	Deployments func(ctx context.Context, workspaceID string) ([]crew.Deployment, error)
	Client      *guard.Client
	// Store keeps the deliveries, Queue is the deliveries queue.
	Store record.Store
	Queue queue.Sender

	// Now is the clock, time.Now unless set.
	Now func() time.Time
	// Pause waits, unless ctx ends before. It is a timer unless set.
	Pause func(ctx context.Context, wait time.Duration)
	// Log is slog.Default unless set.
	Log *slog.Logger

	taken   tally
	parking turns
}

const (
	// postTime is the time of a whole POST: a receiver that answers after 29 s has succeeded.
	postTime = 30 * time.Second
	// recordTime is kept free after a POST for its record.
	recordTime = 5 * time.Second
	// atOnce is how many parts of a page are posted to a target at the same time.
	atOnce = 8
)

// ownFault is the wait after a failure that is ours, the store, the queue, a format, when a message was received so often:
// 2 s, then double, up to five minutes. The queue's receive count ends it, after more than an hour.
func ownFault(receives int) time.Duration {
	return min(time.Second<<min(receives, 10), 5*time.Minute)
}

// Handle is the queue.Handler of the deliveries queue.
func (d *Dispatcher) Handle(ctx context.Context, m queue.Received) (answer queue.Answer) {
	var asked run.DeliveryMessage
	if reason := decode(m.Body, &asked); reason != "" {
		d.log().Error("a delivery message makes no sense", "message", m.ID, "reason", reason)
		return queue.Drop(reason)
	}
	log := d.log().With("run", asked.Run, "seq", asked.Seq, "target", asked.Target)
	defer func() {
		if p := recover(); p != nil {
			log.Error("the dispatcher panicked", "panic", p, "stack", string(debug.Stack()))
			answer = queue.RetryIn(ownFault(m.Receives))
		}
	}()
	if asked.Target == run.Channels {
		return d.relay(ctx, asked, m.Receives, log)
	}
	j, err := d.open(ctx, asked, log)
	if err == nil {
		err = j.deliver(ctx, asked.Part)
	}
	if err == nil {
		err = j.lookAgain(ctx)
	}
	if err == nil && asked.Part == "" && j.page.Kind == run.EndPage && !j.comesBack {
		err = d.told(ctx, j.page, asked.Run)
	}
	switch {
	case fault.Is(err, fault.NotFound), fault.Is(err, fault.Invalid):
		log.Error("a delivery cannot be made", "error", err)
		return queue.Drop(fault.Message(err))
	case err != nil:
		log.Error("a delivery is put off", "error", err)
		return queue.RetryIn(ownFault(m.Receives))
	case j.comesBack:
		return queue.RetryIn(j.backIn)
	}
	return queue.Done()
}

// relay has connections told of a page. Nothing is recorded: who was not there, or was cut off, resumes from the journal.
func (d *Dispatcher) relay(ctx context.Context, m run.DeliveryMessage, receives int, log *slog.Logger) queue.Answer {
	if d.Channels == nil {
		return queue.Drop("Nobody knows how to tell connections.")
	}
	again, err := d.Channels.Relay(ctx, m.Run, m.Seq)
	var page run.Page
	if err == nil {
		page, err = d.Runs.Page(ctx, m.Run, m.Seq)
	}
	if err == nil && page.Kind == run.EndPage {
		err = d.told(ctx, page, m.Run)
	}
	switch {
	case fault.Is(err, fault.NotFound):
		log.Error("connections cannot be told", "error", err)
		return queue.Drop(fault.Message(err))
	case err != nil:
		log.Error("telling connections is put off", "error", err)
		return queue.RetryIn(ownFault(receives))
	case again > 0:
		return queue.RetryIn(again)
	}
	return queue.Done()
}

// decode reads a message; reason says why it cannot be one.
func decode(body string, m *run.DeliveryMessage) (reason string) {
	if err := json.Unmarshal([]byte(body), m); err != nil {
		return "The message is not the JSON of a delivery."
	}
	runID, ok := id.Parse("run", m.Run)
	if !ok || m.Seq < 0 || m.Target == "" {
		return "The message names no run, page and target."
	}
	m.Run = runID
	if m.Part != "" {
		if _, _, err := webhook.SplitPart(m.Part); err != nil {
			return fault.Message(err)
		}
	}
	return ""
}

// late says that no POST can be started and recorded before ctx ends.
func late(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ok && time.Until(end) < postTime+recordTime
}

// job is what a page has for a target.
type job struct {
	*Dispatcher
	log    *slog.Logger
	run    run.Run
	page   run.Page
	target run.Target
	// shape is how the bodies are made, nil when the target has no choice.
	shape  *webhook.Shape
	bodies []webhook.Body
	// known are the deliveries that were tried before, by part.
	known map[string]webhook.Delivery
	to    receiver
	// standing says that the target is an endpoint; endpoint is nil then if it has been deleted.
	standing bool
	endpoint *webhook.Endpoint
	slots    chan struct{}

	mu     sync.Mutex
	health webhook.Health
	// refused and took count bodies that were refused as such, and those that were taken.
	refused, took int
	// hold is until when the receiver wants to be left alone; parked says that something waits under the endpoint.
	hold   time.Time
	parked bool
	// comesBack says that the message must be seen again, in backIn.
	comesBack bool
	backIn    time.Duration
}

// open reads what the message is about. fault.NotFound and fault.Invalid: there is no such thing, and never will be.
func (d *Dispatcher) open(ctx context.Context, m run.DeliveryMessage, log *slog.Logger) (*job, error) {
	j := &job{Dispatcher: d, log: log, known: map[string]webhook.Delivery{}, slots: make(chan struct{}, atOnce)}
	tried, err := d.deliveries().OfPage(ctx, m.Run, m.Seq, m.Target)
	if err != nil {
		return nil, err
	}
	for _, one := range tried {
		j.known[one.Part] = one
		if j.shape == nil || one.Part == m.Part {
			j.shape = one.Shape
		}
	}
	if m.Seq == 0 {
		return j, j.openNotice(ctx, m)
	}
	var request run.Request
	if j.run, request, err = d.Runs.Whole(ctx, m.Run); err != nil {
		return nil, err
	}
	j.page, err = d.Runs.Page(ctx, m.Run, m.Seq)
	if fault.Is(err, fault.NotFound) {
		return nil, fault.Wrap(err, fault.NotFound, "The run has no page %d.", m.Seq)
	}
	if err != nil {
		return nil, err
	}
	format, err := j.aim(ctx, m.Target, request.Targets)
	if err != nil || format == nil {
		return j, err
	}
	messages, err := d.Runs.Messages(ctx, m.Run, j.page)
	if err != nil {
		return nil, err
	}
	if j.bodies, err = format(j.run, request, j.page, j.target, messages); err != nil {
		// Not a fault of the message, whatever kind the format gave it.
		return nil, fmt.Errorf("make the bodies of page %d: %s", m.Seq, err)
	}
	return j, nil
}

// aim finds the receiver, and the format of its bodies: that of the shape if there is a record already. No format: the
// endpoint is there no more.
func (j *job) aim(ctx context.Context, target string, given []run.Target) (Format, error) {
	var format Format
	at := slices.IndexFunc(given, func(t run.Target) bool { return t.ID == target })
	switch {
	case at >= 0:
		j.target = given[at]
		t := j.target
		j.to = receiver{t.URL, sync.OnceValues(func() (access, error) { return j.unseal(ctx, j.run, t) })}
		if j.shape == nil && t.Kind == run.StreamTarget {
			j.shape = &webhook.Shape{Events: t.Events, Realtime: t.Realtime}
		}
		format = j.Formats[t.Kind]
	case webhook.IsEndpoint(target):
		j.target = run.Target{ID: target, Kind: run.EndpointTarget}
		if err := j.readEndpoint(ctx, j.run.DeploymentID); err != nil || j.endpoint == nil {
			return nil, err
		}
		if j.shape == nil {
			j.shape = &webhook.Shape{Events: j.endpoint.Events, Format: j.endpoint.Format}
		}
		format = j.EndpointFormats[j.shape.Format]
	default:
		return nil, fault.New(fault.NotFound, "The run has no target %q.", target)
	}
	if format == nil {
		return nil, fault.New(fault.Invalid, "Nobody knows how to tell a target of kind %q.", j.target.Kind)
	}
	if j.shape != nil {
		j.target.Events, j.target.Realtime = j.shape.Events, j.shape.Realtime
	}
	return format, nil
}

// deliver delivers one part, or all for "".
func (j *job) deliver(ctx context.Context, part string) error {
	if j.gone() {
		return j.callOff(ctx)
	}
	if part != "" {
		body, err := j.body(part)
		if err != nil {
			return err
		}
		return j.part(ctx, part, body)
	}
	if len(j.bodies) == 0 && j.page.Kind == run.EndPage {
		return j.nothing(ctx)
	}
	return j.all(len(j.bodies), func(i int) error { return j.part(ctx, strconv.Itoa(i), j.bodies[i]) })
}

// nothing records that an end page has nothing for the target, for told to find.
func (j *job) nothing(ctx context.Context) error {
	if len(j.known) > 0 {
		return nil
	}
	one := j.new("0", webhook.Body{})
	one.Status = webhook.Canceled
	return ignoreConflict(j.deliveries().Put(ctx, &one))
}

// body gives the body of a part.
func (j *job) body(part string) (webhook.Body, error) {
	i, halves, err := webhook.SplitPart(part)
	if err != nil {
		return webhook.Body{}, err
	}
	if i >= len(j.bodies) {
		return webhook.Body{}, fault.New(fault.NotFound, "The page has no part %q for the target.", part)
	}
	body := j.bodies[i]
	for _, half := range halves {
		if body.Halves == nil {
			return webhook.Body{}, fault.New(fault.NotFound, "The page has no part %q for the target.", part)
		}
		a, b := body.Halves()
		if body = a; half == 'b' {
			body = b
		}
	}
	return body, nil
}

func (j *job) new(part string, body webhook.Body) webhook.Delivery {
	event := body.Event
	switch {
	case event == "" && j.standing:
		event = batch
	case event == "":
		event = "amp." + string(j.target.Kind)
	}
	one := webhook.New(j.run.ID, j.page.Seq, j.target.ID, part, event, j.now())
	one.Parts, one.Shape = len(j.bodies), j.shape
	return one
}

// again asks for the message to come back, after the shortest time that anybody asked for.
func (j *job) again(in time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.comesBack || in < j.backIn {
		j.comesBack, j.backIn = true, max(in, 0)
	}
}

// all calls f for 0 to n-1 at the same time and waits. A panic in one of many is an error.
func (j *job) all(n int, f func(int) error) error {
	if n == 1 {
		return f(0)
	}
	errs := make([]error, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					errs[i] = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
				}
			}()
			errs[i] = f(i)
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// told tells the run that its end is known to everybody, once each delivery of the end page has a record.
func (d *Dispatcher) told(ctx context.Context, p run.Page, runID string) error {
	all, err := d.deliveries().OfPage(ctx, runID, p.Seq, "")
	if err != nil {
		return err
	}
	recorded := map[string]webhook.Delivery{}
	for _, one := range all {
		recorded[one.Target+"#"+one.Part] = one
	}
	for _, target := range p.Targets {
		if target == run.Channels {
			continue
		}
		first, ok := recorded[target+"#0"]
		if !ok || !complete(recorded, target+"#0") {
			return nil
		}
		for i := 1; i < first.Parts; i++ {
			if !complete(recorded, target+"#"+strconv.Itoa(i)) {
				return nil
			}
		}
	}
	if err := d.Runs.Told(ctx, runID, p.Seq); err != nil {
		return fmt.Errorf("note that the end of the run was told: %w", err)
	}
	return nil
}

// complete says that a part has a record and, if it was cut in two, so do its halves.
func complete(recorded map[string]webhook.Delivery, part string) bool {
	one, ok := recorded[part]
	return ok && (!one.Halved || complete(recorded, part+"a") && complete(recorded, part+"b"))
}

func (d *Dispatcher) endpoints() webhook.Endpoints {
	return webhook.Endpoints{Store: d.Store, Now: d.Now}
}

func (d *Dispatcher) deliveries() webhook.Deliveries { return webhook.Deliveries{Store: d.Store} }

func (d *Dispatcher) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}

func (d *Dispatcher) log() *slog.Logger {
	if d.Log != nil {
		return d.Log
	}
	return slog.Default()
}

func ignoreConflict(err error) error {
	if fault.Is(err, fault.Conflict) {
		return nil
	}
	return err
}
