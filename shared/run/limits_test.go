package run_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/price"
	"muster/shared/record"
	"muster/shared/run"
)

// spend is a step that calls a model, which takes a while.
func (s *stage) spend(key string, took time.Duration) run.Step {
	return run.Step{Key: key, Do: func(_ context.Context, e *run.Emitter, _ int) (any, error) {
		s.clock = s.clock.Add(took)
		e.Use("priced", run.Usage{TotalTokens: 1000, PromptTokens: 600, CachedPromptTokens: 100, CompletionTokens: 400, SuccessfulRequests: 1})
		return key, nil
	}}
}

// work does steps until the run may not go on, and gives how many it did.
func (s *stage) work(o *run.Owner, took time.Duration) (int, error) {
	b := o.Root()
	for i := range 20 {
		if _, err := b.Step(o.Work(), s.spend(fmt.Sprint("step/", i), took)); err != nil {
			return i, err
		}
	}
	return 20, nil
}

// rewind sets a run back to where it had its first pages only and nobody held it.
func (s *stage) rewind(queued record.Record, pages int) {
	s.t.Helper()
	recs, err := s.Store.Scan(s.t.Context(), record.Prefix(queued.Part, ""))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, rec := range recs {
		var seq int
		if _, err := fmt.Sscanf(rec.Sort, "P#%d", &seq); rec.Sort == "RUN" || err == nil && seq > pages {
			if err := s.Store.Delete(s.t.Context(), rec.Key, rec.Rev); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	queued.Rev = 0
	if _, err := s.Store.Put(s.t.Context(), queued); err != nil {
		s.t.Fatal(err)
	}
}

func TestALimitEndsARunBeforeItsNextStep(t *testing.T) {
	// A step costs 1000 tokens, 0.00085 dollars and ten seconds.
	prices := price.Table{"priced": {Prompt: 1, Cached: 0.5, Completion: 0.75}}
	for _, c := range []struct {
		name          string
		deployment    crew.Limits
		kickoff       crew.Limits
		steps         int
		state         run.State
		error, reason string
		value, max    float64
	}{
		{"steps", crew.Limits{MaxSteps: 3}, crew.Limits{}, 3, run.Failed,
			"The run reached its limit max_steps: it has used 3 of 3 steps.", "max_steps", 3, 3},
		{"tokens", crew.Limits{}, crew.Limits{MaxTokens: 1500}, 2, run.Failed,
			"The run reached its limit max_tokens: it has used 2000 of 1500 tokens.", "max_tokens", 2000, 1500},
		{"cost", crew.Limits{}, crew.Limits{MaxCostUSD: 0.002}, 3, run.Failed,
			"The run reached its limit max_cost_usd: it has used 0.00255 of 0.002 US dollars of models.", "max_cost_usd", 0.00255, 0.002},
		{"time", crew.Limits{MaxDurationSeconds: 35}, crew.Limits{}, 4, run.TimedOut,
			"The run reached its limit max_duration_seconds: it has used 40 of 35 seconds.", "max_duration_seconds", 40, 35},
		{"the kickoff's is tighter", crew.Limits{MaxSteps: 5}, crew.Limits{MaxSteps: 2}, 2, run.Failed,
			"The run reached its limit max_steps: it has used 2 of 2 steps.", "max_steps", 2, 2},
		{"the kickoff cannot loosen the deployment's", crew.Limits{MaxSteps: 2}, crew.Limits{MaxSteps: 5}, 2, run.Failed,
			"The run reached its limit max_steps: it has used 2 of 2 steps.", "max_steps", 2, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			q := s.request()
			q.Deployment.Limits, q.Limits, q.Deployment.Prices = c.deployment, c.kickoff, prices
			r := s.start(q)
			queued, err := s.Store.Get(t.Context(), record.Key{Part: "R#" + r.ID, Sort: "RUN"})
			if err != nil {
				t.Fatal(err)
			}
			began := s.clock
			queued.Body = bytes.Replace(queued.Body, []byte("{"), []byte(`{"started_at":"`+began.Format(time.RFC3339)+`",`), 1)
			for died := range c.steps + 1 { // an owner died after so many pages; the next comes to the same end
				if died > 0 {
					s.rewind(queued, died)
					newest, err := s.Newest(t.Context(), r.ID)
					if err != nil {
						t.Fatal(err)
					}
					s.clock = began.Add(time.Duration(newest.Totals.Steps) * 10 * time.Second)
				}
				o := s.claim(r.ID)
				steps, err := s.work(o, 10*time.Second)
				var reached *run.Reached
				if steps != c.steps || !errors.As(err, &reached) {
					t.Fatalf("after %d pages: %d steps, then %v; want %d", died, steps, err, c.steps)
				}
				if err := o.Exceed(reached); err != nil {
					t.Fatal(err)
				}
				end, err := s.Newest(t.Context(), r.ID)
				if err != nil {
					t.Fatal(err)
				}
				s.want("outcome", *end.Outcome, run.Outcome{State: c.state, Error: c.error})
				var told events.RunBudgetReached
				if err := json.Unmarshal(end.Events[0].Data, &told); err != nil {
					t.Fatal(err)
				}
				s.want("what is told", told, events.RunBudgetReached{Limit: c.reason, Value: c.value, Max: c.max})
				s.want("and in which order", []string{end.Events[0].Type, end.Events[1].Type}, []string{"run_budget_reached", "crew_kickoff_failed"})
				item, err := s.Get(t.Context(), r.ID)
				if err != nil || item.State != c.state || item.Error != c.error {
					t.Errorf("the item says %+v, %v", item, err)
				}
			}
		})
	}
}

func TestTimeEndsAStepThatIsUnderWayAndLeavesOutThePerson(t *testing.T) {
	s := newStage(t)
	q := s.request()
	q.Limits.MaxDurationSeconds = 60
	s.LeaseTime = time.Hour
	r := s.start(q)
	o := s.claim(r.ID)
	if _, err := o.Root().Ask(o.Work(), run.Asking{Key: "q"}); !errors.Is(err, run.ErrWaiting) {
		t.Fatal(err)
	}
	if waits, err := o.Wait(); err != nil || !waits {
		t.Fatal(waits, err)
	}
	s.clock = s.clock.Add(time.Hour)
	page, err := s.Newest(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	if spent := run.SpentBy(o.Run(), page, s.clock); spent.WaitingSeconds != 3600 || spent.WallSeconds != 3600 {
		t.Errorf("while it waits: %+v", spent)
	}
	if err := s.Answer(t.Context(), run.QuestionID(r.ID, "q"), run.Reply{Approve: true}); err != nil {
		t.Fatal(err)
	}
	s.clock = s.clock.Add(time.Hour) // nobody comes for the answer
	o = s.claim(r.ID)
	b := o.Root()
	if _, err := b.Ask(o.Work(), run.Asking{Key: "q"}); err != nil {
		t.Fatal(err)
	}
	s.clock = s.clock.Add(time.Minute - 10*time.Millisecond)
	closed := false
	_, err = b.Step(o.Work(), run.Step{
		Key: "model", Cut: func(*run.Emitter, int) { closed = true },
		Do: func(ctx context.Context, _ *run.Emitter, _ int) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	var reached *run.Reached
	if !errors.As(err, &reached) || !closed {
		t.Fatalf("the step ended with %v, closed: %v", err, closed)
	}
	s.clock = s.clock.Add(10 * time.Millisecond)
	if err := o.Exceed(reached); err != nil {
		t.Fatal(err)
	}
	item, err := s.Get(t.Context(), r.ID)
	if err != nil || item.State != run.TimedOut {
		t.Fatalf("%+v, %v", item, err)
	}
	if page, err = s.Newest(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	if spent := run.SpentBy(item, page, s.clock); int(spent.WaitingSeconds) != 7200 || int(spent.WallSeconds) != 7260 {
		t.Errorf("at the end: %+v", spent)
	}
}

func TestATimeLongerThanAnyRunBindsNoStep(t *testing.T) {
	for _, limit := range []int{9_223_372_037, math.MaxInt} {
		s := newStage(t)
		q := s.request()
		q.Limits.MaxDurationSeconds = limit
		o := s.claim(s.start(q).ID)
		_, err := o.Root().Step(o.Work(), run.Step{Key: "model", Do: func(ctx context.Context, _ *run.Emitter, _ int) (any, error) {
			return "done", ctx.Err()
		}})
		if err != nil {
			t.Errorf("a limit of %d seconds: %v", limit, err)
		}
	}
}

func TestALimitWantsTokensThatAreCounted(t *testing.T) {
	counted, silent := run.Usage{TotalTokens: 10, PromptTokens: 10, SuccessfulRequests: 1}, run.Usage{SuccessfulRequests: 1}
	for _, c := range []struct {
		name, model string
		limits      crew.Limits
		used        run.Usage
		want        string
		known       bool
	}{
		{"counted tokens", "priced", crew.Limits{MaxTokens: 100, MaxCostUSD: 1}, counted, "", true},
		{"a call that failed", "priced", crew.Limits{MaxTokens: 100, MaxCostUSD: 1}, run.Usage{}, "", true},
		{"no limit that wants them", "priced", crew.Limits{MaxSteps: 5}, silent, "", false},
		{"a limit of tokens", "free", crew.Limits{MaxTokens: 100, MaxCostUSD: 1}, silent,
			"The run cannot be held to its limit max_tokens of 100 tokens: the model free does not say how many tokens it uses.", true},
		{"a limit of cost", "priced", crew.Limits{MaxCostUSD: 1}, silent,
			"The run cannot be held to its limit max_cost_usd of 1 US dollars of models: the model priced does not say how many tokens it uses.", false},
		{"a limit of cost, and a model that costs nothing", "free", crew.Limits{MaxCostUSD: 1}, silent, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			q := s.request()
			q.Limits, q.Deployment.Prices = c.limits, price.Table{"priced": {Prompt: 1}, "free": {}}
			r := s.start(q)
			o := s.claim(r.ID)
			step := func(key string) error {
				_, err := o.Root().Step(o.Work(), run.Step{Key: key, Do: func(_ context.Context, e *run.Emitter, _ int) (any, error) {
					e.Use(c.model, c.used)
					return 1, nil
				}})
				return err
			}
			if err := step("first"); err != nil {
				t.Fatal(err)
			}
			said := ""
			if err := step("second"); err != nil {
				said = err.Error()
			}
			s.want("the second step", said, c.want)
			page, err := s.Newest(t.Context(), r.ID)
			if err != nil {
				t.Fatal(err)
			}
			s.want("whether the cost is known", run.SpentBy(o.Run(), page, s.clock).CostUSD != nil, c.known)
		})
	}
}

func TestALimitOfCostWantsPrices(t *testing.T) {
	for _, c := range []struct {
		name, model string
		limit       float64
		refused     bool
	}{
		{"without a limit nobody asks", "gpt-9", 0, false},
		{"a price of the file", "openai/gpt-4.1-mini", 1, false},
		{"a price of the deployment", "priced", 1, false},
		{"no price", "gpt-9", 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			q := s.request()
			q.Limits.MaxCostUSD, q.Deployment.Prices = c.limit, price.Table{"priced": {}}
			err := s.claim(s.start(q).ID).Root().MayPay(c.model)
			if refused := fault.Is(err, fault.Invalid); refused != c.refused {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWhatARunUsedIsCountedByModel(t *testing.T) {
	s := newStage(t)
	q := s.request()
	q.Deployment.Prices = price.Table{"priced": {Prompt: 1, Cached: 0.5, Completion: 0.75}}
	r := s.start(q)
	o := s.claim(r.ID)
	b := o.Root()
	for i := range 2 {
		if _, err := b.Step(o.Work(), s.spend(fmt.Sprint("priced/", i), time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	do := func(key string, f func(e *run.Emitter)) {
		t.Helper()
		if _, err := b.Step(o.Work(), run.Step{Key: key, Do: func(_ context.Context, e *run.Emitter, _ int) (any, error) { f(e); return 1, nil }}); err != nil {
			t.Fatal(err)
		}
	}
	do("tool", func(e *run.Emitter) { e.UseTool() })
	do("failed", func(e *run.Emitter) { e.Use("secret", run.Usage{}) })
	page, err := s.Newest(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	spent := run.SpentBy(o.Run(), page, s.clock)
	zero, cost := 0.0, 0.0017
	s.want("by model", spent.ByModel, map[string]run.ModelReport{
		"priced": {Calls: 2, Usage: run.Usage{TotalTokens: 2000, PromptTokens: 1200, CachedPromptTokens: 200, CompletionTokens: 800, SuccessfulRequests: 2}, CostUSD: &cost},
		"secret": {Calls: 1, CostUSD: &zero},
	})
	if spent.ModelCalls != 3 || spent.ToolCalls != 1 || spent.Steps != 4 || *spent.CostUSD != cost || spent.WallSeconds != 2 || spent.AWSCostUSD <= 0 {
		t.Errorf("%+v", spent)
	}

	do("unpriced", func(e *run.Emitter) { e.Use("secret", run.Usage{TotalTokens: 5}) })
	if page, err = s.Newest(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	if spent := run.SpentBy(o.Run(), page, s.clock); spent.CostUSD != nil || spent.ByModel["secret"].CostUSD != nil || *spent.ByModel["priced"].CostUSD != cost {
		t.Errorf("with a call that nobody knows the price of: %+v", spent)
	}
}

func TestARunOfOneAgentThatIsOverItsTimeHasFailed(t *testing.T) {
	for limit, want := range map[int]string{600: "timed out after 10 minutes", 60: "timed out after 1 minute", 90: "timed out after 90 seconds"} {
		s := newStage(t)
		q := s.request()
		q.Agent, q.Limits.MaxDurationSeconds, q.Inputs = "a", limit, nil
		s.LeaseTime = time.Hour
		r := s.start(q)
		s.clock = s.clock.Add(time.Hour) // nobody comes for it: that does not count
		o := s.claim(r.ID)
		s.clock = s.clock.Add(time.Duration(limit) * time.Second)
		_, err := s.work(o, 0)
		var reached *run.Reached
		if !errors.As(err, &reached) {
			t.Fatalf("the work ends with %v", err)
		}
		if err := o.Exceed(reached); err != nil {
			t.Fatal(err)
		}
		end, err := s.Newest(t.Context(), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		s.want("outcome", *end.Outcome, run.Outcome{State: run.Failed, Error: want})
	}
}
