package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Text is a string that is null in JSON when it is empty.
type Text string

// MarshalJSON gives a string or null.
func (t Text) MarshalJSON() ([]byte, error) {
	if t == "" {
		return []byte("null"), nil
	}
	return encode(string(t)), nil
}

// List is an array that is [] in JSON, never null.
type List[T any] []T

// MarshalJSON gives an array.
func (l List[T]) MarshalJSON() ([]byte, error) {
	if l == nil {
		return []byte("[]"), nil
	}
	return encode([]T(l)), nil
}

// Object is a JSON object that is {} when it is empty, never null.
type Object map[string]any

// MarshalJSON gives an object.
func (o Object) MarshalJSON() ([]byte, error) {
	if o == nil {
		return []byte("{}"), nil
	}
	return encode(map[string]any(o)), nil
}

// Time is a time written in TimeFormat.
type Time struct{ time.Time }

// MarshalJSON gives a string.
func (t Time) MarshalJSON() ([]byte, error) { return encode(stamp(t.Time)), nil }

func stamp(t time.Time) string { return t.UTC().Format(TimeFormat) }

// encode gives JSON without the HTML escapes of json.Marshal, which would make most code in prompts and answers longer. It
// panics on what no JSON can hold (NaN, a channel, raw JSON that is none): only a mistake in the code that drafts or keeps
// events puts that there, nothing that comes from outside does.
func encode(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("events: %T cannot be written as JSON: %v", v, err))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
