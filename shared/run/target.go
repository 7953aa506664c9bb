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
	case HumanTarget:
		return p.Kind == QuestionPage
	case StreamTarget:
		return slices.ContainsFunc(p.Events, func(e events.Event) bool { return t.Asks(e.Type) })
	}
	return false
}

// Asks says whether a stream asked for events of this type.
func (t Target) Asks(eventType string) bool {
	return t.Kind == StreamTarget && (slices.Contains(t.Events, eventType) || slices.Contains(t.Events, "*"))
}

// replaced gives targets with some of them replaced by those of the same id, and new ones added. A target that keeps its
// URL keeps its Authorization, unless it is given another.
func replaced(targets, by []Target) []Target {
	all := slices.Clone(targets)
	for _, t := range by {
		at := slices.IndexFunc(all, func(o Target) bool { return o.ID == t.ID })
		if at < 0 {
			all = append(all, t)
			continue
		}
		if t.Authorization == "" && t.URL == all[at].URL {
			t.Authorization = all[at].Authorization
		}
		all[at] = t
	}
	return all
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
