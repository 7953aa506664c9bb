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

// KeyLife is how long an idempotency key is remembered, unless it says otherwise.
const KeyLife = 24 * time.Hour

// Once is an idempotency key: what a request makes is made once, however often the request comes.
type Once struct {
	Deployment string // keys are a deployment's own
	Key        string // "" is none
	Digest     string // tells a repetition from another request with the same key
	Life       time.Duration
}

// made is what a key stands for.
type made struct {
	ID   string `json:"id"`
	Body string `json:"body"`
}

// ID gives the id that whatever a request makes is to have: newID when its key is new, or stands for what is void (nil:
// nothing is), else that of the first request with the key, which may have died before it made anything. fault.Conflict: the
// key stands for another request. After any other failure it may be asked again with the same newID.
func (o Once) ID(ctx context.Context, s Store, newID string, now time.Time, void func(ctx context.Context, id string) (bool, error)) (string, error) {
	if o.Key == "" {
		return newID, nil
	}
	life := o.Life
	if life == 0 {
		life = KeyLife
	}
	body, err := json.Marshal(made{newID, o.Digest})
	if err != nil {
		return "", fmt.Errorf("encode an idempotency key: %w", err)
	}
	rec := Record{Key: o.record(), Body: body, Expires: now.Add(life)}
	for {
		_, err := s.Put(ctx, rec)
		there, taken := Current(err)
		if !taken {
			if err != nil {
				return "", fmt.Errorf("reserve an idempotency key: %w", err)
			}
			return newID, nil
		}
		first, err := o.read(there)
		if err != nil || first == newID || void == nil {
			return first, err
		}
		if again, err := void(ctx, first); err != nil || !again {
			return first, err
		}
		rec.Rev = there.Rev
	}
}

// Find gives the id that the key stands for. fault.NotFound: it is new; fault.Conflict: it stands for another request.
func (o Once) Find(ctx context.Context, s Store) (string, error) {
	rec, err := s.Get(ctx, o.record())
	if err != nil {
		return "", fmt.Errorf("read an idempotency key: %w", err)
	}
	return o.read(rec)
}

func (o Once) record() Key {
	sum := sha256.Sum256([]byte(o.Key))
	return Key{Part: "I#" + o.Deployment, Sort: hex.EncodeToString(sum[:])}
}

func (o Once) read(rec Record) (string, error) {
	var first made
	if err := json.Unmarshal(rec.Body, &first); err != nil {
		return "", fmt.Errorf("decode an idempotency key: %w", err)
	}
	if first.Body != o.Digest {
		return "", fault.New(fault.Conflict, "This Idempotency-Key was used with another request body in the last 24 hours.")
	}
	return first.ID, nil
}
