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
		return t.asksAny(p.Events)
	case EndpointTarget:
		return t.asksAny(p.Events) || slices.ContainsFunc(p.Lifecycle(), t.Asks)
	case ChannelTarget:
		return t.asksAny(p.Events)
	}
	return false
}

func (t Target) asksAny(all []events.Event) bool {
	return slices.ContainsFunc(all, func(e events.Event) bool { return t.Asks(e.Type) })
}

// Asks says whether a stream or an endpoint asked for events of this type, or, an endpoint, for this name of the
// lifecycle. Chunks, which are many, an endpoint has to ask for by name.
func (t Target) Asks(eventType string) bool {
	switch t.Kind {
	case StreamTarget:
		return slices.Contains(t.Events, eventType) || slices.Contains(t.Events, "*")
	case EndpointTarget:
		return slices.Contains(t.Events, eventType) || slices.Contains(t.Events, "*") && !slices.Contains(chunks, eventType)
	case ChannelTarget:
		return !slices.Contains(chunks, eventType)
	}
	return false
}

// chunks are the pieces of a model's answer that is still on its way.
var chunks = []string{"llm_stream_chunk", "llm_thinking_chunk"}

// Lifecycle gives the names under which endpoints know what a page means for its run. A run that was stopped is canceled
// and nothing else; one that reached a limit or ran out of time has failed.
func (p Page) Lifecycle() (names []string) {
	if slices.ContainsFunc(p.Events, func(e events.Event) bool { return e.Type == kickoffStarted }) {
		names = append(names, events.RunStarted)
	}
	switch {
	case p.Kind == QuestionPage:
		names = append(names, events.RunWaiting)
	case p.Outcome == nil:
	case p.Outcome.State == Succeeded:
		names = append(names, events.RunSucceeded)
	case p.Outcome.State == Canceled:
		names = append(names, events.RunCanceled)
	default:
		names = append(names, events.RunFailed)
	}
	return names
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
