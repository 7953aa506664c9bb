package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// deliveries runs the benchmarks of the dispatcher on one core: what it delivers in a second, beside a plain client.
func (b *bench) deliveries(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^Benchmark(Dispatch|Bare)$", "-benchtime", "2s", "-cpu", "1", "./shared/dispatch")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("run the benchmarks of the dispatcher: %w\n%s", err, out)
	}
	rates := map[string]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		for i, unit := range fields {
			if unit == "deliveries/s" {
				rates[fields[0]], _ = strconv.ParseFloat(fields[i-1], 64)
			}
		}
	}
	ours, bare := rates["BenchmarkDispatch"], rates["BenchmarkBare"]
	row("deliveries of 1 KB signed and posted over kept connections, on one core", "%.0f/s", ours)
	row("the same POSTs by a plain Go client, in the same process as its receiver too", "%.0f/s (%.0f%%)", bare, 100*ours/bare)
	return nil
}
