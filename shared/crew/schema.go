package crew

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// compileSchema checks a JSON Schema of a definition. What a schema refers to has to be in
// the schema itself: nothing is loaded from anywhere.
func compileSchema(raw json.RawMessage) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	const name = "urn:muster:schema"
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource(name, doc); err != nil {
		return nil, fmt.Errorf("add the schema: %w", err)
	}
	return c.Compile(name)
}

// noLoader refuses to load anything.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("it refers to %s, and a schema may refer to nothing outside itself", url)
}

// schema reads an output model: a JSON Schema of an object. given says that the field was there at all.
func (f *fields) schema(name string) (raw json.RawMessage, given bool) {
	v, ok := f.take(name)
	if !ok {
		return nil, false
	}
	if s, ok := v.(string); ok {
		f.fail(f.at(name), "names the Python class '%s', which is not built yet: give a JSON Schema object", shorten(s))
		return nil, true
	}
	o, ok := v.(object)
	if !ok {
		f.fail(f.at(name), "must be a JSON Schema object, not %s", kindOf(v))
		return nil, true
	}
	if t, ok := o.get("type"); ok && t != "object" {
		f.fail(f.at(name), `must describe an object ("type": "object")`)
		return nil, true
	}
	raw, err := json.Marshal(o)
	if err == nil {
		_, err = compileSchema(raw)
	}
	if err != nil {
		f.fail(f.at(name), "is not a valid JSON Schema: %s", oneLine(err.Error()))
		return nil, true
	}
	return raw, true
}

// oneLine makes a short line of a library's message.
func oneLine(s string) string {
	s = strings.ReplaceAll(s, "urn:muster:schema", "")
	s = strings.Join(strings.Fields(s), " ")
	const most = 300
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
