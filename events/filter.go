package events

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// CheckFilter tells whether one may ask for events of a type: "*" for all, what Lifecycle names, a type of the catalogue,
// or, custom, one that events of the user's own may have. The error is a sentence for whoever asked; it names the types
// that may have been meant.
func CheckFilter(typ string) (custom bool, err error) {
	known := []string{"*"}
	for _, n := range Lifecycle() {
		known = append(known, n.Type)
	}
	for _, k := range All() {
		known = append(known, k.Type)
	}
	if slices.Contains(known, typ) {
		return false, nil
	}
	near := nearest(known, typ)
	if len(near) == 0 {
		if checkCustomType(typ) == nil {
			return true, nil
		}
		return false, fmt.Errorf("there is no event type %.80q; GET /v1/events/types lists all", typ)
	}
	return false, fmt.Errorf("there is no event type %.80q; did you mean %s? GET /v1/events/types lists all", typ, strings.Join(near, " or "))
}

// nearest gives up to three of the names that differ from one in a few letters only, or in how its words are joined.
func nearest(names []string, name string) []string {
	if len(name) > 64 {
		return nil
	}
	type candidate struct {
		name  string
		edits int
	}
	var near []candidate
	joined := strings.NewReplacer(".", "_", "-", "_", ":", "_").Replace(strings.ToLower(name))
	for _, n := range names {
		edits := distance(strings.ReplaceAll(n, ".", "_"), joined)
		if edits <= min(3, len(n)/4) {
			near = append(near, candidate{n, edits})
		}
	}
	slices.SortStableFunc(near, func(a, b candidate) int { return cmp.Compare(a.edits, b.edits) })
	var found []string
	for _, c := range near[:min(3, len(near))] {
		found = append(found, c.name)
	}
	return found
}

// distance counts the letters to insert, remove or replace until a is b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
