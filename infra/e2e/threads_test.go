package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"muster/shared/engine/llm/scripted"
)

// threads are about runs that build on each other.
var threads = []behaviour{
	{"the runs of a thread take turns, and each begins with what the others left", takeTurnsInAThread},
	{"a run that is in the way is interrupted, and one that is rolled back leaves nothing", clearsTheWay},
}

// threaded is a thread as it is shown.
type threaded struct {
	ThreadID string         `json:"thread_id"`
	Status   string         `json:"status"`
	Values   map[string]any `json:"values"`
}

// thread makes one.
func (d deployment) thread(t *testing.T, values map[string]any) (made threaded) {
	t.Helper()
	d.home.want(t, http.StatusCreated, "POST", "/v1/threads", d.Token, map[string]any{"values": values}, &made)
	return made
}

func (d deployment) look(t *testing.T, threadID string) (now threaded) {
	t.Helper()
	d.home.want(t, http.StatusOK, "GET", "/v1/threads/"+threadID, d.Token, nil, &now)
	return now
}

// join starts a run in a thread.
func (d deployment) join(t *testing.T, threadID, topic, strategy string) string {
	t.Helper()
	var started ran
	d.home.want(t, http.StatusAccepted, "POST", "/v1/threads/"+threadID+"/runs", d.Token, map[string]any{
		"input": map[string]any{"topic": topic}, "multitask_strategy": strategy,
	}, &started, "Idempotency-Key", t.Name()+topic)
	return started.RunID
}

func takeTurnsInAThread(t *testing.T, h *home) {
	// The model appends the topic to what it is told was there before.
	model := h.answer(func(r scripted.Request) scripted.Reply {
		_, rest, _ := strings.Cut(r.User(), "Add ")
		topic, rest, _ := strings.Cut(rest, " to <")
		before, _, _ := strings.Cut(rest, ">")
		return scripted.Text(before + topic + ".")
	})
	d := h.deploy(t, crew(agent("worker", model), task("work", "worker", "Add {topic} to <{output}>")))
	thread := d.thread(t, map[string]any{"output": ""})
	var runs []string
	for i := range 4 {
		runs = append(runs, d.join(t, thread.ThreadID, fmt.Sprint(i), "enqueue"))
	}
	for i, want := range []string{"0.", "0.1.", "0.1.2.", "0.1.2.3."} {
		if r := d.over(t, runs[i]); r.Output == nil || r.Output.Result != want {
			t.Errorf("run %d says %+v, want %q", i, r.Output, want)
		}
	}
	if now := d.look(t, thread.ThreadID); now.Status != "idle" || now.Values["output"] != "0.1.2.3." || now.Values["topic"] != "3" {
		t.Errorf("the thread holds %v", now.Values)
	}
	var history struct {
		History []struct {
			RunID  string `json:"run_id"`
			Values map[string]any
		}
	}
	h.want(t, http.StatusOK, "GET", "/v1/threads/"+thread.ThreadID+"/history", d.Token, nil, &history)
	if len(history.History) != 4 {
		t.Fatalf("the history has %d checkpoints", len(history.History))
	}
	for i, point := range history.History {
		if point.RunID != runs[3-i] {
			t.Errorf("checkpoint %d is of %s", i, point.RunID)
		}
	}
}

func clearsTheWay(t *testing.T, h *home) {
	gate, asked := make(chan struct{}), make(chan struct{}, 100)
	t.Cleanup(func() { close(gate) })
	model := h.answer(func(r scripted.Request) scripted.Reply {
		if strings.Contains(r.User(), "eternity") {
			asked <- struct{}{}
			return scripted.Reply{Text: "Never.", Wait: gate}
		}
		return scripted.Text("Done.")
	})
	d := h.deploy(t, simple(model))
	for _, strategy := range []string{"interrupt", "rollback"} {
		thread := d.thread(t, map[string]any{"topic": "nothing"})
		slow := d.join(t, thread.ThreadID, "eternity by "+strategy, "")
		wait(t, asked, "the model is asked")
		if now := d.look(t, thread.ThreadID); now.Status != "busy" {
			t.Errorf("the thread is %s", now.Status)
		}
		h.want(t, http.StatusConflict, "POST", "/v1/threads/"+thread.ThreadID+"/runs", d.Token, map[string]any{"input": map[string]any{"topic": "more"}}, nil)
		next := d.join(t, thread.ThreadID, "a moment after "+strategy, strategy)
		if r := d.over(t, next); r.Status != "succeeded" {
			t.Errorf("the new run %s", r.Status)
		}
		if r := d.run(t, slow); r.Status != "canceled" {
			t.Errorf("the one in the way %s", r.Status)
		}
		if now := d.look(t, thread.ThreadID); now.Status == "busy" || now.Values["output"] != "Done." {
			t.Errorf("the thread is %s, and holds %v", now.Status, now.Values)
		}
	}
}
