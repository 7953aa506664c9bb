package ampwire

import (
	"encoding/json"
	"fmt"

	"muster/shared/run"
	"muster/shared/webhook"
)

// The bodies of the step, task, crew and human input URLs. Every key is always there; meta is the kickoff's, unchanged.

type stepBody struct {
	Prompt    string          `json:"prompt"`
	Thought   string          `json:"thought"`
	Tool      *string         `json:"tool"`
	ToolInput *string         `json:"tool_input"`
	Result    *string         `json:"result"`
	KickoffID string          `json:"kickoff_id"`
	Meta      json.RawMessage `json:"meta"`
}

type taskBody struct {
	Description    string          `json:"description"`
	Name           string          `json:"name"`
	ExpectedOutput string          `json:"expected_output"`
	Summary        string          `json:"summary"`
	Agent          string          `json:"agent"`
	Output         string          `json:"output"`
	OutputJSON     json.RawMessage `json:"output_json"`
	KickoffID      string          `json:"kickoff_id"`
	Meta           json.RawMessage `json:"meta"`
}

type crewBody struct {
	KickoffID  string          `json:"kickoff_id"`
	Result     *string         `json:"result"`
	ResultJSON json.RawMessage `json:"result_json"`
	TokenUsage tokenUsage      `json:"token_usage"`
	Meta       json.RawMessage `json:"meta"`
	// Status and Error are there unless the run succeeded.
	Status string `json:"status,omitempty"`
	Error  string `json:"error,omitempty"`
}

type humanBody struct {
	KickoffID   string          `json:"kickoff_id"`
	ExecutionID string          `json:"execution_id"`
	TaskID      string          `json:"task_id"`
	TaskOutput  string          `json:"task_output"`
	Meta        json.RawMessage `json:"meta"`

	// The original has none of these.
	TaskName   string  `json:"task_name"`
	RequestID  string  `json:"request_id"`
	Round      int     `json:"round"`
	ExpiresAt  *string `json:"expires_at"`
	ApproveURL string  `json:"approve_url,omitempty"`
	RejectURL  string  `json:"reject_url,omitempty"`
}

type tokenUsage struct {
	TotalTokens      int `json:"total_tokens"`
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
}

// Step makes a body of each thought and action that a page notes.
func Step(r run.Run, q run.Request, p run.Page, _ run.Target, _ []json.RawMessage) ([]webhook.Body, error) {
	var bodies []webhook.Body
	for _, n := range p.Notes {
		b := stepBody{Prompt: n.Prompt, Thought: n.Thought, KickoffID: r.ID, Meta: q.Meta}
		b.Tool, b.ToolInput, b.Result = tool(n)
		body, err := one(b)
		if err != nil {
			return nil, fmt.Errorf("make a step body of page %d of run %s: %w", p.Seq, r.ID, err)
		}
		bodies = append(bodies, body)
	}
	return bodies, nil
}

// Task makes a body of each task that ended with a page.
func Task(r run.Run, q run.Request, p run.Page, _ run.Target, _ []json.RawMessage) ([]webhook.Body, error) {
	var bodies []webhook.Body
	for _, t := range p.Tasks {
		body, err := one(newTaskBody(t, r.ID, q.Meta))
		if err != nil {
			return nil, fmt.Errorf("make a task body of page %d of run %s: %w", p.Seq, r.ID, err)
		}
		bodies = append(bodies, body)
	}
	return bodies, nil
}

// Crew makes the body of the end of a run. The original tells of success only.
func Crew(r run.Run, q run.Request, p run.Page, _ run.Target, _ []json.RawMessage) ([]webhook.Body, error) {
	if p.Outcome == nil {
		return nil, nil
	}
	u := p.Totals.Usage
	b := crewBody{KickoffID: r.ID, TokenUsage: tokenUsage{u.TotalTokens, u.PromptTokens, u.CompletionTokens}, Meta: q.Meta}
	if p.Outcome.State == run.Succeeded {
		b.Result, b.ResultJSON = &p.Outcome.Result, p.Outcome.JSON
	} else {
		state, sentence := stateWords(p.Outcome.State, p)
		b.Status, b.Error = state, *sentence
	}
	body, err := one(b)
	if err != nil {
		return nil, fmt.Errorf("make the crew body of run %s: %w", r.ID, err)
	}
	return []webhook.Body{body}, nil
}

// HumanInput makes the format of a question to a person. link gives the URL of a page where somebody can give an answer
// without a token, "" for none.
func HumanInput(link func(r run.Run, q run.Asked, answer string) (string, error)) func(run.Run, run.Request, run.Page, run.Target, []json.RawMessage) ([]webhook.Body, error) {
	return func(r run.Run, q run.Request, p run.Page, _ run.Target, _ []json.RawMessage) ([]webhook.Body, error) {
		if p.Asked == nil {
			return nil, nil
		}
		a := *p.Asked
		b := humanBody{
			KickoffID: r.ID, ExecutionID: r.ID, TaskID: a.Task.TaskID, TaskOutput: a.Task.Raw, Meta: q.Meta,
			TaskName: a.Task.Name, RequestID: a.ID, Round: a.Round,
		}
		if !a.Expires.IsZero() {
			b.ExpiresAt = text(timestamp(a.Expires))
		}
		var err error
		if b.ApproveURL, err = link(r, a, run.Approve); err != nil {
			return nil, err
		}
		if b.RejectURL, err = link(r, a, run.Reject); err != nil {
			return nil, err
		}
		body, err := one(b)
		if err != nil {
			return nil, fmt.Errorf("make the human input body of page %d of run %s: %w", p.Seq, r.ID, err)
		}
		return []webhook.Body{body}, nil
	}
}

func newTaskBody(t run.TaskOutput, runID string, meta json.RawMessage) *taskBody {
	return &taskBody{
		Description: t.Description, Name: t.Name, ExpectedOutput: t.ExpectedOutput, Summary: t.Summary, Agent: t.Agent,
		Output: t.Raw, OutputJSON: t.JSON, KickoffID: runID, Meta: meta,
	}
}

// tool gives the three values of a note that are null for a thought without a tool.
func tool(n run.Note) (name, input, result *string) {
	if n.Tool == "" {
		return nil, nil, nil
	}
	return &n.Tool, &n.ToolInput, &n.Result
}

// one makes a body that cannot be cut.
func one(v any) (webhook.Body, error) {
	raw, err := webhook.Marshal(v)
	return webhook.Body{JSON: raw}, err
}
