package faults_test

import (
	"bytes"
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
	l := open(t, onSQLite, bad, nil, smithy(), func(r scripted.Request) scripted.Reply {
		if rand.IntN(100) == 0 {
			return []scripted.Reply{scripted.Fail(500, "out of order"), {Drop: true}, {Raw: `{"choices": [{"mess`}, scripted.Fail(429, "slow down")}[rand.IntN(4)]
		}
		if strings.Contains(r.User(), "link 0 ") && results(r) == 0 {
			return scripted.Use("look", map[string]any{"query": "iron"})
		}
		return scripted.Text("Forged.")
	})
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
				ids[i] = l.start(fmt.Sprintf("run-%05d", i))
			}
		})
	}
	starting.Wait()
	l.rest(ids)
	told, states := l.judge(ids)
	owners, zombies, cut := l.judgeCalls(ids)
	t.Logf("%d runs in %s on the wall and %s on the clock ended %v; %d of %d event ids were received",
		many, time.Since(began).Round(time.Second), l.now().Sub(began).Round(time.Minute), states, len(l.heard), told)
	row{what: t.Name(), faults: bad.Faults(), runs: many, owners: owners, zombies: zombies, cut: cut, lost: told - len(l.heard), twice: l.doubled}.tell(t)
	if len(l.heard) != told {
		t.Error("the events that were told are not those of the journals")
	}
}

// judgeCalls counts the model calls that were made although an answer was in the journal, and those whose answer never came
// there. All runs share a process here, so what tells a zombie is that its call is the retry of one that it made as owner.
func (l *live) judgeCalls(ids []string) (owners, zombies, cut int) {
	asked := map[string][]scripted.Call{} // by run
	for _, c := range l.model.Calls() {
		asked[topic(c.Request)] = append(asked[topic(c.Request)], c)
	}
	for i, id := range ids {
		pages, err := l.runs.Pages(l.t.Context(), id, 1, 0)
		if err != nil {
			l.t.Error(err)
		}
		kept := map[string]bool{} // digests
		for _, c := range asked[fmt.Sprintf("run-%05d", i)] {
			answer := fmt.Appendf(nil, `"chatcmpl-%d"`, c.N)
			switch {
			case kept[c.Digest] && c.Attempt > 0:
				zombies++
			case kept[c.Digest]:
				owners++
				l.t.Errorf("%s asked again what was in its journal: %.60q", id, c.User())
			case slices.ContainsFunc(pages, func(p run.Page) bool { return p.Kind == run.StepPage && bytes.Contains(p.Result, answer) }):
				kept[c.Digest] = true
			default:
				cut++
			}
		}
	}
	return owners, zombies, cut
}
