// Package price knows what things cost: the tokens of models, from one dated file, and the work of AWS, from one formula.
package price

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"math"
	"regexp"
	"strings"
)

// Model is what a million tokens of a model cost, in US dollars.
type Model struct {
	Prompt float64 `json:"prompt"`
	// Cached is for those tokens of the prompt that the provider had in its cache.
	Cached float64 `json:"cached"`
	// Completion is for the answer, reasoning included.
	Completion float64 `json:"completion"`
}

// UnmarshalJSON reads a price. One that says nothing of cached tokens takes them for tokens like the others.
func (m *Model) UnmarshalJSON(data []byte) error {
	given := struct {
		Prompt     float64  `json:"prompt"`
		Cached     *float64 `json:"cached"`
		Completion float64  `json:"completion"`
	}{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&given); err != nil {
		return err
	}
	*m = Model{Prompt: given.Prompt, Cached: given.Prompt, Completion: given.Completion}
	if given.Cached != nil {
		m.Cached = *given.Cached
	}
	return nil
}

// Table holds the prices of models by name. In a deployment's own table the name is spelled as its definition spells it.
type Table map[string]Model

//go:embed models.json
var file []byte

// list holds the prices of the dated file.
var list = func() Table {
	var dated struct{ Models Table }
	if err := json.Unmarshal(file, &dated); err != nil {
		panic("shared/price/models.json: " + err.Error())
	}
	return dated.Models
}()

// snapshot ends the name of a dated model, which costs as much as the model itself.
var snapshot = regexp.MustCompile(`-\d{4}-\d{2}-\d{2}$`)

// Of gives the price of a model: the deployment's own, or else that of the dated file. ok is false for a model that nobody
// knows the price of.
func (own Table) Of(model string) (m Model, ok bool) {
	if m, ok = own[model]; ok {
		return m, true
	}
	name := strings.TrimPrefix(model, "openai/")
	if m, ok = list[name]; !ok {
		m, ok = list[snapshot.ReplaceAllString(name, "")]
	}
	return m, ok
}

// Cost is what a call costs in US dollars. The cached tokens are among those of the prompt.
func (m Model) Cost(prompt, cached, completion int) float64 {
	cached = min(cached, prompt)
	return Round((float64(prompt-cached)*m.Prompt + float64(cached)*m.Cached + float64(completion)*m.Completion) / 1e6)
}

// Round rounds dollars to a billionth, so that sums do not depend on their order.
func Round(usd float64) float64 { return math.Round(usd*1e9) / 1e9 }
