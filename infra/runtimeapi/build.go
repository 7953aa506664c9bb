package runtimeapi

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build builds the bootstraps of functions for this machine, with the flags that they are deployed with, and gives the path
// of each. root is the module's folder.
func Build(ctx context.Context, root, dir string, functions ...string) (map[string]string, error) {
	built := map[string]string{}
	for _, name := range functions {
		path := filepath.Join(dir, name, "bootstrap")
		build := exec.CommandContext(ctx, "go", "build", "-tags", "lambda.norpc", "-trimpath", "-buildvcs=false",
			"-ldflags=-s -w -buildid=", "-o", path, "./functions/"+name)
		build.Dir = root
		build.Env = append(build.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return nil, fmt.Errorf("build the function %s: %w", name, err)
		}
		built[name] = path
	}
	return built, nil
}
