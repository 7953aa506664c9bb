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
	asTaker := flag.Bool("taker", false, "be the receiver (bench starts itself so)")
	delivery := flag.Bool("delivery", false, "measure the delivery of webhooks and nothing else")
	flag.Parse()
	switch {
	case *asModel:
		serveModel(*together)
		return
	case *asTaker:
		serveTaker()
		return
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	if err := measure(ctx, *delivery); err != nil {
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
	// couriers counts those that were opened.
	couriers int
}

func measure(ctx context.Context, delivery bool) error {
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
	parts := []func(context.Context) error{b.rates, b.neighbours}
	if !delivery {
		if err := b.prepare(ctx); err != nil {
			return err
		}
		parts = []func(context.Context) error{b.quiet, b.busy, b.memory, b.steps, b.deliveries, b.bootstraps}
	}
	fmt.Printf("%s, %s.\n\n| measured | |\n|---|--:|\n", machine(), time.Now().Format(time.DateOnly))
	var failures []error
	for _, part := range parts {
		if err := part(ctx); err != nil {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

// prepare builds the embedded home and writes the crew.
func (b *bench) prepare(ctx context.Context) error {
	build := exec.CommandContext(ctx, "go", "build", "-o", b.local, "./infra/local")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the embedded home: %w", err)
	}
	return writeCrew(filepath.Join(b.dir, crewName))
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
