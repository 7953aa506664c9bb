package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"muster/shared/fault"
	"muster/shared/queue"
)

var _ queue.Queue = (*Queue)(nil)

// QueueOptions say how a queue behaves.
type QueueOptions struct {
	// MaxReceives is how often a message is received before it goes to the dead-letter queue; 0 is without end.
	MaxReceives int
	// MaxHeld is how many messages of one group are in flight at most, so that a group whose messages take long leaves
	// room for others; 0 is without end.
	MaxHeld int
}

// Queue is one queue in the file, with its dead-letter queue. It is fair: the groups with a visible message take turns, a
// message each, however many messages one of them has, and a group with many messages in flight comes after all others.
type Queue struct {
	db      *DB
	name    string
	max     int
	maxHeld int
	turns   *turns
}

// manyHeld is how many messages in flight make a group a noisy one, as for SQS.
const manyHeld = 30

// turns is what all handles of one queue share.
type turns struct {
	// next is the smallest group whose turn has not come yet. Only the writer uses it.
	next string

	mu   sync.Mutex
	bell chan struct{}
}

// ring wakes whoever waits for messages.
func (t *turns) ring() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.bell)
	t.bell = make(chan struct{})
}

// rung gives a channel that the next ring closes.
func (t *turns) rung() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bell
}

// Queue gives the queue of that name. The same name is the same queue.
func (db *DB) Queue(name string, o QueueOptions) *Queue {
	db.mu.Lock()
	defer db.mu.Unlock()
	t := db.queues[name]
	if t == nil {
		t = &turns{bell: make(chan struct{})}
		db.queues[name] = t
	}
	return &Queue{db, name, o.MaxReceives, o.MaxHeld, t}
}

// Send sends all messages or, with an error, most likely none.
func (q *Queue) Send(ctx context.Context, messages ...queue.Message) error {
	for _, m := range messages {
		if err := m.Check(); err != nil {
			return err
		}
	}
	err := q.db.do(ctx, func() error {
		now := q.db.Now()
		for _, m := range messages {
			if _, err := q.db.insert.send.Exec(q.name, m.Group, m.Body, shows(now, m.Delay)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("send to the queue %s: %w", q.name, err)
	}
	q.turns.ring()
	return nil
}

// Receive returns as soon as there is a message: it sleeps until the next hidden one shows, a send or a Hide wakes it.
func (q *Queue) Receive(ctx context.Context, max int, wait, visible time.Duration) ([]queue.Received, error) {
	if max < 1 || max > queue.MaxReceive || visible <= 0 || visible > queue.MaxHide {
		return nil, fmt.Errorf("cannot receive %d messages for %s from the queue %s", max, visible, q.name)
	}
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	for {
		rung := q.turns.rung()
		now := q.db.Now()
		var soonest sql.NullInt64
		if err := q.db.find.soonest.QueryRowContext(ctx, q.name).Scan(&soonest); err != nil {
			return nil, fmt.Errorf("look into the queue %s: %w", q.name, err)
		}
		next := make(<-chan time.Time)
		switch {
		case !soonest.Valid:
		case soonest.Int64 > now.UnixMilli():
			next = time.After(time.UnixMilli(soonest.Int64).Sub(now))
		default:
			got, full, err := q.take(ctx, max, visible)
			if err != nil || len(got) > 0 {
				return got, err
			}
			if !full {
				continue
			}
			next = time.After(lookAgain)
		}
		select {
		case <-rung:
		case <-next:
		case <-deadline.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// lookAgain is when a receiver for whom all groups have too much in flight looks again. What ends before rings.
const lookAgain = time.Second

// take hides and gives what is visible. full says that there would be more if groups had less in flight.
func (q *Queue) take(ctx context.Context, max int, visible time.Duration) (got []queue.Received, full bool, err error) {
	err = q.db.do(ctx, func() error {
		now := q.db.Now()
		if _, err := q.db.insert.show.Exec(q.name, now.UnixMilli()); err != nil {
			return err
		}
		// passed counts how often a group had its turn for nothing since others took theirs: first because it holds many
		// messages, then because it may not hold more.
		passed := map[string]int{}
		for len(got) < max {
			var (
				id       int64
				m        queue.Received
				receives int
			)
			err := q.db.insert.turn.QueryRow(q.name, q.turns.next).Scan(&id, &m.Group, &m.Body, &receives)
			if errors.Is(err, sql.ErrNoRows) {
				if q.turns.next == "" {
					return nil
				}
				q.turns.next = ""
				continue
			}
			if err != nil {
				return err
			}
			if q.max > 0 && receives >= q.max {
				if err := q.bury(id, receives, queue.TooOften); err != nil {
					return err
				}
				continue
			}
			q.turns.next = m.Group + "\x00" // right after this group
			if m.Group != "" {
				noisy, most, err := q.holds(m.Group)
				if err != nil {
					return err
				}
				switch p := passed[m.Group]; {
				case p == 2:
					full = true
					return nil
				case p == 1 && most, p == 0 && noisy:
					passed[m.Group]++
					continue
				case p == 0:
					clear(passed)
				default:
					for group := range passed {
						passed[group] = 1
					}
				}
			}
			if _, err := q.db.insert.receive.Exec(now.Add(visible).UnixMilli(), id); err != nil {
				return err
			}
			m.ID, m.Receipt, m.Receives = strconv.FormatInt(id, 10), receipt(id, receives+1), receives+1
			got = append(got, m)
		}
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("receive from the queue %s: %w", q.name, err)
	}
	return got, full, nil
}

// holds tells whether a group has many messages in flight, and whether it has as many as it may.
func (q *Queue) holds(group string) (noisy, most bool, err error) {
	var n int
	err = q.db.insert.held.QueryRow(q.name, group, max(manyHeld, q.maxHeld)).Scan(&n)
	most = q.maxHeld > 0 && n >= q.maxHeld
	return most || n >= manyHeld, most, err
}

// Delete removes a message, if nobody has received it since.
func (q *Queue) Delete(ctx context.Context, receipt string) error {
	id, receives := readReceipt(receipt)
	err := q.db.do(ctx, func() error {
		_, err := q.db.insert.drop.Exec(q.name, id, receives)
		return err
	})
	if err != nil {
		return fmt.Errorf("delete from the queue %s: %w", q.name, err)
	}
	q.letGo()
	return nil
}

// letGo wakes who may have waited for a group to hold less.
func (q *Queue) letGo() {
	if q.maxHeld > 0 {
		q.turns.ring()
	}
}

// Hide hides a message for d from now.
func (q *Queue) Hide(ctx context.Context, receipt string, d time.Duration) error {
	if d < 0 || d > queue.MaxHide {
		return fmt.Errorf("cannot hide a message of the queue %s for %s", q.name, d)
	}
	id, receives := readReceipt(receipt)
	err := q.db.do(ctx, func() error {
		now := q.db.Now()
		done, err := q.db.insert.hide.Exec(shows(now, d), q.name, id, receives, now.UnixMilli())
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return fault.New(fault.NotFound, "This message is no longer held by whoever received it.")
	})
	if err != nil {
		return fmt.Errorf("hide a message of the queue %s: %w", q.name, err)
	}
	q.turns.ring()
	return nil
}

// Bury moves a message to the dead-letter queue, if nobody has received it since.
func (q *Queue) Bury(ctx context.Context, m queue.Received, reason string) error {
	id, receives := readReceipt(m.Receipt)
	if err := q.db.do(ctx, func() error { return q.bury(id, receives, reason) }); err != nil {
		return fmt.Errorf("bury a message of the queue %s: %w", q.name, err)
	}
	q.letGo()
	return nil
}

// bury is called by the writer alone.
func (q *Queue) bury(id int64, receives int, reason string) error {
	if _, err := q.db.insert.bury.Exec(reason, q.db.Now().UnixMilli(), q.name, id, receives); err != nil {
		return err
	}
	_, err := q.db.insert.drop.Exec(q.name, id, receives)
	return err
}

// Buried lists the dead-letter queue, oldest message first.
func (q *Queue) Buried(ctx context.Context, max int) ([]queue.Dead, error) {
	rows, err := q.db.find.buried.QueryContext(ctx, q.name, max)
	if err != nil {
		return nil, fmt.Errorf("list what the queue %s has buried: %w", q.name, err)
	}
	defer rows.Close()
	var all []queue.Dead
	for rows.Next() {
		var d queue.Dead
		if err := rows.Scan(&d.ID, &d.Group, &d.Body, &d.Reason); err != nil {
			return nil, fmt.Errorf("list what the queue %s has buried: %w", q.name, err)
		}
		all = append(all, d)
	}
	return all, rows.Err()
}

// redriveMost is how many messages are moved in one transaction, so that others need not wait for all of them.
const redriveMost = 200

// Redrive moves what is dead now, oldest message first. All of it is back when it returns; for a rate, one after the other
// shows.
func (q *Queue) Redrive(ctx context.Context, perSecond int) (queue.Move, error) {
	if perSecond < 0 || perSecond > queue.MaxRate {
		return queue.Move{}, fmt.Errorf("cannot move %d messages of the queue %s in a second", perSecond, q.name)
	}
	graves, err := q.graves(ctx)
	if err != nil {
		return queue.Move{}, fmt.Errorf("look what the queue %s has buried: %w", q.name, err)
	}
	var (
		move  = queue.Move{All: len(graves)}
		begun = q.db.Now()
		pause time.Duration
	)
	if perSecond > 0 {
		pause = time.Second / time.Duration(perSecond)
	}
	for some := range slices.Chunk(graves, redriveMost) {
		moved := 0
		err := q.db.do(ctx, func() error {
			for i, id := range some {
				done, err := q.db.insert.dig.Exec(shows(begun, time.Duration(move.Moved+i)*pause), id)
				if err != nil {
					return err
				}
				n, err := done.RowsAffected()
				if err != nil {
					return err
				}
				if _, err := q.db.insert.fill.Exec(id); err != nil {
					return err
				}
				moved += int(n) // none if another Redrive was quicker
			}
			return nil
		})
		if err != nil {
			return queue.Move{}, fmt.Errorf("move what the queue %s has buried: %w", q.name, err)
		}
		move.Moved += moved
	}
	q.turns.ring()
	return move, nil
}

func (q *Queue) graves(ctx context.Context) (ids []int64, err error) {
	rows, err := q.db.find.graves.QueryContext(ctx, q.name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// shows is when a message that is hidden for d from now can be seen, as the column visible has it.
func shows(now time.Time, d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return now.Add(d).UnixMilli()
}

// A receipt names a message and the receive that it was given for, so it stops to hold with the next one.
func receipt(id int64, receives int) string { return fmt.Sprintf("%d/%d", id, receives) }

// readReceipt gives zeros, which name nothing, for what is no receipt.
func readReceipt(s string) (id int64, receives int) {
	a, b, _ := strings.Cut(s, "/")
	id, _ = strconv.ParseInt(a, 10, 64)
	receives, _ = strconv.Atoi(b)
	if receipt(id, receives) != s {
		return 0, 0
	}
	return id, receives
}
