package tool

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"muster/events"
)

const (
	// maxText is the number of bytes of a result that the model is told.
	maxText = 64 << 10
	// maxEvents is the number of events that one reply may bring.
	maxEvents = 100
)

// eventsKey is the field of a JSON reply that holds events to tell the world: [{"type": …, "data": {…}}, …].
const eventsKey = "muster_events"

// takeEvents takes the events out of a JSON reply. What is no event is left out and noted at the end of the text.
func takeEvents(reply []byte) (text string, taken []Event) {
	if !strings.Contains(string(reply), eventsKey) {
		return string(reply), nil
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(reply, &object) != nil || object[eventsKey] == nil {
		return string(reply), nil
	}
	taken, note := readEvents(eventsKey, object[eventsKey])
	delete(object, eventsKey)
	rest, err := json.Marshal(object)
	if err != nil {
		rest = reply
	}
	return string(rest) + note, taken
}

// readEvents reads a list of events and notes those that cannot be told.
func readEvents(field string, list json.RawMessage) (good []Event, note string) {
	var all []json.RawMessage
	if json.Unmarshal(list, &all) != nil {
		return nil, fmt.Sprintf("\n[%s was left out: it is no list]", field)
	}
	for i, one := range all {
		if i == maxEvents {
			note += fmt.Sprintf("\n[%s was cut after %d events]", field, maxEvents)
			break
		}
		var e Event
		err := json.Unmarshal(one, &e)
		if err == nil {
			e, err = checkEvent(e)
		}
		if err != nil {
			note += fmt.Sprintf("\n[%s[%d] was left out: %v]", field, i, err)
			continue
		}
		good = append(good, e)
	}
	return good, note
}

// checkEvent holds an event to the rules of custom events.
func checkEvent(e Event) (Event, error) {
	draft, err := events.NewCustom(e.Type, e.Data, events.Identity{})
	if err != nil {
		return Event{}, err
	}
	return Event{Type: draft.Type, Data: draft.Data}, nil
}

// capped makes bytes that came from outside fit to be told to a model: valid UTF-8, not too long.
func capped(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + fmt.Sprintf("\n[cut after %d KB]", maxText>>10)
}
