package openapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// The notation of source/. A schema is a word, or an object.
//
// A word is string, integer, number, boolean, object, any, time, uuid, uri, text (a string, of any kind of content), the
// name of another schema, "id run" (an id with its prefix), "list of X", "map of X", "= x" (nothing else), or "a | b" (one of
// these). "?" at its end allows null, and what comes after " — " describes it.
//
// An object has the names of its fields, "?" after those that may be absent. It has all the others, and none but these,
// unless it says otherwise:
//
//	$doc:  describes it
//	$with: names schemas whose fields it has too
//	$open: true allows other fields, which are ignored, and "kept" those that are not
//	$any:  is a list of schemas of which one fits, instead of fields
//	$raw:  is plain JSON Schema, instead of fields
//	$example: is one

// object is a JSON object whose fields stay in order.
type object []field

type field struct {
	name  string
	value any
}

// get gives the value of a field, nil when there is none.
func (o object) get(name string) any {
	for _, f := range o {
		if f.name == name {
			return f.value
		}
	}
	return nil
}

// text gives the value of a field that is a string, "" when there is none.
func (o object) text(name string) string {
	s, _ := o.get(name).(string)
	return s
}

func (o object) object(name string) object {
	inner, _ := o.get(name).(object)
	return inner
}

func (o object) list(name string) []any {
	l, _ := o.get(name).([]any)
	return l
}

// with gives the object with a field, unless the value says nothing.
func (o object) with(name string, value any) object {
	switch v := value.(type) {
	case nil:
		return o
	case string:
		if v == "" {
			return o
		}
	case object:
		if len(v) == 0 {
			return o
		}
	case []any:
		if len(v) == 0 {
			return o
		}
	}
	return append(o, field{name, value})
}

// MarshalJSON writes the fields in their order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := encode(&b, f.name); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := encode(&b, f.value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func encode(b *bytes.Buffer, v any) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1)
	return nil
}

// parse reads YAML.
func parse(text []byte) (object, error) {
	var v any
	if err := yaml.UnmarshalWithOptions(text, &v, yaml.UseOrderedMap()); err != nil {
		return nil, err
	}
	o, ok := ordered(v).(object)
	if !ok {
		return nil, fmt.Errorf("this is no mapping")
	}
	return o, nil
}

func ordered(v any) any {
	switch v := v.(type) {
	case yaml.MapSlice:
		o := object{}
		for _, item := range v {
			if item.Value == nil { // what a comma without quotes leaves behind
				panic(fmt.Sprintf("%v has no value", item.Key))
			}
			o = append(o, field{fmt.Sprint(item.Key), ordered(item.Value)})
		}
		return o
	case []any:
		for i := range v {
			v[i] = ordered(v[i])
		}
	}
	return v
}

// notation turns what is written into JSON Schema. It knows all schemas by name, as they are written.
type notation struct {
	schemas object
	used    map[string]bool // names that are referred to
}

// schema gives the JSON Schema of something written.
func (n notation) schema(v any) object {
	switch v := v.(type) {
	case string:
		return n.word(v)
	case object:
		return n.composed(v)
	}
	panic(fmt.Sprintf("%v is no schema", v))
}

func (n notation) word(written string) object {
	word, doc, _ := strings.Cut(written, " — ")
	bare, nullable := strings.CutSuffix(strings.TrimSpace(word), "?")
	s := n.bare(bare)
	if nullable {
		s = orNull(s)
	}
	return s.with("description", doc)
}

func (n notation) bare(word string) object {
	if of, ok := strings.CutPrefix(word, "list of "); ok {
		return object{{"type", "array"}, {"items", n.bare(of)}}
	}
	if of, ok := strings.CutPrefix(word, "map of "); ok {
		return object{{"type", "object"}, {"additionalProperties", n.bare(of)}}
	}
	if prefix, ok := strings.CutPrefix(word, "id "); ok {
		return object{{"type", "string"}, {"pattern", "^" + prefix + "_[0-9a-f]{32}$"}}
	}
	if only, ok := strings.CutPrefix(word, "= "); ok {
		return object{{"type", "string"}, {"const", only}}
	}
	if strings.Contains(word, " | ") {
		var all []any
		for one := range strings.SplitSeq(word, " | ") {
			all = append(all, one)
		}
		return object{{"type", "string"}, {"enum", all}}
	}
	switch word {
	case "any":
		return object{}
	case "string", "integer", "number", "boolean", "object":
		return object{{"type", word}}
	case "text":
		return object{{"type", "string"}}
	case "time":
		return object{{"type", "string"}, {"format", "date-time"}}
	case "uuid", "uri":
		return object{{"type", "string"}, {"format", word}}
	}
	if n.schemas.get(word) == nil {
		panic(fmt.Sprintf("there is no schema %q", word))
	}
	n.used[word] = true
	return object{{"$ref", "#/components/schemas/" + word}}
}

// orNull lets null be right too.
func orNull(s object) object {
	if s.text("type") == "" || s.get("const") != nil {
		return object{{"anyOf", []any{s, object{{"type", "null"}}}}}
	}
	nullable := slices.Clone(s)
	for i, f := range nullable {
		switch f.name {
		case "type":
			nullable[i].value = []any{f.value, "null"}
		case "enum":
			nullable[i].value = append(slices.Clone(f.value.([]any)), nil)
		}
	}
	return nullable
}

func (n notation) composed(o object) object {
	s := object{}.with("description", o.get("$doc"))
	switch {
	case o.get("$raw") != nil:
		return append(s, o.object("$raw")...).with("examples", examples(o))
	case o.get("$any") != nil:
		var all []any
		for _, one := range o.list("$any") {
			all = append(all, n.schema(one))
		}
		return s.with("anyOf", all).with("examples", examples(o))
	}
	var properties object
	var required []any
	for _, f := range n.fields(o) {
		name, optional := strings.CutSuffix(f.name, "?")
		properties = append(properties, field{name, n.schema(f.value)})
		if !optional {
			required = append(required, name)
		}
	}
	s = append(s, field{"type", "object"}).with("properties", properties).with("required", required)
	switch o.get("$open") {
	case nil:
		s = append(s, field{"additionalProperties", false})
	case "kept":
		s = append(s, field{"additionalProperties", true})
	}
	return s.with("examples", examples(o))
}

// fields gives the fields of an object and of those it is written with.
func (n notation) fields(o object) (all object) {
	for _, name := range o.list("$with") {
		of, ok := n.schemas.get(name.(string)).(object)
		if !ok {
			panic(fmt.Sprintf("there is no schema %v to be with", name))
		}
		all = append(all, n.fields(of)...)
	}
	for _, f := range o {
		if !strings.HasPrefix(f.name, "$") {
			all = append(all, f)
		}
	}
	return all
}

func examples(o object) []any {
	if e := o.get("$example"); e != nil {
		return []any{e}
	}
	return nil
}
