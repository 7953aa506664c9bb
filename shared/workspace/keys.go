package workspace

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
)

// ParseKeys makes a Sealer of sealing keys in text: one or more "id:key", separated by spaces or line ends, each key the
// base64 of 32 bytes. The first one seals; the others still open what they sealed. Errors never hold a key.
func ParseKeys(text string) (*Sealer, error) {
	keys, current := map[string][]byte{}, ""
	for _, entry := range strings.Fields(text) {
		id, encoded, found := strings.Cut(entry, ":")
		if !found {
			return nil, fmt.Errorf("a sealing key is written id:base64, and one has no colon")
		}
		key, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, fmt.Errorf("sealing key %q is not base64", id)
		}
		if keys[id] != nil {
			return nil, fmt.Errorf("sealing key %q is given twice", id)
		}
		if current == "" {
			current = id
		}
		keys[id] = key
	}
	return NewSealer(keys, current)
}

// FetchKeys makes a Sealer that gets its keys, as ParseKeys reads them, when it first needs them, and keeps them. What fails
// is tried again the next time.
func FetchKeys(fetch func(ctx context.Context) (string, error)) *Sealer {
	return &Sealer{fetch: fetch}
}

// ready makes sure of the keys.
func (s *Sealer) ready(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys != nil {
		return nil
	}
	text, err := s.fetch(ctx)
	if err != nil {
		return fmt.Errorf("fetch the sealing keys: %w", err)
	}
	fetched, err := ParseKeys(text)
	if err != nil {
		return err
	}
	s.keys, s.current = fetched.keys, fetched.current
	return nil
}
