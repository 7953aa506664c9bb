package agentwire

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"muster/events"
	"muster/shared/channel"
	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/run"
	"muster/shared/storetest"
	"muster/shared/thread"
	"muster/shared/trigger"
	"muster/shared/workspace"
)

// pushed is a channel.Pusher that keeps what it is given.
type pushed struct {
	mu     sync.Mutex
	told   []string
	closed bool
}

func (p *pushed) Push(_ context.Context, _ string, message []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return channel.ErrGone
	}
	p.told = append(p.told, string(message))
	return nil
}

func (p *pushed) Close(ctx context.Context, id string, last []byte) error {
	err := p.Push(ctx, id, last)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if errors.Is(err, channel.ErrGone) {
		return nil
	}
	return err
}

type noAgents struct{}

func (noAgents) FindAgent(context.Context, string) (trigger.Trigger, error) {
	return trigger.Trigger{}, fault.New(fault.NotFound, "There is no such agent.")
}

const socketWorkspace = "0198c0de-0000-7000-8000-000000000001"

func newSocket(tb testing.TB) (*Socket, *pushed, string) {
	tb.Helper()
	store, p := &storetest.Memory{}, &pushed{}
	tokens := &workspace.Tokens{Records: store}
	token, err := tokens.Mint(context.Background(), workspace.Caller{Kind: workspace.Workspace, WorkspaceID: socketWorkspace})
	if err != nil {
		tb.Fatal(err)
	}
	crews := &crew.Store{Records: store}
	runs := &run.Service{Store: store, Crews: crews}
	return &Socket{
		Hub:  &channel.Hub{Store: store, Runs: runs, Crews: crews, Tokens: tokens, Push: p, Dialect: Channels},
		Runs: runs, Crews: crews, Threads: &thread.Threads{Store: store, Runs: runs}, Agents: noAgents{},
	}, p, token
}

func TestWhoMayOpenAConnection(t *testing.T) {
	s, _, token := newSocket(t)
	for _, c := range []struct {
		name, url, origin string
		status            int
	}{
		{"a program", "/ws", "", 200},
		{"a page from here", "/ws", "https://muster.example", 200},
		{"a page from here, whatever the case", "/ws", "https://MUSTER.example", 200},
		{"a page from elsewhere", "/ws", "https://evil.example", 403},
		{"a page that only begins like here", "/ws", "https://muster.example.evil.example", 403},
		{"another port", "/ws", "https://muster.example:8443", 403},
		{"a page of nowhere", "/ws", "null", 403},
		{"what is no URL", "/ws", "://", 403},
		{"a token in the query", "/ws?token=" + token, "", 200},
		{"a wrong token in the query", "/ws?token=x", "", 401},
	} {
		r := httptest.NewRequest(http.MethodGet, "https://muster.example"+c.url, nil)
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if status, err := s.Connect(t.Context(), c.name, r); err != nil || status != c.status {
			t.Errorf("%s is answered %d, %v, want %d", c.name, status, err, c.status)
		}
	}
}

func TestNoFirstMessageIsMetWithSilence(t *testing.T) {
	for _, c := range []struct {
		name, message, told string
		ends                bool
	}{
		{"a ping", `{"type":"ping"}`, `{"type":"pong","payload":null}`, false},
		{"a wish for a channel", `{"type":"subscribe","channel":"run:x"}`, `{"type":"error","payload":{"message":"authentication required"}}`, true},
		{"what is no message", `ping`, `{"type":"error","payload":{"message":"invalid message"}}`, true},
		{"a wrong token", `{"type":"auth","token":"x"}`, `{"type":"error","payload":{"message":"Invalid or missing authentication credentials"}}`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, p, token := newSocket(t)
				if err := s.Hub.Open(t.Context(), "c"); err != nil {
					t.Fatal(err)
				}
				if err := s.Receive(t.Context(), "c", []byte(c.message)); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]string{c.told}, p.told); diff != "" || p.closed != c.ends {
					t.Errorf("it ended: %v; it was told (-want +got):\n%s", p.closed, diff)
				}
				if c.ends {
					return
				}
				if err := s.Receive(t.Context(), "c", []byte(`{"type":"auth","token":"`+token+`"}`)); err != nil {
					t.Fatal(err)
				}
				if _, known, err := s.Hub.Hear(t.Context(), "c"); !known || err != nil {
					t.Errorf("after it a good token is not taken: %v", err)
				}
			})
		})
	}
}

func TestFrames(t *testing.T) {
	at := time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)
	r := run.Run{
		ID: "0198c0de-0000-7000-8000-00000000000a", WorkspaceID: socketWorkspace, DeploymentID: "0198c0de-0000-7000-8000-00000000000d", Origin: "api",
		VersionNumber: 1, CreatedAt: at, StartedAt: at.Add(time.Second), State: run.Failed, EndedAt: at.Add(4 * time.Second), Error: "It broke.",
	}
	one := crew.AgentID(r.DeploymentID, "one")
	about := channel.About{Run: r, Definition: crew.Definition{Agents: []crew.Agent{{Key: "one", Role: "One"}}}}
	event := func(n int64, kind, agentID string, data any) events.Event {
		raw, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		return events.Event{ID: "e", N: n, At: at.Add(2 * time.Second), Type: kind, Identity: events.Identity{AgentID: agentID}, Data: raw}
	}
	p := run.Page{Seq: 1, Kind: run.EndPage, At: at.Add(4 * time.Second), Outcome: &run.Outcome{State: run.Failed, Error: "It broke."}, Events: []events.Event{
		event(1, "crew_kickoff_started", "", nil),
		event(2, "llm_call_started", one, map[string]any{"model": "m"}),
		event(3, "llm_stream_chunk", one, map[string]any{"chunk": "x"}),
		event(4, "llm_call_completed", one, map[string]any{"response": strings.Repeat("ä", 20<<10), "usage": map[string]any{"total_tokens": 7}}),
		event(5, "crew_kickoff_failed", "", map[string]any{"error": "It broke."}),
	}}
	type told struct {
		Type, Channel string
		Payload       struct {
			RunID      string `json:"run_id"`
			Seq        int64
			Status     string
			ExitCode   *int    `json:"exit_code"`
			FinishedAt *string `json:"finished_at"`
			Error      *string `json:"error_message"`
			Agent      string
			Tokens     *int
			Truncated  bool
		}
	}
	spelled := func(c channel.Channel) (all []told) {
		messages, err := spell(c, about, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			var one told
			if err := json.Unmarshal(m.Body, &one); err != nil || one.Payload.Seq != m.N || one.Payload.RunID != "run_0198c0de00007000800000000000000a" || len(m.Body) > 32<<10 || !utf8.Valid(m.Body) {
				t.Errorf("%d is spelled %s, %v", m.N, m.Body, err)
			}
			all = append(all, one)
		}
		return all
	}
	kinds := func(all []told) (kinds []string) {
		for _, one := range all {
			kinds = append(kinds, one.Type)
		}
		return kinds
	}
	all := spelled(channel.Channel{Name: "workspace:x"})
	if diff := cmp.Diff([]string{"run.started", "agent.log", "agent.log", "run.failed"}, kinds(all)); diff != "" {
		t.Fatalf("frames (-want +got):\n%s", diff)
	}
	if first := all[0].Payload; all[0].Channel != "workspace:x" || first.Status != "RUNNING" || first.ExitCode != nil || first.FinishedAt != nil || first.Error != nil {
		t.Errorf("at first the run is %+v", all[0])
	}
	if last := all[3].Payload; last.Status != "FAILED" || last.ExitCode == nil || *last.ExitCode != 1 || last.Error == nil || *last.Error != "It broke." {
		t.Errorf("at last the run is %+v", all[3])
	}
	if long := all[2].Payload; !long.Truncated || long.Agent != "one" || long.Tokens == nil || *long.Tokens != 7 || all[1].Payload.Truncated {
		t.Errorf("a long answer is %+v", all[2])
	}
	if diff := cmp.Diff([]string{"run.started", "run.failed"}, kinds(spelled(channel.Channel{Name: "agent:x", AgentID: "other"}))); diff != "" {
		t.Errorf("frames of another agent (-want +got):\n%s", diff)
	}
}

// Whatever a client sends is answered in frames, and never with a failure of ours.
func FuzzFrames(f *testing.F) {
	for _, s := range []string{
		`{"type":"ping"}`, `{"type":"subscribe","channel":"workspace:ws_0198c0de000070008000000000000001"}`, `{"type":"subscribe","channel":"run:x"}`,
		`{"type":"resume","payload":{"run_0198c0de00007000800000000000000a":3,"x":-1}}`, `{"type":"resume","payload":{"a":1e99}}`, `{"type":1}`, `[]`, `null`, ``,
		`{"type":"unsubscribe","channel":"\u0000"}`, "{\"type\":\"\xff\"}", `{"type":"auth","token":""}`, strings.Repeat("[", 60<<10), `{"type":"` + strings.Repeat("x", 70<<10) + `"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		s, p, token := newSocket(t)
		if err := s.Hub.Open(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Hub.Admit(t.Context(), "c", token); err != nil {
			t.Fatal(err)
		}
		if err := s.Receive(t.Context(), "c", message); err != nil {
			t.Errorf("%q fails: %v", message, err)
		}
		if len(p.told) > mostResumed {
			t.Errorf("%q is answered by %d frames", message, len(p.told))
		}
		for _, told := range p.told {
			var f frame
			if err := json.Unmarshal([]byte(told), &f); err != nil || f.Type == "" || !utf8.ValidString(told) {
				t.Errorf("%q is answered %q", message, told)
			}
		}
	})
}
