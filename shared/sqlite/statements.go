package sqlite

import "database/sql"

const (
	live = `(expires IS NULL OR expires > ?)`
	get  = `SELECT ` + columns + ` FROM records WHERE part = ? AND sort = ? AND ` + live
)

// writing is what the writer prepares, on its one connection.
type writing struct {
	begin, commit, rollback         *sql.Stmt
	get, put, delete                *sql.Stmt
	send, show, turn, receive, held *sql.Stmt
	bury, drop, hide, dig, fill     *sql.Stmt
	sweepRecords, sweepDead         *sql.Stmt
}

func (w *writing) statements() map[**sql.Stmt]string {
	return map[**sql.Stmt]string{
		&w.begin:    `BEGIN IMMEDIATE`,
		&w.commit:   `COMMIT`,
		&w.rollback: `ROLLBACK`,

		&w.get: get,
		&w.put: `INSERT INTO records (part, sort, rev, body, shard, due, list, place, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (part, sort) DO UPDATE SET rev = excluded.rev, body = excluded.body, shard = excluded.shard,
				due = excluded.due, list = excluded.list, place = excluded.place, expires = excluded.expires`,
		&w.delete: `DELETE FROM records WHERE part = ? AND sort = ?`,

		&w.send: `INSERT INTO messages (queue, tenant, body, visible) VALUES (?, ?, ?, ?)`,
		&w.show: `UPDATE messages SET visible = 0 WHERE queue = ? AND visible > 0 AND visible <= ?`,
		&w.turn: `SELECT id, tenant, body, receives FROM messages INDEXED BY messages_ready
			WHERE queue = ? AND tenant >= ? AND visible = 0 ORDER BY tenant, id LIMIT 1`,
		&w.held: `SELECT count(*) FROM (SELECT 1 FROM messages INDEXED BY messages_held
			WHERE queue = ? AND tenant = ? AND visible > 0 AND receives > 0 LIMIT ?)`,
		&w.receive: `UPDATE messages SET receives = receives + 1, visible = ? WHERE id = ?`,
		&w.bury: `INSERT OR REPLACE INTO dead (id, queue, tenant, body, reason, died)
			SELECT id, queue, tenant, body, ?, ? FROM messages WHERE queue = ? AND id = ? AND receives = ?`,
		&w.drop: `DELETE FROM messages WHERE queue = ? AND id = ? AND receives = ?`,
		&w.hide: `UPDATE messages SET visible = ?1 WHERE queue = ?2 AND id = ?3 AND receives = ?4 AND visible > ?5`,
		&w.dig:  `INSERT INTO messages (queue, tenant, body, visible) SELECT queue, tenant, body, ? FROM dead WHERE id = ?`,
		&w.fill: `DELETE FROM dead WHERE id = ?`,

		&w.sweepRecords: `DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE expires <= ? LIMIT ?)`,
		&w.sweepDead:    `DELETE FROM dead WHERE id IN (SELECT id FROM dead WHERE died < ? LIMIT ?)`,
	}
}

// reading is what the readers prepare.
type reading struct {
	get, scan, scanBack, due, list, oldest *sql.Stmt
	soonest, buried, graves                *sql.Stmt
}

func (r *reading) statements() map[**sql.Stmt]string {
	const scan = `SELECT ` + columns + ` FROM records WHERE part = ? AND sort >= ? AND sort < ? AND ` + live
	return map[**sql.Stmt]string{
		&r.get:      get,
		&r.scan:     scan + ` ORDER BY sort LIMIT ?`,
		&r.scanBack: scan + ` ORDER BY sort DESC LIMIT ?`,
		&r.due:      `SELECT part, sort, due, NULL FROM records WHERE shard = ? AND due <= ? AND ` + live + ` ORDER BY due LIMIT ?`,
		&r.list:     `SELECT part, sort, NULL, place FROM records WHERE list = ? AND place < ? AND ` + live + ` ORDER BY place DESC LIMIT ?`,
		&r.oldest:   `SELECT part, sort, NULL, place FROM records WHERE list = ? AND ` + live + ` ORDER BY place LIMIT ?`,

		&r.soonest: `SELECT min(visible) FROM messages WHERE queue = ?`,
		&r.buried:  `SELECT id, tenant, body, reason FROM dead WHERE queue = ? ORDER BY id LIMIT ?`,
		&r.graves:  `SELECT id FROM dead WHERE queue = ? ORDER BY id`,
	}
}
