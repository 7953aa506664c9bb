package crew

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Both formats are read into the same tree: nil, bool, int64, float64, string, []any, object.

// object is a mapping in the order of the file.
type object []member

type member struct {
	name  string
	value any
}

// get gives the value of a name; null counts as absent.
func (o object) get(name string) (any, bool) {
	for _, m := range o {
		if m.name == name {
			return m.value, m.value != nil
		}
	}
	return nil, false
}

// MarshalJSON keeps the order.
func (o object) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			out.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		out.Write(name)
		out.WriteByte(':')
		out.Write(value)
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// maxDepth is how deeply a definition may be nested, maxTree how large its tree may be, in bytes with maxNode for each value.
// Aliases count each time they are used, which is what keeps a YAML bomb small.
const (
	maxDepth = 64
	maxTree  = 8 << 20
	maxNode  = 16
)

var (
	errTooDeep  = fmt.Errorf("is nested more than %d levels deep", maxDepth)
	errTooLarge = errors.New("grows too large when its aliases are filled in")
)

// growth counts what a tree takes while it is built.
type growth int

func (g *growth) add(depth int, text string) error {
	if depth > maxDepth {
		return errTooDeep
	}
	if *g += growth(maxNode + len(text)); *g > maxTree {
		return errTooLarge
	}
	if strings.ContainsRune(text, 0) || !utf8.ValidString(text) {
		return errors.New("holds a NUL character or text that is not UTF-8")
	}
	return nil
}

// empty tells whether a value says no more than its absence.
func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return strings.TrimSpace(v) == ""
	case int64:
		return v == 0
	case float64:
		return v == 0
	case []any:
		return len(v) == 0
	case object:
		return len(v) == 0
	}
	return false
}

// kindOf names the type of a value for a message.
func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case string:
		return "text"
	case int64:
		return "a number"
	case float64:
		return "a number with a fraction"
	case []any:
		return "a list"
	}
	return "an object"
}
