package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"muster/shared/fault"
)

const (
	// MaxBody is the usual limit of a request body, in bytes.
	MaxBody = 1 << 20
	// MaxDepth is how deep JSON in a request may be nested.
	MaxDepth = 100
	// maxDrain is how much of a body over its limit is still read and thrown away: a client that is cut off while it sends
	// never sees the answer.
	maxDrain = 32 << 20
)

// ReadBody reads the whole body, fault.TooLarge when it has more than limit bytes. One that is encoded is fault.Unsupported:
// what a few bytes unpack to nobody knows before.
func ReadBody(r *http.Request, limit int64) ([]byte, error) {
	if Encoded(r.Header) {
		io.CopyN(io.Discard, r.Body, maxDrain)
		return nil, fault.New(fault.Unsupported, "A body with a Content-Encoding is not accepted; send it as it is.")
	}
	return ReadRaw(r, limit)
}

// Encoded says whether a body is not sent as it is.
func Encoded(h http.Header) bool {
	e := h.Get("Content-Encoding")
	return e != "" && !strings.EqualFold(e, "identity")
}

// ReadRaw is ReadBody for a body that must first be held against its signature: it may be encoded.
func ReadRaw(r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The request body ended early.")
	}
	if int64(len(body)) > limit {
		io.CopyN(io.Discard, r.Body, maxDrain)
		return nil, TooLarge(limit)
	}
	return body, nil
}

// TooLarge says that a request body has more than limit bytes.
func TooLarge(limit int64) error {
	return fault.New(fault.TooLarge, "The request body is larger than %s.", size(limit))
}

func size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%g KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%g MiB", float64(n)/(1<<20))
}

// ReadObject reads a body that is one JSON object. Its values are left as they were sent; of a key given twice, the last
// counts.
func ReadObject(r *http.Request, limit int64) (Object, []byte, error) {
	body, err := ReadBody(r, limit)
	if err != nil {
		return nil, nil, err
	}
	o, err := ParseObject(body)
	return o, body, err
}

// ParseObject reads one JSON object that is nested at most MaxDepth deep.
func ParseObject(body []byte) (Object, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, fault.New(fault.Invalid, "The request body is empty; send a JSON object.")
	}
	if !utf8.Valid(body) {
		return nil, fault.New(fault.Invalid, "The request body is not valid UTF-8.")
	}
	if tooDeep(body) {
		return nil, fault.New(fault.Invalid, "The request body is nested more than %d levels deep.", MaxDepth)
	}
	var o Object
	if err := json.Unmarshal(body, &o); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fault.Wrap(err, fault.Invalid, "The request body is not JSON: %s (at byte %d).", syntax.Error(), syntax.Offset)
		}
	}
	if o == nil {
		return nil, fault.New(fault.Invalid, "The request body must be a JSON object, and it is %s.", kind(body))
	}
	return o, nil
}

// tooDeep counts brackets outside of strings. It need not know whether the rest is JSON.
func tooDeep(b []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// Object is a JSON object whose values are not read yet. Its getters tell what is wrong with a value in a sentence that
// names the field, as fault.Invalid; a value that is absent or null is the zero value.
type Object map[string]json.RawMessage

// Has tells whether the field is there and not null.
func (o Object) Has(field string) bool {
	v, ok := o[field]
	return ok && string(v) != "null"
}

// String reads a string.
func (o Object) String(field string) (string, error) {
	var s string
	err := o.read(field, "a string", &s)
	return s, err
}

// Bool reads true or false.
func (o Object) Bool(field string) (bool, error) {
	var b bool
	err := o.read(field, "true or false", &b)
	return b, err
}

// Int reads a whole number.
func (o Object) Int(field string) (int, error) {
	var n int
	err := o.read(field, "a whole number", &n)
	return n, err
}

// Strings reads an array of strings.
func (o Object) Strings(field string) ([]string, error) {
	var items []json.RawMessage
	if err := o.read(field, "an array of strings", &items); err != nil {
		return nil, err
	}
	var list []string
	for _, item := range items {
		var s *string
		if json.Unmarshal(item, &s) != nil || s == nil {
			return nil, fault.New(fault.Invalid, "%q must be an array of strings, and one of its items is %s.", field, kind(item))
		}
		list = append(list, *s)
	}
	return list, nil
}

// Object reads an object; it is nil when absent.
func (o Object) Object(field string) (Object, error) {
	var v Object
	err := o.read(field, "an object", &v)
	return v, err
}

// Values reads an object of any JSON, numbers as json.Number so that none loses digits. It is empty when absent.
func (o Object) Values(field string) (map[string]any, error) {
	v := map[string]any{}
	if !o.Has(field) {
		return v, nil
	}
	d := json.NewDecoder(bytes.NewReader(o[field]))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, fault.New(fault.Invalid, "%q must be an object, and it is %s.", field, kind(o[field]))
	}
	return v, nil
}

func (o Object) read(field, want string, v any) error {
	if !o.Has(field) {
		return nil
	}
	if err := json.Unmarshal(o[field], v); err != nil {
		return fault.New(fault.Invalid, "%q must be %s, and it is %s.", field, want, kind(o[field]))
	}
	return nil
}

// kind says what a piece of JSON is.
func kind(v []byte) string {
	v = bytes.TrimSpace(v)
	if len(v) == 0 {
		return "nothing"
	}
	switch v[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "the number " + strings.ToValidUTF8(string(v[:min(len(v), 30)]), "")
}

// Unknown gives a warning for each field that is not one of those known, in order.
func (o Object) Unknown(known ...string) (warnings []string) {
	for _, field := range slices.Sorted(maps.Keys(o)) {
		if !slices.Contains(known, field) {
			warnings = append(warnings, fmt.Sprintf("unknown field %s was ignored", field))
		}
	}
	return warnings
}
