package trigger

import (
	"context"

	"muster/shared/fault"
)

// Kind says what an expression is for.
type Kind string

// The kinds of expressions.
const (
	// Filter gives true or false: whether a request starts a run.
	Filter Kind = "filter"
	// Input gives an object: the inputs of the run.
	Input Kind = "input"
)

// maxExpression is how long an expression may be, in bytes.
const maxExpression = 4 << 10

// Rule is an expression that was compiled. It gives a bool or a map[string]any, whatever its Kind wants. Its work is bounded;
// its errors are faults with a sentence for whoever wrote the expression.
type Rule func(ctx context.Context, body any, headers map[string]string) (any, error)

// Rules compiles expressions over "body", any JSON, and "headers", strings by lower-case name as a Receipt keeps them: what
// may be a secret is masked. What is not right with
// an expression is fault.Invalid.
type Rules interface {
	Compile(expression string, kind Kind) (Rule, error)
}

// rule compiles an expression; nil for "".
func (s *Service) rule(expression string, kind Kind) (Rule, error) {
	switch {
	case expression == "":
		return nil, nil
	case len(expression) > maxExpression:
		return nil, fault.New(fault.Invalid, "It is longer than %d bytes.", maxExpression)
	case s.Rules == nil:
		return nil, fault.New(fault.Unavailable, "Expressions cannot be evaluated here.")
	}
	return s.Rules.Compile(expression, kind)
}
