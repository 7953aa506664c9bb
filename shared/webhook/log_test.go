package webhook_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/storetest"
	"muster/shared/webhook"
)

func TestTheLogOfAnEndpoint(t *testing.T) {
	ctx := t.Context()
	// The index keeps nothing of what expires, and the days of this test lie in the past.
	deliveries := webhook.Deliveries{Store: &storetest.Memory{Now: func() time.Time { return now }}}
	endpointID, other, first, second := id.New(), id.New(), id.New(), id.New()
	put := func(runID string, seq int, target, event string, status webhook.Status, minute int, parked bool) {
		t.Helper()
		d := webhook.New(runID, seq, target, "0", event, now.Add(time.Duration(minute)*time.Minute))
		d.Parts, d.Status, d.Parked = 1, status, parked
		if err := deliveries.Put(ctx, &d); err != nil {
			t.Fatal(err)
		}
	}
	put(first, 1, endpointID, "run.started", webhook.Succeeded, 1, false)
	put(first, 5, endpointID, "run.failed", webhook.Failed, 2, false)
	put(first, 5, other, "run.failed", webhook.Succeeded, 2, false)
	put(first, 5, "t1", "amp.crew", webhook.Succeeded, 2, false)
	put(second, 1, endpointID, "run.started", webhook.Pending, 3, true)
	put(second, 9, endpointID, "run.succeeded", webhook.Exhausted, 4, false)
	at := func(minute int) time.Time { return now.Add(time.Duration(minute) * time.Minute) }

	for _, c := range []struct {
		name string
		q    webhook.LogRequest
		want string // the minutes of those found
	}{
		{"all, parked ones too, newest first", webhook.LogRequest{}, "[4 3 2 1]"},
		{"by status", webhook.LogRequest{Statuses: []webhook.Status{webhook.Failed, webhook.Exhausted}}, "[4 2]"},
		{"by event", webhook.LogRequest{Event: "run.started"}, "[3 1]"},
		{"by run", webhook.LogRequest{RunID: first}, "[2 1]"},
		{"of all targets of a run", webhook.LogRequest{RunID: second, Endpoint: "*"}, "[4 3]"},
		{"by run and event", webhook.LogRequest{RunID: first, Event: "run.failed"}, "[2]"},
		{"by run and time", webhook.LogRequest{RunID: first, Since: at(2)}, "[2]"},
		{"from a time on", webhook.LogRequest{Since: at(3)}, "[4 3]"},
		{"up to a time", webhook.LogRequest{Until: at(2)}, "[2 1]"},
		{"between times", webhook.LogRequest{Since: at(2), Until: at(3)}, "[3 2]"},
		{"nothing like this", webhook.LogRequest{Event: "run.waiting"}, "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, limit := range []int{1, 2, 100} {
				if c.q.Limit, c.q.Cursor = limit, ""; c.q.Endpoint == "" {
					c.q.Endpoint = endpointID
				} else if c.q.Endpoint == "*" {
					c.q.Endpoint = ""
				}
				minutes := []int{}
				for {
					found, next, err := deliveries.Log(ctx, c.q)
					if err != nil || len(found) > limit {
						t.Fatalf("%d found, %v", len(found), err)
					}
					for _, d := range found {
						minutes = append(minutes, int(d.CreatedAt.Sub(now).Minutes()))
					}
					if next == "" {
						break
					}
					c.q.Cursor = next
				}
				if diff := cmp.Diff(c.want, fmt.Sprint(minutes)); diff != "" {
					t.Errorf("%d at a time (-want +got):\n%s", limit, diff)
				}
			}
		})
	}

	if _, _, err := deliveries.Log(ctx, webhook.LogRequest{Endpoint: endpointID, Cursor: "x"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a cursor of nobody: %v", err)
	}
	all, err := deliveries.OfRun(ctx, first)
	if err != nil || len(all) != 4 || !slices.IsSortedFunc(all, func(a, b webhook.Delivery) int { return a.Seq - b.Seq }) {
		t.Errorf("%d of a run (%v)", len(all), err)
	}
}

func TestALogWhoseFilterLetsFewPassGoesOnInTheNextPage(t *testing.T) {
	ctx := t.Context()
	deliveries := webhook.Deliveries{Store: &storetest.Memory{Now: func() time.Time { return now }}}
	endpointID, runID := id.New(), id.New()
	for seq := range 450 {
		d := webhook.New(runID, seq+1, endpointID, "0", "run.started", now.Add(time.Duration(seq)*time.Second))
		d.Parts = 1
		if d.Status = webhook.Succeeded; seq == 0 {
			d.Status = webhook.Failed
		}
		if err := deliveries.Put(ctx, &d); err != nil {
			t.Fatal(err)
		}
	}
	q := webhook.LogRequest{Endpoint: endpointID, Statuses: []webhook.Status{webhook.Failed}}
	found, next, err := deliveries.Log(ctx, q)
	if err != nil || len(found) != 0 || next == "" {
		t.Fatalf("the first page has %d, next %q, %v", len(found), next, err)
	}
	q.Cursor = next
	if found, next, err = deliveries.Log(ctx, q); err != nil || len(found) != 1 || next != "" {
		t.Errorf("the second page has %d, next %q, %v", len(found), next, err)
	}
}

func TestParseStatus(t *testing.T) {
	for _, s := range webhook.Statuses {
		if got, err := webhook.ParseStatus(string(s)); got != s || err != nil {
			t.Errorf("%s: %s, %v", s, got, err)
		}
	}
	if _, err := webhook.ParseStatus("broken"); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}
