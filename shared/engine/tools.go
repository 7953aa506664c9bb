package engine

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/engine/tool"
	"muster/shared/fault"
)

// armed is a tool of a task, ready to be called.
type armed struct {
	crew.Tool
	tool     tool.Tool
	function llm.Function
	schema   *jsonschema.Schema
	// properties are the names of the arguments; lone is the name of the only one, if it is a text.
	properties map[string]bool
	lone       string
	open       bool   // other arguments are welcome
	limit      string // what its uses are counted under
}

// toolbox are the tools of a task, in order.
type toolbox []*armed

// openTools opens the tools of a task, or else those of its agent.
func (k *kickoff) openTools(t crew.Task, a crew.Agent) (toolbox, error) {
	tools, owner := t.Tools, "task/"+t.Key
	if len(tools) == 0 {
		tools, owner = a.Tools, "agent/"+a.Key
	}
	source := tool.Source{Files: k.Files}
	source.Knowledge = append(append(source.Knowledge, a.Knowledge...), k.Definition.Knowledge...)
	var box toolbox
	for i, def := range tools {
		opened, err := k.Tools.Open(def, source)
		if err != nil {
			return nil, err
		}
		armed, err := arm(def, opened)
		if err != nil {
			return nil, err
		}
		armed.limit = fmt.Sprintf("%s/%d", owner, i)
		for n := 2; box.named(armed.function.Name) != nil; n++ {
			armed.function.Name = fmt.Sprintf("%s_%d", opened.Function().Name, n)
		}
		box = append(box, armed)
	}
	return box, nil
}

func arm(def crew.Tool, t tool.Tool) (*armed, error) {
	a := &armed{Tool: def, tool: t, function: t.Function()}
	var err error
	if a.schema, err = compileSchema(a.function.Parameters); err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "the arguments of its tool %s have no JSON Schema that can be used", def.Name)
	}
	var form struct {
		Properties map[string]struct {
			Type any `json:"type"`
		} `json:"properties"`
		Additional any `json:"additionalProperties"`
	}
	// A schema without a list of properties leaves the form empty: then everything is passed on.
	_ = json.Unmarshal(a.function.Parameters, &form)
	a.properties = map[string]bool{}
	for name, p := range form.Properties {
		a.properties[name] = true
		if len(form.Properties) == 1 && (p.Type == "string" || p.Type == nil) {
			a.lone = name
		}
	}
	a.open = len(form.Properties) == 0 || (form.Additional != nil && form.Additional != false)
	return a, nil
}

func (box toolbox) functions() []llm.Function {
	var functions []llm.Function
	for _, t := range box {
		functions = append(functions, t.function)
	}
	return functions
}

func (box toolbox) names() []string {
	var names []string
	for _, t := range box {
		names = append(names, t.function.Name)
	}
	return names
}

func (box toolbox) named(name string) *armed {
	for _, t := range box {
		if t.function.Name == name {
			return t
		}
	}
	return nil
}

// like finds a tool by its name as a model wrote it in words.
func (box toolbox) like(name string) *armed {
	if t := box.named(name); t != nil {
		return t
	}
	plain := func(s string) string {
		return strings.NewReplacer(" ", "", "_", "", "-", "").Replace(strings.ToLower(s))
	}
	for _, t := range box {
		if plain(t.function.Name) == plain(strings.TrimSuffix(name, "()")) {
			return t
		}
	}
	return nil
}

// readLoosely reads arguments that a model wrote in words. Arguments the tool does not know are dropped; plain text is the
// value of a tool's only argument.
func (t *armed) readLoosely(input string) (map[string]any, bool) {
	value, ok := loose(input)
	if args, isObject := value.(map[string]any); ok && isObject {
		if !t.open {
			for name := range args {
				if !t.properties[name] {
					delete(args, name)
				}
			}
		}
		return args, true
	}
	input = strings.TrimSpace(input)
	switch {
	case input == "" || ok && value == nil:
		return map[string]any{}, true
	case t.lone == "" || strings.HasPrefix(input, "{") || strings.HasPrefix(input, "["):
		return nil, false
	}
	if text, isText := value.(string); ok && isText {
		input = text
	}
	return map[string]any{t.lone: input}, true
}

// compact writes arguments in one line: an object as JSON, anything else as it is.
func compact(arguments any) string {
	if text, ok := arguments.(string); ok {
		return text
	}
	data, err := json.Marshal(arguments)
	if err != nil {
		return fmt.Sprint(arguments)
	}
	return string(data)
}

// inputOf is how the step target is told arguments: a lone text alone, else JSON.
func inputOf(arguments any) string {
	if args, ok := arguments.(map[string]any); ok && len(args) == 1 {
		for _, v := range args {
			if text, ok := v.(string); ok {
				return text
			}
		}
	}
	return compact(arguments)
}
