package faults_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"muster/infra"
	"muster/infra/host"
	"muster/infra/runtimeapi"
	"muster/shared/config"
	"muster/shared/engine/llm/scripted"
	"muster/shared/queue"
	"muster/shared/run"
	"muster/shared/workspace"
)

// lambda is the deployable bootstraps under the Runtime API, on emulators of DynamoDB and SQS, with many processes at a time.
type lambda struct {
	*witness
	functions map[string]*runtimeapi.Function
	runs      *run.Service
	queues    map[string]queue.Queue
}

// prompt is a queue whose messages come back soon when the process that had them died: AWS wants them hidden for as long as
// a function may take, but how soon a run is missed is not for the queue to say.
type prompt struct{ queue.Queue }

func (q prompt) Receive(ctx context.Context, most int, wait, visible time.Duration) ([]queue.Received, error) {
	return q.Queue.Receive(ctx, most, wait, min(visible, 3*time.Second))
}

// newLambda deploys a crew on bootstraps that were built for this.
func newLambda(t *testing.T, files map[string]string, script scripted.Script) *lambda {
	t.Helper()
	b, env := onEmulators(t)
	w := newWitness(t, script)
	l := &lambda{witness: w, functions: map[string]*runtimeapi.Function{}, runs: &run.Service{Store: b.records}, queues: b.queues}
	w.claims = l.claimed
	env = append(env,
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=ERROR",
		config.LeaseKey+"="+shortLease.String(), config.PrivateNetworksKey+"=127.0.0.0/8",
		config.SealingKeyKey+"=k1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", config.WorkspaceIDKey+"=0198c0de-0000-7000-8000-000000000002",
		config.WorkspaceTokenKey+"="+workspace.Hash(workspaceToken), config.InternalTokenKey+"="+workspace.Hash("mus_int_of-the-fault-tests"),
		"MODEL=gpt-4.1-mini", "OPENAI_BASE_URL="+w.model.URL)
	var names []string
	for _, f := range infra.Functions {
		names = append(names, f.Name)
	}
	bootstraps, err := runtimeapi.Build(t.Context(), "../..", t.TempDir(), names...)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range infra.Functions {
		l.functions[f.Name] = &runtimeapi.Function{
			Name: f.Name, Bootstrap: bootstraps[f.Name], Output: io.Discard,
			Env: append(env, "AWS_LAMBDA_FUNCTION_NAME="+f.Name, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE="+strconv.Itoa(f.MemoryMB)),
			Own: func(n int) []string { return []string{"OPENAI_API_KEY=" + keyOf(n)} },
		}
	}
	queues := map[string]queue.Queue{}
	for name, q := range b.queues {
		queues[name] = prompt{q}
	}
	around := &host.Host{
		Queues: queues, Every: shortSweep, Log: slog.New(slog.DiscardHandler),
		Invoke: func(ctx context.Context, function string, event []byte) ([]byte, error) {
			return l.functions[function].Invoke(ctx, event)
		},
	}
	front := httptest.NewServer(around.HTTP())
	w.url = front.URL
	running, stop := context.WithCancel(context.Background())
	worked := make(chan struct{})
	go func() { defer close(worked); around.Run(running) }()
	t.Cleanup(func() {
		stop()
		for _, f := range l.functions {
			f.Close()
		}
		<-worked
		front.Close()
	})
	var deployed struct{ Token string }
	if code := request(around.HTTP(), "POST", "/v1/deployments", workspaceToken, map[string]any{"name": "chain", "files": files}, &deployed); code != http.StatusCreated {
		t.Fatalf("the crew was not deployed: %d", code)
	}
	w.token = deployed.Token
	return l
}

// keyOf is how the model knows the n-th process of the runner.
func keyOf(n int) string { return fmt.Sprint("runner-", n) }

func (l *lambda) claimed(runID string) (epoch, deaths int) {
	r, err := l.runs.Get(l.t.Context(), runID)
	if err != nil {
		l.t.Error(err)
	}
	return r.Epoch, r.TakeOvers
}

// pick picks a process of a function that has work, at random; ok is false when there is none. One without work would be
// handed some while it is frozen, and that is a fault too many for what is measured.
func (l *lambda) pick(function string) (p runtimeapi.Process, ok bool) {
	busy := slices.DeleteFunc(l.functions[function].Processes(), func(p runtimeapi.Process) bool { return p.Idle })
	if len(busy) == 0 {
		return p, false
	}
	return busy[rand.IntN(len(busy))], true
}

// signal sends a signal to a process, which may have ended since it was picked.
func (l *lambda) signal(p runtimeapi.Process, s syscall.Signal) {
	if err := syscall.Kill(p.PID, s); err != nil && err != syscall.ESRCH {
		l.t.Errorf("send %s to process %d: %v", s, p.PID, err)
	}
}

// TestKilledAndFrozenBootstrapsLoseNothing kills processes of the runner and the dispatcher at random times, and freezes
// others until their leases are over and their runs are somebody else's. Then it wakes them.
func TestKilledAndFrozenBootstrapsLoseNothing(t *testing.T) {
	t.Parallel()
	blows, atOnce, pause := 8, 6, 600
	if *soak {
		blows, atOnce, pause = 70, 12, 900
	}
	l := newLambda(t, chain(4), func(scripted.Request) scripted.Reply {
		return scripted.Reply{Text: "Forged.", Wait: in(time.Duration(rand.IntN(150)) * time.Millisecond)}
	})
	began := time.Now()
	stop := l.work(atOnce)
	var waking sync.WaitGroup
	kills, freezes, held := 0, 0, 0
	for kills+freezes < blows {
		function := "runner"
		if rand.IntN(4) == 0 {
			function = "dispatcher"
		}
		p, ok := l.pick(function)
		if !ok {
			<-in(time.Millisecond)
			continue
		}
		freeze := rand.IntN(3) == 0
		if freeze {
			freezes++
			l.signal(p, syscall.SIGSTOP)
			waking.Go(func() {
				<-in(recovery + time.Duration(rand.IntN(1000))*time.Millisecond)
				if function == "runner" {
					l.woke(keyOf(p.N))
				}
				l.signal(p, syscall.SIGCONT)
			})
		} else {
			kills++
			l.signal(p, syscall.SIGKILL)
		}
		if function == "runner" {
			l.killed()
			held += l.miss(keyOf(p.N))
		}
		<-in(time.Duration(50+rand.IntN(pause)) * time.Millisecond)
	}
	waking.Wait()
	stop()
	l.rest()
	took := time.Since(began)

	owners, zombies, cut := l.judgeCalls(l.runs)
	lost, doubled, blamed := l.judgeRuns(l.runs)
	t.Logf("%d kills and %d frozen processes in %s; %d times a run was under way there, and %d of %d were missed for more than %s, beside %d that were hit again; %d runs were given up; the machine stood still for %s",
		kills, freezes, took.Round(time.Second), held, l.late, l.recoveries, recovery, l.again, blamed, l.still().Round(time.Millisecond))
	row{what: t.Name(), kills: kills + freezes, runs: len(l.all()), owners: owners, zombies: zombies, cut: cut, lost: lost, twice: doubled, slowest: l.slowest}.tell(t)
	for name, q := range l.queues {
		if dead, err := q.Buried(t.Context(), 10); err != nil || len(dead) > 0 {
			t.Errorf("the dead-letter queue of %s holds %+v, %v", name, dead, err)
		}
	}
}

// rest waits until every event of every run was received.
func (l *lambda) rest() {
	l.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	open := l.all()
	for late := time.After(time.Minute); len(open) > 0; {
		if l.rests(open[0]) {
			open = open[1:]
			continue
		}
		select {
		case <-tick.C:
		case <-late:
			l.t.Errorf("%d runs came to no rest", len(open))
			return
		}
	}
}

func (l *lambda) rests(j *journey) bool {
	pages, err := l.runs.Pages(l.t.Context(), j.id, 1, 0)
	if err != nil {
		l.t.Error(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range pages {
		for _, e := range p.Events {
			if j.heard[e.ID] == 0 {
				return false
			}
		}
	}
	return len(pages) > 0 && pages[len(pages)-1].Kind == run.EndPage
}
