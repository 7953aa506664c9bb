package cel_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/shared/fault"
	"muster/shared/trigger"
	"muster/shared/trigger/cel"
)

func value(t testing.TB, text string) any {
	t.Helper()
	var v any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

const push = `{"action": "opened", "number": 42, "ratio": 1.5, "pull_request": {"title": "Tea", "labels": [{"name": "bug"}, {"name": "p1"}]}, "id": 9007199254740993}`

func TestFilter(t *testing.T) {
	for _, test := range []struct {
		name, expression string
		want             bool
		err              string
	}{
		{"a field that is so", `body.action == "opened"`, true, ""},
		{"a field that is not", `body.action == "closed"`, false, ""},
		{"a number", `body.number > 40 && body.number <= 42 && body.ratio < 2`, true, ""},
		{"a header, by its lower-case name", `headers["x-github-event"] == "pull_request"`, true, ""},
		{"an item of a list", `body.pull_request.labels.exists(l, l.name == "bug")`, true, ""},
		{"a field that may be absent", `has(body.sender) && body.sender.login == "me"`, false, ""},
		{"a field that is absent", `body.sender.login == "me"`, false, "no such key: sender."},
		{"something else than true or false", `body.action`, false, "It gives string and not true or false."},
		{"more steps than it may take", `[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, a+b+c+d+e+f < 100))))))`, false, "operation cancelled: actual cost limit exceeded."},
	} {
		t.Run(test.name, func(t *testing.T) {
			rule, err := (&cel.Rules{}).Compile(test.expression, trigger.Filter)
			if err != nil {
				t.Fatal(err)
			}
			got, err := rule(t.Context(), value(t, push), map[string]string{"x-github-event": "pull_request"})
			if test.err != "" {
				if err == nil || fault.Message(err) != test.err {
					t.Errorf("got %v, %v, want the error %q", got, err, test.err)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("got %v, %v, want %v", got, err, test.want)
			}
		})
	}
}

func TestInput(t *testing.T) {
	for _, test := range []struct{ name, expression, want, err string }{
		{"fields of the body", `{"pr": body.number, "title": body.pull_request.title}`, `{"pr": 42, "title": "Tea"}`, ""},
		{"a number keeps its digits", `{"id": body.id, "ratio": body.ratio}`, `{"id": 9007199254740993, "ratio": 1.5}`, ""},
		{"a part of the body", `body.pull_request`, `{"title": "Tea", "labels": [{"name": "bug"}, {"name": "p1"}]}`, ""},
		{"the whole body", `body`, push, ""},
		{"a list that is made", `{"labels": body.pull_request.labels.map(l, l.name)}`, `{"labels": ["bug", "p1"]}`, ""},
		{"either of two", `{"x": has(body.x) ? body.x : null, "y": true}`, `{"x": null, "y": true}`, ""},
		{"bytes and a time", `{"b": b"tea", "t": timestamp("2026-11-23T09:00:00Z"), "u": 7u}`, `{"b": "dGVh", "t": "2026-11-23T09:00:00Z", "u": 7}`, ""},
		{"no object", `body.number`, "", "It gives int and not an object."},
		{"a key that is no string", `{1: 2}`, "", "It gives an object with a key that is int and not a string."},
		{"a number that JSON does not have", `{"x": body.ratio / 0.0}`, "", "It gives a number that JSON does not have."},
		{"a type", `{"x": type(1)}`, "", "It gives a value of the type type, which JSON does not have."},
	} {
		t.Run(test.name, func(t *testing.T) {
			rule, err := (&cel.Rules{}).Compile(test.expression, trigger.Input)
			if err != nil {
				t.Fatal(err)
			}
			got, err := rule(t.Context(), value(t, push), nil)
			if test.err != "" {
				if err == nil || fault.Message(err) != test.err {
					t.Errorf("got %v, %v, want the error %q", got, err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			raw, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(value(t, test.want), value(t, string(raw))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, test := range []struct {
		name, expression string
		kind             trigger.Kind
		want             string
	}{
		{"what is no expression", `body.`, trigger.Filter, "Syntax error"},
		{"a name that is not known", `env.HOME == "x"`, trigger.Filter, "undeclared reference to 'env'"},
		{"a filter that gives a number", `1 + 1`, trigger.Filter, "A filter must give true or false, and this gives int."},
		{"an input that gives a string", `"x"`, trigger.Input, "An input must give an object, and this gives string."},
		{"a hundred thousand brackets", strings.Repeat("[", 100_000), trigger.Filter, ""},
		{"a thousand brackets", strings.Repeat("(", 1000) + "true" + strings.Repeat(")", 1000), trigger.Filter, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := (&cel.Rules{}).Compile(test.expression, test.kind)
			if !fault.Is(err, fault.Invalid) || !strings.Contains(fault.Message(err), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func FuzzCompile(f *testing.F) {
	f.Add(`body.action == "opened"`, push)
	f.Add(`{"pr": body.number}`, `{}`)
	f.Add(`body.map(x, x)`, `[1, null, {"a": 1e400}]`)
	f.Fuzz(func(t *testing.T, expression, body string) {
		if len(expression) > 4<<10 || !json.Valid([]byte(body)) {
			return
		}
		for _, kind := range []trigger.Kind{trigger.Filter, trigger.Input} {
			rule, err := (&cel.Rules{}).Compile(expression, kind)
			if err != nil {
				if !fault.Is(err, fault.Invalid) {
					t.Errorf("got %v, want fault.Invalid", err)
				}
				continue
			}
			got, err := rule(t.Context(), value(t, body), map[string]string{})
			if err != nil && !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v, want fault.Invalid", err)
			}
			if _, bad := json.Marshal(got); err == nil && bad != nil {
				t.Errorf("it gave what is no JSON: %v", bad)
			}
		}
	})
}
