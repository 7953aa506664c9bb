package invoke

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"muster/shared/queue"
)

const (
	// afterPanic is how long a message rests whose handler panicked.
	afterPanic = 30 * time.Second
	// patience is how long a message that is done waits for the others of its batch.
	patience = time.Second
)

// Source is the queue that a batch came from, as far as the answers of a handler need it.
type Source interface {
	// Hide, Bury and Delete are those of queue.Queue.
	Hide(ctx context.Context, receipt string, d time.Duration) error
	Bury(ctx context.Context, m queue.Received, reason string) error
	Delete(ctx context.Context, receipt string) error
}

// Batch answers events of an SQS event source mapping with ReportBatchItemFailures. Every message of a batch is handled
// at the same time as the others. One that is done is not reported, and Lambda deletes it; one to be retried is hidden
// for as long as the handler wished and reported as failed; one to be dropped is buried in the dead-letter queue and then
// counts as done. While a batch takes long, what is done of it is deleted at once: else it would count as in flight, and the
// queue would take the groups of fast messages for slow ones because of the company they came in.
func Batch(h queue.Handler, from Source) lambda.Handler { return batchHandler{h, from} }

type batchHandler struct {
	handler queue.Handler
	from    Source
}

// Invoke implements lambda.Handler. It fails, and Lambda retries the whole batch, only if the event is none.
func (b batchHandler) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	var event events.SQSEvent
	if err := decode(payload, &event, "messages of a queue"); err != nil {
		return nil, err
	}
	if len(event.Records) == 0 {
		return nil, errors.New("the event holds no message of a queue")
	}
	for _, m := range event.Records {
		if m.MessageId == "" || m.ReceiptHandle == "" {
			return nil, errors.New("the event holds a message without an id or a receipt")
		}
	}

	failed := b.settleAll(ctx, event.Records)

	// Lambda takes a missing list for "all failed", so it is empty rather than absent. A message that came twice is named once.
	answer := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
	named := map[string]bool{}
	for i, m := range event.Records {
		if failed[i] && !named[m.MessageId] {
			named[m.MessageId] = true
			answer.BatchItemFailures = append(answer.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
		}
	}
	return json.Marshal(answer)
}

// settleAll handles all messages at the same time, and says which of them failed.
func (b batchHandler) settleAll(ctx context.Context, all []events.SQSMessage) (failed []bool) {
	failed = make([]bool, len(all))
	settled := make(chan int, len(all))
	for i, m := range all {
		go func() {
			failed[i] = !b.settle(ctx, received(m))
			settled <- i
		}()
	}
	long := time.NewTimer(patience)
	defer long.Stop()
	var done []string
	isLong := false
	for left := len(all); left > 0; {
		select {
		case i := <-settled:
			if left--; !failed[i] {
				done = append(done, all[i].ReceiptHandle)
			}
		case <-long.C:
			isLong = true
		}
		if !isLong || left == 0 {
			continue
		}
		for _, receipt := range done {
			if err := b.from.Delete(ctx, receipt); err != nil {
				slog.WarnContext(ctx, "A message that is done could not be deleted before the others of its batch.", "error", err)
			}
		}
		done = nil
	}
	return failed
}

// settle handles one message, does what the handler wishes, and says whether Lambda may delete it.
func (b batchHandler) settle(ctx context.Context, m queue.Received) (done bool) {
	answer := b.handle(ctx, m)
	if wait, retry := answer.Retry(); retry {
		if err := b.from.Hide(ctx, m.Receipt, wait); err != nil {
			slog.WarnContext(ctx, "A message could not be hidden; it comes back when its visibility ends.", "message", m.ID, "error", err)
		}
		return false
	}
	if reason, dropped := answer.Dropped(); dropped {
		if err := b.from.Bury(ctx, m, reason); err != nil {
			slog.ErrorContext(ctx, "A message could not be moved to the dead-letter queue.", "message", m.ID, "error", err)
			return false
		}
	}
	return true
}

func (b batchHandler) handle(ctx context.Context, m queue.Received) (answer queue.Answer) {
	ctx, cancel := early(ctx)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil {
			logPanic(ctx, "message "+m.ID, cause)
			answer = queue.RetryIn(afterPanic)
		}
	}()
	return b.handler(ctx, m)
}

func received(m events.SQSMessage) queue.Received {
	// An absent count is that of a first receive.
	receives, err := strconv.Atoi(m.Attributes["ApproximateReceiveCount"])
	if err != nil {
		receives = 1
	}
	return queue.Received{
		Message:  queue.Message{Body: m.Body, Group: m.Attributes["MessageGroupId"]},
		ID:       m.MessageId,
		Receipt:  m.ReceiptHandle,
		Receives: receives,
	}
}
