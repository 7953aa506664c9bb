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
	"muster/shared/webhook"
	"muster/shared/workspace"
)

// courier is what delivers in the embedded home: its host, its queue on disk, its dispatcher and its records. The journal is
// a page that is there under every number; what it takes to write one is measured elsewhere.
type courier struct {
	db         *sqlite.DB
	queue      *sqlite.Queue
	dispatcher *dispatch.Dispatcher
	handled    func(m run.DeliveryMessage, took time.Duration)

	run        run.Run
	deployment crew.Deployment
	targets    []run.Target
	stop       func()
}

const signingSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="

// newCourier opens a courier on a fresh file. handled hears of each message that the dispatcher was given.
func (b *bench) newCourier(ctx context.Context, name string, roots *x509.CertPool, handled func(m run.DeliveryMessage, took time.Duration)) (*courier, error) {
	db, err := sqlite.Open(filepath.Join(b.dir, name+".db"))
	if err != nil {
		return nil, err
	}
	sealer, err := workspace.NewSealer(map[string][]byte{"bench": make([]byte, 32)}, "bench")
	if err != nil {
		return nil, err
	}
	c := &courier{
		db: db, queue: db.Queue(infra.Deliveries, sqlite.QueueOptions{MaxReceives: 20}), handled: handled,
		run: run.Run{ID: id.New(), WorkspaceID: id.New(), DeploymentID: id.New()},
	}
	c.deployment.ID = c.run.DeploymentID
	if c.deployment.WebhookSecret, err = sealer.Seal(ctx, c.run.WorkspaceID, c.run.DeploymentID, "webhook_secret", signingSecret); err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	c.dispatcher = &dispatch.Dispatcher{
		Runs: c, Crews: c, Sealer: sealer, Client: guard.New(guard.Options{AllowLoopback: true, Roots: roots}), Store: db.Records(), Queue: c.queue, Log: log,
		Formats: map[run.Kind]dispatch.Format{run.CrewTarget: kibibyte},
	}
	return c, nil
}

// begin lets the host feed the dispatcher, as it does in the embedded home.
func (c *courier) begin(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	dispatcher := invoke.Batch(c.handle, c.queue)
	h := host.Host{
		Queues: map[string]queue.Queue{infra.Runs: c.db.Queue(infra.Runs, sqlite.QueueOptions{}), infra.Deliveries: c.queue},
		Invoke: func(ctx context.Context, function string, event []byte) ([]byte, error) {
			if function == "dispatcher" {
				return dispatcher.Invoke(ctx, event)
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

// send asks for a delivery of each page from first on to a target.
func (c *courier) send(ctx context.Context, target string, first, n int) error {
	messages := make([]queue.Message, n)
	for i := range messages {
		messages[i] = run.DeliveryMessage{Run: c.run.ID, Seq: first + i, Target: target}.Message()
	}
	return c.queue.Send(ctx, messages...)
}

// target adds a target.
func (c *courier) target(url string) (id string) {
	id = fmt.Sprintf("t%d", len(c.targets)+1)
	c.targets = append(c.targets, run.Target{ID: id, Kind: run.CrewTarget, URL: url})
	return id
}

// Whole implements dispatch.Runs.
func (c *courier) Whole(context.Context, string) (run.Run, run.Request, error) {
	return c.run, run.Request{Targets: c.targets}, nil
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
func (c *courier) Deployment(context.Context, string) (crew.Deployment, error) {
	return c.deployment, nil
}

var body = []byte(`{"text":"` + strings.Repeat("x", 1013) + `"}`)

func kibibyte(run.Run, run.Request, run.Page, run.Target, []json.RawMessage) ([]webhook.Body, error) {
	return []webhook.Body{{JSON: body}}, nil
}
