package faults_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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

// machine is a computer on which infra/local is started, killed, and started again.
type machine struct {
	*witness
	binary string
	dir    string
	addr   string

	process *exec.Cmd
	starts  int
	said    bytes.Buffer
}

// name is how the model knows the process.
func (m *machine) name() string { return fmt.Sprint("local-", m.starts) }

// newMachine sets up a machine with the crew of files. Every line of a script's prompts names the run it is for.
func newMachine(t *testing.T, files map[string]string, script func(r scripted.Request) scripted.Reply) *machine {
	t.Helper()
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{witness: newWitness(t, script), binary: binary, dir: sqlitetest.Dir(t), addr: free.Addr().String()}
	m.url = "http://" + m.addr
	_ = free.Close()
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
	m.starts++
	m.process = exec.Command(m.binary, "-addr", m.addr, "-data", filepath.Join(m.dir, "data"), "-ready", ready,
		"-deploy", filepath.Join(m.dir, "crew"), "-lease", shortLease.String(), "-sweep", shortSweep.String())
	m.process.Env = append(m.process.Environ(), "MODEL=gpt-4.1-mini", "OPENAI_API_KEY="+m.name(), "OPENAI_BASE_URL="+m.model.URL)
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
