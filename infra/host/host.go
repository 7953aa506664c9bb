// Package host does, on one machine, what AWS does around the functions: it turns HTTP requests, messages of queues and the
// clock into the events of the manifest's functions, and acts on their answers. What an invocation is, the caller says:
// a call in this process (infra/local), or one over the Lambda Runtime API (tests of the deployable binaries).
package host

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/uuid"

	"muster/infra"
	"muster/shared/agentwire"
	"muster/shared/queue"
)

// Host is the machine around the functions.
type Host struct {
	// Invoke invokes a function with the JSON of an event and gives the JSON of its answer. ctx has the function's timeout.
	Invoke func(ctx context.Context, function string, event []byte) ([]byte, error)
	// Stream invokes a function whose answer streams. Its body is closed when nobody reads it any more.
	Stream func(ctx context.Context, function string, event []byte) (*events.LambdaFunctionURLStreamingResponse, error)
	// Agents is what there is of that which the trigger of agents needs; nil is what the manifest has.
	Agents *agentwire.Needs
	// Sockets holds the connections of the WebSocket; nil is a machine without one.
	Sockets *Sockets
	Queues  map[string]queue.Queue
	// Every replaces the manifest's pause between ticks; 0 leaves it.
	Every time.Duration
	// Timeouts replaces the manifest's timeouts of functions; nil leaves them.
	Timeouts map[string]time.Duration
	Log      *slog.Logger
}

// Run eats queues and ticks until ctx ends, and returns when what is under way then has finished.
func (h *Host) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, f := range infra.Functions {
		if f.Eats != nil {
			all.Go(func() { h.eat(ctx, f) })
		}
		if f.Every > 0 {
			all.Go(func() { h.tick(ctx, f) })
		}
	}
	all.Wait()
}

// call invokes a function under its timeout.
func (h *Host) call(ctx context.Context, f infra.Function, event any) ([]byte, error) {
	payload, err := json.Marshal(event)
	if err != nil {
		return nil, fmt.Errorf("encode an event for %s: %w", f.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, h.timeout(f))
	defer cancel()
	return h.Invoke(ctx, f.Name, payload)
}

func (h *Host) timeout(f infra.Function) time.Duration {
	if t, ok := h.Timeouts[f.Name]; ok {
		return t
	}
	return f.Timeout
}

// pollers is how many receive from a queue at a time, as many as Lambda begins with.
const pollers = 5

// eat receives messages and invokes the function with them: what an event source mapping does.
func (h *Host) eat(ctx context.Context, f infra.Function) {
	slots := make(chan struct{}, f.Eats.Concurrency)
	var polling, under sync.WaitGroup
	for range min(pollers, f.Eats.Concurrency) {
		polling.Go(func() { h.poll(ctx, f, slots, &under) })
	}
	polling.Wait()
	under.Wait()
}

// poll takes a slot before it receives, so that nothing is received that has to wait.
func (h *Host) poll(ctx context.Context, f infra.Function, slots chan struct{}, under *sync.WaitGroup) {
	q := h.Queues[f.Eats.Queue]
	visible := visibility(f.Eats.Queue)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		batch, err := q.Receive(ctx, f.Eats.Size, 20*time.Second, visible)
		if err != nil || len(batch) == 0 {
			<-slots
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				h.log().Error("receiving failed", "queue", f.Eats.Queue, "error", err)
				pause(ctx, time.Second)
			}
			continue
		}
		under.Go(func() {
			defer func() { <-slots }()
			h.feed(ctx, f, q, batch)
		})
	}
}

// feed invokes the function with one batch, and deletes what it does not report as failed. A function that fails, or
// reports what it was not given, keeps the whole batch in the queue, as with Lambda.
func (h *Host) feed(ctx context.Context, f infra.Function, q queue.Queue, batch []queue.Received) {
	ctx = context.WithoutCancel(ctx) // what began is let finish, as by Lambda
	answer, err := h.call(ctx, f, batchEvent(f.Eats.Queue, batch))
	if err != nil {
		h.log().Error("an invocation failed; its messages come back", "function", f.Name, "error", err)
		return
	}
	var response events.SQSEventResponse
	if err := json.Unmarshal(answer, &response); err != nil {
		h.log().Error("an answer cannot be read; its messages come back", "function", f.Name, "error", err)
		return
	}
	failed := make(map[string]bool, len(response.BatchItemFailures))
	for _, item := range response.BatchItemFailures {
		if !slices.ContainsFunc(batch, func(m queue.Received) bool { return m.ID == item.ItemIdentifier }) {
			h.log().Error("an answer names a message that was not in the batch; all of them come back", "function", f.Name, "message", item.ItemIdentifier)
			return
		}
		failed[item.ItemIdentifier] = true
	}
	var deleting sync.WaitGroup
	defer deleting.Wait()
	for _, m := range batch {
		if failed[m.ID] {
			continue
		}
		deleting.Go(func() {
			if err := q.Delete(ctx, m.Receipt); err != nil {
				h.log().Error("a message that is done could not be deleted", "queue", f.Eats.Queue, "error", err)
			}
		})
	}
}

func batchEvent(queueName string, batch []queue.Received) events.SQSEvent {
	var e events.SQSEvent
	for _, m := range batch {
		attributes := map[string]string{"ApproximateReceiveCount": strconv.Itoa(m.Receives)}
		if m.Group != "" {
			attributes["MessageGroupId"] = m.Group
		}
		e.Records = append(e.Records, events.SQSMessage{
			MessageId: m.ID, ReceiptHandle: m.Receipt, Body: m.Body, Attributes: attributes,
			EventSource: "aws:sqs", EventSourceARN: "arn:aws:sqs:local:000000000000:" + queueName, AWSRegion: "local",
		})
	}
	return e
}

// tick invokes the function with the clock's event, the first time at once.
func (h *Host) tick(ctx context.Context, f infra.Function) {
	every := f.Every
	if h.Every > 0 {
		every = h.Every
	}
	for {
		e := events.EventBridgeEvent{
			Version: "0", ID: uuid.NewString(), DetailType: "Scheduled Event", Source: "aws.events", AccountID: "000000000000",
			Time: time.Now().UTC().Truncate(time.Second), Region: "local", Resources: []string{"arn:aws:events:local:000000000000:rule/muster"}, Detail: json.RawMessage("{}"),
		}
		if _, err := h.call(ctx, f, e); err != nil && ctx.Err() == nil {
			h.log().Error("a tick failed", "function", f.Name, "error", err)
		}
		if pause(ctx, every) != nil {
			return
		}
	}
}

// visibility is how long a queue hides what was received.
func visibility(name string) time.Duration {
	for _, q := range infra.Queues {
		if q.Name == name {
			return q.Visibility
		}
	}
	return time.Minute
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *Host) log() *slog.Logger {
	if h.Log != nil {
		return h.Log
	}
	return slog.Default()
}
