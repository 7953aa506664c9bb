package main

import (
	"archive/zip"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"muster/infra"
	"muster/infra/runtimeapi"
	"muster/shared/config"
	"muster/shared/workspace"
)

const starts = 15

// bootstraps is what a deployment uploads, and how soon a new process of it asks for work.
func (b *bench) bootstraps(ctx context.Context) error {
	// Not b's to choose: the files in dist are the ones that are deployed.
	deployed := exec.CommandContext(ctx, "make", "--silent", "build", "ARCH=arm64")
	deployed.Stderr = os.Stderr
	if err := deployed.Run(); err != nil {
		return fmt.Errorf("build the functions for arm64: %w", err)
	}
	var names []string
	for _, f := range infra.Functions {
		names = append(names, f.Name)
	}
	here, err := runtimeapi.Build(ctx, ".", b.dir, names...)
	if err != nil {
		return err
	}
	for _, name := range names {
		zipped, err := zippedSize(filepath.Join("dist", name, "bootstrap"))
		if err != nil {
			return err
		}
		var took []time.Duration
		for range starts {
			function := &runtimeapi.Function{Name: name, Bootstrap: here[name], Env: environment, Output: io.Discard}
			t, err := function.Start()
			function.Close()
			if err != nil {
				return err
			}
			took = append(took, t)
		}
		row("`"+name+"`: zipped for arm64; start of its process to the first `/next`: least, p50", "%.1f MB; %s, %s",
			float64(zipped)/1e6, ms(slices.Min(took)), ms(quantile(took, 50)))
	}
	return nil
}

// environment is a complete one, of a place that is not there: a function asks nobody before it has work.
var environment = []string{
	"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=bench", "AWS_SECRET_ACCESS_KEY=bench",
	config.TableKey + "=muster",
	config.RunsURLKey + "=http://127.0.0.1:1/runs", config.RunsDeadURLKey + "=http://127.0.0.1:1/runs-dead",
	config.DeliveriesURLKey + "=http://127.0.0.1:1/deliveries", config.DeliveriesDeadURLKey + "=http://127.0.0.1:1/deliveries-dead",
	config.SealingKeyKey + "=k1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
	config.WorkspaceIDKey + "=0198c0de-0000-7000-8000-000000000002",
	config.WorkspaceTokenKey + "=" + workspace.Hash("workspace"), config.InternalTokenKey + "=" + workspace.Hash("internal"),
}

// zippedSize is the size of a ZIP file with the bootstrap in it.
func zippedSize(path string) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	var size counter
	z := zip.NewWriter(&size)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) })
	entry, err := z.Create("bootstrap")
	if err == nil {
		_, err = io.Copy(entry, file)
	}
	if err == nil {
		err = z.Close()
	}
	return int64(size), err
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }
