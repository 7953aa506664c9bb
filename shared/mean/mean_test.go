package mean_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/fault"
	"muster/shared/mean"
	"muster/shared/queue"
	"muster/shared/queuetest"
	"muster/shared/record"
	"muster/shared/sqlite"
	"muster/shared/sqlite/sqlitetest"
	"muster/shared/storetest"
)

func TestAMeanThatDoesNothingKeepsThePromises(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) record.Store {
		db := sqlitetest.Temp(t)
		db.Now = now
		return mean.Failing(0, mean.Fine).Store(db.Records())
	})
	var mu sync.Mutex
	now := time.Unix(1_800_000_000, 0)
	queuetest.Run(t, queuetest.Backend{
		Open: func(t *testing.T, maxReceives int) queue.Queue {
			db := sqlitetest.Temp(t)
			db.Now = func() time.Time {
				mu.Lock()
				defer mu.Unlock()
				return now
			}
			return mean.Failing(0, mean.Fine).Queue(db.Queue("q", sqlite.QueueOptions{MaxReceives: maxReceives}))
		},
		Advance: func(d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			now = now.Add(d)
		},
	})
}

func TestFates(t *testing.T) {
	k := record.Key{Part: "p", Sort: "s"}
	for _, c := range []struct {
		name    string
		fate    mean.Fate
		n       int
		happens bool
	}{
		{"Before does nothing", mean.Before, 1, false},
		{"After has happened", mean.After, 1, true},
		{"Partly has happened where there is only one part", mean.Partly, 1, true},
		{"another call is fine", mean.Before, 3, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := sqlitetest.Temp(t)
			m := mean.Failing(c.n, c.fate)
			_, err := m.Store(db.Records()).Put(t.Context(), record.Record{Key: k})
			if failed := errors.Is(err, mean.Err); failed != (c.n == 1) || failed && fault.KindOf(err) != fault.Internal {
				t.Errorf("put: got %v", err)
			}
			if _, err := db.Records().Get(t.Context(), k); (err == nil) != c.happens {
				t.Errorf("get: got %v", err)
			}

			q := db.Queue("q", sqlite.QueueOptions{})
			m = mean.Failing(c.n, c.fate)
			if err := m.Queue(q).Send(t.Context(), queue.Message{Body: "x"}); errors.Is(err, mean.Err) != (c.n == 1) {
				t.Errorf("send: got %v", err)
			}
			if got, err := q.Receive(t.Context(), 1, 0, time.Minute); err != nil || (len(got) == 1) != c.happens {
				t.Errorf("receive: got %v and %v", got, err)
			}
		})
	}
}

func TestCallsNumbersWhatWasCalled(t *testing.T) {
	db := sqlitetest.Temp(t)
	m := mean.Failing(2, mean.Before)
	s, q := m.Store(db.Records()), m.Queue(db.Queue("q", sqlite.QueueOptions{}))
	k := record.Key{Part: "run/1", Sort: "item"}
	s.Put(t.Context(), record.Record{Key: k})
	if _, err := s.Get(t.Context(), k); !errors.Is(err, mean.Err) {
		t.Errorf("the second call gave %v", err)
	}
	q.Send(t.Context(), queue.Message{Body: "x"})
	want := []mean.Call{{N: 1, What: "Put run/1 item"}, {N: 2, What: "Get run/1 item"}, {N: 3, What: "Send 1"}}
	if diff := cmp.Diff(m.Calls(), want); diff != "" {
		t.Errorf("unexpected calls (-got +want):\n%s", diff)
	}
}

// day makes the same calls for every seed and tells what came of them.
func day(t *testing.T, seed uint64) string {
	db := sqlitetest.Temp(t)
	now := time.Unix(1_800_000_000, 0)
	db.Now = func() time.Time { return now }
	m := mean.New(seed)
	s, q := m.Store(db.Records()), m.Queue(db.Queue("q", sqlite.QueueOptions{}))
	var log strings.Builder
	for i := range 60 {
		r := record.Record{Key: record.Key{Part: "p", Sort: fmt.Sprint(i)}, Due: now, List: "l", Order: fmt.Sprintf("%02d", i)}
		_, put := s.Put(t.Context(), r)
		due, _ := s.Due(t.Context(), record.Shard("p"), now, 100)
		list, _ := s.List(t.Context(), "l", "", 100)
		send := q.Send(t.Context(), queue.Message{Body: fmt.Sprint(i)}, queue.Message{Body: fmt.Sprint(i, "b")})
		fmt.Fprintln(&log, put, len(due), len(list), send)
	}
	if err := db.Wake(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		got, err := q.Receive(t.Context(), 10, 0, time.Hour)
		fmt.Fprintln(&log, err)
		for _, m := range got {
			fmt.Fprint(&log, m.Body, " ")
		}
	}
	return log.String()
}

func TestTheSameSeedIsMeanInTheSameWay(t *testing.T) {
	first := day(t, 7)
	if diff := cmp.Diff(day(t, 7), first); diff != "" {
		t.Errorf("two days of one seed differ:\n%s", diff)
	}
	if day(t, 8) == first {
		t.Errorf("two seeds gave the same day")
	}
}

func TestWhatChanceDoes(t *testing.T) {
	db := sqlitetest.Temp(t)
	m := mean.New(1)
	m.Odds.Fail = 0
	s, q := m.Store(db.Records()), m.Queue(db.Queue("q", sqlite.QueueOptions{}))
	now := time.Unix(1_800_000_000, 0)
	stale := 0
	for i := range 50 {
		if _, err := s.Put(t.Context(), record.Record{Key: record.Key{Part: "p", Sort: fmt.Sprint(i)}, Due: now}); err != nil {
			t.Fatal(err)
		}
		due, err := s.Due(t.Context(), record.Shard("p"), now, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(due) < i+1 {
			stale++
		}
		if err := q.Send(t.Context(), queue.Message{Body: fmt.Sprintf("%02d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Wake(t.Context()); err != nil {
		t.Fatal(err)
	}
	var (
		times    = map[string]int{}
		short    int
		received int
		order    []string
	)
	for {
		got, err := q.Receive(t.Context(), 10, 0, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			break
		}
		if len(got) == 1 {
			short++
		}
		for _, m := range got {
			times[m.Body]++
			received++
			order = append(order, m.Body)
		}
	}
	inOrder := true
	for i := 1; i < len(order); i++ {
		inOrder = inOrder && order[i-1] <= order[i]
	}
	if len(times) != 50 || received == 50 || short == 0 || inOrder || stale == 0 || stale == 50 {
		t.Errorf("%d of 50 messages came, %d times, %d times alone, in order %t; of 50 indexes %d were stale", len(times), received, short, inOrder, stale)
	}
}
