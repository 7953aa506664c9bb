package run

import (
	"context"
	"fmt"
	"sort"
	"time"

	"muster/shared/fault"
)

// WatchTime is how long a run counts as watched after somebody said so. Half of it is how often to say so again.
const WatchTime = time.Minute

// Watch says that somebody watches the run live, so that its owner tells of each step before it is done; with chunks, of the
// answers of models while they grow, too. It is one read, and one write in half a WatchTime however many watch. A run that
// is over is left alone.
func (s *Service) Watch(ctx context.Context, runID string, chunks bool) error {
	return s.watch(ctx, runID, func(r *Run, now time.Time) (changed bool) {
		until, soon := now.Add(WatchTime), now.Add(WatchTime/2)
		if r.WatchedUntil.After(soon) && (!chunks || r.ChunksUntil.After(soon)) {
			return false
		}
		r.WatchedUntil = until
		if chunks {
			r.ChunksUntil = until
		}
		return true
	})
}

// Subscribed says that somebody has come who is to be told of the run while he is there: its owner asks Watchers again, and
// sees to it that the end is told. Of a run that is over by then the end page is there.
func (s *Service) Subscribed(ctx context.Context, runID string) error {
	return s.watch(ctx, runID, func(r *Run, now time.Time) bool {
		next := r.WatchedUntil.Add(time.Millisecond) // what is later than before is news
		if r.WatchedUntil = now.Add(WatchTime); r.WatchedUntil.Before(next) {
			r.WatchedUntil = next
		}
		return true
	})
}

func (s *Service) watch(ctx context.Context, runID string, change func(*Run, time.Time) bool) error {
	for {
		r, err := s.Get(ctx, runID)
		if err != nil || r.State.Ended() || !change(&r, s.now().UTC()) {
			return err
		}
		if err = s.put(ctx, &r); fault.Is(err, fault.Conflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("note that run %s is watched: %w", runID, err)
		}
		return nil
	}
}

// PagesToWatch is Pages for those who watch: a run that was withdrawn has no pages, and they are shown an end page.
func (s *Service) PagesToWatch(ctx context.Context, runID string, from, limit int) ([]Page, error) {
	pages, err := s.Pages(ctx, runID, from, limit)
	if err != nil || len(pages) > 0 || from > 1 {
		return pages, err
	}
	end, withdrawn, err := s.withdrawn(ctx, runID)
	if err != nil || !withdrawn {
		return nil, err
	}
	return []Page{end}, nil
}

// withdrawn gives the end page that a run would have if it was not withdrawn; ok is false for one that was not.
func (s *Service) withdrawn(ctx context.Context, runID string) (end Page, ok bool, err error) {
	r, err := s.Get(ctx, runID)
	if err != nil || !r.Withdrawn {
		return Page{}, false, err
	}
	return Page{Seq: 1, Kind: EndPage, At: r.EndedAt, Outcome: &Outcome{State: r.State, Error: r.Error}}, true, nil
}

// PageAfter gives the number of the first page that may hold an event after the event n: the page that holds event n, or
// a later one. It reads a few pages, not all. An n that the journal does not have yet is fault.Invalid, unless the run is
// over and n is one more than its last event: that is where a run ends.
func (s *Service) PageAfter(ctx context.Context, runID string, n int64) (seq int, err error) {
	if n == 0 {
		return 1, nil
	}
	newest, err := s.Newest(ctx, runID)
	if fault.Is(err, fault.NotFound) {
		newest, _, err = s.withdrawn(ctx, runID)
	}
	if err != nil {
		return 0, err
	}
	last := newest.Totals.Events
	if newest.Kind == EndPage {
		last++
	}
	if n < 0 || n > last {
		return 0, fault.New(fault.Invalid, "There is no position %d in this run; it has come to %d.", n, last)
	}
	if n >= newest.Totals.Events {
		return newest.Seq, nil
	}
	seq = 1 + sort.Search(newest.Seq-1, func(i int) bool {
		if err != nil {
			return true
		}
		var p Page
		if p, err = s.Page(ctx, runID, i+1); err != nil {
			return true
		}
		return p.Totals.Events >= n
	})
	return seq, err
}
