package faults_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

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

// TestNoFaultBreaksARun lets each call of the reference run go wrong in each way, one at a time, and then two of them.
func TestNoFaultBreaksARun(t *testing.T) {
	t.Parallel()
	s := newStage(t, onSQLite)
	sample, pairs := 24, 8
	if *soak {
		sample, pairs = 0, 400
	}
	breakRuns(t, s, sample, pairs)
}

// breakRuns plays a sample of the single faults (0 is all of them), and some pairs.
func breakRuns(t *testing.T, s *stage, sample, pairs int) {
	calm := s.play()
	if len(calm.problems) > 0 {
		t.Fatalf("a run without faults:\n%s", strings.Join(calm.problems, "\n"))
	}
	var all []fault
	for i, what := range calm.calls {
		ways := []how{before, after, freeze}
		if strings.HasPrefix(what, "Send") && what != "Send 1" {
			ways = append(ways, partly)
		}
		for _, way := range ways {
			if what != "Receive" || way != freeze {
				all = append(all, fault{call: i + 1, how: way})
			}
		}
	}
	chance := rand.New(rand.NewPCG(3, 0))
	pick := func() fault {
		f := all[chance.IntN(len(all))]
		f.thaw = chance.IntN(2) * (1 + chance.IntN(150))
		return f
	}
	scenes := make([][]fault, 0, len(all)+pairs)
	for _, f := range all {
		scenes = append(scenes, []fault{f})
	}
	if sample > 0 {
		chance.Shuffle(len(scenes), func(i, j int) { scenes[i], scenes[j] = scenes[j], scenes[i] })
		scenes = scenes[:min(sample, len(scenes))]
	}
	for range pairs {
		scenes = append(scenes, []fault{pick(), pick()})
	}

	sum, failed := row{what: t.Name(), runs: len(scenes)}, 0
	began := time.Now()
	for _, faults := range scenes {
		c := s.play(faults...)
		sum.faults += len(c.met)
		sum.owners += len(c.repeated)
		sum.zombies += c.zombies
		sum.cut += c.cut()
		sum.twice += c.twice
		if len(c.problems) > 0 {
			failed++
			t.Errorf("%s:\n  %s", strings.Join(c.met, "; "), strings.Join(c.problems, "\n  "))
		}
		if failed > 10 {
			t.Fatal("and so on")
		}
	}
	t.Logf("the %d calls of a run (%s) can go wrong in %d ways; %d runs met one fault and %d two, in %s",
		len(calm.calls), kinds(calm.calls), len(all), len(scenes)-pairs, pairs, time.Since(began).Round(time.Second))
	sum.tell(t)
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
