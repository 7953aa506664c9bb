package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"muster/shared/fault"
	"muster/shared/record"
)

// Records is the record.Store in the file.
type Records struct{ db *DB }

var _ record.Store = (*Records)(nil)

// Records gives the record.Store in the file.
func (db *DB) Records() *Records { return &Records{db} }

// Get reads one record.
func (s *Records) Get(ctx context.Context, k record.Key) (record.Record, error) {
	r, found, err := s.get(ctx, s.db.find.get, k)
	if err != nil {
		return record.Record{}, fmt.Errorf("get %s %s: %w", k.Part, k.Sort, err)
	}
	if !found {
		return record.Record{}, fault.New(fault.NotFound, "This does not exist.")
	}
	return r, nil
}

// Put writes one record.
func (s *Records) Put(ctx context.Context, r record.Record) (int64, error) {
	if err := r.Check(); err != nil {
		return 0, err
	}
	var list, place, shard, due, expires any
	if r.List != "" {
		list, place = r.List, r.Order
	}
	if !r.Due.IsZero() {
		shard, due = record.Shard(r.Part), r.Due.UnixMilli()
	}
	if !r.Expires.IsZero() {
		expires = r.Expires.Unix()
	}
	err := s.db.do(ctx, func() error {
		if err := s.condition(r.Key, r.Rev); err != nil {
			return err
		}
		_, err := s.db.insert.put.Exec(r.Part, r.Sort, r.Rev+1, r.Body, shard, due, list, place, expires)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("put %s %s: %w", r.Part, r.Sort, err)
	}
	return r.Rev + 1, nil
}

// Delete removes one record.
func (s *Records) Delete(ctx context.Context, k record.Key, rev int64) error {
	err := s.db.do(ctx, func() error {
		err := s.condition(k, rev)
		if _, there := record.Current(err); err != nil && (there || !fault.Is(err, fault.Conflict)) {
			return err
		}
		_, err = s.db.insert.delete.Exec(k.Part, k.Sort)
		return err
	})
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", k.Part, k.Sort, err)
	}
	return nil
}

// condition is called by the writer alone.
func (s *Records) condition(k record.Key, rev int64) error {
	current, found, err := s.get(context.Background(), s.db.insert.get, k)
	if err != nil || current.Rev == rev {
		return err
	}
	return record.ConflictWith(current, found)
}

// Scan reads a part of a partition.
func (s *Records) Scan(ctx context.Context, scan record.Scan) ([]record.Record, error) {
	to := scan.To
	if to == "" {
		to = "\xff" // after everything that is UTF-8
	}
	query := s.db.find.scan
	if scan.Backward {
		query = s.db.find.scanBack
	}
	limit := scan.Limit
	if limit <= 0 {
		limit = -1
	}
	found, err := collect(query.QueryContext(ctx, scan.Part, scan.From, to, s.db.Now().Unix(), limit))
	if err != nil {
		return nil, fmt.Errorf("scan %s: %w", scan.Part, err)
	}
	return found, nil
}

// Due finds what is due.
func (s *Records) Due(ctx context.Context, shard int, notAfter time.Time, limit int) ([]record.Entry, error) {
	found, err := entries(s.db.find.due.QueryContext(ctx, shard, notAfter.UnixMilli(), s.db.Now().Unix(), limit))
	if err != nil {
		return nil, fmt.Errorf("find what is due: %w", err)
	}
	return found, nil
}

// List finds the records of a list.
func (s *Records) List(ctx context.Context, list, before string, limit int) ([]record.Entry, error) {
	if before == "" {
		before = "\xff"
	}
	found, err := entries(s.db.find.list.QueryContext(ctx, list, before, s.db.Now().Unix(), limit))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", list, err)
	}
	return found, nil
}

// Oldest finds the records at the end of a list.
func (s *Records) Oldest(ctx context.Context, list string, limit int) ([]record.Entry, error) {
	found, err := entries(s.db.find.oldest.QueryContext(ctx, list, s.db.Now().Unix(), limit))
	if err != nil {
		return nil, fmt.Errorf("list %s from its end: %w", list, err)
	}
	return found, nil
}

func (s *Records) get(ctx context.Context, query *sql.Stmt, k record.Key) (_ record.Record, found bool, _ error) {
	r, err := scanRecord(query.QueryRowContext(ctx, k.Part, k.Sort, s.db.Now().Unix()))
	if errors.Is(err, sql.ErrNoRows) {
		return record.Record{}, false, nil
	}
	return r, err == nil, err
}

const columns = `part, sort, rev, body, due, list, place, expires`

func scanRecord(row interface{ Scan(...any) error }) (record.Record, error) {
	var (
		r            record.Record
		due, expires sql.NullInt64
		list, place  sql.NullString
	)
	if err := row.Scan(&r.Part, &r.Sort, &r.Rev, &r.Body, &due, &list, &place, &expires); err != nil {
		return record.Record{}, err
	}
	r.List, r.Order = list.String, place.String
	if due.Valid {
		r.Due = time.UnixMilli(due.Int64).UTC()
	}
	if expires.Valid {
		r.Expires = time.Unix(expires.Int64, 0).UTC()
	}
	return r, nil
}

// entries reads what an index has of records: part, sort, due, place.
func entries(rows *sql.Rows, err error) ([]record.Entry, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []record.Entry
	for rows.Next() {
		var (
			e     record.Entry
			due   sql.NullInt64
			place sql.NullString
		)
		if err := rows.Scan(&e.Part, &e.Sort, &due, &place); err != nil {
			return nil, err
		}
		if due.Valid {
			e.Due = time.UnixMilli(due.Int64).UTC()
		}
		e.Order = place.String
		all = append(all, e)
	}
	return all, rows.Err()
}

func collect(rows *sql.Rows, err error) ([]record.Record, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []record.Record
	for rows.Next() {
		r, err := scanRecord(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}
