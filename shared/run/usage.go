package run

import (
	"maps"
	"time"

	"muster/shared/price"
)

// ModelUsage is what the calls of one model cost.
type ModelUsage struct {
	Calls int `json:"calls"`
	Usage
	CostUSD float64 `json:"cost_usd"`
	// Unpriced counts the calls that used tokens at a price nobody knows, or so many that nobody knows. CostUSD leaves them out.
	Unpriced int `json:"unpriced,omitempty"`
	// Uncounted counts the calls that succeeded, and of which the model did not say how many tokens they used.
	Uncounted int `json:"uncounted,omitempty"`
}

func (m ModelUsage) add(n ModelUsage) ModelUsage {
	return ModelUsage{m.Calls + n.Calls, m.Usage.Add(n.Usage), price.Round(m.CostUSD + n.CostUSD), m.Unpriced + n.Unpriced, m.Uncounted + n.Uncounted}
}

// less takes away what was there before.
func (m ModelUsage) less(b ModelUsage) ModelUsage {
	u, v := m.Usage, b.Usage
	return ModelUsage{m.Calls - b.Calls, Usage{
		u.TotalTokens - v.TotalTokens, u.PromptTokens - v.PromptTokens, u.CachedPromptTokens - v.CachedPromptTokens,
		u.CompletionTokens - v.CompletionTokens, u.ReasoningTokens - v.ReasoningTokens,
		u.CacheCreationTokens - v.CacheCreationTokens, u.SuccessfulRequests - v.SuccessfulRequests,
	}, price.Round(m.CostUSD - b.CostUSD), m.Unpriced - b.Unpriced, m.Uncounted - b.Uncounted}
}

// call is a model call on its way into the totals.
type call struct {
	model string
	usage Usage
}

// charge adds calls at today's prices. What a call cost is recorded with its page and never counted again.
func (t *Totals) charge(calls []call, prices price.Table) {
	if len(calls) == 0 {
		return
	}
	t.ByModel = maps.Clone(t.ByModel)
	if t.ByModel == nil {
		t.ByModel = map[string]ModelUsage{}
	}
	for _, c := range calls {
		one := ModelUsage{Calls: 1, Usage: c.usage}
		if c.usage.TotalTokens == 0 {
			one.Uncounted = c.usage.SuccessfulRequests
		}
		p, known := prices.Of(c.model)
		switch {
		case known && one.Uncounted > 0 && p != (price.Model{}), !known && (one.Uncounted > 0 || c.usage.TotalTokens > 0):
			one.Unpriced = 1
		case known:
			one.CostUSD = p.Cost(c.usage.PromptTokens, c.usage.CachedPromptTokens, c.usage.CompletionTokens)
		}
		t.Usage = t.Usage.Add(c.usage)
		t.ByModel[c.model] = t.ByModel[c.model].add(one)
	}
}

// Models sums what the models cost, over all of them.
func (t Totals) Models() (all ModelUsage) {
	for _, m := range t.ByModel {
		all = all.add(m)
	}
	return all
}

// Spent is what a run has used so far, as the wires show it. A cost is nil when nobody knows it.
type Spent struct {
	Usage
	ModelCalls int                    `json:"model_calls"`
	ToolCalls  int                    `json:"tool_calls"`
	Steps      int                    `json:"steps"`
	CostUSD    *float64               `json:"cost_usd"`
	ByModel    map[string]ModelReport `json:"by_model"`
	// WallSeconds is the time from the first claim to the end or until now, WaitingSeconds how much of it nobody held the run
	// because it waited for a person.
	WallSeconds    float64 `json:"wall_seconds"`
	WaitingSeconds float64 `json:"waiting_seconds"`
	// AWSCostUSD estimates what AWS takes for the run, without models.
	AWSCostUSD float64 `json:"aws_cost_usd_estimate"`
}

// ModelReport is what one model cost.
type ModelReport struct {
	Calls int `json:"calls"`
	Usage
	CostUSD *float64 `json:"cost_usd"`
}

// SpentBy says what a run has used, by its item and its newest page.
func SpentBy(r Run, p Page, now time.Time) Spent {
	t := p.Totals
	all := t.Models()
	s := Spent{
		Usage: t.Usage, ModelCalls: all.Calls, ToolCalls: t.ToolCalls, Steps: t.Steps, CostUSD: all.Cost(), ByModel: map[string]ModelReport{},
	}
	for name, m := range t.ByModel {
		s.ByModel[name] = ModelReport{m.Calls, m.Usage, m.Cost()}
	}
	wall, waited := times(r, p, now)
	s.WallSeconds, s.WaitingSeconds = seconds(wall), seconds(waited)
	s.AWSCostUSD = price.AWS(price.Work{Active: wall - waited, Owners: r.Epoch, Pages: p.Seq, Deliveries: t.Deliveries})
	return s
}

// Cost gives CostUSD, nil when that leaves something out.
func (m ModelUsage) Cost() *float64 {
	if m.Unpriced > 0 {
		return nil
	}
	return &m.CostUSD
}

// times gives how long a run has taken, and how much of that it waited for people.
func times(r Run, p Page, now time.Time) (wall, waited time.Duration) {
	if r.StartedAt.IsZero() {
		return 0, 0
	}
	waited = time.Duration(p.Totals.WaitedMS) * time.Millisecond
	end := now
	switch {
	case p.Outcome != nil:
		end = p.At
	case r.State.Ended():
		end = r.EndedAt
	case r.WaitsAfter == p.Seq && p.Seq > 0:
		waited += max(0, now.Sub(p.At))
	}
	wall = max(0, end.Sub(r.StartedAt))
	return wall, min(waited, wall)
}

func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
