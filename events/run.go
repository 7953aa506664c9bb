package events

// The original has no such family: these events are Muster's own.
var runFamily = family{"run", []fields{
	RunBudgetReached{},
}}

// RunBudgetReached is told when a run has reached one of its limits and ends, before the event of its end.
type RunBudgetReached struct {
	// Limit is max_cost_usd, max_tokens, max_duration_seconds or max_steps.
	Limit string `json:"limit"`
	// Value is how much of it the run has used, Max what was allowed.
	Value float64 `json:"value"`
	Max   float64 `json:"max"`
}

func (RunBudgetReached) kind() Kind { return Kind{Type: "run_budget_reached", Emitted: true} }

// NewRunBudgetReached drafts run_budget_reached.
func NewRunBudgetReached(who Identity, f RunBudgetReached) Draft { return draft(who, f) }
