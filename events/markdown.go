package events

import (
	"fmt"
	"strings"
)

// Markdown gives the catalogue as the document EVENTS.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString(`# The events of a run

<!-- Made of the catalogue by: go test ./events -update -->

An event is sent as ` + "`{\"id\", \"execution_id\", \"timestamp\", \"type\", \"data\"}`" + `. Its data has the base fields, then the
fields of its type; each is always present, null where it has no value. An event that opens a scope is the parent of what
is told until the scope is closed; the closing event names it in started_event_id. Reserved types are not told yet.

## Base fields

`)
	writeFields(&b, Common())
	fmt.Fprintf(&b, `
## Custom events

A tool, a model or a caller may tell events of its own. The type is 1 to 64 characters: a small letter, then small letters,
digits and _ . : -. The data is a JSON object of at most %d KB, nested at most %d levels deep, without the names of the base
fields. Types that begin so are kept for events of the system: %s.
`, MaxCustomData>>10, maxCustomDepth, strings.Join(reservedPrefixes, " "))
	heading := ""
	for _, k := range All() {
		if k.Family != heading {
			heading = k.Family
			fmt.Fprintf(&b, "\n## Family %s\n", heading)
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s", k.Type, k.Doc)
		if k.Opens != "" {
			fmt.Fprintf(&b, " Opens %s.", k.Opens)
		}
		if k.Closes != "" {
			fmt.Fprintf(&b, " Closes %s.", k.Closes)
		}
		if !k.Emitted {
			b.WriteString(" Reserved.")
		}
		b.WriteString("\n")
		if len(k.Fields) > 0 {
			b.WriteString("\n")
			writeFields(&b, k.Fields)
		}
	}
	return b.String()
}

func writeFields(b *strings.Builder, list []Field) {
	b.WriteString("| field | type | |\n|---|---|---|\n")
	writeRows(b, "", list)
}

func writeRows(b *strings.Builder, prefix string, list []Field) {
	for _, f := range list {
		typ := f.Type
		if f.Nullable && typ != "any" {
			typ += " or null"
		}
		fmt.Fprintf(b, "| %s%s | %s | %s |\n", prefix, f.Name, typ, f.Doc)
		inner := prefix + f.Name + "."
		if f.Type == "array" {
			inner = prefix + f.Name + "[]."
		}
		writeRows(b, inner, f.Fields)
	}
}
