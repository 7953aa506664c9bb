package workspace_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"muster/shared/workspace"
)

func TestParseKeys(t *testing.T) {
	const (
		one = "k1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
		two = "k2:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
	)
	seal := func(t *testing.T, keys string) (*workspace.Sealer, string) {
		t.Helper()
		s, err := workspace.ParseKeys(keys)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := s.Seal(t.Context(), "ws", "record", "field", "secret")
		if err != nil {
			t.Fatal(err)
		}
		return s, sealed
	}

	t.Run("after a rotation the first key seals and the old one still opens", func(t *testing.T) {
		_, old := seal(t, one)
		s, fresh := seal(t, two+"\n"+one+"\n")
		if !strings.HasPrefix(fresh, "v1:k2:") {
			t.Errorf("got %q, want it sealed with k2", fresh)
		}
		if plain, err := s.Open(t.Context(), "ws", "record", "field", old); err != nil || plain != "secret" {
			t.Errorf("got %q, %v, want the secret", plain, err)
		}
	})

	for name, text := range map[string]string{
		"nothing at all":           " \n",
		"a key without id":         strings.TrimPrefix(one, "k1:"),
		"a key that is not base64": "k1:***",
		"a key that is too short":  "k1:AQEB",
		"an id given twice":        one + " " + one,
	} {
		t.Run(name+" is refused, and not quoted", func(t *testing.T) {
			_, err := workspace.ParseKeys(text)
			if err == nil || strings.Contains(err.Error(), "AQEB") || strings.Contains(err.Error(), "***") {
				t.Errorf("got %v, want an error that quotes no key", err)
			}
		})
	}
}

func TestFetchKeys(t *testing.T) {
	fetched := 0
	s := workspace.FetchKeys(func(context.Context) (string, error) {
		fetched++
		if fetched == 1 {
			return "", errors.New("not now")
		}
		return "k1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", nil
	})
	if _, err := s.Seal(t.Context(), "ws", "record", "field", "secret"); err == nil {
		t.Error("sealed without a key")
	}
	sealed, err := s.Seal(t.Context(), "ws", "record", "field", "secret")
	if err != nil {
		t.Fatal("a failed fetch was not repeated:", err)
	}
	if plain, err := s.Open(t.Context(), "ws", "record", "field", sealed); err != nil || plain != "secret" {
		t.Errorf("got %q, %v, want the secret", plain, err)
	}
	if fetched != 2 {
		t.Errorf("the keys were fetched %d times, want no more after the first success", fetched)
	}
}
