// Package sqs is a queue on Amazon SQS: a standard queue whose groups are the tenants of a fair queue, and its dead-letter
// queue. SQS counts in whole seconds: what is to be hidden or delayed is rounded up, what is waited for down.
//
// Every send carries the message's group as its MessageGroupId, also one to the dead-letter queue. That alone makes a standard
// queue a fair one; the queue itself has no setting for it. Fairness is an order and no bound: while a group has more than its
// share in flight, messages of quiet groups are received before its own, and that is all. Nothing here is like MaxHeld of package
// sqlite; what keeps room for others on AWS is that many more messages can be in flight (the function's Concurrency times
// its Size) than one group is allowed before it counts as noisy.
package sqs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"muster/shared/fault"
	"muster/shared/queue"
)

const (
	maxEntries = 10      // messages in one request
	maxRequest = 1 << 20 // bytes of all bodies in one request
	maxWait    = 20 * time.Second
	maxReason  = 1000
	sendTries  = 3

	// reasonAttribute is the message attribute that says why a message was buried.
	reasonAttribute = "reason"
)

// Queue is one queue and its dead-letter queue.
type Queue struct {
	client    *sqs.Client
	url, dead *string
}

var _ queue.Queue = (*Queue)(nil)

// New gives the queue at a URL, with its dead-letter queue.
func New(client *sqs.Client, queueURL, deadURL string) *Queue {
	return &Queue{client, aws.String(queueURL), aws.String(deadURL)}
}

// Send sends messages, ten in a request. An entry that SQS refuses through no fault of ours is tried again.
func (q *Queue) Send(ctx context.Context, messages ...queue.Message) error {
	for _, m := range messages {
		if err := m.Check(); err != nil {
			return err
		}
	}
	for len(messages) > 0 {
		n, size := 0, 0
		for n < len(messages) && n < maxEntries && size+len(messages[n].Body) <= maxRequest {
			size += len(messages[n].Body)
			n++
		}
		if err := q.sendBatch(ctx, messages[:n]); err != nil {
			return fmt.Errorf("send to the queue %s: %w", *q.url, err)
		}
		messages = messages[n:]
	}
	return nil
}

func (q *Queue) sendBatch(ctx context.Context, messages []queue.Message) error {
	var entries []types.SendMessageBatchRequestEntry
	for i, m := range messages {
		entries = append(entries, types.SendMessageBatchRequestEntry{
			Id: aws.String(strconv.Itoa(i)), MessageBody: aws.String(m.Body), MessageGroupId: optional(m.Group), DelaySeconds: seconds(m.Delay),
		})
	}
	for try := 1; ; try++ {
		out, err := q.client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: q.url, Entries: entries})
		if err != nil {
			return err
		}
		if len(out.Failed) == 0 {
			return nil
		}
		again := map[string]bool{}
		for _, f := range out.Failed {
			if f.SenderFault || try == sendTries {
				return fmt.Errorf("%d of %d messages were refused, the first with %s: %s",
					len(out.Failed), len(messages), aws.ToString(f.Code), aws.ToString(f.Message))
			}
			again[aws.ToString(f.Id)] = true
		}
		var rest []types.SendMessageBatchRequestEntry
		for _, e := range entries {
			if again[*e.Id] {
				rest = append(rest, e)
			}
		}
		entries = rest
		select {
		case <-time.After(time.Duration(try) * 100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Receive receives messages by one long poll.
func (q *Queue) Receive(ctx context.Context, max int, wait, visible time.Duration) ([]queue.Received, error) {
	if max < 1 || max > queue.MaxReceive || visible <= 0 || visible > queue.MaxHide {
		return nil, fmt.Errorf("cannot receive %d messages for %s from the queue %s", max, visible, *q.url)
	}
	out, err := q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: q.url, MaxNumberOfMessages: int32(max), VisibilityTimeout: seconds(visible),
		WaitTimeSeconds: int32(min(wait, maxWait) / time.Second),
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{
			types.MessageSystemAttributeNameApproximateReceiveCount, types.MessageSystemAttributeNameMessageGroupId,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("receive from the queue %s: %w", *q.url, err)
	}
	var got []queue.Received
	for _, m := range out.Messages {
		receives, err := strconv.Atoi(m.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)])
		if err != nil {
			return nil, fmt.Errorf("receive from the queue %s: the receive count: %w", *q.url, err)
		}
		got = append(got, queue.Received{
			Message: message(m), ID: aws.ToString(m.MessageId), Receipt: aws.ToString(m.ReceiptHandle), Receives: receives,
		})
	}
	return got, nil
}

// Delete removes a message for good.
func (q *Queue) Delete(ctx context.Context, receipt string) error {
	_, err := q.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: q.url, ReceiptHandle: aws.String(receipt)})
	if err != nil && !isLost(err) {
		return fmt.Errorf("delete from the queue %s: %w", *q.url, err)
	}
	return nil
}

// Hide hides a message for d from now. SQS holds a message for at most twelve hours altogether; past them the receipt
// counts as lost.
func (q *Queue) Hide(ctx context.Context, receipt string, d time.Duration) error {
	if d < 0 || d > queue.MaxHide {
		return fmt.Errorf("cannot hide a message of the queue %s for %s", *q.url, d)
	}
	_, err := q.client.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{
		QueueUrl: q.url, ReceiptHandle: aws.String(receipt), VisibilityTimeout: seconds(d),
	})
	if isLost(err) {
		return fault.Wrap(err, fault.NotFound, "This message is no longer held by whoever received it.")
	}
	if err != nil {
		return fmt.Errorf("hide a message of the queue %s: %w", *q.url, err)
	}
	return nil
}

// Bury sends a message to the dead-letter queue, then deletes it: a death in between leaves it in both.
func (q *Queue) Bury(ctx context.Context, m queue.Received, reason string) error {
	_, err := q.client.SendMessage(ctx, &sqs.SendMessageInput{
		QueueUrl: q.dead, MessageBody: aws.String(m.Body), MessageGroupId: optional(m.Group),
		MessageAttributes: map[string]types.MessageAttributeValue{
			reasonAttribute: {DataType: aws.String("String"), StringValue: aws.String(printable(reason))},
		},
	})
	if err != nil {
		return fmt.Errorf("bury a message of the queue %s: %w", *q.url, err)
	}
	return q.Delete(ctx, m.Receipt)
}

// look is how long Buried hides the messages that it looks at, so that the next request gives others. They are shown
// again at the end; this is for when that fails.
const look = 10 * time.Second

// Buried lists messages of the dead-letter queue. SQS has no listing: the messages are received and shown again, so two
// that look at once may each see a part.
func (q *Queue) Buried(ctx context.Context, max int) ([]queue.Dead, error) {
	var (
		dead  []queue.Dead
		taken []types.ChangeMessageVisibilityBatchRequestEntry
	)
	for len(dead) < max {
		out, err := q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: q.dead, MaxNumberOfMessages: int32(min(max-len(dead), queue.MaxReceive)),
			WaitTimeSeconds: 1, VisibilityTimeout: seconds(look),
			MessageAttributeNames: []string{reasonAttribute},
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{
				types.MessageSystemAttributeNameMessageGroupId, types.MessageSystemAttributeNameDeadLetterQueueSourceArn,
			},
		})
		if err != nil {
			return nil, fmt.Errorf("look into the dead-letter queue %s: %w", *q.dead, err)
		}
		if len(out.Messages) == 0 {
			break
		}
		for _, m := range out.Messages {
			d := queue.Dead{Message: message(m), ID: aws.ToString(m.MessageId), Reason: queue.TooOften}
			// One that was buried, moved back and then received too often still has the reason of the first time. What SQS
			// moved by itself has a source.
			_, byItself := m.Attributes[string(types.MessageSystemAttributeNameDeadLetterQueueSourceArn)]
			if reason, told := m.MessageAttributes[reasonAttribute]; told && !byItself {
				d.Reason = aws.ToString(reason.StringValue)
			}
			dead = append(dead, d)
			taken = append(taken, types.ChangeMessageVisibilityBatchRequestEntry{
				Id: aws.String(strconv.Itoa(len(taken))), ReceiptHandle: m.ReceiptHandle,
			})
		}
	}
	for len(taken) > 0 {
		n := min(len(taken), maxEntries)
		_, err := q.client.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: q.dead, Entries: taken[:n]})
		if err != nil {
			return nil, fmt.Errorf("show again what is in the dead-letter queue %s: %w", *q.dead, err)
		}
		taken = taken[n:]
	}
	return dead, nil
}

// Redrive starts a task that SQS works off by itself. There can be one per queue: where one is under way, that one is told
// of. The destination is named, because SQS does not know where a message came from that Bury has sent.
func (q *Queue) Redrive(ctx context.Context, perSecond int) (queue.Move, error) {
	if perSecond < 0 || perSecond > queue.MaxRate {
		return queue.Move{}, fmt.Errorf("cannot move %d messages of the queue %s in a second", perSecond, *q.url)
	}
	from, err := q.arn(ctx, q.dead)
	if err != nil {
		return queue.Move{}, err
	}
	to, err := q.arn(ctx, q.url)
	if err != nil {
		return queue.Move{}, err
	}
	task := &sqs.StartMessageMoveTaskInput{SourceArn: from, DestinationArn: to}
	if perSecond > 0 {
		task.MaxNumberOfMessagesPerSecond = aws.Int32(int32(perSecond))
	}
	for left := moveTries; ; left-- {
		_, refused := q.client.StartMessageMoveTask(ctx, task)
		move, err := q.newestMove(ctx, from)
		switch {
		case refused == nil && err != nil:
			return queue.Move{UnderWay: true}, nil // it has begun, and nobody knows how far it is
		case refused == nil || move.UnderWay:
			return move, nil
		case err == nil && left > 0 && (code(refused) == "UnsupportedOperation" || code(refused) == "InvalidParameterValue"):
			continue // another task was under way, and is not any more
		}
		return queue.Move{}, fmt.Errorf("move what is in the dead-letter queue %s: %w", *q.dead, refused)
	}
}

// moveTries is how often a task is started again that was refused because of another, which ended meanwhile.
const moveTries = 3

// newestMove says how far the newest task is that moves messages of a queue.
func (q *Queue) newestMove(ctx context.Context, from *string) (move queue.Move, err error) {
	tasks, err := q.client.ListMessageMoveTasks(ctx, &sqs.ListMessageMoveTasksInput{SourceArn: from, MaxResults: aws.Int32(1)})
	if err != nil || len(tasks.Results) == 0 {
		return move, err
	}
	newest := tasks.Results[0]
	move.UnderWay = aws.ToString(newest.Status) == "RUNNING"
	move.Moved, move.All = int(newest.ApproximateNumberOfMessagesMoved), int(aws.ToInt64(newest.ApproximateNumberOfMessagesToMove))
	return move, nil
}

func (q *Queue) arn(ctx context.Context, url *string) (*string, error) {
	out, err := q.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
	})
	if err != nil {
		return nil, fmt.Errorf("ask for the ARN of the queue %s: %w", *url, err)
	}
	return aws.String(out.Attributes[string(types.QueueAttributeNameQueueArn)]), nil
}

func message(m types.Message) queue.Message {
	return queue.Message{Body: aws.ToString(m.Body), Group: m.Attributes[string(types.MessageSystemAttributeNameMessageGroupId)]}
}

// isLost tells the errors of a receipt that does not hold.
func isLost(err error) bool {
	switch code(err) {
	case "MessageNotInflight", "ReceiptHandleIsInvalid", "InvalidParameterValue":
		return true
	}
	return false
}

// code gives the code of an error of SQS, which is bare, or behind a name space that ends with '.' or '#'.
func code(err error) string {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return ""
	}
	return api.ErrorCode()[strings.LastIndexAny(api.ErrorCode(), ".#")+1:]
}

func seconds(d time.Duration) int32 { return int32((d + time.Second - 1) / time.Second) }

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// printable makes any text one that SQS takes as the value of an attribute.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '\ufffd' && r < '\U00010000' {
			return ' '
		}
		return r
	}, s)
	s = strings.ToValidUTF8(s[:min(len(s), maxReason)], "")
	if s == "" {
		return "no reason was given"
	}
	return s
}
