// Package queue is the port to the two queues. A message is only a knock: what it asks for is in the journal, it may
// arrive twice, late, or out of order, and losing it costs a delay until the sweeper knocks again.
//
// A handler answers with its wish (Done, RetryIn, Drop); invoke turns a batch of wishes into what Lambda wants to hear.
package queue

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"

	"muster/shared/fault"
)

// The limits of SQS: the longest delay a message can be sent with, the longest time it can be hidden, the largest body in
// bytes, the longest group, the most messages that one Receive gives, and the most that one Redrive moves in a second.
const (
	MaxDelay   = 15 * time.Minute
	MaxHide    = 12 * time.Hour
	MaxBody    = 1 << 20
	MaxGroup   = 128
	MaxReceive = 10
	MaxRate    = 500
)

// Message is what is sent.
type Message struct {
	// Body is text, not empty, at most MaxBody bytes, without control characters other than tab and line ends.
	Body string
	// Group is the tenant key of a fair queue (SQS MessageGroupId on a standard queue), at most MaxGroup visible ASCII
	// characters; "" is none.
	Group string
	// Delay hides the message at first, at most MaxDelay, whole seconds on SQS.
	Delay time.Duration
}

// Check tells what is wrong with a message that no queue would take. Adapters call it before they send anything, so that
// what one of them refuses is refused by all: fault.TooLarge for the body, an error that is no fault for the rest.
func (m Message) Check() error {
	if len(m.Body) > MaxBody {
		return fault.New(fault.TooLarge, "This is too large for a message (%d bytes, at most %d).", len(m.Body), MaxBody)
	}
	if m.Body == "" || !utf8.ValidString(m.Body) {
		return fmt.Errorf("a message needs a body of UTF-8 text")
	}
	for _, r := range m.Body {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return fmt.Errorf("a message cannot carry the character %U", r)
		}
	}
	if m.Delay < 0 || m.Delay > MaxDelay {
		return fmt.Errorf("a message cannot be delayed by %s, at most by %s", m.Delay, MaxDelay)
	}
	if len(m.Group) > MaxGroup {
		return fmt.Errorf("the group %q is longer than %d characters", m.Group, MaxGroup)
	}
	for _, r := range m.Group {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("the group %q has the character %U; visible ASCII is what a group is made of", m.Group, r)
		}
	}
	return nil
}

// Received is a message as it was received.
type Received struct {
	Message
	// ID is the queue's own id of the message.
	ID string
	// Receipt names this receiving of it, for Delete and Hide.
	Receipt string
	// Receives counts how often it was received, this time included.
	Receives int
}

// Sender sends.
type Sender interface {
	// Send sends all messages, in batches of ten. It fails unless every one was accepted; some may have been sent then, and
	// the caller sends all of them again.
	Send(ctx context.Context, m ...Message) error
}

// Queue is one queue with its dead-letter queue. Implemented by sqlite and sqs, held to account by queuetest.
type Queue interface {
	Sender
	// Receive waits at most wait for messages and hides the ones it returns, at most max (1 to MaxReceive), for visible
	// (more than 0, at most MaxHide). None in time is an empty answer and no error. A message received more often than the
	// queue allows goes to the dead-letter queue instead.
	Receive(ctx context.Context, max int, wait, visible time.Duration) ([]Received, error)
	// Delete removes a message for good. A receipt that no longer holds is not an error.
	Delete(ctx context.Context, receipt string) error
	// Hide sets the time until the message is seen again, counted from now, 0 for at once, at most MaxHide. A receipt that
	// no longer holds, because the message is gone or may be seen by others again, is fault.NotFound.
	Hide(ctx context.Context, receipt string, d time.Duration) error
	// Bury moves a message to the dead-letter queue with the reason. Its receipt has to hold.
	Bury(ctx context.Context, m Received, reason string) error
	// Buried lists messages of the dead-letter queue, at most max; it removes nothing.
	Buried(ctx context.Context, max int) ([]Dead, error)
	// Redrive moves everything in the dead-letter queue back, as new messages that nobody has received yet, at most perSecond
	// (to MaxRate) of them in a second, or as fast as the queue can for 0. They may still be on their way when it returns; to
	// ask again meanwhile begins nothing and tells how far it is.
	Redrive(ctx context.Context, perSecond int) (Move, error)
}

// Move is how far a Redrive is.
type Move struct {
	// UnderWay says that messages are still being moved.
	UnderWay bool
	// Moved of All messages are back. SQS counts roughly, and late.
	Moved, All int
}

// Dead is a message in the dead-letter queue.
type Dead struct {
	Message
	ID string
	// Reason is what Bury was told, TooOften when the queue moved it by itself.
	Reason string
}

// TooOften is the reason of a message that the queue itself moved to its dead-letter queue.
const TooOften = "received too often"

// Answer is what a handler wishes for its message.
type Answer struct {
	act    act
	delay  time.Duration
	reason string
}

type act int

const (
	done act = iota
	retry
	drop
)

// Done deletes the message.
func Done() Answer { return Answer{} }

// RetryIn leaves the message and hides it for d, 0 for "at once".
func RetryIn(d time.Duration) Answer { return Answer{act: retry, delay: d} }

// Drop buries the message in the dead-letter queue with the reason: no later try could make sense of it.
func Drop(reason string) Answer { return Answer{act: drop, reason: reason} }

// Retry gives the delay of a RetryIn answer.
func (a Answer) Retry() (time.Duration, bool) { return a.delay, a.act == retry }

// Dropped gives the reason of a Drop answer.
func (a Answer) Dropped() (string, bool) { return a.reason, a.act == drop }

// Handler handles one received message. It must be safe for concurrent use and tolerate duplicates.
type Handler func(ctx context.Context, m Received) Answer
