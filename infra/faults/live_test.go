package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/infra"
	"muster/infra/host"
	"muster/shared/app"
	"muster/shared/engine/llm"
	"muster/shared/engine/llm/openai"
	"muster/shared/engine/llm/scripted"
	"muster/shared/guard"
	"muster/shared/invoke"
	"muster/shared/mean"
	"muster/shared/queue"
	"muster/shared/run"
	"muster/shared/run/runtest"
	"muster/shared/workspace"
)

// live is Muster at work: every function behind the host, as on a machine, with many runs at a time.
type live struct {
	t     *testing.T
	http  http.Handler
	runs  *run.Service // without faults
	model *scripted.Server
	hook  *httptest.Server
	token string
	// flaw says what is wrong with a POST that a receiver gets: 0 is nothing, or else it is the status that it answers, or -1
	// for no answer at all. What it refuses it does not know.
	flaw func() int

	mu      sync.Mutex
	ahead   time.Duration
	moves   int             // how often anything was seen to happen
	heard   map[string]int  // by event id
	ended   map[string]bool // by run id: the crew's webhook came
	doubled int
}

// open opens a live Muster with one deployment. bad, when not nil, stands before its stores and queues.
func open(t *testing.T, on func(t *testing.T, now func() time.Time) backend, bad *mean.Mean, timeouts map[string]time.Duration, files map[string]string, script scripted.Script) *live {
	t.Helper()
	l := &live{t: t, heard: map[string]int{}, ended: map[string]bool{}}
	b := on(t, l.now)
	l.model = scripted.Start(func(r scripted.Request) scripted.Reply {
		l.moved()
		return script(r)
	})
	l.hook = httptest.NewServer(http.HandlerFunc(l.hear))
	sealer, err := workspace.NewSealer(map[string][]byte{"k": bytes.Repeat([]byte{7}, 32)}, "k")
	if err != nil {
		t.Fatal(err)
	}
	settings := app.Backends{
		Records: b.records, Runs: b.queues[infra.Runs], Deliveries: b.queues[infra.Deliveries], Sealer: sealer, Now: l.now,
		Callers: map[string]workspace.Caller{workspace.Hash(workspaceToken): {Kind: workspace.Workspace, WorkspaceID: "0198c0de-0000-7000-8000-000000000002"}},
		Models:  llm.Settings{Providers: map[string]llm.Access{"openai": {BaseURL: l.model.URL, APIKey: "key"}}}, OpenAI: openai.New,
		Guard: guard.Options{AllowLoopback: true}, Log: slog.New(slog.DiscardHandler),
	}
	calm := app.New(settings)
	l.runs = calm.Runs
	var deployed struct{ Token string }
	if code := request(calm.HTTP(), "POST", "/v1/deployments", workspaceToken, map[string]any{"name": "live", "files": files}, &deployed); code != http.StatusCreated {
		t.Fatalf("the crew was not deployed: %d", code)
	}
	l.token = deployed.Token

	queues := b.queues
	if bad != nil {
		settings.Records = bad.Store(b.records)
		queues = map[string]queue.Queue{}
		for name, q := range b.queues {
			queues[name] = impatient{bad.Queue(q)}
		}
		settings.Runs, settings.Deliveries = queues[infra.Runs], queues[infra.Deliveries]
	}
	a := app.New(settings)
	l.http = a.HTTP()
	work := map[string]func(context.Context, []byte) ([]byte, error){
		"runner":     invoke.Batch(a.Runner, queues[infra.Runs]).Invoke,
		"dispatcher": invoke.Batch(a.Dispatcher, queues[infra.Deliveries]).Invoke,
		"sweeper":    invoke.Tick(a.Sweep).Invoke,
	}
	machine := &host.Host{
		Queues: queues, Every: shortSweep, Timeouts: timeouts, Log: slog.New(slog.DiscardHandler),
		Invoke: func(ctx context.Context, function string, event []byte) ([]byte, error) {
			return work[function](ctx, event)
		},
	}
	working, stop := context.WithCancel(context.Background())
	worked := make(chan struct{})
	go func() { defer close(worked); machine.Run(working) }()
	t.Cleanup(func() {
		stop()
		a.Stop()
		l.model.Close()
		<-worked
		l.hook.Close()
	})
	return l
}

// impatient is a queue that looks at the clock often, because the clock is moved.
type impatient struct{ queue.Queue }

func (q impatient) Receive(ctx context.Context, most int, wait, visible time.Duration) ([]queue.Received, error) {
	return q.Queue.Receive(ctx, most, min(wait, 100*time.Millisecond), visible)
}

func (l *live) now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Add(l.ahead)
}

func (l *live) moved() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moves++
}

// start starts a run, asking until it is accepted, and gives its id.
func (l *live) start(name string) string {
	body := map[string]any{
		"inputs": map[string]any{"topic": name}, "crewWebhookUrl": l.hook.URL + "/crew",
		"webhooks": map[string]any{"events": []string{"*"}, "url": l.hook.URL + "/events", "realtime": false},
	}
	for range 20 {
		var started struct {
			KickoffID string `json:"kickoff_id"`
		}
		request(l.http, "POST", "/kickoff", l.token, body, &started, "Idempotency-Key", name)
		if started.KickoffID != "" {
			l.moved()
			return started.KickoffID
		}
	}
	l.t.Errorf("%s was not accepted", name)
	return ""
}

// hear is the receiver.
func (l *live) hear(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	l.moved()
	if l.flaw != nil {
		switch code := l.flaw(); {
		case code < 0:
			panic(http.ErrAbortHandler)
		case code > 0:
			w.WriteHeader(code)
			return
		}
	}
	var told struct {
		KickoffID string `json:"kickoff_id"`
		Events    []struct{ ID string }
	}
	if err := json.Unmarshal(body, &told); err != nil {
		l.t.Errorf("a receiver was told %s", body)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range told.Events {
		l.heard[e.ID]++
		if l.heard[e.ID] > 1 {
			l.doubled++
		}
	}
	if r.URL.Path == "/crew" {
		l.ended[told.KickoffID] = true
	}
}

// rest waits until the runs have ended and everybody was told. When nothing happens any more, time passes, faster and faster.
func (l *live) rest(ids []string) {
	l.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	const step = 20 * time.Second
	last, passes, open := -1, step, ids
	for late := time.After(9 * time.Minute); ; {
		select {
		case <-tick.C:
		case <-late:
			l.t.Fatalf("%d runs came to no rest", len(open))
		}
		l.mu.Lock()
		ended, moves := len(l.ended), l.moves
		l.mu.Unlock()
		if moves != last {
			last, passes = moves, step
			continue
		}
		if ended >= len(ids) {
			if open = slices.DeleteFunc(slices.Clone(open), l.rests); len(open) == 0 {
				return
			}
		}
		l.mu.Lock()
		l.ahead += passes
		l.mu.Unlock()
		passes = min(2*passes, 10*time.Minute)
	}
}

// rests says whether a run has ended, and everything in its journal was told.
func (l *live) rests(id string) bool {
	if r := l.get(id); !r.State.Ended() || !r.Due.IsZero() {
		return false
	}
	pages, err := l.runs.Pages(l.t.Context(), id, 1, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range pages {
		for _, e := range p.Events {
			if l.heard[e.ID] == 0 {
				return false
			}
		}
	}
	return true
}

// judge holds the runs to what was promised, and gives how many events they had and how they ended.
func (l *live) judge(ids []string) (events int, states map[run.State]int) {
	ctx := l.t.Context()
	states = map[run.State]int{}
	known := map[string]bool{}
	for _, id := range ids {
		r, q, err := l.runs.Whole(ctx, id)
		if err != nil {
			l.t.Error(err)
			continue
		}
		states[r.State]++
		pages, err := l.runs.Pages(ctx, id, 1, 0)
		if err != nil {
			l.t.Error(err)
		}
		for _, problem := range runtest.Problems(r, q, pages) {
			l.t.Errorf("%s: %s", id, problem)
		}
		for _, p := range pages {
			for _, e := range p.Events {
				known[e.ID] = true
			}
		}
	}
	for id := range l.heard {
		if !known[id] {
			l.t.Errorf("event %s was told, and is in no journal", id)
		}
	}
	return len(known), states
}

// TestLongerThanAnInvocation has an invocation end after three seconds, on both homes.
func TestLongerThanAnInvocation(t *testing.T) {
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		longer(t, onSQLite)
	})
	t.Run("AWS", func(t *testing.T) {
		t.Parallel()
		longer(t, onAWS)
	})
}

func longer(t *testing.T, on func(t *testing.T, now func() time.Time) backend) {
	const steps, limit = 60, 3 * time.Second
	l := open(t, on, nil, map[string]time.Duration{"runner": limit}, chain(steps), func(r scripted.Request) scripted.Reply {
		if strings.Contains(r.User(), "for run-2.") && strings.Contains(r.User(), "link 1 ") {
			return scripted.Reply{Wait: in(time.Minute)}
		}
		return scripted.Reply{Text: "Forged.", Wait: in(60 * time.Millisecond)}
	})
	ids := []string{l.start("run-1"), l.start("run-2")}
	l.over(ids)
	long, stuck := l.get(ids[0]), l.get(ids[1])
	if long.State != run.Succeeded || long.Epoch < 3 {
		t.Errorf("the long run %s (%s) after %d invocations, want several", long.State, long.Error, long.Epoch)
	}
	const why = "Step link1/1/model/1 was cut off 3 times because it takes longer than one invocation may. The run was given up."
	if stuck.State != run.Failed || stuck.Error != why || stuck.Epoch < 4 {
		t.Errorf("the run with a step that is too long %s after %d invocations: %s", stuck.State, stuck.Epoch, stuck.Error)
	}
	l.judge(ids)
	answers := map[string][]int{}
	for _, c := range l.model.Calls() {
		if c.Answered {
			answers[c.Digest] = append(answers[c.Digest], c.N)
		}
	}
	pages, err := l.runs.Pages(t.Context(), ids[0], 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	for digest, all := range answers {
		// The end of an invocation may cut a call off just as its answer is on the way; then it is made again.
		if earlier := all[:len(all)-1]; cutOf(earlier, pages) < len(earlier) {
			t.Errorf("a call (%.8s) was made again although its answer is in the journal", digest)
		}
	}
	t.Logf("%d steps took %d invocations of %s; %d model calls were made, %d different ones answered", steps, long.Epoch, limit, len(l.model.Calls()), len(answers))
}

func (l *live) get(id string) run.Run {
	l.t.Helper()
	r, err := l.runs.Get(l.t.Context(), id)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

// over waits until everybody was told that the runs have ended.
func (l *live) over(ids []string) {
	l.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(2 * time.Minute); ; {
		if ids = slices.DeleteFunc(slices.Clone(ids), l.rests); len(ids) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			l.t.Fatalf("%d runs have not ended in time", len(ids))
		}
	}
}
