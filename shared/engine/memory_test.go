package engine_test

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"muster/shared/fault"
	"muster/shared/record"
)

// memory is a record.Store for tests that put thousands of pages; a disk would make them wait.
// The indexes, which no run reads, are those of the nil Store within.
type memory struct {
	record.Store
	mu   sync.Mutex
	kept map[record.Key]record.Record
}

func (m *memory) Get(_ context.Context, k record.Key) (record.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.kept[k]
	if !ok {
		return record.Record{}, fault.New(fault.NotFound, "There is no such record.")
	}
	return r, nil
}

func (m *memory) Put(_ context.Context, r record.Record) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, there := m.kept[r.Key]
	if now.Rev != r.Rev {
		return 0, record.ConflictWith(now, there)
	}
	r.Rev++
	r.Body = slices.Clone(r.Body)
	m.kept[r.Key] = r
	return r.Rev, nil
}

func (m *memory) Delete(_ context.Context, k record.Key, rev int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now, there := m.kept[k]; there && now.Rev != rev {
		return record.ConflictWith(now, there)
	}
	delete(m.kept, k)
	return nil
}

func (m *memory) Scan(_ context.Context, s record.Scan) ([]record.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []record.Record
	for k, r := range m.kept {
		if k.Part == s.Part && k.Sort >= s.From && (s.To == "" || k.Sort < s.To) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b record.Record) int { return cmp.Compare(a.Sort, b.Sort) })
	if s.Backward {
		slices.Reverse(found)
	}
	if s.Limit > 0 && len(found) > s.Limit {
		found = found[:s.Limit]
	}
	return found, nil
}
