package trigger

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/webhook"
	"muster/shared/workspace"
)

// Scheme is how a sender proves that a request is its own.
type Scheme string

// The schemes. Where one has a timestamp, it may be five minutes off.
const (
	None     Scheme = "none"         // by the token in the URL alone
	GitHub   Scheme = "github"       // X-Hub-Signature-256
	GitLab   Scheme = "gitlab"       // webhook-signature, or the secret itself in X-Gitlab-Token
	Slack    Scheme = "slack"        // X-Slack-Signature over X-Slack-Request-Timestamp and the body
	Stripe   Scheme = "stripe"       // Stripe-Signature: t=…,v1=…
	Standard Scheme = "standard"     // Standard Webhooks
	Grafana  Scheme = "grafana"      // X-Grafana-Alerting-Signature, with the timestamp of another header or without
	HMAC     Scheme = "generic-hmac" // an HMAC-SHA256 of the body in a header of one's choice
	Basic    Scheme = "basic"        // user and password
)

// Schemes lists them all.
var Schemes = []Scheme{None, GitHub, GitLab, Slack, Stripe, Standard, Grafana, HMAC, Basic}

// Sender is whose requests a trigger takes.
type Sender struct {
	Scheme Scheme `json:"scheme"`
	// Header holds the signature of HMAC, after Prefix, in Encoding ("hex" or "base64").
	Header   string `json:"header,omitempty"`
	Prefix   string `json:"prefix,omitempty"`
	Encoding string `json:"encoding,omitempty"`
	// TimestampHeader is where a Grafana that was told so puts the time that it signs; "" signs the body alone.
	TimestampHeader string `json:"timestamp_header,omitempty"`
}

// tolerance is how far the timestamp of a request may be from our clock.
const tolerance = 5 * time.Minute

var headerName = regexp.MustCompile(`^[A-Za-z0-9-]{1,100}$`)

// check refuses a sender that cannot be, and fills in what is usual.
func (s *Sender) check() error {
	if s.Scheme == "" {
		s.Scheme = None
	}
	if !slices.Contains(Schemes, s.Scheme) {
		return fault.New(fault.Invalid, "There is no sender %q; there are %v.", s.Scheme, Schemes)
	}
	if s.Scheme == HMAC {
		if s.Header == "" {
			s.Header = "X-Signature"
		}
		if s.Encoding == "" {
			s.Encoding = "hex"
		}
	} else if s.Header+s.Prefix+s.Encoding != "" {
		return fault.New(fault.Invalid, "The header, prefix and encoding of a signature are for the sender %q only.", HMAC)
	}
	if s.TimestampHeader != "" && s.Scheme != Grafana {
		return fault.New(fault.Invalid, "A timestamp's header is for the sender %q only.", Grafana)
	}
	for _, name := range []string{s.Header, s.TimestampHeader} {
		if name != "" && !headerName.MatchString(name) {
			return fault.New(fault.Invalid, "%q is not the name of a header.", name)
		}
	}
	if s.Encoding != "" && s.Encoding != "hex" && s.Encoding != "base64" {
		return fault.New(fault.Invalid, "A signature's encoding is \"hex\" or \"base64\".")
	}
	return nil
}

// newSecret makes a secret for a sender that needs one: "" for one that needs none, or whose secret only a person can know.
func (s Sender) newSecret() string {
	if s.Scheme == None || s.Scheme == "" {
		return ""
	}
	if s.Scheme == Basic {
		return "muster:" + workspace.NewToken("")
	}
	return workspace.NewSecret()
}

// The bounds of a secret that somebody else made.
const minSecret, maxSecret = 8, 1024

func (s Sender) checkSecret(secret string) error {
	if s.Scheme == None || s.Scheme == "" {
		return fault.New(fault.Invalid, "A secret needs a sender that uses it; the sender is %q.", None)
	}
	if len(secret) < minSecret || len(secret) > maxSecret {
		return fault.New(fault.Invalid, "\"secret\" must have %d to %d characters.", minSecret, maxSecret)
	}
	if s.Scheme == Basic && !strings.Contains(secret, ":") {
		return fault.New(fault.Invalid, "The \"secret\" of the sender %q is user:password.", Basic)
	}
	if s.Scheme == Standard && !webhook.IsSecret(secret) {
		return fault.New(fault.Invalid, "The \"secret\" of the sender %q is whsec_ and base64.", Standard)
	}
	return nil
}

// refused is why a request is not its sender's, in words that name no expected value.
func refused(format string, args ...any) error { return fault.New(fault.Unauthorized, format, args...) }

// Verify tells why a request is not of the sender, as fault.Unauthorized; nil if it is. signature is what signed it, "" for
// a scheme that signs nothing.
func (s Sender) Verify(secret string, h http.Header, body []byte, now time.Time) (signature string, err error) {
	switch s.Scheme {
	case None, "":
		return "", nil
	case GitHub:
		return signed(h, "X-Hub-Signature-256", "sha256=", "hex", secret, "", body)
	case GitLab:
		if h.Get(webhook.HeaderStandardSignature) != "" {
			return s.verifyStandard(secret, h, body, now)
		}
		return "", equal(h.Get("X-Gitlab-Token"), secret, "X-Gitlab-Token")
	case Slack:
		at := h.Get("X-Slack-Request-Timestamp")
		if err := fresh(at, "X-Slack-Request-Timestamp", now); err != nil {
			return "", err
		}
		return signed(h, "X-Slack-Signature", "v0=", "hex", secret, "v0:"+at+":", body)
	case Stripe:
		return verifyStripe(secret, h.Get("Stripe-Signature"), body, now)
	case Standard:
		return s.verifyStandard(secret, h, body, now)
	case Grafana:
		before := ""
		if s.TimestampHeader != "" {
			at := h.Get(s.TimestampHeader)
			if err := fresh(at, s.TimestampHeader, now); err != nil {
				return "", err
			}
			before = at + ":"
		}
		return signed(h, "X-Grafana-Alerting-Signature", "", "hex", secret, before, body)
	case HMAC:
		return signed(h, s.Header, s.Prefix, s.Encoding, secret, "", body)
	case Basic:
		user, password, ok := (&http.Request{Header: h}).BasicAuth()
		if !ok {
			return "", refused("The request has no user and password.")
		}
		return "", equal(user+":"+password, secret, "Authorization")
	}
	return "", refused("The sender of this webhook is not known.")
}

// signed checks the HMAC of before and body in one header.
func signed(h http.Header, header, prefix, encoding, secret, before string, body []byte) (signature string, err error) {
	given := h.Get(header)
	if given == "" {
		return "", refused("The header %s is missing.", header)
	}
	text, ok := strings.CutPrefix(given, prefix)
	if !ok {
		return "", refused("The header %s does not begin with %q.", header, prefix)
	}
	if !hmac.Equal([]byte(text), []byte(encoded(sum(secret, before, body), encoding))) {
		return "", refused("The header %s does not match.", header)
	}
	return given, nil
}

func sum(secret, before string, body []byte) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(before))
	mac.Write(body)
	return mac.Sum(nil)
}

func encoded(b []byte, encoding string) string {
	if encoding == "base64" {
		return base64.StdEncoding.EncodeToString(b)
	}
	return hex.EncodeToString(b)
}

// equal compares secrets of any length in the same time.
func equal(given, want, header string) error {
	if given == "" {
		return refused("The header %s is missing.", header)
	}
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	if !hmac.Equal(a[:], b[:]) {
		return refused("The header %s does not match.", header)
	}
	return nil
}

// fresh refuses a time in seconds that is too far from now.
func fresh(at, where string, now time.Time) error {
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return refused("The timestamp in %s is missing, or not a number of seconds.", where)
	}
	if age := now.Sub(time.Unix(seconds, 0)); age.Abs() > tolerance {
		return refused("The timestamp in %s is more than five minutes off.", where)
	}
	return nil
}

func (s Sender) verifyStandard(secret string, h http.Header, body []byte, now time.Time) (string, error) {
	if err := webhook.VerifyStandard(secret, h, body, now); err != nil {
		return "", refused("The signature does not hold: %s.", err)
	}
	return h.Get(webhook.HeaderStandardSignature), nil
}

// verifyStripe checks a header with one time and some signatures of the scheme v1, one of which must hold.
func verifyStripe(secret, header string, body []byte, now time.Time) (string, error) {
	if header == "" {
		return "", refused("The header Stripe-Signature is missing.")
	}
	at, given := "", []string{}
	for part := range strings.SplitSeq(header, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "t":
			at = value
		case "v1":
			given = append(given, value)
		}
	}
	if err := fresh(at, "Stripe-Signature", now); err != nil {
		return "", err
	}
	want := encoded(sum(secret, at+".", body), "hex")
	for _, one := range given[:min(len(given), 10)] {
		if hmac.Equal([]byte(one), []byte(want)) {
			return header, nil
		}
	}
	return "", refused("The header Stripe-Signature does not match.")
}

// deliveryID is the sender's own id of what it sends, the same when it sends it again; "" when it has none. signed says that
// the signature covers it: it is in the body, or Standard Webhooks' own.
func (s Sender) deliveryID(h http.Header, body any) (found string, signed bool) {
	fields, _ := body.(map[string]any)
	inBody := map[Scheme][]string{Slack: {"event_id", "trigger_id"}, Stripe: {"id"}}
	for _, field := range inBody[s.Scheme] {
		if found, _ := fields[field].(string); found != "" {
			return found, true
		}
	}
	if s.Scheme == Standard || s.Scheme == GitLab && h.Get(webhook.HeaderStandardSignature) != "" {
		return h.Get(webhook.HeaderStandardID), true
	}
	for _, header := range []string{"X-Github-Delivery", webhook.HeaderStandardID, webhook.HeaderDelivery} {
		if found = h.Get(header); found != "" {
			return found, false
		}
	}
	return "", false
}

// setsKeys says whether an Idempotency-Key is the sender's own word, because a person has written what is sent. The services that
// have a Scheme of their own send none beside what they sign.
func (s Sender) setsKeys() bool { return s.Scheme == None || s.Scheme == "" || s.Scheme == HMAC }

// greet answers what a sender asks to learn whether somebody is there; ok is false for anything else.
func (s Sender) greet(h http.Header, body any) (reply any, ok bool) {
	fields, _ := body.(map[string]any)
	switch {
	case s.Scheme == Slack && fields["type"] == "url_verification":
		challenge, _ := fields["challenge"].(string)
		return map[string]string{"challenge": challenge}, true
	case h.Get("X-Github-Event") == "ping":
		return map[string]string{"status": "ok"}, true
	}
	return nil, false
}

// patience is how long a sender can be kept waiting that gives up early and sends nothing again, or takes a late answer for
// none; 0 for the others.
func (s Sender) patience() time.Duration {
	switch s.Scheme {
	case Slack: // gives up after 3 s
		return 2 * time.Second
	case GitHub, GitLab: // after 10 s
		return 8 * time.Second
	}
	return 0
}

// takesForms says whether the sender may send a form instead of JSON.
func (s Sender) takesForms() bool { return s.Scheme == Slack || s.Scheme == GitHub }
