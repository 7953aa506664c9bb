package sweep_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/crew"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/schedule"
	"muster/shared/storetest"
	"muster/shared/sweep"
)

// knocks counts the messages for each run, and fails for one.
type knocks struct {
	of     map[string]int
	broken string
}

func (k knocks) Send(_ context.Context, messages ...queue.Message) error {
	for _, m := range messages {
		if m.Group == k.broken {
			return errors.New("the queue is away")
		}
		k.of[m.Group]++
	}
	return nil
}

func TestSweep(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	sent := knocks{of: map[string]int{}}
	runs := &run.Service{Store: &storetest.Memory{}, Runs: &sent, Deliveries: &sent, Now: clock}
	start := func() string {
		r, err := runs.Start(t.Context(), run.StartRequest{Deployment: crew.Deployment{
			ID: "d", WorkspaceID: "w", Environments: map[string]crew.Pointer{"production": {VersionID: "v"}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return r.ID
	}
	queued, unlucky, held := start(), start(), start()
	if _, err := runs.Claim(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	clear(sent.of)
	sent.broken = unlucky
	var parked, fired []record.Key
	var out bytes.Buffer
	s := sweep.Sweeper{
		Store: runs.Store, Runs: runs, Now: clock, Report: sweep.EMF[run.Finding](&out, clock),
		Parked:   func(_ context.Context, k record.Key) error { parked = append(parked, k); return nil },
		Schedule: func(_ context.Context, k record.Key) error { fired = append(fired, k); return nil },
	}
	delivery := record.Key{Part: "R#" + queued, Sort: "D#000001#crew#0"}
	hourly := record.Key{Part: schedule.Partition + "d", Sort: "hourly"}
	for _, k := range []record.Key{delivery, hourly} {
		if _, err := runs.Store.Put(t.Context(), record.Record{Key: k, Due: now.Add(time.Minute)}); err != nil {
			t.Fatal(err)
		}
	}

	if err := s.Sweep(t.Context()); err != nil || out.Len() > 0 || len(sent.of) > 0 || len(parked)+len(fired) > 0 {
		t.Errorf("nothing was due, and it said %q, sent %v, found %v, %v", out.String(), sent.of, parked, err)
	}
	now = now.Add(2 * time.Minute)
	if err := s.Sweep(t.Context()); err == nil || !strings.Contains(err.Error(), "the queue is away") {
		t.Errorf("a run could not be knocked for: %v", err)
	}
	if diff := cmp.Diff(sent.of, map[string]int{queued: 1, held: 1}); diff != "" {
		t.Errorf("unexpected knocks (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(parked, []record.Key{delivery}); diff != "" {
		t.Errorf("unexpected parked deliveries (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(fired, []record.Key{hourly}); diff != "" {
		t.Errorf("unexpected schedules (-got +want):\n%s", diff)
	}
	const want = `{"_aws":{"CloudWatchMetrics":[{"Namespace":"Muster","Dimensions":[[]],"Metrics":[{"Name":"lease_ran_out","Unit":"Count"},{"Name":"queued_for_long","Unit":"Count"}]}],"Timestamp":1795424520000},"lease_ran_out":1,"queued_for_long":1}` + "\n"
	if diff := cmp.Diff(out.String(), want); diff != "" {
		t.Errorf("unexpected metrics (-got +want):\n%s", diff)
	}

	overdue, deliveries, err := runs.Overdue(t.Context(), "w")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]run.Finding{}
	for _, o := range overdue {
		got[o.Run.ID] = o.Finding
		if age := now.Sub(o.Since); age < 30*time.Second || age > 2*time.Minute {
			t.Errorf("%s is said to be due for %s", o.Finding, age)
		}
	}
	if diff := cmp.Diff(got, map[string]run.Finding{queued: run.LongQueued, unlucky: run.LongQueued, held: run.LeaseRanOut}); diff != "" {
		t.Errorf("unexpected findings (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(deliveries, []record.Key{delivery}); diff != "" {
		t.Errorf("unexpected deliveries (-got +want):\n%s", diff)
	}
	if others, _, err := runs.Overdue(t.Context(), "another"); err != nil || len(others) > 0 {
		t.Errorf("another workspace sees %v, %v", others, err)
	}
}

func TestAnyCountIsAMetric(t *testing.T) {
	var out strings.Builder
	sweep.EMF[string](&out, func() time.Time { return time.UnixMilli(1795424520000) })(map[string]int{"unknown_trigger": 1})
	const want = `{"_aws":{"CloudWatchMetrics":[{"Namespace":"Muster","Dimensions":[[]],"Metrics":[{"Name":"unknown_trigger","Unit":"Count"}]}],"Timestamp":1795424520000},"unknown_trigger":1}` + "\n"
	if diff := cmp.Diff(out.String(), want); diff != "" {
		t.Errorf("unexpected metrics (-got +want):\n%s", diff)
	}
}
