package faults_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"muster/infra"
	"muster/shared/dynamo"
	"muster/shared/emulator"
	"muster/shared/queue"
	"muster/shared/sqs"
)

// onAWS keeps everything in the adapters of AWS, on emulators.
func onAWS(t *testing.T, _ func() time.Time) backend {
	records := dynamodb.NewFromConfig(emulator.Config(emulator.DynamoDB(t)))
	client := awssqs.NewFromConfig(emulator.Config(emulator.SQS(t)))
	suffix := strconv.FormatInt(time.Now().UnixNano(), 36)
	if _, err := records.CreateTable(t.Context(), dynamo.Table("faults-"+suffix)); err != nil {
		t.Fatal(err)
	}
	create := func(name string, attributes map[string]string) string {
		out, err := client.CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: aws.String(name + "-" + suffix), Attributes: attributes})
		if err != nil {
			t.Fatal(err)
		}
		return *out.QueueUrl
	}
	b := backend{records: dynamo.New(records, "faults-"+suffix), queues: map[string]queue.Queue{}}
	for _, q := range infra.Queues {
		dead := create("dead-"+q.Name, nil)
		got, err := client.GetQueueAttributes(t.Context(), &awssqs.GetQueueAttributesInput{
			QueueUrl: &dead, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
		})
		if err != nil {
			t.Fatal(err)
		}
		redrive := fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%d}`, got.Attributes["QueueArn"], q.Receives)
		b.queues[q.Name] = sqs.New(client, create(q.Name, map[string]string{"RedrivePolicy": redrive}), dead)
	}
	return b
}

// hasty is a queue on a clock that cannot be moved: it waits and hides for a second at most.
type hasty struct{ queue.Queue }

func (q hasty) Send(ctx context.Context, messages ...queue.Message) error {
	for i := range messages {
		messages[i].Delay = min(messages[i].Delay, time.Second)
	}
	return q.Queue.Send(ctx, messages...)
}

func (q hasty) Receive(ctx context.Context, most int, wait, visible time.Duration) ([]queue.Received, error) {
	got, err := q.Queue.Receive(ctx, most, min(wait, time.Second), min(visible, 2*time.Second))
	for i := range got {
		got[i].Receives = 1 // being in a hurry is no fault of the message
	}
	return got, err
}

func (q hasty) Hide(ctx context.Context, receipt string, d time.Duration) error {
	return q.Queue.Hide(ctx, receipt, min(d, time.Second))
}

// TestNoFaultBreaksARunOnAWS plays a sample on the other adapters; a queue there has a clock of its own, which takes its time.
func TestNoFaultBreaksARunOnAWS(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(t *testing.T, now func() time.Time) backend {
		b := onAWS(t, now)
		for name, q := range b.queues {
			b.queues[name] = hasty{q}
		}
		b.patience = time.Second
		return b
	})
	sample, pairs := 4, 1
	if *soak {
		sample, pairs = 30, 10
	}
	breakRuns(t, s, sample, pairs)
}
