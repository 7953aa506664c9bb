package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// home is a running embedded home with the crew deployed, its model, and a receiver that hears when a run ends.
type home struct {
	url, token string
	process    *exec.Cmd
	receiver   *httptest.Server
	stops      []func()

	mu    sync.Mutex
	ended map[string]chan struct{}
}

// start starts a home on a fresh directory.
func (b *bench) start(ctx context.Context, together int) (h *home, err error) {
	h = &home{ended: map[string]chan struct{}{}}
	defer func() {
		if err != nil {
			h.stop()
		}
	}()
	model, stop, err := startModel(ctx, together)
	if err != nil {
		return h, err
	}
	h.stops = append(h.stops, stop)
	h.receiver = httptest.NewServer(http.HandlerFunc(h.hear))
	h.stops = append(h.stops, h.receiver.Close)

	data, err := os.MkdirTemp(b.dir, "home-")
	if err != nil {
		return h, err
	}
	ready := filepath.Join(data, "ready.json")
	h.process = exec.CommandContext(ctx, b.local, "-addr", "127.0.0.1:0", "-data", data, "-deploy", filepath.Join(b.dir, crewName), "-ready", ready)
	h.process.Env = append(h.process.Environ(), "MODEL=openai/gpt-4.1-mini", "OPENAI_API_KEY=bench", "OPENAI_BASE_URL="+model)
	h.process.Stderr = os.Stderr
	if err := h.process.Start(); err != nil {
		return h, err
	}
	h.stops = append(h.stops, func() { h.process.Process.Signal(syscall.SIGTERM); h.process.Wait() })
	return h, h.await(ctx, ready)
}

// await waits until the home accepts requests.
func (h *home) await(ctx context.Context, ready string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var told struct {
			URL         string `json:"url"`
			Deployments []struct {
				Token string `json:"token"`
			} `json:"deployments"`
		}
		raw, err := os.ReadFile(ready)
		if err == nil && json.Unmarshal(raw, &told) == nil && len(told.Deployments) > 0 {
			h.url, h.token = told.URL, told.Deployments[0].Token
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("start the embedded home: %w", ctx.Err())
		}
	}
}

// stop stops everything, the last first.
func (h *home) stop() {
	for i := len(h.stops) - 1; i >= 0; i-- {
		h.stops[i]()
	}
}

func (h *home) hear(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.ended[r.URL.Path]; c != nil {
		close(c)
		delete(h.ended, r.URL.Path)
	}
}

// run kicks a run off and waits for the webhook of its end. It gives how long the kickoff took to be answered, and all of it.
func (h *home) run(ctx context.Context, name string) (kickoff, whole time.Duration, err error) {
	path, end := "/"+name, make(chan struct{})
	h.mu.Lock()
	h.ended[path] = end
	h.mu.Unlock()
	body, err := json.Marshal(map[string]any{"inputs": map[string]any{}, "crewWebhookUrl": h.receiver.URL + path})
	if err != nil {
		return 0, 0, err
	}
	request, err := http.NewRequestWithContext(ctx, "POST", h.url+"/kickoff", bytes.NewReader(body))
	if err != nil {
		return 0, 0, err
	}
	request.Header.Set("Authorization", "Bearer "+h.token)
	began := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return 0, 0, err
	}
	defer response.Body.Close()
	said, err := io.ReadAll(response.Body)
	kickoff = time.Since(began)
	if err != nil || response.StatusCode != http.StatusOK {
		return 0, 0, fmt.Errorf("the kickoff was answered by %d %s, %v", response.StatusCode, said, err)
	}
	select {
	case <-end:
		return kickoff, time.Since(began), nil
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
}

var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}}

// peak is the most memory that the home's process has had in RAM so far, in MB.
func (h *home) peak() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.process.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kb); n == 1 {
			return kb / 1024, nil
		}
	}
	return 0, errors.New("this system does not tell the peak of a process's memory")
}
