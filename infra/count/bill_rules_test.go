package count_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

func TestWritesAreBilledAsDynamoDBDoes(t *testing.T) {
	type attributes map[string]string
	of := func(a attributes) item {
		it := item{"pk": &types.AttributeValueMemberS{Value: "p"}, "sk": &types.AttributeValueMemberS{Value: "s"}}
		for name, value := range a {
			it[name] = &types.AttributeValueMemberS{Value: value}
		}
		return it
	}
	large := strings.Repeat("x", 1500)
	refused := errors.New("the condition failed")
	for _, c := range []struct {
		name            string
		before, after   attributes
		err             error
		writes, indexes int
	}{
		{"a small item is one unit", nil, attributes{}, nil, 1, 0},
		{"an item above 1 KB is two", nil, attributes{"body": large}, nil, 2, 0},
		{"a smaller item in a large one's place costs as much as the large one", attributes{"body": large}, attributes{}, nil, 2, 0},
		{"a delete costs as much as what was there", attributes{"body": large}, nil, nil, 2, 0},
		{"a failed condition costs as much as what is there", attributes{"body": large}, attributes{"gsi1pk": "a", "gsi1sk": "1"}, refused, 2, 0},
		{"an entry of an index is one more", nil, attributes{"gsi1pk": "a", "gsi1sk": "1"}, nil, 1, 1},
		{"half a key is no entry", nil, attributes{"gsi1pk": "a"}, nil, 1, 0},
		{"what an index does not show changes nothing in it", attributes{"gsi1pk": "a", "gsi1sk": "1"}, attributes{"gsi1pk": "a", "gsi1sk": "1", "rev": "2"}, nil, 1, 0},
		{"a moved entry is a delete and a put", attributes{"gsi1pk": "a", "gsi1sk": "1"}, attributes{"gsi1pk": "a", "gsi1sk": "2"}, nil, 1, 2},
		{"an entry that goes is one", attributes{"gsi1pk": "a", "gsi1sk": "1", "gsi2pk": "l", "gsi2sk": "1"}, attributes{"gsi2pk": "l", "gsi2sk": "1"}, nil, 1, 1},
	} {
		b := newBill()
		if c.before != nil {
			b.count(&dynamodb.PutItemInput{Item: of(c.before)}, nil, nil)
			b.lines = nil
		}
		if c.after != nil {
			b.count(&dynamodb.PutItemInput{Item: of(c.after)}, nil, c.err)
		} else {
			b.count(&dynamodb.DeleteItemInput{Key: of(attributes{})}, nil, c.err)
		}
		if got := b.sum(""); got.writes != c.writes || got.indexWrites != c.indexes {
			t.Errorf("%s: got %d and %d of indexes, want %d and %d", c.name, got.writes, got.indexWrites, c.writes, c.indexes)
		}
	}
}

func TestReadsAreBilledAsDynamoDBDoes(t *testing.T) {
	it := func(size int) item {
		return item{"body": &types.AttributeValueMemberB{Value: make([]byte, size-len("body"))}}
	}
	query := func(consistent bool, sizes ...int) (*dynamodb.QueryInput, *dynamodb.QueryOutput) {
		out := &dynamodb.QueryOutput{}
		for _, size := range sizes {
			out.Items = append(out.Items, it(size))
		}
		return &dynamodb.QueryInput{ConsistentRead: aws.Bool(consistent)}, out
	}
	for _, c := range []struct {
		name       string
		consistent bool
		sizes      []int
		want       float64
	}{
		{"nothing found is one unit", true, nil, 1},
		{"4 KB are one", true, []int{4096}, 1},
		{"a byte more is two", true, []int{4097}, 2},
		{"the items of a query are added up before they are rounded", true, []int{1000, 2000, 1000}, 1},
		{"a read that may be stale is half", false, []int{4097}, 1},
	} {
		b := newBill()
		in, out := query(c.consistent, c.sizes...)
		b.count(in, out, nil)
		if got := b.sum("").reads; got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
