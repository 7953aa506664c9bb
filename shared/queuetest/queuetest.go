// Package queuetest holds an implementation of queue.Queue to what queue promises. A queue with a clock of its own is moved
// by Advance; a real server is given short times and waited for, by receiving and never by sleeping.
package queuetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/queue"
)

// Backend is what the suite runs on.
type Backend struct {
	// Open gives a new, empty queue that sends what was received maxReceives times to its dead-letter queue.
	Open func(t *testing.T, maxReceives int) queue.Queue
	// Advance moves the clock of the queues; nil when they know only the real time.
	Advance func(d time.Duration)
	// Fair says that groups are served in turn, message by message, and those with many messages in flight last. A fair queue
	// of SQS promises the second, roughly and on AWS only: ElasticMQ takes no notice of groups, and is not held to it.
	Fair bool
}

// Run runs the suite.
func Run(t *testing.T, backend Backend) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if backend.Advance == nil {
				t.Parallel()
			}
			c.run(&bench{t, backend, backend.Open(t, 100)})
		})
	}
	if backend.Fair {
		for _, c := range fairness {
			t.Run(c.name, func(t *testing.T) { c.run(&bench{t, backend, backend.Open(t, 100)}) })
		}
	}
}

// bench is a queue, and the shortest way to say something about it.
type bench struct {
	*testing.T
	backend Backend
	queue   queue.Queue
}

const (
	// short is the time that messages are hidden for when the suite waits for them to show again: it is what servers
	// count in. long does not end within a test.
	short, long = time.Second, 10 * time.Minute
	// patience is how long a message that has to come may take.
	patience = 15 * time.Second
)

// pass lets the time of short pass: at once, or by having the next receive wait.
func (b *bench) pass() {
	if b.backend.Advance != nil {
		b.backend.Advance(short)
	}
}

func (b *bench) send(m ...queue.Message) {
	b.Helper()
	if err := b.queue.Send(b.Context(), m...); err != nil {
		b.Fatalf("send: %v", err)
	}
}

// receive gives n messages, however many calls that takes, hidden for visible.
func (b *bench) receive(n int, visible time.Duration) []queue.Received {
	b.Helper()
	var got []queue.Received
	for begun := time.Now(); len(got) < n; {
		if time.Since(begun) > patience {
			b.Fatalf("received %d messages, want %d", len(got), n)
		}
		more, err := b.queue.Receive(b.Context(), min(n-len(got), queue.MaxReceive), time.Second, visible)
		if err != nil {
			b.Fatalf("receive: %v", err)
		}
		got = append(got, more...)
	}
	return got
}

func (b *bench) one(visible time.Duration) queue.Received {
	b.Helper()
	return b.receive(1, visible)[0]
}

// waiter receives one message on the side.
func (b *bench) waiter() <-chan queue.Received {
	got := make(chan queue.Received, 1)
	go func() {
		defer close(got)
		all, err := b.queue.Receive(b.Context(), 1, patience, long)
		if err != nil || len(all) != 1 {
			b.Errorf("the waiter received %v and %v", all, err)
			return
		}
		got <- all[0]
	}()
	return got
}

func (b *bench) nothing() {
	b.Helper()
	b.quiet(0)
}

// quiet checks that nothing shows for d.
func (b *bench) quiet(d time.Duration) {
	b.Helper()
	wait := d
	if b.backend.Advance != nil {
		b.backend.Advance(d)
		wait = 0
	}
	got, err := b.queue.Receive(b.Context(), queue.MaxReceive, wait, long)
	if err != nil || len(got) > 0 {
		b.Fatalf("received %+v and %v, want nothing", got, err)
	}
}

func (b *bench) delete(m queue.Received) {
	b.Helper()
	if err := b.queue.Delete(b.Context(), m.Receipt); err != nil {
		b.Fatalf("delete: %v", err)
	}
}

func (b *bench) hide(m queue.Received, d time.Duration) {
	b.Helper()
	if err := b.queue.Hide(b.Context(), m.Receipt, d); err != nil {
		b.Fatalf("hide: %v", err)
	}
}

// buried waits until the dead-letter queue holds what is wanted.
func (b *bench) buried(want ...queue.Dead) {
	b.Helper()
	var got []queue.Dead
	for begun := time.Now(); ; {
		var err error
		if got, err = b.queue.Buried(b.Context(), 100); err != nil {
			b.Fatalf("buried: %v", err)
		}
		if len(got) == len(want) || time.Since(begun) > patience {
			break
		}
	}
	for i := range got {
		if got[i].ID == "" {
			b.Errorf("a dead message has no id")
		}
		got[i].ID = ""
	}
	for _, all := range [][]queue.Dead{got, want} {
		slices.SortFunc(all, func(a, b queue.Dead) int { return compare(a.Body, b.Body) })
	}
	if diff := cmp.Diff(got, want); diff != "" {
		b.Fatalf("unexpected dead messages (-got +want):\n%s", diff)
	}
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// bury receives n messages and buries them.
func (b *bench) bury(n int, reason string) {
	b.Helper()
	for _, m := range b.receive(n, long) {
		if err := b.queue.Bury(b.Context(), m, reason); err != nil {
			b.Fatalf("bury: %v", err)
		}
	}
}

// redrive moves what is dead back, and waits until all of it is.
func (b *bench) redrive(perSecond int) {
	b.Helper()
	for begun := time.Now(); ; {
		move, err := b.queue.Redrive(b.Context(), perSecond)
		if err != nil {
			b.Fatalf("redrive: %v", err)
		}
		if !move.UnderWay {
			return
		}
		if time.Since(begun) > patience {
			b.Fatalf("the redrive has not ended: %+v", move)
		}
		b.queue.Receive(b.Context(), 1, 0, time.Second)
	}
}

// messages gives n of them, "0" and up.
func messages(n int) []queue.Message {
	var all []queue.Message
	for i := range n {
		all = append(all, queue.Message{Body: fmt.Sprint(i), Group: fmt.Sprintf("tenant/%d", i%3)})
	}
	return all
}

func bodies(received []queue.Received) []string {
	var all []string
	for _, m := range received {
		all = append(all, m.Body)
	}
	slices.Sort(all)
	return all
}

func (b *bench) same(got, want any) {
	b.Helper()
	if diff := cmp.Diff(got, want); diff != "" {
		b.Fatalf("unexpected (-got +want):\n%s", diff)
	}
}
