package run

import (
	"slices"

	"muster/events"
)

// Wants says whether a page has something to tell a target.
func Wants(t Target, p Page) bool {
	switch t.Kind {
	case StepTarget:
		return len(p.Notes) > 0
	case TaskTarget:
		return len(p.Tasks) > 0
	case CrewTarget:
		return p.Kind == EndPage
	case StreamTarget:
		return slices.ContainsFunc(p.Events, func(e events.Event) bool { return t.Asks(e.Type) })
	}
	return false
}

// Asks says whether a stream asked for events of this type.
func (t Target) Asks(eventType string) bool {
	return t.Kind == StreamTarget && (slices.Contains(t.Events, eventType) || slices.Contains(t.Events, "*"))
}

// tell gives the ids of the targets that a page has something for.
func tell(targets []Target, p Page) (ids []string) {
	for _, t := range targets {
		if Wants(t, p) {
			ids = append(ids, t.ID)
		}
	}
	return ids
}
