package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// kept is DIR/tokens.json: everything that is shown once and kept nowhere else. The store has only hashes of it.
type kept struct {
	WorkspaceID    string           `json:"workspace_id"`
	WorkspaceToken string           `json:"workspace_token"`
	InternalToken  string           `json:"internal_token"`
	Deployments    []keptDeployment `json:"deployments"`
}

type keptDeployment struct {
	ID            string `json:"id"`
	Name          string `json:"name"`
	Token         string `json:"token"`
	WebhookSecret string `json:"webhook_secret"`
}

func tokensFile(dir string) string { return filepath.Join(dir, "tokens.json") }

// readKept reads the file; found is false when there is none yet.
func readKept(dir string) (k kept, found bool, err error) {
	data, err := os.ReadFile(tokensFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return kept{}, false, nil
	}
	if err != nil {
		return kept{}, false, err
	}
	if err := json.Unmarshal(data, &k); err != nil {
		return kept{}, false, fmt.Errorf("read %s: %w", tokensFile(dir), err)
	}
	return k, true, nil
}

func (k kept) write(dir string) error { return writeJSON(tokensFile(dir), k) }

// writeJSON writes a file that only its owner can read, whole or not at all.
func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeWhole(path, append(data, '\n'))
}

func writeWhole(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// sealingKey reads DIR/sealing.key, and makes it first when there is none.
func sealingKey(dir string) ([]byte, error) {
	path := filepath.Join(dir, "sealing.key")
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, 32)
		rand.Read(key) // never fails
		return key, writeWhole(path, key)
	}
	if err == nil && len(key) != 32 {
		err = fmt.Errorf("%s does not hold 32 bytes; what was sealed with the right key needs that one", path)
	}
	return key, err
}
