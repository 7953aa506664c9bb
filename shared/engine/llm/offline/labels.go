package offline

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"muster/shared/engine/rank"
)

// labelled is a value that the input gives a name: a line "Company: Acme" or a field of JSON.
type labelled struct{ name, value string }

var labelLine = regexp.MustCompile(`^\s*(?:[-*]\s+)?\**([\p{L}][\p{L}\d _/-]{0,40}?)\**\s*:\**\s+(\S.*?)\s*$`)

// labels are the named values of everything that is known, the task's first.
func (p prompt) labels() []labelled {
	var all []labelled
	for _, text := range append([]string{p.task, p.context}, p.found...) {
		prose, values := withoutJSON(text)
		for line := range strings.Lines(prose) {
			if m := labelLine.FindStringSubmatch(line); m != nil && !instructs(m[1]) {
				all = append(all, labelled{m[1], m[2]})
			}
		}
		for _, v := range values {
			all = appendFields(all, "", v, 0)
		}
	}
	return all
}

// appendFields adds the fields of a JSON value that are not objects or lists themselves.
func appendFields(all []labelled, name string, value any, depth int) []labelled {
	if depth > maxFillDepth {
		return all
	}
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			all = appendFields(all, key, v[key], depth+1)
		}
	case []any:
		for _, item := range v {
			if _, nested := item.(map[string]any); nested {
				all = appendFields(all, name, item, depth+1)
			}
		}
	case nil:
	default:
		if text := strings.TrimSpace(fmt.Sprint(v)); name != "" && text != "" {
			all = append(all, labelled{name, text})
		}
	}
	return all
}

// label finds the value that has the name of a property. Failing that, one whose name has one word more, or lacks only a
// word such as "name": "Company" is company_name.
func (f *filler) label(name string) (string, bool) {
	wanted := rank.Words(words(name))
	if len(wanted) == 0 {
		return "", false
	}
	core := slices.DeleteFunc(slices.Clone(wanted), func(w string) bool { return attributes[w] })
	near := ""
	for _, l := range f.labels {
		has := rank.Words(words(l.name))
		if slices.Equal(has, wanted) {
			return l.value, true
		}
		more := len(has) == len(wanted)+1 && !slices.ContainsFunc(wanted, func(w string) bool { return !slices.Contains(has, w) })
		if near == "" && (more || len(core) > 0 && slices.Equal(has, core)) {
			near = l.value
		}
	}
	return near, near != ""
}

// attributes are words of names that add nothing to what they follow.
var attributes = map[string]bool{rank.Normal("name"): true, rank.Normal("id"): true, rank.Normal("number"): true, rank.Normal("value"): true,
	rank.Normal("text"): true, rank.Normal("address"): true, rank.Normal("date"): true}

// maxJSONTries bounds how often a bracket is tried in vain as the beginning of JSON.
const maxJSONTries = 50

// withoutJSON takes the JSON objects and lists of objects out of a text and gives them beside it.
func withoutJSON(text string) (prose string, values []any) {
	var b strings.Builder
	tries := 0
	for {
		at := strings.IndexAny(text, "{[")
		if at < 0 || tries == maxJSONTries {
			b.WriteString(text)
			return b.String(), values
		}
		b.WriteString(text[:at])
		d := json.NewDecoder(strings.NewReader(text[at:]))
		d.UseNumber()
		var value any
		if d.Decode(&value) != nil || empty(value) {
			tries++
			b.WriteByte(text[at])
			text = text[at+1:]
			continue
		}
		b.WriteString("\n\n") // the lines around it are not one
		values = append(values, value)
		text = text[at+int(d.InputOffset()):]
	}
}

// empty tells JSON that is worth nothing: [1] may well be a footnote.
func empty(value any) bool {
	switch v := value.(type) {
	case map[string]any:
		return len(v) == 0
	case []any:
		return !slices.ContainsFunc(v, func(item any) bool {
			_, number := item.(json.Number)
			return !number
		})
	}
	return true
}

// texts are the texts in the values of JSON, long ones by sentences, those of fields in the order of their names.
func texts(values []any) []string {
	var all []string
	var walk func(value any, depth int)
	walk = func(value any, depth int) {
		if depth > maxFillDepth {
			return
		}
		switch v := value.(type) {
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(v)) {
				walk(v[key], depth+1)
			}
		case []any:
			for _, item := range v {
				walk(item, depth+1)
			}
		case string:
			if whole := oneLine(v); len(whole) <= maxUnit {
				all = append(all, whole)
			} else {
				all = append(all, rank.Sentences(v)...)
			}
		}
	}
	for _, v := range values {
		walk(v, 0)
	}
	return all
}
