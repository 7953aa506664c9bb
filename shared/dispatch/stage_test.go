package dispatch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/dispatch"
	"muster/shared/fault"
	"muster/shared/guard"
	"muster/shared/id"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/storetest"
	"muster/shared/webhook"
)

const (
	secret   = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
	password = "hunter2hunter2"
)

// stage is a dispatcher with everything around it, and a clock that the test moves.
type stage struct {
	*dispatch.Dispatcher
	runs  *journal
	store *hookedStore
	queue *outbox
	log   *lockedBuffer

	mu  sync.Mutex
	now time.Time
}

func newStage(t testing.TB) *stage { return newStageOn(t, &storetest.Memory{}) }

func newStageOn(t testing.TB, records record.Store) *stage {
	s := &stage{
		runs:  &journal{run: run.Run{ID: id.New(), WorkspaceID: id.New(), DeploymentID: id.New()}, pages: map[int]run.Page{}},
		store: &hookedStore{Store: records},
		queue: &outbox{},
		log:   &lockedBuffer{},
		now:   time.Now().UTC().Truncate(time.Millisecond),
	}
	client := guard.New(guard.Options{AllowLoopback: true})
	t.Cleanup(client.CloseIdle)
	s.Dispatcher = &dispatch.Dispatcher{
		Runs: s.runs, Crews: s.runs, Sealer: plainSeal{}, Client: client, Store: s.store, Queue: s.queue, Now: s.clock,
		Formats: map[run.Kind]dispatch.Format{run.CrewTarget: whole, run.StreamTarget: batch, run.StepTarget: single},
		Log:     slog.New(slog.NewJSONHandler(s.log, nil)),
	}
	return s
}

func (s *stage) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *stage) move(to time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = to
}

// target adds a target to the run.
func (s *stage) target(kind run.Kind, url string) (id string) {
	id = "t" + strconv.Itoa(len(s.runs.request.Targets)+1)
	s.runs.request.Targets = append(s.runs.request.Targets, run.Target{ID: id, Kind: kind, URL: url})
	return id
}

// page adds a page with n events.
func (s *stage) page(kind run.PageKind, n int) (seq int) {
	seq = len(s.runs.pages) + 1
	p := run.Page{Seq: seq, Kind: kind}
	for i := range n {
		p.Events = append(p.Events, events.Event{ID: fmt.Sprintf("e%d", i), Type: "test"})
	}
	for _, t := range s.runs.request.Targets {
		p.Targets = append(p.Targets, t.ID)
	}
	s.runs.pages[seq] = p
	return seq
}

// send handles the message for a page, a target and, unless "", a part.
func (s *stage) send(t testing.TB, seq int, target, part string) queue.Answer {
	return s.Handle(t.Context(), message(s.runs.run.ID, seq, target, part))
}

func message(runID string, seq int, target, part string) queue.Received {
	return queue.Received{Message: run.DeliveryMessage{Run: runID, Seq: seq, Target: target, Part: part}.Message(), ID: "m", Receives: 1}
}

func (s *stage) delivery(t testing.TB, seq int, target, part string) webhook.Delivery {
	t.Helper()
	d, err := webhook.Deliveries{Store: s.store.Store}.Get(t.Context(), s.runs.run.ID, seq, target, part)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (s *stage) untried(t testing.TB, seq int, target, part string) bool {
	_, err := webhook.Deliveries{Store: s.store.Store}.Get(t.Context(), s.runs.run.ID, seq, target, part)
	return fault.Is(err, fault.NotFound)
}

func wantDone(t interface{ Fatalf(string, ...any) }, a queue.Answer) {
	if a != queue.Done() {
		t.Fatalf("the answer is %+v, want Done", a)
	}
}

// whole makes one body that cannot be cut.
func whole(r run.Run, _ run.Request, p run.Page, _ run.Target, _ []json.RawMessage) ([]webhook.Body, error) {
	return []webhook.Body{{JSON: fmt.Appendf(nil, `{"kickoff_id":%q,"page":%d}`, r.ID, p.Seq)}}, nil
}

// batch makes one body of all events that can be cut down to one, single a body of each.
func batch(_ run.Run, _ run.Request, p run.Page, _ run.Target, _ []json.RawMessage) ([]webhook.Body, error) {
	if len(p.Events) == 0 {
		return nil, nil
	}
	return []webhook.Body{envelope(p.Events)}, nil
}

func single(_ run.Run, _ run.Request, p run.Page, _ run.Target, _ []json.RawMessage) (bodies []webhook.Body, err error) {
	for _, e := range p.Events {
		bodies = append(bodies, envelope([]events.Event{e}))
	}
	return bodies, nil
}

func envelope(all []events.Event) webhook.Body {
	var ids []string
	for _, e := range all {
		ids = append(ids, e.ID)
	}
	body := webhook.Body{JSON: []byte(`{"events":["` + strings.Join(ids, `","`) + `"]}`)}
	if n := len(all); n > 1 {
		body.Halves = func() (webhook.Body, webhook.Body) { return envelope(all[:n/2]), envelope(all[n/2:]) }
	}
	return body
}

// ids reads the event ids of an envelope.
func ids(t testing.TB, body []byte) []string {
	var e struct{ Events []string }
	if err := json.Unmarshal(body, &e); err != nil {
		t.Errorf("body %q: %v", body, err)
	}
	return e.Events
}

// journal plays run.Service and crew.Store for one run.
type journal struct {
	run     run.Run
	request run.Request
	pages   map[int]run.Page
	fail    error

	mu   sync.Mutex
	told int
}

func (j *journal) Whole(_ context.Context, runID string) (run.Run, run.Request, error) {
	if runID != j.run.ID {
		return run.Run{}, run.Request{}, fault.New(fault.NotFound, "There is no such run.")
	}
	return j.run, j.request, j.fail
}

func (j *journal) Page(_ context.Context, _ string, seq int) (run.Page, error) {
	p, ok := j.pages[seq]
	if !ok {
		return p, fmt.Errorf("read page %d: %w", seq, fault.New(fault.NotFound, "There is no such page."))
	}
	return p, nil
}

func (j *journal) Messages(context.Context, string, run.Page) ([]json.RawMessage, error) {
	return nil, nil
}

func (j *journal) Told(context.Context, string, int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.told++
	return nil
}

// times says how often the run was told.
func (j *journal) times() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.told
}

func (j *journal) Deployment(_ context.Context, deploymentID string) (crew.Deployment, error) {
	return crew.Deployment{ID: deploymentID, WebhookSecret: seal(j.run.WorkspaceID, deploymentID, "webhook_secret", secret)}, nil
}

func (j *journal) Deployments(context.Context, string) ([]crew.Deployment, error) {
	return []crew.Deployment{{ID: j.run.DeploymentID}}, nil
}

// plainSeal "seals" by writing down what the value belongs to.
type plainSeal struct{}

func seal(workspace, record, field, plain string) string {
	return strings.Join([]string{workspace, record, field, plain}, "|")
}

func (plainSeal) Open(_ context.Context, workspace, record, field, sealed string) (string, error) {
	plain, ok := strings.CutPrefix(sealed, seal(workspace, record, field, ""))
	if !ok {
		return "", fmt.Errorf("%s of %s does not open", field, record)
	}
	return plain, nil
}

// hookedStore can fail puts, before or after they are done.
type hookedStore struct {
	record.Store
	before, after error
}

func (s *hookedStore) Put(ctx context.Context, r record.Record) (int64, error) {
	if s.before != nil {
		return 0, s.before
	}
	rev, err := s.Store.Put(ctx, r)
	if err == nil && s.after != nil {
		return 0, s.after
	}
	return rev, err
}

// memory is the part of a record.Store that delivering needs.
type memory struct {
	record.Store
	mu      sync.Mutex
	records map[record.Key]record.Record
}

func (m *memory) Put(_ context.Context, r record.Record) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	there, ok := m.records[r.Key]
	if there.Rev != r.Rev {
		return 0, record.ConflictWith(there, ok)
	}
	if m.records == nil {
		m.records = map[record.Key]record.Record{}
	}
	r.Rev++
	m.records[r.Key] = r
	return r.Rev, nil
}

func (m *memory) Scan(_ context.Context, s record.Scan) (found []record.Record, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, r := range m.records {
		if k.Part == s.Part && s.From <= k.Sort && k.Sort < s.To {
			found = append(found, r)
		}
	}
	return found, nil
}

// outbox is a queue that keeps what is sent.
type outbox struct {
	mu   sync.Mutex
	sent []queue.Message
	fail error
}

func (o *outbox) Send(_ context.Context, m ...queue.Message) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		return o.fail
	}
	o.sent = append(o.sent, m...)
	return nil
}

// take gives what was sent since the last take.
func (o *outbox) take() []queue.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	sent := o.sent
	o.sent = nil
	return sent
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
