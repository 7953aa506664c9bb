package guard

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/shared/guard/guardtest"
)

func TestTLSThatIsNotSafeIsRefusedWithAClassOfItsOwn(t *testing.T) {
	trusted, stranger := guardtest.NewAuthority(t), guardtest.NewAuthority(t)
	fine := guardtest.Say(200, "fine")
	valid := func(from, to time.Duration) x509.Certificate {
		return x509.Certificate{NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to)}
	}
	serve := func(c guardtest.Certificate) string { return trusted.Receiver(t, c, fine).URL }
	var seen string
	var mu sync.Mutex
	named := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		if seen = hello.ServerName; seen == "" {
			return nil, fmt.Errorf("no name")
		}
		return nil, nil
	}}
	shy := strings.Replace(trusted.Receiver(t, guardtest.Certificate{Template: x509.Certificate{DNSNames: []string{"shy.example"}}, Config: named}, fine).URL, "127.0.0.1", "shy.example", 1)
	for _, c := range []struct {
		name, url, class string
	}{
		{"a certificate in order", serve(guardtest.Certificate{}), ""},
		{"five authorities in between", serve(guardtest.Certificate{Chain: 5}), ""},
		{"a receiver that wants to know the name", shy, ""},
		{"a certificate of yesterday", serve(guardtest.Certificate{Template: valid(-48*time.Hour, -24*time.Hour)}), TLSExpired},
		{"a certificate of tomorrow", serve(guardtest.Certificate{Template: valid(24*time.Hour, 48*time.Hour)}), TLSExpired},
		{"a certificate of another host", serve(guardtest.Certificate{Template: x509.Certificate{DNSNames: []string{"other.example"}}}), TLSHost},
		{"a certificate of another address", serve(guardtest.Certificate{Template: x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 2)}}}), TLSHost},
		{"a certificate without names", serve(guardtest.Certificate{Template: x509.Certificate{DNSNames: []string{}}}), TLSHost},
		{"a certificate that signs itself", serve(guardtest.Certificate{SelfSigned: true}), TLSAuthority},
		{"an authority that nobody knows", stranger.Receiver(t, guardtest.Certificate{}, fine).URL, TLSAuthority},
		{"a hundred authorities in between that lead nowhere", stranger.Receiver(t, guardtest.Certificate{Chain: 100}, fine).URL, TLSAuthority},
		{"a certificate for clients only", serve(guardtest.Certificate{Template: x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}}), TLSFailed},
		{"a signature with SHA-1", serve(guardtest.Certificate{Template: x509.Certificate{SignatureAlgorithm: x509.ECDSAWithSHA1}}), TLSAuthority},
		{"TLS 1.1", serve(guardtest.Certificate{Config: &tls.Config{MaxVersion: tls.VersionTLS11}}), TLSVersion},
		{"TLS 1.0", serve(guardtest.Certificate{Config: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}}), TLSVersion},
		{"no cipher that both have", serve(guardtest.Certificate{Config: &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA}}}), TLSFailed},
		{"a receiver that wants our certificate", serve(guardtest.Certificate{Config: &tls.Config{MaxVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert}}), TLSFailed},
		{"silence after our hello", "https://" + guardtest.Deaf(t), TLSTimeout},
		{"plain HTTP", "https" + strings.TrimPrefix(guardtest.New(t, fine).URL, "http"), TLSNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := New(Options{AllowLoopback: true, Roots: trusted.Roots()})
			defer client.CloseIdle()
			client.resolver = guardtest.Names{"shy.example.": {"127.0.0.1"}}.Resolver(t)
			if c.class == TLSTimeout {
				client.handshaking = 50 * time.Millisecond
			}
			_, body, _, err := get(t, client, c.url, 10)
			if Class(err) != c.class || c.class == "" && body != "fine" {
				t.Errorf("class %q (%v, body %q), want %q", Class(err), err, body, c.class)
			}
		})
	}
	if seen != "shy.example" {
		t.Errorf("the receiver was asked for %q", seen)
	}
}

func TestARedirectIsNeverFollowed(t *testing.T) {
	elsewhere := guardtest.New(t, guardtest.Say(200, "taken"))
	for _, code := range []int{301, 302, 303, 307, 308} {
		for _, place := range []string{"", "/", "/again", elsewhere.URL, "//" + strings.TrimPrefix(elsewhere.URL, "http://"), "http://169.254.169.254/", "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next", "file:///etc/passwd", "://"} {
			headers := []string{"Location", place}
			if place == "" {
				headers = nil
			}
			r := guardtest.New(t, guardtest.Status(code, headers...))
			status, _, _, err := get(t, New(Options{AllowLoopback: true}), r.URL, 10)
			if status != code || err != nil || len(r.Got()) != 1 {
				t.Errorf("%d to %q: status %d, %v, %d requests; want the redirect itself", code, place, status, err, len(r.Got()))
			}
		}
	}
	if n := len(elsewhere.Got()); n != 0 {
		t.Errorf("%d requests were sent where a redirect pointed", n)
	}
}

func TestNoSpellingOfAnAddressReachesInside(t *testing.T) {
	r := guardtest.New(t, guardtest.Say(200, "inside"))
	port := r.URL[strings.LastIndexByte(r.URL, ':'):]
	c := New(Options{})
	c.resolver = guardtest.Names{"127.1.": {"127.0.0.1"}, "0x7f000001.": {"127.0.0.1"}, "inside.example.": {"127.0.0.1"}}.Resolver(t)
	for _, host := range []string{
		"127.0.0.1", "127.1", "2130706433", "0x7f000001", "0X7F.1", "0177.0.0.1", "0", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
		"[::ffff:0:7f00:1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]", "[::5efe:7f00:1]", "[fe80::5efe:7f00:1]",
		"[fe80::1%25lo]", "[fec0::1]", "[fd00:ec2::254]", "[100::1]", "[5f00::1]", "[3fff::1]", "[ff02::1]", "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460", "\uff11\uff12\uff17.0.0.1",
		"127\u30020\u30020\u30021", "127.0.0.1.", "localhost", "LOCALHOST.", "a.localhost", "inside.example", "169.254.169.254", "169.254.170.2", "168.63.129.16", "10.0.0.1", "100.100.100.200", "255.255.255.255",
	} {
		u := "http://" + host + port + "/"
		resp, err := c.Do(&http.Request{Method: "POST", URL: mustParse(t, u), Header: http.Header{}})
		if err == nil {
			resp.Body.Close()
		}
		if Class(err) != Blocked || err.Error() != errBlocked.message {
			t.Errorf("%s: class %q, %v; want the one answer for what is blocked", host, Class(err), err)
		}
	}
	if n := len(r.Got()); n != 0 {
		t.Errorf("%d requests arrived inside", n)
	}
}

func TestANameThatChangesItsAddressIsCheckedEachTime(t *testing.T) {
	r := guardtest.New(t, guardtest.Say(200, "inside"))
	port := r.URL[strings.LastIndexByte(r.URL, ':'):]
	public, inside := guardtest.Names{"moves.example.": {"8.8.8.8"}}, guardtest.Names{"moves.example.": {"127.0.0.1"}}
	c := New(Options{})
	c.resolver = public.InTurn(t, inside)
	addrs, err := c.resolve(t.Context(), "moves.example")
	if err != nil || len(addrs) != 1 || addrs[0] != netip.MustParseAddr("8.8.8.8") {
		t.Fatalf("the first time: %v, %v", addrs, err)
	}
	if _, _, _, err := get(t, c, "http://moves.example"+port, 10); Class(err) != Blocked {
		t.Errorf("the second time: class %q, %v", Class(err), err)
	}
	if n := len(r.Got()); n != 0 {
		t.Errorf("%d requests arrived inside", n)
	}
}

func TestOfMixedAddressesOnlyPublicOnesAreDialed(t *testing.T) {
	c := New(Options{})
	c.resolver = guardtest.Names{"mixed.example.": {"10.0.0.1", "8.8.8.8", "127.0.0.1", "fd00::1", "2606:4700::1111", "64:ff9b::7f00:1"}}.Resolver(t)
	got, err := c.resolve(t.Context(), "mixed.example")
	want := map[netip.Addr]bool{netip.MustParseAddr("8.8.8.8"): true, netip.MustParseAddr("2606:4700::1111"): true}
	if err != nil || len(got) != len(want) {
		t.Errorf("resolved to %v, %v", got, err)
	}
	for _, a := range got {
		if !want[a.Unmap()] {
			t.Errorf("%s would be dialed", a)
		}
	}
}

func TestANameWithAThousandAddressesIsTriedAFewTimes(t *testing.T) {
	r := guardtest.New(t, guardtest.Say(200, "fine"))
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("127.%d.%d.1", i/250, i%250))
	}
	c := New(Options{AllowLoopback: true})
	c.resolver = guardtest.Names{"many.example.": many, "six.example.": {"::1"}}.Resolver(t)
	got, err := c.resolve(t.Context(), "many.example")
	if err != nil || len(got) != maxAddresses {
		t.Errorf("%d addresses would be tried (%v), want %d", len(got), err, maxAddresses)
	}
	if _, body, _, err := get(t, c, "http://many.example"+r.URL[strings.LastIndexByte(r.URL, ':'):], 10); err == nil && body != "fine" || err != nil && Class(err) != Connect {
		t.Errorf("%q, %v", body, err)
	}
	if got, err := c.resolve(t.Context(), "six.example"); err != nil || len(got) != 1 || got[0] != netip.IPv6Loopback() {
		t.Errorf("a name with an IPv6 address only: %v, %v", got, err)
	}
}

func TestAConnectionThatGoesAwayIsNotAskedTwice(t *testing.T) {
	authority := guardtest.NewAuthority(t)
	var requests atomic.Int64
	url := "https://" + authority.GoAway(t, 1, &requests)
	c := New(Options{AllowLoopback: true, Roots: authority.Roots()})
	defer c.CloseIdle()
	var classes []string
	for range 2 {
		_, _, _, err := get(t, c, url, 10)
		classes = append(classes, Class(err))
	}
	if requests.Load() != 2 || classes[0] != "" || classes[1] != Reset {
		t.Errorf("2 calls made %d requests and ended %q, want 2 and one reset", requests.Load(), classes)
	}
}

func TestEarlyHintsAreNoAnswer(t *testing.T) {
	fine := guardtest.Say(200, "fine")
	if status, body, _, err := get(t, New(Options{AllowLoopback: true}), guardtest.New(t, guardtest.Hints(3, fine)).URL, 10); status != 200 || body != "fine" || err != nil {
		t.Errorf("three hints: %d, %q, %v", status, body, err)
	}
	if _, _, _, err := get(t, New(Options{AllowLoopback: true}), guardtest.New(t, guardtest.Hints(10_000, fine)).URL, 10); err == nil {
		t.Errorf("ten thousand hints were taken")
	}
	unasked := guardtest.New(t, guardtest.Raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"))
	if status, _, _, err := get(t, New(Options{AllowLoopback: true}), unasked.URL, 10); status != 204 || err != nil {
		t.Errorf("a 100 that nobody asked for: %d, %v", status, err)
	}
}

func TestAnswersThatAreHardlyHTTP(t *testing.T) {
	for _, c := range []struct{ name, answer, class string }{
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", Protocol},
		{"a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", Protocol},
		{"a status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", Protocol},
		{"a status that is a word", "HTTP/1.1 OK\r\n\r\n", Protocol},
		{"a header without a colon", "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", Protocol},
		{"a chunk of no size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Protocol},
		{"a chunk as large as the world", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", Protocol},
		{"half a header", "HTTP/1.1 200 OK\r\nContent-Le", Protocol},
		{"HTTP/2 where nobody asked for it", "\x00\x00\x00\x04\x00\x00\x00\x00\x00", Protocol},
		{"zeros", strings.Repeat("\x00", 100<<10), TooLarge},
	} {
		_, _, _, err := get(t, New(Options{AllowLoopback: true}), guardtest.New(t, guardtest.Raw(c.answer)).URL, 10)
		if class := Class(err); class != c.class {
			t.Errorf("%s: class %q (%v), want %q", c.name, class, err, c.class)
		}
	}
}

func TestNoProxyIsAsked(t *testing.T) {
	proxy := guardtest.New(t, guardtest.Say(200, "by proxy"))
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	r := guardtest.New(t, guardtest.Say(200, "fine"))
	if _, body, _, err := get(t, New(Options{AllowLoopback: true}), r.URL, 10); body != "fine" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	if n := len(proxy.Got()); n != 0 {
		t.Errorf("a proxy was asked %d times", n)
	}
	if c := New(Options{}); c.transport.Proxy != nil || !c.resolver.PreferGo {
		t.Errorf("the client would ask a proxy, or the system for names")
	}
}

func TestAnEndlessBodyCostsWhatTheCapSays(t *testing.T) {
	var sent atomic.Int64
	r := guardtest.New(t, guardtest.Endless(&sent))
	c := New(Options{AllowLoopback: true})
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		req, _ := http.NewRequestWithContext(ctx, "POST", r.URL, strings.NewReader("hello"))
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		counted := &counting{ReadCloser: resp.Body}
		data, truncated, err := ReadBody(counted, 16<<10)
		resp.Body.Close()
		cancel()
		if len(data) != 16<<10 || !truncated || err != nil || counted.n > 16<<10+1 {
			t.Errorf("read %d bytes for %d, truncated %t, %v", counted.n, len(data), truncated, err)
		}
	}
	if n := r.Connections(); n != 2 {
		t.Errorf("2 requests came over %d connections; one that still sends is not to be used again", n)
	}
}

func TestAReceiverThatTakesNothingIsGivenUp(t *testing.T) {
	c := New(Options{AllowLoopback: true})
	url := "http://" + guardtest.Deaf(t)
	for _, size := range []int{10, 32 << 20} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		r, _ := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(strings.Repeat("x", size)))
		if _, err := c.Do(r); Class(err) != Timeout {
			t.Errorf("%d bytes: class %q, %v", size, Class(err), err)
		}
		cancel()
	}
}

type counting struct {
	io.ReadCloser
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n += n
	return n, err
}

func mustParse(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
