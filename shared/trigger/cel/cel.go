// Package cel compiles and evaluates the filters and inputs of triggers, in the Common Expression Language. An expression
// cannot loop without end, call anything, or see more than the request: "body" is what came, "headers" the headers by their
// lower-case names. What it costs is bounded when it is evaluated, by steps and by time.
//
// The library is a third of a bootstrap, so only the functions that need it link this package.
package cel

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"muster/shared/fault"
	"muster/shared/trigger"
)

const (
	// maxCost is how many steps an evaluation may take, as the library counts them, and maxTime how long.
	maxCost = 100_000
	maxTime = time.Second
	// checks is how often the steps of a loop look at the time.
	checks = 100
	// maxKept is how many compiled expressions are kept.
	maxKept = 200
	// maxDepth is how deep what an expression gives may be nested.
	maxDepth = 100
)

// Rules compiles expressions, and keeps what it compiled.
type Rules struct {
	mu   sync.Mutex
	env  *cel.Env
	kept map[string]trigger.Rule
}

// Compile implements trigger.Rules.
func (r *Rules) Compile(expression string, kind trigger.Kind) (trigger.Rule, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := string(kind) + " " + expression
	if rule := r.kept[name]; rule != nil {
		return rule, nil
	}
	rule, err := r.compile(expression, kind)
	if err != nil {
		return nil, err
	}
	if r.kept == nil || len(r.kept) >= maxKept {
		r.kept = map[string]trigger.Rule{}
	}
	r.kept[name] = rule
	return rule, nil
}

func (r *Rules) compile(expression string, kind trigger.Kind) (rule trigger.Rule, err error) {
	defer func() {
		if cause := recover(); cause != nil { // the parser is generated, and given what strangers wrote
			rule, err = nil, fault.New(fault.Invalid, "The expression cannot be read.")
		}
	}()
	if r.env == nil {
		env, err := cel.NewEnv(
			cel.Variable("body", cel.DynType), cel.Variable("headers", cel.MapType(cel.StringType, cel.StringType)),
			cel.ParserRecursionLimit(50), cel.ClearMacros(), cel.Macros(cel.HasMacro, cel.AllMacro, cel.ExistsMacro, cel.ExistsOneMacro, cel.MapMacro, cel.MapFilterMacro, cel.FilterMacro),
		)
		if err != nil {
			return nil, fmt.Errorf("make an environment for expressions: %w", err)
		}
		r.env = env
	}
	ast, issues := r.env.Compile(expression)
	if issues.Err() != nil {
		return nil, fault.New(fault.Invalid, "%s", oneLine(issues))
	}
	if given := ast.OutputType(); !gives(given, kind) {
		return nil, fault.New(fault.Invalid, "A%s must give %s, and this gives %s.", map[trigger.Kind]string{trigger.Filter: " filter", trigger.Input: "n input"}[kind], wants[kind], given)
	}
	program, err := r.env.Program(ast, cel.CostLimit(maxCost), cel.InterruptCheckFrequency(checks))
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The expression cannot be evaluated.")
	}
	return func(ctx context.Context, body any, headers map[string]string) (any, error) {
		return evaluate(ctx, program, kind, body, headers)
	}, nil
}

// wants says what the kinds of expressions must give.
var wants = map[trigger.Kind]string{trigger.Filter: "true or false", trigger.Input: "an object"}

func gives(t *cel.Type, kind trigger.Kind) bool {
	if t.IsExactType(cel.DynType) {
		return true
	}
	if kind == trigger.Filter {
		return t.IsExactType(cel.BoolType)
	}
	return t.Kind() == types.MapKind
}

// oneLine gives the first thing that is wrong, without the drawing of where it is.
func oneLine(issues *cel.Issues) string {
	all := issues.Errors()
	if len(all) == 0 {
		return "The expression cannot be read."
	}
	first := all[0]
	message := []rune(strings.Join(strings.Fields(first.Message), " "))
	return fmt.Sprintf("%s (line %d, column %d)", string(message[:min(len(message), 300)]), first.Location.Line(), first.Location.Column()+1)
}

func evaluate(ctx context.Context, program cel.Program, kind trigger.Kind, body any, headers map[string]string) (given any, err error) {
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	value, _, err := program.ContextEval(ctx, map[string]any{"body": known(body), "headers": headers})
	if err != nil {
		message := []rune(err.Error())
		return nil, fault.New(fault.Invalid, "%s.", string(message[:min(len(message), 200)]))
	}
	if kind == trigger.Filter {
		if v, ok := value.(types.Bool); ok {
			return bool(v), nil
		}
		return nil, fault.New(fault.Invalid, "It gives %s and not true or false.", value.Type().TypeName())
	}
	if given, err = plain(value, maxDepth); err != nil {
		return nil, err
	}
	if object, ok := given.(map[string]any); ok {
		return object, nil
	}
	return nil, fault.New(fault.Invalid, "It gives %s and not an object.", value.Type().TypeName())
}

// known gives JSON as expressions know it: a number without a point or an exponent is an int where it fits.
func known(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return f
	case map[string]any:
		object := make(map[string]any, len(v))
		for name, item := range v {
			object[name] = known(item)
		}
		return object
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = known(item)
		}
		return list
	}
	return v
}

var errDepth = errors.New("too deep")

// plain gives a value as JSON knows it.
func plain(v ref.Val, depth int) (any, error) {
	if depth == 0 {
		return nil, fault.Wrap(errDepth, fault.Invalid, "It gives something that is nested too deep.")
	}
	switch v := v.(type) {
	case types.Null:
		return nil, nil
	case types.Bool:
		return bool(v), nil
	case types.String:
		return string(v), nil
	case types.Int:
		return json.Number(fmt.Sprint(int64(v))), nil
	case types.Uint:
		return json.Number(fmt.Sprint(uint64(v))), nil
	case types.Double:
		if f := float64(v); math.IsInf(f, 0) || math.IsNaN(f) {
			return nil, fault.New(fault.Invalid, "It gives a number that JSON does not have.")
		}
		return float64(v), nil
	case types.Bytes:
		return base64.StdEncoding.EncodeToString(v), nil
	case types.Timestamp:
		return v.UTC().Format(time.RFC3339Nano), nil
	case types.Duration:
		return v.Duration.String(), nil
	case traits.Mapper:
		return object(v, depth)
	case traits.Lister:
		list := []any{}
		for i := v.Iterator(); i.HasNext() == types.True; {
			item, err := plain(i.Next(), depth-1)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		return list, nil
	}
	return nil, fault.New(fault.Invalid, "It gives a value of the type %s, which JSON does not have.", v.Type().TypeName())
}

func object(v traits.Mapper, depth int) (any, error) {
	fields := map[string]any{}
	for i := v.Iterator(); i.HasNext() == types.True; {
		key := i.Next()
		name, ok := key.(types.String)
		if !ok {
			return nil, fault.New(fault.Invalid, "It gives an object with a key that is %s and not a string.", key.Type().TypeName())
		}
		item, err := plain(v.Get(key), depth-1)
		if err != nil {
			return nil, err
		}
		fields[string(name)] = item
	}
	return fields, nil
}
