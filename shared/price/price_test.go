package price_test

import (
	"encoding/json"
	"os"
	"regexp"
	"testing"
	"time"

	"muster/shared/price"
)

func TestOfFindsAPriceByName(t *testing.T) {
	own := price.Table{"openai/gpt-4o": {Prompt: 1, Completion: 2}, "ollama/llama3.2": {}}
	for _, c := range []struct {
		name, model string
		prompt      float64
		known       bool
	}{
		{"a model of the file", "gpt-4.1-mini", 0.4, true},
		{"with the prefix of its provider", "openai/gpt-4.1", 2, true},
		{"a dated snapshot costs as much as its model", "gpt-4o-mini-2024-07-18", 0.15, true},
		{"the deployment's own price goes first", "openai/gpt-4o", 1, true},
		{"and only for the name it is given for", "gpt-4o", 2.5, true},
		{"a model of one's own that costs nothing", "ollama/llama3.2", 0, true},
		{"no model at all costs nothing", "offline/extract", 0, true},
		{"another provider has other prices", "openrouter/openai/gpt-4o", 0, false},
		{"an unknown model", "gpt-9", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, ok := own.Of(c.model)
			if ok != c.known || p.Prompt != c.prompt {
				t.Errorf("got %+v, %v; want %g for a million tokens, %v", p, ok, c.prompt, c.known)
			}
		})
	}
}

func TestCostCountsCachedTokensOnce(t *testing.T) {
	p := price.Model{Prompt: 2, Cached: 0.5, Completion: 8}
	for _, c := range []struct {
		name                       string
		prompt, cached, completion int
		want                       float64
	}{
		{"nothing", 0, 0, 0, 0},
		{"a million of each", 1e6, 0, 1e6, 10},
		{"half of the prompt was cached", 1e6, 5e5, 0, 1.25},
		{"a provider that counts more cached tokens than tokens", 10, 20, 0, 0.000005},
	} {
		if got := p.Cost(c.prompt, c.cached, c.completion); got != c.want {
			t.Errorf("%s: got %g, want %g", c.name, got, c.want)
		}
	}
}

func TestTheFileSaysWhenItIsFrom(t *testing.T) {
	raw, err := os.ReadFile("models.json")
	if err != nil {
		t.Fatal(err)
	}
	var dated struct {
		AsOf string `json:"as_of"`
	}
	if err := json.Unmarshal(raw, &dated); err != nil || !regexp.MustCompile(`^20\d\d-\d\d-\d\d$`).MatchString(dated.AsOf) {
		t.Errorf("as_of is %q, %v", dated.AsOf, err)
	}
}

func TestAWSGrowsWithTheWork(t *testing.T) {
	idle := price.AWS(price.Work{})
	for name, w := range map[string]price.Work{
		"time":       {Active: time.Minute},
		"owners":     {Owners: 1},
		"pages":      {Pages: 1},
		"deliveries": {Deliveries: 1},
	} {
		if got := price.AWS(w); got <= idle {
			t.Errorf("more %s: %g, want more than %g", name, got, idle)
		}
	}
}
