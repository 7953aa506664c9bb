package runner

import (
	"context"
	"math"
	"sync"

	"golang.org/x/sync/semaphore"

	"muster/shared/run"
)

// room is what the runs of this process are worked on in: any number at a time, or one that must be alone. Whoever wants
// to be alone asks the others to yield at their next boundary, and nobody enters while it waits; no call under way is
// thrown away for it.
type room struct {
	once   sync.Once
	places *semaphore.Weighted

	mu     sync.Mutex
	inside map[*run.Owner]bool // whether it is alone
	wanted int                 // how many want to be alone
	closed bool                // the process stops
}

const all = math.MaxInt64

func (r *room) open() *semaphore.Weighted {
	r.once.Do(func() { r.places, r.inside = semaphore.NewWeighted(all), map[*run.Owner]bool{} })
	return r.places
}

// enter waits until nobody is, or wants to be, alone.
func (r *room) enter(ctx context.Context) (leave func(), err error) {
	places := r.open()
	if err := places.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return func() { places.Release(1) }, nil
}

// enterAlone asks everybody to go, and waits until they have.
func (r *room) enterAlone(ctx context.Context) (leave func(), err error) {
	places := r.open()
	r.mu.Lock()
	r.wanted++
	for o, alone := range r.inside {
		if !alone {
			o.Yield()
		}
	}
	r.mu.Unlock()
	err = places.Acquire(ctx, all)
	r.mu.Lock()
	r.wanted--
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return func() { places.Release(all) }, nil
}

// works notes that an owner works here, alone or not, until done is called.
func (r *room) works(o *run.Owner, alone bool) (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inside[o] = alone
	if r.wanted > 0 && !alone {
		o.Yield() // it came in before, and was claimed since
	}
	if r.closed {
		o.Leave()
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.inside, o)
	}
}

// close makes everybody leave, now and later.
func (r *room) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for o := range r.inside {
		o.Leave()
	}
}
