// Package faults_test breaks Muster on purpose: every call to a store, a queue or a model fails once, in every way there
// is; processes are killed, and frozen until they have lost what they held; runs are longer than an invocation and kill
// whoever touches them; ten thousand runs meet one fault in a hundred calls. After each, the run has ended, its journal
// is whole, and its receivers were told everything.
//
// `go test` plays a sample with a fixed seed, `make soak` all of it.
package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"muster/infra"
	"muster/shared/app"
	"muster/shared/engine/llm"
	"muster/shared/engine/llm/openai"
	"muster/shared/engine/llm/scripted"
	"muster/shared/guard"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/workspace"
)

// backend is where everything is kept.
type backend struct {
	records record.Store
	queues  map[string]queue.Queue
}

// home opens a backend, on a clock if it can be moved.
type home = func(t *testing.T, now func() time.Time) backend

// stage is where runs of the reference crew are played, one after the other, on one backend.
type stage struct {
	backend
	model      *scripted.Server
	receiver   *httptest.Server
	observer   http.Handler // sees everything, and nothing goes wrong there
	runs       *run.Service
	sealer     *workspace.Sealer
	deployment string
	token      string

	mu    sync.Mutex
	ahead time.Duration
	scene *scene
}

const workspaceToken = "mus_ws_of-the-stage"

// newStage deploys the reference crew.
func newStage(t *testing.T, on home) *stage {
	t.Helper()
	s := &stage{}
	s.backend = on(t, s.now)
	s.model = scripted.New(t, func(r scripted.Request) scripted.Reply { return s.current().ask(r) })
	s.receiver = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { s.current().hear(r) }))
	t.Cleanup(s.receiver.Close)
	var err error
	if s.sealer, err = workspace.NewSealer(map[string][]byte{"k": bytes.Repeat([]byte{7}, 32)}, "k"); err != nil {
		t.Fatal(err)
	}
	calm := s.app(s.records, s.queues, "observer")
	s.observer, s.runs = calm.HTTP(), calm.Runs
	var deployed struct{ ID, Token string }
	if code := request(s.observer, "POST", "/v1/deployments", workspaceToken, map[string]any{"name": "valley", "files": reference}, &deployed); code != http.StatusCreated {
		t.Fatalf("the crew was not deployed: %d", code)
	}
	s.deployment, s.token = deployed.ID, deployed.Token
	t.Cleanup(func() {
		for name, q := range s.queues {
			if dead, err := q.Buried(context.Background(), 10); err != nil || len(dead) > 0 {
				t.Errorf("the queue %s has buried %v, %v", name, dead, err)
			}
		}
	})
	return s
}

// app joins Muster as a process has it. Its name is its key to the model.
func (s *stage) app(records record.Store, queues map[string]queue.Queue, name string) *app.App {
	return app.New(app.Backends{
		Records: records, Runs: queues[infra.Runs], Deliveries: queues[infra.Deliveries], Sealer: s.sealer, Now: s.now,
		Callers: map[string]workspace.Caller{workspace.Hash(workspaceToken): {Kind: workspace.Workspace, WorkspaceID: "0198c0de-0000-7000-8000-000000000002"}},
		Models:  llm.Settings{Providers: map[string]llm.Access{"openai": {BaseURL: s.model.URL, APIKey: name}}}, OpenAI: openai.New,
		Guard: guard.Options{AllowLoopback: true}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
}

func (s *stage) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.ahead)
}

func (s *stage) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead += d
}

func (s *stage) current() *scene {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scene
}

// request asks a handler, and reads the answer into a value.
func request(h http.Handler, method, path, token string, body, into any, headers ...string) int {
	raw, _ := json.Marshal(body) // it is plain data
	r := httptest.NewRequest(method, path, bytes.NewReader(raw))
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code < 300 {
		_ = json.Unmarshal(w.Body.Bytes(), into) // what is missing is missed
	}
	return w.Code
}
