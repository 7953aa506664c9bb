// Package watch gives the one sequence of a run to whoever watches it, live or long after: every event of its journal in
// order of its number, and then the end. A watcher stands at a position, which is the number of the last event it has; it
// may go away at any time and come back at its position, here or in another process, and misses nothing and has nothing
// twice. The end is a position of its own, one more than that of the last event.
//
// How the sequence is spelled and sent is for the wires. What is kept for a watcher is its position and a few pages: the
// journal is the buffer, so a slow watcher is late and never robbed. All that wait for the same run share one look at
// the journal, which is less frequent the longer nothing has come, and one note to the run's owner that somebody watches. A
// quiet minute costs about a hundred of the smallest reads and two writes, however many watch; twice the reads as long as
// nobody has begun the run.
package watch

import (
	"context"
	"errors"
	"sync"
	"time"

	"muster/events"
	"muster/shared/fault"
	"muster/shared/run"
)

// Feed lets runs be watched.
type Feed struct {
	Runs *run.Service
	// Pause is the longest time between two looks for new pages; 0 means 600 ms. Right after a page it is a third of that.
	Pause time.Duration

	mu    sync.Mutex
	tails map[string]*tail
}

// Watcher is one who watches a run. It belongs to one goroutine.
type Watcher struct {
	f      *Feed
	runID  string
	n      int64
	seq    int // of the next page to be read
	chunks bool
	ready  []run.Page
	tail   *tail
	over   bool
}

// Part is what a page adds to the sequence.
type Part struct {
	Page run.Page
	// Events are those that the watcher does not have yet.
	Events []events.Event
	// Position is that of the watcher who has them; on the end page it is one more.
	Position int64
}

// Ends says whether nothing comes after this.
func (p Part) Ends() bool { return p.Page.Kind == run.EndPage }

// ErrOver says that a watcher has the whole sequence, its end included.
var ErrOver = errors.New("nothing comes after the end of a run")

// Watch gives a watcher of a run that stands after a position, 0 being the beginning. With chunks it asks for the pieces of
// growing answers too. A position that the run has not come to yet is fault.Invalid. The watcher must be closed.
func (f *Feed) Watch(ctx context.Context, runID string, after int64, chunks bool) (*Watcher, error) {
	seq, err := f.Runs.PageAfter(ctx, runID, after)
	if err != nil {
		return nil, err
	}
	return &Watcher{f: f, runID: runID, n: after, seq: max(seq, 1), chunks: chunks}, nil
}

// Position gives the position of the watcher.
func (w *Watcher) Position() int64 { return w.n }

// Close ends the watching.
func (w *Watcher) Close() {
	if w.tail != nil {
		w.f.leave(w)
	}
}

// Next gives what comes next, waiting for it if need be; ok is false when nothing came in that time. After the end it fails
// with ErrOver.
func (w *Watcher) Next(ctx context.Context, wait time.Duration) (_ Part, ok bool, err error) {
	var timeout <-chan time.Time
	for !w.over {
		if len(w.ready) == 0 {
			grown, err := w.read(ctx)
			if err != nil {
				return Part{}, false, err
			}
			if len(w.ready) == 0 {
				if wait <= 0 {
					return Part{}, false, nil
				}
				if timeout == nil {
					timer := time.NewTimer(wait)
					defer timer.Stop()
					timeout = timer.C
				}
				if grown == nil {
					if err := w.join(ctx); err != nil {
						return Part{}, false, err
					}
					continue
				}
				select {
				case <-grown:
					continue
				case <-timeout:
					return Part{}, false, nil
				case <-ctx.Done():
					return Part{}, false, context.Cause(ctx)
				}
			}
		}
		page := w.ready[0]
		w.ready, w.seq = w.ready[1:], page.Seq+1
		p := Part{Page: page, Position: page.Totals.Events}
		if w.over = p.Ends(); w.over {
			p.Position++
			if w.n >= p.Position {
				break
			}
		}
		for _, e := range page.Events {
			if e.N > w.n {
				p.Events = append(p.Events, e)
			}
		}
		w.n = max(w.n, p.Position)
		if len(p.Events) > 0 || w.over {
			return p, true, nil
		}
	}
	return Part{}, false, ErrOver
}

// read gets pages that are there already: those that the run's watchers share, or else from the journal. Without any it
// gives what is closed when there are more; nil for a watcher who does not share yet.
func (w *Watcher) read(ctx context.Context) (grown <-chan struct{}, err error) {
	if w.tail != nil {
		var behind bool
		w.ready, behind, grown, err = w.tail.from(w.seq)
		if err != nil || !behind {
			return grown, err
		}
	}
	w.ready, err = w.f.pages(ctx, w.runID, w.seq)
	return nil, err
}

func (w *Watcher) join(ctx context.Context) error {
	if err := w.f.Runs.Watch(ctx, w.runID, w.chunks); err != nil {
		return err
	}
	w.tail = w.f.enter(w.runID, w.seq, w.chunks)
	return nil
}

// batch is how many pages are read at a time, and the most that are kept for the watchers of a run.
const batch = 16

// tries is how often a read is tried, because a watcher is not to be sent away for one that failed.
const tries = 5

// pages reads from the journal.
func (f *Feed) pages(ctx context.Context, runID string, from int) (pages []run.Page, err error) {
	for i := range tries {
		if pages, err = f.Runs.PagesToWatch(ctx, runID, from, batch); err == nil || fault.KindOf(err) != fault.Internal {
			break
		}
		if pause(ctx, 50*time.Millisecond<<i) != nil {
			break
		}
	}
	return pages, err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
