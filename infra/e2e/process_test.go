package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/engine/llm/scripted"
)

// TestTheProcess is about infra/local as a process: how it starts, dies and starts again.
func TestTheProcess(t *testing.T) {
	t.Parallel()
	local := filepath.Join(t.TempDir(), "local")
	build := exec.Command("go", "build", "-o", local, "muster/infra/local")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build infra/local: %v\n%s", err, out)
	}
	for _, end := range []struct {
		name   string
		signal syscall.Signal
	}{{"killed", syscall.SIGKILL}, {"asked to stop", syscall.SIGTERM}} {
		t.Run("a process that is "+end.name+" in the middle of a run goes on at once when it is started again", func(t *testing.T) {
			t.Parallel()
			diesAndGoesOn(t, local, end.signal)
		})
	}
	t.Run("a client that is told of a run misses nothing although the process is killed", func(t *testing.T) {
		t.Parallel()
		diesUnderAClient(t, local)
	})
	t.Run("a restart finds runs, tokens and versions as they were", func(t *testing.T) {
		t.Parallel()
		startsAgain(t, local)
	})
}

// process is a running infra/local.
type process struct {
	cmd  *exec.Cmd
	said *logged
	done chan struct{}
	home *home
	ready
}

// ready is what -ready writes.
type ready struct {
	URL            string          `json:"url"`
	WorkspaceToken string          `json:"workspace_token"`
	InternalToken  string          `json:"internal_token"`
	WorkspaceID    string          `json:"workspace_id"`
	Deployments    []readyToDeploy `json:"deployments"`
}

type readyToDeploy struct {
	ID            string `json:"id"`
	Name          string `json:"name"`
	Token         string `json:"token"`
	WebhookSecret string `json:"webhook_secret"`
}

// start starts infra/local on a folder and waits until it is ready.
func start(t *testing.T, local, data, model string, deploy ...string) *process {
	t.Helper()
	p := launch(t, local, data, model, deploy...)
	path := filepath.Join(data, "ready.json")
	eventually(t, "the process is ready", func() bool {
		select {
		case <-p.done:
			t.Fatalf("the process has ended: %s", p.said)
		default:
		}
		raw, err := os.ReadFile(path)
		return err == nil && json.Unmarshal(raw, &p.ready) == nil
	})
	p.home.url, p.home.token = p.URL, p.WorkspaceToken
	return p
}

// launch starts infra/local and waits for nothing.
func launch(t *testing.T, local, data, model string, deploy ...string) *process {
	t.Helper()
	ready := filepath.Join(data, "ready.json")
	if err := os.Remove(ready); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	arguments := []string{"-addr", "127.0.0.1:0", "-data", data, "-ready", ready}
	for _, dir := range deploy {
		arguments = append(arguments, "-deploy", dir)
	}
	p := &process{cmd: exec.Command(local, arguments...), said: &logged{}, done: make(chan struct{}), home: &home{seen: map[string]bool{}}}
	p.cmd.Env = append(p.cmd.Environ(), "MODEL=gpt-4.1-mini", "OPENAI_API_KEY="+modelKey, "OPENAI_BASE_URL="+model)
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.end(t, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("the process said:\n%s", p.said)
		}
	})
	return p
}

// end sends a signal and waits until the process is gone.
func (p *process) end(t *testing.T, s syscall.Signal) {
	t.Helper()
	_ = p.cmd.Process.Signal(s) // it may be gone already
	wait(t, p.done, "the process is gone")
}

// deployment gives a deployment by its name.
func (p *process) deployment(t *testing.T, name string) deployment {
	t.Helper()
	for _, d := range p.Deployments {
		if d.Name == name {
			return deployment{home: p.home, ID: d.ID, Token: d.Token, WebhookSecret: d.WebhookSecret}
		}
	}
	t.Fatalf("there is no deployment %q among %+v", name, p.Deployments)
	return deployment{}
}

// write writes the files of a crew into a folder with that name.
func write(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func diesAndGoesOn(t *testing.T, local string, signal syscall.Signal) {
	const tasks, held = 6, 3
	gate, asked := make(chan struct{}), make(chan struct{}, 100)
	model := scripted.New(t, func(r scripted.Request) scripted.Reply {
		reply := scripted.Text("Forged: " + strings.Fields(r.User())[2])
		if strings.HasPrefix(r.User(), fmt.Sprintf("Forge link %d ", held)) {
			reply.Wait = gate
			asked <- struct{}{}
		}
		return reply
	})
	data, dir := t.TempDir(), write(t, "smith", chain("gpt-4.1-mini", tasks))
	p := start(t, local, data, model.URL, dir)
	r := newReceiver(t, p.home)
	runID := p.deployment(t, "smith").kickoff(t, about("steel", r.webhooks(true)))
	wait(t, asked, "the model is asked for the fourth task")
	p.end(t, signal)
	close(gate)

	began := time.Now()
	again := start(t, local, data, model.URL, dir)
	before, after := p.ready, again.ready
	before.URL, after.URL = "", ""
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("a restart has changed the tokens:\n%s", diff)
	}
	d := again.deployment(t, "smith")
	all := r.hear(t, d, runID)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the run took %s after the restart: as long as a lease", took)
	}
	if n := len(ofType(all, "task_completed")); n != tasks {
		t.Errorf("%d tasks were told as completed, want %d", n, tasks)
	}
	if cuts := ofType(all, "llm_call_failed"); len(cuts) != 1 || !strings.Contains(*cuts[0].Data.Error, "interrupted") {
		t.Errorf("the cut call was told as %+v", cuts)
	}
	answered := 0
	for digest, n := range model.Answered() {
		if answered++; n > 1 {
			t.Errorf("the call %s was paid for %d times", digest[:8], n)
		}
	}
	if answered != tasks || len(model.Calls()) != tasks+1 {
		t.Errorf("%d different calls were answered of %d, want %d of %d", answered, len(model.Calls()), tasks, tasks+1)
	}
	posts := r.until(t, "every step and task", func(posts []post) bool {
		return len(distinct(posts, "/step")) >= tasks && len(distinct(posts, "/task")) >= tasks
	})
	if steps, ends := len(distinct(posts, "/step")), len(distinct(posts, "/crew")); steps != tasks || ends != 1 {
		t.Errorf("%d steps and %d ends were told", steps, ends)
	}
	if s := d.status(t, runID); s.State != "SUCCESS" || s.UsageMetrics.SuccessfulRequests != tasks {
		t.Errorf("the status is %+v", s)
	}
}

func startsAgain(t *testing.T, local string) {
	model := scripted.New(t, say("Done."))
	files := simple("gpt-4.1-mini")
	data, dir := t.TempDir(), write(t, "clerk", files)
	p := start(t, local, data, model.URL, dir)
	d := p.deployment(t, "clerk")
	runID := d.kickoff(t, about("files"))
	d.over(t, runID)
	status := d.status(t, runID)
	if !strings.HasPrefix(p.WorkspaceToken, "mus_ws_") || !strings.HasPrefix(p.InternalToken, "mus_int_") || !strings.HasPrefix(p.WorkspaceID, "ws_") ||
		!strings.HasPrefix(d.ID, "dep_") || !strings.HasPrefix(d.Token, "mus_dep_") || !strings.HasPrefix(d.WebhookSecret, "whsec_") {
		t.Errorf("the ready file says %+v", p.ready)
	}
	for _, name := range []string{"tokens.json", "sealing.key", "muster.db", "ready.json"} {
		info, err := os.Stat(filepath.Join(data, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, want mode 0600, %v", name, info, err)
		}
	}
	noTokens(t, data, p.WorkspaceToken, p.InternalToken, d.Token, d.WebhookSecret)

	second := launch(t, local, data, model.URL)
	wait(t, second.done, "the second process gives up")
	if code := second.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(second.said.String(), "Another Muster is using "+data) {
		t.Errorf("a second process on the folder ended with %d and said %s", code, second.said)
	}

	p.end(t, syscall.SIGTERM)
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("a process that was asked to stop ended with %d", code)
	}
	p = start(t, local, data, model.URL, dir)
	d = p.deployment(t, "clerk")
	if diff := cmp.Diff(status, d.status(t, runID)); diff != "" {
		t.Errorf("the run has changed:\n%s", diff)
	}
	if s := d.shown(t); s.Versions != 1 {
		t.Errorf("unchanged files made version %d", s.Versions)
	}
	p.end(t, syscall.SIGKILL)

	files["agents.yaml"] = agent("clerk", "gpt-4.1-mini") + agent("worker", "gpt-4.1-mini")
	if err := os.WriteFile(filepath.Join(dir, "agents.yaml"), []byte(files["agents.yaml"]), 0o644); err != nil {
		t.Fatal(err)
	}
	p = start(t, local, data, model.URL, dir)
	d = p.deployment(t, "clerk")
	s := d.shown(t)
	if s.Versions != 2 || s.Environments["production"].VersionNumber != 2 || s.Environments["staging"].VersionNumber != 2 {
		t.Errorf("changed files made %+v", s)
	}
	if got := d.home.runs(t, d); len(got) != 1 {
		t.Errorf("the runs are %v", got)
	}
	d.over(t, d.kickoff(t, about("more files")))
}

// shown gives a deployment as it is shown.
func (d deployment) shown(t *testing.T) (s shown) {
	t.Helper()
	d.home.want(t, http.StatusOK, "GET", "/v1/deployments/"+d.ID, d.Token, nil, &s)
	return s
}

// noTokens wants none of the secrets in any file but those that are made for them.
func noTokens(t *testing.T, data string, secrets ...string) {
	t.Helper()
	err := filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "tokens.json" || e.Name() == "ready.json" {
			return err
		}
		raw, err := os.ReadFile(path)
		for _, secret := range secrets {
			if bytes.Contains(raw, []byte(secret)) {
				t.Errorf("%s holds a token or a secret in clear", e.Name())
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
