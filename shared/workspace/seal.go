package workspace

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// Sealer keeps secrets that must be read back: AES-256-GCM, where the workspace, the record and the field that a value
// belongs to are associated data. A value moved to another place does not open there.
//
// A sealed value is "v1:", the id of its key, ":", and the base64 of nonce and ciphertext; so keys can be changed while
// older values still open.
type Sealer struct {
	mu      sync.Mutex
	keys    map[string]cipher.AEAD // nil until fetched
	current string
	fetch   func(ctx context.Context) (string, error)
}

// NewSealer takes the keys by id, 32 bytes each, and the id of the one that seals from now on. An id is letters, digits, "-"
// and "_".
func NewSealer(keys map[string][]byte, current string) (*Sealer, error) {
	s := &Sealer{keys: make(map[string]cipher.AEAD, len(keys)), current: current}
	for id, key := range keys {
		if !plainID(id) {
			return nil, fmt.Errorf("sealing key id %q: use letters, digits, - and _", id)
		}
		if len(key) != 32 {
			return nil, fmt.Errorf("sealing key %q has %d bytes, want 32", id, len(key))
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("sealing key %q: %w", id, err)
		}
		if s.keys[id], err = cipher.NewGCM(block); err != nil {
			return nil, fmt.Errorf("sealing key %q: %w", id, err)
		}
	}
	if s.keys[current] == nil {
		return nil, fmt.Errorf("the current sealing key %q is not among the keys", current)
	}
	return s, nil
}

const sealVersion = "v1"

// Seal encrypts plain for one field of one record of a workspace.
func (s *Sealer) Seal(ctx context.Context, workspaceID, recordID, field, plain string) (string, error) {
	if err := s.ready(ctx); err != nil {
		return "", fmt.Errorf("seal %s of %s: %w", field, recordID, err)
	}
	aead := s.keys[s.current]
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	sealed := aead.Seal(nonce, nonce, []byte(plain), place(workspaceID, recordID, field))
	return sealVersion + ":" + s.current + ":" + base64.RawURLEncoding.EncodeToString(sealed), nil
}

// Open decrypts what Seal made for the same place. Its errors never hold the value.
func (s *Sealer) Open(ctx context.Context, workspaceID, recordID, field, sealed string) (string, error) {
	if err := s.ready(ctx); err != nil {
		return "", fmt.Errorf("open %s of %s: %w", field, recordID, err)
	}
	version, rest, _ := strings.Cut(sealed, ":")
	keyID, text, ok := strings.Cut(rest, ":")
	if version != sealVersion || !ok {
		return "", fmt.Errorf("open %s of %s: not a sealed value", field, recordID)
	}
	aead := s.keys[keyID]
	if aead == nil {
		return "", fmt.Errorf("open %s of %s: it is sealed with a key that is not configured", field, recordID)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < aead.NonceSize() || strings.ContainsAny(text, "\r\n") { // which base64 passes over
		return "", fmt.Errorf("open %s of %s: not a sealed value", field, recordID)
	}
	plain, err := aead.Open(nil, raw[:aead.NonceSize()], raw[aead.NonceSize():], place(workspaceID, recordID, field))
	if err != nil {
		return "", fmt.Errorf("open %s of %s: %w", field, recordID, errSealBroken)
	}
	return string(plain), nil
}

var errSealBroken = errors.New("the value was changed, moved from another place, or sealed with another key of the same id")

// place gives the associated data. Each part is preceded by its length, so that no two places look alike.
func place(parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}

func plainID(id string) bool {
	return id != "" && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}
