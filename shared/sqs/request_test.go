package sqs_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/go-cmp/cmp"

	"muster/shared/emulator"
	"muster/shared/fault"
	"muster/shared/queue"
	"muster/shared/sqs"
)

type members = map[string]any

// asked gives a queue whose requests are kept in the list, and answered one after the other; the last answer stays.
func asked(answers ...members) (*sqs.Queue, *[]members) {
	var requests []members
	fake := emulator.Fake(func(action string, in map[string]any) (int, any, error) {
		in["Action"] = action
		requests = append(requests, in)
		n := min(len(requests), len(answers)) - 1
		if code, failed := answers[n]["__type"]; failed && code != "" {
			return 400, answers[n], nil
		}
		return 200, answers[n], nil
	})
	client := awssqs.NewFromConfig(fake.Config(), func(o *awssqs.Options) { o.DisableMessageChecksumValidation = true })
	return sqs.New(client, "http://fake.invalid/q", "http://fake.invalid/dead"), &requests
}

func sent(request members) (bodies []string) {
	for _, e := range request["Entries"].([]any) {
		bodies = append(bodies, e.(members)["MessageBody"].(string))
	}
	return bodies
}

func TestSend(t *testing.T) {
	half := strings.Repeat("x", queue.MaxBody/2)
	failed := func(senderFault bool, ids ...string) members {
		var entries []members
		for _, id := range ids {
			entries = append(entries, members{"Id": id, "Code": "InternalError", "Message": "not now", "SenderFault": senderFault})
		}
		return members{"Failed": entries}
	}
	var many []queue.Message
	for i := range 12 {
		many = append(many, queue.Message{Body: fmt.Sprint(i)})
	}
	for _, c := range []struct {
		name     string
		messages []queue.Message
		answers  []members
		want     [][]string // the bodies of each request
		fails    string
	}{
		{"nothing is no request", nil, []members{{}}, nil, ""},
		{"ten go in one request", many, []members{{}}, [][]string{{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}, {"10", "11"}}, ""},
		{"a request has at most a mebibyte", []queue.Message{{Body: half}, {Body: half}, {Body: half}}, []members{{}}, [][]string{{half, half}, {half}}, ""},
		{"what SQS failed at is sent again, and only that", many[:3], []members{failed(false, "0", "2"), failed(false, "2"), {}}, [][]string{{"0", "1", "2"}, {"0", "2"}, {"2"}}, ""},
		{"what SQS blames on us is not sent again", many[:2], []members{failed(true, "1")}, [][]string{{"0", "1"}}, "1 of 2 messages were refused, the first with InternalError: not now"},
		{"after three tries it fails", many[:1], []members{failed(false, "0")}, [][]string{{"0"}, {"0"}, {"0"}}, "1 of 1 messages were refused"},
		{"a failed batch ends the sending", many, []members{failed(true, "0")}, [][]string{{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}}, "1 of 10 messages"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, requests := asked(c.answers...)
				err := q.Send(t.Context(), c.messages...)
				if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
					t.Errorf("got the error %v, want %q", err, c.fails)
				}
				var got [][]string
				for _, r := range *requests {
					got = append(got, sent(r))
				}
				if diff := cmp.Diff(got, c.want); diff != "" {
					t.Errorf("unexpected requests (-got +want):\n%s", diff)
				}
			})
		})
	}
}

func TestRequests(t *testing.T) {
	const url = "http://fake.invalid/q"
	for _, c := range []struct {
		name   string
		call   func(q *sqs.Queue) error
		answer members
		want   []members
	}{
		{"a send rounds the delay up and names the group", func(q *sqs.Queue) error {
			return q.Send(t.Context(), queue.Message{Body: "a", Group: "run/1", Delay: 1200 * time.Millisecond}, queue.Message{Body: "b"})
		}, members{}, []members{{"Action": "SendMessageBatch", "QueueUrl": url, "Entries": []any{
			members{"Id": "0", "MessageBody": "a", "MessageGroupId": "run/1", "DelaySeconds": 2.0},
			members{"Id": "1", "MessageBody": "b"},
		}}}},
		{"a receive waits no longer than it may and hides no shorter", func(q *sqs.Queue) error {
			_, err := q.Receive(t.Context(), 10, 30*time.Second, 64500*time.Millisecond)
			return err
		}, members{}, []members{{
			"Action": "ReceiveMessage", "QueueUrl": url, "MaxNumberOfMessages": 10.0, "WaitTimeSeconds": 20.0, "VisibilityTimeout": 65.0,
			"MessageSystemAttributeNames": []any{"ApproximateReceiveCount", "MessageGroupId"},
		}}},
		{"hiding for no time says so", func(q *sqs.Queue) error { return q.Hide(t.Context(), "r", 0) },
			members{}, []members{{"Action": "ChangeMessageVisibility", "QueueUrl": url, "ReceiptHandle": "r", "VisibilityTimeout": 0.0}}},
		{"burying sends before it deletes, with a reason that SQS takes", func(q *sqs.Queue) error {
			return q.Bury(t.Context(), queue.Received{Message: queue.Message{Body: "b", Group: "g"}, Receipt: "r"}, "line 1\n\x00"+strings.Repeat("\u00e9", 1000))
		}, members{}, []members{
			{"Action": "SendMessage", "QueueUrl": "http://fake.invalid/dead", "MessageBody": "b", "MessageGroupId": "g", "MessageAttributes": members{
				"reason": members{"DataType": "String", "StringValue": "line 1  " + strings.Repeat("\u00e9", 496)},
			}},
			{"Action": "DeleteMessage", "QueueUrl": url, "ReceiptHandle": "r"},
		}},
		{"burying without a reason has one", func(q *sqs.Queue) error {
			return q.Bury(t.Context(), queue.Received{Message: queue.Message{Body: "b"}, Receipt: "r"}, "")
		}, members{}, []members{
			{"Action": "SendMessage", "QueueUrl": "http://fake.invalid/dead", "MessageBody": "b", "MessageAttributes": members{
				"reason": members{"DataType": "String", "StringValue": "no reason was given"},
			}},
			{"Action": "DeleteMessage", "QueueUrl": url, "ReceiptHandle": "r"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, requests := asked(c.answer)
			if err := c.call(q); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(*requests, c.want); diff != "" {
				t.Errorf("unexpected requests (-got +want):\n%s", diff)
			}
		})
	}
}

func TestRedrive(t *testing.T) {
	arn := func(name string) members { return members{"Attributes": members{"QueueArn": "arn:" + name}} }
	tasks := func(status string) members {
		return members{"Results": []any{members{"Status": status, "ApproximateNumberOfMessagesMoved": 3, "ApproximateNumberOfMessagesToMove": 10}}}
	}
	busy := members{"__type": "com.amazonaws.sqs#InvalidParameterValue", "message": "There is already a task running."}
	broken := members{"__type": "com.amazonaws.sqs#ResourceNotFoundException", "message": "no such queue"}
	for _, c := range []struct {
		name    string
		answers []members
		want    queue.Move
		fails   bool
	}{
		{"a task begins", []members{arn("dead"), arn("q"), {"TaskHandle": "t"}, tasks("RUNNING")}, queue.Move{UnderWay: true, Moved: 3, All: 10}, false},
		{"a task was quick", []members{arn("dead"), arn("q"), {"TaskHandle": "t"}, tasks("COMPLETED")}, queue.Move{Moved: 3, All: 10}, false},
		{"one is under way already", []members{arn("dead"), arn("q"), busy, tasks("RUNNING")}, queue.Move{UnderWay: true, Moved: 3, All: 10}, false},
		{"another was under way until a moment ago", []members{
			arn("dead"), arn("q"), busy, tasks("COMPLETED"), {"TaskHandle": "t"}, tasks("RUNNING"),
		}, queue.Move{UnderWay: true, Moved: 3, All: 10}, false},
		{"it is refused again and again, and none is under way", []members{
			arn("dead"), arn("q"), busy, tasks("COMPLETED"), busy, tasks("COMPLETED"), busy, tasks("COMPLETED"), busy, tasks("COMPLETED"),
		}, queue.Move{}, true},
		{"it is refused and there was never one", []members{arn("dead"), arn("q"), broken, {"Results": []any{}}}, queue.Move{}, true},
		{"it has begun, and nobody knows more", []members{arn("dead"), arn("q"), {"TaskHandle": "t"}, broken}, queue.Move{UnderWay: true}, false},
		{"there is no such queue", []members{broken}, queue.Move{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, requests := asked(c.answers...)
			got, err := q.Redrive(t.Context(), 50)
			if got != c.want || (err != nil) != c.fails || fault.KindOf(err) != fault.Internal && err != nil {
				t.Errorf("got %+v and %v, want %+v, an error: %t", got, err, c.want, c.fails)
			}
			if len(*requests) < 3 {
				return
			}
			start := members{"Action": "StartMessageMoveTask", "SourceArn": "arn:dead", "DestinationArn": "arn:q", "MaxNumberOfMessagesPerSecond": 50.0}
			if diff := cmp.Diff((*requests)[2], start); diff != "" {
				t.Errorf("unexpected request (-got +want):\n%s", diff)
			}
		})
	}
}

func TestLostReceipts(t *testing.T) {
	for _, code := range []string{
		"ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight",
		"com.amazonaws.sqs#MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight",
	} {
		q, _ := asked(members{"__type": code, "message": "no"})
		if err := q.Hide(t.Context(), "r", time.Second); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: Hide gave %v, want fault.NotFound", code, err)
		}
		if err := q.Delete(t.Context(), "r"); err != nil {
			t.Errorf("%s: Delete gave %v, want nothing", code, err)
		}
	}
	q, _ := asked(members{"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "no"})
	if err := q.Hide(t.Context(), "r", time.Second); fault.KindOf(err) != fault.Internal {
		t.Errorf("Hide on no queue gave %v, want an error that is no fault", err)
	}
	if err := q.Delete(t.Context(), "r"); err == nil {
		t.Errorf("Delete on no queue gave no error")
	}
}
