package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// noLoader refuses every reference to another document: a schema comes with the crew, and must not read files here.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("a schema may not refer to another document (%s)", url)
}

// compileSchema makes a validator of a JSON Schema; nil text accepts everything.
func compileSchema(text json.RawMessage) (*jsonschema.Schema, error) {
	if len(text) == 0 {
		text = json.RawMessage(`true`)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	const name = "urn:schema" // a relative name would be taken for a file in the working directory, which may be gone
	if err := c.AddResource(name, doc); err != nil {
		return nil, err
	}
	return c.Compile(name)
}

// complaint says in a line what does not satisfy the schema, or "" when everything does.
func complaint(schema *jsonschema.Schema, value any) string {
	err := schema.Validate(value)
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		if err != nil {
			return err.Error()
		}
		return ""
	}
	// The first line names the schema's address, which means nothing to anybody.
	_, list, _ := strings.Cut(invalid.Error(), "\n")
	var parts []string
	for line := range strings.SplitSeq(list, "\n") {
		line = strings.TrimPrefix(strings.TrimSpace(line), "- ")
		parts = append(parts, strings.TrimPrefix(line, "at '': "))
	}
	return strings.Join(parts, "; ")
}

// readJSON finds JSON that satisfies the schema in a model's answer: the whole of it, or its first object. Without one,
// problem says what is wrong with the best candidate.
func readJSON(text string, schema *jsonschema.Schema) (value json.RawMessage, problem string) {
	problem = "it is not JSON"
	for _, candidate := range []string{unfenced(text), firstObject(text)} {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(candidate))
		if err != nil {
			continue
		}
		if problem = complaint(schema, v); problem == "" {
			var b bytes.Buffer
			if err := json.Compact(&b, []byte(candidate)); err != nil {
				continue
			}
			return b.Bytes(), ""
		}
	}
	return nil, problem
}

// firstObject gives the first JSON object inside text, or "".
func firstObject(text string) string {
	for range 32 { // braces that begin no JSON, such as those of a template
		i := strings.IndexByte(text, '{')
		if i < 0 {
			return ""
		}
		text = text[i:]
		var object json.RawMessage
		if json.NewDecoder(strings.NewReader(text)).Decode(&object) == nil {
			return string(object)
		}
		text = text[1:]
	}
	return ""
}

// decodeForSchema gives a value in the form that the validator reads.
func decodeForSchema(v any) (any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(data))
}

// mustCompile compiles a schema of our own.
func mustCompile(text json.RawMessage) *jsonschema.Schema {
	schema, err := compileSchema(text)
	if err != nil {
		panic(err)
	}
	return schema
}
