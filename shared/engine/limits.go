package engine

import (
	"slices"
	"sync"
	"time"
)

// pace holds model calls below a number per minute, over everybody who shares it. It never sleeps: whoever may not call
// yet is told when, and the run waits outside of any process. A call counts from its start until a minute after its
// page, so that a replay, which knows the pages, counts like the owner before it.
type pace struct {
	perMinute int

	mu      sync.Mutex
	running int
	ended   []time.Time
}

// newPace gives nil, which lets everything pass, for no limit.
func newPace(perMinute int) *pace {
	if perMinute <= 0 {
		return nil
	}
	return &pace{perMinute: perMinute}
}

// enter asks to call now. When it must wait, at says until when; else leave must follow.
func (p *pace) enter(now time.Time) (at time.Time, wait bool) {
	if p == nil {
		return time.Time{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = slices.DeleteFunc(p.ended, func(t time.Time) bool { return !t.Add(time.Minute).After(now) })
	free := p.perMinute - p.running - len(p.ended)
	if free > 0 {
		p.running++
		return time.Time{}, false
	}
	slices.SortFunc(p.ended, time.Time.Compare)
	if i := -free; i < len(p.ended) {
		return p.ended[i].Add(time.Minute), true
	}
	return now.Add(time.Minute), true
}

// leave ends a call that was entered.
func (p *pace) leave() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
}

// count remembers a call whose page is of this time.
func (p *pace) count(at time.Time) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = append(p.ended, at)
}
