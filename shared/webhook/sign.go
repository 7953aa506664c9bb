package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of every POST. Both schemes sign the raw bytes of the body.
const (
	HeaderEvent     = "X-Crewship-Event"
	HeaderDelivery  = "X-Crewship-Delivery"
	HeaderTimestamp = "X-Crewship-Timestamp"
	// HeaderSignature is "sha256=" and the hex HMAC of "<timestamp>.<body>"; the key is the secret as it is shown. While
	// two secrets are good it is made with the old one, and HeaderNext with the new one.
	HeaderSignature = "X-Crewship-Signature"
	HeaderNext      = "X-Crewship-Signature-Next"

	// The headers of Standard Webhooks. The signature is "v1," and the base64 HMAC of "<id>.<timestamp>.<body>"; the key is
	// what the secret's base64 part stands for. While two secrets are good there are two, the new one's first.
	HeaderStandardID        = "Webhook-Id"
	HeaderStandardTimestamp = "Webhook-Timestamp"
	HeaderStandardSignature = "Webhook-Signature"
)

// secretPrefix begins every signing secret.
const secretPrefix = "whsec_"

// Secrets are what a POST is signed with: the secret, and while another one is taking its place, the old one too.
type Secrets struct{ Current, Old string }

// Sign makes the headers that go with a body: event is what it is about, id that of the delivery, at the time of this
// attempt. It fails for a secret that is not "whsec_" and base64, and for an id with a dot, which would make the signed
// text ambiguous.
func Sign(by Secrets, event, id string, at time.Time, body []byte) (http.Header, error) {
	key, err := secretKey(by.Current)
	if err != nil {
		return nil, err
	}
	if id == "" || strings.Contains(id, ".") {
		return nil, fmt.Errorf("delivery id %q: must not be empty or hold a dot", id)
	}
	timestamp := strconv.FormatInt(at.Unix(), 10)
	h := http.Header{
		HeaderEvent:             {event},
		HeaderDelivery:          {id},
		HeaderTimestamp:         {timestamp},
		HeaderSignature:         {crewshipSignature(by.Current, timestamp, body)},
		HeaderStandardID:        {id},
		HeaderStandardTimestamp: {timestamp},
		HeaderStandardSignature: {standardSignature(key, id, timestamp, body)},
	}
	if by.Old != "" {
		old, err := secretKey(by.Old)
		if err != nil {
			return nil, err
		}
		h[HeaderNext] = h[HeaderSignature]
		h.Set(HeaderSignature, crewshipSignature(by.Old, timestamp, body))
		h.Set(HeaderStandardSignature, h.Get(HeaderStandardSignature)+" "+standardSignature(old, id, timestamp, body))
	}
	return h, nil
}

// tolerance is how far the timestamp of a POST may be from the receiver's clock.
const tolerance = 5 * time.Minute

// Verify tells why a received POST is not ours, nil if it is: both schemes have a signature of the secret, made within five
// minutes of now. The reason names no expected value.
func Verify(secret string, h http.Header, body []byte, now time.Time) error {
	id, timestamp := h.Get(HeaderStandardID), h.Get(HeaderStandardTimestamp)
	if id == "" || id != h.Get(HeaderDelivery) || timestamp == "" || timestamp != h.Get(HeaderTimestamp) {
		return errors.New("the delivery id or the timestamp is missing, or differs between the two schemes")
	}
	if err := VerifyStandard(secret, h, body, now); err != nil {
		return err
	}
	want := crewshipSignature(secret, timestamp, body)
	if !same(h.Get(HeaderSignature), want) && !same(h.Get(HeaderNext), want) {
		return fmt.Errorf("%s does not match", HeaderSignature)
	}
	return nil
}

// VerifyStandard tells why a POST of anybody does not keep to Standard Webhooks, nil if it does. The reason names no
// expected value.
func VerifyStandard(secret string, h http.Header, body []byte, now time.Time) error {
	key, err := secretKey(secret)
	if err != nil {
		return err
	}
	id, timestamp := h.Get(HeaderStandardID), h.Get(HeaderStandardTimestamp)
	if id == "" || timestamp == "" {
		return errors.New("the delivery id or the timestamp is missing")
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return errors.New("the timestamp is not a number of seconds")
	}
	if age := now.Sub(time.Unix(seconds, 0)); age.Abs() > tolerance {
		return errors.New("the timestamp is more than five minutes off")
	}
	want := standardSignature(key, id, timestamp, body)
	given := strings.Fields(h.Get(HeaderStandardSignature))
	for _, one := range given[:min(len(given), 10)] {
		if same(one, want) {
			return nil
		}
	}
	return fmt.Errorf("%s does not match", HeaderStandardSignature)
}

// IsSecret says whether a text can be a signing secret.
func IsSecret(secret string) bool {
	_, err := secretKey(secret)
	return err == nil
}

// secretKey gives what the base64 part of a secret stands for.
func secretKey(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, secretPrefix)
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(key) == 0 {
		return nil, fmt.Errorf("a signing secret must be %q and base64", secretPrefix)
	}
	return key, nil
}

func crewshipSignature(secret, timestamp string, body []byte) string {
	return "sha256=" + hex.EncodeToString(sum([]byte(secret), timestamp+".", body))
}

func standardSignature(key []byte, id, timestamp string, body []byte) string {
	return "v1," + base64.StdEncoding.EncodeToString(sum(key, id+"."+timestamp+".", body))
}

func sum(key []byte, prefix string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(prefix))
	mac.Write(body)
	return mac.Sum(nil)
}

func same(a, b string) bool { return hmac.Equal([]byte(a), []byte(b)) }
