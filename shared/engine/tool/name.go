package tool

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

const maxName = 64

// FunctionName gives the name under which the model knows a tool: ASCII letters without accents, digits and single
// underscores, camelCase as snake_case, at most 64 characters (a longer one ends in 8 hex digits of its digest).
func FunctionName(name string) string {
	var b strings.Builder
	last := '_'
	for _, r := range norm.NFKD.String(name) {
		switch {
		case r > unicode.MaxASCII:
			continue
		case unicode.IsUpper(r) && (unicode.IsLower(last) || unicode.IsDigit(last)):
			b.WriteByte('_')
			b.WriteRune(unicode.ToLower(r))
		case unicode.IsLetter(r), unicode.IsDigit(r):
			b.WriteRune(unicode.ToLower(r))
		case last != '_':
			r = '_'
			b.WriteRune(r)
		default:
			continue
		}
		last = r
	}
	made := strings.Trim(b.String(), "_")
	if made == "" {
		made = "tool"
	}
	if len(made) > maxName {
		sum := sha256.Sum256([]byte(name))
		made = made[:maxName-9] + "_" + hex.EncodeToString(sum[:4])
	}
	return made
}
