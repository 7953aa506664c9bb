package e2e_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"muster/shared/engine/llm/scripted"
)

// people are about runs that wait for a person, and runs that a person stops.
var people = []behaviour{
	{"a rejected output is made again with the feedback, and an approved one is used", asksAPerson},
	{"a link in the question opens a page, and its form answers once", asksByLink},
	{"a question that nobody answers has its default, or ends the run", asksInVain},
	{"a run is stopped while its model thinks, and while it waits", stops},
}

// reviewed is a crew whose first task somebody reviews.
func reviewed(model string, lines ...string) map[string]string {
	lines = append([]string{"human_input: true"}, lines...)
	return crew(agent("worker", model), task("draft", "worker", "Draft a text on {topic}", lines...)+task("print", "worker", "Print it"))
}

// drafting answers it.
func drafting(r scripted.Request) scripted.Reply {
	switch user := r.User(); {
	case strings.Contains(user, "Print it") && strings.Contains(user, "Short.") && strings.Contains(user, "Use blue paper."):
		return scripted.Text("Printed on blue paper.")
	case strings.Contains(user, "Print it"):
		return scripted.Text("Printed.")
	case strings.Contains(user, "Make it shorter."):
		return scripted.Text("Short.")
	}
	return scripted.Text("A long draft.")
}

// asked are the fields of a kickoff that make a receiver hear everything, questions too.
func (r *receiver) asked() map[string]any {
	body := r.webhooks(false)
	body["humanInputWebhook"] = map[string]any{
		"url": r.url + "/human", "authentication": map[string]string{"strategy": "basic", "username": "jo", "password": "secret"},
	}
	return body
}

// question is the body of a question's webhook.
type question struct {
	ExecutionID string `json:"execution_id"`
	TaskID      string `json:"task_id"`
	TaskOutput  string `json:"task_output"`
	TaskName    string `json:"task_name"`
	RequestID   string `json:"request_id"`
	Round       int    `json:"round"`
	ApproveURL  string `json:"approve_url"`
	RejectURL   string `json:"reject_url"`
}

// question waits for the question of a round.
func (r *receiver) question(t *testing.T, runID string, round int) (q question) {
	t.Helper()
	r.until(t, "a question", func(posts []post) bool {
		for _, p := range posts {
			if p.path != "/human" {
				continue
			}
			if err := json.Unmarshal(p.body, &q); err != nil {
				t.Fatal(err)
			}
			if q.Round == round {
				if got := p.header.Get("Authorization"); got != "Basic am86c2VjcmV0" {
					t.Errorf("the Authorization is %q", got)
				}
				return true
			}
		}
		return false
	})
	if q.ExecutionID != runID || q.TaskName != "draft" || q.TaskID == "" || q.TaskID == "draft" {
		t.Errorf("the question is %+v", q)
	}
	return q
}

func asksAPerson(t *testing.T, h *home) {
	d := h.deploy(t, reviewed(h.answer(drafting)))
	r := newReceiver(t, h)
	runID := d.kickoff(t, about("ships", r.asked()))

	first := r.question(t, runID, 1)
	if s := d.status(t, runID); s.State != "PAUSED" || first.TaskOutput != "A long draft." {
		t.Errorf("the run is %s, and its question shows %q", s.State, first.TaskOutput)
	}
	var listed struct {
		Approvals []struct {
			ID     string `json:"id"`
			Output string `json:"output"`
		} `json:"approvals"`
	}
	eventually(t, "the question is listed", func() bool { // the index may be behind
		h.want(t, http.StatusOK, "GET", "/v1/approvals", d.Token, nil, &listed)
		return len(listed.Approvals) > 0
	})
	if len(listed.Approvals) != 1 || listed.Approvals[0].ID != first.RequestID || listed.Approvals[0].Output != "A long draft." {
		t.Errorf("listed are %+v", listed)
	}
	// The fields as a client of the original mixes them. The request is named because a lost answer is repeated here.
	rejected := map[string]any{
		"executionId": runID, "taskId": first.TaskID, "human_feedback": "Make it shorter.", "is_approve": false, "output": first.TaskOutput,
		"request_id": first.RequestID, "taskWebhookUrl": r.url + "/task",
	}
	h.want(t, http.StatusOK, "POST", "/resume", d.Token, rejected, nil)

	second := r.question(t, runID, 2)
	if second.TaskOutput != "Short." || second.RequestID == first.RequestID || second.TaskID != first.TaskID {
		t.Errorf("after a rejection the question is %+v", second)
	}
	approved := map[string]any{"execution_id": runID, "task_id": second.TaskID, "human_feedback": "Use blue paper.", "is_approve": true, "request_id": second.RequestID}
	h.want(t, http.StatusOK, "POST", "/resume", d.Token, approved, nil)
	all := r.hear(t, d, runID)
	if s := d.status(t, runID); s.State != "SUCCESS" || *s.Result != "Printed on blue paper." {
		t.Errorf("the status is %+v", s)
	}
	if n := len(ofType(all, "human_feedback_requested")); n != 2 || len(ofType(all, "human_feedback_received")) != 2 || len(distinct(r.all(), "/human")) != 2 {
		t.Errorf("%d questions were told: %v", n, typesOf(all))
	}

	h.want(t, http.StatusOK, "POST", "/resume", d.Token, approved, nil)
	h.want(t, http.StatusConflict, "POST", "/resume", d.Token, map[string]any{"execution_id": runID, "task_id": second.TaskID, "is_approve": false}, nil)
	h.want(t, http.StatusBadRequest, "POST", "/resume", d.Token, map[string]any{"execution_id": runID, "task_id": "print", "is_approve": true}, nil)
}

func asksByLink(t *testing.T, h *home) {
	d := h.deploy(t, reviewed(h.answer(drafting)))
	r := newReceiver(t, h)
	runID := d.kickoff(t, about("links", r.asked()))
	q := r.question(t, runID, 1)
	path, ok := strings.CutPrefix(q.ApproveURL, publicURL)
	if !ok || !strings.HasPrefix(q.RejectURL, publicURL) {
		t.Fatalf("the links are %q and %q", q.ApproveURL, q.RejectURL)
	}
	ask := func(method, path, body string) (code int, page string) {
		for range 20 {
			var raw []byte
			if code, raw = h.call(t, method, path, "", body, "Content-Type", "application/x-www-form-urlencoded"); code < 500 {
				return code, string(raw)
			}
		}
		return code, ""
	}
	if code, page := ask("GET", path, ""); code != http.StatusOK || !strings.Contains(page, "A long draft.") {
		t.Errorf("the page: %d %s", code, page)
	}
	if s := d.status(t, runID); s.State != "PAUSED" {
		t.Errorf("opening the link made the run %s", s.State)
	}
	if code, page := ask("POST", path, url.Values{"feedback": {"fine"}}.Encode()); code != http.StatusOK && code != http.StatusConflict { // a lost answer, and its repetition
		t.Errorf("the form: %d %s", code, page)
	}
	r.hear(t, d, runID)
	if s := d.status(t, runID); s.State != "SUCCESS" || *s.Result != "Printed." {
		t.Errorf("the status is %+v", s)
	}
	if code, _ := ask("POST", path, "feedback=again"); code != http.StatusConflict {
		t.Errorf("the form once more: %d", code)
	}
	if code, _ := ask("GET", path[:len(path)-4], ""); code != http.StatusNotFound {
		t.Errorf("half a link: %d", code)
	}
}

func asksInVain(t *testing.T, h *home) {
	for _, c := range []struct {
		name, otherwise, state, says string
	}{
		{"approved", "approve", "SUCCESS", ""},
		{"rejected", "reject", "FAILED", "its output counts as rejected."},
		{"no default", "", "FAILED", "Nobody answered the question of the run in time."},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lines := []string{"human_input_timeout: 1"}
			if c.otherwise != "" {
				lines = append(lines, "human_input_default: "+c.otherwise)
			}
			d := h.deploy(t, reviewed(h.answer(drafting), lines...))
			r := newReceiver(t, h)
			runID := d.kickoff(t, about("silence", r.asked()))
			r.hear(t, d, runID)
			s := d.status(t, runID)
			if s.State != c.state || c.says != "" && (s.Status == nil || !strings.HasSuffix(*s.Status, c.says)) {
				t.Errorf("the status is %+v", s)
			}
		})
	}
}

func stops(t *testing.T, h *home) {
	told := func(t *testing.T, r *receiver, d deployment, runID string) {
		t.Helper()
		for range 2 {
			var answer struct {
				Status    string `json:"status"`
				KickoffID string `json:"kickoffId"`
			}
			h.want(t, http.StatusOK, "POST", "/stop/"+runID, d.Token, nil, &answer)
			if answer.Status != "stopped" || answer.KickoffID != runID {
				t.Errorf("the answer is %+v", answer)
			}
		}
		all := r.hear(t, d, runID)
		if last := all[len(all)-1]; last.Type != "crew_kickoff_failed" || *last.Data.Error != "The run was stopped on request." {
			t.Errorf("the stream ends with %+v", last)
		}
		for _, p := range distinct(r.all(), "/crew") {
			if !strings.Contains(string(p.body), `"status":"REVOKED"`) {
				t.Errorf("the crew's URL was told %s", p.body)
			}
		}
		if s := d.status(t, runID); s.State != "REVOKED" {
			t.Errorf("the run is %s", s.State)
		}
	}
	t.Run("while its model thinks", func(t *testing.T) {
		t.Parallel()
		gate, asked := make(chan struct{}), make(chan struct{}, 100)
		t.Cleanup(func() { close(gate) }) // long after the run is over
		model := h.answer(func(scripted.Request) scripted.Reply {
			asked <- struct{}{}
			return scripted.Reply{Text: "Never.", Wait: gate}
		})
		d := h.deploy(t, simple(model))
		r := newReceiver(t, h)
		runID := d.kickoff(t, about("eternity", r.webhooks(false)))
		wait(t, asked, "the model is asked")
		told(t, r, d, runID)
		for _, call := range h.asked(model) {
			if call.Answered {
				t.Error("the model answered")
			}
		}
	})
	t.Run("while it waits", func(t *testing.T) {
		t.Parallel()
		d := h.deploy(t, reviewed(h.answer(drafting)))
		r := newReceiver(t, h)
		runID := d.kickoff(t, about("patience", r.asked()))
		q := r.question(t, runID, 1)
		told(t, r, d, runID)
		h.want(t, http.StatusBadRequest, "POST", "/resume", d.Token, map[string]any{"execution_id": runID, "task_id": q.TaskID, "is_approve": true}, nil)
	})
	t.Run("after its end", func(t *testing.T) {
		t.Parallel()
		d := h.deploy(t, simple(h.answer(say("Done."))))
		r := newReceiver(t, h)
		runID := d.kickoff(t, about("haste", r.webhooks(false)))
		r.hear(t, d, runID)
		h.want(t, http.StatusBadRequest, "POST", "/stop/"+runID, d.Token, nil, nil)
		h.want(t, http.StatusBadRequest, "POST", "/v1/runs/"+runID+"/cancel", d.Token, nil, nil)
		if s := d.status(t, runID); s.State != "SUCCESS" || !slices.Contains(typesOf(eventsOf(t, r.all())), "crew_kickoff_completed") {
			t.Errorf("the run is %s", s.State)
		}
	})
}
