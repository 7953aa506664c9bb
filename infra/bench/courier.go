package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"muster/events"
	"muster/infra"
	"muster/infra/host"
	"muster/shared/crew"
	"muster/shared/dispatch"
	"muster/shared/guard"
	"muster/shared/id"
	"muster/shared/invoke"
	"muster/shared/queue"
	"muster/shared/run"
	"muster/shared/sqlite"
	"muster/shared/sweep"
	"muster/shared/webhook"
	"muster/shared/workspace"
)

// courier is what delivers in the embedded home: its host, its queue on disk, its dispatcher and its records. The journal is
// a page that is there under every number; what it takes to write one is measured elsewhere.
type courier struct {
	db         *sqlite.DB
	queue      *sqlite.Queue
	sealer     *workspace.Sealer
	dispatcher *dispatch.Dispatcher
	handled    func(m run.DeliveryMessage, took time.Duration)
	// runs has a run for each endpoint, of a deployment of its own.
	runs map[string]run.Run
	stop func()
}

const signingSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="

// newCourier opens a courier on a fresh file. handled hears of each message that the dispatcher was given.
func (b *bench) newCourier(roots *x509.CertPool, handled func(m run.DeliveryMessage, took time.Duration)) (*courier, error) {
	b.couriers++
	db, err := sqlite.Open(filepath.Join(b.dir, fmt.Sprintf("courier-%d.db", b.couriers)))
	if err != nil {
		return nil, err
	}
	sealer, err := workspace.NewSealer(map[string][]byte{"bench": make([]byte, 32)}, "bench")
	if err != nil {
		return nil, err
	}
	var options sqlite.QueueOptions
	for _, q := range infra.Queues {
		if q.Name == infra.Deliveries {
			options = sqlite.QueueOptions{MaxReceives: q.Receives, MaxHeld: q.Held}
		}
	}
	c := &courier{db: db, queue: db.Queue(infra.Deliveries, options), sealer: sealer, handled: handled, runs: map[string]run.Run{}}
	c.dispatcher = &dispatch.Dispatcher{
		Runs: c, Crews: c, Sealer: sealer, Client: guard.New(guard.Options{AllowLoopback: true, Roots: roots}), Store: db.Records(), Queue: c.queue,
		EndpointFormats: map[string]dispatch.Format{webhook.Crewship: kibibyte},
		Notice:          func(string, webhook.Notice) ([]byte, error) { return body, nil },
		Deployments:     func(context.Context, string) ([]crew.Deployment, error) { return nil, nil },
		Log:             slog.New(slog.DiscardHandler),
	}
	return c, nil
}

// begin lets the host feed the dispatcher, as it does in the embedded home.
func (c *courier) begin(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	dispatcher := invoke.Batch(c.handle, c.queue)
	sweeper := sweep.Sweeper{Store: c.db.Records(), Parked: c.dispatcher.Parked, Health: c.dispatcher.Tend, Log: slog.New(slog.DiscardHandler)}
	h := host.Host{
		Queues: map[string]queue.Queue{infra.Runs: c.db.Queue(infra.Runs, sqlite.QueueOptions{}), infra.Deliveries: c.queue},
		Invoke: func(ctx context.Context, function string, event []byte) ([]byte, error) {
			switch function {
			case "dispatcher":
				return dispatcher.Invoke(ctx, event)
			case "sweeper":
				return []byte("null"), sweeper.Sweep(ctx)
			}
			return []byte("null"), nil
		},
		Log: slog.New(slog.DiscardHandler),
	}
	var hosting sync.WaitGroup
	hosting.Go(func() { h.Run(ctx) })
	c.stop = func() {
		cancel()
		hosting.Wait()
	}
}

func (c *courier) handle(ctx context.Context, m queue.Received) queue.Answer {
	began := time.Now()
	answer := c.dispatcher.Handle(ctx, m)
	took := time.Since(began)
	var of run.DeliveryMessage
	if json.Unmarshal([]byte(m.Body), &of) == nil {
		c.handled(of, took)
	}
	return answer
}

func (c *courier) close() {
	if c.stop != nil {
		c.stop()
	}
	c.dispatcher.Client.CloseIdle()
	c.db.Close()
}

// send asks for a delivery of each page from first on to the endpoint of a run.
func (c *courier) send(ctx context.Context, to destination, first, n int) error {
	messages := make([]queue.Message, n)
	for i := range messages {
		messages[i] = run.DeliveryMessage{Run: to.run, Seq: first + i, Target: to.endpoint}.Message()
	}
	return c.queue.Send(ctx, messages...)
}

// destination is an endpoint and the run that it is told of.
type destination struct{ run, endpoint string }

// shown is what the receiver sees as the id of the delivery of a page.
func (d destination) shown(seq int) string {
	return webhook.New(d.run, seq, d.endpoint, "0", "", time.Time{}).Shown()
}

// endpoint adds an endpoint.
func (c *courier) endpoint(ctx context.Context, url string) (destination, error) {
	r := run.Run{ID: id.New(), WorkspaceID: id.New(), DeploymentID: id.New(), Environment: "production"}
	e := webhook.Endpoint{
		ID: id.New(), WorkspaceID: r.WorkspaceID, DeploymentID: r.DeploymentID, Environment: r.Environment, Name: "bench", URL: url,
		Events: []string{"*"}, Format: webhook.Crewship, Enabled: true,
	}
	var err error
	if e.Secret, err = c.sealer.Seal(ctx, e.WorkspaceID, e.ID, webhook.SecretField, signingSecret); err != nil {
		return destination{}, err
	}
	c.runs[r.ID] = r
	return destination{r.ID, e.ID}, webhook.Endpoints{Store: c.db.Records()}.Create(ctx, &e)
}

// Whole implements dispatch.Runs.
func (c *courier) Whole(_ context.Context, runID string) (run.Run, run.Request, error) {
	return c.runs[runID], run.Request{}, nil
}

// Page implements dispatch.Runs.
func (c *courier) Page(_ context.Context, _ string, seq int) (run.Page, error) {
	return run.Page{Seq: seq, Kind: run.StepPage}, nil
}

// Messages implements dispatch.Runs.
func (c *courier) Messages(context.Context, string, run.Page) ([]json.RawMessage, error) {
	return nil, nil
}

// Told implements dispatch.Runs.
func (c *courier) Told(context.Context, string, int) error { return nil }

// Deployment implements dispatch.Crews.
func (c *courier) Deployment(_ context.Context, deploymentID string) (crew.Deployment, error) {
	return crew.Deployment{ID: deploymentID}, nil
}

var body = []byte(`{"text":"` + strings.Repeat("x", 1013) + `"}`)

func kibibyte(run.Run, run.Request, run.Page, run.Target, []json.RawMessage) ([]webhook.Body, error) {
	return []webhook.Body{{JSON: body, Event: events.RunSucceeded}}, nil
}
