package guardtest

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// Authority signs the certificates of receivers.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes an authority that nobody trusts yet.
func NewAuthority(t testing.TB) *Authority {
	a := &Authority{t: t}
	a.cert, a.key = a.sign(x509.Certificate{IsCA: true, BasicConstraintsValid: true}, nil)
	return a
}

// Roots is for whoever trusts the authority.
func (a *Authority) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Certificate says what is wrong with a certificate, and with how its owner speaks TLS. The zero value is in order.
type Certificate struct {
	// Template is what to sign. Without names it is for 127.0.0.1, without times it is valid now.
	Template x509.Certificate
	// SelfSigned leaves the authority out.
	SelfSigned bool
	// Chain is how many authorities stand between this one and the certificate.
	Chain int
	// Config is how TLS is spoken; nil is as usual.
	Config *tls.Config
}

// Receiver starts a receiver over TLS that has such a certificate.
func (a *Authority) Receiver(t testing.TB, c Certificate, b Behaviour) *Receiver {
	r, server := unstarted(b)
	config := &tls.Config{}
	if c.Config != nil {
		config = c.Config.Clone()
	}
	issuer, chain := a, [][]byte(nil)
	for range c.Chain {
		next := &Authority{t: t}
		next.cert, next.key = issuer.sign(x509.Certificate{IsCA: true, BasicConstraintsValid: true}, issuer)
		chain = append([][]byte{next.cert.Raw}, chain...)
		issuer = next
	}
	if c.SelfSigned {
		issuer = nil
	}
	cert, key := a.sign(c.Template, issuer)
	config.Certificates = []tls.Certificate{{Certificate: append([][]byte{cert.Raw}, chain...), PrivateKey: key}}
	server.TLS = config
	server.StartTLS()
	return r.started(t)
}

// sign makes a certificate, signed by itself where there is no issuer.
func (a *Authority) sign(template x509.Certificate, issuer *Authority) (*x509.Certificate, crypto.Signer) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(serial.Add(1))
	template.Subject = pkix.Name{CommonName: "guardtest " + template.SerialNumber.String()}
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	if template.IsCA {
		template.KeyUsage = x509.KeyUsageCertSign
	} else if template.DNSNames == nil && template.IPAddresses == nil {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	parent, by := &template, crypto.Signer(key)
	if issuer != nil {
		parent, by = issuer.cert, issuer.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, &template, parent, key.Public(), by)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

var serial atomic.Int64

// GoAway speaks HTTP/2 and answers with GOAWAY: each connection's first answered requests properly, and then it tells that
// it did not look at what came after. It gives host and port; requests counts what arrived.
func (a *Authority) GoAway(t testing.TB, answered int, requests *atomic.Int64) (address string) {
	cert, key := a.sign(x509.Certificate{}, a)
	config := &tls.Config{NextProtos: []string{"h2"}, Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
	return listen(t, func(c net.Conn) {
		defer c.Close()
		in := tls.Server(c, config)
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(in, preface); err != nil {
			return
		}
		frames := http2.NewFramer(in, bufio.NewReader(in))
		frames.WriteSettings()
		var last uint32
		for seen := 0; ; {
			f, err := frames.ReadFrame()
			if err != nil {
				return
			}
			if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
				frames.WriteSettingsAck()
			}
			if !ended(f) {
				continue
			}
			requests.Add(1)
			if seen++; seen > answered {
				frames.WriteGoAway(last, http2.ErrCodeNo, nil)
				return
			}
			last = f.Header().StreamID
			// The block is ":status: 200" in one byte: entry 8 of HPACK's static table.
			frames.WriteHeaders(http2.HeadersFrameParam{StreamID: last, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
		}
	})
}

// ended tells whether a request is whole with this frame.
func ended(f http2.Frame) bool {
	switch f := f.(type) {
	case *http2.HeadersFrame:
		return f.StreamEnded()
	case *http2.DataFrame:
		return f.StreamEnded()
	}
	return false
}
