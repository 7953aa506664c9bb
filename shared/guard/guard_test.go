package guard

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/shared/guard/guardtest"
)

// get makes one request and gives what was read of the body.
func get(t *testing.T, c *Client, url string, limit int64) (status int, body string, truncated bool, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", false, err
	}
	defer resp.Body.Close()
	data, truncated, err := ReadBody(resp.Body, limit)
	return resp.StatusCode, string(data), truncated, err
}

func TestMisbehavingReceivers(t *testing.T) {
	var sent atomic.Int64
	for _, c := range []struct {
		name      string
		url       string
		status    int
		body      string
		truncated bool
		class     string
	}{
		{"an answer", guardtest.New(t, guardtest.Say(200, "fine")).URL, 200, "fine", false, ""},
		{"a body of exactly the limit", guardtest.New(t, guardtest.Say(200, "0123456789")).URL, 200, "0123456789", false, ""},
		{"a body one byte over the limit", guardtest.New(t, guardtest.Say(200, "0123456789+")).URL, 200, "0123456789", true, ""},
		{"a redirect is an answer", guardtest.New(t, guardtest.Status(307, "Location", "http://169.254.169.254/")).URL, 307, "", false, ""},
		{"a redirect without a place", guardtest.New(t, guardtest.Status(302)).URL, 302, "", false, ""},
		{"never answers", guardtest.New(t, guardtest.Hang).URL, 0, "", false, Timeout},
		{"never reads", "http://" + guardtest.Deaf(t), 0, "", false, Timeout},
		{"drips for ever", guardtest.New(t, guardtest.Drip(time.Millisecond)).URL, 200, "..........", true, ""},
		{"sends without end", guardtest.New(t, guardtest.Endless(&sent)).URL, 200, "endless en", true, ""},
		{"breaks the connection", guardtest.New(t, guardtest.Reset).URL, 0, "", false, Reset},
		{"closes without a word", guardtest.New(t, guardtest.Raw("")).URL, 0, "", false, Reset},
		{"breaks off in the body", guardtest.New(t, guardtest.Raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")).URL, 200, "half", true, Reset},
		{"does not speak HTTP", guardtest.New(t, guardtest.Raw("SSH-2.0-OpenSSH_9.6\r\n")).URL, 0, "", false, Protocol},
		{"sends 100 KB of headers", guardtest.New(t, guardtest.Flood(100_000)).URL, 0, "", false, TooLarge},
		{"sends 50 KB of headers", guardtest.New(t, guardtest.Flood(50_000)).URL, 200, "", false, ""},
		{"switches protocols", guardtest.New(t, guardtest.Raw("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")).URL, 101, "", false, ""},
		{"nobody listens", "http://" + guardtest.Refused(t), 0, "", false, Connect},
		{"speaks no TLS", "https" + strings.TrimPrefix(guardtest.New(t, guardtest.Hang).URL, "http"), 0, "", false, TLSNone},
		{"has a certificate nobody knows", guardtest.NewTLS(t, guardtest.Hang).URL, 0, "", false, TLSAuthority},
		{"a name that is an address in disguise", "http://127.1/", 0, "", false, Blocked},
		{"a user name", "http://me:secret@example.com/", 0, "", false, Invalid},
		{"another scheme", "ftp://example.com/", 0, "", false, Invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			options := Options{AllowLoopback: true}
			if c.class == Timeout {
				options.HeaderTimeout = 50 * time.Millisecond
			}
			client := New(options)
			defer client.CloseIdle()
			status, body, truncated, err := get(t, client, c.url, 10)
			if status != c.status || body != c.body || truncated != c.truncated || Class(err) != c.class {
				t.Errorf("got status %d, body %q, truncated %t, class %q (%v)\nwant   %d, %q, %t, %q",
					status, body, truncated, Class(err), err, c.status, c.body, c.truncated, c.class)
			}
		})
	}
}

// The transport of net/http would take the gzip apart and hand out 10 MB.
func TestBodiesAreNotUnpacked(t *testing.T) {
	for _, encoding := range []string{"gzip", "deflate", "br", "zstd", "gzip, gzip"} {
		r := guardtest.New(t, guardtest.Bomb(encoding))
		_, body, truncated, err := get(t, New(Options{AllowLoopback: true}), r.URL, 64<<10)
		if len(body) > 20<<10 || truncated || err != nil {
			t.Errorf("%s: got %d bytes, truncated %t, %v; want the 10 KB that were sent", encoding, len(body), truncated, err)
		}
		if got := r.Got()[0].Header.Get("Accept-Encoding"); got != "identity" {
			t.Errorf("Accept-Encoding: %q", got)
		}
	}
}

func TestSDKsCannotReadWithoutEnd(t *testing.T) {
	var sent atomic.Int64
	r := guardtest.New(t, guardtest.Endless(&sent))
	resp, err := New(Options{AllowLoopback: true, MaxBody: 1 << 20}).HTTP().Get(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if len(data) != 1<<20 || Class(err) != TooLarge {
		t.Errorf("read %d bytes and %v, want 1 MiB and the class too_large", len(data), err)
	}
}

func TestBlockedWithoutASocket(t *testing.T) {
	r := guardtest.New(t, guardtest.Say(200, "secret"))
	c := New(Options{})
	c.resolver = guardtest.Names{"rebound.example.": {"127.0.0.1"}, "mixed.example.": {"10.0.0.1", "::1"}}.Resolver(t)
	port := r.URL[strings.LastIndexByte(r.URL, ':'):]
	for _, url := range []string{r.URL, "http://localhost" + port, "http://rebound.example" + port, "http://mixed.example" + port} {
		_, _, _, err := get(t, c, url, 10)
		if Class(err) != Blocked || err.Error() != "This address cannot be reached from here." {
			t.Errorf("%s: %v", url, err)
		}
	}
	if n := len(r.Got()); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// The check of what the name resolves to is only there to be quick; this is the one that counts.
func TestTheSocketItselfIsChecked(t *testing.T) {
	r := guardtest.New(t, guardtest.Say(200, "secret"))
	to := netip.MustParseAddrPort(strings.TrimPrefix(r.URL, "http://"))
	c := New(Options{})
	ctx, cancel := context.WithTimeout(t.Context(), connectTimeout)
	defer cancel()
	_, err := c.connect(ctx, "tcp", []netip.Addr{to.Addr()}, "80")
	if Class(err) != Blocked {
		t.Errorf("connect: %v", err)
	}
}

func TestAnAddressThatRefusesIsFollowedByTheNext(t *testing.T) {
	r := guardtest.New(t, guardtest.Say(200, "fine"))
	c := New(Options{AllowLoopback: true})
	c.resolver = guardtest.Names{"two.example.": {"10.0.0.1", "127.0.0.9", "127.0.0.1"}}.Resolver(t)
	_, body, _, err := get(t, c, "http://two.example"+r.URL[strings.LastIndexByte(r.URL, ':'):], 10)
	if body != "fine" || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
	refused := guardtest.Refused(t)
	if _, _, _, err = get(t, c, "http://two.example"+refused[strings.LastIndexByte(refused, ':'):], 10); Class(err) != Connect {
		t.Errorf("where only the allowed address counts: class %q, %v", Class(err), err)
	}
}

func TestNamesThatDoNotResolve(t *testing.T) {
	names := guardtest.Names{"empty.example.": {}, "loop.example.": {"cname loop.example."}}.Resolver(t)
	for _, c := range []struct{ name, class, message string }{
		{"unknown.example", DNSUnknown, "There is no address for this host name."},
		{"empty.example", DNSUnknown, "There is no address for this host name."},
		{"loop.example", DNSUnknown, "There is no address for this host name."},
		{"broken.example", DNSFailed, "The host name could not be resolved."},
		{"refused.example", DNSFailed, "The host name could not be resolved."},
		{"garbled.example", DNSTimeout, "The host name could not be resolved in time."},
		{"silent.example", DNSTimeout, "The host name could not be resolved in time."},
	} {
		client := New(Options{AllowLoopback: true})
		if client.resolver = names; c.class == DNSTimeout {
			client.resolving = 50 * time.Millisecond
		}
		_, _, _, err := get(t, client, "http://"+c.name+"/", 10)
		if Class(err) != c.class || Message(err) != c.message {
			t.Errorf("%s: class %q, %v; want %s, %s", c.name, Class(err), err, c.class, c.message)
		}
	}
}

func TestTLS(t *testing.T) {
	r := guardtest.NewTLS(t, guardtest.Say(200, "fine"))
	roots := x509.NewCertPool()
	roots.AddCert(r.Server.Certificate())
	c := New(Options{AllowLoopback: true, Roots: roots})
	defer c.CloseIdle()
	for range 3 {
		if _, body, _, err := get(t, c, r.URL, 10); body != "fine" || err != nil {
			t.Fatalf("got %q, %v", body, err)
		}
	}
	if got := r.Got(); got[0].Proto != "HTTP/2.0" || r.Connections() != 1 {
		t.Errorf("%s over %d connections, want HTTP/2.0 over one", got[0].Proto, r.Connections())
	}
}

func TestOneCallIsOneRequest(t *testing.T) {
	for _, c := range []struct {
		name   string
		header string
	}{
		{"an ordinary POST", "X-Plain"},
		{"a POST that the transport would take for repeatable", "Idempotency-Key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var requests atomic.Int64
			url := "http://" + guardtest.OneAnswer(t, &requests)
			client := New(Options{AllowLoopback: true})
			var class []string
			for range 2 {
				r, _ := http.NewRequestWithContext(t.Context(), "POST", url, bytes.NewReader([]byte("body")))
				r.Header.Set(c.header, "1")
				resp, err := client.Do(r)
				class = append(class, Class(err))
				if err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
			if requests.Load() != 2 || class[0] != "" || class[1] != Reset {
				t.Errorf("2 calls made %d requests and ended %q, want 2 and one reset", requests.Load(), class)
			}
		})
	}
}

func TestConnectionsAreKeptAndForgotten(t *testing.T) {
	r := guardtest.New(t, guardtest.Say(200, "fine"))
	c := New(Options{AllowLoopback: true})
	for range 5 {
		get(t, c, r.URL, 10)
	}
	if n := r.Connections(); n != 1 {
		t.Fatalf("5 requests came over %d connections, want 1", n)
	}
	c.used.Store(time.Now().Add(-time.Minute).UnixNano()) // the sandbox was frozen
	get(t, c, r.URL, 10)
	if n := r.Connections(); n != 2 {
		t.Errorf("after a minute's freeze the request came over an old connection")
	}
}

// The errors of net/http quote the URL with its query, and those of net the address behind a name.
func TestErrorsTellNothing(t *testing.T) {
	c := New(Options{AllowLoopback: true})
	for _, url := range []string{"http://127.0.0.1:1/?token=secret", "http://unknown.invalid/?token=secret", "http://10.0.0.1/?token=secret"} {
		_, _, _, err := get(t, c, url, 10)
		for e := err; e != nil && e == err; e = errors.Unwrap(e) {
			if s := e.Error() + Message(e); strings.Contains(s, "secret") || strings.Contains(s, "127.") || strings.Contains(s, "10.") {
				t.Errorf("%s: %s", url, s)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, _ := http.NewRequestWithContext(ctx, "GET", guardtest.New(t, guardtest.Hang).URL, nil)
	if _, err := c.Do(r); Class(err) != Canceled {
		t.Errorf("a canceled request: %v", err)
	}
}
