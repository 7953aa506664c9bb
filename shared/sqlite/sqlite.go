// Package sqlite keeps records and queues in one SQLite file, for the embedded default. It needs no cgo.
//
// One process owns the file: Open takes a lock and holds it until Close, so what the process knows about its queues (who
// waits, whose turn it is) may live in memory. All writes go through one connection, many to a transaction (writer.go);
// reads go past it on connections of their own and see every write that has returned. A write that has returned is on
// the disk: synchronous is FULL, because a webhook may already have told the world about it.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"muster/shared/fault"
)

const schema = `
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS records (
	part TEXT NOT NULL, sort TEXT NOT NULL, rev INTEGER NOT NULL, body BLOB,
	shard INTEGER, due INTEGER,         -- milliseconds; both or neither
	list TEXT, place TEXT,              -- both or neither
	expires INTEGER,                    -- seconds
	UNIQUE (part, sort)
);
CREATE INDEX IF NOT EXISTS records_due ON records (shard, due) WHERE due IS NOT NULL;
CREATE INDEX IF NOT EXISTS records_list ON records (list, place) WHERE list IS NOT NULL;
CREATE INDEX IF NOT EXISTS records_expires ON records (expires) WHERE expires IS NOT NULL;

CREATE TABLE IF NOT EXISTS messages (
	id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, tenant TEXT NOT NULL, body TEXT NOT NULL,
	visible INTEGER NOT NULL,           -- milliseconds: hidden before; 0 once it shows
	receives INTEGER NOT NULL DEFAULT 0
);
-- However many messages a group has waiting or hidden, whose turn it is is the first entry of a range.
DROP INDEX IF EXISTS messages_turn;
CREATE INDEX IF NOT EXISTS messages_ready ON messages (queue, tenant, id) WHERE visible = 0;
CREATE INDEX IF NOT EXISTS messages_held ON messages (queue, tenant) WHERE visible > 0 AND receives > 0;
CREATE INDEX IF NOT EXISTS messages_visible ON messages (queue, visible);

CREATE TABLE IF NOT EXISTS dead (
	id INTEGER PRIMARY KEY, queue TEXT NOT NULL, tenant TEXT NOT NULL, body TEXT NOT NULL,
	reason TEXT NOT NULL, died INTEGER NOT NULL -- milliseconds
);
CREATE INDEX IF NOT EXISTS dead_queue ON dead (queue, id);
COMMIT;
`

// DB is an open file.
type DB struct {
	// Now is the clock, time.Now unless a test sets another before the first use.
	Now func() time.Time

	lock, write, read *sql.DB
	writes            chan *pending
	quit, done        chan struct{}
	closing           sync.Once
	insert            writing
	find              reading
	swept             time.Time

	mu     sync.Mutex
	queues map[string]*turns
}

// Open opens the file, and makes it and its folder when they are not there. A file that another process has open is
// fault.Conflict.
func Open(path string) (_ *DB, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the data file: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the data file: %w", err)
	}
	db := &DB{
		Now:    time.Now,
		writes: make(chan *pending),
		quit:   make(chan struct{}),
		done:   make(chan struct{}),
		queues: map[string]*turns{},
	}
	defer func() {
		if err != nil {
			db.closeFiles()
		}
	}()
	if err := db.takeLock(path + ".lock"); err != nil {
		return nil, err
	}
	// SQLite gives its log and its index the mode of the file.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the data file: %w", err)
	}
	f.Close()
	// It is as durable as fsync and faster; where it does not exist nothing changes.
	_, _ = sqlite.Fdatasync(true)

	if db.write, err = connect(path, 1, "busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-16384)"); err != nil {
		return nil, err
	}
	if _, err := db.write.Exec(schema); err != nil {
		return nil, fmt.Errorf("prepare the data file %s: %w", path, err)
	}
	if db.read, err = connect(path, 4, "busy_timeout(5000)", "query_only(1)"); err != nil {
		return nil, err
	}
	if err := errors.Join(prepare(db.write, db.insert.statements()), prepare(db.read, db.find.statements())); err != nil {
		return nil, fmt.Errorf("prepare the data file %s: %w", path, err)
	}
	go db.writeAll()
	return db, nil
}

// takeLock holds a transaction on a second, empty database for as long as the process lives: a lock that works the same on
// every system and is gone with the process, however that ends.
func (db *DB) takeLock(path string) (err error) {
	if db.lock, err = connect(path, 1, "busy_timeout(500)"); err != nil {
		return err
	}
	_, err = db.lock.Exec("BEGIN EXCLUSIVE")
	var e *sqlite.Error
	if errors.As(err, &e) && e.Code()&0xff == lib.SQLITE_BUSY {
		return fault.Wrap(err, fault.Conflict, "Another Muster is using %s. Stop it, or choose another folder with -data.", filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	return nil
}

func connect(path string, connections int, pragmas ...string) (*sql.DB, error) {
	file := filepath.ToSlash(path)
	if file[0] != '/' {
		file = "/" + file
	}
	query := url.Values{"_pragma": pragmas}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: file, RawQuery: query.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open the data file %s: %w", path, err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

func prepare(db *sql.DB, statements map[**sql.Stmt]string) error {
	for to, text := range statements {
		s, err := db.Prepare(text)
		if err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		*to = s
	}
	return nil
}

// Close waits for the writes that have begun and gives up the file. Whatever is called afterwards fails.
func (db *DB) Close() error {
	var err error
	db.closing.Do(func() {
		close(db.quit)
		<-db.done
		err = db.closeFiles()
	})
	return err
}

// closeFiles lets go of the lock last.
func (db *DB) closeFiles() error {
	var errs []error
	for _, d := range []*sql.DB{db.read, db.write, db.lock} {
		if d != nil {
			errs = append(errs, d.Close())
		}
	}
	return errors.Join(errs...)
}

// Wake makes every message of every queue visible now. Whoever has just opened the file knows that nobody holds a
// message any more, and need not wait for the leases of a process that is gone.
func (db *DB) Wake(ctx context.Context) error {
	err := db.do(ctx, func() error {
		_, err := db.write.Exec(`UPDATE messages SET visible = 0 WHERE visible > 0`)
		return err
	})
	if err != nil {
		return fmt.Errorf("wake the queues: %w", err)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, q := range db.queues {
		q.ring()
	}
	return nil
}
