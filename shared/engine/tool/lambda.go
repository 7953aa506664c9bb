package tool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/fault"
)

// Invoker calls Lambda functions and waits for their answer.
type Invoker interface {
	// Invoke sends a JSON payload to a function. stepID is the same when a call is repeated after a crash. failed tells that
	// the function itself ended in an error, which the reply then describes. An error means that it could not be called.
	Invoke(ctx context.Context, function, stepID string, payload []byte) (reply []byte, failed bool, err error)
}

// lambdaSettings are the settings of lambda.
type lambdaSettings struct {
	// Function is the name or ARN, one of Box.Functions.
	Function string `json:"function"`
	// Parameters is the JSON Schema of the arguments, an object of anything unless given.
	Parameters json.RawMessage `json:"parameters"`
}

// lambda calls a function of the user's own. The function gets the arguments as its event, with muster_step_id beside
// them, and answers any JSON. An object with the fields result, error and events (all optional, and nothing else) is
// taken apart; muster_events works in any object.
type lambda struct {
	function llm.Function
	invoker  Invoker
	name     string
}

func (b Box) openLambda(t crew.Tool) (Tool, error) {
	var s lambdaSettings
	if err := readSettings(t, &s); err != nil {
		return nil, err
	}
	if s.Function == "" {
		return nil, fault.New(fault.Invalid, "The tool %s names no function; give it one in the setting function.", t.Name)
	}
	if b.Invoker == nil || !slices.Contains(b.Functions, s.Function) {
		return nil, fault.New(fault.Invalid, "The tool %s may not call the function %q: it is not in the list tool_functions of this Muster.", t.Name, s.Function)
	}
	parameters := `{"type": "object", "properties": {}, "additionalProperties": true}`
	if len(s.Parameters) > 0 {
		var schema struct {
			Type any `json:"type"`
		}
		if err := json.Unmarshal(s.Parameters, &schema); err != nil || schema.Type != "object" {
			return nil, fault.New(fault.Invalid, "The parameters of the tool %s are no JSON Schema of an object.", t.Name)
		}
		parameters = string(s.Parameters)
	}
	return &lambda{function: describe(t, "Calls the function "+s.Function+".", parameters), invoker: b.Invoker, name: s.Function}, nil
}

// Function tells the model of it.
func (l *lambda) Function() llm.Function { return l.function }

// Call invokes the function.
func (l *lambda) Call(ctx context.Context, c Call) (Result, error) {
	event := map[string]any{}
	for name, v := range c.Arguments {
		event[name] = v
	}
	event["muster_step_id"] = c.StepID
	payload, err := json.Marshal(event)
	if err != nil {
		return Result{}, fmt.Errorf("encode the arguments: %w", err)
	}
	reply, broke, err := l.invoker.Invoke(ctx, l.name, c.StepID, payload)
	switch {
	case err != nil && ctx.Err() != nil:
		return Result{}, ctx.Err()
	case err != nil:
		var known *fault.Error
		if !errors.As(err, &known) {
			known = fault.Wrap(err, fault.Unavailable, "it could not be called")
		}
		return Result{}, fault.New(fault.Unavailable, "The function %s was not invoked: %s", l.name, known.Message)
	case broke:
		return functionError(l.name, reply), nil
	}
	return readReply(reply), nil
}

// functionError reads how Lambda describes an error of a function; its stack trace is not for the model.
func functionError(name string, reply []byte) Result {
	var wire struct {
		Message string `json:"errorMessage"`
		Type    string `json:"errorType"`
	}
	_ = json.Unmarshal(reply, &wire)
	said := fmt.Sprintf("The function %s failed", name)
	if wire.Message != "" {
		said += ": " + wire.Message
	}
	return failed(capped(said), capped(said), wire.Type, false)
}

// readReply makes a result of what a function answered.
func readReply(reply []byte) Result {
	text, taken := takeEvents(reply)
	var fields map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &fields) != nil || !isEnvelope(fields) {
		return Result{Text: capped(plain([]byte(text))), Events: taken}
	}
	note := ""
	if list := fields["events"]; list != nil {
		var more []Event
		more, note = readEvents("events", list)
		taken = append(taken, more...)
	}
	r := Result{Text: capped(plain(fields["result"])) + note, Events: taken}
	if problem := plain(fields["error"]); problem != "" {
		if r.Text == "" {
			r.Text = capped(problem)
		}
		r.Failure = &Failure{Message: capped(problem), Reason: "tool_reported"}
	}
	return r
}

func isEnvelope(fields map[string]json.RawMessage) bool {
	for name := range fields {
		if name != "result" && name != "error" && name != "events" {
			return false
		}
	}
	return fields["result"] != nil || fields["error"] != nil
}

// plain gives a JSON string as its text, null as nothing, and anything else as it is.
func plain(value []byte) string {
	var text string
	if err := json.Unmarshal(value, &text); err == nil {
		return text
	}
	return string(value)
}
