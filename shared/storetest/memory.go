package storetest

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/shared/fault"
	"muster/shared/record"
)

// Memory is a record.Store for tests that want to look inside, or to fail a put before or after it is done. It passes the
// suite. Before its first use its fields may be set; Reads may be read and set while nothing else goes on.
type Memory struct {
	// Now is the clock, time.Now unless set.
	Now func() time.Time
	// Before sees each put and may fail it. After is called with the number of the put, from 1, once it is done, and may
	// make an error of its answer.
	Before func(r record.Record) error
	After  func(n int, r record.Record) error
	// Reads counts Get and Scan. Puts holds the records put, in order.
	Reads int
	Puts  []record.Record

	// Records holds what is kept, for tests that harm it.
	Records map[record.Key]record.Record

	mu sync.Mutex
}

// there gives the living record under a key.
func (m *Memory) there(k record.Key) (record.Record, bool) {
	if r, ok := m.Records[k]; ok && m.lives(r) {
		return r, true
	}
	return record.Record{}, false
}

func (m *Memory) lives(r record.Record) bool {
	now := time.Now
	if m.Now != nil {
		now = m.Now
	}
	return r.Expires.IsZero() || r.Expires.Unix() > now().Unix()
}

// Get implements record.Store.
func (m *Memory) Get(ctx context.Context, k record.Key) (record.Record, error) {
	if err := ctx.Err(); err != nil {
		return record.Record{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Reads++
	if r, ok := m.there(k); ok {
		return r, nil
	}
	return record.Record{}, fault.New(fault.NotFound, "There is no such record.")
}

// Put implements record.Store.
func (m *Memory) Put(ctx context.Context, r record.Record) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := r.Check(); err != nil {
		return 0, err
	}
	if m.Before != nil {
		if err := m.Before(r); err != nil {
			return 0, err
		}
	}
	now, there := m.there(r.Key)
	if now.Rev != r.Rev || !there && r.Rev != 0 {
		return 0, record.ConflictWith(now, there)
	}
	r.Rev++
	r.Body = bytes.Clone(r.Body)
	r.Due, r.Expires = r.Due.Truncate(time.Millisecond), r.Expires.Truncate(time.Second)
	if m.Records == nil {
		m.Records = map[record.Key]record.Record{}
	}
	m.Records[r.Key] = r
	m.Puts = append(m.Puts, r)
	if m.After != nil {
		if err := m.After(len(m.Puts), r); err != nil {
			return 0, err
		}
	}
	return r.Rev, nil
}

// Delete implements record.Store.
func (m *Memory) Delete(ctx context.Context, k record.Key, rev int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now, there := m.there(k)
	if there && now.Rev != rev {
		return record.ConflictWith(now, there)
	}
	delete(m.Records, k)
	return nil
}

// Scan implements record.Store.
func (m *Memory) Scan(ctx context.Context, s record.Scan) ([]record.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Reads++
	found := m.find(func(r record.Record) bool {
		return r.Part == s.Part && r.Sort >= s.From && (s.To == "" || r.Sort < s.To)
	}, func(a, b record.Record) int { return strings.Compare(a.Sort, b.Sort) })
	if s.Backward {
		slices.Reverse(found)
	}
	return first(found, s.Limit), nil
}

// Due implements record.Store.
func (m *Memory) Due(ctx context.Context, shard int, notAfter time.Time, limit int) ([]record.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	found := m.find(func(r record.Record) bool {
		return !r.Due.IsZero() && record.Shard(r.Part) == shard && r.Due.UnixMilli() <= notAfter.UnixMilli()
	}, func(a, b record.Record) int { return a.Due.Compare(b.Due) })
	return dueEntries(first(found, limit)), nil
}

// List implements record.Store.
func (m *Memory) List(ctx context.Context, list, before string, limit int) ([]record.Entry, error) {
	return m.list(ctx, func(r record.Record) bool { return r.List == list && (before == "" || r.Order < before) },
		func(a, b record.Record) int { return strings.Compare(b.Order, a.Order) }, limit)
}

// Oldest implements record.Store.
func (m *Memory) Oldest(ctx context.Context, list string, limit int) ([]record.Entry, error) {
	return m.list(ctx, func(r record.Record) bool { return r.List == list }, func(a, b record.Record) int { return strings.Compare(a.Order, b.Order) }, limit)
}

func (m *Memory) list(ctx context.Context, match func(record.Record) bool, order func(a, b record.Record) int, limit int) ([]record.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return listEntries(first(m.find(match, order), limit)), nil
}

func (m *Memory) find(match func(record.Record) bool, order func(a, b record.Record) int) (found []record.Record) {
	for _, r := range m.Records {
		if m.lives(r) && match(r) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, order)
	return found
}

func first(rs []record.Record, limit int) []record.Record {
	if limit > 0 && len(rs) > limit {
		return rs[:limit]
	}
	return rs
}
