package guides

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// need skips a test unless `make guides` runs it.
func need(t *testing.T) {
	t.Helper()
	if !enabled {
		t.Skip("*** The snippets of the guides are NOT run: `make guides` runs them. ***")
	}
}

// workshop is a directory with the packages that snippets import.
type workshop struct {
	make func(dir string) [][]string
	once sync.Once
	dir  string
	err  error
	out  []byte
}

var (
	node = workshop{make: func(dir string) [][]string {
		return [][]string{{"npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", dir,
			"typescript@5", "@types/node@20", "express@4", "@types/express@4", "eventsource@3", "ws@8"}}
	}}
	python = workshop{make: func(dir string) [][]string {
		return [][]string{{"python3", "-m", "venv", dir}, {filepath.Join(dir, "bin", "pip"), "install", "--quiet", "flask>=3,<4"}}
	}}
)

// at gives the workshop's directory, which is made once for all tests.
func (w *workshop) at(t *testing.T) string {
	t.Helper()
	w.once.Do(func() {
		if w.dir, w.err = os.MkdirTemp("", "muster-guides-"); w.err != nil {
			return
		}
		for _, args := range w.make(w.dir) {
			if w.out, w.err = exec.Command(args[0], args[1:]...).CombinedOutput(); w.err != nil {
				return
			}
		}
	})
	if w.err != nil {
		t.Fatalf("the tools could not be fetched: %v\n%s", w.err, w.out)
	}
	return w.dir
}

// run runs a program to its end and gives what it said.
func run(t *testing.T, dir string, env []string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// write writes files into a new directory.
func write(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// freePort gives a port that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// listening waits until somebody listens on a port.
func listening(t *testing.T, port string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("nobody listens on port %s: %v", port, err)
		}
	}
}
