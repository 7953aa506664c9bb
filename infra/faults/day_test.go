package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/shared/engine/llm/scripted"
	"muster/shared/mean"
	"muster/shared/run"
)

// smithy is a crew of two tasks, of which the first uses a tool.
func smithy() map[string]string {
	files := chain(2)
	files["agents.yaml"] = `smith:
  {role: Smith, goal: Forge, backstory: Strong, llm: openai/gpt-4.1-mini, knowledge: [iron.md], tools: [{type: knowledge_search, name: look}]}
`
	files["iron.md"] = "Iron is forged hot.\n"
	return files
}

// TestManyRunsOnABadDay has one call in a hundred go wrong, of every kind: stores, queues, the model, the receivers.
func TestManyRunsOnABadDay(t *testing.T) {
	t.Parallel()
	many, atOnce := 200, 20
	if *soak {
		many, atOnce = 10_000, 100
	}
	bad := mean.New(5)
	bad.Odds = mean.Odds{Fail: 0.01, Stale: 0.01, Double: 0.01, Late: 0.01, Lateness: time.Second, Short: 0.01}
	var again repeats
	l := open(t, onSQLite, bad, nil, smithy(), func(r scripted.Request) scripted.Reply {
		again.look(r)
		if rand.IntN(100) == 0 {
			return []scripted.Reply{scripted.Fail(500, "out of order"), {Drop: true}, {Raw: `{"choices": [{"mess`}, scripted.Fail(429, "slow down")}[rand.IntN(4)]
		}
		if strings.Contains(r.User(), "link 0 ") && results(r) == 0 {
			return scripted.Use("look", map[string]any{"query": "iron"})
		}
		return scripted.Text("Forged.")
	})
	again.runs = l.runs
	l.flaw = func() int {
		if rand.IntN(100) == 0 {
			return []int{500, 503, -1}[rand.IntN(3)]
		}
		return 0
	}
	began := time.Now()
	ids := make([]string, many)
	var starting sync.WaitGroup
	for w := range atOnce {
		starting.Go(func() {
			for i := w; i < many; i += atOnce {
				name := fmt.Sprintf("run-%05d", i)
				ids[i] = l.start(name)
				again.ids.Store(name, ids[i])
			}
		})
	}
	starting.Wait()
	l.rest(ids)
	told, states := l.judge(ids)
	for _, what := range again.byOwners {
		t.Errorf("asked again what was in the journal: %s", what)
	}
	cut := l.cut(ids) - len(again.byOwners) - again.byZombies
	t.Logf("%d runs in %s on the wall and %s on the clock ended %v; %d of %d event ids were received",
		many, time.Since(began).Round(time.Second), l.now().Sub(began).Round(time.Minute), states, len(l.heard), told)
	row{what: t.Name(), faults: bad.Faults(), runs: many, owners: len(again.byOwners), zombies: again.byZombies, cut: cut, lost: told - len(l.heard), twice: l.doubled}.tell(t)
	if len(l.heard) != told {
		t.Error("the events that were told are not those of the journals")
	}
}

// repeats looks for model calls that are made although their answer is in the journal.
type repeats struct {
	runs *run.Service
	ids  sync.Map // of runs, by name

	mu        sync.Mutex
	asked     map[string][]int // the numbers of the calls, by digest
	byOwners  []string
	byZombies int
}

// look looks at a call. All runs share a process here, so what tells a zombie is the journal: whoever has taken a run over
// has a higher epoch than every page that it found, and so has the run.
func (a *repeats) look(r scripted.Request) {
	a.mu.Lock()
	if a.asked == nil {
		a.asked = map[string][]int{}
	}
	before := a.asked[r.Digest]
	a.asked[r.Digest] = append(before, r.N)
	a.mu.Unlock()
	id, known := a.ids.Load(topic(r))
	if len(before) == 0 || !known {
		return
	}
	ctx := context.Background()
	item, err := a.runs.Get(ctx, id.(string))
	pages, err2 := a.runs.Pages(ctx, id.(string), 1, 0)
	failed := map[string]bool{} // the lines with an error that is newer than the page
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := errors.Join(err, err2); err != nil {
		a.byOwners = append(a.byOwners, err.Error())
	}
	for _, p := range slices.Backward(pages) {
		switch line, _, asks := strings.Cut(p.Key, "/model/"); {
		case p.Kind != run.StepPage || !asks:
		case cutOf(before, []run.Page{p}) == len(before):
			if bytes.Contains(p.Result, []byte(`"error":`)) {
				failed[line] = true
			}
		case failed[line]:
			return // an agent that got an error begins again with the same question, in a step of its own
		case r.Attempt > 0 || item.Epoch == p.Epoch && p.Epoch > 1:
			a.byZombies++
			return
		default:
			a.byOwners = append(a.byOwners, fmt.Sprintf("%s at epoch %d, page %d of epoch %d: %.60q", id, item.Epoch, p.Seq, p.Epoch, r.User()))
			return
		}
	}
}

// cut counts the model's calls whose answers never came into the journals.
func (l *live) cut(ids []string) (cut int) {
	asked := map[string][]int{} // by run
	for _, c := range l.model.Calls() {
		asked[topic(c.Request)] = append(asked[topic(c.Request)], c.N)
	}
	for i, id := range ids {
		pages, err := l.runs.Pages(l.t.Context(), id, 1, 0)
		if err != nil {
			l.t.Error(err)
		}
		cut += cutOf(asked[fmt.Sprintf("run-%05d", i)], pages)
	}
	return cut
}
