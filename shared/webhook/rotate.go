package webhook

import (
	"context"
	"fmt"
	"time"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
)

// Signing is the sealed secret that somebody's POSTs are signed with. Old is the one before, which signs too until OldUntil.
type Signing struct {
	Secret   string    `json:"secret"`
	Old      string    `json:"old,omitempty"`
	OldUntil time.Time `json:"old_until,omitzero"`
	// Made is the id of the rotation that made Secret, "" for the first one; see Rotation.
	Made string `json:"made,omitempty"`
}

// Rotation gives the id of a rotation: a new one, or that of the first request with the same idempotency key, unless that is "".
// Ids sort by time, so a repetition that comes after another rotation is known for what it is. fault.Conflict: the key was used
// for another request.
func (s Endpoints) Rotation(ctx context.Context, deploymentID, key, digest string) (string, error) {
	return record.Once{Deployment: deploymentID, Key: key, Digest: digest}.ID(ctx, s.Store, id.New(), s.now(), nil)
}

// MaxOverlap is how long an old secret may stay good beside the new one.
const MaxOverlap = 7 * 24 * time.Hour

// Rotate puts a new sealed secret in the place of the present one, which is worthless at once or stays good for the
// overlap. While an earlier one still is, that is fault.Conflict, unless forced: then the earlier one ends. The repetition of the
// rotation that made the present secret changes nothing: its answer may have got lost. That of an earlier one is fault.Conflict.
func (s *Signing) Rotate(rotation, sealed string, overlap time.Duration, force bool, now time.Time) error {
	switch {
	case rotation == s.Made:
		return nil
	case rotation < s.Made:
		return fault.New(fault.Conflict, "The secret that was made for this Idempotency-Key has been replaced since.")
	}
	if overlap < 0 || overlap > MaxOverlap {
		return fault.New(fault.Invalid, "An old secret may stay good for 0 to %d seconds.", int(MaxOverlap.Seconds()))
	}
	if s.overlaps(now) && !force {
		return fault.New(fault.Conflict, "Two secrets are good until %s. Wait until then, or send \"force\": true to end the older one now.",
			s.OldUntil.Format(time.RFC3339))
	}
	before := s.Secret
	*s = Signing{Secret: sealed, Made: rotation}
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
