// Package guard is the one HTTP client for everything that leaves Muster: webhooks, the requests of tools, and models at
// an address that a crew definition names.
//
// It promises that no URL reaches inside. The address is checked when the socket is dialed, after name resolution, so that
// neither a redirect (never followed), nor a second DNS answer, nor an odd spelling of 127.0.0.1 gets past it; names are
// resolved by Go itself and no proxy is asked. It promises that no receiver can hold or flood us: every phase has a
// deadline (connecting and the TLS handshake 5 s each, the response header 30 s, the whole what the context says), the
// response header is at most 64 KiB, and the body has a cap that counts what is on the wire because nothing is unpacked.
// And it promises that one call is one request: nothing that could have been seen by the receiver is sent again unasked.
//
// Ports are not restricted: receivers listen where they like, and what the port check is meant to protect is not reachable
// by address. Retrying, signing and the meaning of a status are left to the caller.
package guard

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	resolveTimeout   = 5 * time.Second
	connectTimeout   = 5 * time.Second
	handshakeTimeout = 5 * time.Second
	idleTimeout      = 20 * time.Second
	maxHeader        = 64 << 10
	idlePerHost      = 256
	// maxAddresses is how many addresses of one name are tried.
	maxAddresses = 8
)

// Options say what a Client may do. The zero Options are right for addresses that strangers give.
type Options struct {
	// AllowLoopback lets 127.0.0.0/8 and ::1 through: for one machine that talks to itself, never on AWS.
	AllowLoopback bool
	// Allow holds private prefixes that are reachable on purpose.
	Allow []netip.Prefix
	// AnyAddress skips the address check, and nothing else: for base URLs that the operator has set.
	AnyAddress bool
	// Roots are the certificate authorities to trust; nil means those of the system.
	Roots *x509.CertPool
	// HeaderTimeout is how long the receiver may think before its response header; 0 is 30 s.
	HeaderTimeout time.Duration
	// MaxBody is the longest response body in bytes: reading on fails with class TooLarge; 0 is 32 MiB.
	MaxBody int64
}

// Client sends requests. It is safe for concurrent use; make one and keep it, for it holds the connections.
type Client struct {
	options   Options
	transport *http.Transport
	client    *http.Client
	resolver  *net.Resolver
	tls       *tls.Config
	// resolving and handshaking are how long each may take; tests have less time.
	resolving, handshaking time.Duration
	// used is the wall clock of the last use, in nanoseconds.
	used atomic.Int64
}

// New makes a client.
func New(o Options) *Client {
	if o.HeaderTimeout == 0 {
		o.HeaderTimeout = 30 * time.Second
	}
	if o.MaxBody == 0 {
		o.MaxBody = 32 << 20
	}
	c := &Client{
		options:     o,
		resolver:    &net.Resolver{PreferGo: true},
		resolving:   resolveTimeout,
		handshaking: handshakeTimeout,
		tls: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			RootCAs:            o.Roots,
			NextProtos:         []string{"h2", "http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(256),
		},
	}
	c.transport = &http.Transport{
		DialContext:            c.dial,
		DialTLSContext:         c.dialTLS,
		ForceAttemptHTTP2:      true,
		MaxResponseHeaderBytes: maxHeader,
		ResponseHeaderTimeout:  o.HeaderTimeout,
		MaxIdleConns:           4 * idlePerHost,
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTimeout,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: idleTimeout, PingTimeout: connectTimeout},
	}
	c.client = &http.Client{
		Transport:     c,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// HTTP gives the client in the form that SDKs take. Its errors quote the whole URL; those of Do do not.
func (c *Client) HTTP() *http.Client { return c.client }

// Do sends one request and gives the response, whatever its status. The caller closes the body; ReadBody reads it within
// a limit. See Class and Message for the error.
func (c *Client) Do(r *http.Request) (*http.Response, error) { return c.RoundTrip(r) }

// RoundTrip implements http.RoundTripper.
func (c *Client) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := c.check(r.URL); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	c.forgetStale()
	sent := r.WithContext(r.Context())
	// The transport would send a request again on its own when a kept connection breaks, if it could get the body back.
	sent.GetBody = nil
	if sent.Header.Get("Accept-Encoding") == "" { // the transport would ask for gzip, and unpack it
		sent.Header = r.Header.Clone()
		sent.Header.Set("Accept-Encoding", "identity")
	}
	resp, err := c.transport.RoundTrip(sent)
	if err != nil {
		return nil, classify(err)
	}
	resp.Body = &cappedBody{body: resp.Body, left: c.options.MaxBody}
	return resp, nil
}

// CloseIdle closes the kept connections.
func (c *Client) CloseIdle() { c.transport.CloseIdleConnections() }

// forgetStale closes kept connections after a long pause by the wall clock. A sandbox that was frozen wakes up with
// connections that the other side gave up long ago, and the transport's own timers did not run.
func (c *Client) forgetStale() {
	now := time.Now().UnixNano()
	if last := c.used.Swap(now); last != 0 && now-last > int64(idleTimeout) {
		c.transport.CloseIdleConnections()
	}
}
