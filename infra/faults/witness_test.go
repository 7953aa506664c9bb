package faults_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/shared/engine/llm/scripted"
	"muster/shared/run"
	"muster/shared/run/runtest"
)

// witness is the world around a Muster whose processes die: a model, a receiver of what its runs tell, callers, and what
// each of them has seen. A process is known to the model by its API key.
type witness struct {
	t     *testing.T
	url   string // where requests are taken
	token string // of the deployment
	model *scripted.Server
	hook  *httptest.Server
	// claims gives the epoch of a run, and how many of its owners died since it last got further; nil where nobody can look.
	claims func(runID string) (epoch, deaths int)

	mu    sync.Mutex
	named map[string]*journey
	// woken has, for each process that was frozen, the number of the newest call whenever it woke.
	woken map[string][]int
	// recoveries counts the runs that were missed, late those that were for too long. again counts those that another death
	// has hit, or may have hit, before anything was seen of them; they are not among the others.
	recoveries, late, again int
	slowest                 time.Duration
	// stood is for how long the machine has stood still so far, as far as this process could tell.
	stood time.Duration
}

// journey is what the world has seen of one run.
type journey struct {
	name, id string
	heard    map[string]int // event ids, and how often
	ended    string         // what the crew's webhook said: "", "FAILED"
	over     chan struct{}

	asker, digest string // who asked the model last, and what
	kills         int    // how many processes were killed since it asked something new
	// missed is since when nothing was seen of the run because the process from was killed or frozen ("" for all there are),
	// at that epoch; zero when something was seen.
	missed time.Time
	from   string
	epoch  int
	// stood is for how long the machine had stood still then.
	stood time.Duration
}

func newWitness(t *testing.T, script scripted.Script) *witness {
	w := &witness{t: t, named: map[string]*journey{}, woken: map[string][]int{}}
	w.model = scripted.New(t, func(r scripted.Request) scripted.Reply {
		w.asked(r)
		return script(r)
	})
	w.hook = httptest.NewServer(http.HandlerFunc(w.hear))
	t.Cleanup(w.hook.Close)
	go w.watch()
	return w
}

// watch sums up for how long the machine stands still: a machine that is too busy to let a clock tick is too busy to look
// after a run, and that is not the run's owner's fault.
func (w *witness) watch() {
	const beat = 10 * time.Millisecond
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-w.t.Context().Done():
			return
		case <-tick.C:
		}
		if gap := time.Since(last) - beat; gap > beat {
			w.mu.Lock()
			w.stood += gap
			w.mu.Unlock()
		}
		last = time.Now()
	}
}

// still gives for how long the machine has stood still.
func (w *witness) still() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stood
}

// asker is the process that asks the model.
func asker(r scripted.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// kickoff starts a run, asking again as long as nobody answers.
func (w *witness) kickoff(name string) *journey {
	j := &journey{name: name, heard: map[string]int{}, over: make(chan struct{})}
	w.mu.Lock()
	w.named[name] = j
	w.mu.Unlock()
	body, _ := json.Marshal(map[string]any{
		"inputs": map[string]any{"topic": name}, "crewWebhookUrl": w.hook.URL + "/crew/" + name,
		"webhooks": map[string]any{"events": []string{"*"}, "url": w.hook.URL + "/events/" + name, "realtime": false},
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(time.Minute); j.id == "" && time.Now().Before(late); <-tick.C {
		r, err := http.NewRequest("POST", w.url+"/kickoff", bytes.NewReader(body))
		if err != nil {
			w.t.Error(err)
			return j
		}
		w.mu.Lock()
		r.Header.Set("Authorization", "Bearer "+w.token)
		w.mu.Unlock()
		r.Header.Set("Idempotency-Key", name)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			continue
		}
		var started struct {
			KickoffID string `json:"kickoff_id"`
		}
		_ = json.NewDecoder(answer.Body).Decode(&started) // a dying process may say half of it
		_ = answer.Body.Close()
		w.mu.Lock()
		j.id = started.KickoffID
		w.mu.Unlock()
	}
	if j.id == "" {
		w.t.Errorf("the kickoff of %s was not answered in a minute", name)
	}
	return j
}

// work has callers that start runs one after the other, each when its last one is over, until stop is called; stop gives
// back when all runs are over.
func (w *witness) work(callers int) (stop func()) {
	var working sync.WaitGroup
	enough := make(chan struct{})
	for i := range callers {
		working.Go(func() {
			for n := i; ; n += callers {
				j := w.kickoff(fmt.Sprintf("run-%05d", n))
				select {
				case <-j.over:
				case <-time.After(time.Minute):
					w.t.Errorf("%s did not end in a minute", j.name)
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
	return func() { close(enough); working.Wait() }
}

// hear is the receiver.
func (w *witness) hear(_ http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the process was killed
	}
	kind, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	var told struct {
		Status string
		Events []struct{ ID string }
	}
	if err := json.Unmarshal(body, &told); err != nil {
		w.t.Errorf("a receiver was told %s", body)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.named[name]
	if j.from == "" {
		w.found(j)
	}
	for _, e := range told.Events {
		j.heard[e.ID]++
	}
	if kind == "crew" {
		j.ended, j.missed = told.Status, time.Time{}
		select {
		case <-j.over:
		default:
			close(j.over)
		}
	}
}

// asked notes that a run asks the model.
func (w *witness) asked(r scripted.Request) {
	w.mu.Lock()
	j := w.named[topic(r)]
	w.mu.Unlock()
	if j == nil {
		return
	}
	missed, again := false, false
	if w.claims != nil {
		w.mu.Lock()
		missed = !j.missed.IsZero() && asker(r) != j.from
		w.mu.Unlock()
	}
	if missed {
		epoch, deaths := w.claims(j.id)
		again = epoch > j.epoch+1 || deaths > 1
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if again && !j.missed.IsZero() {
		w.again++
		j.missed = time.Time{}
	}
	if asker(r) != j.from {
		w.found(j)
	}
	if j.asker = asker(r); j.digest != r.Digest {
		j.digest, j.kills = r.Digest, 0
	}
}

// found notes that a run was seen.
func (w *witness) found(j *journey) {
	if !j.missed.IsZero() {
		took := time.Since(j.missed)
		w.slowest = max(w.slowest, took)
		w.recoveries++
		if stood := w.stood - j.stood; took > recovery+stood {
			w.late++
			w.t.Errorf("%s was missed for %s from %s on, and the machine stood still for %s of it", j.name, took, j.missed.Format(time.TimeOnly), stood)
		}
	}
	j.missed = time.Time{}
}

// miss begins to miss every run that is under way in a process, "" for all of them, and gives how many there are.
func (w *witness) miss(process string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range w.named {
		select {
		case <-j.over:
			continue
		default:
		}
		if j.id == "" || process != "" && j.asker != process {
			continue
		}
		if n++; process != "" {
			w.mu.Unlock()
			epoch, _ := w.claims(j.id)
			w.mu.Lock()
			j.epoch = epoch
		}
		j.missed, j.from, j.stood = time.Now(), process, w.stood
	}
	if n > 0 || process == "" {
		return n
	}
	for _, j := range w.named { // the process may have had the message of any run
		if !j.missed.IsZero() {
			w.again++
			j.missed = time.Time{}
		}
	}
	return 0
}

// killed notes that processes with unfinished runs were killed.
func (w *witness) killed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range w.named {
		j.kills++
	}
}

// woke notes that a process was frozen until now.
func (w *witness) woke(process string) {
	newest := len(w.model.Calls())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.woken[process] = append(w.woken[process], newest)
}

// all gives every run so far.
func (w *witness) all() []*journey {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Values(w.named))
}

// ended gives how a run ended as it was told, "" for well. It may be told again while one asks.
func (w *witness) ended(j *journey) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return j.ended
}

// judgeRuns holds each run to what was promised, and gives how many events were told to nobody, how many more than once,
// and how many runs were given up because their process was killed too often.
func (w *witness) judgeRuns(runs *run.Service) (lost, doubled, blamed int) {
	ctx := w.t.Context()
	for _, j := range w.all() {
		r, q, err := runs.Whole(ctx, j.id)
		if err != nil {
			w.t.Error(err)
			continue
		}
		pages, err := runs.Pages(ctx, j.id, 1, 0)
		if err != nil {
			w.t.Error(err)
		}
		for _, problem := range runtest.Problems(r, q, pages) {
			w.t.Errorf("%s: %s", j.name, problem)
		}
		switch {
		case strings.Contains(r.Error, "crashed the runner 5 times"):
			if blamed++; j.kills < 5 {
				w.t.Errorf("%s was given up, and had only %d deaths since it last got further", j.name, j.kills)
			}
		case r.State != run.Succeeded:
			w.t.Errorf("%s %s: %s", j.name, r.State, r.Error)
		}
		for _, p := range pages {
			for _, e := range p.Events {
				switch n := j.heard[e.ID]; {
				case n == 0:
					lost++
					w.t.Errorf("%s: event %d (%s) was told to nobody", j.name, e.N, e.Type)
				case n > 1:
					doubled++
				}
				delete(j.heard, e.ID)
			}
		}
		if len(j.heard) > 0 {
			w.t.Errorf("%s: %d events were told that are not in the journal", j.name, len(j.heard))
		}
	}
	return lost, doubled, blamed
}

// judgeCalls counts the model calls that were made although an answer was in the journal, by owners and by zombies, and
// those whose answer never came there. A zombie can make one such call for a run, its first one after it woke: it was
// frozen between the look at its lease and the call. What it asks after that it asks as an owner, and must not repeat.
func (w *witness) judgeCalls(runs *run.Service) (owners, zombies, cut int) {
	asked := map[string][]scripted.Call{}
	for _, c := range w.model.Calls() {
		asked[topic(c.Request)] = append(asked[topic(c.Request)], c)
	}
	for _, j := range w.all() {
		pages, err := runs.Pages(w.t.Context(), j.id, 1, 0)
		if err != nil {
			w.t.Error(err)
		}
		kept := map[string]bool{}   // digests
		first := map[string][]int{} // by process: its wakes that a call of this run has followed
		for _, c := range asked[j.name] {
			id := fmt.Appendf(nil, `"chatcmpl-%d"`, c.N)
			recorded := slices.ContainsFunc(pages, func(p run.Page) bool { return p.Kind == run.StepPage && bytes.Contains(p.Result, id) })
			zombie := false
			for _, woke := range w.woken[asker(c.Request)] {
				if woke < c.N && !slices.Contains(first[asker(c.Request)], woke) {
					first[asker(c.Request)] = append(first[asker(c.Request)], woke)
					zombie = true
				}
			}
			switch {
			case kept[c.Digest] && zombie:
				zombies++
			case kept[c.Digest]:
				owners++
				w.t.Errorf("%s asked again what was in its journal: %.60q", j.name, c.User())
			case recorded:
				kept[c.Digest] = true
			default:
				cut++
			}
		}
	}
	return owners, zombies, cut
}
