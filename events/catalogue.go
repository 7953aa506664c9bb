package events

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"sync"
)

// Kind describes a type of event. Its JSON form is a row of the table that GET /v1/events/types serves.
type Kind struct {
	Type   string `json:"type"`
	Family string `json:"family"`
	// Emitted is false for a type that is only reserved: Muster does not tell it yet.
	Emitted bool `json:"emitted"`
	// Opens names the scope that begins with the event, Closes the scope that ends: what is told in between is nested in the
	// opening event, and started_event_id of the closing event is the opening one's id.
	Opens  string `json:"opens,omitempty"`
	Closes string `json:"closes,omitempty"`
	// Doc is a sentence that says when the event is told.
	Doc string `json:"doc"`
	// Fields are the event's own, beside those that every event has.
	Fields []Field `json:"fields"`

	// prompt says that the event shows a conversation: see Draft.Prompt.
	prompt bool
}

// Field describes a field of an event. It is always present.
type Field struct {
	Name string `json:"name"`
	// Type is string, integer, number, boolean, array, object, any, or time: a string in TimeFormat.
	Type     string `json:"type"`
	Nullable bool   `json:"nullable"`
	Doc      string `json:"doc,omitempty"`
	// Fields are those of the object, or of each object of the array, where it always has the same.
	Fields []Field `json:"fields,omitempty"`
}

// fields is a struct of the catalogue: the own fields of one type of event. A new type is a struct with its constructor in
// the file of its family, and its line in the family; go test ./events -update makes the rest.
type fields interface{ kind() Kind }

type family struct {
	name    string
	structs []fields
}

var families = []family{
	crewFamily, taskFamily, agentFamily, llmFamily, llmGuardrailFamily, toolFamily, memoryFamily, knowledgeFamily,
	reasoningFamily, flowFamily, mcpFamily, skillFamily, checkpointFamily, runFamily,
}

// All gives the catalogue, family by family.
func All() []Kind {
	var all []Kind
	for _, f := range families {
		for _, s := range f.structs {
			k, t := s.kind(), reflect.TypeOf(s)
			k.Family, k.Doc, k.Fields = f.name, docs[t.Name()], describe(t)
			if k.prompt {
				k.Fields = append(k.Fields, Field{
					Name: "messages", Type: "array", Nullable: true, Doc: "messages are the conversation sent to the model.",
				})
			}
			all = append(all, k)
		}
	}
	return all
}

// Common gives the fields that every event has.
func Common() []Field { return describe(reflect.TypeFor[base]()) }

// familyOf finds the family of every type.
var familyOf = sync.OnceValue(func() map[string]string {
	found := map[string]string{}
	for _, f := range families {
		for _, s := range f.structs {
			found[s.kind().Type] = f.name
		}
	}
	return found
})

// CheckEmitted compares the types that a test suite has seen with the catalogue: missing are the emitted types that were
// not seen, unexpected the types seen that are only reserved or could not even be a custom event's.
func CheckEmitted(seen map[string]bool) (missing, unexpected []string) {
	emitted := map[string]bool{}
	for _, k := range All() {
		emitted[k.Type] = k.Emitted
		if k.Emitted && !seen[k.Type] {
			missing = append(missing, k.Type)
		}
	}
	for _, t := range slices.Sorted(maps.Keys(seen)) {
		if seen[t] && !emitted[t] && checkCustomType(t) != nil {
			unexpected = append(unexpected, t)
		}
	}
	return missing, unexpected
}

func draft(who Identity, f fields) Draft {
	k := f.kind()
	return Draft{Type: k.Type, Who: who, Data: encode(f), Prompt: k.prompt}
}

// describe lists the JSON fields of a struct, those of embedded structs in their place.
func describe(t reflect.Type) []Field {
	list := []Field{}
	for f := range t.Fields() {
		if f.Anonymous {
			list = append(list, describe(f.Type)...)
			continue
		}
		d := Field{
			Name:     f.Tag.Get("json"),
			Type:     jsonType(f.Type),
			Nullable: string(encode(reflect.Zero(f.Type).Interface())) == "null",
			Doc:      docs[t.Name()+"."+f.Name],
		}
		inner := f.Type
		if inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && jsonType(inner) == "object" {
			d.Fields = describe(inner)
		}
		list = append(list, d)
	}
	return list
}

func jsonType(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Time]():
		return "time"
	case reflect.TypeFor[json.RawMessage]():
		return "any"
	}
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Float64:
		return "number"
	case reflect.Int, reflect.Int64:
		return "integer"
	case reflect.Struct, reflect.Map:
		return "object"
	case reflect.Slice:
		return "array"
	case reflect.Pointer:
		return jsonType(t.Elem())
	}
	return "any"
}
