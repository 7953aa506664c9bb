package webhook

import (
	"bytes"
	"encoding/json"
)

// Marshal writes a value as a body: its JSON in the form of Canonical.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return Canonical(b.Bytes())
}
