// Package id makes and reads the ids of Muster. Inside, every id is a UUID in its canonical form; a dialect may show it
// with a prefix and without hyphens ("run_" and 32 hex digits). Parse takes both.
package id

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// New gives a fresh UUIDv7: ids sort by the time they were made.
func New() string { return uuid.Must(uuid.NewV7()).String() }

// From gives what no id sorts below that was made from a time on.
func From(t time.Time) string {
	ms := fmt.Sprintf("%012x", max(t.UnixMilli(), 0))
	return ms[:8] + "-" + ms[8:] + "-7000-8000-000000000000"
}

// NewAt gives a fresh UUIDv7 of another time than now.
func NewAt(t time.Time) string { return From(t)[:14] + uuid.Must(uuid.NewV7()).String()[14:] }

// Derive gives the UUIDv5 of name under a parent id: the same two give the same id, anywhere and always.
func Derive(parent, name string) string {
	space, err := uuid.Parse(parent)
	if err != nil {
		space = uuid.NewSHA1(uuid.NameSpaceOID, []byte(parent))
	}
	return uuid.NewSHA1(space, []byte(name)).String()
}

// Show gives the prefixed form: Show("run", id) is "run_" and 32 hex digits.
func Show(prefix, id string) string { return prefix + "_" + strings.ReplaceAll(id, "-", "") }

// Parse reads a canonical UUID or the prefixed form and gives the canonical UUID. ok is false for anything else.
func Parse(prefix, s string) (id string, ok bool) {
	if rest, found := strings.CutPrefix(s, prefix+"_"); found && len(rest) == 32 {
		s = rest
	} else if len(s) != 36 {
		return "", false
	}
	u, err := uuid.Parse(s)
	if err != nil {
		return "", false
	}
	return u.String(), true
}
