package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"muster/shared/crew"
	"muster/shared/id"
)

// deploymentName is the name of the deployment of a directory: the directory's own.
func deploymentName(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return filepath.Base(dir)
}

// deployAll deploys each directory over HTTP, as any client would.
func (h *home) deployAll(ctx context.Context) error {
	names := map[string]string{}
	for _, dir := range h.deploy {
		name := deploymentName(dir)
		if other, taken := names[name]; taken {
			return fmt.Errorf("%s and %s would both be the deployment %q; rename one of the directories", other, dir, name)
		}
		names[name] = dir
	}
	for _, dir := range h.deploy {
		files, err := readDir(dir)
		if err != nil {
			return err
		}
		if err := h.deployOne(ctx, deploymentName(dir), files); err != nil {
			return fmt.Errorf("deploy %s: %w", dir, err)
		}
	}
	return nil
}

// deployOne makes a deployment, or a new version of it in both environments, or nothing when its files are unchanged.
func (h *home) deployOne(ctx context.Context, name string, files map[string][]byte) error {
	known := slices.IndexFunc(h.kept.Deployments, func(d keptDeployment) bool { return d.Name == name })
	if known < 0 {
		var made struct {
			ID            string `json:"id"`
			Token         string `json:"token"`
			WebhookSecret string `json:"webhook_secret"`
		}
		body := map[string]any{"name": name, "files": encodeFiles(files)}
		if err := h.call(ctx, "POST", "/v1/deployments", h.kept.WorkspaceToken, body, &made); err != nil {
			return err
		}
		h.kept.Deployments = append(h.kept.Deployments, keptDeployment{made.ID, name, made.Token, made.WebhookSecret})
		return h.kept.write(h.data)
	}

	shown := h.kept.Deployments[known].ID
	deploymentID, _ := id.Parse("dep", shown)
	d, err := h.app.Crews.Deployment(ctx, deploymentID)
	if err != nil {
		return err
	}
	if d.Digest == crew.Digest(files) {
		return nil
	}
	var version struct {
		Number int `json:"version_number"`
	}
	path := "/v1/deployments/" + shown
	if err := h.call(ctx, "POST", path+"/versions", h.kept.WorkspaceToken, map[string]any{"files": encodeFiles(files)}, &version); err != nil {
		return err
	}
	for _, environment := range []string{crew.Production, crew.Staging} {
		if err := h.call(ctx, "PUT", path+"/environments/"+environment, h.kept.WorkspaceToken, map[string]any{"version_number": version.Number}, nil); err != nil {
			return err
		}
	}
	h.say.line("%s has changed: version %d is now in production and staging.", name, version.Number)
	return nil
}

// readDir reads the files of a crew by their paths below dir, without hidden ones.
func readDir(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path != dir && strings.HasPrefix(e.Name(), "."):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !e.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files[filepath.ToSlash(name)] = data
		return err
	})
	return files, err
}

// encodeFiles gives files as the wire takes them: text as it is, anything else as base64.
func encodeFiles(files map[string][]byte) map[string]any {
	all := make(map[string]any, len(files))
	for name, data := range files {
		if utf8.Valid(data) {
			all[name] = string(data)
		} else {
			all[name] = map[string]string{"base64": base64.StdEncoding.EncodeToString(data)}
		}
	}
	return all
}
