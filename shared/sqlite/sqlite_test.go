package sqlite_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/shared/queue"
	"muster/shared/queuetest"
	"muster/shared/record"
	"muster/shared/sqlite"
	"muster/shared/sqlite/sqlitetest"
	"muster/shared/storetest"
)

func TestRecordsKeepThePromises(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) record.Store {
		db := sqlitetest.Temp(t)
		db.Now = now
		return db.Records()
	})
}

func TestQueuesKeepThePromises(t *testing.T) {
	c := &clock{now: time.Date(2026, 11, 5, 10, 0, 0, 0, time.UTC)}
	queuetest.Run(t, queuetest.Backend{
		Open: func(t *testing.T, maxReceives int) queue.Queue {
			db := sqlitetest.Temp(t)
			db.Now = c.Now
			return db.Queue("q", sqlite.QueueOptions{MaxReceives: maxReceives})
		},
		Advance: c.advance,
		Fair:    true,
	})
}

func TestAGroupLeavesRoomForOthers(t *testing.T) {
	db := sqlitetest.Temp(t)
	q := db.Queue("q", sqlite.QueueOptions{MaxHeld: 5})
	var all []queue.Message
	for _, group := range []string{"a", "b"} {
		for i := range 20 {
			all = append(all, queue.Message{Body: fmt.Sprint(group, i), Group: group})
		}
	}
	if err := q.Send(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
	receive := func(wait time.Duration) (got []queue.Received) {
		t.Helper()
		got, err := q.Receive(t.Context(), queue.MaxReceive, wait, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	held := append(receive(0), receive(0)...)
	groups := map[string]int{}
	for _, m := range held {
		groups[m.Group]++
	}
	if groups["a"] != 5 || groups["b"] != 5 || len(receive(0)) != 0 {
		t.Fatalf("in flight are %v, want 5 of each", groups)
	}
	if err := q.Send(t.Context(), queue.Message{Body: "c", Group: "c"}, queue.Message{Body: "none"}); err != nil {
		t.Fatal(err)
	}
	if got := receive(0); len(got) != 2 {
		t.Errorf("others have room for %d messages, want 2", len(got))
	}
	waiting := make(chan []queue.Received)
	go func() { waiting <- receive(time.Minute) }()
	if err := q.Delete(t.Context(), held[0].Receipt); err != nil {
		t.Fatal(err)
	}
	if got := <-waiting; len(got) != 1 || got[0].Group != held[0].Group {
		t.Errorf("for one that is done came %v", got)
	}
}

func TestDeadLettersComeBackBesideLiveTraffic(t *testing.T) {
	const n = 300
	q := sqlitetest.Temp(t).Queue("q", sqlite.QueueOptions{MaxReceives: 3})
	var dead []queue.Message
	for i := range n {
		dead = append(dead, queue.Message{Body: fmt.Sprint("dead ", i), Group: fmt.Sprint("g", i%7)})
	}
	if err := q.Send(t.Context(), dead...); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for {
				got, err := q.Receive(t.Context(), queue.MaxReceive, 0, time.Minute)
				for _, m := range got {
					err = errors.Join(err, q.Bury(t.Context(), m, "no"))
				}
				if err != nil {
					t.Error(err)
				}
				if len(got) == 0 || err != nil {
					return
				}
			}
		})
	}
	all.Wait()

	var (
		mu   sync.Mutex
		seen = map[string]int{}
		left atomic.Int64
	)
	left.Store(2 * n)
	all.Go(func() {
		for i := range n {
			if err := q.Send(t.Context(), queue.Message{Body: fmt.Sprint("live ", i), Group: "live"}); err != nil {
				t.Error(err)
			}
		}
	})
	for range 2 {
		all.Go(func() {
			if _, err := q.Redrive(t.Context(), 0); err != nil {
				t.Error(err)
			}
		})
	}
	for range 8 {
		all.Go(func() {
			for left.Load() > 0 && !t.Failed() {
				got, err := q.Receive(t.Context(), queue.MaxReceive, 50*time.Millisecond, time.Minute)
				if err != nil {
					t.Error(err)
				}
				for _, m := range got {
					mu.Lock()
					seen[m.Body]++
					mu.Unlock()
					if err := q.Delete(t.Context(), m.Receipt); err != nil {
						t.Error(err)
					}
					left.Add(-1)
				}
			}
		})
	}
	all.Wait()
	for body, times := range seen {
		if times != 1 {
			t.Errorf("%s came %d times", body, times)
		}
	}
	if len(seen) != 2*n {
		t.Errorf("%d messages came, want %d", len(seen), 2*n)
	}
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
