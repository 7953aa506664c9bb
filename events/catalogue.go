package events

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
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
	// Type is string, integer, number, boolean, time, array, object or any.
	Type     string `json:"type"`
	Nullable bool   `json:"nullable"`
	Doc      string `json:"doc,omitempty"`
}

// fields is a struct of the catalogue: the own fields of one type of event.
type fields interface{ kind() Kind }

type family struct {
	name    string
	structs []fields
}

var families = []family{
	crewFamily, taskFamily, agentFamily, llmFamily, llmGuardrailFamily, toolFamily, memoryFamily, knowledgeFamily,
	reasoningFamily, flowFamily, mcpFamily, skillFamily, checkpointFamily,
}

// All gives the catalogue, family by family.
func All() []Kind {
	var all []Kind
	for _, f := range families {
		for _, s := range f.structs {
			k, t := s.kind(), reflect.TypeOf(s)
			k.Family, k.Doc, k.Fields = f.name, docs[t.Name()], describe(t)
			if k.prompt {
				k.Fields = append(k.Fields, Field{"messages", "array", true, "messages are the conversation sent to the model."})
			}
			all = append(all, k)
		}
	}
	return all
}

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
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		typ, nullable := jsonType(f.Type)
		list = append(list, Field{name, typ, nullable, docs[t.Name()+"."+f.Name]})
	}
	return list
}

func jsonType(t reflect.Type) (name string, nullable bool) {
	switch t {
	case reflect.TypeFor[Text]():
		return "string", true
	case reflect.TypeFor[Time]():
		return "time", false
	case reflect.TypeFor[Object]():
		return "object", false
	case reflect.TypeFor[json.RawMessage]():
		return "any", true
	}
	switch t.Kind() {
	case reflect.String:
		return "string", false
	case reflect.Bool:
		return "boolean", false
	case reflect.Float64:
		return "number", false
	case reflect.Int, reflect.Int64:
		return "integer", false
	case reflect.Struct:
		return "object", false
	case reflect.Map:
		return "object", true
	case reflect.Pointer:
		name, _ = jsonType(t.Elem())
		return name, true
	case reflect.Slice:
		return "array", !strings.HasPrefix(t.Name(), "List[")
	}
	return "any", true
}
