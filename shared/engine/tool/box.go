package tool

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/fault"
)

// Box opens the built-in tools.
type Box struct {
	// HTTP is the guarded client; it follows no redirects.
	HTTP *http.Client
	// Functions are the Lambda functions that `lambda` may call, by name or ARN; any other is refused.
	Functions []string
	// Invoker calls them; nil where there is no Lambda.
	Invoker Invoker
}

// Open makes a tool of a definition.
func (b Box) Open(t crew.Tool, s Source) (Tool, error) {
	switch t.Type {
	case "http_request":
		return b.openHTTPRequest(t)
	case "scrape_website":
		return b.openScrapeWebsite(t)
	case "knowledge_search":
		return openKnowledgeSearch(t, s)
	case "lambda":
		return b.openLambda(t)
	case "emit_event":
		return openEmitEvent(t)
	}
	return nil, fault.New(fault.Invalid, "The tool type %q is not known; known are http_request, scrape_website, knowledge_search, lambda and emit_event.", t.Type)
}

// readSettings decodes a tool's settings. A field that the tool does not know is an error, for it would do nothing.
func readSettings(t crew.Tool, into any) error {
	if len(t.Settings) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(t.Settings))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fault.New(fault.Invalid, "The settings of the tool %s cannot be used: %s.", t.Name, strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// describe makes what the model is told of a tool: the definition's words before our own.
func describe(t crew.Tool, description, parameters string) llm.Function {
	if t.Description != "" {
		description = t.Description
	}
	name := t.Name
	if name == "" {
		name = t.Type
	}
	return llm.Function{Name: FunctionName(name), Description: description, Parameters: json.RawMessage(parameters)}
}

// argument gives a text argument, "" when it is absent or null.
func argument(c Call, name string) string {
	text, _ := c.Arguments[name].(string)
	return text
}

// failed is the result of a tool that could be called and reports that it failed.
func failed(text, message, code string, retryable bool) Result {
	return Result{Text: text, Failure: &Failure{Message: message, Reason: "tool_reported", Code: code, Retryable: retryable}}
}

// invalidInput is the result of a call whose arguments satisfy the schema and are refused all the same.
func invalidInput(said string) Result {
	return Result{Text: said, Failure: &Failure{Message: said, Reason: "invalid_input"}}
}
