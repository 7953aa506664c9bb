package webhook

import (
	"net/textproto"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"muster/events"
	"muster/shared/fault"
)

const (
	maxEndpointName = 100
	maxEndpointURL  = 2048
	maxFilter       = 100
	maxHeaders      = 20
	maxHeaderName   = 100
	maxHeaderValue  = 4096
	maxRate         = 1000
)

// Formats are the formats of an endpoint's bodies.
var Formats = []string{Crewship, AMPStream, Slack, Discord}

// Check tells what no endpoint may have, as fault.Invalid. It knows nothing of addresses: that is for the client that will
// call the URL. Headers are checked by name only: their values are sealed, see CheckHeader.
func (e Endpoint) Check() error {
	if !readable(e.Name, maxEndpointName) {
		return fault.New(fault.Invalid, "\"name\" must have 1 to %d characters, all of them readable.", maxEndpointName)
	}
	if len(e.URL) > maxEndpointURL {
		return fault.New(fault.Invalid, "\"url\" must have at most %d characters.", maxEndpointURL)
	}
	if e.Environment != "production" && e.Environment != "staging" {
		return fault.New(fault.Invalid, "There is no environment %.80q; there are production and staging.", e.Environment)
	}
	if len(e.Events) == 0 || len(e.Events) > maxFilter {
		return fault.New(fault.Invalid, "\"events\" must name 1 to %d types; \"*\" is all.", maxFilter)
	}
	for _, typ := range e.Events {
		if _, err := events.CheckFilter(typ); err != nil {
			return fault.New(fault.Invalid, "In \"events\": %s.", err)
		}
	}
	if !slices.Contains(Formats, e.Format) {
		return fault.New(fault.Invalid, "There is no format %.80q; there are %s.", e.Format, strings.Join(Formats, ", "))
	}
	if e.MaxRPS < 0 || e.MaxRPS > maxRate {
		return fault.New(fault.Invalid, "\"max_rps\" must be a number from 1 to %d, or null for no bound.", maxRate)
	}
	if len(e.Headers) > maxHeaders {
		return fault.New(fault.Invalid, "There are at most %d headers.", maxHeaders)
	}
	return nil
}

// NameOf gives an endpoint that has no name that of its host, as much of it as a name may be long.
func NameOf(host string) string {
	name := []rune(host)
	return string(name[:min(len(name), maxEndpointName)])
}

func readable(s string, most int) bool {
	return strings.TrimSpace(s) != "" && utf8.ValidString(s) && utf8.RuneCountInString(s) <= most && !strings.ContainsFunc(s, unicode.IsControl)
}

// framing are the headers that say how a POST is put on the wire, or would make somebody on the way send it twice.
var framing = []string{
	"Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host", "Http2-Settings", "Idempotency-Key",
	"Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "X-Idempotency-Key",
}

// ours begin the names of the headers that carry signatures, or are for proxies.
var ours = []string{"X-Crewship-", "Webhook-", "Proxy-"}

// CheckHeader tells why a header cannot go with a POST, as fault.Invalid, and gives its name in the usual spelling. The
// value is never repeated.
func CheckHeader(name, value string) (canonical string, err error) {
	if name == "" || len(name) > maxHeaderName || strings.ContainsFunc(name, func(r rune) bool { return !tokenRune(r) }) {
		return "", fault.New(fault.Invalid, "%.120q is no name of a header.", name)
	}
	canonical = textproto.CanonicalMIMEHeaderKey(name)
	// To many a receiver, CGI and WSGI among them, "_" and "-" are the same.
	same := textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(name, "_", "-"))
	if slices.Contains(framing, same) {
		return "", fault.New(fault.Invalid, "The header %s is set by Muster and cannot be given.", same)
	}
	for _, prefix := range ours {
		if strings.HasPrefix(same, prefix) {
			return "", fault.New(fault.Invalid, "Headers that begin with %s are set by Muster and cannot be given.", prefix)
		}
	}
	bad := func(r rune) bool { return r < ' ' && r != '\t' || r > '~' }
	if len(value) > maxHeaderValue || strings.ContainsFunc(value, bad) || strings.TrimSpace(value) != value {
		return "", fault.New(fault.Invalid, "The value of the header %s must have at most %d characters of ASCII, no line ends, and no blanks around it.", canonical, maxHeaderValue)
	}
	return canonical, nil
}

// tokenRune tells the characters that RFC 9110 allows in the name of a header.
func tokenRune(r rune) bool {
	return r > ' ' && r < 0x7f && !strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r)
}
