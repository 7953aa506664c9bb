package faults_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/shared/engine/llm/scripted"
	"muster/shared/run"
	"muster/shared/run/runtest"
)

// chain is a crew of so many tasks, one after the other, a model call each.
func chain(tasks int) map[string]string {
	var text strings.Builder
	for i := range tasks {
		fmt.Fprintf(&text, "link%d: {description: \"Forge link %d for {topic}.\", expected_output: A text, agent: smith}\n", i, i)
	}
	return map[string]string{
		"agents.yaml": "smith: {role: Smith, goal: Forge, backstory: Strong, llm: openai/gpt-4.1-mini}\n",
		"tasks.yaml":  text.String(),
	}
}

// topic finds the run that a prompt is about.
func topic(r scripted.Request) string {
	return topics.FindString(r.User())
}

var topics = regexp.MustCompile(`(run|poison|sibling)-[0-9]+`)

// in gives a channel that is closed after a time.
func in(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(d, func() { close(c) })
	return c
}

// TestKilledProcessesLoseNothing kills the process again and again, with many runs under way.
func TestKilledProcessesLoseNothing(t *testing.T) {
	t.Parallel()
	kills, atOnce, pause := 4, 8, 600
	if *soak {
		kills, atOnce, pause = 200, 16, 1500
	}
	m := newMachine(t, chain(4), func(m *machine, r scripted.Request) scripted.Reply {
		m.asked(topic(r))
		return scripted.Reply{Text: "Forged.", Wait: in(time.Duration(rand.IntN(150)) * time.Millisecond)}
	})
	m.start()

	began := time.Now()
	var working sync.WaitGroup
	enough := make(chan struct{})
	for i := range atOnce {
		working.Go(func() {
			for n := i; ; n += atOnce {
				j := m.kickoff(fmt.Sprintf("run-%05d", n))
				select {
				case <-j.over:
				case <-time.After(time.Minute):
					t.Errorf("%s did not end in a minute", j.name)
					return
				}
				select {
				case <-enough:
					return
				default:
				}
			}
		})
	}
	cut := 0
	for range kills {
		<-in(time.Duration(50+rand.IntN(pause)) * time.Millisecond)
		m.kill()
		m.start()
		cut += m.miss()
	}
	close(enough)
	working.Wait()
	m.kill()
	took := time.Since(began)

	runs := m.open()
	repeated, cutCalls := m.judgeCalls(runs)
	lost, doubled, blamed := m.judgeRuns(runs)
	t.Logf("%d kills in %s; %d times a run was under way, and %d of %d were missed for more than %s; %d runs were given up after five kills in a row",
		kills, took.Round(time.Second), cut, m.late, m.recoveries, recovery, blamed)
	row{what: t.Name(), kills: kills, runs: len(m.all()), owners: repeated, cut: cutCalls, lost: lost, twice: doubled, slowest: m.slowest}.tell(t)
	if blamed > kills/100 {
		t.Errorf("%d runs were given up for being killed at random", blamed)
	}
	if m.late > m.recoveries/100 {
		t.Errorf("%d of %d runs were missed for more than %s", m.late, m.recoveries, recovery)
	}
}

// judgeRuns holds each run to what was promised, and gives how many events were told to nobody, how many more than once,
// and how many runs were given up because their process was killed too often.
func (m *machine) judgeRuns(runs *run.Service) (lost, doubled, blamed int) {
	ctx := m.t.Context()
	for _, j := range m.all() {
		r, q, err := runs.Whole(ctx, j.id)
		if err != nil {
			m.t.Error(err)
			continue
		}
		pages, err := runs.Pages(ctx, j.id, 1, 0)
		if err != nil {
			m.t.Error(err)
		}
		for _, problem := range runtest.Problems(r, q, pages) {
			m.t.Errorf("%s: %s", j.name, problem)
		}
		switch {
		case strings.Contains(r.Error, "crashed the runner 5 times"):
			blamed++
		case r.State != run.Succeeded:
			m.t.Errorf("%s %s: %s", j.name, r.State, r.Error)
		}
		for _, p := range pages {
			for _, e := range p.Events {
				switch n := j.heard[e.ID]; {
				case n == 0:
					lost++
					m.t.Errorf("%s: event %d (%s) was told to nobody", j.name, e.N, e.Type)
				case n > 1:
					doubled++
				}
				delete(j.heard, e.ID)
			}
		}
		if len(j.heard) > 0 {
			m.t.Errorf("%s: %d events were told that are not in the journal", j.name, len(j.heard))
		}
	}
	return lost, doubled, blamed
}

// judgeCalls counts the model calls that were made although an answer was in the journal, and those whose answer never
// came there. Processes come one after the other here, so there are no zombies.
func (m *machine) judgeCalls(runs *run.Service) (repeated, cut int) {
	asked := map[string][]scripted.Call{}
	for _, c := range m.model.Calls() {
		asked[topic(c.Request)] = append(asked[topic(c.Request)], c)
	}
	for _, j := range m.all() {
		pages, err := runs.Pages(m.t.Context(), j.id, 1, 0)
		if err != nil {
			m.t.Error(err)
		}
		kept := map[string]bool{} // digests
		for _, c := range asked[j.name] {
			id := fmt.Appendf(nil, `"chatcmpl-%d"`, c.N)
			recorded := false
			for _, p := range pages {
				recorded = recorded || p.Kind == run.StepPage && bytes.Contains(p.Result, id)
			}
			switch {
			case kept[c.Digest]:
				repeated++
				m.t.Errorf("%s asked again what was in its journal: %.60q", j.name, c.User())
			case recorded:
				kept[c.Digest] = true
			default:
				cut++
			}
		}
	}
	return repeated, cut
}

// TestAPoisonRunDiesAlone has a run that kills the process whenever it asks the model, among others whose calls take so long
// that they are under way each time.
func TestAPoisonRunDiesAlone(t *testing.T) {
	t.Parallel()
	const siblings = 5
	struck := make(chan struct{}, 100)
	m := newMachine(t, chain(2), func(m *machine, r scripted.Request) scripted.Reply {
		if strings.HasPrefix(topic(r), "poison") {
			struck <- struct{}{}
			return scripted.Reply{Wait: make(chan struct{})}
		}
		return scripted.Reply{Text: "Forged.", Wait: in(250 * time.Millisecond)}
	})
	m.start()
	var others []*journey
	for i := range siblings {
		others = append(others, m.kickoff(fmt.Sprintf("sibling-%d", i)))
	}
	poison := m.kickoff("poison-1")
	deaths := 0
	for ended := false; !ended; {
		select {
		case <-struck:
			deaths++
			m.kill()
			m.start()
		case <-poison.over:
			ended = true
		case <-time.After(time.Minute):
			t.Fatalf("after %d deaths the poison run has not ended", deaths)
		}
	}
	for _, j := range others {
		select {
		case <-j.over:
		case <-time.After(time.Minute):
			t.Fatalf("%s has not ended", j.name)
		}
		if ended := m.ended(j); ended != "" {
			t.Errorf("%s ended %s", j.name, ended)
		}
	}
	m.kill()
	runs := m.open()
	if _, _, blamed := m.judgeRuns(runs); blamed != 1 {
		t.Errorf("%d runs were blamed", blamed)
	}
	r, err := runs.Get(t.Context(), poison.id)
	if err != nil || r.State != run.Failed || !strings.Contains(r.Error, "crashed the runner 5 times") || deaths != 5 {
		t.Errorf("after %d deaths the poison run is %s (%s), %v", deaths, r.State, r.Error, err)
	}
	row{what: t.Name(), kills: deaths, runs: siblings + 1, slowest: m.slowest}.tell(t)
}
