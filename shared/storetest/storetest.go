// Package storetest holds an implementation of record.Store to what record promises: one named case for each sentence, a
// race, and a random comparison with a model of twenty lines. Both adapters run it; a bug found in either becomes a case.
//
// It expects indexes that are up to date at once, which the port does not promise but the backends of the tests give.
package storetest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster/shared/fault"
	"muster/shared/record"
)

// Open gives an empty store that asks now for the time.
type Open func(t *testing.T, now func() time.Time) record.Store

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(newBench(t, open)) })
	}
	t.Run("of many writers one wins each revision", func(t *testing.T) { race(newBench(t, open)) })
	t.Run("any calls in any order give what the model gives", func(t *testing.T) { compare(newBench(t, open)) })
}

// bench is a store with a clock, and the shortest way to say something about it.
type bench struct {
	*testing.T
	store record.Store
	clock *clock
}

func newBench(t *testing.T, open Open) *bench {
	// Neither a whole second nor a whole millisecond, so that rounding shows.
	c := &clock{now: time.Date(2026, 11, 5, 10, 0, 0, 250_700_000, time.UTC)}
	return &bench{t, open(t, c.Now), c}
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (b *bench) put(r record.Record) record.Record {
	b.Helper()
	rev, err := b.store.Put(b.Context(), r)
	if err != nil {
		b.Fatalf("put %q %q with revision %d: %v", r.Part, r.Sort, r.Rev, err)
	}
	r.Rev = rev
	return r
}

func (b *bench) delete(k record.Key, rev int64) {
	b.Helper()
	if err := b.store.Delete(b.Context(), k, rev); err != nil {
		b.Fatalf("delete %q %q with revision %d: %v", k.Part, k.Sort, rev, err)
	}
}

func (b *bench) holds(want record.Record) {
	b.Helper()
	got, err := b.store.Get(b.Context(), want.Key)
	if err != nil {
		b.Fatalf("get %q %q: %v", want.Part, want.Sort, err)
	}
	b.same(got, want)
}

func (b *bench) absent(k record.Key) {
	b.Helper()
	if got, err := b.store.Get(b.Context(), k); !fault.Is(err, fault.NotFound) {
		b.Fatalf("get %q %q gave %+v and %v, want fault.NotFound", k.Part, k.Sort, got, err)
	}
}

// conflicts checks a failed condition: winner is what Current has to give, nil for nothing.
func (b *bench) conflicts(err error, winner *record.Record) {
	b.Helper()
	if !fault.Is(err, fault.Conflict) {
		b.Fatalf("got the error %v, want fault.Conflict", err)
	}
	current, there := record.Current(err)
	if there != (winner != nil) {
		b.Fatalf("Current gave %+v, %t", current, there)
	}
	if there {
		b.same(current, *winner)
	}
}

func (b *bench) putConflicts(r record.Record, winner *record.Record) {
	b.Helper()
	_, err := b.store.Put(b.Context(), r)
	b.conflicts(err, winner)
}

func (b *bench) deleteConflicts(k record.Key, rev int64, winner *record.Record) {
	b.Helper()
	b.conflicts(b.store.Delete(b.Context(), k, rev), winner)
}

func (b *bench) scans(s record.Scan, want ...record.Record) {
	b.Helper()
	got, err := b.store.Scan(b.Context(), s)
	if err != nil {
		b.Fatalf("scan %+v: %v", s, err)
	}
	b.same(got, want)
}

func (b *bench) finds(notAfter time.Time, part string, limit int, want ...record.Record) {
	b.Helper()
	got, err := b.store.Due(b.Context(), record.Shard(part), notAfter, limit)
	if err != nil {
		b.Fatalf("find what is due: %v", err)
	}
	b.same(got, dueEntries(want))
}

func (b *bench) lists(list, before string, limit int, want ...record.Record) {
	b.Helper()
	got, err := b.store.List(b.Context(), list, before, limit)
	if err != nil {
		b.Fatalf("list %q: %v", list, err)
	}
	b.same(got, listEntries(want))
}

func (b *bench) same(got, want any) {
	b.Helper()
	if diff := difference(got, want); diff != "" {
		b.Fatalf("unexpected records (-got +want):\n%s", diff)
	}
}

// difference takes records as the port means them: times to their precision, no body for an empty one.
func difference(got, want any) string {
	kept := cmp.Transformer("kept", func(r record.Record) any {
		type kept struct {
			Key         record.Key
			Rev         int64
			Body        string
			Due         int64
			Expires     int64
			List, Order string
		}
		k := kept{Key: r.Key, Rev: r.Rev, Body: string(r.Body), List: r.List, Order: r.Order}
		if !r.Due.IsZero() {
			k.Due = r.Due.UnixMilli()
		}
		if !r.Expires.IsZero() {
			k.Expires = r.Expires.Unix()
		}
		return k
	})
	return cmp.Diff(got, want, kept, cmpopts.EquateEmpty())
}

// dueEntries and listEntries give what the two indexes have of records.
func dueEntries(rs []record.Record) (all []record.Entry) {
	for _, r := range rs {
		all = append(all, record.Entry{Key: r.Key, Due: r.Due.UTC().Truncate(time.Millisecond)})
	}
	return all
}

func listEntries(rs []record.Record) (all []record.Entry) {
	for _, r := range rs {
		all = append(all, record.Entry{Key: r.Key, Order: r.Order})
	}
	return all
}

func at(part, sort string) record.Key { return record.Key{Part: part, Sort: sort} }

// race lets twenty writers raise one counter.
func race(b *bench) {
	const writers, rounds = 20, 10
	k := at("counter", "it")
	var (
		mu   sync.Mutex
		wins = map[int64]int{}
		all  sync.WaitGroup
	)
	for range writers {
		all.Go(func() {
			rev := int64(0)
			for won := 0; won < rounds; {
				got, err := b.store.Put(context.Background(), record.Record{Key: k, Rev: rev})
				if err == nil {
					mu.Lock()
					wins[got]++
					mu.Unlock()
					rev, won = got, won+1
					continue
				}
				winner, there := record.Current(err)
				if !there || winner.Rev == rev {
					b.Errorf("the loser against revision %d got %v and the winner %d, %t", rev, err, winner.Rev, there)
					return
				}
				rev = winner.Rev
			}
		})
	}
	all.Wait()
	if len(wins) != writers*rounds {
		b.Errorf("%d puts won %d revisions", writers*rounds, len(wins))
	}
	for rev, n := range wins {
		if n != 1 || rev < 1 || rev > writers*rounds {
			b.Errorf("revision %d has %d winners", rev, n)
		}
	}
	b.holds(record.Record{Key: k, Rev: writers * rounds})
}
