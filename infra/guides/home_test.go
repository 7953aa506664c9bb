package guides

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// home is Muster on this machine, as `make run` starts it. All tests share one, and each has deployments of its own.
type home struct {
	URL            string `json:"url"`
	WorkspaceToken string `json:"workspace_token"`
	InternalToken  string `json:"internal_token"`
	WorkspaceID    string `json:"workspace_id"`

	once sync.Once
	err  error
	dir  string
	stop func()
}

var muster home

// up starts the home for the first test that wants it.
func up(t *testing.T) *home {
	t.Helper()
	need(t)
	muster.once.Do(func() {
		if muster.dir, muster.err = os.MkdirTemp("", "muster-home-"); muster.err == nil {
			muster.err = muster.build()
		}
		if muster.err == nil {
			muster.err = muster.start(filepath.Join(muster.dir, "data"))
		}
	})
	if muster.err != nil {
		t.Fatal(muster.err)
	}
	return &muster
}

func (h *home) binary() string { return filepath.Join(h.dir, "local") }

func (h *home) build() error {
	if out, err := exec.Command("go", "build", "-o", h.binary(), "muster/infra/local").CombinedOutput(); err != nil {
		return fmt.Errorf("build the home: %w\n%s", err, out)
	}
	return nil
}

// start starts a home that keeps everything in data, and waits until it is ready.
func (h *home) start(data string, more ...string) error {
	ready := filepath.Join(data, "ready.json")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	cmd := exec.Command(muster.binary(), append([]string{"-addr", "127.0.0.1:0", "-data", data, "-ready", ready}, more...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	h.stop = func() {
		_ = cmd.Process.Kill()
		<-ended
	}
	again, late := time.NewTicker(20*time.Millisecond), time.After(time.Minute)
	defer again.Stop()
	for {
		text, err := os.ReadFile(ready)
		if err == nil {
			return json.Unmarshal(text, h)
		}
		select {
		case <-again.C:
		case err := <-ended:
			ended <- err
			return fmt.Errorf("the home ended: %w\n%s", err, said.String())
		case <-late:
			return fmt.Errorf("the home is not ready after a minute\n%s", said.String())
		}
	}
}

// close ends the home, if one was started.
func (h *home) close() {
	if h.stop != nil {
		h.stop()
	}
	_ = os.RemoveAll(h.dir) // "" when nothing was made
}

// call sends JSON to the home, and reads the answer into answer unless that is nil.
func (h *home) call(t *testing.T, method, path, token string, body, answer any) {
	t.Helper()
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		sent = bytes.NewReader(text)
	}
	q, err := http.NewRequestWithContext(t.Context(), method, h.URL+path, sent)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	status, text := send(t, q)
	if status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	if answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
}

func send(t *testing.T, q *http.Request) (status int, body []byte) {
	t.Helper()
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// deployment is a crew of one agent and one task, which needs some inputs.
type deployment struct {
	home   *home
	ID     string `json:"id"`
	Token  string `json:"token"`
	Secret string `json:"webhook_secret"`
}

// deploy deploys a crew that needs these inputs, and no others: a request that does not bring them starts nothing.
func deploy(t *testing.T, inputs ...string) deployment {
	t.Helper()
	return up(t).deploy(t, inputs...)
}

func (h *home) deploy(t *testing.T, inputs ...string) deployment {
	t.Helper()
	d := deployment{home: h}
	description := "Say in a sentence what matters."
	for _, name := range inputs {
		description += " The " + name + " is {" + name + "}."
	}
	h.call(t, "POST", "/v1/deployments", h.WorkspaceToken, map[string]any{"name": t.Name(), "files": map[string]string{
		"agents.yaml": "reader:\n  role: Reader\n  goal: See what matters\n  backstory: You read to the end.\n",
		"tasks.yaml":  "read:\n  name: Read\n  agent: reader\n  description: " + description + "\n  expected_output: One sentence\n",
		"crew.yaml":   "name: Guide\n",
	}}, &d)
	return d
}

// hook makes an incoming webhook with settings, and gives its URL and the secret that was made for it.
func (d deployment) hook(t *testing.T, settings map[string]any) (url, secret string) {
	t.Helper()
	if settings == nil {
		settings = map[string]any{}
	}
	settings["name"] = "guide"
	var made struct{ URL, Secret string }
	d.home.call(t, "POST", "/v1/deployments/"+d.ID+"/webhooks/incoming", d.Token, settings, &made)
	return made.URL, made.Secret
}

// agent is the deployment's agent, with a new secret for its trigger.
func (d deployment) agent(t *testing.T) (a struct{ ID, Secret string }) {
	t.Helper()
	var described struct {
		Agents []struct{ ID string } `json:"agents"`
	}
	d.home.call(t, "GET", "/v1/deployments/"+d.ID, d.Token, nil, &described)
	d.home.call(t, "POST", "/api/v1/agents/"+described.Agents[0].ID+"/webhook-secret/rotate", d.Token, nil, &a)
	a.ID = described.Agents[0].ID
	return a
}

// startedRun is a run as the wire shows it.
type startedRun struct {
	ID      string         `json:"id"`
	Status  string         `json:"status"`
	Trigger string         `json:"trigger"`
	Input   map[string]any `json:"input"`
	Error   string         `json:"error_message"`
}

// runs gives the deployment's runs, newest first, each when it has ended.
func (d deployment) runs(t *testing.T) (all []startedRun) {
	t.Helper()
	var listed struct {
		Runs []struct{ ID string } `json:"runs"`
	}
	d.home.call(t, "GET", "/v1/runs", d.Token, nil, &listed)
	for _, one := range listed.Runs {
		all = append(all, d.ended(t, one.ID))
	}
	return all
}

// ended waits for the end of a run, and reads it.
func (d deployment) ended(t *testing.T, id string) (r startedRun) {
	t.Helper()
	d.get(t, "/v1/runs/"+id+"/events")
	d.home.call(t, "GET", "/v1/runs/"+id, d.Token, nil, &r)
	return r
}

// begin starts a run with a token, and waits for its end.
func (d deployment) begin(t *testing.T, input map[string]any) startedRun {
	t.Helper()
	var r struct {
		ID string `json:"run_id"`
	}
	d.home.call(t, "POST", "/v1/runs", d.Token, map[string]any{"input": input}, &r)
	return d.ended(t, r.ID)
}

// get reads a path with the deployment's token.
func (d deployment) get(t *testing.T, path string) (status int, body []byte) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), "GET", d.home.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+d.Token)
	return send(t, q)
}

// inbox waits for a webhook that is posted to /inbox/<name>, and gives its body.
func (h *home) inbox(t *testing.T, name string) string {
	t.Helper()
	again, late := time.NewTicker(20*time.Millisecond), time.After(30*time.Second)
	defer again.Stop()
	for {
		var shown struct {
			Posts []struct{ Body string }
		}
		h.call(t, "GET", "/inbox/"+name, "", nil, &shown)
		if len(shown.Posts) > 0 {
			return shown.Posts[0].Body
		}
		select {
		case <-again.C:
		case <-late:
			t.Fatalf("nothing came to /inbox/%s", name)
		}
	}
}

// started checks that one run was started, that it succeeded, and what its inputs were.
func (d deployment) started(t *testing.T, inputs map[string]any) startedRun {
	t.Helper()
	all := d.runs(t)
	if len(all) != 1 {
		t.Fatalf("there are %d runs, want one: %+v", len(all), all)
	}
	if all[0].Status != "succeeded" {
		t.Errorf("the run %s: %s", all[0].Status, all[0].Error)
	}
	for name, want := range inputs {
		if got := all[0].Input[name]; got != want {
			t.Errorf("the input %s is %q, want %q", name, got, want)
		}
	}
	return all[0]
}

// session is a shell that runs snippets one after another: what one sets, the next ones have.
type session struct {
	dir string
	env []string
	// said is what each snippet printed, complained what went to standard error.
	said       []string
	complained string
}

// shell gives a shell that knows what a reader of the guides knows: where Muster is, and the tokens.
func (d deployment) shell(t *testing.T, more ...string) *session {
	t.Helper()
	// curl tells of every warning: what a guide asks for has no misspelt field.
	settings := write(t, map[string]string{".curlrc": `write-out = "%{stderr}%header{muster-warning}"`})
	return &session{dir: t.TempDir(), env: append([]string{
		"CURL_HOME=" + settings, "MUSTER_URL=" + d.home.URL, "TOKEN=" + d.Token, "DEPLOYMENT=" + d.ID, "WORKSPACE_TOKEN=" + d.home.WorkspaceToken,
	}, more...)}
}

// run runs snippets of a guide as they are printed.
func (s *session) run(t *testing.T, guideName string, names ...string) *session {
	t.Helper()
	const mark = "-- the next snippet --"
	script := "set -euo pipefail\n"
	for _, name := range names {
		script += snippet(t, guideName, name) + "\nprintf '\\n%s\\n' '" + mark + "'\n"
	}
	out, err := s.bash(t, script)
	if err != nil || s.complained != "" {
		t.Fatalf("%s %v: %v\n%s\n%s", guideName, names, err, out, s.complained)
	}
	s.said = strings.Split(out, mark)
	return s
}

// bash runs a script, and gives what it printed.
func (s *session) bash(t *testing.T, script string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	var complaints bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stderr = s.dir, append(os.Environ(), s.env...), &complaints
	out, err := cmd.Output()
	s.complained = complaints.String()
	return string(out), err
}

// says checks that the nth snippet printed all these.
func (s *session) says(t *testing.T, n int, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(s.said[n], want) {
			t.Errorf("snippet %d did not print %q, but\n%s", n, want, s.said[n])
		}
	}
}
