package faults_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/infra"
	"muster/shared/app"
	"muster/shared/engine/llm/scripted"
	"muster/shared/guard"
	"muster/shared/queue"
	"muster/shared/run"
	"muster/shared/sqlite"
	"muster/shared/sqlite/sqlitetest"
	"muster/shared/workspace"
)

// The settings that make a machine find out quickly that a process has died.
const (
	shortLease = 2 * time.Second
	shortSweep = 500 * time.Millisecond
)

// recovery is how long a run may be missed. A run whose process has died twice under it waits for its turn to be alone beside that.
const recovery = shortLease + 2*shortSweep

// bin is where built puts what it builds.
var bin string

// built builds infra/local once for all tests.
var built = sync.OnceValues(func() (path string, err error) {
	if bin, err = os.MkdirTemp("", "muster-faults-"); err != nil {
		return "", err
	}
	path = filepath.Join(bin, "local")
	if out, err := exec.Command("go", "build", "-o", path, "muster/infra/local").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build infra/local: %w\n%s", err, out)
	}
	return path, nil
})

// machine is a computer on which infra/local is started, killed, and started again. Around it are a model, and a receiver
// of what its runs tell.
type machine struct {
	t      *testing.T
	binary string
	dir    string
	addr   string
	token  string // of the deployment
	model  *scripted.Server
	hook   *httptest.Server

	process *exec.Cmd
	said    bytes.Buffer

	mu    sync.Mutex
	named map[string]*journey
	// recoveries are how long runs were missed after a process was ready again, late is how many too long.
	recoveries, late int
	slowest          time.Duration
}

// journey is what the world has seen of one run.
type journey struct {
	name, id string
	heard    map[string]int // event ids, and how often
	ended    string         // what the crew's webhook said: "", "FAILED"
	over     chan struct{}
	// missed is since when nothing was seen of the run because its process was killed; zero when something was.
	missed time.Time
}

// newMachine sets up a machine with the crew of files. Every line of a script's prompts names the run it is for.
func newMachine(t *testing.T, files map[string]string, script func(m *machine, r scripted.Request) scripted.Reply) *machine {
	t.Helper()
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, binary: binary, dir: sqlitetest.Dir(t), addr: free.Addr().String(), named: map[string]*journey{}}
	_ = free.Close()
	m.model = scripted.New(t, func(r scripted.Request) scripted.Reply { return script(m, r) })
	m.hook = httptest.NewServer(http.HandlerFunc(m.hear))
	t.Cleanup(m.hook.Close)
	for name, text := range files {
		path := filepath.Join(m.dir, "crew", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		m.kill()
		if t.Failed() {
			t.Logf("the last process said:\n%.3000s", m.said.String())
		}
	})
	return m
}

// start starts the process and waits until it takes requests.
func (m *machine) start() {
	m.t.Helper()
	ready := filepath.Join(m.dir, "ready.json")
	_ = os.Remove(ready)
	m.said.Reset()
	m.process = exec.Command(m.binary, "-addr", m.addr, "-data", filepath.Join(m.dir, "data"), "-ready", ready,
		"-deploy", filepath.Join(m.dir, "crew"), "-lease", shortLease.String(), "-sweep", shortSweep.String())
	m.process.Env = append(m.process.Environ(), "MODEL=gpt-4.1-mini", "OPENAI_API_KEY=key", "OPENAI_BASE_URL="+m.model.URL)
	m.process.Stdout, m.process.Stderr = &m.said, &m.said
	if err := m.process.Start(); err != nil {
		m.t.Fatal(err)
	}
	var is struct{ Deployments []struct{ Token string } }
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(time.Minute); ; {
		select {
		case <-tick.C:
		case <-late:
			m.t.Fatal("the process was not ready in a minute")
		}
		if raw, err := os.ReadFile(ready); err == nil && json.Unmarshal(raw, &is) == nil && len(is.Deployments) == 1 {
			m.mu.Lock()
			m.token = is.Deployments[0].Token
			m.mu.Unlock()
			return
		}
	}
}

// kill kills the process, without a warning.
func (m *machine) kill() {
	if m.process != nil {
		_ = m.process.Process.Kill()
		_ = m.process.Wait()
	}
	m.process = nil
}

// kickoff starts a run, asking again as long as the process is down.
func (m *machine) kickoff(name string) *journey {
	j := &journey{name: name, heard: map[string]int{}, over: make(chan struct{})}
	m.mu.Lock()
	m.named[name] = j
	m.mu.Unlock()
	body, _ := json.Marshal(map[string]any{
		"inputs": map[string]any{"topic": name}, "crewWebhookUrl": m.hook.URL + "/crew/" + name,
		"webhooks": map[string]any{"events": []string{"*"}, "url": m.hook.URL + "/events/" + name, "realtime": false},
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(time.Minute); j.id == "" && time.Now().Before(late); <-tick.C {
		r, err := http.NewRequest("POST", "http://"+m.addr+"/kickoff", bytes.NewReader(body))
		if err != nil {
			m.t.Error(err)
			return j
		}
		m.mu.Lock()
		r.Header.Set("Authorization", "Bearer "+m.token)
		m.mu.Unlock()
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
		m.mu.Lock()
		j.id = started.KickoffID
		m.mu.Unlock()
	}
	if j.id == "" {
		m.t.Errorf("the kickoff of %s was not answered in a minute", name)
	}
	return j
}

// hear is the receiver.
func (m *machine) hear(_ http.ResponseWriter, r *http.Request) {
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
		m.t.Errorf("a receiver was told %s", body)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.named[name]
	m.found(j)
	for _, e := range told.Events {
		j.heard[e.ID]++
	}
	if kind == "crew" {
		j.ended = told.Status
		select {
		case <-j.over:
		default:
			close(j.over)
		}
	}
}

// asked notes that a run asks the model.
func (m *machine) asked(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j := m.named[name]; j != nil {
		m.found(j)
	}
}

// found notes that a run was seen.
func (m *machine) found(j *journey) {
	if !j.missed.IsZero() {
		took := time.Since(j.missed)
		m.slowest = max(m.slowest, took)
		m.recoveries++
		if took > recovery {
			m.late++
		}
	}
	j.missed = time.Time{}
}

// miss begins to miss every run that is under way, and gives how many there are.
func (m *machine) miss() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range m.named {
		select {
		case <-j.over:
		default:
			if j.id != "" {
				j.missed = time.Now()
				n++
			}
		}
	}
	return n
}

// all gives every run so far.
func (m *machine) all() []*journey {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.named))
}

// open opens the data of a machine whose process is gone, lets the messages that are left have their effect, and closes the
// receiver.
func (m *machine) open() *run.Service {
	m.t.Helper()
	db, err := sqlite.Open(filepath.Join(m.dir, "data", "muster.db"))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = db.Close() })
	key, err := os.ReadFile(filepath.Join(m.dir, "data", "sealing.key"))
	if err != nil {
		m.t.Fatal(err)
	}
	sealer, err := workspace.NewSealer(map[string][]byte{"local": key}, "local")
	if err != nil {
		m.t.Fatal(err)
	}
	later := func() time.Time { return time.Now().Add(time.Hour) } // nothing is hidden for so long
	db.Now = later
	queues := map[string]queue.Queue{}
	for _, q := range infra.Queues {
		queues[q.Name] = db.Queue(q.Name, sqlite.QueueOptions{MaxReceives: q.Receives})
	}
	a := app.New(app.Backends{
		Records: db.Records(), Runs: queues[infra.Runs], Deliveries: queues[infra.Deliveries], Sealer: sealer, Now: later,
		Guard: guard.Options{AllowLoopback: true}, Log: slog.New(slog.DiscardHandler),
	})
	ctx := m.t.Context()
	for name, handle := range map[string]queue.Handler{infra.Runs: a.Runner, infra.Deliveries: a.Dispatcher} {
		for {
			batch, err := queues[name].Receive(ctx, 10, 0, time.Minute)
			if err != nil {
				m.t.Fatal(err)
			}
			if len(batch) == 0 {
				break
			}
			for _, one := range batch {
				handle(ctx, one)
				if err := queues[name].Delete(ctx, one.Receipt); err != nil {
					m.t.Fatal(err)
				}
			}
		}
	}
	m.hook.Close() // what it heard is judged next
	return a.Runs
}

// ended gives how a run ended as it was told, "" for well. It may be told again while one asks.
func (m *machine) ended(j *journey) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return j.ended
}
