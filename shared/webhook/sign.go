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
	// HeaderSignature is "sha256=" and the hex HMAC of "<timestamp>.<body>"; the key is the secret as it is shown.
	HeaderSignature = "X-Crewship-Signature"

	// The headers of Standard Webhooks. The signature is "v1," and the base64 HMAC of "<id>.<timestamp>.<body>"; the key is
	// what the secret's base64 part stands for.
	HeaderStandardID        = "Webhook-Id"
	HeaderStandardTimestamp = "Webhook-Timestamp"
	HeaderStandardSignature = "Webhook-Signature"
)

// secretPrefix begins every signing secret.
const secretPrefix = "whsec_"

// Sign makes the headers that go with a body: event is what it is about, id that of the delivery, at the time of this
// attempt. It fails for a secret that is not "whsec_" and base64, and for an id with a dot, which would make the signed
// text ambiguous.
func Sign(secret, event, id string, at time.Time, body []byte) (http.Header, error) {
	key, err := secretKey(secret)
	if err != nil {
		return nil, err
	}
	if id == "" || strings.Contains(id, ".") {
		return nil, fmt.Errorf("delivery id %q: must not be empty or hold a dot", id)
	}
	timestamp := strconv.FormatInt(at.Unix(), 10)
	return http.Header{
		HeaderEvent:             {event},
		HeaderDelivery:          {id},
		HeaderTimestamp:         {timestamp},
		HeaderSignature:         {crewshipSignature(secret, timestamp, body)},
		HeaderStandardID:        {id},
		HeaderStandardTimestamp: {timestamp},
		HeaderStandardSignature: {standardSignature(key, id, timestamp, body)},
	}, nil
}

// tolerance is how far the timestamp of a POST may be from the receiver's clock.
const tolerance = 5 * time.Minute

// Verify tells why a received POST is not ours, nil if it is: both signatures hold and were made within five minutes of
// now. The reason names no expected value.
func Verify(secret string, h http.Header, body []byte, now time.Time) error {
	key, err := secretKey(secret)
	if err != nil {
		return err
	}
	id, timestamp := h.Get(HeaderStandardID), h.Get(HeaderStandardTimestamp)
	if id == "" || id != h.Get(HeaderDelivery) || timestamp == "" || timestamp != h.Get(HeaderTimestamp) {
		return errors.New("the delivery id or the timestamp is missing, or differs between the two schemes")
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return errors.New("the timestamp is not a number of seconds")
	}
	if age := now.Sub(time.Unix(seconds, 0)); age.Abs() > tolerance {
		return errors.New("the timestamp is more than five minutes off")
	}
	if !same(h.Get(HeaderSignature), crewshipSignature(secret, timestamp, body)) {
		return fmt.Errorf("%s does not match", HeaderSignature)
	}
	want := standardSignature(key, id, timestamp, body)
	for _, one := range strings.Fields(h.Get(HeaderStandardSignature)) {
		if same(one, want) {
			return nil
		}
	}
	return fmt.Errorf("%s does not match", HeaderStandardSignature)
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
