package record_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"muster/shared/fault"
	"muster/shared/record"
	"muster/shared/storetest"
)

func TestOnce(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	store := &storetest.Memory{Now: func() time.Time { return now }}
	gone := ""
	void := func(_ context.Context, id string) (bool, error) { return id == gone, nil }
	once := func(deployment, key, digest, newID string) string {
		t.Helper()
		got, err := record.Once{Deployment: deployment, Key: key, Digest: digest}.ID(context.Background(), store, newID, now, void)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, c := range []struct{ name, deployment, key, newID, want string }{
		{"a new key", "d", "k", "1", "1"},
		{"the same again", "d", "k", "2", "1"},
		{"another key", "d", "l", "3", "3"},
		{"of another deployment", "e", "k", "4", "4"},
		{"none", "d", "", "5", "5"},
		{"none again", "d", "", "6", "6"},
	} {
		if got := once(c.deployment, c.key, "aa", c.newID); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	if _, err := (record.Once{Deployment: "d", Key: "k", Digest: "bb"}).ID(t.Context(), store, "7", now, nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("another body: %v", err)
	}
	now = now.Add(record.KeyLife)
	if got := once("d", "k", "bb", "8"); got != "8" {
		t.Errorf("the next day: %s", got)
	}
	// An answer that got lost looks like a failure; whoever tries again meets its own reservation.
	store.After = func(int, record.Record) error { return errors.New("the answer is lost") }
	if _, err := (record.Once{Deployment: "d", Key: "m", Digest: "aa"}).ID(t.Context(), store, "9", now, nil); err == nil || fault.KindOf(err) != fault.Internal {
		t.Errorf("an answer that got lost: %v", err)
	}
	store.After = nil
	if got := once("d", "m", "aa", "10"); got != "9" {
		t.Errorf("tried again: %s", got)
	}
	gone = "9"
	if got := once("d", "m", "aa", "11"); got != "11" {
		t.Errorf("what the key stood for is void: %s", got)
	}
	if got, err := (record.Once{Deployment: "d", Key: "m", Digest: "aa"}).Find(t.Context(), store); got != "11" || err != nil {
		t.Errorf("found %s, %v", got, err)
	}
	if _, err := (record.Once{Deployment: "d", Key: "new"}).Find(t.Context(), store); !fault.Is(err, fault.NotFound) {
		t.Errorf("a new key was found: %v", err)
	}
}
