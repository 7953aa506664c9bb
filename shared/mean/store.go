package mean

import (
	"context"
	"fmt"
	"time"

	"muster/shared/record"
)

type store struct {
	mean *Mean
	next record.Store
}

func (s *store) Get(ctx context.Context, k record.Key) (record.Record, error) {
	return read(s.mean.fate("Get %s %s", k.Part, k.Sort), func() (record.Record, error) { return s.next.Get(ctx, k) })
}

func (s *store) Put(ctx context.Context, r record.Record) (int64, error) {
	return write(s.mean.fate("Put %s %s", r.Part, r.Sort), func() (int64, error) { return s.next.Put(ctx, r) })
}

func (s *store) Delete(ctx context.Context, k record.Key, rev int64) error {
	_, err := write(s.mean.fate("Delete %s %s", k.Part, k.Sort), func() (struct{}, error) { return struct{}{}, s.next.Delete(ctx, k, rev) })
	return err
}

func (s *store) Scan(ctx context.Context, scan record.Scan) ([]record.Record, error) {
	return read(s.mean.fate("Scan %s", scan.Part), func() ([]record.Record, error) { return s.next.Scan(ctx, scan) })
}

func (s *store) Due(ctx context.Context, shard int, notAfter time.Time, limit int) ([]record.Entry, error) {
	return read(s.mean.fate("Due %d", shard), func() ([]record.Entry, error) {
		found, err := s.next.Due(ctx, shard, notAfter, limit)
		if err != nil {
			return nil, err
		}
		var due []record.Entry
		for _, r := range s.mean.index(fmt.Sprintf("due %d", shard), found) {
			if !r.Due.After(notAfter) && len(due) < limit {
				due = append(due, r)
			}
		}
		return due, nil
	})
}

func (s *store) List(ctx context.Context, list, before string, limit int) ([]record.Entry, error) {
	return read(s.mean.fate("List %s", list), func() ([]record.Entry, error) {
		found, err := s.next.List(ctx, list, before, limit)
		if err != nil {
			return nil, err
		}
		return s.mean.index(fmt.Sprintf("list %q %q %d", list, before, limit), found), nil
	})
}

func (s *store) Oldest(ctx context.Context, list string, limit int) ([]record.Entry, error) {
	return read(s.mean.fate("Oldest %s", list), func() ([]record.Entry, error) {
		found, err := s.next.Oldest(ctx, list, limit)
		if err != nil {
			return nil, err
		}
		return s.mean.index(fmt.Sprintf("oldest %q %d", list, limit), found), nil
	})
}

// index gives what was found or, when the index is stale, what was found the last time: nothing at first.
func (m *Mean) index(question string, found []record.Entry) []record.Entry {
	stale := m.happens(m.Odds.Stale)
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.found[question]
	m.found[question] = found
	if stale {
		return last
	}
	return found
}
