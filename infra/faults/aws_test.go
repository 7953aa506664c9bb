package faults_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"muster/infra"
	"muster/shared/config"
	"muster/shared/dynamo"
	"muster/shared/emulator"
	"muster/shared/queue"
	"muster/shared/sqs"
)

// onAWS keeps everything in the adapters of AWS, on emulators.
func onAWS(t *testing.T, now func() time.Time) backend {
	b, _ := onEmulators(t)
	return b
}

// onEmulators makes the table and the queues of the manifest, and gives the environment that names them to a function.
func onEmulators(t *testing.T) (b backend, env []string) {
	dynamoEndpoint, sqsEndpoint := emulator.DynamoDB(t), emulator.SQS(t)
	records := dynamodb.NewFromConfig(emulator.Config(dynamoEndpoint))
	client := awssqs.NewFromConfig(emulator.Config(sqsEndpoint))
	suffix := strconv.FormatInt(time.Now().UnixNano(), 36)
	table := "faults-" + suffix
	if _, err := records.CreateTable(t.Context(), dynamo.Table(table)); err != nil {
		t.Fatal(err)
	}
	create := func(name string, attributes map[string]string) string {
		out, err := client.CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: aws.String(name + "-" + suffix), Attributes: attributes})
		if err != nil {
			t.Fatal(err)
		}
		return *out.QueueUrl
	}
	b = backend{records: dynamo.New(records, table), queues: map[string]queue.Queue{}}
	env = []string{"AWS_ENDPOINT_URL_DYNAMODB=" + dynamoEndpoint, "AWS_ENDPOINT_URL_SQS=" + sqsEndpoint, config.TableKey + "=" + table}
	keys := map[string][2]string{
		infra.Runs:       {config.RunsURLKey, config.RunsDeadURLKey},
		infra.Deliveries: {config.DeliveriesURLKey, config.DeliveriesDeadURLKey},
	}
	for _, q := range infra.Queues {
		dead := create("dead-"+q.Name, nil)
		got, err := client.GetQueueAttributes(t.Context(), &awssqs.GetQueueAttributesInput{
			QueueUrl: &dead, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
		})
		if err != nil {
			t.Fatal(err)
		}
		redrive := fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%d}`, got.Attributes["QueueArn"], q.Receives)
		url := create(q.Name, map[string]string{"RedrivePolicy": redrive})
		b.queues[q.Name] = sqs.New(client, url, dead)
		env = append(env, keys[q.Name][0]+"="+url, keys[q.Name][1]+"="+dead)
	}
	return b, env
}

// onClockedAWS is onAWS on a clock that can be moved.
func onClockedAWS(t *testing.T, now func() time.Time) backend {
	b := onAWS(t, now)
	for name, q := range b.queues {
		b.queues[name] = &clocked{Queue: q, now: now, hidden: map[string]time.Time{}}
	}
	return b
}

// clocked is a queue that keeps time by a clock of the test. The queue behind it hides a message until it is told to show
// it, so nobody ever waits for it.
type clocked struct {
	queue.Queue
	now func() time.Time

	mu     sync.Mutex
	hidden map[string]time.Time // by receipt, and until when
	late   []late
}

// late is a message that is sent when its delay is over.
type late struct {
	queue.Message
	at time.Time
}

func (q *clocked) Send(ctx context.Context, messages ...queue.Message) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var soon []queue.Message
	for _, m := range messages {
		if m.Delay == 0 {
			soon = append(soon, m)
			continue
		}
		at := q.now().Add(m.Delay)
		m.Delay = 0
		q.late = append(q.late, late{m, at})
	}
	return q.Queue.Send(ctx, soon...)
}

func (q *clocked) Receive(ctx context.Context, most int, _, visible time.Duration) ([]queue.Received, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	for receipt, until := range q.hidden {
		if !until.After(now) {
			delete(q.hidden, receipt)
			_ = q.Queue.Hide(ctx, receipt, 0) // or it has gone meanwhile
		}
	}
	for i := len(q.late) - 1; i >= 0; i-- {
		if m := q.late[i]; !m.at.After(now) {
			if err := q.Queue.Send(ctx, m.Message); err != nil {
				return nil, err
			}
			q.late = slices.Delete(q.late, i, i+1)
		}
	}
	got, err := q.Queue.Receive(ctx, most, 0, time.Hour)
	for _, m := range got {
		q.hidden[m.Receipt] = now.Add(visible)
	}
	return got, err
}

func (q *clocked) Hide(ctx context.Context, receipt string, d time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	err := q.Queue.Hide(ctx, receipt, time.Hour)
	if err == nil {
		q.hidden[receipt] = q.now().Add(d)
	}
	return err
}

func (q *clocked) Delete(ctx context.Context, receipt string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.hidden, receipt)
	return q.Queue.Delete(ctx, receipt)
}

func (q *clocked) Bury(ctx context.Context, m queue.Received, reason string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.hidden, m.Receipt)
	return q.Queue.Bury(ctx, m, reason)
}
