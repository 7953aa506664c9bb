package tool

import (
	"context"
	"encoding/json"
	"fmt"

	"muster/shared/crew"
	"muster/shared/engine/llm"
)

// emitEvent tells the world something of the crew's own. It asks nobody: the engine puts the event into the journal.
type emitEvent struct{ function llm.Function }

func openEmitEvent(t crew.Tool) (Tool, error) {
	if err := readSettings(t, &struct{}{}); err != nil {
		return nil, err
	}
	return emitEvent{describe(t, "Publishes an event to everyone who follows this run.", `{
		"type": "object",
		"properties": {
			"type": {"type": "string", "description": "what happened, in snake_case, such as lead_qualified"},
			"data": {"type": "object", "description": "the facts of the event"}
		},
		"required": ["type"],
		"additionalProperties": false
	}`)}, nil
}

// Function tells the model of it.
func (t emitEvent) Function() llm.Function { return t.function }

// Call checks the event and hands it to the engine.
func (t emitEvent) Call(_ context.Context, c Call) (Result, error) {
	event := Event{Type: argument(c, "type")}
	if data := c.Arguments["data"]; data != nil {
		var err error
		if event.Data, err = json.Marshal(data); err != nil {
			return Result{}, fmt.Errorf("encode the data of the event: %w", err)
		}
	}
	event, err := checkEvent(event)
	if err != nil {
		return invalidInput("The event was not published: " + err.Error() + "."), nil
	}
	return Result{Text: fmt.Sprintf("The event %s was published.", event.Type), Events: []Event{event}}, nil
}
