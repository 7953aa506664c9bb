package deploywire_test

import (
	"strings"
	"testing"
	"time"

	"muster/shared/id"
	"muster/shared/queue"
	"muster/shared/workspace"
)

// die sends messages to a queue and buries them.
func (b *bench) die(queueAt int, reason string, messages ...queue.Message) {
	b.t.Helper()
	q := b.queues[queueAt]
	if err := q.Send(b.t.Context(), messages...); err != nil {
		b.t.Fatal(err)
	}
	got, err := q.Receive(b.t.Context(), queue.MaxReceive, 0, time.Minute)
	if err != nil || len(got) != len(messages) {
		b.t.Fatal(got, err)
	}
	for _, m := range got {
		if err := q.Bury(b.t.Context(), m, reason); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) received(queueAt int) (bodies []string) {
	b.t.Helper()
	got, err := b.queues[queueAt].Receive(b.t.Context(), queue.MaxReceive, 0, time.Minute)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, m := range got {
		bodies = append(bodies, m.Body)
	}
	return bodies
}

func TestDeadLettersAreShownWithTheirReasonAndMovedBack(t *testing.T) {
	b := newBench(t)
	nothing := object{"queues": []any{
		object{"queue": "runs", "messages": []any{}, "truncated": false}, object{"queue": "deliveries", "messages": []any{}, "truncated": false},
	}}
	b.check("nothing is dead", b.want(200, b.token, "GET", "/v1/dlq", ""), nothing)

	long := "not json " + strings.Repeat("\u00e9", 4000)
	b.die(0, "The message names no run.", queue.Message{Body: `{"run":7}`, Group: "g"})
	b.die(1, "The message is not the JSON of a delivery.", queue.Message{Body: long})
	reply := b.want(200, b.token, "GET", "/v1/dlq", "")
	b.check("the dead run", reply["queues"].([]any)[0], object{"queue": "runs", "truncated": false, "messages": []any{
		object{"id": "1", "reason": "The message names no run.", "group": "g", "message": object{"run": 7.0}},
	}})
	reply = b.want(200, b.token, "GET", "/v1/dlq?queue=deliveries", "")
	delivery := reply["queues"].([]any)[0].(object)["messages"].([]any)[0].(object)
	if said := delivery["message"].(string); !strings.HasPrefix(said, "not json ") || len(said) > 4<<10 || delivery["group"] != nil || delivery["reason"] != "The message is not the JSON of a delivery." {
		t.Errorf("the dead delivery is %v", delivery)
	}

	b.check("the deliveries alone", b.want(202, b.token, "POST", "/v1/dlq/redrive?queue=deliveries", ""),
		object{"queues": []any{object{"queue": "deliveries", "status": "done", "moved": 1.0, "messages": 1.0}}})
	b.check("twice", b.want(202, b.token, "POST", "/v1/dlq/redrive?queue=deliveries", ""),
		object{"queues": []any{object{"queue": "deliveries", "status": "done", "moved": 0.0, "messages": 0.0}}})
	b.check("what came back", b.received(1), []string{long})
	b.check("what did not", b.received(0), []string(nil))
	b.check("all of them", b.want(202, b.token, "POST", "/v1/dlq/redrive", `{"max_per_second":500}`), object{"queues": []any{
		object{"queue": "runs", "status": "done", "moved": 1.0, "messages": 1.0}, object{"queue": "deliveries", "status": "done", "moved": 0.0, "messages": 0.0},
	}})
	b.check("the run came back", b.received(0), []string{`{"run":7}`})
	b.check("nothing is dead any more", b.want(200, b.token, "GET", "/v1/dlq", ""), nothing)
}

func TestDeadLettersAreForWhoeverRunsTheWorkspace(t *testing.T) {
	b := newBench(t)
	inside := b.mint(workspace.Caller{Kind: workspace.Deployment, WorkspaceID: b.workspaceID, DeploymentID: id.New()})
	const kind = `This token is of the kind "deployment" and cannot be used for this.`
	b.refuse(403, "forbidden", kind, inside, "GET", "/v1/dlq", "")
	b.refuse(403, "forbidden", kind, inside, "POST", "/v1/dlq/redrive", "")
	const names = `"queue" must be one of runs, deliveries.`
	b.refuse(400, "bad_request", names, b.token, "GET", "/v1/dlq?queue=dead", "")
	b.refuse(400, "bad_request", names, b.token, "POST", "/v1/dlq/redrive?queue=dead", "")
	for _, body := range []string{`{"max_per_second":0}`, `{"max_per_second":501}`, `{"max_per_second":-1}`} {
		b.refuse(400, "bad_request", `"max_per_second" must be a whole number from 1 to 500.`, b.token, "POST", "/v1/dlq/redrive", body)
	}
	b.refuse(400, "bad_request", `"max_per_second" must be a whole number, and it is a string.`, b.token, "POST", "/v1/dlq/redrive", `{"max_per_second":"5"}`)
}
