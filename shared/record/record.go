// Package record is the one port through which Muster keeps anything: conditional records in partitions, with two sparse
// indexes. The domains (run, crew, webhook, workspace, trigger) say what they keep and under which keys; the adapters
// sqlite and dynamo keep it; storetest holds both to the same promises.
//
// A record is replaced only by naming the revision it replaces, so every rule of the kind "only if the state is still the
// one I read" is the same one condition, and a writer that lost a race always learns the record that won.
// Get and Scan are consistent. Due and List are indexes: they may be stale, they only find, and whoever decides
// on what they found reads again.
package record

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"
	"unicode/utf8"

	"muster/shared/fault"
)

// Key names a record: a partition, and a place in it. Scan gives a partition in the byte order of Sort.
// Both are UTF-8 and not empty; Part has at most 2048 bytes, Sort 1024.
type Key struct{ Part, Sort string }

// Record is what is kept under a key.
type Record struct {
	Key
	// Rev is the revision, set by the store: 1 for the first put, then one more each time.
	Rev int64
	// Body is opaque to the store, at most MaxBody bytes.
	Body []byte
	// Due puts the record into the due index; zero leaves it out. Kept to the millisecond, not before 1970.
	Due time.Time
	// List and Order put the record into the list named List, sorted by Order (byte order); "" leaves it out.
	// They are bounded as Part and Sort are. Order should be unique in its list: paging goes by it.
	List, Order string
	// Expires hides the record from every read from then on, and lets the store delete it when it likes; zero is never.
	// Kept to the second.
	Expires time.Time
}

// MaxBody is the longest body in bytes that every adapter keeps; an item of DynamoDB ends at 400 KB, keys included.
const MaxBody = 350 << 10

// Shards is the number of shards of the due index. A record's shard is a function of its Part.
const Shards = 8

// Shard gives the shard of the due index that the records of a partition are in.
func Shard(part string) int {
	h := fnv.New32a()
	h.Write([]byte(part))
	return int(h.Sum32() % Shards)
}

// Check tells what is wrong with a record that no adapter could keep. Adapters call it, so that what one of them refuses
// is refused by all: fault.TooLarge for the body, an error that is no fault for the rest, which is a mistake in the caller.
func (r Record) Check() error {
	if len(r.Body) > MaxBody {
		return fault.New(fault.TooLarge, "This is larger than can be kept in one piece (%d bytes, at most %d).", len(r.Body), MaxBody)
	}
	if r.Rev < 0 {
		return fmt.Errorf("record %q %q has the revision %d", r.Part, r.Sort, r.Rev)
	}
	if !r.Due.IsZero() && r.Due.UnixMilli() < 0 {
		return fmt.Errorf("record %q %q is due at %s, before 1970", r.Part, r.Sort, r.Due)
	}
	if (r.List == "") != (r.Order == "") {
		return fmt.Errorf("record %q %q: List %q and Order %q go together", r.Part, r.Sort, r.List, r.Order)
	}
	for _, s := range []struct {
		name, value string
		max         int
		optional    bool
	}{
		{"Part", r.Part, 2048, false},
		{"Sort", r.Sort, 1024, false},
		{"List", r.List, 2048, true},
		{"Order", r.Order, 1024, true},
	} {
		if s.value == "" && !s.optional || len(s.value) > s.max || !utf8.ValidString(s.value) {
			return fmt.Errorf("record %q %q: %s must be UTF-8, not empty, and at most %d bytes", r.Part, r.Sort, s.name, s.max)
		}
	}
	return nil
}

// Store keeps records. Every method may be called from several goroutines, and fails with an error that is no fault
// (fault.Internal) when the backend cannot be reached: then a write may or may not have happened, and the caller finds
// out by reading.
type Store interface {
	// Get reads consistently. A record that is absent or expired is fault.NotFound.
	Get(ctx context.Context, k Key) (Record, error)

	// Put writes r on condition that the revision kept under its key is r.Rev, where 0 means that nothing (or nothing
	// unexpired) is there, and returns the revision written. When the condition fails the error is fault.Conflict and can
	// be given to Current for the record that is there, if any. What Check refuses is refused.
	Put(ctx context.Context, r Record) (rev int64, err error)

	// Delete removes the record on condition of its revision, as Put does. Removing what is not there succeeds.
	Delete(ctx context.Context, k Key, rev int64) error

	// Scan reads consistently the records of one partition with From <= Sort < To ("" for no bound), in order of Sort or
	// backwards, at most Limit (0: all). Expired ones are left out and do not count.
	Scan(ctx context.Context, s Scan) ([]Record, error)

	// Due finds records of one shard (0 <= shard < Shards) whose Due is not after the time given, earliest first, at most
	// limit.
	Due(ctx context.Context, shard int, notAfter time.Time, limit int) ([]Entry, error)

	// List finds records of one list in descending order of Order, beginning below `before` ("" for the top), at most limit.
	List(ctx context.Context, list, before string, limit int) ([]Entry, error)

	// Oldest finds records of one list in ascending order of Order, at most limit: those that List would come to last.
	Oldest(ctx context.Context, list string, limit int) ([]Entry, error)
}

// Entry is what an index has of a record. An index that carried more would be written, and paid, at every change of it.
type Entry struct {
	Key
	// Due is given by Due, Order by List.
	Due   time.Time
	Order string
}

// Scan says which records of a partition to read.
type Scan struct {
	Part     string
	From, To string
	Backward bool
	Limit    int
}

// Prefix gives the Scan of all records of a partition whose Sort begins with prefix.
func Prefix(part, prefix string) Scan {
	return Scan{Part: part, From: prefix, To: prefix + "\xff"}
}
