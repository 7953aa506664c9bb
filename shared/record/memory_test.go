package record_test

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"muster/shared/fault"
	"muster/shared/record"
)

// memory is a record.Store for the tests of this package. after, when set, is called once a put has been done and may
// turn its answer into an error, as a lost answer does.
type memory struct {
	mu      sync.Mutex
	records map[record.Key]record.Record
	puts    []record.Record
	after   func(n int, r record.Record) error
}

func newMemory() *memory { return &memory{records: map[record.Key]record.Record{}} }

func (m *memory) Get(_ context.Context, k record.Key) (record.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[k]
	if !ok {
		return record.Record{}, fault.New(fault.NotFound, "There is no such record.")
	}
	return r, nil
}

func (m *memory) Put(_ context.Context, r record.Record) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, there := m.records[r.Key]
	if now.Rev != r.Rev {
		return 0, record.ConflictWith(now, there)
	}
	r.Rev++
	r.Body = bytes.Clone(r.Body)
	m.records[r.Key] = r
	m.puts = append(m.puts, r)
	if m.after != nil {
		if err := m.after(len(m.puts), r); err != nil {
			return 0, err
		}
	}
	return r.Rev, nil
}

func (m *memory) Delete(_ context.Context, k record.Key, rev int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, there := m.records[k]
	if there && now.Rev != rev {
		return record.ConflictWith(now, there)
	}
	delete(m.records, k)
	return nil
}

func (m *memory) Scan(_ context.Context, s record.Scan) ([]record.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []record.Record
	for k, r := range m.records {
		if k.Part == s.Part && k.Sort >= s.From && (s.To == "" || k.Sort < s.To) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b record.Record) int { return bytes.Compare([]byte(a.Sort), []byte(b.Sort)) })
	return found, nil
}

func (m *memory) Due(context.Context, int, time.Time, int) ([]record.Entry, error) { return nil, nil }

func (m *memory) List(context.Context, string, string, int) ([]record.Entry, error) { return nil, nil }
