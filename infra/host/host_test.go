package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"muster/infra"
	"muster/infra/host"
	"muster/shared/queue"
	"muster/shared/sqlite"
	"muster/shared/sqlite/sqlitetest"
)

// What a function answers for a batch of three decides which of its messages are deleted.
func TestPartialFailuresAreTakenAsLambdaTakesThem(t *testing.T) {
	all := []string{"a", "b", "c"}
	for _, c := range []struct {
		name   string
		answer func(ids map[string]string) (string, error)
		stay   []string
	}{
		{"an empty list is success", func(map[string]string) (string, error) { return `{"batchItemFailures":[]}`, nil }, nil},
		{"null is success", func(map[string]string) (string, error) { return `null`, nil }, nil},
		{"a null list is success", func(map[string]string) (string, error) { return `{"batchItemFailures":null}`, nil }, nil},
		{"an empty answer is success", func(map[string]string) (string, error) { return `{}`, nil }, nil},
		{"what is named comes back", failing("b"), []string{"b"}},
		{"all of it may", failing("a", "b", "c"), all},
		{"named twice is named", failing("c", "c"), []string{"c"}},
		{"an unknown id brings all of it back", failing("a", "nobody"), all},
		{"an empty id brings all of it back", failing("a", ""), all},
		{"an answer of another kind brings all of it back", func(map[string]string) (string, error) { return `"done"`, nil }, all},
		{"an error brings all of it back", func(map[string]string) (string, error) { return "", errors.New("the function died") }, all},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			db := sqlitetest.Temp(t)
			q := db.Queue("deliveries", sqlite.QueueOptions{})
			for _, body := range all {
				if err := q.Send(ctx, queue.Message{Body: body}); err != nil {
					t.Fatal(err)
				}
			}
			h := host.Host{
				Queues: map[string]queue.Queue{infra.Runs: db.Queue("runs", sqlite.QueueOptions{}), infra.Deliveries: q},
				Invoke: func(_ context.Context, function string, event []byte) ([]byte, error) {
					if function != "dispatcher" {
						return []byte("null"), nil
					}
					defer stop()
					answer, err := c.answer(idsOf(t, event))
					return []byte(answer), err
				},
				Log: slog.New(slog.DiscardHandler),
			}
			h.Run(ctx)
			if err := db.Wake(t.Context()); err != nil {
				t.Fatal(err)
			}
			got, err := q.Receive(t.Context(), queue.MaxReceive, 0, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			var stayed []string
			for _, m := range got {
				stayed = append(stayed, m.Body)
			}
			slices.Sort(stayed)
			if diff := cmp.Diff(stayed, c.stay); diff != "" {
				t.Errorf("what stayed in the queue (-got +want):\n%s", diff)
			}
		})
	}
}

// failing answers that the messages with these bodies failed; a body that is not there is taken for an id.
func failing(bodies ...string) func(ids map[string]string) (string, error) {
	return func(ids map[string]string) (string, error) {
		answer := `{"batchItemFailures":[`
		for i, body := range bodies {
			id, ok := ids[body]
			if !ok {
				id = body
			}
			if i > 0 {
				answer += ","
			}
			answer += fmt.Sprintf(`{"itemIdentifier":%q}`, id)
		}
		return answer + "]}", nil
	}
}

// idsOf gives the ids of an event's messages by their bodies.
func idsOf(t *testing.T, event []byte) map[string]string {
	var e events.SQSEvent
	if err := json.Unmarshal(event, &e); err != nil {
		t.Errorf("read the event: %v", err)
	}
	ids := map[string]string{}
	for _, m := range e.Records {
		ids[m.Body] = m.MessageId
	}
	return ids
}
