package sqs_test

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"muster/shared/emulator"
	"muster/shared/id"
	"muster/shared/queue"
	"muster/shared/queuetest"
	"muster/shared/sqs"
)

func TestTheSuiteOnElasticMQ(t *testing.T) {
	client := awssqs.NewFromConfig(emulator.Config(emulator.SQS(t)))
	queuetest.Run(t, queuetest.Backend{
		Open: func(t *testing.T, maxReceives int) queue.Queue {
			name := id.New()
			dead := newQueue(t, client, name+"-dead", nil)
			arn, err := client.GetQueueAttributes(t.Context(), &awssqs.GetQueueAttributesInput{
				QueueUrl: aws.String(dead), AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
			})
			if err != nil {
				t.Fatal(err)
			}
			url := newQueue(t, client, name, map[string]string{
				"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"%d"}`, arn.Attributes["QueueArn"], maxReceives),
			})
			return sqs.New(client, url, dead)
		},
	})
}

func newQueue(t *testing.T, client *awssqs.Client, name string, attributes map[string]string) string {
	t.Helper()
	out, err := client.CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: aws.String(name), Attributes: attributes})
	if err != nil {
		t.Fatal(err)
	}
	return *out.QueueUrl
}
