package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// Two directories of one name were one deployment, and took turns in it at every start.
func TestTwoDirectoriesOfOneNameAreRefused(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "crew"), filepath.Join(t.TempDir(), "crew")
	h := &home{options: options{deploy: []string{a, b}}}
	err := h.deployAll(t.Context())
	if err == nil || !strings.Contains(err.Error(), a) || !strings.Contains(err.Error(), b) {
		t.Errorf("got %v, want an error that names both", err)
	}
}
