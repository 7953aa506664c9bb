package webhook_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/fault"
	"muster/shared/storetest"
	"muster/shared/webhook"
)

// unsealed opens everything, saying what it was.
type unsealed struct{}

func (unsealed) Open(_ context.Context, workspaceID, recordID, field, sealed string) (string, error) {
	return workspaceID + "/" + recordID + "/" + field + "/" + sealed, nil
}

func TestRotation(t *testing.T) {
	const hour = time.Hour
	inOverlap := webhook.Signing{Secret: "b", Old: "a", OldUntil: now.Add(hour)}
	for _, c := range []struct {
		name    string
		before  webhook.Signing
		overlap time.Duration
		force   bool
		after   webhook.Signing
		refused fault.Kind
	}{
		{name: "the old one is worthless at once", before: webhook.Signing{Secret: "a"}, after: webhook.Signing{Secret: "new"}},
		{name: "the old one stays good for a while", before: webhook.Signing{Secret: "a"}, overlap: hour,
			after: webhook.Signing{Secret: "new", Old: "a", OldUntil: now.Add(hour)}},
		{name: "a second one within the overlap is refused", before: inOverlap, overlap: hour, refused: fault.Conflict},
		{name: "even one that would end both at once", before: inOverlap, refused: fault.Conflict},
		{name: "forced, the oldest ends", before: inOverlap, overlap: 2 * hour, force: true,
			after: webhook.Signing{Secret: "new", Old: "b", OldUntil: now.Add(2 * hour)}},
		{name: "forced without an overlap, both end", before: inOverlap, force: true, after: webhook.Signing{Secret: "new"}},
		{name: "after the overlap it is as before it", before: webhook.Signing{Secret: "b", Old: "a", OldUntil: now},
			after: webhook.Signing{Secret: "new"}},
		{name: "a week is the longest", before: webhook.Signing{Secret: "a"}, overlap: 7 * 24 * hour,
			after: webhook.Signing{Secret: "new", Old: "a", OldUntil: now.Add(7 * 24 * hour)}},
		{name: "more than a week", before: webhook.Signing{Secret: "a"}, overlap: 7*24*hour + time.Second, refused: fault.Invalid},
		{name: "less than nothing", before: webhook.Signing{Secret: "a"}, overlap: -time.Second, refused: fault.Invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.before
			err := got.Rotate("1", "new", c.overlap, c.force, now)
			if c.after.Made = "1"; c.refused != "" {
				c.after = c.before
			}
			if fault.KindOf(err) != c.refused {
				t.Errorf("%v, want %q", err, c.refused)
			}
			if diff := cmp.Diff(c.after, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestARepeatedRequestRotatesOnce(t *testing.T) {
	all := webhook.Endpoints{Store: &storetest.Memory{Now: func() time.Time { return now }}, Now: func() time.Time { return now }}
	s := webhook.Signing{Secret: "a"}
	for _, step := range []struct {
		name, sealed, key, digest string
		secret                    string
		refused                   fault.Kind
	}{
		{"the first one", "b", "k", "d", "b", ""},
		{"its repetition", "c", "k", "d", "b", ""},
		{"another request with its key", "c", "k", "other", "b", fault.Conflict},
		{"one without a key", "d", "", "", "d", ""},
		{"and one without a key again", "e", "", "", "e", ""},
		{"a late repetition of the first one", "f", "k", "d", "e", fault.Conflict},
		{"another key", "g", "l", "d", "g", ""},
	} {
		rotation, err := all.Rotation(t.Context(), "dep", step.key, step.digest)
		if err == nil {
			err = s.Rotate(rotation, step.sealed, 0, false, now)
		}
		if fault.KindOf(err) != step.refused || s.Secret != step.secret {
			t.Errorf("%s: %v, the secret is %q, want %q and %q", step.name, err, s.Secret, step.refused, step.secret)
		}
	}
	// Whoever died before it rotated does so with its repetition.
	if _, err := all.Rotation(t.Context(), "dep", "m", "d"); err != nil {
		t.Fatal(err)
	}
	rotation, err := all.Rotation(t.Context(), "dep", "m", "d")
	if err == nil {
		err = s.Rotate(rotation, "h", 0, false, now)
	}
	if err != nil || s.Secret != "h" {
		t.Errorf("the secret is %q, %v", s.Secret, err)
	}
}

func TestSecretsThatAreGoodNow(t *testing.T) {
	e := webhook.Endpoint{ID: "e", WorkspaceID: "w", Signing: webhook.Signing{Secret: "b", Old: "a", OldUntil: now}}
	for at, want := range map[time.Time]webhook.Secrets{
		now.Add(-time.Second): {Current: "w/e/secret/b", Old: "w/e/secret/a"},
		now:                   {Current: "w/e/secret/b"},
	} {
		if got, err := e.Secrets(t.Context(), unsealed{}, at); err != nil || got != want {
			t.Errorf("at %s: %+v (%v), want %+v", at, got, err, want)
		}
	}
}
