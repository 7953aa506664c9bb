// Package scripted is a model server for tests and benchmarks. It speaks the OpenAI protocol over real HTTP, so that the
// provider's own code is what is tested, and answers whatever a script says: text, tool calls, errors, silence, garbage.
// It is as fast as the loopback, needs no network, and keeps every request for questions afterwards.
package scripted

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"

	"muster/shared/engine/llm"
)

// Script answers one request. It is called from many goroutines at once.
type Script func(Request) Reply

// Request is one HTTP request to the model, as it arrived.
type Request struct {
	// N numbers the requests from 1, in the order of arrival; a retry by the client's SDK has its own.
	N int
	// Attempt is 0, and more on a retry by the client's SDK.
	Attempt  int
	Model    string
	Messages []llm.Message
	Tools    []llm.Function
	// Schema is the JSON Schema of the response format, nil without one.
	Schema json.RawMessage
	Stream bool
	Stop   []string
	// Header and Body are everything that was sent; Digest is the SHA-256 of Body in hex.
	Header http.Header
	Body   json.RawMessage
	Digest string
}

// System gives the text of the first system message, or "".
func (r Request) System() string { return r.first(llm.System) }

// User gives the text of the first user message, or "": the task, in the engine's prompts.
func (r Request) User() string { return r.first(llm.User) }

// Last gives the last message, which is a tool's result in the middle of a loop.
func (r Request) Last() llm.Message {
	if len(r.Messages) == 0 {
		return llm.Message{}
	}
	return r.Messages[len(r.Messages)-1]
}

func (r Request) first(role llm.Role) string {
	for _, m := range r.Messages {
		if m.Role == role {
			return m.Content
		}
	}
	return ""
}

// Call is a request and what became of it.
type Call struct {
	Request
	// Answered says that a complete answer with status 200 was written out. Whether it was also read is the client's secret.
	Answered bool
}

// Server is a running model server.
type Server struct {
	// URL is the base URL that clients are given, ending in /v1.
	URL string

	http   *httptest.Server
	script Script
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	calls []Call
}

// New starts a server that is closed when the test or benchmark ends.
func New(t interface{ Cleanup(func()) }, script Script) *Server {
	s := Start(script)
	t.Cleanup(s.Close)
	return s
}

// Start starts a server for programs that are no test; the caller closes it.
func Start(script Script) *Server {
	s := &Server{script: script, closed: make(chan struct{})}
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	s.URL = s.http.URL + "/v1"
	return s
}

// Close releases every request that waits and stops the server.
func (s *Server) Close() {
	s.once.Do(func() {
		close(s.closed)
		s.http.CloseClientConnections()
		s.http.Close()
	})
}

// Calls gives every request so far, in order of arrival.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

// Answered counts complete answers by the digest of their request. A count above one is a call that was paid for twice.
func (s *Server) Answered() map[string]int {
	counts := map[string]int{}
	for _, c := range s.Calls() {
		if c.Answered {
			counts[c.Digest]++
		}
	}
	return counts
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/chat/completions") {
		writeError(w, http.StatusNotFound, "there is only POST /v1/chat/completions here")
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	request, err := decode(r.Header, body)
	if err != nil {
		writeError(w, http.StatusBadRequest, "the request is not of the OpenAI protocol: "+err.Error())
		return
	}
	s.mu.Lock()
	request.N = len(s.calls) + 1
	s.calls = append(s.calls, Call{Request: request})
	s.mu.Unlock()

	reply := s.script(request)
	if reply.Wait != nil {
		select {
		case <-reply.Wait:
		case <-r.Context().Done():
			return
		case <-s.closed:
			return
		}
	}
	if reply.write(w, request) == nil && r.Context().Err() == nil {
		s.mu.Lock()
		s.calls[request.N-1].Answered = true
		s.mu.Unlock()
	}
}

func decode(header http.Header, body []byte) (Request, error) {
	var wire struct {
		Model    string        `json:"model"`
		Messages []llm.Message `json:"messages"`
		Tools    []struct {
			Function llm.Function `json:"function"`
		} `json:"tools"`
		Stream         bool `json:"stream"`
		Stop           any  `json:"stop"`
		ResponseFormat struct {
			JSONSchema struct {
				Schema json.RawMessage `json:"schema"`
			} `json:"json_schema"`
		} `json:"response_format"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return Request{}, err
	}
	sum := sha256.Sum256(body)
	request := Request{
		Model: wire.Model, Messages: wire.Messages, Stream: wire.Stream, Schema: wire.ResponseFormat.JSONSchema.Schema,
		Header: header.Clone(), Body: body, Digest: hex.EncodeToString(sum[:]),
	}
	request.Attempt, _ = strconv.Atoi(header.Get("X-Stainless-Retry-Count"))
	for _, t := range wire.Tools {
		request.Tools = append(request.Tools, t.Function)
	}
	switch stop := wire.Stop.(type) {
	case string:
		request.Stop = []string{stop}
	case []any:
		for _, word := range stop {
			if text, ok := word.(string); ok {
				request.Stop = append(request.Stop, text)
			}
		}
	}
	return request, nil
}
