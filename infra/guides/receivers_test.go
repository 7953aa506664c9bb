package guides

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/shared/webhook"
)

const (
	guideSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	otherSecret = "whsec_HxwdHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA="
)

// bodies are webhooks as Muster writes them, with all that tempts a middleware to write them differently.
func bodies(t *testing.T) (all []string) {
	t.Helper()
	for _, output := range []string{
		`{"result":"plain"}`,
		`{"result":"<b>&amp;</b> \u2028 \"quoted\" \\ / 😀 ž\n","a":1.0,"b":1e21,"c":-0,"d":0.1,"e":1e-7,"2":"two","1":"one","f":[],"g":{},"h":null}`,
		`{"result":"` + strings.Repeat("é", 100_000) + `"}`,
	} {
		body, err := webhook.Canonical([]byte(`{"event":"run.succeeded","timestamp":"2025-01-15T10:30:00.000Z","data":{"run_id":"run_1","output":` + output + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(body))
	}
	return all
}

// signed makes the headers of a webhook.
func signed(t *testing.T, by webhook.Secrets, delivery, body string, at time.Time) http.Header {
	t.Helper()
	h, err := webhook.Sign(by, "run.succeeded", delivery, at, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	h.Set("Content-Type", "application/json")
	return h
}

// receiver is a program that receives webhooks. What it prints goes into a file, so that it is there when it answers.
type receiver struct{ url, said string }

// lines gives what the program has printed.
func (r *receiver) lines() []string {
	text, _ := os.ReadFile(r.said)
	return strings.Split(string(text), "\n")
}

// start starts a receiver, which listens on $PORT.
func start(t *testing.T, dir string, args ...string) *receiver {
	t.Helper()
	port := freePort(t)
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{"http://127.0.0.1:" + port + "/webhook", said.Name()}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, said, said
	cmd.Env = append(os.Environ(), "PORT="+port, "FLASK_RUN_PORT="+port, "WEBHOOK_SECRET="+guideSecret)
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		said.Close()
		if t.Failed() {
			t.Logf("the receiver said:\n%s", strings.Join(r.lines(), "\n"))
		}
	})
	listening(t, port)
	return r
}

// post posts a body and gives the status.
func (r *receiver) post(t *testing.T, h http.Header, body string) int {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), "POST", r.url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	q.Header = h
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// holds posts good and bad webhooks to a receiver. One that keeps deliveries tells new ones from duplicates.
func (r *receiver) holds(t *testing.T, scheme string, keeps bool) {
	t.Helper()
	now := time.Now()
	for i, body := range bodies(t) {
		delivery := "del_" + strings.Repeat("x", i+1)
		if got := r.post(t, signed(t, webhook.Secrets{Current: guideSecret}, delivery, body, now), body); got != http.StatusOK {
			t.Errorf("a webhook: %d", got)
		}
		if !slices.Contains(r.lines(), "new "+delivery) {
			t.Errorf("the receiver did not tell of the new delivery %s", delivery)
		}
		// A retry is signed anew.
		if got := r.post(t, signed(t, webhook.Secrets{Current: guideSecret}, delivery, body, now.Add(5*time.Second)), body); got != http.StatusOK {
			t.Errorf("the same again: %d", got)
		}
		if keeps && !slices.Contains(r.lines(), "duplicate "+delivery) {
			t.Errorf("the receiver did not see that %s came twice", delivery)
		}
	}
	body := bodies(t)[0]
	good := func() http.Header { return signed(t, webhook.Secrets{Current: guideSecret}, "del_bad", body, now) }
	without := func(name string) http.Header { h := good(); h.Del(name); return h }
	signature := map[string]string{"standard": webhook.HeaderStandardSignature, "crewship": webhook.HeaderSignature}[scheme]
	timestamp := map[string]string{"standard": webhook.HeaderStandardTimestamp, "crewship": webhook.HeaderTimestamp}[scheme]
	for _, c := range []struct {
		name string
		h    http.Header
		body string
	}{
		{"another body", good(), body + " "},
		{"another secret", signed(t, webhook.Secrets{Current: otherSecret}, "del_bad", body, now), body},
		{"signed long ago", signed(t, webhook.Secrets{Current: guideSecret}, "del_bad", body, now.Add(-6*time.Minute)), body},
		{"signed in the future", signed(t, webhook.Secrets{Current: guideSecret}, "del_bad", body, now.Add(6*time.Minute)), body},
		{"no signature", without(signature), body},
		{"no timestamp", without(timestamp), body},
	} {
		if got := r.post(t, c.h, c.body); got != http.StatusUnauthorized {
			t.Errorf("%s: %d", c.name, got)
		}
	}
	if keeps && scheme == "crewship" { // the id is not signed there
		h := good()
		h.Set(webhook.HeaderDelivery, "del_/../../escaped")
		if got := r.post(t, h, body); got != http.StatusUnauthorized {
			t.Errorf("an id that is a path: %d", got)
		}
	}
	if scheme == "standard" {
		rotating := webhook.Secrets{Current: otherSecret, Old: guideSecret}
		if got := r.post(t, signed(t, rotating, "del_rotating", body, now), body); got != http.StatusOK {
			t.Errorf("while the secret is replaced: %d", got)
		}
	}
	if slices.Contains(r.lines(), "new del_bad") {
		t.Error("the receiver kept what it had refused")
	}
}

const receiving = "receiving-webhooks"

// files reads snippets, and makes the receiver take the other scheme's verify.
func files(t *testing.T, scheme string, names ...string) map[string]string {
	all := map[string]string{}
	for _, name := range names {
		text := snippet(t, receiving, name)
		if !strings.HasPrefix(name, "standard.") && !strings.HasPrefix(name, "crewship.") {
			text = strings.NewReplacer("from standard", "from "+scheme, "from './standard'", "from './"+scheme+"'").Replace(text)
		}
		all[name] = text
	}
	return all
}

func TestReceivers(t *testing.T) {
	need(t)
	for _, scheme := range []string{"standard", "crewship"} {
		t.Run(scheme, func(t *testing.T) {
			t.Run("Python", func(t *testing.T) {
				dir := write(t, files(t, scheme, scheme+".py", "receiver.py"))
				start(t, dir, "python3", "receiver.py").holds(t, scheme, true)
			})
			t.Run("Flask", func(t *testing.T) {
				dir := write(t, files(t, scheme, scheme+".py", "app.py"))
				start(t, dir, filepath.Join(python.at(t), "bin", "flask"), "run").holds(t, scheme, false)
			})
			t.Run("TypeScript", func(t *testing.T) {
				dir := compile(t, files(t, scheme, scheme+".ts", "receiver.ts"))
				start(t, dir, "node", "receiver.js").holds(t, scheme, true)
			})
			t.Run("Express", func(t *testing.T) {
				dir := compile(t, files(t, scheme, scheme+".ts", "app.ts"))
				start(t, dir, "node", "app.js").holds(t, scheme, false)
			})
			t.Run("Go", func(t *testing.T) {
				dir := write(t, files(t, scheme, scheme+".go", "receiver.go"))
				if out, err := run(t, dir, nil, "go", "build", "-o", "receiver", scheme+".go", "receiver.go"); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				start(t, dir, "./receiver").holds(t, scheme, true)
			})
			t.Run("shell", func(t *testing.T) { shell(t, scheme) })
		})
	}
}

// compile compiles TypeScript, strictly, for Node.
func compile(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	modules := filepath.Join(node.at(t), "node_modules")
	dir = write(t, files)
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	args := []string{filepath.Join(modules, ".bin", "tsc"), "--strict", "--target", "es2022", "--module", "commonjs", "--esModuleInterop", "--types", "node"}
	for name := range files {
		args = append(args, name)
	}
	if out, err := run(t, dir, nil, args...); err != nil {
		t.Fatalf("tsc: %v\n%s", err, out)
	}
	return dir
}

// shell verifies saved requests.
func shell(t *testing.T, scheme string) {
	script := snippet(t, receiving, scheme+".sh")
	body, now := bodies(t)[1], time.Now()
	for _, c := range []struct {
		name   string
		secret string
		at     time.Time
		body   string
		says   string
	}{
		{"a webhook", guideSecret, now, body, "verified"},
		{"another body", guideSecret, now, body + " ", "not verified"},
		{"another secret", otherSecret, now, body, "not verified"},
		{"signed long ago", guideSecret, now.Add(-time.Hour), body, "too old"},
	} {
		var headers bytes.Buffer
		if err := signed(t, webhook.Secrets{Current: c.secret}, "del_1", body, c.at).Write(&headers); err != nil {
			t.Fatal(err)
		}
		dir := write(t, map[string]string{"verify.sh": script, "headers.txt": headers.String(), "body.json": c.body})
		out, err := run(t, dir, []string{"WEBHOOK_SECRET=" + guideSecret}, "sh", "verify.sh", "headers.txt", "body.json")
		if strings.TrimSpace(out) != c.says || (err == nil) != (c.says == "verified") {
			t.Errorf("%s: %q, %v", c.name, out, err)
		}
	}
}

// The receivers that the users of seed 002 copied from Crewship's documentation, word for word, in the frameworks they are
// written for.
func TestSeedHandlersRunUnchanged(t *testing.T) {
	need(t)
	handler := func(name string) string {
		text, err := os.ReadFile(filepath.Join("..", "..", "shared", "webhook", "testdata", "seed", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	programs := map[string]func() *receiver{
		"Express": func() *receiver {
			// The handler leaves its types to whoever copies it.
			dir := compile(t, map[string]string{"app.ts": "// @ts-nocheck\nimport express from 'express'\nconst app = express()\napp.use(express.json({ limit: '1mb' }))\n" +
				"const WEBHOOK_SECRET = process.env.WEBHOOK_SECRET\napp.listen(Number(process.env.PORT), '127.0.0.1')\n" + handler("verify.ts")})
			return start(t, dir, "node", "app.js")
		},
		"Flask": func() *receiver {
			dir := write(t, map[string]string{"app.py": "import os\nfrom flask import Flask, request\napp = Flask(__name__)\n" +
				"WEBHOOK_SECRET = os.environ['WEBHOOK_SECRET']\n" + handler("verify.py")})
			return start(t, dir, filepath.Join(python.at(t), "bin", "flask"), "run")
		},
	}
	for name, begin := range programs {
		t.Run(name, func(t *testing.T) {
			r := begin()
			for _, body := range bodies(t) {
				if got := r.post(t, signed(t, webhook.Secrets{Current: guideSecret}, "del_1", body, time.Now()), body); got != http.StatusOK {
					t.Errorf("a webhook: %d\n%.200s", got, body)
				}
				if got := r.post(t, signed(t, webhook.Secrets{Current: otherSecret}, "del_1", body, time.Now()), body); got != http.StatusUnauthorized {
					t.Errorf("another secret: %d", got)
				}
			}
			if !slices.Contains(r.lines(), "Run run_1 run.succeeded") {
				t.Errorf("it said %q", r.lines())
			}
		})
	}
}
