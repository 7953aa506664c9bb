package crew_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/price"
)

func TestTheTighterLimitBinds(t *testing.T) {
	a := crew.Limits{MaxCostUSD: 1.5, MaxTokens: 100, MaxSteps: 7}
	b := crew.Limits{MaxCostUSD: 0.5, MaxTokens: 200, MaxDurationSeconds: 60}
	want := crew.Limits{MaxCostUSD: 0.5, MaxTokens: 100, MaxDurationSeconds: 60, MaxSteps: 7}
	for _, got := range []crew.Limits{a.Tighter(b), b.Tighter(a), want.Tighter(crew.Limits{}), want.Tighter(want)} {
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestPatchChangesWhatItNames(t *testing.T) {
	before := func() crew.Deployment {
		return crew.Deployment{
			Limits: crew.Limits{MaxTokens: 5}, Traffic: crew.Traffic{MaxConcurrentRuns: 2, WhenFull: crew.Reject},
			Prices: price.Table{"a": {Prompt: 1}},
		}
	}
	for _, c := range []struct {
		name, limits, prices string
		want                 func(d *crew.Deployment)
		refused              string
	}{
		{name: "nothing"},
		{name: "null changes nothing", limits: `null`, prices: `null`},
		{name: "an empty object changes nothing", limits: `{}`, prices: `{}`},
		{name: "one of them", limits: `{"max_steps":3}`, want: func(d *crew.Deployment) { d.Limits.MaxSteps = 3 }},
		{name: "null takes one away", limits: `{"max_tokens":null,"when_full":null}`, want: func(d *crew.Deployment) { d.Limits.MaxTokens, d.Traffic.WhenFull = 0, "" }},
		{name: "so does 0", limits: `{"max_concurrent_runs":0}`, want: func(d *crew.Deployment) { d.Traffic.MaxConcurrentRuns = 0 }},
		{name: "a price more", prices: `{"b":{"prompt":2,"completion":3}}`, want: func(d *crew.Deployment) { d.Prices["b"] = price.Model{Prompt: 2, Cached: 2, Completion: 3} }},
		{name: "a price less", prices: `{"a":null}`, want: func(d *crew.Deployment) { d.Prices = price.Table{} }},
		{name: "a slip in a name", limits: `{"max_token":1}`, refused: `limits: unknown field "max_token".`},
		{name: "a text", limits: `{"max_tokens":"1"}`, refused: `limits: "max_tokens" cannot be the string that was given.`},
		{name: "half a token", limits: `{"max_tokens":1.5}`, refused: `limits: "max_tokens" cannot be the number 1.5 that was given.`},
		{name: "less than nothing", limits: `{"max_steps":-1}`, refused: `limits: "max_steps" must be a whole number above 0.`},
		{name: "a negative cost", limits: `{"max_cost_usd":-0.1}`, refused: `limits: "max_cost_usd" must be a number of dollars above 0.`},
		{name: "another way to be full", limits: `{"when_full":"wait"}`, refused: `limits: "when_full" must be "queue" or "reject".`},
		{name: "more runs than one record holds", limits: `{"max_concurrent_runs":1001}`, refused: `limits: "max_concurrent_runs" can be at most 1000.`},
		{name: "a list", limits: `[]`, refused: `"limits" must be an object.`},
		{name: "a negative price", prices: `{"a":{"prompt":-1}}`, refused: `prices: those of "a" must be dollars for a million tokens, 0 or more.`},
		{name: "a price that is a number", prices: `{"a":3}`, refused: `prices: a value cannot be the number that was given.`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, want := before(), before()
			err := got.Patch(json.RawMessage(c.limits), json.RawMessage(c.prices))
			if c.refused != "" {
				if !fault.Is(err, fault.Invalid) || fault.Message(err) != c.refused {
					t.Fatalf("got %v, want %q", err, c.refused)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if c.want != nil {
				c.want(&want)
			}
			if diff := cmp.Diff([]any{want.Limits, want.Traffic, want.Prices}, []any{got.Limits, got.Traffic, got.Prices}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseLimitsIsStrict(t *testing.T) {
	got, err := crew.ParseLimits(json.RawMessage(`{"max_cost_usd":0.25,"max_tokens":1000,"max_duration_seconds":60,"max_steps":10}`))
	if want := (crew.Limits{MaxCostUSD: 0.25, MaxTokens: 1000, MaxDurationSeconds: 60, MaxSteps: 10}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, raw := range []string{`{"max_concurrent_runs":1}`, `[]`, `"x"`, `{"max_tokens":-1}`, `{"max_steps":null,"maxSteps2":1}`, `{"max_cost_usd":0}`, `{"max_cost_usd":0.0}`, `{"max_cost_usd":-0}`, `{"max_cost_usd":1e-400}`} {
		if _, err := crew.ParseLimits(json.RawMessage(raw)); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "limits") {
			t.Errorf("%s: got %v", raw, err)
		}
	}
}

func FuzzPatch(f *testing.F) {
	for _, seed := range []string{`{}`, `null`, `{"max_tokens":null}`, `{"a":{"prompt":1}}`, `[1]`, `{"max_cost_usd":1e400}`} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, limits, prices string) {
		d := crew.Deployment{Limits: crew.Limits{MaxTokens: 5}, Prices: price.Table{"a": {Prompt: 1}}}
		if !json.Valid([]byte(limits)) || !json.Valid([]byte(prices)) {
			return // the request's reader refuses these
		}
		if err := d.Patch(json.RawMessage(limits), json.RawMessage(prices)); err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Error(err)
			}
			return
		}
		if _, err := json.Marshal(d); err != nil || d.Limits.Check() != nil || d.Traffic.Check() != nil {
			t.Errorf("%+v, %v", d, err)
		}
	})
}
