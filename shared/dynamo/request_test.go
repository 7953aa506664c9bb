package dynamo_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/google/go-cmp/cmp"

	"muster/shared/dynamo"
	"muster/shared/emulator"
	"muster/shared/fault"
	"muster/shared/record"
)

type members = map[string]any

func TestAPutIsOneRequest(t *testing.T) {
	var requests []members
	store := dynamo.New(dynamodb.NewFromConfig(emulator.Fake(func(action string, in map[string]any) (int, any, error) {
		in["Action"] = action
		requests = append(requests, in)
		return 200, members{}, nil
	}).Config()), "muster")
	store.Now = func() time.Time { return time.Unix(1000, 999) }
	rev, err := store.Put(t.Context(), record.Record{
		Key: record.Key{Part: "run/1", Sort: "item"}, Rev: 7, Body: []byte("body"), Due: time.UnixMilli(1_700_000_000_123),
		List: "runs", Order: "2026", Expires: time.Unix(2000, 5),
	})
	if err != nil || rev != 8 {
		t.Fatalf("got revision %d and %v", rev, err)
	}
	want := []members{{
		"Action": "PutItem", "TableName": "muster", "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
		"ConditionExpression":       "rev = :rev AND (attribute_not_exists(expires) OR expires > :now)",
		"ExpressionAttributeValues": members{":rev": members{"N": "7"}, ":now": members{"N": "1000"}},
		"Item": members{
			"pk": members{"S": "run/1"}, "sk": members{"S": "item"}, "rev": members{"N": "8"}, "body": members{"B": "Ym9keQ=="},
			"gsi1pk": members{"S": "DUE#" + string(rune('0'+record.Shard("run/1")))}, "gsi1sk": members{"S": "001700000000123"},
			"gsi2pk": members{"S": "runs"}, "gsi2sk": members{"S": "2026"}, "expires": members{"N": "2000"},
		},
	}}
	if diff := cmp.Diff(requests, want); diff != "" {
		t.Errorf("unexpected requests (-got +want):\n%s", diff)
	}
}

func TestALostRaceIsToldByTheRefusalItself(t *testing.T) {
	requests := 0
	store := dynamo.New(dynamodb.NewFromConfig(emulator.Fake(func(action string, in map[string]any) (int, any, error) {
		requests++
		return 400, members{
			"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException", "message": "The conditional request failed",
			"Item": members{"pk": members{"S": "p"}, "sk": members{"S": "s"}, "rev": members{"N": "3"}},
		}, nil
	}).Config()), "muster")
	_, err := store.Put(t.Context(), record.Record{Key: record.Key{Part: "p", Sort: "s"}, Rev: 2})
	winner, there := record.Current(err)
	if !fault.Is(err, fault.Conflict) || !there || winner.Rev != 3 || requests != 1 {
		t.Errorf("got %v, the winner %+v, %t after %d requests", err, winner, there, requests)
	}
}

func TestFailuresOfTheBackend(t *testing.T) {
	throttled := members{"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", "message": "slow down"}
	for _, c := range []struct {
		name     string
		status   int
		answer   any
		err      error
		failures int
		want     fault.Kind
	}{
		{"throttling is tried again", 400, throttled, nil, 2, ""},
		{"throttling without end fails with no fault", 400, throttled, nil, 1000, fault.Internal},
		{"a lost connection is tried again", 0, nil, errors.New("connection reset by peer"), 2, ""},
		{"a server error without end fails with no fault", 500, members{}, nil, 1000, fault.Internal},
		{"a missing table fails with no fault", 400, members{"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"}, nil, 1000, fault.Internal},
		{"an item that is not ours fails with no fault", 200, members{"Item": members{"rev": members{"N": "1.5"}}}, nil, 1000, fault.Internal},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // the SDK sleeps between its tries
				requests := 0
				store := dynamo.New(dynamodb.NewFromConfig(emulator.Fake(func(action string, in map[string]any) (int, any, error) {
					if requests++; requests <= c.failures {
						return c.status, c.answer, c.err
					}
					return 200, members{"Item": members{"pk": members{"S": "p"}, "sk": members{"S": "s"}, "rev": members{"N": "1"}}}, nil
				}).Config()), "muster")
				_, err := store.Get(t.Context(), record.Key{Part: "p", Sort: "s"})
				if fault.KindOf(err) != c.want {
					t.Errorf("got %v after %d requests, want the kind %q", err, requests, c.want)
				}
			})
		})
	}
}
