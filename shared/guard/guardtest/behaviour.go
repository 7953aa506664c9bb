package guardtest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var quiet = log.New(io.Discard, "", 0)

// Status answers with a status and headers, given as name, value, name, value.
func Status(code int, headers ...string) Behaviour {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Add(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
	}
}

// Say answers with a status and a text.
func Say(code int, text string) Behaviour {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		io.WriteString(w, text)
	}
}

// InTurn answers the first request by the first behaviour, and so on; the last one stays.
func InTurn(all ...Behaviour) Behaviour {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		all[min(int(n.Add(1)), len(all))-1](w, r)
	}
}

// Flap answers by the first behaviour n times, by the second one as often, and so on.
func Flap(n int, a, b Behaviour) Behaviour {
	var count atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		if (count.Add(1)-1)/int64(n)%2 == 0 {
			a(w, r)
		} else {
			b(w, r)
		}
	}
}

// Hints sends n early hints of 100 bytes before the answer.
func Hints(n int, b Behaviour) Behaviour {
	return func(w http.ResponseWriter, r *http.Request) {
		for range n {
			w.Header().Set("Link", "<"+strings.Repeat("x", 100)+">")
			w.WriteHeader(http.StatusEarlyHints)
		}
		b(w, r)
	}
}

// Hang reads the request and never answers.
func Hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// Drip sends the header at once, and then one byte of the body every now and then, for ever.
func Drip(every time.Duration) Behaviour {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			if _, err := io.WriteString(w, "."); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	}
}

// Endless sends a body without end as fast as it is taken, and counts the bytes in sent.
func Endless(sent *atomic.Int64) Behaviour {
	return func(w http.ResponseWriter, _ *http.Request) {
		block := bytes.Repeat([]byte("endless "), 1<<12)
		for {
			n, err := w.Write(block)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
}

// Bomb sends 10 KB of gzip that unpack to 10 MB, whatever encodings the sender accepts, and says that it is of the encoding.
func Bomb(encoding string) Behaviour {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", encoding)
		w.Write(bomb())
	}
}

var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(make([]byte, 10<<20))
	z.Close()
	return b.Bytes()
})

// Flood sends headers of about the size given, in bytes.
func Flood(size int) Behaviour {
	return func(w http.ResponseWriter, _ *http.Request) {
		for range size / 1000 {
			w.Header().Add("X-Flood", strings.Repeat("x", 1000))
		}
	}
}

// Echo answers with the headers and the body that it got.
func Echo(w http.ResponseWriter, r *http.Request) {
	r.Header.Write(w)
	io.Copy(w, r.Body)
}

// Reset breaks the connection with a RST.
func Reset(w http.ResponseWriter, _ *http.Request) {
	conn, _ := hijack(w)
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// Raw answers with the bytes given, HTTP or not, and closes the connection.
func Raw(answer string) Behaviour {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, buf := hijack(w)
		defer conn.Close()
		buf.WriteString(answer)
		buf.Flush()
	}
}

func hijack(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	return conn, buf
}

// Deaf accepts connections and never reads. It gives host and port.
func Deaf(t testing.TB) (address string) { return listen(t, func(net.Conn) {}) }

// OneAnswer answers the first request of each connection properly and closes the connection at the moment the second one
// arrives, unanswered. requests counts both.
func OneAnswer(t testing.TB, requests *atomic.Int64) (address string) {
	return listen(t, func(c net.Conn) {
		defer c.Close()
		in := bufio.NewReader(c)
		for turn := 0; ; turn++ {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			io.Copy(io.Discard, r.Body)
			requests.Add(1)
			if turn > 0 {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
}

// Refused gives an address where nobody listens.
func Refused(t testing.TB) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
