// Command bench measures Muster on this machine and prints a table; it asserts nothing. What it measures are the real
// parts: the embedded home as a process on a real directory, a model server over HTTP that thinks for no time, the
// bootstraps as they are deployed. Everything stays on the loopback, and it ends by itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// longest is how long all of it may take.
const longest = 3 * time.Minute

func main() {
	asModel := flag.Bool("model", false, "be the model server (bench starts itself so)")
	together := flag.Int("together", 1, "for -model: how many first calls of a run to wait for before answering them")
	flag.Parse()
	if *asModel {
		serveModel(*together)
		return
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	if err := measure(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is what the measurements share.
type bench struct {
	// dir is a directory on a real disk, and is removed at the end.
	dir string
	// local is the binary of the embedded home.
	local string
}

func measure(ctx context.Context) error {
	// Not the directory for temporary files: that is often in memory, and an fsync there costs nothing.
	if err := os.MkdirAll(".muster", 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(".muster", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	b := &bench{dir: dir, local: filepath.Join(dir, "local")}
	build := exec.CommandContext(ctx, "go", "build", "-o", b.local, "./infra/local")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the embedded home: %w", err)
	}
	if err := writeCrew(filepath.Join(dir, crewName)); err != nil {
		return err
	}

	fmt.Printf("%s, %s.\n\n| measured | |\n|---|--:|\n", machine(), time.Now().Format(time.DateOnly))
	var failures []error
	for _, part := range []func(context.Context) error{b.quiet, b.busy, b.memory, b.steps, b.deliveries, b.bootstraps} {
		if err := part(ctx); err != nil {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

// row prints one row of the table at once: what follows may take a while.
func row(what, format string, args ...any) {
	fmt.Printf("| %s | %s |\n", what, fmt.Sprintf(format, args...))
}

// machine names what all of this was measured on.
func machine() string {
	cpu := runtime.GOARCH
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			cpu = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%d cores of %s, %s, %s; model, receiver and client on the same cores", runtime.NumCPU(), cpu, runtime.GOOS, runtime.Version())
}
