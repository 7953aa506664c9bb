package runtimeapi

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build builds the bootstraps of functions for this machine, with the flags that they are deployed with, and gives the path
// of each. root is the module's folder, dir an existing one.
func Build(ctx context.Context, root, dir string, functions ...string) (map[string]string, error) {
	arguments := []string{"build", "-tags", "lambda.norpc", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", dir + string(filepath.Separator)}
	built := map[string]string{}
	for _, name := range functions {
		arguments = append(arguments, "./functions/"+name)
		built[name] = filepath.Join(dir, name)
	}
	build := exec.CommandContext(ctx, "go", arguments...)
	build.Dir = root
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("build the functions: %w", err)
	}
	return built, nil
}
