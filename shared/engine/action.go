package engine

import (
	"encoding/json"
	"fmt"
	"strings"

	"muster/shared/engine/llm"
	"muster/shared/engine/tool"
)

// telling says with which events an action that was refused is told.
type telling int

const (
	toldFinished  telling = iota // started, finished with the failure
	toldError                    // started, error
	toldAlone                    // nothing but tool_failure_detected
	toldSelection                // tool_selection_error
	toldInput                    // tool_validate_input_error
)

// action is the use of a tool that a model wants.
type action struct {
	tool      *armed // nil for one that does not exist
	name      string
	arguments any            // as events show them: an object, or the text that could not be read
	args      map[string]any // as the tool gets them
	thought   string

	// refused says why the tool is not called; told how that is told.
	refused *tool.Failure
	told    telling
	// repeated says that the same was done just before; the model is told to do something else.
	repeated bool
	// tries counts earlier tries; last says that none follows.
	tries int
	last  bool
	// started is the id of tool_usage_started when it was told before, together with those of parallel actions.
	started string
}

// refuse keeps the action from its tool.
func (act *action) refuse(reason string, how telling, format string, args ...any) {
	act.refused = &tool.Failure{Message: fmt.Sprintf(format, args...), Reason: reason}
	act.told = how
}

// readCall finds the tool of a call and reads its arguments.
func (a *attempt) readCall(c llm.ToolCall, thought string) action {
	name, text := c.Function.Name, c.Function.Arguments
	act := action{tool: a.tools.named(name), name: name, arguments: text, thought: thought, last: true}
	if strings.TrimSpace(text) == "" {
		text = "{}"
	}
	if err := json.Unmarshal([]byte(text), &act.args); err != nil || act.args == nil {
		act.refuse("invalid_input", toldAlone, "The arguments of %s are not a JSON object: %s", name, shorten(c.Function.Arguments, 200))
		return act
	}
	act.arguments = act.args
	if act.tool == nil {
		act.refuse("unknown_tool", toldFinished, "Tool not found: there is no tool %q. The tools are: %s.", name, strings.Join(a.tools.names(), ", "))
		return act
	}
	a.check(&act)
	return act
}

// readAction finds the tool and reads its arguments.
func (a *attempt) readAction(m move) action {
	act := action{name: m.tool, arguments: m.input, thought: m.thought}
	act.tool = a.tools.like(m.tool)
	if act.tool == nil {
		act.refuse("unknown_tool", toldSelection, "There is no tool %q. The tools are: %s.", m.tool, strings.Join(a.tools.names(), ", "))
		return act
	}
	act.name = act.tool.function.Name
	args, ok := act.tool.readLoosely(m.input)
	if !ok {
		act.refuse("invalid_input", toldInput, "The Action Input is not one JSON object with the arguments of %s.", act.name)
		return act
	}
	act.arguments, act.args = args, args
	a.check(&act)
	return act
}

// check holds the arguments to the schema of the tool.
func (a *attempt) check(act *action) {
	// The validator wants the values of its own JSON reader.
	value, err := decodeForSchema(act.args)
	problem := ""
	if err != nil {
		problem = err.Error()
	} else {
		problem = complaint(act.tool.schema, value)
	}
	if problem != "" {
		act.refuse("invalid_input", toldError, "The arguments of %s are not right: %s", act.name, problem)
	}
}
