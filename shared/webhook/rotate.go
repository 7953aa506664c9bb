package webhook

import (
	"context"
	"fmt"
	"time"

	"muster/shared/fault"
)

// Signing is the sealed secret that somebody's POSTs are signed with. Old is the one before, which signs too until OldUntil.
type Signing struct {
	Secret   string    `json:"secret"`
	Old      string    `json:"old,omitempty"`
	OldUntil time.Time `json:"old_until,omitzero"`
	// Asked is the request that made Secret, if that had an Idempotency-Key, and AskedAt when.
	Asked   Asked     `json:"asked,omitzero"`
	AskedAt time.Time `json:"asked_at,omitzero"`
}

// Asked names a request: its Idempotency-Key and a digest of its body. It is the zero one without a key.
type Asked struct {
	Key    string `json:"key,omitempty"`
	Digest string `json:"digest,omitempty"`
}

// askedFor is how long the repetition of a request is known as such.
const askedFor = 24 * time.Hour

// MaxOverlap is how long an old secret may stay good beside the new one.
const MaxOverlap = 7 * 24 * time.Hour

// Rotate puts a new sealed secret in the place of the present one, which is worthless at once or stays good for the
// overlap. While an earlier one still is, that is fault.Conflict, unless forced: then the earlier one ends. The repetition of the
// request that made the present secret changes nothing: its answer may have got lost.
func (s *Signing) Rotate(sealed string, overlap time.Duration, force bool, by Asked, now time.Time) error {
	if by.Key != "" && by.Key == s.Asked.Key && now.Sub(s.AskedAt) < askedFor {
		if by != s.Asked {
			return fault.New(fault.Conflict, "This Idempotency-Key was used for another request.")
		}
		return nil
	}
	if overlap < 0 || overlap > MaxOverlap {
		return fault.New(fault.Invalid, "An old secret may stay good for 0 to %d seconds.", int(MaxOverlap.Seconds()))
	}
	if s.overlaps(now) && !force {
		return fault.New(fault.Conflict, "Two secrets are good until %s. Wait until then, or send \"force\": true to end the older one now.",
			s.OldUntil.Format(time.RFC3339))
	}
	before := s.Secret
	*s = Signing{Secret: sealed}
	if by.Key != "" {
		s.Asked, s.AskedAt = by, now.UTC()
	}
	if overlap > 0 {
		s.Old, s.OldUntil = before, now.Add(overlap).UTC().Truncate(time.Millisecond)
	}
	return nil
}

func (s Signing) overlaps(now time.Time) bool { return s.Old != "" && now.Before(s.OldUntil) }

// Opener opens what was sealed; *workspace.Sealer is one.
type Opener interface {
	Open(ctx context.Context, workspaceID, recordID, field, sealed string) (string, error)
}

// Open gives the secrets that are good now.
func (s Signing) Open(ctx context.Context, by Opener, workspaceID, recordID, field string, now time.Time) (open Secrets, err error) {
	if open.Current, err = by.Open(ctx, workspaceID, recordID, field, s.Secret); err != nil {
		return Secrets{}, fmt.Errorf("open the signing secret: %w", err)
	}
	if s.overlaps(now) {
		if open.Old, err = by.Open(ctx, workspaceID, recordID, field, s.Old); err != nil {
			return Secrets{}, fmt.Errorf("open the old signing secret: %w", err)
		}
	}
	return open, nil
}

// Secrets gives the secrets that are good for the endpoint now.
func (e Endpoint) Secrets(ctx context.Context, by Opener, now time.Time) (Secrets, error) {
	return e.Open(ctx, by, e.WorkspaceID, e.ID, SecretField, now)
}
