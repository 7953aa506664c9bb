package sqlite_test

import (
	"fmt"
	"sync"
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
