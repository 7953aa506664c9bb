package record

import (
	"errors"

	"muster/shared/fault"
)

// conflict is the fault that a failed condition gives; it carries the record that was there.
type conflict struct {
	current Record
	there   bool
}

func (c *conflict) Error() string { return "the record has another revision" }

// ConflictWith makes the error of a failed condition. there says whether a record was found under the key.
func ConflictWith(current Record, there bool) error {
	return fault.Wrap(&conflict{current, there}, fault.Conflict, "This was changed by someone else in the meantime.")
}

// Current gives the record that made a condition fail. ok is false when err is no conflict, or nothing was there.
func Current(err error) (r Record, ok bool) {
	var c *conflict
	if errors.As(err, &c) && c.there {
		return c.current, true
	}
	return Record{}, false
}
