package e2e_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/shared/engine/llm/scripted"
)

// models is about models that misbehave, and about the one that is none.
var models = []behaviour{
	{"a model that fails is tried three times by the SDK and three times by the agent; then the run fails and says why", failsWithTheModel},
	{"a model that fails now and then costs nothing but retries", survivesHiccups},
	{"without a model the answer is made of the input, the context and the knowledge", answersOffline},
}

func failsWithTheModel(t *testing.T, h *home) {
	for _, c := range []struct {
		name  string
		reply scripted.Reply
		model string // when it is not the scripted one
		// tries is how many requests one call makes; 0 where nobody counts.
		tries int
		says  string
	}{
		{"nobody listens", scripted.Reply{}, "ollama/llama3.2", 0, "The model ollama/llama3.2 could not be reached"},
		{"it hangs up", scripted.Reply{Drop: true}, "", 0, "could not be reached"},
		{"429", scripted.Fail(429, "slow down"), "", 3, "answered 429 (rate limit): slow down."},
		{"500", scripted.Fail(500, "out of order"), "", 3, "answered 500 (internal server error): out of order."},
		{"400", scripted.Fail(400, "no such model"), "", 1, "answered 400 (bad request): no such model."},
		{"401 with the key in the answer", scripted.Fail(401, "bad key "+modelKey), "", 1, "answered 401 (the key is missing or not accepted)."},
		{"malformed JSON", scripted.Reply{Raw: `{"choices": [{"mess`}, "", 1, "answer"},
		{"a page of HTML", scripted.Reply{Raw: `<html>hello</html>`}, "", 1, "answer"},
		{"no choices", scripted.Reply{Raw: `{"id":"x","object":"chat.completion","choices":[]}`}, "", 1, "answer"},
		{"an empty answer", scripted.Reply{}, "", 1, "gave an empty answer."},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			model := c.model
			if model == "" {
				model = h.answer(scripted.Sequence(c.reply))
			}
			d := h.deploy(t, simple(model))
			r := newReceiver(t, h)
			runID := d.kickoff(t, about("trouble", r.webhooks(false)))
			all := r.hear(t, d, runID)
			attempt := []string{"agent_execution_started", "agent_logs_started", "llm_call_started", "llm_call_failed", "agent_execution_error"}
			want := slices.Concat([]string{"crew_kickoff_started", "task_started"}, attempt, attempt, attempt, []string{"task_failed", "crew_kickoff_failed"})
			if diff := cmp.Diff(want, withoutCuts(all)); diff != "" {
				t.Errorf("what was told (-want +got):\n%s", diff)
			}
			s := d.status(t, runID)
			if s.State != "FAILED" || s.Status == nil || !strings.Contains(*s.Status, c.says) || s.Result != nil {
				t.Fatalf("the status is %+v, want a sentence with %q", s, c.says)
			}
			if strings.Contains(*s.Status, modelKey) || strings.Contains(*s.Status, "127.0.0.1") || strings.Contains(*s.Status, "\n") || !strings.HasSuffix(*s.Status, ".") {
				t.Errorf("this is no sentence for people: %q", *s.Status)
			}
			var end struct {
				Status, Error string
				ResultJSON    json.RawMessage `json:"result_json"`
			}
			if err := json.Unmarshal(r.on("/crew")[0].body, &end); err != nil {
				t.Fatal(err)
			}
			if end.Status != "FAILED" || end.Error != *s.Status || string(end.ResultJSON) != "null" {
				t.Errorf("the crew's URL was told %+v, and the status says %q", end, *s.Status)
			}
			if n := len(h.asked(model)); c.tries > 0 && n != 3*c.tries && len(ofType(all, "llm_call_failed")) == 3 {
				t.Errorf("the model was asked %d times, want %d", n, 3*c.tries)
			}
		})
	}
}

// withoutCuts gives the types of events without the calls that were cut by a take-over and made again.
func withoutCuts(all []event) (names []string) {
	cut := map[string]bool{}
	for _, e := range ofType(all, "llm_call_failed") {
		if strings.Contains(*e.Data.Error, "interrupted") {
			cut[*e.Data.CallID] = true
		}
	}
	for _, e := range all {
		if e.Data.CallID == nil || !cut[*e.Data.CallID] {
			names = append(names, e.Type)
		}
	}
	return names
}

// asked gives the requests that were made to a model.
func (h *home) asked(model string) []scripted.Call {
	_, name, _ := strings.Cut(model, "/")
	return slices.DeleteFunc(h.model.Calls(), func(c scripted.Call) bool { return c.Model != name })
}

func survivesHiccups(t *testing.T, h *home) {
	model := h.answer(func(r scripted.Request) scripted.Reply {
		switch r.Attempt {
		case 0:
			return scripted.Fail(429, "slow down")
		case 1:
			return scripted.Fail(503, "not now")
		}
		return scripted.Text("Done.")
	})
	d := h.deploy(t, simple(model))
	r := newReceiver(t, h)
	runID := d.kickoff(t, about("hiccups", r.webhooks(false)))
	if all := r.hear(t, d, runID); slices.Contains(withoutCuts(all), "llm_call_failed") {
		t.Errorf("heard of %v", typesOf(all))
	}
	if s := d.status(t, runID); s.State != "SUCCESS" || s.UsageMetrics.SuccessfulRequests != 1 {
		t.Errorf("the status is %+v", s)
	}
}

func answersOffline(t *testing.T, h *home) {
	files, inputs := sample(t, "lead-research")
	d := h.deploy(t, files)
	sources := strings.Builder{}
	for name, text := range files {
		if strings.HasPrefix(name, "knowledge/") || strings.HasSuffix(name, ".yaml") {
			sources.WriteString(text + "\n")
		}
	}
	answer := func(inputs map[string]any) string {
		r := newReceiver(t, h)
		body := r.webhooks(false)
		body["inputs"] = inputs
		runID := d.kickoff(t, body)
		all := r.hear(t, d, runID)
		if len(ofType(all, "tool_usage_finished")) == 0 {
			t.Errorf("no tool was used: %v", typesOf(all))
		}
		s := d.status(t, runID)
		if s.State != "SUCCESS" || s.ResultJSON == nil || s.ModelNote == nil || !strings.Contains(*s.ModelNote, "offline/extract") {
			t.Fatalf("the status is %+v", s)
		}
		known := sources.String()
		for name, value := range inputs {
			known = strings.ReplaceAll(known, "{"+name+"}", value.(string)) + "\n" + value.(string)
		}
		var result struct {
			LeadScore     string   `json:"lead_score"`
			TalkingPoints []string `json:"talking_points"`
		}
		if err := json.Unmarshal(s.ResultJSON, &result); err != nil || len(result.TalkingPoints) == 0 {
			t.Fatalf("%v in %s", err, s.ResultJSON)
		}
		for _, sentence := range append(result.TalkingPoints, result.LeadScore) {
			if !strings.Contains(plain(known), plain(sentence)) {
				t.Errorf("nobody said %q", sentence)
			}
		}
		return *s.Result
	}
	first := answer(inputs)
	inputs["company"], inputs["form_response"] = "Nordlicht Shoes", "retail"
	if second := answer(inputs); second == first {
		t.Errorf("two inputs gave one answer: %s", first)
	}
}

// plain takes the line breaks out of a text.
func plain(s string) string { return strings.Join(strings.Fields(s), " ") }
