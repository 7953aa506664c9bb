package deploywire_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/shared/crew"
	"muster/shared/id"
	"muster/shared/run"
)

// three deploys a crew of the tasks plan, write and check, whose input is the topic.
func (b *bench) three() (deploymentID, token string) {
	b.t.Helper()
	tasks := ""
	for _, name := range []string{"plan", "write", "check"} {
		tasks += name + ":\n  description: " + name + " on {topic}\n  expected_output: A text\n  agent: worker\n"
	}
	reply := b.want(201, b.token, "POST", "/v1/deployments", encode(object{"name": "three", "files": object{
		"agents.yaml": "worker:\n  role: Worker\n  goal: Work\n  backstory: Worked\n", "tasks.yaml": tasks,
	}}))
	return reply["id"].(string), reply["token"].(string)
}

// do does some tasks of a run, each with one call of a model, and ends it.
func (b *bench) do(runID string, state run.State, tasks ...string) {
	b.t.Helper()
	owner := b.claim(runID)
	main := owner.Root()
	for _, task := range tasks {
		_, err := main.Step(b.t.Context(), run.Step{Key: task + "/1/model/1", Do: func(_ context.Context, e *run.Emitter, _ int) (any, error) {
			e.Use("gpt-4.1", run.Usage{TotalTokens: 1100, PromptTokens: 1000, CompletionTokens: 100, SuccessfulRequests: 1})
			return "ok", nil
		}})
		if err != nil {
			b.t.Fatal(err)
		}
		main.Finished(run.TaskOutput{TaskID: run.TaskID(owner.Run().ID, task), Name: task, Raw: "The " + task + "."})
		if err := main.Mark(b.t.Context(), task+"/end"); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := owner.End(run.Outcome{State: state, Error: "why"}, main); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) kept(shown string) (tasks map[string]string) {
	b.t.Helper()
	runID, _ := id.Parse("run", shown)
	q, err := b.runs.Request(b.t.Context(), runID)
	if err != nil {
		b.t.Fatal(err)
	}
	tasks = map[string]string{}
	for key, k := range q.Kept {
		tasks[key] = k.Output.Raw
	}
	return tasks
}

func TestRerun(t *testing.T) {
	b := newBench(t)
	dep, token := b.three()
	start := func(body string) string { return b.want(202, token, "POST", "/v1/runs", body)["run_id"].(string) }
	failed := start(`{"input":{"topic":"tea"},"limits":{"max_steps":2}}`)
	again := "/v1/runs/" + failed + "/rerun"
	b.refuse(409, "conflict", "The run is not over yet: it is queued.", token, "POST", again, "")
	b.do(failed, run.Failed, "plan", "write")

	got := b.want(202, token, "POST", again, "")
	first := b.want(200, token, "GET", "/v1/runs/"+failed, "")
	b.check("the answer", got, object{
		"run_id": got["run_id"], "version_id": first["version_id"], "version_number": 1.0, "status": "running",
		"kept": object{"tasks": []any{"plan", "write"}, "model_calls": 2.0, "tokens": 2200.0, "cost_usd": 0.0056},
	})
	second := got["run_id"].(string)
	b.check("what is kept", b.kept(second), map[string]string{"plan": "The plan.", "write": "The write."})
	shown := b.want(200, token, "GET", "/v1/runs/"+second, "")
	b.check("the second run", []any{shown["input"], shown["rerun_of"], shown["kept"], shown["limits"], shown["usage"].(object)["cost_usd"]},
		[]any{object{"topic": "tea"}, failed, got["kept"], object{"max_steps": 2.0}, 0.0})
	usage := first["usage"].(object)
	b.check("what the first used", []any{usage["cost_usd"], usage["model_calls"], usage["total_tokens"], usage["steps"]}, []any{0.0056, 2.0, 2200.0, 2.0})

	b.do(second, run.Succeeded, "check")
	third := b.want(202, token, "POST", "/v1/runs/"+second+"/rerun", `{"from_task":"check"}`)
	b.check("what a kept run kept is kept again, with its cost", third["kept"], got["kept"])
	all := b.want(202, token, "POST", "/v1/runs/"+second+"/rerun", `{}`)
	b.check("a run that is complete begins at the beginning", all["kept"], object{"tasks": []any{}, "model_calls": 0.0, "tokens": 0.0, "cost_usd": 0.0})
	from := b.want(202, token, "POST", again, `{"from_task":"write","inputs":{"topic":"coffee"},"limits":{"max_tokens":9}}`)
	b.check("from a task, for other inputs", b.kept(from["run_id"].(string)), map[string]string{"plan": "The plan."})
	shown = b.want(200, token, "GET", "/v1/runs/"+from["run_id"].(string), "")
	b.check("its inputs and limits", []any{shown["input"], shown["limits"]}, []any{object{"topic": "coffee"}, object{"max_tokens": 9.0}})
	from = b.want(202, token, "POST", again, `{"from_task":"write","inputs":{"tone":"dry"}}`)
	shown = b.want(200, token, "GET", "/v1/runs/"+from["run_id"].(string), "")
	b.check("an input beside the earlier ones", shown["input"], object{"topic": "tea", "tone": "dry"})
	from = b.want(202, token, "POST", again, `{"inputs":{}}`)
	shown = b.want(200, token, "GET", "/v1/runs/"+from["run_id"].(string), "")
	b.check("no input over the earlier ones", shown["input"], object{"topic": "tea"})

	b.want(201, b.token, "POST", "/v1/deployments/"+dep+"/versions", encode(object{"files": object{
		"agents.yaml": "worker:\n  role: Worker\n  goal: Work\n  backstory: Worked\n",
		"tasks.yaml":  "plan:\n  description: plan on {topic}\n  expected_output: A text\n  agent: worker\nsell:\n  description: sell {topic}\n  expected_output: A text\n  agent: worker\n",
	}}))
	newer := b.want(202, token, "POST", again, `{"version_number":2}`)
	b.check("a newer version", []any{newer["version_number"], b.kept(newer["run_id"].(string))}, []any{2.0, map[string]string{"plan": "The plan."}})

	b.want(201, b.token, "POST", "/v1/deployments/"+dep+"/versions", encode(object{"files": object{
		"agents.yaml": "worker:\n  role: Worker\n  goal: Work\n  backstory: Worked\n",
		"tasks.yaml": "plan:\n  description: plan on {topic}\n  expected_output: A text\n  agent: worker\nsell:\n  description: sell {topic}\n  expected_output: A text\n  agent: worker\n" +
			"write:\n  description: write on {topic}\n  expected_output: A text\n  agent: worker\n",
	}}))
	between := b.want(202, token, "POST", again, `{"version_number":3}`)
	b.check("what comes after a new task is done again", b.kept(between["run_id"].(string)), map[string]string{"plan": "The plan."})

	same := b.want(202, token, "POST", again, `{"from_task":"plan"}`, "Idempotency-Key", "k")
	b.check("the same request again", b.want(202, token, "POST", again, `{"from_task":"plan"}`, "Idempotency-Key", "k"), same)

	b.refuse(400, "bad_request", `There is no task "sell".`, token, "POST", again, `{"from_task":"sell"}`)
	b.refuse(400, "bad_request", `There is no task "`+strings.Repeat("s", 80)+`".`, token, "POST", again, `{"from_task":"`+strings.Repeat("s", 100_000)+`"}`)
	lost := start(`{"input":{"topic":"tea"}}`)
	b.do(lost, run.Failed, "plan")
	b.refuse(400, "bad_request", `The task "write" comes before "check" and has no output in the earlier run.`, token, "POST", "/v1/runs/"+lost+"/rerun", `{"from_task":"check"}`)
	b.refuse(400, "bad_request", `With other inputs the outputs of the earlier run may not hold; name the first task to do again as "from_task".`, token, "POST", again, `{"inputs":{"topic":"coffee"}}`)
	b.refuse(404, "not_found", "There is no such version.", token, "POST", again, `{"version_number":9}`)
	b.refuse(400, "bad_request", `"version_number" must be the number of a version, from 1.`, token, "POST", again, `{"version_number":0}`)
	_, stranger := b.deploy("another")
	b.refuse(404, "not_found", fmt.Sprintf("There is no run %q.", failed), stranger, "POST", again, "")
}

func TestARerunTellsTheSameTargets(t *testing.T) {
	b := newBench(t)
	dep, token := b.three()
	canonical, _ := id.Parse("dep", dep)
	d, err := b.crews.Deployment(t.Context(), canonical)
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.runs.Start(t.Context(), run.StartRequest{
		Deployment: d, Inputs: map[string]any{"topic": "tea"}, Meta: []byte(`{"a":1}`),
		Targets: []run.Target{{ID: "stream", Kind: run.StreamTarget, URL: "https://w.example", Events: []string{"*"}, Authorization: "Bearer secret"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.do(r.ID, run.Failed)
	again, _ := id.Parse("run", b.want(202, token, "POST", "/v1/runs/"+r.ID+"/rerun", "")["run_id"].(string))
	q, err := b.runs.Request(t.Context(), again)
	if err != nil {
		t.Fatal(err)
	}
	sealed := q.Targets[0].Authorization
	plain, err := b.sealer.Open(t.Context(), b.workspaceID, again, "target/stream", sealed)
	if err != nil || plain != "Bearer secret" || string(q.Meta) != `{"a":1}` || q.Targets[0].URL != "https://w.example" {
		t.Errorf("%+v, opened: %v", q, err)
	}
}

func TestLimitsOfADeployment(t *testing.T) {
	b := newBench(t)
	now := time.Now()
	b.runs.Now = func() time.Time { return now } // a minute that does not end
	made := b.want(201, b.token, "POST", "/v1/deployments", encode(object{
		"files": files("topic"), "limits": object{"max_cost_usd": 0.5, "max_concurrent_runs": 2}, "prices": object{"mine/model": object{"prompt": 1, "completion": 2}},
	}))
	path, token := "/v1/deployments/"+made["id"].(string), made["token"].(string)
	shown := b.want(200, token, "GET", path, "")
	mine := object{"mine/model": object{"prompt": 1.0, "cached": 1.0, "completion": 2.0}}
	b.check("at first", []any{shown["limits"], shown["prices"]}, []any{object{"max_cost_usd": 0.5, "max_concurrent_runs": 2.0}, mine})
	shown = b.want(200, b.token, "PATCH", path, `{"limits":{"max_cost_usd":null,"max_tokens":9000,"when_full":"reject","max_kickoffs_per_minute":2}}`)
	b.check("changed", []any{shown["limits"], shown["prices"]}, []any{object{"max_tokens": 9000.0, "max_concurrent_runs": 2.0, "when_full": "reject", "max_kickoffs_per_minute": 2.0}, mine})
	b.refuse(400, "bad_request", `limits: unknown field "max_tokenz".`, b.token, "PATCH", path, `{"limits":{"max_tokenz":1}}`)
	b.refuse(403, "forbidden", `This token is of the kind "deployment" and cannot be used for this.`, token, "PATCH", path, `{"limits":{"max_tokens":null}}`)
	b.refuse(400, "bad_request", `limits: unknown field "max_concurrent_runs".`, token, "POST", "/v1/runs", `{"input":`+input+`,"limits":{"max_concurrent_runs":1}}`)

	first := b.call(token, "POST", "/v1/runs", `{"input":`+input+`,"limits":{"max_tokens":50,"max_steps":3}}`)
	second := b.call(token, "POST", "/v1/runs", `{"input":`+input+`}`)
	third := b.call(token, "POST", "/v1/runs", `{"input":`+input+`}`)
	for i, c := range []struct {
		answer    http.Header
		remaining string
	}{{first.Header(), "1"}, {second.Header(), "0"}, {third.Header(), "0"}} {
		reset, err := strconv.Atoi(c.answer.Get("RateLimit-Reset"))
		if c.answer.Get("RateLimit-Limit") != "2" || c.answer.Get("RateLimit-Remaining") != c.remaining || err != nil || reset < 1 || reset > 60 {
			t.Errorf("answer %d has the headers %v", i+1, c.answer)
		}
	}
	if third.Code != 429 || third.Header().Get("Retry-After") != third.Header().Get("RateLimit-Reset") {
		t.Errorf("the third kickoff of a minute: %d %s %v", third.Code, third.Body, third.Header())
	}

	b.want(200, b.token, "PATCH", path, `{"limits":{"max_kickoffs_per_minute":null}}`)
	full := b.call(token, "POST", "/v1/runs", `{"input":`+input+`}`)
	if full.Code != 429 || full.Header().Get("Retry-After") != "10" || full.Header().Get("RateLimit-Limit") != "" {
		t.Errorf("a third run where two may be: %d %s %v", full.Code, full.Body, full.Header())
	}
	b.want(200, b.token, "PATCH", path, encode(object{"limits": object{"when_full": crew.Queue}}))
	b.want(202, token, "POST", "/v1/runs", `{"input":`+input+`}`)
}
