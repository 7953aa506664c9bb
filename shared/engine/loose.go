package engine

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// looseDepth is how deep loose follows nested values before it gives up.
const looseDepth = 64

// loose reads JSON as models write it: single quotes, bare words, Python's True, False and None, comments of a line,
// trailing commas, brackets that nobody closed. ok is false for text that is not even roughly one JSON value.
func loose(text string) (value any, ok bool) {
	var strict any
	if json.Unmarshal([]byte(text), &strict) == nil {
		return strict, true
	}
	r := &looseReader{rest: strings.ToValidUTF8(text, "\uFFFD")}
	value, ok = r.value(looseDepth)
	r.space()
	return value, ok && r.rest == ""
}

type looseReader struct{ rest string }

func (r *looseReader) space() {
	for {
		r.rest = strings.TrimLeft(r.rest, " \t\r\n\u00a0")
		if !strings.HasPrefix(r.rest, "//") {
			return
		}
		_, r.rest, _ = strings.Cut(r.rest, "\n")
	}
}

func (r *looseReader) take(c byte) bool {
	r.space()
	if r.rest == "" || r.rest[0] != c {
		return false
	}
	r.rest = r.rest[1:]
	return true
}

func (r *looseReader) value(depth int) (any, bool) {
	r.space()
	if r.rest == "" || depth == 0 {
		return nil, false
	}
	switch r.rest[0] {
	case '{':
		return r.object(depth - 1)
	case '[':
		return r.array(depth - 1)
	case '"', '\'':
		return r.quoted()
	}
	word := r.word(",]}")
	switch word {
	case "":
		return nil, false
	case "true", "True":
		return true, true
	case "false", "False":
		return false, true
	case "null", "None":
		return nil, true
	}
	if f, err := strconv.ParseFloat(word, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
		return f, true
	}
	return word, true
}

func (r *looseReader) object(depth int) (any, bool) {
	r.rest = r.rest[1:]
	object := map[string]any{}
	for {
		if r.take('}') {
			return object, true
		}
		if r.rest == "" {
			return object, true // never closed
		}
		key, ok := r.key()
		if !ok || !r.take(':') {
			return nil, false
		}
		v, ok := r.value(depth)
		if !ok {
			return nil, false
		}
		object[key] = v
		if !r.take(',') && r.rest != "" && r.rest[0] != '}' {
			return nil, false
		}
	}
}

func (r *looseReader) array(depth int) (any, bool) {
	r.rest = r.rest[1:]
	array := []any{}
	for {
		if r.take(']') {
			return array, true
		}
		if r.rest == "" {
			return array, true // never closed
		}
		v, ok := r.value(depth)
		if !ok {
			return nil, false
		}
		array = append(array, v)
		if !r.take(',') && r.rest != "" && r.rest[0] != ']' {
			return nil, false
		}
	}
}

func (r *looseReader) key() (string, bool) {
	if r.rest[0] == '"' || r.rest[0] == '\'' {
		key, ok := r.quoted()
		return key, ok
	}
	key := r.word(":,{}[]")
	return key, key != ""
}

// word takes everything up to one of the ends or the end of the line.
func (r *looseReader) word(ends string) string {
	end := strings.IndexAny(r.rest, ends+"\n")
	if end < 0 {
		end = len(r.rest)
	}
	word := strings.TrimSpace(r.rest[:end])
	r.rest = r.rest[end:]
	return word
}

func (r *looseReader) quoted() (string, bool) {
	quote := r.rest[0]
	var b strings.Builder
	for i := 1; i < len(r.rest); i++ {
		c := r.rest[i]
		switch {
		case c == quote:
			r.rest = r.rest[i+1:]
			return b.String(), true
		case c == '\\' && i+1 < len(r.rest):
			i += escaped(&b, r.rest[i+1:])
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// escaped writes what an escape stands for and says how many bytes it took after the backslash.
func escaped(b *strings.Builder, rest string) int {
	switch rest[0] {
	case 'n':
		b.WriteByte('\n')
	case 't':
		b.WriteByte('\t')
	case 'r':
		b.WriteByte('\r')
	case 'u':
		if len(rest) >= 5 {
			if code, err := strconv.ParseUint(rest[1:5], 16, 32); err == nil {
				b.WriteRune(rune(code)) // half of a surrogate pair becomes U+FFFD
				return 5
			}
		}
		b.WriteByte('u')
	default:
		_, size := utf8.DecodeRuneInString(rest)
		b.WriteString(rest[:size])
		return size
	}
	return 1
}
