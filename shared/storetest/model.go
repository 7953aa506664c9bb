package storetest

import (
	"context"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"muster/shared/fault"
	"muster/shared/record"
)

// model is what a record.Store means.
type model struct {
	kept map[record.Key]record.Record
	now  func() time.Time
}

func (m model) get(k record.Key) (record.Record, bool) {
	r, ok := m.kept[k]
	return r, ok && (r.Expires.IsZero() || m.now().Unix() < r.Expires.Unix())
}

// filter gives the live records that match, in the order that less says.
func (m model) filter(match func(record.Record) bool, compare func(a, b record.Record) int) []record.Record {
	var all []record.Record
	for k := range m.kept {
		if r, live := m.get(k); live && match(r) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, compare)
	return all
}

// compare makes random calls of the store and of the model. The keys are few, so that the calls meet.
func compare(b *bench) {
	ctx := context.Background()
	rapid.Check(b, func(t *rapid.T) {
		m := model{map[record.Key]record.Record{}, b.clock.Now}
		defer func() {
			for k := range m.kept {
				if r, live := m.get(k); live {
					b.delete(k, r.Rev)
				}
			}
		}()
		check := func(got, want any) {
			if diff := difference(got, want); diff != "" {
				t.Fatalf("the store and the model differ (-store +model):\n%s", diff)
			}
		}
		key := func(t *rapid.T) record.Key {
			return at(rapid.SampledFrom([]string{"p", "q"}).Draw(t, "part"), rapid.SampledFrom([]string{"a", "ab", "b", "c"}).Draw(t, "sort"))
		}
		// offset is a time near now, on and beside the edges, or none.
		offset := func(t *rapid.T, name string) time.Time {
			s := rapid.IntRange(-2, 4).Draw(t, name)
			if s == 4 {
				return time.Time{}
			}
			return b.clock.Now().Add(time.Duration(s) * time.Second)
		}
		revision := func(t *rapid.T, k record.Key) int64 {
			current, _ := m.get(k)
			return rapid.SampledFrom([]int64{current.Rev, current.Rev, current.Rev, 0, 1, 2}).Draw(t, "revision")
		}
		// condition gives whether a call on the condition of this revision has to succeed, and checks the error if not.
		condition := func(err error, k record.Key, rev int64, absentIsFine bool) bool {
			current, there := m.get(k)
			if !there {
				current.Rev = 0
			}
			if current.Rev == rev || !there && absentIsFine {
				if err != nil {
					t.Fatalf("%v of revision %d failed where %d is kept: %v", k, rev, current.Rev, err)
				}
				return true
			}
			winner, told := record.Current(err)
			if !fault.Is(err, fault.Conflict) || told != there {
				t.Fatalf("%v of revision %d gave %v, told %t, where %d is kept", k, rev, err, told, current.Rev)
			}
			if there {
				check(winner, current)
			}
			return false
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				r := record.Record{Key: key(t), Body: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "body")}
				r.Rev, r.Due, r.Expires = revision(t, r.Key), offset(t, "due"), offset(t, "expires")
				if r.List = rapid.SampledFrom([]string{"", "l", "m"}).Draw(t, "list"); r.List != "" {
					r.Order = rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "order") + r.Part + r.Sort
				}
				rev, err := b.store.Put(ctx, r)
				if condition(err, r.Key, r.Rev, false) {
					if rev != r.Rev+1 {
						t.Fatalf("a put of revision %d gave revision %d", r.Rev, rev)
					}
					r.Rev = rev
					m.kept[r.Key] = r
				}
			},
			"delete": func(t *rapid.T) {
				k := key(t)
				rev := revision(t, k)
				if condition(b.store.Delete(ctx, k, rev), k, rev, true) {
					delete(m.kept, k)
				}
			},
			"get": func(t *rapid.T) {
				k := key(t)
				want, there := m.get(k)
				got, err := b.store.Get(ctx, k)
				if there != (err == nil) || err != nil && !fault.Is(err, fault.NotFound) {
					t.Fatalf("get %v gave %v, there should be one: %t", k, err, there)
				}
				if there {
					check(got, want)
				}
			},
			"scan": func(t *rapid.T) {
				s := record.Scan{
					Part: key(t).Part, Backward: rapid.Bool().Draw(t, "backward"), Limit: rapid.IntRange(0, 3).Draw(t, "limit"),
					From: rapid.SampledFrom([]string{"", "a", "aa", "b"}).Draw(t, "from"),
					To:   rapid.SampledFrom([]string{"", "a", "a\xff", "b", "c"}).Draw(t, "to"),
				}
				want := m.filter(func(r record.Record) bool {
					return r.Part == s.Part && r.Sort >= s.From && (s.To == "" || r.Sort < s.To)
				}, func(a, b record.Record) int { return strings.Compare(a.Sort, b.Sort) })
				if s.Backward {
					slices.Reverse(want)
				}
				if s.Limit > 0 {
					want = want[:min(s.Limit, len(want))]
				}
				got, err := b.store.Scan(ctx, s)
				if err != nil {
					t.Fatal(err)
				}
				check(got, want)
			},
			"due": func(t *rapid.T) {
				part, until := key(t).Part, b.clock.Now().Add(time.Duration(rapid.IntRange(-3, 3).Draw(t, "until"))*time.Second)
				byTime := func(a, b record.Entry) int { return a.Due.Compare(b.Due) }
				byKey := func(a, b record.Key) int { return strings.Compare(a.Part+a.Sort, b.Part+b.Sort) }
				want := m.filter(func(r record.Record) bool {
					return record.Shard(r.Part) == record.Shard(part) && !r.Due.IsZero() && r.Due.UnixMilli() <= until.UnixMilli()
				}, func(a, b record.Record) int { return byKey(a.Key, b.Key) })
				got, err := b.store.Due(ctx, record.Shard(part), until, 100)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.IsSortedFunc(got, byTime) {
					t.Fatalf("what is due is not in the order of time: %v", got)
				}
				slices.SortFunc(got, func(a, b record.Entry) int { return byKey(a.Key, b.Key) })
				check(got, dueEntries(want))
			},
			"list": func(t *rapid.T) {
				list := rapid.SampledFrom([]string{"l", "m"}).Draw(t, "list")
				before := rapid.SampledFrom([]string{"", "1", "2", "3", "9"}).Draw(t, "before")
				limit := rapid.IntRange(1, 4).Draw(t, "limit")
				want := m.filter(func(r record.Record) bool {
					return r.List == list && (before == "" || r.Order < before)
				}, func(a, b record.Record) int { return strings.Compare(b.Order, a.Order) })
				got, err := b.store.List(ctx, list, before, limit)
				if err != nil {
					t.Fatal(err)
				}
				check(got, listEntries(want[:min(limit, len(want))]))
			},
			"oldest": func(t *rapid.T) {
				list := rapid.SampledFrom([]string{"l", "m"}).Draw(t, "list")
				limit := rapid.IntRange(1, 4).Draw(t, "limit")
				want := m.filter(func(r record.Record) bool { return r.List == list },
					func(a, b record.Record) int { return strings.Compare(a.Order, b.Order) })
				got, err := b.store.Oldest(ctx, list, limit)
				if err != nil {
					t.Fatal(err)
				}
				check(got, listEntries(want[:min(limit, len(want))]))
			},
			"wait": func(t *rapid.T) {
				b.clock.advance(time.Duration(rapid.IntRange(1, 1500).Draw(t, "ms")) * time.Millisecond)
			},
		})
	})
}
