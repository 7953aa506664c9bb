// Package guardtest is a receiver of requests that misbehaves on purpose, for the tests of whatever sends through guard. A
// Receiver remembers what it was sent and answers by a Behaviour; some misbehaviour needs no HTTP, and is a function that
// gives an address.
package guardtest

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// Request is one request as it arrived.
type Request struct {
	Method, Path, Proto string
	Header              http.Header
	Body                []byte
	At                  time.Time
	// Remote is the address of the other end: the same one means the same connection.
	Remote string
}

// Behaviour answers a request whose body was read already and can be read again.
type Behaviour = http.HandlerFunc

// Receiver is an HTTP server on the loopback address.
type Receiver struct {
	// URL is where it listens.
	URL string
	// Server is for what a test needs beyond that: its certificate, its connections.
	Server *httptest.Server

	mu   sync.Mutex
	got  []Request
	seen chan struct{}
}

// New starts a receiver that lives as long as the test.
func New(t testing.TB, b Behaviour) *Receiver {
	r, server := unstarted(b)
	server.Start()
	return r.started(t)
}

// NewTLS starts a receiver that speaks HTTP/2 and 1.1 over TLS, with the certificate of httptest.
func NewTLS(t testing.TB, b Behaviour) *Receiver {
	r, server := unstarted(b)
	server.EnableHTTP2 = true
	server.StartTLS()
	return r.started(t)
}

func unstarted(b Behaviour) (*Receiver, *httptest.Server) {
	r := &Receiver{seen: make(chan struct{}, 1)}
	r.Server = httptest.NewUnstartedServer(r.remember(b))
	r.Server.Config.ErrorLog = quiet
	return r, r.Server
}

func (r *Receiver) started(t testing.TB) *Receiver {
	r.URL = r.Server.URL
	t.Cleanup(func() {
		r.Server.CloseClientConnections()
		r.Server.Close()
	})
	return r
}

func (r *Receiver) remember(b Behaviour) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		r.got = append(r.got, Request{q.Method, q.URL.Path, q.Proto, q.Header.Clone(), body, time.Now(), q.RemoteAddr})
		r.mu.Unlock()
		select {
		case r.seen <- struct{}{}:
		default:
		}
		q.Body = io.NopCloser(bytes.NewReader(body))
		b(w, q)
	}
}

// Got gives the requests so far, in order of arrival.
func (r *Receiver) Got() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Request(nil), r.got...)
}

// Await waits until n requests have arrived.
func (r *Receiver) Await(t testing.TB, n int) []Request {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		if got := r.Got(); len(got) >= n {
			return got
		}
		select {
		case <-r.seen:
		case <-late:
			t.Fatalf("the receiver got %d requests within 10 s, not %d", len(r.Got()), n)
		}
	}
}

// Connections counts the connections that the requests so far came over.
func (r *Receiver) Connections() int {
	remotes := map[string]bool{}
	for _, q := range r.Got() {
		remotes[q.Remote] = true
	}
	return len(remotes)
}

// listen accepts connections and hands each to serve until the test ends.
func listen(t testing.TB, serve func(net.Conn)) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			c.Close()
		}
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			go serve(c)
		}
	}()
	return l.Addr().String()
}
