package dynamo_test

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"muster/shared/dynamo"
	"muster/shared/emulator"
	"muster/shared/id"
	"muster/shared/record"
	"muster/shared/storetest"
)

func TestTheSuiteOnDynoxide(t *testing.T) { suite(t, emulator.DynamoDB(t)) }

func TestTheSuiteOnDynamoDBLocal(t *testing.T) { suite(t, emulator.DynamoDBLocal(t)) }

func suite(t *testing.T, endpoint string) {
	client := dynamodb.NewFromConfig(emulator.Config(endpoint))
	storetest.Run(t, func(t *testing.T, now func() time.Time) record.Store {
		store := dynamo.New(client, newTable(t, client))
		store.Now = now
		return store
	})
}

func newTable(t *testing.T, client *dynamodb.Client) string {
	t.Helper()
	name := "muster-" + id.New()
	if _, err := client.CreateTable(t.Context(), dynamo.Table(name)); err != nil {
		t.Fatal(err)
	}
	in := &dynamodb.DescribeTableInput{TableName: aws.String(name)}
	if err := dynamodb.NewTableExistsWaiter(client).Wait(t.Context(), in, time.Minute); err != nil {
		t.Fatal(err)
	}
	return name
}
