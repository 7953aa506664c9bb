package e2e_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/engine/llm/scripted"
	"muster/shared/webhook"
)

// whatItTells is about the webhooks of runs that go well, or nearly.
var whatItTells = []behaviour{
	{"the reference crew succeeds, and each receiver is told everything, in the shapes of the seeds", tellsEverything},
	{"events from outside are told like the crew's own", tellsOutside},
	{"a realtime stream hears that a model is asked while the model still thinks", tellsAtOnce},
	{"a stream hears only of what it asked for", tellsWhatWasAsked},
	{"tools that fail are told, and the crew goes on", tellsToolFailures},
	{"a model that takes no tools uses them in words, and its slips are told", tellsWords},
	{"a model that turns out to refuse tools goes on in words", tellsRefusedTools},
}

func tellsEverything(t *testing.T, h *home) {
	model := h.answer(referenceModel(nil))
	d := h.deploy(t, reference(model))
	r := newReceiver(t, h)
	body := r.webhooks(false)
	body["inputs"] = map[string]any{"company": "tesla"}
	runID := d.kickoff(t, body)
	all := r.hear(t, d, runID)

	counts := map[string]int{}
	for _, e := range all {
		counts[e.Type]++
	}
	want := map[string]int{
		"crew_kickoff_started": 1, "crew_kickoff_completed": 1, "task_started": 3, "task_completed": 3,
		"agent_execution_started": 4, "agent_execution_completed": 4, "agent_logs_started": 4, "agent_logs_execution": 4,
		"llm_call_started": 8, "llm_call_completed": 8, "tool_usage_started": 3, "tool_usage_finished": 3, "lead_found": 1,
		"llm_guardrail_started": 2, "llm_guardrail_completed": 2,
	}
	delete(counts, "llm_stream_chunk") // as many as the machine is slow
	delete(counts, "llm_call_failed")  // of calls that a bad day cut
	counts["llm_call_started"] -= len(ofType(all, "llm_call_failed"))
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("what was told how often (-want +got):\n%s", diff)
	}
	if found := ofType(all, "lead_found"); len(found) == 1 && found[0].Data.Fact != "Banks write letters." {
		t.Errorf("the crew's own event says %v", found[0].Data.Fact)
	}
	if verdicts := ofType(all, "llm_guardrail_completed"); len(verdicts) == 2 && (*verdicts[0].Data.Success || !*verdicts[1].Data.Success) {
		t.Errorf("the guardrail was not content with the second answer only")
	}
	for _, e := range ofType(all, "llm_call_started") {
		if len(e.Data.Messages) < 10 {
			t.Errorf("llm_call_started shows the messages %s", e.Data.Messages)
		}
	}

	// Steps, tasks and the end come in any order and perhaps twice; a delivery's id says which are the same.
	posts := r.until(t, "seven steps and three tasks", func(posts []post) bool {
		return len(distinct(posts, "/step")) >= 7 && len(distinct(posts, "/task")) >= 3
	})
	if steps, tasks, ends := distinct(posts, "/step"), distinct(posts, "/task"), distinct(posts, "/crew"); len(steps) != 7 || len(tasks) != 3 || len(ends) != 1 {
		t.Errorf("%d steps, %d tasks and %d ends were told, want 7, 3 and 1", len(steps), len(tasks), len(ends))
	}
	holdSteps(t, distinct(posts, "/step"))
	holdTasks(t, distinct(posts, "/task"))

	const result = `{"score": "high", "source": "the annual report"}`
	var end struct {
		Result     string          `json:"result"`
		ResultJSON json.RawMessage `json:"result_json"`
		TokenUsage map[string]int  `json:"token_usage"`
	}
	if err := json.Unmarshal(distinct(posts, "/crew")[0].body, &end); err != nil {
		t.Fatal(err)
	}
	if end.Result != result || string(end.ResultJSON) != `{"score":"high","source":"the annual report"}` {
		t.Errorf("the crew's URL was told %q and %s", end.Result, end.ResultJSON)
	}
	s := d.status(t, runID)
	if s.State != "SUCCESS" || s.Result == nil || *s.Result != result || s.EventsCount != len(all) || s.ModelNote != nil {
		t.Errorf("the status is %+v", s)
	}
	u := s.UsageMetrics
	if u.SuccessfulRequests != 8 || u.TotalTokens == 0 || u.TotalTokens != u.PromptTokens+u.CompletionTokens {
		t.Errorf("the usage is %+v", u)
	}
	if diff := cmp.Diff(map[string]int{"total_tokens": u.TotalTokens, "prompt_tokens": u.PromptTokens, "completion_tokens": u.CompletionTokens}, end.TokenUsage); diff != "" {
		t.Errorf("the usage told, and the one in the status:\n%s", diff)
	}
}

// distinct gives the posts of a path, one of each delivery.
func distinct(posts []post, path string) (some []post) {
	for _, p := range posts {
		if p.path == path && p.nth == 1 {
			some = append(some, p)
		}
	}
	return some
}

func holdSteps(t *testing.T, posts []post) {
	t.Helper()
	var got []string
	for _, p := range posts {
		var s struct {
			Prompt    string  `json:"prompt"`
			Thought   string  `json:"thought"`
			Tool      *string `json:"tool"`
			ToolInput *string `json:"tool_input"`
			Result    *string `json:"result"`
		}
		if err := json.Unmarshal(p.body, &s); err != nil {
			t.Error(err)
		}
		prompt, _, _ := strings.Cut(s.Prompt, " ")
		switch {
		case s.Tool == nil && s.ToolInput == nil && s.Result == nil:
			got = append(got, prompt+": "+s.Thought)
		case s.Tool != nil && s.ToolInput != nil && s.Result != nil && *s.Result != "":
			got = append(got, prompt+": "+*s.Tool+" "+*s.ToolInput)
		default:
			t.Errorf("a step is half a thought and half a tool: %s", p.body)
		}
	}
	slices.Sort(got)
	want := []string{
		"Look: There is nothing beside the road.",
		"Research: Banks answer many letters.\n\nAn audit costs more than a penalty.",
		`Research: emit_event {"data":{"fact":"Banks write letters."},"type":"lead_found"}`,
		"Research: research_tool letters of banks",
		"Research: research_tool penalties",
		`Write: {"score": "high", "source": "the annual report"}`,
		`Write: {"score": "high"}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the steps (-want +got):\n%s", diff)
	}
}

func holdTasks(t *testing.T, posts []post) {
	t.Helper()
	got := map[string][3]string{}
	for _, p := range posts {
		var s struct {
			Description string          `json:"description"`
			Name        string          `json:"name"`
			Summary     string          `json:"summary"`
			Agent       string          `json:"agent"`
			OutputJSON  json.RawMessage `json:"output_json"`
		}
		if err := json.Unmarshal(p.body, &s); err != nil {
			t.Error(err)
		}
		if !strings.HasSuffix(s.Description, "tesla") {
			t.Errorf("a task's description is %q", s.Description)
		}
		got[s.Name] = [3]string{s.Agent, s.Summary, string(s.OutputJSON)}
	}
	want := map[string][3]string{
		"Industry Research Task": {"Role of researcher", "An audit costs more than a penalty.", "null"},
		"aside":                  {"Role of writer", "There is nothing beside the road.", "null"},
		"report":                 {"Role of writer", `{"score": "high", "source": "the annual report"}`, `{"score":"high","source":"the annual report"}`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the tasks (-want +got):\n%s", diff)
	}
}

func tellsOutside(t *testing.T, h *home) {
	gate, asked := make(chan struct{}), make(chan struct{}, 100)
	model := h.answer(func(r scripted.Request) scripted.Reply {
		asked <- struct{}{}
		return scripted.Reply{Text: "Done.", Wait: gate}
	})
	d := h.deploy(t, simple(model))
	r := newReceiver(t, h)
	runID := d.kickoff(t, about("doors", r.webhooks(true)))
	wait(t, asked, "the model is asked")
	var told struct {
		ID    string `json:"id"`
		RunID string `json:"run_id"`
		Type  string `json:"type"`
	}
	body := map[string]any{"type": "door_opened", "data": map[string]any{"fact": "a person opened the door"}}
	code, answer := h.call(t, "POST", "/v1/runs/"+runID+"/events", d.Token, body)
	for code >= 500 {
		code, answer = h.call(t, "POST", "/v1/runs/"+runID+"/events", d.Token, body)
	}
	if err := json.Unmarshal(answer, &told); err != nil || code != http.StatusCreated && code != http.StatusAccepted {
		t.Fatalf("got %d %s", code, answer)
	}
	// A realtime stream hears it while the model still thinks.
	r.until(t, "the event from outside", func(posts []post) bool { return len(ofType(eventsOf(t, posts), "door_opened")) > 0 })
	close(gate)
	all := r.hear(t, d, runID)
	found := ofType(all, "door_opened")
	if !slices.ContainsFunc(found, func(e event) bool { return e.ID == told.ID }) || found[0].Data.Fact != "a person opened the door" {
		t.Errorf("told %+v, and heard %+v", told, found)
	}

	h.want(t, http.StatusConflict, "POST", "/v1/runs/"+runID+"/events", d.Token, map[string]any{"type": "too_late"}, nil)
	h.want(t, http.StatusBadRequest, "POST", "/v1/runs/"+runID+"/events", d.Token, map[string]any{"type": "crew_kickoff_completed"}, nil)
	h.want(t, http.StatusBadRequest, "POST", "/v1/runs/"+runID+"/events", d.Token, map[string]any{"data": map[string]any{}}, nil)
}

// wait waits for a signal.
func wait(t *testing.T, signal <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-signal:
	case <-time.After(patience):
		t.Fatalf("waited %s in vain until %s", patience, what)
	}
}

// tellsAtOnce has a model that hangs until the stream was told that it is asked.
func tellsAtOnce(t *testing.T, h *home) { heardAfter(t, h) }

// TestRealtimeIsWithinASecond runs while no other test does, for it looks at the clock.
func TestRealtimeIsWithinASecond(t *testing.T) {
	for _, where := range []struct {
		name string
		open opener
	}{{"in the embedded home", onSQLite}, {"in the AWS home", onAWS}} {
		t.Run(where.name, func(t *testing.T) {
			if took := heardAfter(t, newHome(t, where.open, settings{})); took > time.Second {
				t.Errorf("heard that the model is asked %s after it was, want less than a second", took)
			}
		})
	}
}

// heardAfter gives how long after the beginning of a model call a realtime stream was told of it, while the model thinks.
func heardAfter(t *testing.T, h *home) (took time.Duration) {
	gate, asked := make(chan struct{}), make(chan struct{}, 100)
	model := h.answer(func(scripted.Request) scripted.Reply {
		asked <- struct{}{}
		return scripted.Reply{Text: "Done.", Wait: gate}
	})
	d := h.deploy(t, simple(model))
	r := newReceiver(t, h)
	runID := d.kickoff(t, about("patience", r.webhooks(true)))
	wait(t, asked, "the model is asked")
	posts := r.until(t, "a call that has started", func(posts []post) bool { return len(ofType(eventsOf(t, posts), "llm_call_started")) > 0 })
	for _, p := range posts {
		told := eventsOf(t, []post{p})
		if p.path == "/events" && len(told) != 1 {
			t.Errorf("a realtime POST carries %v", typesOf(told))
		}
		if started := ofType(told, "llm_call_started"); len(started) > 0 && took == 0 {
			began, err := time.Parse(time.RFC3339, started[0].Timestamp)
			if err != nil {
				t.Fatal(err)
			}
			took = p.at.Sub(began)
		}
	}
	if s := d.status(t, runID); s.State != "RUNNING" {
		t.Errorf("the run is %s while its model thinks", s.State)
	}
	close(gate)
	r.hear(t, d, runID)
	return took
}

func tellsWhatWasAsked(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	r := newReceiver(t, h)
	runID := d.kickoff(t, about("filters", map[string]any{
		"crewWebhookUrl": r.url + "/crew",
		"webhooks":       map[string]any{"events": []string{"crew_kickoff_started", "llm_call_started", "no_such_event"}, "url": r.url + "/events"},
	}))
	posts := r.until(t, "the end and two events", func(posts []post) bool {
		return len(distinct(posts, "/crew")) == 1 && len(eventsOf(t, posts)) == 2
	})
	if got := typesOf(eventsOf(t, posts)); !slices.Equal(got, []string{"crew_kickoff_started", "llm_call_started"}) {
		t.Errorf("heard of %v", got)
	}
	for _, p := range posts {
		want := []string{"events"} // no meta was given
		if p.path == "/crew" {
			want = crewKeys
		}
		if got := keys(t, p.body); !slices.Equal(got, want) || p.header.Get("Authorization") != "" {
			t.Errorf("%s has the keys %v and the Authorization %q", p.path, got, p.header.Get("Authorization"))
		}
		if err := webhook.Verify(d.WebhookSecret, p.header, p.body, p.at); err != nil {
			t.Error(err)
		}
	}
	if s := d.status(t, runID); s.State != "SUCCESS" {
		t.Errorf("the run is %s", s.State)
	}
}

func tellsToolFailures(t *testing.T, h *home) {
	for _, c := range []struct {
		name, tool string
		arguments  any
		want       []string
	}{
		{"a tool that is not there", "serach", map[string]any{"query": "rain"}, []string{"tool_usage_started", "tool_usage_finished", "tool_failure_detected"}},
		{"an argument that is missing", "search", map[string]any{}, []string{"tool_usage_started", "tool_usage_error", "tool_failure_detected"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := h.deploy(t, withTool(h.answer(once(c.tool, c.arguments))))
			r := newReceiver(t, h)
			runID := d.kickoff(t, about("tools", r.webhooks(false)))
			var got []string
			for _, e := range r.hear(t, d, runID) {
				if strings.HasPrefix(e.Type, "tool_") {
					got = append(got, e.Type)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the events of the tool (-want +got):\n%s", diff)
			}
			if s := d.status(t, runID); s.State != "SUCCESS" {
				t.Errorf("the run is %s", s.State)
			}
		})
	}
}

// inWords answers a text loop: two slips, a search, and the end, going by what it was told before.
func inWords(r scripted.Request) scripted.Reply {
	switch (len(r.Messages) - 1) / 2 {
	case 0:
		return scripted.Text("Thought: look\nAction: browse\nAction Input: {}")
	case 1:
		return scripted.Text("Thought: look better\nAction: search\nAction Input: {]")
	case 2:
		return scripted.Text("Thought: look well\nAction: search\nAction Input: {\"query\": \"rain\"}")
	}
	return scripted.Text("Thought: I know\nFinal Answer: It rains on Tuesdays.")
}

func tellsWords(t *testing.T, h *home) {
	d := h.deploy(t, withTool("openai/"+h.answerAs("gemma2", inWords)))
	r := newReceiver(t, h)
	runID := d.kickoff(t, about("rain", r.webhooks(false)))
	all := r.hear(t, d, runID)
	for _, want := range []string{"tool_selection_error", "tool_validate_input_error", "tool_usage_finished"} {
		if len(ofType(all, want)) != 1 {
			t.Errorf("%s was told %d times, want once, among %v", want, len(ofType(all, want)), typesOf(all))
		}
	}
	if s := d.status(t, runID); s.State != "SUCCESS" || *s.Result != "It rains on Tuesdays." {
		t.Errorf("the status is %+v", s)
	}
}

func tellsRefusedTools(t *testing.T, h *home) {
	d := h.deploy(t, withTool(h.answer(func(r scripted.Request) scripted.Reply {
		if len(r.Tools) > 0 {
			return scripted.Fail(400, "this model does not support tools")
		}
		if len(r.Messages) <= 3 {
			return scripted.Text("Thought: look\nAction: search\nAction Input: {\"query\": \"rain\"}")
		}
		return scripted.Text("Final Answer: It rains on Tuesdays.")
	})))
	r := newReceiver(t, h)
	runID := d.kickoff(t, about("rain", r.webhooks(false)))
	all := r.hear(t, d, runID)
	if len(ofType(all, "tool_usage_finished")) != 1 || len(ofType(all, "agent_execution_error")) != 0 {
		t.Errorf("heard of %v", typesOf(all))
	}
	if s := d.status(t, runID); s.State != "SUCCESS" || *s.Result != "It rains on Tuesdays." {
		t.Errorf("the status is %+v", s)
	}
}
