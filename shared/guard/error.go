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

// The classes of failure. DNS, Connect and TLS name the phase that failed, running out of time in it included; Timeout is a
// deadline that passed on an open connection.
const (
	Invalid  = "invalid"   // the URL cannot be called at all
	Blocked  = "blocked"   // the address is off limits
	DNS      = "dns"       // no address for the name
	Connect  = "connect"   // no connection to the address
	TLS      = "tls"       // no trust, or no handshake
	Timeout  = "timeout"   // too slow
	Canceled = "canceled"  // we stopped it ourselves
	Reset    = "reset"     // the connection broke
	TooLarge = "too_large" // more header or body than allowed
	Protocol = "protocol"  // an answer that is not HTTP, and whatever else went wrong
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

func dnsMessage(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "There is no address for this host name."
	case errors.As(err, &dns) && dns.IsTimeout:
		return "The host name could not be resolved in time."
	}
	return "The host name could not be resolved."
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

func tlsMessage(err error) string {
	var (
		expired   x509.CertificateInvalidError
		host      x509.HostnameError
		authority x509.UnknownAuthorityError
		record    tls.RecordHeaderError
		timeout   net.Error
	)
	switch {
	case errors.As(err, &expired) && expired.Reason == x509.Expired:
		return "The receiver's certificate has expired or is not valid yet."
	case errors.As(err, &host):
		return "The receiver's certificate is for another host."
	case errors.As(err, &authority):
		return "The receiver's certificate is from an unknown authority."
	case errors.As(err, &record):
		return "The receiver does not speak TLS on this port."
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "The TLS handshake took too long."
	}
	return "The TLS handshake failed."
}
