package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Each part takes so long at most; the first runs, in which files and connections are opened, are not counted.
const (
	quietRuns = 100
	warmRuns  = 5
	busyTime  = 10 * time.Second
	clients   = 16
)

// quiet is one run at a time.
func (b *bench) quiet(ctx context.Context) error {
	h, err := b.start(ctx, 1)
	if err != nil {
		return err
	}
	defer h.stop()
	var kickoffs, wholes []time.Duration
	for i := range warmRuns + quietRuns {
		kickoff, whole, err := h.run(ctx, fmt.Sprint("quiet-", i))
		if err != nil {
			return err
		}
		if i >= warmRuns {
			kickoffs, wholes = append(kickoffs, kickoff), append(wholes, whole)
		}
	}
	row("kickoff answered, one run at a time: p50, p99", "%s, %s", ms(quantile(kickoffs, 50)), ms(quantile(kickoffs, 99)))
	row(fmt.Sprintf("from kickoff to the webhook of the end, a run of %d steps: p50, p99", stepsPerRun), "%s, %s", ms(quantile(wholes, 50)), ms(quantile(wholes, 99)))
	return nil
}

// busy is many clients, each of which starts a run when its last one has ended.
func (b *bench) busy(ctx context.Context) error {
	h, err := b.start(ctx, 1)
	if err != nil {
		return err
	}
	defer h.stop()
	var (
		all      sync.WaitGroup
		mu       sync.Mutex
		kickoffs []time.Duration
		failures []error
	)
	began := time.Now()
	for c := range clients {
		all.Go(func() {
			for i := 0; time.Since(began) < busyTime; i++ {
				kickoff, _, err := h.run(ctx, fmt.Sprintf("busy-%d-%d", c, i))
				mu.Lock()
				if err != nil {
					failures = append(failures, err)
				} else {
					kickoffs = append(kickoffs, kickoff)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	row(fmt.Sprintf("kickoff answered, %d clients: p50, p99", clients), "%s, %s", ms(quantile(kickoffs, 50)), ms(quantile(kickoffs, 99)))
	row(fmt.Sprintf("runs of %d steps, to the webhook of the end", stepsPerRun), "%.1f/s (%.0f steps/s)", float64(len(kickoffs))/took, float64(len(kickoffs)*stepsPerRun)/took)
	return nil
}

// memory is so many runs at the same time, each in its first call of the model when that begins to answer.
func (b *bench) memory(ctx context.Context) error {
	for _, n := range []int{1, 10, 100} {
		h, err := b.start(ctx, n)
		if err != nil {
			return err
		}
		errs := make([]error, n)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() { _, _, errs[i] = h.run(ctx, fmt.Sprint("memory-", i)) })
		}
		all.Wait()
		peak, err := h.peak()
		h.stop()
		if err := errors.Join(append(errs, err)...); err != nil {
			return err
		}
		row(fmt.Sprintf("peak memory of the process, %d at a time", n), "%.0f MB", peak)
	}
	return nil
}

// quantile gives the value that p percent are not above.
func quantile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[min((len(all)*p+99)/100, len(all))-1]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
