package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"muster/infra"
	"muster/shared/app"
	"muster/shared/id"
	"muster/shared/invoke"
	"muster/shared/mean"
	"muster/shared/queue"
)

// how a call goes wrong.
type how string

const (
	before how = "fails"
	after  how = "fails, but happened"
	partly how = "happens in part" // of a Send
	freeze how = "freezes its process"
)

// fault is one call that goes wrong, by its number in the scene.
type fault struct {
	call int
	how  how
	// thaw is how many calls later a frozen process goes on; 0 is when everything is over.
	thaw int
}

// stop is when somebody stops the run.
type stop string

const (
	never     stop = "not at all"
	atWork    stop = "while the model is asked"
	asItWaits stop = "while it waits for a person"
)

var stops = []stop{never, atWork, asItWaits}

// play is what happens to a run.
type play struct {
	stopped stop
	faults  []fault
}

// question is what a person was asked. The first time the answer is no.
type question struct {
	ID       string `json:"request_id"`
	Task     string `json:"task_id"`
	Round    int
	answered bool
}

// scene is one run, played to its end.
type scene struct {
	*stage
	play
	runID string

	mu        sync.Mutex
	calls     []string
	now_      *process
	processes []*process
	met       []string // the faults that were met
	asked     map[string][]int
	repeated  []string // completed model calls that an owner made again
	zombies   int      // the same by a process that had lost the run
	cut       int      // model's answers that never came into the journal
	twice     int      // events that were told more than once
	heard     map[string]int
	ended     string // how the run ended, as it was told
	questions []*question
	stopping  reply
	problems  []string
	under     sync.WaitGroup
}

// reply is what is known of the stop.
type reply int

const (
	unasked reply = iota
	asking        // an answer is still to come
	accepted
	refused
)

// process is one process. It is frozen at most once.
type process struct {
	scene   *scene
	name    string
	app     *app.App
	http    http.Handler
	queues  map[string]queue.Queue
	work    map[string]func(ctx context.Context, event []byte) ([]byte, error)
	frozen  chan struct{}
	thawed  chan struct{}
	once    sync.Once
	thawAt  int
	stopped bool
}

func (s *scene) start() {
	p := &process{scene: s, name: fmt.Sprintf("process-%d", len(s.processes)), queues: map[string]queue.Queue{}, frozen: make(chan struct{}), thawed: make(chan struct{})}
	m := mean.Failing(0, mean.Fine)
	m.Plan = func(c mean.Call) mean.Fate { return p.fate(c.What) }
	for name, q := range s.queues {
		p.queues[name] = m.Queue(q)
	}
	p.app = s.app(m.Store(s.records), p.queues, p.name)
	p.http = p.app.HTTP()
	p.work = map[string]func(context.Context, []byte) ([]byte, error){
		infra.Runs:       invoke.Batch(p.app.Runner, p.queues[infra.Runs]).Invoke,
		infra.Deliveries: invoke.Batch(p.app.Dispatcher, p.queues[infra.Deliveries]).Invoke,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now_ = p
	s.processes = append(s.processes, p)
}

// fate counts a call of the process and says what becomes of it. Whoever freezes comes back from it when it thaws.
func (p *process) fate(what string) mean.Fate {
	s := p.scene
	s.mu.Lock()
	s.calls = append(s.calls, what)
	n := len(s.calls)
	for _, other := range s.processes {
		if other.stopped && other.thawAt > 0 && n >= other.thawAt {
			other.thaw()
		}
	}
	var mine *fault
	for i, f := range s.faults {
		if f.call == n {
			mine = &s.faults[i]
			s.met = append(s.met, fmt.Sprintf("call %d (%s) of %s %s", n, what, p.name, f.how))
		}
	}
	stopped := p.stopped
	if mine != nil && mine.how == freeze && !stopped && what != "Receive" {
		p.stopped = true
		if mine.thaw > 0 {
			p.thawAt = n + mine.thaw
		}
		close(p.frozen)
		stopped = true
	}
	s.mu.Unlock()
	if stopped {
		<-p.thawed
	}
	switch {
	case mine == nil || mine.how == freeze && what != "Receive":
		return mean.Fine
	case mine.how == after:
		return mean.After
	case mine.how == partly:
		return mean.Partly
	}
	return mean.Before
}

// do does something in the process, and comes back when it is done or the process is frozen. Then another takes its place.
func (s *scene) do(f func(p *process)) {
	p := s.now_
	done := make(chan struct{})
	s.under.Go(func() {
		defer close(done)
		f(p)
	})
	select {
	case <-done:
	case <-p.frozen:
		s.start()
	}
}

// feed hands what is in a queue to its function, and says whether there was anything.
func (s *scene) feed(name string) bool {
	p := s.now_
	var visible time.Duration
	for _, q := range infra.Queues {
		if q.Name == name {
			visible = q.Visibility
		}
	}
	batch, err := p.queues[name].Receive(context.Background(), 10, 0, visible)
	if err != nil {
		return true
	}
	if len(batch) == 0 {
		return false
	}
	s.do(func(p *process) {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
		defer cancel()
		answer, err := p.work[name](ctx, batchEvent(batch))
		if err != nil {
			s.wrong("the function of %s failed: %v", name, err)
			return
		}
		var failed events.SQSEventResponse
		if err := json.Unmarshal(answer, &failed); err != nil {
			s.wrong("the function of %s answered %s", name, answer)
		}
		for _, m := range batch {
			if !strings.Contains(string(answer), strconv.Quote(m.ID)) {
				_ = p.queues[name].Delete(ctx, m.Receipt) // or it comes back
			}
		}
	})
	return true
}

func batchEvent(batch []queue.Received) []byte {
	var e events.SQSEvent
	for _, m := range batch {
		e.Records = append(e.Records, events.SQSMessage{
			MessageId: m.ID, ReceiptHandle: m.Receipt, Body: m.Body,
			Attributes: map[string]string{"ApproximateReceiveCount": strconv.Itoa(m.Receives), "MessageGroupId": m.Group},
		})
	}
	raw, _ := json.Marshal(e) // it is plain data
	return raw
}

func (s *scene) sweep() {
	s.do(func(p *process) { _ = p.app.Sweep(context.Background()) })
}

// kickoff asks until it is answered, as clients with an Idempotency-Key do.
func (s *scene) kickoff() {
	body := map[string]any{
		"inputs": map[string]any{"river": "Inn"}, "crewWebhookUrl": s.receiver.URL + "/crew",
		"humanInputWebhook": map[string]any{
			"url": s.receiver.URL + "/human", "authentication": map[string]any{"strategy": "bearer", "token": "person"},
		},
		"webhooks": map[string]any{"events": []string{"*"}, "url": s.receiver.URL + "/events", "realtime": false},
	}
	key := id.New()
	for range 10 {
		answered := make(chan string, 1)
		s.do(func(p *process) {
			var started struct {
				KickoffID string `json:"kickoff_id"`
			}
			request(p.http, "POST", "/kickoff", s.token, body, &started, "Idempotency-Key", key)
			answered <- started.KickoffID
		})
		select {
		case s.runID = <-answered:
		default: // frozen
		}
		if s.runID != "" {
			return
		}
	}
	s.wrong("the kickoff was never answered")
}

// answer answers what a person was asked, once more if nothing is known of the last time, and says whether there was
// anything to do.
func (s *scene) answer() bool {
	s.mu.Lock()
	var open *question
	for _, q := range s.questions {
		if !q.answered {
			open = q
		}
	}
	s.mu.Unlock()
	if open == nil || s.stopped == asItWaits && s.stopping != refused {
		return false
	}
	body := map[string]any{
		"execution_id": s.runID, "task_id": open.Task, "requestId": open.ID, "is_approve": open.Round > 1, "human_feedback": "Tell how they bow.",
	}
	s.do(func(p *process) {
		code := request(p.http, "POST", "/resume", s.token, body, nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		open.answered = open.answered || code < 500
		if code != http.StatusOK && code < 500 && (code != http.StatusBadRequest || s.stopping == unasked) {
			s.problems = append(s.problems, fmt.Sprintf("the answer to question %d was refused: %d", open.Round, code))
		}
	})
	return true
}

// stop asks a process to stop the run, which waits a little for the owner to end it; meanwhile time passes.
func (s *scene) stop(p *process) {
	s.mu.Lock()
	s.stopping = max(s.stopping, asking)
	s.mu.Unlock()
	done := make(chan int, 1)
	s.under.Go(func() { done <- request(p.http, "POST", "/stop/"+s.runID, s.token, nil, nil) })
	for {
		select {
		case code := <-done:
			s.mu.Lock()
			defer s.mu.Unlock()
			switch {
			case code == http.StatusOK:
				s.stopping = accepted
			case code == http.StatusBadRequest && s.stopping != accepted:
				s.stopping = refused
			case code < 500:
				s.problems = append(s.problems, fmt.Sprintf("the stop was answered %d", code))
			}
			return
		case <-p.frozen:
			return // it is asked again
		case <-time.After(20 * time.Millisecond):
			s.pass(7 * time.Second)
		}
	}
}

// people does what people have to do by now, and says whether there was anything.
func (s *scene) people() bool {
	s.mu.Lock()
	again := s.stopping == asking || s.stopping == unasked && s.stopped == asItWaits && len(s.questions) > 0
	s.mu.Unlock()
	if again {
		s.do(s.stop)
		return true
	}
	return s.answer()
}

// play plays a run to its end and gives what happened.
func (s *stage) play(what play) *scene {
	c := &scene{stage: s, play: what, asked: map[string][]int{}, heard: map[string]int{}}
	s.mu.Lock()
	s.scene = c
	s.mu.Unlock()
	c.start()
	c.kickoff()
	if c.runID == "" {
		return c
	}
	began, swept := s.now(), s.now()
	c.sweep()
	for quiet := 0; quiet < 3; {
		if c.people() || c.feed(infra.Runs) || c.feed(infra.Deliveries) {
			quiet = 0
			continue
		}
		over := c.over()
		if over {
			c.thaw()
			quiet++
			s.pass(16 * time.Minute) // whatever is hidden shows
		} else {
			s.pass(5 * time.Second)
		}
		if s.now().Sub(began) > 6*time.Hour {
			c.wrong("the run came to no rest in six hours")
			break
		}
		if over && quiet == 2 || s.now().Sub(swept) > time.Minute && !over {
			c.sweep()
			swept = s.now()
		}
	}
	c.thaw()
	c.under.Wait()
	c.check()
	return c
}

// over says whether the run needs nobody any more.
func (s *scene) over() bool {
	r, err := s.runs.Get(context.Background(), s.runID)
	return err == nil && r.State.Ended() && r.Due.IsZero()
}

// thaw lets every frozen process go on.
func (s *scene) thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.processes {
		if p.stopped {
			p.thaw()
		}
	}
}

func (p *process) thaw() { p.once.Do(func() { close(p.thawed) }) }

func (s *scene) wrong(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
}
