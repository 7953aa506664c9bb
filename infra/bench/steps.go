package main

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"muster/shared/app"
	"muster/shared/engine/llm"
	"muster/shared/engine/llm/openai"
	"muster/shared/guard"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/sqlite"
	"muster/shared/workspace"
)

const stepRuns = 60

// steps runs the runner in this process and nothing else: what a step costs in CPU and allocations, with the journal on
// disk and the model asked over HTTP.
func (b *bench) steps(ctx context.Context) error {
	model, stop, err := startModel(ctx, 1)
	if err != nil {
		return err
	}
	defer stop()
	db, err := sqlite.Open(filepath.Join(b.dir, "steps.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	sealer, err := workspace.NewSealer(map[string][]byte{"bench": make([]byte, 32)}, "bench")
	if err != nil {
		return err
	}
	runs := db.Queue("runs", sqlite.QueueOptions{})
	a := app.New(app.Backends{
		Records: db.Records(), Runs: runs, Deliveries: db.Queue("deliveries", sqlite.QueueOptions{}), Sealer: sealer,
		Guard:  guard.Options{AllowLoopback: true},
		OpenAI: openai.New, Models: llm.Settings{
			Default: "openai/gpt-4.1-mini", Providers: map[string]llm.Access{"openai": {BaseURL: model, APIKey: "bench"}},
		},
	})
	files := map[string][]byte{}
	for name, content := range crewFiles {
		files[name] = []byte(content)
	}
	deployment, _, _, err := a.Crews.Create(ctx, id.New(), crewName, files, nil)
	if err != nil {
		return err
	}

	var before, after cost
	steps := 0
	for i := range warmRuns + stepRuns {
		if i == warmRuns {
			before, steps = costs(), 0
		}
		started, err := a.Runs.Start(ctx, run.StartRequest{Deployment: deployment})
		if err != nil {
			return err
		}
		knocks, err := runs.Receive(ctx, 1, time.Second, time.Minute)
		if err != nil || len(knocks) != 1 {
			return errors.Join(errors.New("no message for a run"), err)
		}
		a.Runner(ctx, knocks[0])
		if err := runs.Delete(ctx, knocks[0].Receipt); err != nil {
			return err
		}
		newest, err := a.Runs.Newest(ctx, started.ID)
		if err != nil {
			return err
		}
		steps += newest.Totals.Steps
	}
	after = costs()
	n := float64(steps)
	row("CPU for a step", "%.2f ms", (after.cpu-before.cpu).Seconds()*1000/n)
	row("allocations for a step", "%.0f, %.0f KB", float64(after.allocations-before.allocations)/n, float64(after.bytes-before.bytes)/1024/n)
	return nil
}

type cost struct {
	cpu                time.Duration
	allocations, bytes uint64
}

// costs is what this process has cost so far.
func costs() (c cost) {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) == nil {
		c.cpu = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	c.allocations, c.bytes = m.Mallocs, m.TotalAlloc
	return c
}
