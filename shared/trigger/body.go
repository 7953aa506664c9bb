package trigger

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"muster/shared/fault"
)

// maxDepth is how deep a body may be nested.
const maxDepth = 100

// parse reads what came: JSON of any kind, nothing (which is an object without fields), or a form where the sender sends
// some. Numbers keep their digits. What it is called decides little: programs often do not say, or say something else.
func parse(h http.Header, body []byte, forms bool) (any, error) {
	if e := strings.ToLower(h.Get("Content-Encoding")); e != "" && e != "identity" {
		return nil, fault.New(fault.Unsupported, "A body with a Content-Encoding is not accepted; send it as it is.")
	}
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if h.Get("Content-Type") == "" {
		kind, err = "application/json", nil
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "The Content-Type cannot be read; send JSON, as application/json.")
	}
	switch {
	case kind == "application/x-www-form-urlencoded" && forms:
		return parseForm(body)
	case kind == "application/json", strings.HasSuffix(kind, "+json"), kind == "text/plain", kind == "application/x-www-form-urlencoded":
		return parseJSON(body)
	}
	return nil, fault.New(fault.Invalid, "The Content-Type is %q; send JSON, as application/json.", clip(kind, 100))
}

func parseJSON(body []byte) (any, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return map[string]any{}, nil
	}
	if !utf8.Valid(body) {
		return nil, fault.New(fault.Invalid, "The request body is not valid UTF-8.")
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	err := d.Decode(&v)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the value")
		}
	}
	if deeper(v, maxDepth) || err != nil && strings.Contains(err.Error(), "exceeded max depth") {
		return nil, fault.New(fault.Invalid, "The request body is nested more than %d levels deep.", maxDepth)
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The request body is not JSON: %s.", err)
	}
	return v, nil
}

// deeper says whether a value is nested deeper than so many levels.
func deeper(v any, levels int) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, item := range v {
			if levels == 0 || deeper(item, levels-1) {
				return true
			}
		}
		return levels == 0
	case []any:
		for _, item := range v {
			if levels == 0 || deeper(item, levels-1) {
				return true
			}
		}
		return levels == 0
	}
	return false
}

// parseForm reads a form: its fields, or the JSON in the field "payload" when that is all there is.
func parseForm(body []byte) (any, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil || !utf8.Valid(body) {
		return nil, fault.New(fault.Invalid, "The request body is not a form.")
	}
	if payload, ok := form["payload"]; ok && len(form) == 1 && len(payload) == 1 {
		return parseJSON([]byte(payload[0]))
	}
	fields := make(map[string]any, len(form))
	for name, values := range form {
		if !utf8.ValidString(name) || !utf8.ValidString(values[0]) {
			return nil, fault.New(fault.Invalid, "The request body is not valid UTF-8.")
		}
		fields[name] = values[0]
	}
	return fields, nil
}

// clip shortens what a stranger wrote.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
