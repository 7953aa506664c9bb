package faults_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster/infra"
	"muster/shared/queue"
	"muster/shared/sqlite"
	"muster/shared/sqlite/sqlitetest"
)

func onSQLite(t *testing.T, now func() time.Time) backend {
	db := sqlitetest.Temp(t)
	db.Now = now
	b := backend{records: db.Records(), queues: map[string]queue.Queue{}}
	for _, q := range infra.Queues {
		b.queues[q.Name] = db.Queue(q.Name, sqlite.QueueOptions{MaxReceives: q.Receives})
	}
	return b
}

// TestNoFaultBreaksARun lets each call of the reference run go wrong in each way, one at a time. `go test` plays some of it,
// and always the same.
func TestNoFaultBreaksARun(t *testing.T) {
	t.Parallel()
	breakRuns(t, onSQLite, 24, all, stops...)
}

// TestNoFaultBreaksARunOnAWS does the same on the other adapters. There a run takes ten times as long, so `make emulators` and
// a soak play another part of it each time, `make soak-every` all of it.
func TestNoFaultBreaksARunOnAWS(t *testing.T) {
	t.Parallel()
	breakRuns(t, onClockedAWS, 60, 400, never)
}

// TestNoFaultBreaksAStoppedRunOnAWS does it to runs that are stopped, of whose faults a soak plays another part each time, too.
func TestNoFaultBreaksAStoppedRunOnAWS(t *testing.T) {
	t.Parallel()
	breakRuns(t, onClockedAWS, 20, 80, atWork, asItWaits)
}

// all is every point that there is.
const all = 1 << 30

// TestNoFaultsTogetherBreakARun lets some calls of one run go wrong. What it finds, rapid makes small.
func TestNoFaultsTogetherBreakARun(t *testing.T) {
	t.Parallel()
	severalFaults(t, onSQLite)
}

func TestNoFaultsTogetherBreakARunOnAWS(t *testing.T) {
	t.Parallel()
	severalFaults(t, onClockedAWS)
}

// ways gives the ways in which a call can go wrong. A read has not happened if it fails, whatever went on elsewhere.
func ways(what string) []how {
	switch word, more, _ := strings.Cut(what, " "); {
	case word == "Receive":
		return []how{before, after}
	case slices.Contains([]string{"Get", "Scan", "Due", "List", "Oldest"}, word):
		return []how{before, freeze}
	case word == "Send" && more != "1":
		return []how{before, after, partly, freeze}
	}
	return []how{before, after, freeze}
}

// breakRuns plays a run for each single fault, or for a sample of them, which is another one each time; in a soak, for as
// many as soaked says.
func breakRuns(t *testing.T, on home, sample, soaked int, stops ...stop) {
	stages := make(chan *stage, 2)
	stages <- newStage(t, on)
	stages <- newStage(t, on)
	began := time.Now()
	var plays []play
	for _, stopped := range stops {
		s := <-stages
		calm := s.play(play{stopped: stopped})
		stages <- s
		if len(calm.problems) > 0 {
			t.Fatalf("a run without faults, stopped %s:\n%s", stopped, strings.Join(calm.problems, "\n"))
		}
		n := len(plays)
		for i, what := range calm.calls {
			for _, way := range ways(what) {
				plays = append(plays, play{stopped, []fault{{call: i + 1, how: way}}})
			}
		}
		t.Logf("stopped %s, the %d calls of a run (%s) can go wrong in %d ways", stopped, len(calm.calls), kinds(calm.calls), len(plays)-n)
	}
	points := len(plays)
	switch {
	case *soak && *every:
		sample = points
	case *soak:
		sample = soaked
	}
	rand.New(rand.NewPCG(seed, 0)).Shuffle(points, func(i, j int) { plays[i], plays[j] = plays[j], plays[i] })
	plays = plays[:min(sample, points)]

	var (
		playing sync.WaitGroup
		mu      sync.Mutex
		sum     = row{what: t.Name()}
		failed  int
	)
	for _, what := range plays {
		s := <-stages
		if t.Failed() && failed > 10 {
			t.Fatal("and so on")
		}
		playing.Go(func() {
			c := s.play(what)
			mu.Lock()
			defer mu.Unlock()
			sum.add(c)
			if len(c.problems) > 0 {
				failed++
				t.Error(c)
			}
			stages <- s
		})
	}
	playing.Wait()
	t.Logf("%d of %d fault points were played in %s, drawn by -rapid.seed=%d", len(plays), points, time.Since(began).Round(time.Second), seed)
	sum.tell(t)
}

// severalFaults plays runs with faults as rapid draws them: two most of the time.
func severalFaults(t *testing.T, on home) {
	s := newStage(t, on)
	calls := map[stop]int{}
	for _, stopped := range stops {
		calls[stopped] = len(s.play(play{stopped: stopped}).calls)
	}
	sum := row{what: t.Name()}
	rapid.Check(t, func(t *rapid.T) {
		what := play{stopped: rapid.SampledFrom(stops).Draw(t, "stopped")}
		for i := range 2 + rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "more") {
			what.faults = append(what.faults, fault{
				call: 1 + rapid.Custom(evenly(calls[what.stopped])).Draw(t, fmt.Sprintf("call %d", i)),
				how:  rapid.SampledFrom([]how{before, after, partly, freeze}).Draw(t, "goes wrong"),
				thaw: rapid.IntRange(0, 150).Draw(t, "thaws"),
			})
		}
		c := s.play(what)
		sum.add(c)
		if len(c.problems) > 0 {
			t.Fatal(c)
		}
	})
	sum.tell(t)
}

// evenly draws one of n numbers; rapid by itself prefers the small ones.
func evenly(n int) func(*rapid.T) int {
	return func(t *rapid.T) int {
		high := rapid.IntRange(0, 15).Draw(t, "high")
		return (high*((n+15)/16) + rapid.IntRange(0, (n+15)/16-1).Draw(t, "low")) % n
	}
}

// kinds counts calls by what they ask.
func kinds(calls []string) string {
	store, queues, model := 0, 0, 0
	for _, c := range calls {
		switch word, _, more := strings.Cut(c, " "); {
		case word == "model":
			model++
		case slices.Contains([]string{"Send", "Receive", "Hide", "Bury"}, word) || word == "Delete" && !more:
			queues++
		default:
			store++
		}
	}
	return fmt.Sprintf("%d to stores, %d to queues, %d to the model", store, queues, model)
}
