package sqlite_test

import (
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
