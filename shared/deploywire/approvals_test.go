package deploywire_test

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"muster/shared/deploywire"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/workspace"
)

// started starts a run of a new deployment.
func (b *bench) started(name string) run.Run {
	b.t.Helper()
	d := b.want(201, b.token, "POST", "/v1/deployments", encode(object{"name": name, "files": files("company")}))
	reply := b.want(202, b.token, "POST", "/v1/runs", encode(object{"deployment_id": d["id"], "input": object{"company": "tesla"}}))
	runID, _ := id.Parse("run", reply["run_id"].(string))
	r, err := b.runs.Get(b.t.Context(), runID)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// waiting starts a run whose task waits for a person, and gives its question.
func (b *bench) waiting(name string, timeout time.Duration) (run.Run, string) {
	b.t.Helper()
	r := b.started(name)
	o, err := b.runs.Claim(b.t.Context(), r.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = o.Root().Ask(b.t.Context(), run.Asking{
		Key: "q", Task: run.TaskOutput{TaskID: "t", Name: "research", Raw: "<b>a draft</b>"}, Round: 1, Timeout: timeout,
	})
	if !errors.Is(err, run.ErrWaiting) {
		b.t.Fatal(err)
	}
	if waits, err := o.Wait(); !waits || err != nil {
		b.t.Fatal(waits, err)
	}
	return r, run.QuestionID(r.ID, "q")
}

// link gives the path of the link that a question's webhook has.
func (b *bench) link(questionID, answer string) string {
	b.t.Helper()
	q, err := b.runs.Question(b.t.Context(), questionID)
	if err != nil {
		b.t.Fatal(err)
	}
	token, err := b.runs.LinkToken(b.t.Context(), q.Run, q.Asked)
	if err != nil {
		b.t.Fatal(err)
	}
	path, ok := strings.CutPrefix(deploywire.ApprovalURL("https://muster.example.com/", questionID, answer, token), "https://muster.example.com")
	if !ok {
		b.t.Error("the link is not below the public URL")
	}
	return path
}

func (b *bench) reply(questionID string) *run.Reply {
	b.t.Helper()
	q, err := b.runs.Question(b.t.Context(), questionID)
	if err != nil {
		b.t.Fatal(err)
	}
	return q.Reply
}

func TestApprovals(t *testing.T) {
	b := newBench(t)
	r, first := b.waiting("one", time.Hour)
	other, second := b.waiting("two", 0)
	own := b.mint(workspace.Caller{Kind: workspace.Deployment, WorkspaceID: b.workspaceID, DeploymentID: r.DeploymentID})
	ids := func(token, query string) (list []any, next any) {
		t.Helper()
		reply := b.want(200, token, "GET", "/v1/approvals"+query, "")
		for _, one := range reply["approvals"].([]any) {
			list = append(list, one.(object)["id"])
		}
		return list, reply["next_cursor"]
	}
	all, next := ids(b.token, "")
	b.check("all of the workspace", []any{all, next}, []any{[]any{second, first}, nil})
	mine, _ := ids(own, "")
	b.check("those of a deployment", mine, []any{first})
	mine, _ = ids(b.token, "?deployment_id="+id.Show("dep", other.DeploymentID))
	b.check("those of a deployment that is named", mine, []any{second})
	page, next := ids(b.token, "?limit=1")
	rest, _ := ids(b.token, "?limit=1&cursor="+next.(string))
	b.check("in pages", append(page, rest...), []any{second, first})
	b.refuse(400, "bad_request", `"limit" must be a number from 1 to 100.`, b.token, "GET", "/v1/approvals?limit=0", "")
	b.refuse(400, "bad_request", `"cursor" must be the next_cursor of the page before.`, b.token, "GET", "/v1/approvals?cursor=x", "")

	shown := b.want(200, own, "GET", "/v1/approvals", "")["approvals"].([]any)[0].(object)
	if shown["asked_at"] == nil || shown["expires_at"] == nil {
		t.Errorf("got %v", shown)
	}
	delete(shown, "asked_at")
	delete(shown, "expires_at")
	b.check("an approval", shown, object{
		"id": first, "run_id": id.Show("run", r.ID), "deployment_id": id.Show("dep", r.DeploymentID), "task_id": "t", "task_name": "research",
		"output": "<b>a draft</b>", "round": 1.0, "default": nil,
	})

	path := "/v1/approvals/" + first
	become := func(status string, feedback any, byDefault bool) object {
		one := object{"status": status, "feedback": feedback, "by_default": byDefault}
		for key, value := range shown {
			one[key] = value
		}
		return one
	}
	one := func(token, questionID string) object {
		got := b.want(200, token, "GET", "/v1/approvals/"+questionID, "")
		delete(got, "asked_at")
		delete(got, "expires_at")
		return got
	}
	b.check("one that waits", one(own, first), become("pending", nil, false))
	b.refuse(404, "not_found", `There is no approval "`+second+`".`, own, "GET", "/v1/approvals/"+second, "")
	b.refuse(404, "not_found", `There is no approval "x".`, own, "GET", "/v1/approvals/x", "")
	b.refuse(400, "bad_request", `"approve" and "isApprove" say different things.`, b.token, "POST", path, `{"isApprove":true,"approve":false}`)
	b.refuse(400, "bad_request", `"approve" is missing: true or false.`, b.token, "POST", path, `{}`)
	b.refuse(400, "bad_request", `"approve" must be true or false, and it is a string.`, b.token, "POST", path, `{"approve":"yes"}`)
	for _, unknown := range []string{"x", run.QuestionID(r.ID, "other"), run.QuestionID(id.New(), "q")} {
		b.refuse(404, "not_found", `There is no approval "`+unknown+`".`, b.token, "POST", "/v1/approvals/"+unknown, `{"approve":true}`)
	}
	b.refuse(404, "not_found", `There is no approval "`+second+`".`, own, "POST", "/v1/approvals/"+second, `{"approve":true}`)
	for range 2 {
		got := b.want(200, own, "POST", path, `{"approve":false,"feedback":"shorter"}`)
		b.check("the answer", got, object{"id": first, "run_id": id.Show("run", r.ID), "status": "rejected"})
	}
	for _, body := range []string{`{"is_approve":false,"human_feedback":"shorter"}`, `{"isApprove":false,"humanFeedback":"shorter","is_approve":false}`} {
		got := b.want(200, own, "POST", path, body)
		b.check("the answer as the AMP wire spells it", got["status"], "rejected")
	}
	b.refuse(409, "conflict", "This question has another answer already.", own, "POST", path, `{"approve":true}`)
	b.check("one that was answered", one(own, first), become("rejected", "shorter", false))
	b.check("what the run is told", b.reply(first), &run.Reply{Feedback: "shorter"})
	left, _ := ids(b.token, "")
	b.check("what is left", left, []any{second})

	b.check("a cancel", b.want(200, b.token, "POST", "/v1/runs/"+id.Show("run", other.ID)+"/cancel", ""), object{"success": true, "status": "canceled"})
	b.refuse(400, "bad_request", "The run is over; it does not wait for an answer.", b.token, "POST", "/v1/approvals/"+second, `{"approve":true}`)
	b.check("one of a run that is over", one(b.token, second)["status"], "closed")
}

func TestCancel(t *testing.T) {
	b := newBench(t)
	r := b.started("one")
	path := "/v1/runs/" + id.Show("run", r.ID)
	for range 2 {
		b.check("a cancel", b.want(200, b.token, "POST", path+"/cancel", ""), object{"success": true, "status": "canceled"})
	}
	b.check("the status", b.want(200, b.token, "GET", path, "")["status"], any("canceled"))

	done := b.started("two")
	o, err := b.runs.Claim(t.Context(), done.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.End(run.Outcome{State: run.Succeeded}, o.Root()); err != nil {
		t.Fatal(err)
	}
	b.refuse(400, "bad_request", "Cannot cancel run with status: succeeded", b.token, "POST", "/v1/runs/"+done.ID+"/cancel", "")
	b.refuse(404, "not_found", `There is no run "x".`, b.token, "POST", "/v1/runs/x/cancel", "")
	own := b.mint(workspace.Caller{Kind: workspace.Deployment, WorkspaceID: b.workspaceID, DeploymentID: r.DeploymentID})
	b.refuse(404, "not_found", `There is no run "`+done.ID+`".`, own, "POST", "/v1/runs/"+done.ID+"/cancel", "")
}

func TestALinkIsOpenedAndUsed(t *testing.T) {
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	holds := func(t *testing.T, w *httptest.ResponseRecorder, status int, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if w.Code != status || !strings.Contains(w.Body.String(), part) {
				t.Errorf("got %d, want %d with %q: %s", w.Code, status, part, w.Body)
			}
		}
	}
	t.Run("to approve", func(t *testing.T) {
		b := newBench(t)
		_, question := b.waiting("one", 0)
		link := b.link(question, "approve")
		for range 3 { // a program that looks through mail, and a person who looks twice
			w := b.call("", "GET", link, "")
			holds(t, w, 200, "Approve this output?", "&lt;b&gt;a draft&lt;/b&gt;", `<form method="post">`)
			if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || w.Header().Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("the page may do too much: %v", w.Header())
			}
		}
		if b.reply(question) != nil {
			t.Error("opening the link answered")
		}
		holds(t, b.call("", "POST", link, "feedback=fine%0D%0Aindeed", form...), 200, "Thank you")
		b.check("the answer", b.reply(question), &run.Reply{Approve: true, Feedback: "fine\nindeed"})
		holds(t, b.call("", "POST", b.link(question, "reject"), "feedback=no", form...), 409, "is approved already")
		holds(t, b.call("", "GET", link, ""), 409, "is approved already")
		b.check("the answer after all that", b.reply(question), &run.Reply{Approve: true, Feedback: "fine\nindeed"})
	})
	t.Run("to reject", func(t *testing.T) {
		b := newBench(t)
		_, question := b.waiting("one", 0)
		link := b.link(question, "reject")
		holds(t, b.call("", "GET", link, ""), 200, "Reject this output?", "What should be different?")
		holds(t, b.call("", "POST", link, "", form...), 200, "Thank you")
		b.check("the answer", b.reply(question), &run.Reply{})
	})
	t.Run("by a program that sends JSON", func(t *testing.T) {
		b := newBench(t)
		_, question := b.waiting("one", 0)
		link, asJSON := b.link(question, "reject"), []string{"Content-Type", "application/json; charset=utf-8"}
		if w := b.call("", "POST", link, `{"feedback":7}`, asJSON...); w.Code != 400 || b.reply(question) != nil {
			t.Errorf("a number as feedback: %d %s", w.Code, w.Body)
		}
		holds(t, b.call("", "POST", link, `{"feedback":"a = b & c"}`, asJSON...), 200, "Thank you")
		b.check("the answer", b.reply(question), &run.Reply{Feedback: "a = b & c"})
	})
	t.Run("of a run that is over", func(t *testing.T) {
		b := newBench(t)
		r, question := b.waiting("one", 0)
		b.want(200, b.token, "POST", "/v1/runs/"+r.ID+"/cancel", "")
		holds(t, b.call("", "GET", b.link(question, "approve"), ""), 409, "The run is over")
	})
}

func TestALinkThatIsNotGoodTellsNothing(t *testing.T) {
	b := newBench(t)
	_, question := b.waiting("one", time.Hour)
	_, endless := b.waiting("two", 0)
	link, long := b.link(question, "approve"), b.link(endless, "approve")
	nonsense := b.call("", "GET", "/approvals/x/approve?token=x", "")
	if nonsense.Code != 404 {
		t.Fatalf("got %d %s", nonsense.Code, nonsense.Body)
	}
	check := func(name, path string) {
		t.Helper()
		for _, method := range []string{"GET", "POST"} {
			if w := b.call("", method, path, ""); w.Code != nonsense.Code || w.Body.String() != nonsense.Body.String() {
				t.Errorf("%s: %s is answered otherwise than nonsense: %d %s", name, method, w.Code, w.Body)
			}
		}
	}
	check("another token", link[:len(link)-3]+"abc")
	check("no token", "/approvals/"+question+"/approve")
	check("another answer", strings.Replace(link, "/approve?", "/maybe?", 1))
	check("another question", strings.Replace(link, question, endless, 1))
	check("a question of no run", strings.Replace(link, question, run.QuestionID(id.New(), "q"), 1))
	b.ahead = 61 * time.Minute
	check("another token after the question's end", link[:len(link)-3]+"abc")
	expired := func(path string) {
		t.Helper()
		for _, method := range []string{"GET", "POST"} {
			if w := b.call("", method, path, ""); w.Code != 410 || !strings.Contains(w.Body.String(), "This link has expired") || !strings.Contains(w.Body.String(), "It was good until ") {
				t.Errorf("%s is answered with %d %s", method, w.Code, w.Body)
			}
		}
	}
	expired(link)
	if w := b.call("", "GET", long, ""); w.Code != 200 {
		t.Errorf("a link without an end ended: %d", w.Code)
	}
	b.ahead = 7*24*time.Hour + time.Minute
	expired(long)
	if b.reply(question) != nil || b.reply(endless) != nil {
		t.Error("a bad link answered")
	}
}
