package faults_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster/shared/engine/llm/scripted"
	"muster/shared/run"
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
	m := newMachine(t, chain(4), func(scripted.Request) scripted.Reply {
		return scripted.Reply{Text: "Forged.", Wait: in(time.Duration(rand.IntN(150)) * time.Millisecond)}
	})
	m.start()

	began := time.Now()
	stop := m.work(atOnce)
	cut := 0
	for range kills {
		<-in(time.Duration(50+rand.IntN(pause)) * time.Millisecond)
		m.kill()
		m.killed()
		m.start()
		cut += m.miss("")
	}
	stop()
	m.kill()
	took := time.Since(began)

	runs := m.open()
	repeated, _, cutCalls := m.judgeCalls(runs)
	lost, doubled, blamed := m.judgeRuns(runs)
	t.Logf("%d kills in %s; %d times a run was under way, and %d of %d were missed for more than %s; %d runs were given up after five kills in a row; the machine stood still for %s",
		kills, took.Round(time.Second), cut, m.late, m.recoveries, recovery, blamed, m.still().Round(time.Millisecond))
	row{what: t.Name(), kills: kills, runs: len(m.all()), owners: repeated, cut: cutCalls, lost: lost, twice: doubled, slowest: m.slowest}.tell(t)
}

// TestAFrozenProcessIsItsOwnZombie freezes the process until all its leases are over, again and again. Nobody else can take its runs
// over, for it holds the file; but when it wakes, its sweeper finds leases that have run out, and its queue messages that
// nobody renewed, so its own runner takes over what its own owners still work on.
func TestAFrozenProcessIsItsOwnZombie(t *testing.T) {
	t.Parallel()
	freezes, atOnce := 1, 8
	if *soak {
		freezes, atOnce = 12, 16
	}
	m := newMachine(t, chain(4), func(scripted.Request) scripted.Reply {
		return scripted.Reply{Text: "Forged.", Wait: in(time.Duration(rand.IntN(150)) * time.Millisecond)}
	})
	m.start()
	stop := m.work(atOnce)
	under := 0
	for range freezes {
		<-in(time.Duration(300+rand.IntN(1000)) * time.Millisecond)
		if err := m.process.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		<-in(recovery)
		m.killed()
		m.woke(m.name())
		under += m.miss("")
		if err := m.process.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	m.kill()
	runs := m.open()
	owners, zombies, cut := m.judgeCalls(runs)
	lost, doubled, blamed := m.judgeRuns(runs)
	taken := 0
	for _, j := range m.all() {
		r, err := runs.Get(t.Context(), j.id)
		if err != nil {
			t.Fatal(err)
		}
		if r.Epoch > 1 {
			taken++
		}
	}
	t.Logf("frozen %d times, with %d runs under way; %d runs were taken over, %d given up", freezes, under, taken, blamed)
	row{what: t.Name(), kills: freezes, runs: len(m.all()), owners: owners, zombies: zombies, cut: cut, lost: lost, twice: doubled, slowest: m.slowest}.tell(t)
}

// TestAPoisonRunDiesAlone has a run that kills the process whenever it asks the model, among others whose calls take so long
// that they are under way each time.
func TestAPoisonRunDiesAlone(t *testing.T) {
	t.Parallel()
	const siblings = 5
	struck := make(chan struct{}, 100)
	m := newMachine(t, chain(2), func(r scripted.Request) scripted.Reply {
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
			m.killed()
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
