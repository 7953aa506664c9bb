package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"muster/shared/fault"
)

// pending is one write that waits for its transaction.
type pending struct {
	ctx  context.Context
	work func() error
	done chan error
}

// errClosed is what happens to calls after Close.
var errClosed = errors.New("the data file is closed")

// maxGroup bounds the writes of one transaction, so that the first of them does not wait long for the last.
const maxGroup = 256

// do runs work inside the next transaction and returns when that is on the disk. work may use the statements of
// db.insert and db.write. A fault that it returns is its own answer and must come before it wrote anything; any other
// error undoes the whole transaction, and everybody in it gets the error.
func (db *DB) do(ctx context.Context, work func() error) error {
	p := &pending{ctx, work, make(chan error, 1)}
	select {
	case db.writes <- p:
		return <-p.done
	case <-ctx.Done():
		return ctx.Err()
	case <-db.quit:
		return errClosed
	}
}

// writeAll is the only writer. Writes that arrive while a transaction goes to the disk share the next one, so the
// slower the disk, the more of them are paid for by one flush.
func (db *DB) writeAll() {
	defer close(db.done)
	for {
		var group []*pending
		select {
		case p := <-db.writes:
			group = append(group, p)
		case <-db.quit:
			return
		}
		for more := true; more && len(group) < maxGroup; {
			select {
			case p := <-db.writes:
				group = append(group, p)
			default:
				more = false
			}
		}
		answers, err := db.transact(group)
		for i, p := range group {
			if err != nil {
				p.done <- err
			} else {
				p.done <- answers[i]
			}
		}
	}
}

// transact runs one transaction: all of the group or, with an error, nothing.
func (db *DB) transact(group []*pending) (answers []error, err error) {
	if _, err := db.insert.begin.Exec(); err != nil {
		return nil, fmt.Errorf("begin to write: %w", err)
	}
	defer func() {
		if err != nil {
			if _, undo := db.insert.rollback.Exec(); undo != nil {
				err = errors.Join(err, fmt.Errorf("undo: %w", undo))
			}
		}
	}()
	if err := db.sweep(); err != nil {
		return nil, fmt.Errorf("remove what has expired: %w", err)
	}
	answers = make([]error, len(group))
	for i, p := range group {
		if answers[i] = p.ctx.Err(); answers[i] != nil {
			continue
		}
		answers[i] = p.work()
		if answers[i] != nil && fault.KindOf(answers[i]) == fault.Internal {
			return nil, answers[i]
		}
	}
	if _, err := db.insert.commit.Exec(); err != nil {
		return nil, fmt.Errorf("finish to write: %w", err)
	}
	return answers, nil
}

const (
	sweepEvery = time.Minute
	sweepMost  = 500
	keepDead   = 14 * 24 * time.Hour // as long as SQS
)

// sweep removes some of what nobody can read any more, once in a while.
func (db *DB) sweep() error {
	now := db.Now()
	if now.Sub(db.swept) < sweepEvery {
		return nil
	}
	db.swept = now
	_, err := db.insert.sweepRecords.Exec(now.Unix(), sweepMost)
	_, err2 := db.insert.sweepDead.Exec(now.Add(-keepDead).UnixMilli(), sweepMost)
	return errors.Join(err, err2)
}
