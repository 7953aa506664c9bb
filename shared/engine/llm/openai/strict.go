package openai

import (
	"encoding/json"
	"maps"
	"slices"
)

// optionalProperty says what strict mode, which wants every property required, makes of an optional one.
type optionalProperty int

const (
	// optionalIsRequired asks for more than the schema does: right for answers, which still satisfy it.
	optionalIsRequired optionalProperty = iota
	// optionalIsNull takes a property as required only where null means "not given": right for arguments of tools, which a
	// model must not be made to invent.
	optionalIsNull
)

// strictSchema gives the strict form of a JSON Schema: objects closed and all their properties required. When the schema
// uses what strict mode does not know, it gives the schema as it is, and false.
func strictSchema(schema json.RawMessage, optional optionalProperty) (any, bool) {
	var plain, strict any
	if json.Unmarshal(schema, &plain) != nil || json.Unmarshal(schema, &strict) != nil {
		return map[string]any{"type": "object"}, false
	}
	root, ok := strict.(map[string]any)
	if !ok || root["type"] != "object" || !tighten(root, optional) {
		return plain, false
	}
	return root, true
}

// understood are the keywords that strict mode takes; those in annotations are taken out, for they bind nobody.
var (
	understood = map[string]bool{"type": true, "properties": true, "required": true, "additionalProperties": true, "items": true,
		"enum": true, "const": true, "description": true, "anyOf": true, "$ref": true, "$defs": true}
	annotations = []string{"$schema", "$id", "$comment", "title", "default", "examples"}
)

func tighten(s map[string]any, optional optionalProperty) bool {
	for _, name := range annotations {
		delete(s, name)
	}
	for name := range s {
		if !understood[name] {
			return false
		}
	}
	if _, typed := s["type"]; !typed && s["enum"] == nil && s["const"] == nil && s["anyOf"] == nil && s["$ref"] == nil {
		return false
	}
	if defs, ok := s["$defs"].(map[string]any); ok && !tightenAll(defs, optional) {
		return false
	}
	if choices, ok := s["anyOf"].([]any); ok {
		for _, c := range choices {
			if m, ok := c.(map[string]any); !ok || !tighten(m, optional) {
				return false
			}
		}
	}
	if allows(s, "array") {
		items, ok := s["items"].(map[string]any)
		if !ok || !tighten(items, optional) {
			return false
		}
	}
	if allows(s, "object") {
		return tightenObject(s, optional)
	}
	return true
}

func tightenObject(s map[string]any, optional optionalProperty) bool {
	properties, _ := s["properties"].(map[string]any)
	if more, given := s["additionalProperties"]; given && more != false && more != true {
		return false
	}
	if len(properties) == 0 && s["additionalProperties"] != false {
		return false
	}
	required := map[string]bool{}
	if names, ok := s["required"].([]any); ok {
		for _, n := range names {
			name, _ := n.(string)
			if _, known := properties[name]; !known {
				return false
			}
			required[name] = true
		}
	}
	for name, p := range properties {
		property, ok := p.(map[string]any)
		if !ok {
			return false
		}
		if !required[name] && optional == optionalIsNull && !allows(property, "null") {
			return false
		}
	}
	s["additionalProperties"] = false
	if len(required) < len(properties) {
		s["required"] = slices.Sorted(maps.Keys(properties))
	}
	return tightenAll(properties, optional)
}

func tightenAll(schemas map[string]any, optional optionalProperty) bool {
	for _, p := range schemas {
		if m, ok := p.(map[string]any); !ok || !tighten(m, optional) {
			return false
		}
	}
	return true
}

// allows tells whether a schema's type is, or may be, the one named.
func allows(s map[string]any, name string) bool {
	switch t := s["type"].(type) {
	case string:
		return t == name
	case []any:
		for _, one := range t {
			if one == name {
				return true
			}
		}
	}
	return false
}
