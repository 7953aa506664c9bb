package guard

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
)

// The classes of failure. Those of DNS, Connect and TLS name the phase that failed, running out of time in it included;
// Timeout is a deadline that passed on an open connection.
const (
	Invalid      = "invalid"       // the URL cannot be called at all
	Blocked      = "blocked"       // the address is off limits
	DNSUnknown   = "dns_unknown"   // there is no such name, or it has no address
	DNSTimeout   = "dns_timeout"   // no name server answered in time
	DNSFailed    = "dns_failed"    // the name servers answered with a failure, or nonsense
	Connect      = "connect"       // no connection to the address
	TLSExpired   = "tls_expired"   // the certificate is not valid any more, or not yet
	TLSHost      = "tls_host"      // the certificate is another host's
	TLSAuthority = "tls_authority" // nobody we trust has signed the certificate
	TLSVersion   = "tls_version"   // nothing newer than TLS 1.1
	TLSNone      = "tls_none"      // something else than TLS
	TLSTimeout   = "tls_timeout"   // the handshake was not over in time
	TLSFailed    = "tls_failed"    // any other end of the handshake: no shared cipher, a weak signature, an alert
	Timeout      = "timeout"       // too slow
	Canceled     = "canceled"      // we stopped it ourselves
	Reset        = "reset"         // the connection broke
	TooLarge     = "too_large"     // more header or body than allowed
	Protocol     = "protocol"      // an answer that is not HTTP, and whatever else went wrong
)

// failure is every error of this package: its text is a sentence that tells nothing about addresses or names inside.
type failure struct {
	class   string
	message string
	cause   error
}

func (f *failure) Error() string { return f.message }
func (f *failure) Unwrap() error { return f.cause }

// Timeout implements net.Error's notion, for SDKs that ask.
func (f *failure) Timeout() bool {
	return f.class == Timeout || errors.Is(f.cause, context.DeadlineExceeded)
}

var (
	errBlocked  = &failure{class: Blocked, message: "This address cannot be reached from here."}
	errTooLarge = &failure{class: TooLarge, message: "The response is too large."}
)

func failed(class, message string, cause error) error { return &failure{class, message, cause} }

func invalid(message string) error { return &failure{class: Invalid, message: message} }

// Class gives the class of an error that came from a request or from reading its body, "" for nil.
func Class(err error) string {
	if err == nil {
		return ""
	}
	return classify(err).class
}

// Message gives a sentence about the error that is safe to show and to log: no URL, address or secret is in it.
func Message(err error) string {
	if err == nil {
		return ""
	}
	return classify(err).message
}

// unexported are failures of net/http that can be told apart by their text only.
var unexported = []struct{ text, class string }{
	{"server response headers exceeded", TooLarge},
	{"response header list larger", TooLarge},
	{"server closed idle connection", Reset},
	{"GOAWAY", Reset},
	{"client connection lost", Reset},
	{"stream error", Reset},
	{"readLoopPeekFailLocked", Reset},
}

func classify(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	return &failure{classOf(err), sentences[classOf(err)], err}
}

func classOf(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return Timeout
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Reset
	}
	for _, u := range unexported {
		if strings.Contains(err.Error(), u.text) {
			return u.class
		}
	}
	return Protocol
}

var sentences = map[string]string{
	Timeout:  "The receiver did not answer in time.",
	Canceled: "The request was stopped before it was answered.",
	Reset:    "The connection was closed before the answer was complete.",
	TooLarge: errTooLarge.message,
	Protocol: "The answer is not valid HTTP.",
}

func dnsFailure(err error) error {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return failed(DNSUnknown, "There is no address for this host name.", err)
	case errors.As(err, &dns) && dns.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return failed(DNSTimeout, "The host name could not be resolved in time.", err)
	}
	return failed(DNSFailed, "The host name could not be resolved.", err)
}

func connectMessage(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "The connection was refused."
	case errors.As(err, &timeout) && timeout.Timeout():
		return "The connection could not be opened in time."
	}
	return "The connection could not be opened."
}

func tlsFailure(err error) error {
	var (
		certificate x509.CertificateInvalidError
		host        x509.HostnameError
		authority   x509.UnknownAuthorityError
		record      tls.RecordHeaderError
		timeout     net.Error
	)
	switch {
	case errors.As(err, &certificate) && certificate.Reason == x509.Expired:
		return failed(TLSExpired, "The receiver's certificate has expired or is not valid yet.", err)
	case errors.As(err, &host):
		return failed(TLSHost, "The receiver's certificate is for another host.", err)
	case errors.As(err, &authority):
		return failed(TLSAuthority, "The receiver's certificate is from an unknown authority.", err)
	case errors.As(err, &record):
		return failed(TLSNone, "The receiver does not speak TLS on this port.", err)
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return failed(TLSTimeout, "The TLS handshake took too long.", err)
	case strings.Contains(err.Error(), "protocol version"): // the alert, and our own refusal; neither has a type
		return failed(TLSVersion, "The receiver speaks no TLS that is safe: 1.2 is the least.", err)
	}
	return failed(TLSFailed, "The TLS handshake failed.", err)
}
