package webhook

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Canonical rewrites a JSON text as JavaScript writes it: the result is compact valid UTF-8, and JSON.stringify(JSON.parse(x))
// gives it back byte for byte. So a receiver that verifies a signature over what its framework parsed and wrote again, as
// many do, agrees with one that keeps the raw body.
//
// Members keep their order, but keys that are array indexes come first, ascending; of a repeated key the last value stands
// at the first one's place. Numbers have JavaScript's shortest form; only an integer beyond 2^53 keeps its digits, which a
// receiver in JavaScript could not have told apart anyway. What is no UTF-8 becomes U+FFFD.
func Canonical(raw []byte) ([]byte, error) {
	c := canon{in: raw, out: make([]byte, 0, len(raw)+16)}
	c.space()
	if err := c.value(0); err != nil {
		return nil, err
	}
	if c.space(); c.at != len(c.in) {
		return nil, c.fail()
	}
	return c.out, nil
}

// maxDepth is how deep values may be nested, as in encoding/json.
const maxDepth = 10000

type canon struct {
	in      []byte
	at      int
	out     []byte
	members []member // those of the objects that are open, innermost last
}

// member is one member of an object in out[key:end]; the colon is at colon.
type member struct {
	key, colon, end int
	index           int64 // as an array index, else -1
}

var errJSON = errors.New("this is not JSON")

func (c *canon) fail() error {
	if c.at >= len(c.in) {
		return fmt.Errorf("%w: it ends too early", errJSON)
	}
	return fmt.Errorf("%w: unexpected character at byte %d", errJSON, c.at)
}

func (c *canon) space() {
	for c.at < len(c.in) {
		switch c.in[c.at] {
		case ' ', '\t', '\r', '\n':
			c.at++
		default:
			return
		}
	}
}

// peek gives the next byte, 0 at the end.
func (c *canon) peek() byte {
	if c.at < len(c.in) {
		return c.in[c.at]
	}
	return 0
}

// take steps over b if it is next.
func (c *canon) take(b byte) bool {
	if c.peek() == b && c.at < len(c.in) {
		c.at++
		return true
	}
	return false
}

func (c *canon) value(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: it is nested too deep", errJSON)
	}
	switch b := c.peek(); {
	case b == '{':
		return c.object(depth)
	case b == '[':
		return c.array(depth)
	case b == '"':
		return c.text()
	case b == '-' || '0' <= b && b <= '9':
		return c.number()
	}
	for _, word := range []string{"null", "true", "false"} {
		if bytes.HasPrefix(c.in[c.at:], []byte(word)) {
			c.at += len(word)
			c.out = append(c.out, word...)
			return nil
		}
	}
	return c.fail()
}

func (c *canon) array(depth int) error {
	c.at++
	c.out = append(c.out, '[')
	c.space()
	for first := true; !c.take(']'); first = false {
		if !first {
			if !c.take(',') {
				return c.fail()
			}
			c.out = append(c.out, ',')
			c.space()
		}
		if err := c.value(depth + 1); err != nil {
			return err
		}
		c.space()
	}
	c.out = append(c.out, ']')
	return nil
}

func (c *canon) object(depth int) error {
	c.at++
	c.out = append(c.out, '{')
	start, base := len(c.out), len(c.members)
	c.space()
	for first := true; !c.take('}'); first = false {
		if !first {
			if !c.take(',') {
				return c.fail()
			}
			c.out = append(c.out, ',')
			c.space()
		}
		m := member{key: len(c.out)}
		if c.peek() != '"' {
			return c.fail()
		}
		if err := c.text(); err != nil {
			return err
		}
		m.colon, m.index = len(c.out), arrayIndex(c.out[m.key+1:len(c.out)-1])
		c.space()
		if !c.take(':') {
			return c.fail()
		}
		c.out = append(c.out, ':')
		c.space()
		if err := c.value(depth + 1); err != nil {
			return err
		}
		m.end = len(c.out)
		c.members = append(c.members, m)
		c.space()
	}
	c.arrange(start, c.members[base:])
	c.members = c.members[:base]
	c.out = append(c.out, '}')
	return nil
}

// arrange puts the members of an object, which are in out[start:], into JavaScript's order.
func (c *canon) arrange(start int, members []member) {
	kept, repeated := c.unrepeated(members)
	order := func(a, b member) int { return cmp.Compare(uint64(a.index), uint64(b.index)) } // -1 comes last
	if !repeated && slices.IsSortedFunc(kept, order) {
		return
	}
	slices.SortStableFunc(kept, order)
	written := slices.Clone(c.out[start:])
	c.out = c.out[:start]
	for i, m := range kept {
		if i > 0 {
			c.out = append(c.out, ',')
		}
		c.out = append(c.out, written[m.key-start:m.end-start]...)
	}
}

// unrepeated gives the members with the last value of each key at the place of the first.
func (c *canon) unrepeated(members []member) (kept []member, repeated bool) {
	const few = 12
	var seen map[string]int
	if len(members) > few {
		seen = make(map[string]int, len(members))
	}
	kept = members[:0]
	for _, m := range members {
		at, key := -1, c.out[m.key:m.colon]
		if seen == nil {
			at = slices.IndexFunc(kept, func(k member) bool { return bytes.Equal(c.out[k.key:k.colon], key) })
		} else if i, ok := seen[string(key)]; ok {
			at = i
		} else {
			seen[string(key)] = len(kept)
		}
		if at < 0 {
			kept = append(kept, m)
			continue
		}
		kept[at], repeated = m, true
	}
	return kept, repeated
}

// arrayIndex gives the number that a key is when JavaScript takes it for an array index (0 to 2^32-2), else -1.
func arrayIndex(key []byte) int64 {
	if len(key) == 0 || len(key) > 10 || key[0] == '0' && len(key) > 1 {
		return -1
	}
	n := int64(0)
	for _, b := range key {
		if b < '0' || b > '9' {
			return -1
		}
		n = 10*n + int64(b-'0')
	}
	if n > math.MaxUint32-1 {
		return -1
	}
	return n
}

// number copies a number in JavaScript's form.
func (c *canon) number() error {
	start := c.at
	c.take('-')
	if !c.take('0') && !c.digits() {
		return c.fail()
	}
	whole := true
	if c.take('.') {
		whole = false
		if !c.digits() {
			return c.fail()
		}
	}
	if c.take('e') || c.take('E') {
		whole = false
		if !c.take('+') {
			c.take('-')
		}
		if !c.digits() {
			return c.fail()
		}
	}
	token := c.in[start:c.at]
	if whole && string(token) != "-0" {
		c.out = append(c.out, token...)
		return nil
	}
	f, err := strconv.ParseFloat(string(token), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return c.fail()
	}
	c.out = appendNumber(c.out, f)
	return nil
}

func (c *canon) digits() bool {
	start := c.at
	for c.at < len(c.in) && '0' <= c.in[c.at] && c.in[c.at] <= '9' {
		c.at++
	}
	return c.at > start
}

// appendNumber writes f as Number::toString of ECMAScript does; what is no finite number is null, as in JSON.stringify.
func appendNumber(out []byte, f float64) []byte {
	abs := math.Abs(f)
	switch {
	case math.IsInf(f, 0):
		return append(out, "null"...)
	case f == 0:
		return append(out, '0')
	case abs >= 1e-6 && abs < 1e21:
		return strconv.AppendFloat(out, f, 'f', -1, 64)
	}
	out = strconv.AppendFloat(out, f, 'e', -1, 64)
	// Go writes at least two digits of exponent.
	if n := len(out); out[n-2] == '0' && (out[n-3] == '-' || out[n-3] == '+') {
		out = append(out[:n-2], out[n-1])
	}
	return out
}

// text copies a string with the escapes that JSON.stringify uses, and no others.
func (c *canon) text() error {
	c.at++
	c.out = append(c.out, '"')
	for plain := c.at; ; {
		if c.at >= len(c.in) || c.in[c.at] < ' ' {
			return c.fail()
		}
		switch b := c.in[c.at]; {
		case b == '"':
			c.out = append(append(c.out, c.in[plain:c.at]...), '"')
			c.at++
			return nil
		case b == '\\':
			c.out = append(c.out, c.in[plain:c.at]...)
			if err := c.escape(); err != nil {
				return err
			}
			plain = c.at
		case b < utf8.RuneSelf:
			c.at++
		default:
			r, size := utf8.DecodeRune(c.in[c.at:])
			if r == utf8.RuneError && size == 1 {
				c.out = utf8.AppendRune(append(c.out, c.in[plain:c.at]...), utf8.RuneError)
				plain = c.at + 1
			}
			c.at += size
		}
	}
}

// escape reads one escape, or the two of a surrogate pair, and writes the character.
func (c *canon) escape() error {
	c.at++
	switch b := c.peek(); b {
	case '"', '\\', '/':
		c.at++
		c.character(rune(b))
	case 'b', 'f', 'n', 'r', 't':
		c.at++
		c.out = append(c.out, '\\', b)
	case 'u':
		r, ok := c.unit()
		if !ok {
			return c.fail()
		}
		if !utf16.IsSurrogate(r) {
			c.character(r)
			return nil
		}
		after := c.at
		if c.take('\\') && c.peek() == 'u' {
			if low, ok := c.unit(); ok {
				if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
					c.character(pair)
					return nil
				}
			}
		}
		c.at = after
		c.out = append(append(c.out, `\u`...), strconv.FormatInt(int64(r), 16)...)
	default:
		return c.fail()
	}
	return nil
}

// unit reads "uXXXX".
func (c *canon) unit() (rune, bool) {
	c.at++
	r := rune(0)
	for range 4 {
		digit, ok := hexDigit(c.peek())
		if !ok {
			return 0, false
		}
		r = r<<4 | digit
		c.at++
	}
	return r, true
}

func hexDigit(b byte) (rune, bool) {
	switch {
	case '0' <= b && b <= '9':
		return rune(b - '0'), true
	case 'a' <= b && b <= 'f':
		return rune(b-'a') + 10, true
	case 'A' <= b && b <= 'F':
		return rune(b-'A') + 10, true
	}
	return 0, false
}

// character writes one character, escaped if it has to be.
func (c *canon) character(r rune) {
	const hex = "0123456789abcdef"
	switch {
	case r == '"' || r == '\\':
		c.out = append(c.out, '\\', byte(r))
	case r == '\b':
		c.out = append(c.out, `\b`...)
	case r == '\f':
		c.out = append(c.out, `\f`...)
	case r == '\n':
		c.out = append(c.out, `\n`...)
	case r == '\r':
		c.out = append(c.out, `\r`...)
	case r == '\t':
		c.out = append(c.out, `\t`...)
	case r < ' ':
		c.out = append(c.out, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
	default:
		c.out = utf8.AppendRune(c.out, r)
	}
}
