package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"

	"muster/shared/fault"
)

// maxKey is how long an Idempotency-Key may be.
const maxKey = 255

// Idempotency reads the Idempotency-Key of a request, "" for none, and gives a digest of its body that tells a repetition
// from another request. A key is of its family: the routes where it means the same thing. Bodies are compared by the value of
// their JSON, because a client that encodes the same request again may order its fields otherwise; a number is the same only as it was written.
func Idempotency(r *http.Request, family string, body []byte) (key, digest string, err error) {
	key = r.Header.Get("Idempotency-Key")
	if len(key) > maxKey {
		return "", "", fault.New(fault.Invalid, "The Idempotency-Key is longer than %d characters.", maxKey)
	}
	if key != "" {
		key = family + "\x00" + key // no header can have a zero byte
	}
	sum := sha256.Sum256(canonical(body))
	return key, hex.EncodeToString(sum[:]), nil
}

// canonical gives JSON with its fields in order and without space between them; what is no JSON stays as it is.
func canonical(body []byte) []byte {
	var value any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if d.Decode(&value) != nil || d.More() {
		return body
	}
	same, err := json.Marshal(value)
	if err != nil {
		return body
	}
	return same
}
