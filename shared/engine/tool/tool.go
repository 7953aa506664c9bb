// Package tool is the port to tools. A Tool does one thing for an agent; validation of arguments, events, failure policy
// and the journal are the engine's. The built-in tools live in this package's subpackages or files; what needs a cloud is
// handed in by app.
package tool

import (
	"context"
	"encoding/json"

	"muster/shared/crew"
	"muster/shared/engine/llm"
)

// Tool is a tool ready to be called. Safe for concurrent use.
type Tool interface {
	// Function is what the model is told: name, description, JSON Schema of the arguments.
	Function() llm.Function
	// Call does it. An error is told to the model as text and counts as a failure of reason "exception"; it holds no
	// secrets. When ctx ends, Call returns soon, with ctx's error.
	Call(ctx context.Context, c Call) (Result, error)
}

// Call is one use of a tool.
type Call struct {
	// Arguments satisfy the schema.
	Arguments map[string]any
	// StepID is the same when a call is repeated after a crash; HTTP and Lambda tools send it as Muster-Step-Id.
	StepID string
}

// Result is what a tool gave.
type Result struct {
	// Text is what the model is told.
	Text string `json:"text"`
	// Events are custom events to tell the world, in order.
	Events []Event `json:"events,omitempty"`
	// Failure is set when the tool itself reports that it failed; Text is told to the model all the same.
	Failure *Failure `json:"failure,omitempty"`
}

// Event is a custom event: a type that is none of the system's, and an object.
type Event struct {
	Type string          `json:"type"`
	Data json.RawMessage `json:"data"`
}

// Failure says why a tool failed, under the names that events show. Reason is tool_reported, exception, usage_limit,
// unknown_tool or invalid_input.
type Failure struct {
	Message   string         `json:"message"`
	Reason    string         `json:"reason"`
	Code      string         `json:"code,omitempty"`
	Retryable bool           `json:"retryable"`
	Details   map[string]any `json:"details,omitempty"`
}

// Source is what a tool may use of the version that it belongs to.
type Source struct {
	// Files gives the version's files by path.
	Files map[string][]byte
	// Knowledge names the files that the agent and the crew know.
	Knowledge []string
}

// Opener makes the tools of a definition. An unknown type or a wrong setting is fault.Invalid and names the field.
type Opener interface {
	Open(t crew.Tool, s Source) (Tool, error)
}
