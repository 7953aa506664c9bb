package dynamo

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// The attributes of an item. An item is in an index only while it has both attributes of that index's key.
const (
	part = "pk"
	sort = "sk"
	rev  = "rev"
	body = "body"
	// due is the due index: its partition is the shard, its sort key the time.
	due, dueShard, dueTime = "gsi1", "gsi1pk", "gsi1sk"
	// list is the index of lists: its partition is the list, its sort key the order.
	list, listName, listOrder = "gsi2", "gsi2pk", "gsi2sk"
	// expires is the TTL attribute, in seconds.
	expires = "expires"
)

// Table is the definition of the table. On AWS the template makes the table, and a test of infra compares it with this.
//
// The indexes carry keys, and when an item expires, which never changes: so most puts of an item do not write to them. TTL on the attribute expires is switched on by a second call, which the template makes.
func Table(name string) *dynamodb.CreateTableInput {
	key := func(part, sort string) []types.KeySchemaElement {
		return []types.KeySchemaElement{
			{AttributeName: aws.String(part), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String(sort), KeyType: types.KeyTypeRange},
		}
	}
	keysOnly := &types.Projection{ProjectionType: types.ProjectionTypeInclude, NonKeyAttributes: []string{expires}}
	in := &dynamodb.CreateTableInput{
		TableName:   aws.String(name),
		BillingMode: types.BillingModePayPerRequest,
		KeySchema:   key(part, sort),
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{
			IndexName:  aws.String(due),
			KeySchema:  key(dueShard, dueTime),
			Projection: keysOnly,
		}, {
			IndexName:  aws.String(list),
			KeySchema:  key(listName, listOrder),
			Projection: keysOnly,
		}},
	}
	for _, name := range []string{part, sort, dueShard, dueTime, listName, listOrder} {
		in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{
			AttributeName: aws.String(name), AttributeType: types.ScalarAttributeTypeS,
		})
	}
	return in
}
