package crew

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"muster/shared/fault"
)

// TriggerPayload is the input whose value is shown to the first task, and to those that ask for it.
const TriggerPayload = "crewai_trigger_payload"

// placeholder is a name in braces. Braces with anything else in them, JSON for one, are text.
var placeholder = regexp.MustCompile(`\{([A-Za-z_][A-Za-z0-9_-]*)\}`)

// InputNames gives the names of all placeholders, sorted.
func (d Definition) InputNames() []string {
	names := map[string]bool{}
	for _, text := range d.texts() {
		for _, m := range placeholder.FindAllStringSubmatch(*text.text, -1) {
			names[m[1]] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// MissingInputs gives the names of placeholders that have neither an input nor a default, sorted.
func MissingInputs(d Definition, inputs map[string]any) []string {
	return slices.DeleteFunc(d.InputNames(), func(name string) bool {
		_, given := inputs[name]
		_, byDefault := d.Inputs[name]
		return given || byDefault
	})
}

// With gives the definition with its placeholders filled in: from the inputs, else from the definition's own defaults.
// Without any, text stays as it is. The error is fault.Missing for a placeholder without a value, and fault.Invalid for a value
// of a type that JSON does not have.
func (d Definition) With(inputs map[string]any) (Definition, error) {
	if d.Literal {
		return d, nil
	}
	all := maps.Clone(d.Inputs)
	if all == nil {
		all = map[string]any{}
	}
	maps.Copy(all, inputs)
	d.Agents, d.Tasks = slices.Clone(d.Agents), slices.Clone(d.Tasks)
	d.Inputs = all
	if len(all) == 0 {
		return d, nil
	}
	values, err := forms(all)
	if err != nil {
		return Definition{}, err
	}
	for _, t := range d.texts() {
		filled, missing := fill(*t.text, values)
		if missing != nil {
			return Definition{}, missingVariables(missing, " in the "+t.field+" of "+t.owner)
		}
		*t.text = filled
	}
	if payload, ok := all[TriggerPayload]; ok && payload != nil && payload != "" {
		for i := range d.Tasks {
			if t := &d.Tasks[i]; t.TriggerContext == nil && i == 0 || t.TriggerContext != nil && *t.TriggerContext {
				t.Description += "\n\nTrigger Payload: " + values[TriggerPayload]
			}
		}
	}
	return d, nil
}

// fill replaces each placeholder by its value, and names those that have none.
func fill(text string, values map[string]string) (filled string, missing []string) {
	filled = placeholder.ReplaceAllStringFunc(text, func(p string) string {
		name := p[1 : len(p)-1]
		value, ok := values[name]
		if !ok && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
		return value
	})
	return filled, missing
}

func missingVariables(names []string, where string) error {
	slices.Sort(names)
	return fault.New(fault.Missing, "Missing required template variable '%s'%s.", strings.Join(names, "', '"), where).
		With(map[string]any{"missing_inputs": names})
}

// forms gives the text of every input: a string as it is, anything else as JSON.
func forms(inputs map[string]any) (map[string]string, error) {
	values := make(map[string]string, len(inputs))
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		if s, ok := inputs[name].(string); ok {
			values[name] = s
			continue
		}
		if !isJSON(inputs[name], 0) {
			return nil, fault.New(fault.Invalid, "The input '%s' must be text, a number, true, false, null, a list or an object of those.", shorten(name))
		}
		var out strings.Builder
		e := json.NewEncoder(&out)
		e.SetEscapeHTML(false)
		if err := e.Encode(inputs[name]); err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "The input '%s' cannot be written as JSON.", shorten(name))
		}
		values[name] = strings.TrimSuffix(out.String(), "\n")
	}
	return values, nil
}

// isJSON tells whether a value is of a type that JSON has.
func isJSON(v any, depth int) bool {
	if depth > 1000 {
		return false
	}
	switch v := v.(type) {
	case nil, bool, string, json.Number, float64, float32, int, int64, int32:
		return true
	case []any:
		return !slices.ContainsFunc(v, func(e any) bool { return !isJSON(e, depth+1) })
	case map[string]any:
		for _, e := range v {
			if !isJSON(e, depth+1) {
				return false
			}
		}
		return true
	}
	return false
}

// slot is a text that has placeholders, and whose it is.
type slot struct {
	text         *string
	field, owner string
}

// texts gives the texts that are filled in. They point into the definition's own slices.
func (d *Definition) texts() []slot {
	slots := make([]slot, 0, 3*len(d.Agents)+2*len(d.Tasks))
	for i := range d.Tasks {
		t, owner := &d.Tasks[i], "task '"+d.Tasks[i].Key+"'"
		slots = append(slots, slot{&t.Description, "description", owner}, slot{&t.ExpectedOutput, "expected_output", owner})
	}
	for i := range d.Agents {
		a, owner := &d.Agents[i], "agent '"+d.Agents[i].Key+"'"
		slots = append(slots, slot{&a.Role, "role", owner}, slot{&a.Goal, "goal", owner}, slot{&a.Backstory, "backstory", owner})
	}
	return slots
}
