package storetest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/record"
)

var cases = []struct {
	name string
	run  func(b *bench)
}{
	{"a record comes back as it was put", func(b *bench) {
		r := b.put(record.Record{
			Key: at("run/1", "item"), Body: []byte("body"), Due: b.clock.Now().Add(time.Minute), List: "runs", Order: "2026",
			Expires: b.clock.Now().Add(time.Hour),
		})
		b.holds(r)
	}},
	{"what is zero stays zero", func(b *bench) {
		b.put(record.Record{Key: at("p", "s")})
		got, err := b.store.Get(b.Context(), at("p", "s"))
		if err != nil {
			b.Fatal(err)
		}
		if len(got.Body) != 0 || !got.Due.IsZero() || !got.Expires.IsZero() || got.List != "" || got.Order != "" {
			b.Errorf("got %+v", got)
		}
	}},
	{"Due is kept to the millisecond and Expires to the second", func(b *bench) {
		due, expires := b.clock.Now().Add(time.Millisecond), b.clock.Now().Add(10*time.Second)
		b.put(record.Record{Key: at("p", "s"), Due: due, Expires: expires})
		got, err := b.store.Get(b.Context(), at("p", "s"))
		if err != nil {
			b.Fatal(err)
		}
		if !got.Due.Equal(due.Truncate(time.Millisecond)) || !got.Expires.Equal(expires.Truncate(time.Second)) {
			b.Errorf("put %v and %v, got %v and %v", due, expires, got.Due, got.Expires)
		}
	}},
	{"a body is opaque", func(b *bench) {
		body := make([]byte, 256)
		for i := range body {
			body[i] = byte(i)
		}
		b.holds(b.put(record.Record{Key: at("p", "s"), Body: body}))
	}},
	{"a body of MaxBody bytes is kept, in the list too", func(b *bench) {
		r := b.put(record.Record{
			Key: at(strings.Repeat("p", 2048), strings.Repeat("s", 1024)), Body: bytes.Repeat([]byte{0xff, 0, 'x'}, record.MaxBody/3),
			Due: b.clock.Now(), List: strings.Repeat("l", 2048), Order: strings.Repeat("o", 1024), Expires: b.clock.Now().Add(time.Hour),
		})
		b.holds(r)
		b.lists(r.List, "", 10, r)
		b.scans(record.Scan{Part: r.Part}, r)
	}},
	{"what Check refuses is refused, and nothing is written", func(b *bench) {
		good := record.Record{Key: at("p", "s"), Body: []byte("x")}
		for name, bad := range map[string]func(r *record.Record){
			"no part":               func(r *record.Record) { r.Part = "" },
			"no sort":               func(r *record.Record) { r.Sort = "" },
			"a part too long":       func(r *record.Record) { r.Part = strings.Repeat("p", 2049) },
			"a sort too long":       func(r *record.Record) { r.Sort = strings.Repeat("s", 1025) },
			"a sort that is binary": func(r *record.Record) { r.Sort = "s\xff" },
			"a list without order":  func(r *record.Record) { r.List = "l" },
			"an order without list": func(r *record.Record) { r.Order = "o" },
			"a negative revision":   func(r *record.Record) { r.Rev = -1 },
			"a due before 1970":     func(r *record.Record) { r.Due = time.UnixMilli(-1) },
		} {
			r := good
			bad(&r)
			if _, err := b.store.Put(b.Context(), r); fault.KindOf(err) != fault.Internal {
				b.Errorf("%s: got %v, want an error that is no fault", name, err)
			}
		}
		large := good
		large.Body = make([]byte, record.MaxBody+1)
		if _, err := b.store.Put(b.Context(), large); !fault.Is(err, fault.TooLarge) {
			b.Errorf("a body too long: got %v, want fault.TooLarge", err)
		}
		b.scans(record.Scan{Part: "p"})
	}},

	{"revisions begin with 1 and go up by 1", func(b *bench) {
		r := record.Record{Key: at("p", "s")}
		for want := int64(1); want <= 3; want++ {
			if r = b.put(r); r.Rev != want {
				b.Fatalf("got revision %d, want %d", r.Rev, want)
			}
			b.holds(r)
		}
	}},
	{"Get of what is absent is NotFound", func(b *bench) {
		b.put(record.Record{Key: at("p", "s")})
		b.absent(at("p", "other"))
		b.absent(at("other", "s"))
	}},
	{"a record is hidden from its expiry on", func(b *bench) {
		r := b.put(record.Record{
			Key: at("p", "s"), Due: b.clock.Now(), List: "l", Order: "o", Expires: b.clock.Now().Truncate(time.Second).Add(10 * time.Second),
		})
		b.clock.advance(r.Expires.Sub(b.clock.Now()) - time.Millisecond)
		b.holds(r)
		b.scans(record.Scan{Part: "p"}, r)
		b.finds(b.clock.Now(), "p", 10, r)
		b.lists("l", "", 10, r)
		b.clock.advance(time.Millisecond)
		b.absent(r.Key)
		b.scans(record.Scan{Part: "p"})
		b.finds(b.clock.Now(), "p", 10)
		b.lists("l", "", 10)
	}},
	{"a put with revision 0 needs nothing to be there, and the loser learns what is", func(b *bench) {
		r := b.put(record.Record{Key: at("p", "s"), Body: []byte("first"), Due: b.clock.Now(), List: "l", Order: "o"})
		b.putConflicts(record.Record{Key: r.Key, Body: []byte("second")}, &r)
		b.holds(r)
	}},
	{"a put with a stale revision changes nothing, and the loser learns the winner", func(b *bench) {
		old := b.put(record.Record{Key: at("p", "s"), Body: []byte("old")})
		won := old
		won.Body = []byte("won")
		won = b.put(won)
		old.Body = []byte("lost")
		b.putConflicts(old, &won)
		b.holds(won)
	}},
	{"a put with a revision from the future changes nothing", func(b *bench) {
		r := b.put(record.Record{Key: at("p", "s")})
		b.putConflicts(record.Record{Key: r.Key, Rev: 2}, &r)
		b.holds(r)
	}},
	{"a put with a revision onto nothing is a conflict without a winner", func(b *bench) {
		b.putConflicts(record.Record{Key: at("p", "s"), Rev: 1}, nil)
		b.absent(at("p", "s"))
	}},
	{"an expired record counts as absent for a put", func(b *bench) {
		old := b.put(record.Record{Key: at("p", "s"), Body: []byte("old"), Expires: b.clock.Now().Add(time.Second)})
		old = b.put(old)
		b.clock.advance(2 * time.Second)
		b.putConflicts(old, nil)
		next := b.put(record.Record{Key: at("p", "s"), Body: []byte("new")})
		if next.Rev != 1 {
			b.Errorf("got revision %d, want 1", next.Rev)
		}
		b.holds(next)
	}},
	{"a put replaces everything", func(b *bench) {
		r := b.put(record.Record{
			Key: at("p", "s"), Body: []byte("body"), Due: b.clock.Now(), List: "l", Order: "o", Expires: b.clock.Now().Add(time.Hour),
		})
		b.holds(b.put(record.Record{Key: r.Key, Rev: r.Rev}))
		b.finds(b.clock.Now(), "p", 10)
		b.lists("l", "", 10)
	}},

	{"Delete removes, from the indexes too, and the next put is a first one", func(b *bench) {
		r := b.put(record.Record{Key: at("p", "s"), Due: b.clock.Now(), List: "l", Order: "o"})
		r = b.put(r)
		b.delete(r.Key, r.Rev)
		b.absent(r.Key)
		b.finds(b.clock.Now(), "p", 10)
		b.lists("l", "", 10)
		if again := b.put(record.Record{Key: r.Key}); again.Rev != 1 {
			b.Errorf("got revision %d, want 1", again.Rev)
		}
	}},
	{"Delete with another revision changes nothing, and the loser learns the winner", func(b *bench) {
		r := b.put(record.Record{Key: at("p", "s"), Body: []byte("x")})
		r = b.put(r)
		for _, rev := range []int64{0, 1, 3} {
			b.deleteConflicts(r.Key, rev, &r)
		}
		b.holds(r)
	}},
	{"Delete of what is not there succeeds", func(b *bench) {
		b.delete(at("p", "s"), 0)
		b.delete(at("p", "s"), 7)
		r := b.put(record.Record{Key: at("p", "s"), Expires: b.clock.Now().Add(time.Second)})
		b.clock.advance(2 * time.Second)
		b.delete(r.Key, 7)
	}},

	{"Scan gives one partition in the byte order of Sort", func(b *bench) {
		var want []record.Record
		for _, s := range []string{" ", "!", "/", "0", "10", "2", "Z", "a", "a/", "a/b", "ab", "z", "~", "\u00e9", "\uffee", "\U0001f600"} {
			want = append(want, record.Record{Key: at("p", s), Rev: 1})
		}
		for i := range want {
			b.put(record.Record{Key: want[(i*7)%len(want)].Key}) // 7 and 16 have no common factor
		}
		b.put(record.Record{Key: at("p/", "a")})
		b.put(record.Record{Key: at("P", "a")})
		b.scans(record.Scan{Part: "p"}, want...)
		b.scans(record.Scan{Part: "nothing"})
	}},
	{"Scan begins at From and ends before To, in both directions", func(b *bench) {
		r := b.rows("p", 5) // 00 to 04
		b.scans(record.Scan{Part: "p", From: "01", To: "03"}, r[1], r[2])
		b.scans(record.Scan{Part: "p", From: "01", To: "03", Backward: true}, r[2], r[1])
		b.scans(record.Scan{Part: "p", From: "03"}, r[3], r[4])
		b.scans(record.Scan{Part: "p", To: "02"}, r[0], r[1])
		b.scans(record.Scan{Part: "p", To: "02", Backward: true}, r[1], r[0])
		b.scans(record.Scan{Part: "p", From: "01x", To: "03x"}, r[2], r[3])
		b.scans(record.Scan{Part: "p", From: "02", To: "02"})
		b.scans(record.Scan{Part: "p", From: "03", To: "01"})
		b.scans(record.Scan{Part: "p", From: "9"})
	}},
	{"Scan gives at most Limit, from the end it begins at", func(b *bench) {
		r := b.rows("p", 5)
		b.scans(record.Scan{Part: "p", Limit: 2}, r[0], r[1])
		b.scans(record.Scan{Part: "p", Limit: 2, Backward: true}, r[4], r[3])
		b.scans(record.Scan{Part: "p", To: "03", Limit: 1, Backward: true}, r[2])
		b.scans(record.Scan{Part: "p", From: "01", To: "04", Limit: 9}, r[1], r[2], r[3])
	}},
	{"Prefix finds what begins with it and nothing else", func(b *bench) {
		var want []record.Record
		for _, s := range []string{"page/", "page/1", "page/\u00e9", "page/\U0010ffff"} {
			want = append(want, b.put(record.Record{Key: at("p", s)}))
		}
		b.put(record.Record{Key: at("p", "page")})
		b.put(record.Record{Key: at("p", "page0")})
		b.scans(record.Prefix("p", "page/"), want...)
		b.scans(record.Scan{Part: "p", From: "page/", To: "page/\xff", Backward: true, Limit: 1}, want[3])
	}},
	{"Scan reads past a page, whatever the backend's pages are", func(b *bench) {
		var r []record.Record
		for i := range 15 {
			r = append(r, b.put(record.Record{Key: at("p", fmt.Sprintf("%02d", i)), Body: bytes.Repeat([]byte{byte(i)}, 200<<10)}))
		}
		b.scans(record.Scan{Part: "p"}, r...)
		b.scans(record.Scan{Part: "p", Limit: 11}, r[:11]...)
		b.scans(record.Scan{Part: "p", From: "03", To: "14"}, r[3:14]...)
		got, err := b.store.Scan(b.Context(), record.Scan{Part: "p", Backward: true, Limit: 13})
		if err != nil || len(got) != 13 || got[0].Sort != "14" || got[12].Sort != "02" {
			b.Errorf("backwards: got %d records and %v", len(got), err)
		}
	}},
	{"expired records do not count for Limit", func(b *bench) {
		var kept []record.Record
		for i := range 12 {
			r := record.Record{Key: at("p", fmt.Sprintf("%02d", i)), Due: b.clock.Now(), List: "l", Order: fmt.Sprintf("%02d", 99-i)}
			if i%4 != 3 {
				r.Expires = b.clock.Now().Add(time.Second)
			}
			if r = b.put(r); i%4 == 3 {
				kept = append(kept, r)
			}
		}
		b.clock.advance(2 * time.Second)
		b.scans(record.Scan{Part: "p", Limit: 2}, kept[:2]...)
		b.scans(record.Scan{Part: "p", Limit: 3}, kept...)
		b.lists("l", "", 2, kept[:2]...)
		got, err := b.store.Due(b.Context(), record.Shard("p"), b.clock.Now(), 3)
		if err != nil || len(got) != 3 {
			b.Errorf("due: got %d records and %v, want 3", len(got), err)
		}
	}},

	{"Due gives what is due by then, earliest first, at most limit", func(b *bench) {
		now := b.clock.Now().Truncate(time.Millisecond)
		var r []record.Record
		for i, ms := range []int{40, 10, 30, 0, 20} {
			r = append(r, b.put(record.Record{Key: at("p", fmt.Sprint(i)), Body: []byte("b"), Due: now.Add(time.Duration(ms) * time.Millisecond)}))
		}
		b.put(record.Record{Key: at("p", "never")})
		b.finds(now.Add(30*time.Millisecond), "p", 10, r[3], r[1], r[4], r[2])
		b.finds(now.Add(30*time.Millisecond-time.Microsecond), "p", 10, r[3], r[1], r[4])
		b.finds(now.Add(time.Hour), "p", 2, r[3], r[1])
		b.finds(now.Add(-time.Millisecond), "p", 10)
	}},
	{"Due sorts by time, not by digits", func(b *bench) {
		early := b.put(record.Record{Key: at("p", "early"), Due: time.UnixMilli(999)})
		late := b.put(record.Record{Key: at("p", "late"), Due: time.UnixMilli(1_000_000_000_000)})
		b.finds(b.clock.Now(), "p", 10, early, late)
	}},
	{"each partition is due in its shard, and every shard is used", func(b *bench) {
		perShard := map[int]int{}
		for i := range 200 {
			part := fmt.Sprintf("run/%d", i)
			b.put(record.Record{Key: at(part, "item"), Due: b.clock.Now()})
			perShard[record.Shard(part)]++
		}
		for shard := range record.Shards {
			got, err := b.store.Due(b.Context(), shard, b.clock.Now(), 1000)
			if err != nil {
				b.Fatal(err)
			}
			if len(got) != perShard[shard] || len(got) == 0 {
				b.Errorf("shard %d has %d records, want %d", shard, len(got), perShard[shard])
			}
			for _, r := range got {
				if record.Shard(r.Part) != shard {
					b.Errorf("%s was found in shard %d", r.Part, shard)
				}
			}
		}
	}},
	{"a put moves the record in the due index, and out of it", func(b *bench) {
		now := b.clock.Now()
		r := b.put(record.Record{Key: at("p", "s"), Due: now})
		r.Due = now.Add(time.Minute)
		r = b.put(r)
		b.finds(now, "p", 10)
		b.finds(now.Add(time.Minute), "p", 10, r)
		r.Due = time.Time{}
		b.put(r)
		b.finds(now.Add(time.Hour), "p", 10)
	}},

	{"List gives a list backwards, from below before, at most limit", func(b *bench) {
		var r []record.Record
		for i := range 5 {
			r = append(r, b.put(record.Record{Key: at(fmt.Sprintf("run/%d", i), "item"), Body: []byte("b"), List: "l", Order: fmt.Sprintf("2026-%d", i)}))
		}
		b.put(record.Record{Key: at("run/x", "item"), List: "l2", Order: "2026-2"})
		b.put(record.Record{Key: at("run/y", "item")})
		b.lists("l", "", 10, r[4], r[3], r[2], r[1], r[0])
		b.lists("l", "", 2, r[4], r[3])
		b.lists("l", r[3].Order, 2, r[2], r[1])
		b.lists("l", r[1].Order, 2, r[0])
		b.lists("l", r[0].Order, 2)
		b.lists("l", "2026-2x", 1, r[2])
		b.lists("nothing", "", 10)
	}},
	{"List reads past a page, whatever the backend's pages are", func(b *bench) {
		var want []record.Record
		for i := range 8 {
			r := b.put(record.Record{Key: at("p", fmt.Sprint(i)), Body: bytes.Repeat([]byte{byte(i)}, 300<<10), List: "l", Order: fmt.Sprint(9 - i)})
			want = append(want, r)
		}
		b.lists("l", "", 10, want...)
		b.lists("l", "", 5, want[:5]...)
	}},
	{"a put moves the record in its list, to another one, and out", func(b *bench) {
		other := b.put(record.Record{Key: at("p", "other"), List: "l", Order: "5"})
		r := b.put(record.Record{Key: at("p", "s"), List: "l", Order: "1"})
		b.lists("l", "", 10, other, r)
		r.Order = "9"
		r = b.put(r)
		b.lists("l", "", 10, r, other)
		r.List = "m"
		r = b.put(r)
		b.lists("l", "", 10, other)
		b.lists("m", "", 10, r)
		r.List, r.Order = "", ""
		b.put(r)
		b.lists("m", "", 10)
	}},

	{"a call whose context is over fails with no fault", func(b *bench) {
		ctx, cancel := context.WithCancel(b.Context())
		cancel()
		_, get := b.store.Get(ctx, at("p", "s"))
		_, put := b.store.Put(ctx, record.Record{Key: at("p", "s")})
		_, scan := b.store.Scan(ctx, record.Scan{Part: "p"})
		_, due := b.store.Due(ctx, 0, b.clock.Now(), 1)
		_, list := b.store.List(ctx, "l", "", 1)
		_, oldest := b.store.Oldest(ctx, "l", 1)
		for call, err := range map[string]error{
			"Get": get, "Put": put, "Delete": b.store.Delete(ctx, at("p", "s"), 0), "Scan": scan, "Due": due, "List": list, "Oldest": oldest,
		} {
			if fault.KindOf(err) != fault.Internal {
				b.Errorf("%s: got %v, want an error that is no fault", call, err)
			}
		}
	}},
}

// rows puts n records into a partition, "00" and up.
func (b *bench) rows(part string, n int) []record.Record {
	var all []record.Record
	for i := range n {
		all = append(all, b.put(record.Record{Key: at(part, fmt.Sprintf("%02d", i)), Body: fmt.Append(nil, i)}))
	}
	return all
}
