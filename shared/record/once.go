package record

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"muster/shared/fault"
)

// KeyLife is how long an idempotency key is remembered.
const KeyLife = 24 * time.Hour

// made is what an idempotency key stands for.
type made struct {
	ID   string `json:"id"`
	Body string `json:"body"`
}

// Once gives the id that whatever a request makes is to have: newID when its idempotency key is new, else that of the first
// request with the key, which may have died before it made anything. digest tells a repetition from another request with the
// same key, which is fault.Conflict. Keys are a deployment's own; "" is none, and gives newID.
func Once(ctx context.Context, s Store, deploymentID, key, digest, newID string, now time.Time) (string, error) {
	if key == "" {
		return newID, nil
	}
	body, err := json.Marshal(made{newID, digest})
	if err != nil {
		return "", fmt.Errorf("encode an idempotency key: %w", err)
	}
	sum := sha256.Sum256([]byte(key))
	_, err = s.Put(ctx, Record{Key: Key{Part: "I#" + deploymentID, Sort: hex.EncodeToString(sum[:])}, Body: body, Expires: now.Add(KeyLife)})
	there, taken := Current(err)
	if !taken {
		if err != nil {
			return "", fmt.Errorf("reserve an idempotency key: %w", err)
		}
		return newID, nil
	}
	var first made
	if err := json.Unmarshal(there.Body, &first); err != nil {
		return "", fmt.Errorf("decode an idempotency key: %w", err)
	}
	if first.Body != digest {
		return "", fault.New(fault.Conflict, "This Idempotency-Key was used with another request body in the last 24 hours.")
	}
	return first.ID, nil
}
