package ampwire_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/workspace"
)

// asks lets a run ask about its task, as its owner does, and rest.
func (b *bench) asks(runID, key string) {
	b.t.Helper()
	o, err := b.runs.Claim(b.t.Context(), runID)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = o.Root().Ask(b.t.Context(), run.Asking{
		Key: key, Task: run.TaskOutput{TaskID: run.TaskID(runID, "research"), Name: "research", Raw: "a draft"},
	})
	if !errors.Is(err, run.ErrWaiting) {
		b.t.Fatal(err)
	}
	if got := b.status(b.workspaceToken(), "/status/"+runID)["state"]; got != "PAUSED" {
		b.t.Errorf("when the question is told, the run is %v", got)
	}
	if waits, err := o.Wait(); !waits || err != nil {
		b.t.Fatal(waits, err)
	}
}

// answered lets a run go on and gives the answer it was given.
func (b *bench) answered(runID, key string) (run.Reply, *run.Owner) {
	b.t.Helper()
	o, err := b.runs.Claim(b.t.Context(), runID)
	if err != nil {
		b.t.Fatal(err)
	}
	a, err := o.Root().Ask(b.t.Context(), run.Asking{Key: key})
	if err != nil {
		b.t.Fatal(err)
	}
	return a, o
}

func TestResumeUnderstands(t *testing.T) {
	for _, c := range []struct {
		name, body string // RUN and TASK are put in
		want       run.Reply
		status     string
		warning    string
	}{
		{"the documented fields", `{"execution_id":"RUN","task_id":"TASK","human_feedback":"Great work!","is_approve":true}`, run.Reply{Approve: true, Feedback: "Great work!"}, "resumed", ""},
		{"camel case", `{"executionId":"RUN","taskId":"TASK","humanFeedback":"No.\nAgain.","isApprove":false}`, run.Reply{Feedback: "No.\nAgain."}, "retrying", ""},
		{"a mix, with what was once demanded", `{"executionId":"RUN","taskId":"TASK","human_feedback":"no","is_approve":false,"output":"a draft","inputs":{"topic":"x"}}`, run.Reply{Feedback: "no"}, "retrying", ""},
		{"the task's name", `{"execution_id":"RUN","task_id":"research","is_approve":true}`, run.Reply{Approve: true}, "resumed", ""},
		{"the id of the kickoff, and a field that nobody knows", `{"kickoff_id":"RUN","task_id":"TASK","is_approve":true,"mood":1}`, run.Reply{Approve: true}, "resumed", "unknown field mood was ignored"},
		{"both spellings", `{"executionId":"RUN","execution_id":"RUN","taskId":"TASK","isApprove":true,"is_approve":null}`, run.Reply{Approve: true}, "resumed", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			_, token := b.deploy("one")
			runID := b.kickoff(token, good)
			b.asks(runID, "research/human/1")
			body := strings.NewReplacer("RUN", runID, "TASK", run.TaskID(runID, "research")).Replace(c.body)
			var reply struct {
				KickoffID string `json:"kickoff_id"`
				Status    string
				Message   string
			}
			for range 2 {
				w := b.call(token, "POST", "/resume", body)
				if err := json.Unmarshal(w.Body.Bytes(), &reply); w.Code != 200 || err != nil || reply.KickoffID != runID || reply.Status != c.status || reply.Message == "" {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
				if got := w.Header().Get("Muster-Warning"); got != c.warning {
					t.Errorf("warning %q", got)
				}
			}
			if got := b.status(token, "/status/"+runID)["state"]; got != "PENDING" {
				t.Errorf("resumed, the run is %v", got)
			}
			if got, _ := b.answered(runID, "research/human/1"); got != c.want {
				t.Errorf("got %+v", got)
			}
			// Another answer comes too late, before and after the journal has the first.
			other := strings.Replace(strings.Replace(body, "true", "TRUE", 1), "false", "true", 1)
			other = strings.Replace(other, "TRUE", "false", 1)
			expect(t, b.call(token, "POST", "/resume", other), 409, `{"error":"Conflict","message":"This question has another answer already."}`)
			if w := b.call(token, "POST", "/resume", body); w.Code != 200 {
				t.Errorf("the same answer much later: %d %s", w.Code, w.Body)
			}
		})
	}
}

// A rejection that is sent again may arrive when the task has asked again.
func TestALateRetryOfARejectionAnswersNothingElse(t *testing.T) {
	b := newBench(t)
	_, token := b.deploy("one")
	runID := b.kickoff(token, good)
	b.asks(runID, "research/human/1")
	first, second := run.QuestionID(runID, "research/human/1"), run.QuestionID(runID, "research/human/2")
	const feedback = `"human_feedback":"Shorter.","is_approve":false}`
	body := `{"execution_id":"` + runID + `","task_id":"research",` + feedback
	named := `{"request_id":"` + first + `","execution_id":"` + runID + `","task_id":"research",` + feedback
	accepted := func(body string, header ...string) {
		t.Helper()
		if w := b.call(token, "POST", "/resume", body, header...); w.Code != 200 {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
	}
	replies := func() (given [2]bool) {
		t.Helper()
		for i, id := range []string{first, second} {
			q, err := b.runs.Question(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			given[i] = q.Reply != nil
		}
		return given
	}
	accepted(body, "Idempotency-Key", "a")
	accepted(body, "Idempotency-Key", "a") // before the journal has it
	_, o := b.answered(runID, "research/human/1")
	if err := o.Release(time.Time{}); err != nil {
		t.Fatal(err)
	}
	b.asks(runID, "research/human/2")

	accepted(body, "Idempotency-Key", "a")
	accepted(named)
	if got := replies(); got != [2]bool{true, false} {
		t.Errorf("a retry answered the next question: %v", got)
	}
	expect(t, b.call(token, "POST", "/resume", strings.Replace(body, "Shorter.", "Longer.", 1), "Idempotency-Key", "a"), 409,
		`{"error":"Conflict","message":"This question has another answer already."}`)
	accepted(body, "Idempotency-Key", "b")
	if got := replies(); got != [2]bool{true, true} {
		t.Errorf("the same words under another key are not the next answer: %v", got)
	}

	_, o = b.answered(runID, "research/human/2")
	if err := o.Release(time.Time{}); err != nil {
		t.Fatal(err)
	}
	b.asks(runID, "research/human/3")
	accepted(body) // with neither key nor question, it is the next answer, whatever was said before
	if got, _ := b.answered(runID, "research/human/3"); got != (run.Reply{Feedback: "Shorter."}) {
		t.Errorf("got %+v", got)
	}
}

func TestResumeReplacesTargets(t *testing.T) {
	b := newBench(t)
	_, token := b.deploy("one")
	runID := b.kickoff(token, `{"inputs":`+inputs+`,"taskWebhookUrl":"https://old.example","humanInputWebhook":{"url":"https://h.example","authentication":{"strategy":"bearer","token":"t"}}}`)
	b.asks(runID, "research/human/1")
	fields := `"execution_id":"` + runID + `","task_id":"research","is_approve":true,`
	for bad, detail := range map[string]string{
		`"taskWebhookUrl":"ftp://x"`:     `taskWebhookUrl: The URL must begin with http:// or https://.`,
		`"step_webhook_url":7`:           `"stepWebhookUrl" must be a string, and it is the number 7.`,
		`"webhooks":{"url":"https://x"}`: `webhooks: "events" must name the events to send, or be ["*"] for all.`,
	} {
		message, _ := json.Marshal(detail)
		expect(t, b.call(token, "POST", "/resume", `{`+fields+bad+`}`), 422, `{"error":"Validation Error","message":`+string(message)+`}`)
	}
	w := b.call(token, "POST", "/resume", `{`+fields+`"task_webhook_url":"https://new.example","stepWebhookUrl":"","humanInputWebhookUrl":"https://h.example"}`)
	_, q, err := b.runs.Whole(t.Context(), runID)
	if w.Code != 200 || err != nil || len(q.Targets) != 2 || q.Targets[0].URL != "https://new.example" || q.Targets[1].Authorization != "sealed" {
		t.Errorf("got %d %s, %+v, %v", w.Code, w.Body, q.Targets, err)
	}
}

func TestResumeRefuses(t *testing.T) {
	b := newBench(t)
	_, token := b.deploy("one")
	_, other := b.deploy("two")
	stranger := b.token(workspace.Caller{Kind: workspace.Workspace, WorkspaceID: id.New()})
	waiting, running := b.kickoff(token, good), b.kickoff(token, good)
	b.asks(waiting, "research/human/1")
	body := func(runID, task string) string {
		return `{"execution_id":"` + runID + `","task_id":"` + task + `","human_feedback":"","is_approve":true}`
	}
	notWaiting := `{"error":"Invalid Request","message":"Execution is not in pending human input state"}`
	for _, c := range []struct {
		name, token, body string
		status            int
		want              string
	}{
		{"nothing", token, ``, 422, `{"error":"Validation Error","message":"The request body is empty; send a JSON object."}`},
		{"no run", token, `{"task_id":"t","is_approve":true}`, 422, `{"error":"Validation Error","message":"\"execution_id\" is missing."}`},
		{"no task", token, `{"executionId":"r","is_approve":true}`, 422, `{"error":"Validation Error","message":"\"task_id\" is missing."}`},
		{"no verdict", token, `{"executionId":"r","taskId":"t","humanFeedback":"fine"}`, 422, `{"error":"Validation Error","message":"\"is_approve\" is missing: true or false."}`},
		{"a verdict in words", token, `{"executionId":"r","taskId":"t","isApprove":"yes"}`, 422, `{"error":"Validation Error","message":"\"isApprove\" must be true or false, and it is a string."}`},
		{"two verdicts", token, `{"executionId":"r","taskId":"t","isApprove":true,"is_approve":false}`, 422, `{"error":"Validation Error","message":"\"isApprove\" and \"is_approve\" say different things."}`},
		{"no token", "", body(waiting, "research"), 401, `{"error":"Unauthorized","message":"Not authenticated"}`},
		{"an id that is none", token, body("x", "research"), 404, `{"error":"Not Found","message":"Execution ID not found"}`},
		{"an unknown run", token, body(id.New(), "research"), 404, `{"error":"Not Found","message":"Execution ID not found"}`},
		{"a run of another deployment", other, body(waiting, "research"), 404, `{"error":"Not Found","message":"Execution ID not found"}`},
		{"a run of another workspace", stranger, body(waiting, "research"), 404, `{"error":"Not Found","message":"Execution ID not found"}`},
		{"an unknown task", token, body(waiting, "dancing"), 404, `{"error":"Not Found","message":"Task ID not found"}`},
		{"a run that does not wait", token, body(running, "research"), 400, notWaiting},
		{"a question of another run", token, strings.Replace(body(waiting, "research"), `{`, `{"request_id":"`+run.QuestionID(running, "q")+`",`, 1), 404, `{"error":"Not Found","message":"Request ID not found"}`},
		{"a question that nobody asked", token, strings.Replace(body(waiting, "research"), `{`, `{"request_id":"`+run.QuestionID(waiting, "q")+`",`, 1), 404, `{"error":"Not Found","message":"There is no such question."}`},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, b.call(c.token, "POST", "/resume", c.body), c.status, c.want) })
	}
	if w := b.call(token, "POST", "/stop/"+waiting, ""); w.Code != 200 {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	expect(t, b.call(token, "POST", "/resume", body(waiting, "research")), 400, notWaiting)
}

func TestStop(t *testing.T) {
	b := newBench(t)
	_, token := b.deploy("one")
	_, other := b.deploy("two")
	runID := b.kickoff(token, good)
	for range 2 {
		expect(t, b.call(token, "POST", "/stop/"+runID, ""), 200, `{"status":"stopped","kickoffId":"`+runID+`"}`)
	}
	if got := b.status(token, "/status/"+runID); got["state"] != "REVOKED" || got["status"] != run.Stopped {
		t.Errorf("the status is %v, %v", got["state"], got["status"])
	}
	waiting := b.kickoff(token, good)
	b.asks(waiting, "research/human/1")
	expect(t, b.call(token, "POST", "/stop/"+waiting, ""), 200, `{"status":"stopped","kickoffId":"`+waiting+`"}`)

	done := b.kickoff(token, good)
	o, err := b.runs.Claim(t.Context(), done)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.End(run.Outcome{State: run.Succeeded}, o.Root()); err != nil {
		t.Fatal(err)
	}
	expect(t, b.call(token, "POST", "/stop/"+done, ""), 400, `{"detail":"Cannot stop execution. Current state: SUCCESS"}`)
	for _, unknown := range []string{id.New(), "x"} {
		expect(t, b.call(token, "POST", "/stop/"+unknown, ""), 404, `{"detail":"There is no execution \"`+unknown+`\"."}`)
	}
	expect(t, b.call(other, "POST", "/stop/"+done, ""), 404, `{"detail":"There is no execution \"`+done+`\"."}`)
	expect(t, b.call("", "POST", "/stop/"+done, ""), 401, `{"detail":"Not authenticated"}`)
}
