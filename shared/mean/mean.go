// Package mean wraps stores and queues so that they do to tests what real ones do on a bad day, all of it within what the
// ports allow: answers get lost after a write, indexes are stale, messages come twice, late, out of order and a few at a
// time.
//
// There are two ways to use it. New makes everything happen by chance, and the same again for the same seed and the same
// calls. Failing makes exactly one call fail, by its number, and nothing else: a harness runs a scenario once with
// Failing(0, Fine), asks Calls how many there were, and runs it again for each of them, Before and After.
package mean

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"muster/shared/queue"
	"muster/shared/record"
)

// Err is how a call fails. It is no fault, as with a backend that cannot be reached.
var Err = errors.New("the backend gave no answer")

// Fate is what becomes of a call.
type Fate int

// The fates. A read that fails Partly or After fails like any other.
const (
	Fine   Fate = iota
	Before      // it fails and has done nothing
	Partly      // it fails, a Send after a part of its messages; other writes have happened
	After       // it fails and has happened
)

// Call is one call of a wrapped store or queue.
type Call struct {
	// N is its number, from 1, over everything that one Mean wraps.
	N int
	// What is the method and what it was called with, for people: "Put run/0192… item".
	What string
}

// Odds say how often things happen, from 0 (never) to 1 (always).
type Odds struct {
	// Fail is for any call, to fail Before, Partly or After.
	Fail float64
	// Stale is for Due and List, to answer as they did the last time they were asked.
	Stale float64
	// Double and Late are for each message of a Send, to be sent twice, or up to Lateness later.
	Double, Late float64
	Lateness     time.Duration
	// Short is for a Receive, to give one message at most.
	Short float64
}

// Mean is what all wrappers of one test share. Its fields may be set before the first call.
type Mean struct {
	// Odds are those of chance.
	Odds Odds
	// Plan decides on each call; it may as well end the process. Unless it is set, chance decides.
	Plan func(Call) Fate

	mu     sync.Mutex
	chance *rand.Rand
	calls  []Call
	faults int
	found  map[string][]record.Entry
}

// New gives a Mean that does everything, often enough to be met in a short test and seldom enough to come to an end.
func New(seed uint64) *Mean {
	return &Mean{
		Odds:   Odds{Fail: 0.03, Stale: 0.3, Double: 0.2, Late: 0.2, Lateness: 300 * time.Millisecond, Short: 0.3},
		chance: rand.New(rand.NewPCG(seed, 0)),
		found:  map[string][]record.Entry{},
	}
}

// Failing gives a Mean that does nothing but let the call with number n meet its fate; 0 is none.
func Failing(n int, fate Fate) *Mean {
	m := New(0)
	m.Odds = Odds{}
	m.Plan = func(c Call) Fate {
		if c.N == n {
			return fate
		}
		return Fine
	}
	return m
}

// Calls gives the calls so far.
func (m *Mean) Calls() []Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Call(nil), m.calls...)
}

// Faults counts the calls that have failed so far.
func (m *Mean) Faults() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.faults
}

// Store wraps a store.
func (m *Mean) Store(s record.Store) record.Store { return &store{m, s} }

// Queue wraps a queue.
func (m *Mean) Queue(q queue.Queue) queue.Queue { return &wrapped{m, q} }

// fate counts a call and decides on it.
func (m *Mean) fate(format string, args ...any) Fate {
	m.mu.Lock()
	c := Call{len(m.calls) + 1, fmt.Sprintf(format, args...)}
	m.calls = append(m.calls, c)
	plan := m.Plan
	if plan == nil {
		fate := Fine
		if m.chance.Float64() < m.Odds.Fail {
			fate = []Fate{Before, Partly, After}[m.chance.IntN(3)]
		}
		plan = func(Call) Fate { return fate }
	}
	m.mu.Unlock()
	fate := plan(c)
	if fate != Fine {
		m.mu.Lock()
		m.faults++
		m.mu.Unlock()
	}
	return fate
}

// happens lets chance decide. What never happens takes no chance, so odds of zero leave the others as they are.
func (m *Mean) happens(odds float64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return odds > 0 && m.chance.Float64() < odds
}

// below gives a number from 0 to below n.
func (m *Mean) below(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.chance.IntN(n)
}

// read runs a call that changes nothing.
func read[T any](fate Fate, call func() (T, error)) (T, error) {
	if fate != Fine {
		var none T
		return none, Err
	}
	return call()
}

// write runs a call that changes something.
func write[T any](fate Fate, call func() (T, error)) (T, error) {
	var none T
	if fate == Before {
		return none, Err
	}
	done, err := call()
	if fate != Fine {
		return none, Err
	}
	return done, err
}
