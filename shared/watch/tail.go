package watch

import (
	"context"
	"sync"
	"time"

	"muster/shared/run"
)

// tail is the end of a run's journal for all who wait there.
type tail struct {
	runID string
	stop  context.CancelFunc
	// watchers and chunks count who is there, and who wants to see answers grow. The feed's mu guards them.
	watchers, chunks int

	mu    sync.Mutex
	next  int        // the number of the page that is looked for
	pages []run.Page // the newest that were found
	grown chan struct{}
	err   error
}

// enter gives the tail of a run to one who has all pages below seq.
func (f *Feed) enter(runID string, seq int, chunks bool) *tail {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tails[runID]
	if t == nil {
		ctx, stop := context.WithCancel(context.Background())
		t = &tail{runID: runID, stop: stop, next: seq, grown: make(chan struct{})}
		if f.tails == nil {
			f.tails = map[string]*tail{}
		}
		f.tails[runID] = t
		go f.look(ctx, t)
	}
	t.watchers++
	if chunks {
		t.chunks++
	}
	return t
}

// leave lets a watcher go. The last one takes the tail with it.
func (f *Feed) leave(w *Watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := w.tail
	t.watchers--
	if w.chunks {
		t.chunks--
	}
	if t.watchers == 0 {
		f.drop(t)
	}
}

// drop ends a tail. The caller holds the lock.
func (f *Feed) drop(t *tail) {
	t.stop()
	if f.tails[t.runID] == t {
		delete(f.tails, t.runID)
	}
}

// from gives the pages from seq on, and what is closed when there are more. behind says that some are not here any more.
func (t *tail) from(seq int) (pages []run.Page, behind bool, grown <-chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, p := range t.pages {
		if p.Seq >= seq {
			return t.pages[i:], p.Seq > seq, t.grown, nil
		}
	}
	return nil, false, t.grown, t.err
}

// look looks for new pages until nobody waits for them, the run is over, or it cannot be read.
func (f *Feed) look(ctx context.Context, t *tail) {
	longest := f.Pause
	if longest == 0 {
		longest = 600 * time.Millisecond
	}
	renew := time.Now().Add(run.WatchTime / 2)
	for wait := longest / 3; pause(ctx, wait) == nil; wait = min(wait*5/4, longest) {
		if time.Now().After(renew) {
			renew = time.Now().Add(run.WatchTime / 2)
			f.mu.Lock()
			chunks := t.chunks > 0
			f.mu.Unlock()
			// Should this fail, the run is told of all the same, only later.
			_ = f.Runs.Watch(ctx, t.runID, chunks)
		}
		pages, err := f.pages(ctx, t.runID, t.next)
		if ctx.Err() != nil {
			return
		}
		if err == nil && len(pages) == 0 {
			continue
		}
		wait = longest / 3
		over := err != nil || pages[len(pages)-1].Kind == run.EndPage
		if over { // who comes later reads for itself
			f.mu.Lock()
			f.drop(t)
			f.mu.Unlock()
		}
		t.show(pages, err)
		if over {
			return
		}
	}
}

// show lets everybody have new pages.
func (t *tail) show(pages []run.Page, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(pages) > 0 {
		t.pages, t.next = pages, pages[len(pages)-1].Seq+1
	}
	t.err = err
	close(t.grown)
	t.grown = make(chan struct{})
}
