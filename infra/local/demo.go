package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"muster/events"
)

// printer prints lines from several goroutines.
type printer struct {
	mu  sync.Mutex
	out io.Writer
}

func (p *printer) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, format+"\n", args...)
}

// demoPatience is how long the demo watches its run.
const demoPatience = 2 * time.Minute

// demo runs the first deployed crew that ships an input, and shows each event and each webhook as the inbox saw it.
func (h *home) demo(ctx context.Context, posts *inbox) {
	d, inputs, ok := h.sample()
	if !ok {
		h.say.line("There is nothing to show: no deployed directory has an inputs.json.")
		return
	}
	seen := &watcher{begin: time.Now(), say: h.say, ended: make(chan struct{})}
	posts.tell(seen.hear) // also of webhooks that come late
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	// An address that stands for all of this machine's is none to send to.
	here := strings.NewReplacer("[::]", "127.0.0.1", "0.0.0.0", "127.0.0.1").Replace(h.here) + "/inbox/" + inboxPrefix
	h.say.line("\nRunning %s on the input that ships with it. Its webhooks are verified as they come, and kept at %sevents, -step, -task and -crew:\n", d.Name, here)
	started := map[string]any{
		"inputs": inputs, "meta": map[string]string{"source": "make run"},
		"stepWebhookUrl": here + "step", "taskWebhookUrl": here + "task", "crewWebhookUrl": here + "crew",
		"webhooks": map[string]any{"events": shown(), "url": here + "events", "realtime": true},
	}
	var kickoff struct {
		KickoffID string `json:"kickoff_id"`
	}
	if err := h.call(ctx, "POST", "/kickoff", d.Token, started, &kickoff); err != nil {
		h.say.line("The demo could not start a run: %v", err)
		return
	}
	select {
	case <-seen.ended:
	case <-ctx.Done():
	}
	var status struct {
		State  string `json:"state"`
		Result string `json:"result"`
		Events int    `json:"events_count"`
	}
	if err := h.call(ctx, "GET", "/status/"+kickoff.KickoffID, d.Token, nil, &status); err != nil {
		h.say.line("The demo's run is under way, but its status could not be read: %v", err)
		return
	}
	arrived, bad := seen.counts()
	h.say.line("\nRun %s: %s after %.1f s, %d events; %d webhooks received, %d of them not verified.", kickoff.KickoffID, status.State,
		time.Since(seen.begin).Seconds(), status.Events, arrived, bad)
	h.say.line("Its result:\n\n%s\n", indent(status.Result))
	h.say.line("  curl -s %s/status/%s -H 'Authorization: Bearer %s'\n", h.url, kickoff.KickoffID, d.Token)
}

// shown lists the events that the demo asks for: all that Muster emits, but for the pieces of streamed answers.
func shown() (types []string) {
	for _, k := range events.All() {
		if k.Emitted && k.Type != "llm_stream_chunk" {
			types = append(types, k.Type)
		}
	}
	return types
}

// sample gives the first deployed directory with an inputs.json.
func (h *home) sample() (keptDeployment, json.RawMessage, bool) {
	for _, dir := range h.deploy {
		inputs, err := os.ReadFile(filepath.Join(dir, "inputs.json"))
		if err != nil {
			continue
		}
		for _, d := range h.kept.Deployments {
			if d.Name == deploymentName(dir) {
				return d, inputs, true
			}
		}
	}
	return keptDeployment{}, nil, false
}

// call sends a request to this home as any client would.
func (h *home) call(ctx context.Context, method, path, token string, body, answer any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, h.here+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err = io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %d: %s", path, response.StatusCode, data)
	}
	if warning := response.Header.Get("Muster-Warning"); warning != "" {
		h.say.line("Warning   %s", warning)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(data, answer)
}

// inboxPrefix begins the names of the demo's inboxes: demo-step and so on.
const inboxPrefix = "demo-"

// watcher prints what comes to the demo's inboxes.
type watcher struct {
	begin time.Time
	say   *printer
	ended chan struct{}

	mu         sync.Mutex
	posts, bad int
	crew, last bool
}

// hear prints one webhook.
func (s *watcher) hear(p post) {
	name, ours := strings.CutPrefix(p.name, inboxPrefix)
	if !ours {
		return
	}
	verdict := "verified"
	if !p.Verified {
		verdict = "NOT VERIFIED: " + p.Why
	}
	kind, text := describe(name, []byte(p.Body))
	s.say.line("%7.3f s  %-8s %-10s %s", time.Since(s.begin).Seconds(), kind, verdict, text)
	s.note(kind, text, p.Verified)
}

// note counts, and closes ended when both the crew webhook and the last event have arrived.
func (s *watcher) note(kind, text string, verified bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posts++
	if !verified {
		s.bad++
	}
	before := s.crew && s.last
	s.crew = s.crew || kind == "crew"
	s.last = s.last || kind == "event" && (strings.Contains(text, "crew_kickoff_completed") || strings.Contains(text, "crew_kickoff_failed"))
	if s.crew && s.last && !before {
		close(s.ended)
	}
}

func (s *watcher) counts() (posts, bad int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.posts, s.bad
}

// describe gives the kind of a webhook and a line about it.
func describe(name string, body []byte) (kind, text string) {
	var b struct {
		Events []struct {
			Type string         `json:"type"`
			Data map[string]any `json:"data"`
		} `json:"events"`
		Thought string `json:"thought"`
		Tool    string `json:"tool"`
		Name    string `json:"name"`
		Agent   string `json:"agent"`
		Summary string `json:"summary"`
		Result  string `json:"result"`
	}
	_ = json.Unmarshal(body, &b)
	switch kind = name; kind {
	case "events":
		var parts []string
		for _, e := range b.Events {
			part := e.Type
			if role, _ := e.Data["agent_role"].(string); role != "" {
				part += " (" + role + ")"
			}
			parts = append(parts, part)
		}
		return "event", strings.Join(parts, ", ")
	case "step":
		if b.Tool != "" {
			return kind, "uses " + b.Tool
		}
		return kind, short(b.Thought)
	case "task":
		return kind, b.Name + ": " + short(b.Summary)
	}
	return kind, short(b.Result)
}

// short gives the beginning of a text on one line.
func short(s string) string {
	words := []rune(strings.Join(strings.Fields(s), " "))
	const most = 80
	if len(words) > most {
		return string(words[:most]) + "…"
	}
	return string(words)
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ")
}
