package agentwire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"
)

// The headers with which a caller of a trigger proves itself.
const (
	headerSignature = "X-Signature"
	headerTimestamp = "X-Timestamp"
	headerSecret    = "X-Webhook-Secret"
)

// sunset is when X-Webhook-Secret stops working; Crewship announced the end of 2026.
var sunset = time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC)

// tolerance is how far X-Timestamp may be from our clock.
const tolerance = 5 * time.Minute

// verdict is what the headers of a trigger are worth.
type verdict int

const (
	refused verdict = iota
	accepted
	// stale: X-Timestamp is no time within the last, or next, five minutes.
	stale
	// old: X-Webhook-Secret was sent, and its time is over.
	old
)

// verify judges a request with this body by the agent's secret. It takes the same time for every secret and signature, so
// for an agent that does not exist it is called with a secret that nobody knows.
//
// X-Signature is the hex HMAC-SHA256 of the body, in lower case and without a prefix, of "<X-Timestamp>.<body>" when that
// header is there. X-Webhook-Secret counts only without an X-Signature; announce puts its end into the answer.
func verify(h http.Header, body []byte, secret string, now time.Time) verdict {
	signatures, secrets := h.Values(headerSignature), h.Values(headerSecret)
	mac := hmac.New(sha256.New, []byte(secret))
	if timestamps := h.Values(headerTimestamp); len(signatures) > 0 && len(timestamps) > 0 {
		seconds, err := strconv.ParseInt(timestamps[0], 10, 64)
		if err != nil || len(timestamps) > 1 || now.Sub(time.Unix(seconds, 0)).Abs() > tolerance {
			return stale
		}
		mac.Write([]byte(timestamps[0] + "."))
	}
	mac.Write(body)
	expected := hex.EncodeToString(mac.Sum(nil))
	switch {
	case len(signatures) == 1:
		return judge(signatures[0], expected)
	case len(signatures) > 1 || len(secrets) != 1:
		return refused
	case !now.Before(sunset):
		return old
	}
	given, known := sha256.Sum256([]byte(secrets[0])), sha256.Sum256([]byte(secret))
	return judge(string(given[:]), string(known[:]))
}

// refusal gives the answer to a request that was not accepted.
func (v verdict) refusal() error {
	switch v {
	case accepted:
		return nil
	case stale:
		return errStale
	case old:
		return errOld
	}
	return errRefused
}

func judge(given, expected string) verdict {
	if hmac.Equal([]byte(given), []byte(expected)) {
		return accepted
	}
	return refused
}

// announce says in an answer that X-Webhook-Secret ends: RFC 9745 and RFC 8594.
func announce(h http.Header) {
	h.Set("Deprecation", "@1767225600")
	h.Set("Sunset", sunset.Format(http.TimeFormat))
}
