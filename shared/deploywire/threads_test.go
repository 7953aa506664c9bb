package deploywire_test

import (
	"regexp"
	"testing"

	"muster/shared/id"
	"muster/shared/run"
)

// finish does a run as if its crew had come to this end.
func (b *bench) finish(shown string, out run.Outcome) {
	b.t.Helper()
	runID, _ := id.Parse("run", shown)
	o, err := b.runs.Claim(b.t.Context(), runID)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := o.End(out, o.Root()); err != nil {
		b.t.Fatal(err)
	}
}

func TestThreads(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("one")
	made := b.want(201, token, "POST", "/v1/threads", `{"metadata":{"user":"u1"},"values":{"company":"Acme"}}`)
	if s, _ := made["thread_id"].(string); !regexp.MustCompile(`^thr_[0-9a-f]{32}$`).MatchString(s) {
		t.Errorf("the id is %v", made["thread_id"])
	}
	want := object{
		"thread_id": made["thread_id"], "deployment_id": dep, "status": "idle", "metadata": object{"user": "u1"},
		"values": object{"company": "Acme"}, "created_at": made["created_at"], "updated_at": made["created_at"],
	}
	b.check("a thread", made, want)
	path := "/v1/threads/" + made["thread_id"].(string)
	b.check("read again", b.want(200, token, "GET", path, ""), want)

	started := b.want(202, token, "POST", path+"/runs", `{"input":{"topic":"tea"}}`)
	first := started["run_id"].(string)
	b.check("a run", started, object{
		"run_id": first, "thread_id": made["thread_id"], "version_id": started["version_id"], "version_number": 1.0, "status": "running",
	})
	b.refuse(409, "conflict", "The thread is busy: a run of it is under way.", token, "POST", path+"/runs", `{"input":{"topic":"rum"}}`)
	behind := b.want(202, token, "POST", path+"/runs", `{"input":{"topic":"rum"},"multitask_strategy":"enqueue"}`)
	second := behind["run_id"].(string)
	b.check("a run that waits for its turn", behind["status"], "pending")
	b.check("busy", b.want(200, token, "GET", path, "")["status"], "busy")

	b.finish(first, run.Outcome{State: run.Succeeded, Result: "About tea."})
	b.finish(second, run.Outcome{State: run.Failed, Error: "No."})
	shown := b.want(200, token, "GET", path, "")
	want["status"], want["updated_at"], want["values"] = "error", shown["updated_at"], object{"company": "Acme", "topic": "tea", "output": "About tea."}
	b.check("the last run failed", shown, want)
	history := b.want(200, token, "GET", path+"/history", "")
	point := history["history"].([]any)[0].(object)
	b.check("the history", history, object{"next_cursor": nil, "history": []any{object{
		"checkpoint_id": point["checkpoint_id"], "run_id": first, "values": want["values"], "created_at": point["created_at"],
	}}})
	b.check("its second page", b.want(200, token, "GET", path+"/history?cursor=1", ""), object{"history": []any{}, "next_cursor": nil})

	listed := b.want(200, token, "GET", "/v1/threads", "")
	delete(want, "values")
	b.check("a list", listed, object{"threads": []any{want}, "next_cursor": nil})
	of := b.want(200, token, "GET", "/v1/runs?thread_id="+made["thread_id"].(string), "")["runs"].([]any)
	if len(of) != 2 || of[0].(object)["id"] != second || of[1].(object)["thread_id"] != made["thread_id"] {
		t.Errorf("the runs of the thread are %v", of)
	}
}

func TestThreadsThatAreRefused(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("one")
	_, stranger := b.deploy("two")
	made := b.want(201, b.token, "POST", "/v1/threads", `{"deployment_id":"`+dep+`"}`)
	threadID := made["thread_id"].(string)
	b.check("without metadata", made["metadata"], object{})
	path := "/v1/threads/" + threadID

	b.refuse(400, "bad_request", `"deployment_id" is missing.`, b.token, "POST", "/v1/threads", `{}`)
	b.refuse(400, "bad_request", `"metadata" must be an object, and it is a string.`, token, "POST", "/v1/threads", `{"metadata":"x"}`)
	b.refuse(400, "bad_request", `"values" must be an object, and it is an array.`, token, "POST", "/v1/threads", `{"values":[]}`)
	b.refuse(400, "bad_request", "Missing inputs: company, topic", token, "POST", path+"/runs", `{}`)
	b.refuse(400, "bad_request", `"multitask_strategy" must be reject, enqueue, interrupt or rollback.`, token, "POST", path+"/runs", `{"input":{"company":"a","topic":"b"},"multitask_strategy":"x"}`)
	b.refuse(400, "bad_request", `"cursor" must be the next_cursor of the page before.`, token, "GET", path+"/history?cursor=x", "")
	for method, path := range map[string]string{"GET": path, "POST": path + "/runs"} {
		b.refuse(404, "not_found", `There is no thread "`+threadID+`".`, stranger, method, path, `{}`)
	}
	b.refuse(404, "not_found", `There is no thread "nonsense".`, token, "GET", "/v1/threads/nonsense/history", "")
}
