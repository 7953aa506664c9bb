package agentwire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

const secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

func hexHMAC(key, text string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

func TestVerify(t *testing.T) {
	const body = `{"event":"e"}`
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	at := func(late time.Duration) string { return strconv.FormatInt(now.Add(late).Unix(), 10) }
	good := hexHMAC(secret, body)
	for _, c := range []struct {
		name    string
		headers []string // name, value, name, value, …
		now     time.Time
		want    verdict
	}{
		{"the signature of the body", []string{"X-Signature", good}, now, accepted},
		{"the secret itself", []string{"X-Webhook-Secret", secret}, now, accepted},
		{"the secret, a second before its sunset", []string{"X-Webhook-Secret", secret}, sunset.Add(-time.Second), accepted},
		{"the secret, from its sunset on", []string{"X-Webhook-Secret", secret}, sunset, old},
		{"a wrong secret, from the sunset on", []string{"X-Webhook-Secret", "x"}, sunset, old},
		{"the signature, after the sunset of the secret", []string{"X-Signature", good}, sunset, accepted},
		{"neither", nil, now, refused},
		{"a bearer token only", []string{"Authorization", "Bearer " + secret}, now, refused},
		{"another body's signature", []string{"X-Signature", hexHMAC(secret, body+" ")}, now, refused},
		{"another secret's signature", []string{"X-Signature", hexHMAC("other", body)}, now, refused},
		{"a prefix", []string{"X-Signature", "sha256=" + good}, now, refused},
		{"upper case", []string{"X-Signature", strings.ToUpper(good)}, now, refused},
		{"a space after it", []string{"X-Signature", good + " "}, now, refused},
		{"half of it", []string{"X-Signature", good[:32]}, now, refused},
		{"an empty signature", []string{"X-Signature", ""}, now, refused},
		{"two signatures, one of them good", []string{"X-Signature", good, "X-Signature", "x"}, now, refused},
		{"both, and the signature is good", []string{"X-Signature", good, "X-Webhook-Secret", "wrong"}, now, accepted},
		{"both, and only the secret is good", []string{"X-Signature", "wrong", "X-Webhook-Secret", secret}, now, refused},
		{"an empty signature and a good secret", []string{"X-Signature", "", "X-Webhook-Secret", secret}, now, refused},
		{"two secrets", []string{"X-Webhook-Secret", secret, "X-Webhook-Secret", secret}, now, refused},
		{"a timestamp, signed", []string{"X-Signature", hexHMAC(secret, at(0)+"."+body), "X-Timestamp", at(0)}, now, accepted},
		{"a timestamp at the edge", []string{"X-Signature", hexHMAC(secret, at(-tolerance)+"."+body), "X-Timestamp", at(-tolerance)}, now, accepted},
		{"a timestamp that is not signed", []string{"X-Signature", good, "X-Timestamp", at(0)}, now, refused},
		{"a timestamp of long ago", []string{"X-Signature", hexHMAC(secret, at(-6*time.Minute)+"."+body), "X-Timestamp", at(-6 * time.Minute)}, now, stale},
		{"a timestamp of the future", []string{"X-Signature", hexHMAC(secret, at(6*time.Minute)+"."+body), "X-Timestamp", at(6 * time.Minute)}, now, stale},
		{"a timestamp that is none", []string{"X-Signature", good, "X-Timestamp", "now"}, now, stale},
		{"two timestamps", []string{"X-Signature", good, "X-Timestamp", at(0), "X-Timestamp", at(0)}, now, stale},
		{"a timestamp beside the secret says nothing", []string{"X-Webhook-Secret", secret, "X-Timestamp", "now"}, now, accepted},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := http.Header{}
			for i := 0; i < len(c.headers); i += 2 {
				h.Add(c.headers[i], c.headers[i+1])
			}
			if got := verify(h, []byte(body), secret, c.now); got != c.want {
				t.Errorf("verdict %d", got)
			}
		})
	}
}

func TestTheEndOfTheOldHeaderIsAnnounced(t *testing.T) {
	h := http.Header{}
	announce(h)
	if h.Get("Deprecation") != "@1767225600" || h.Get("Sunset") != "Thu, 31 Dec 2026 23:59:59 GMT" {
		t.Errorf("%v", h)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(hexHMAC(secret, ""), "", secret, "")
	f.Fuzz(func(t *testing.T, signature, timestamp, plain, body string) {
		h := http.Header{"X-Signature": {signature}, "X-Webhook-Secret": {plain}}
		raw := []byte(body)
		if timestamp != "" {
			h.Set("X-Timestamp", timestamp)
			body = timestamp + "." + body
		}
		now := time.Unix(1_800_000_000, 0)
		if verify(h, raw, secret, now) == accepted && signature != hexHMAC(secret, body) {
			t.Errorf("accepted %q over %q", signature, body)
		}
	})
}
