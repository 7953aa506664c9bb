package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/storetest"
)

// crowd is a thread that many want at once. Each call to its store takes a time of its own, so that the seed decides who
// comes before whom; runners execute what is knocked for, each run for five minutes unless it is stopped.
type crowd struct {
	*run.Service
	ctx   context.Context
	store *slow
}

// slow is a store whose calls take their time.
type slow struct {
	record.Store

	mu       sync.Mutex
	rnd      *rand.Rand
	admitted []string // the runs on the thread's list, in the order in which they came
}

// dawdle takes up to 20 ms.
func (s *slow) dawdle(ctx context.Context) {
	s.mu.Lock()
	d := time.Duration(s.rnd.IntN(20)) * time.Millisecond
	s.mu.Unlock()
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (s *slow) Get(ctx context.Context, k record.Key) (record.Record, error) {
	s.dawdle(ctx)
	return s.Store.Get(ctx, k)
}

func (s *slow) Scan(ctx context.Context, q record.Scan) ([]record.Record, error) {
	s.dawdle(ctx)
	return s.Store.Scan(ctx, q)
}

func (s *slow) Put(ctx context.Context, r record.Record) (int64, error) {
	s.dawdle(ctx)
	rev, err := s.Store.Put(ctx, r)
	if err == nil && r.Sort == "SLOTS" {
		var list struct{ Runs []struct{ Run string } }
		_ = json.Unmarshal(r.Body, &list)
		s.mu.Lock()
		for _, e := range list.Runs {
			if !slices.Contains(s.admitted, e.Run) {
				s.admitted = append(s.admitted, e.Run)
			}
		}
		s.mu.Unlock()
	}
	s.dawdle(ctx)
	return rev, err
}

// Send implements queue.Sender for both queues: whoever is knocked for is executed.
func (c *crowd) Send(_ context.Context, messages ...queue.Message) error {
	for _, m := range messages {
		var knock run.RunMessage
		if json.Unmarshal([]byte(m.Body), &knock) == nil && knock.Run != "" && !strings.Contains(m.Body, `"seq"`) {
			go c.execute(knock.Run)
		}
	}
	return nil
}

func (c *crowd) execute(runID string) {
	o, err := c.Claim(c.ctx, runID)
	if err != nil {
		return
	}
	keeping, stop := context.WithCancel(c.ctx)
	kept := make(chan struct{})
	go func() { defer close(kept); o.Keep(keeping, nil) }()
	out := run.Outcome{State: run.Succeeded, Result: runID}
	select {
	case <-o.Work().Done():
		out = run.Outcome{State: run.Canceled, Error: run.Stopped}
	case <-time.After(5 * time.Minute):
	case <-c.ctx.Done():
	}
	stop()
	<-kept
	if errors.Is(context.Cause(o.Work()), run.ErrCanceled) {
		_ = o.Fail(out)
		return
	}
	_ = o.End(out, o.Root())
}

// sweep looks after what is due, as often as a sweeper does.
func (c *crowd) sweep() {
	for tick := time.NewTicker(time.Minute); ; {
		select {
		case <-c.ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		for shard := range record.Shards {
			due, _ := c.store.Due(c.ctx, shard, time.Now(), 1000)
			for _, e := range due {
				if e.Sort == "SLOTS" {
					_ = c.WakeSlots(c.ctx, e.Part)
				} else if runID, ok := strings.CutPrefix(e.Part, "R#"); ok {
					_, _ = c.Wake(c.ctx, runID)
				}
			}
		}
	}
}

// TestTheLastOneToComeIsLeft: several requests to interrupt a thread that came at once used to wait for each other like any
// that wait for their turn, because each looked for runs to stop before there were any. Now, whatever comes between
// what, a run is stopped exactly when one that was accepted behind it ousts it; also when processes die.
func TestTheLastOneToComeIsLeft(t *testing.T) {
	for _, mortal := range []bool{false, true} {
		for seed := range uint64(150) {
			synctest.Test(t, func(t *testing.T) { manyAtOnce(t, seed, mortal) })
			if t.Failed() {
				t.Fatalf("with the seed %d, mortal: %v", seed, mortal)
			}
		}
	}
}

func manyAtOnce(t *testing.T, seed uint64, mortal bool) {
	ctx, finish := context.WithCancel(t.Context())
	c := &crowd{ctx: ctx, store: &slow{Store: &storetest.Memory{}, rnd: rand.New(rand.NewPCG(seed, 1))}}
	c.Service = &run.Service{
		Store: c.store, Runs: c, Deliveries: c, Inbox: 20 * time.Second, Log: slog.New(slog.DiscardHandler),
		Seal: func(context.Context, string, string, string, string) (string, error) { return "sealed", nil },
	}
	if err := c.PutTurn(ctx, threadID, run.Turn{At: time.Now(), Values: values{}}); err != nil {
		t.Fatal(err)
	}
	if mortal {
		go c.sweep()
	}
	rnd := rand.New(rand.NewPCG(seed, 2))
	d := crew.Deployment{ID: "d", WorkspaceID: "w", Environments: map[string]crew.Pointer{"production": {VersionID: "v", Number: 1}}}
	var clients sync.WaitGroup
	for i := range 2 + rnd.IntN(6) {
		q := run.StartRequest{Deployment: d, Thread: threadID, Enqueue: true, Ousts: []run.Oust{"", run.Interrupt, run.Rollback}[rnd.IntN(3)]}
		after, patience := time.Duration(rnd.IntN(100))*time.Millisecond, time.Hour
		if mortal && rnd.IntN(2) == 0 {
			patience = time.Duration(rnd.IntN(400)) * time.Millisecond
		}
		clients.Go(func() {
			<-time.After(after)
			alive, die := context.WithTimeout(ctx, patience)
			defer die()
			if _, err := c.Start(alive, q); err != nil && alive.Err() == nil {
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	clients.Wait()
	<-time.After(time.Hour) // by the clock of the bubble
	finish()
	synctest.Wait()

	wanted := run.Succeeded
	var story []string
	for _, runID := range slices.Backward(c.store.admitted) {
		r, err := c.Get(t.Context(), runID)
		if fault.Is(err, fault.NotFound) {
			continue // its process died before it was accepted
		}
		if err != nil {
			t.Fatal(err)
		}
		story = append(story, fmt.Sprintf("%q %s", r.Ousts, r.State))
		if r.State != wanted {
			t.Errorf("%s is %s, and should be %s", runID, r.State, wanted)
		}
		if r.Ousts != "" {
			wanted = run.Canceled
		}
		if turn, _, err := c.LastTurn(t.Context(), threadID); err != nil || turn.State == "" {
			t.Errorf("the last turn is %+v, %v", turn, err)
		}
	}
	if t.Failed() {
		t.Errorf("the newest first: %v", story)
	}
}
