package e2e_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"muster/shared/openapi"
)

// served is about what is served beside the stories that the other tests tell, and about every operation of the document at
// once. What an answer looks like, the contract says (contract_test.go).
var served = []behaviour{
	{"whatever is made can be looked at, changed and deleted", looksAfterThings},
	{"a person is asked, and answers by the deployment wire", answersByTheWire},
	{"chats are told too", tellsChats},
	{"guides and the document are there for anybody", servesPages},
	{"every operation refuses who shows no token, or one of another kind", knowsItsCallers},
	{"every operation says what is wrong with a request", saysWhatIsWrong},
}

func looksAfterThings(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	to := newReceiver(t, h)
	hook := d.endpoint(t, to.url+"/hook", map[string]any{"events": []string{"*"}, "headers": map[string]string{"X-Tenant": "17"}, "max_rps": 50})
	kickoff := to.webhooks(false)
	kickoff["inputs"] = map[string]any{"topic": "reading"}
	runID := d.kickoff(t, kickoff)
	to.until(t, "the end of the run", func(posts []post) bool { return ended(t, posts) && len(named(posts, "run.succeeded")) > 0 })

	var list struct{ Targets []struct{ ID string } }
	h.want(t, http.StatusOK, "GET", "/v1/runs/"+runID+"/targets", d.Token, nil, &list)
	if len(list.Targets) == 0 {
		t.Error("the run has no targets")
	}
	h.want(t, http.StatusAccepted, "POST", "/v1/runs/"+runID+"/targets/"+list.Targets[0].ID+"/redeliver", d.Token, map[string]any{"status": "exhausted"}, nil)
	h.want(t, http.StatusOK, "GET", "/v1/runs/"+runID+"/deliveries?limit=5&target="+hook.ID, d.Token, nil, nil)

	path := "/v1/webhooks/outgoing/" + hook.ID
	h.want(t, http.StatusOK, "GET", path, d.Token, nil, nil)
	var redrive struct{ ID string }
	h.want(t, http.StatusAccepted, "POST", path+"/redrive", d.Token, map[string]any{"status": "succeeded", "event": "run.succeeded"}, &redrive)
	h.want(t, http.StatusOK, "GET", path+"/redrive", d.Token, nil, nil)
	h.want(t, http.StatusOK, "GET", path+"/redrive/"+redrive.ID, d.Token, nil, nil)
	if status, answer := h.call(t, "DELETE", path+"/redrive/"+redrive.ID, d.Token, nil); status != http.StatusOK && status != http.StatusConflict {
		t.Errorf("a redrive is stopped with %d %s", status, answer)
	}
	h.want(t, http.StatusNoContent, "DELETE", path, d.Token, nil, nil)
	h.want(t, http.StatusNotFound, "GET", path, d.Token, nil, nil)

	var schedule scheduled
	path = "/v1/deployments/" + d.ID + "/schedules"
	h.want(t, http.StatusCreated, "POST", path, d.Token, map[string]any{"expression": "rate(1 day)", "name": "daily", "start": "2030-01-01T00:00:00Z", "inputs": map[string]any{"topic": "days"}}, &schedule)
	path += "/" + schedule.ID
	h.want(t, http.StatusOK, "GET", path, d.Token, nil, nil)
	h.want(t, http.StatusOK, "PATCH", path, d.Token, map[string]any{"paused": true, "name": nil}, nil)
	h.want(t, http.StatusNoContent, "DELETE", path, d.Token, nil, nil)

	d.thread(t, map[string]any{"topic": "threads"})
	h.want(t, http.StatusOK, "GET", "/v1/threads?limit=1&deployment_id="+d.ID, d.Token, nil, nil)
	h.want(t, http.StatusOK, "GET", "/v1/health/runs", h.token, nil, nil)
	h.want(t, http.StatusOK, "GET", "/v1/dlq?queue=deliveries", h.token, nil, nil)
	h.want(t, http.StatusAccepted, "POST", "/v1/dlq/redrive?queue=deliveries", h.token, map[string]any{"max_per_second": 10}, nil)
}

func answersByTheWire(t *testing.T, h *home) {
	d := h.deploy(t, reviewed(h.answer(drafting)))
	to := newReceiver(t, h)
	kickoff := to.asked()
	kickoff["inputs"] = map[string]any{"topic": "paper"}
	runID := d.kickoff(t, kickoff)
	path := "/v1/approvals/" + to.question(t, runID, 1).RequestID
	h.want(t, http.StatusOK, "GET", path, d.Token, nil, nil)
	h.want(t, http.StatusOK, "POST", path, d.Token, map[string]any{"approve": true, "feedback": "Use blue paper."}, nil)
	h.want(t, http.StatusConflict, "POST", path, d.Token, map[string]any{"approve": false, "feedback": "No."}, nil)
	h.want(t, http.StatusOK, "GET", path, d.Token, nil, nil)
}

func tellsChats(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	to := newReceiver(t, h)
	for _, format := range []string{"slack", "discord"} {
		d.endpoint(t, to.url+"/"+format, map[string]any{"format": format, "events": []string{"run.started", "run.succeeded", "task_completed"}})
	}
	d.start(t, "production")
	to.until(t, "both chats", func(posts []post) bool { return len(posts) >= 6 })
}

func servesPages(t *testing.T, h *home) {
	for _, path := range []string{"/guides", "/openapi", "/openapi.json"} {
		h.want(t, http.StatusOK, "GET", path, "", nil, nil, "Accept", "text/html")
		h.want(t, http.StatusOK, "GET", path, "", nil, nil)
	}
	_, list := h.call(t, "GET", "/guides", "", nil)
	linked := regexp.MustCompile(`\((/[a-z./-]+)\)`).FindAllStringSubmatch(string(list), -1)
	if !slices.ContainsFunc(linked, func(found []string) bool { return found[1] == "/openapi" }) {
		t.Errorf("the guides do not lead to the document: %s", list)
	}
	for _, found := range linked {
		h.want(t, http.StatusOK, "GET", found[1], "", nil, nil)
		h.want(t, http.StatusOK, "GET", found[1], "", nil, nil, "Accept", "text/html")
	}
}

// promised is what the document says of an operation, as far as these tests ask.
type promised struct {
	method, path string
	ID           string                `json:"operationId"`
	Security     []map[string][]string `json:"security"`
	Messages     any                   `json:"x-messages"`
	Parameters   []parameter
	RequestBody  *struct{}
}

// takes tells whether an operation takes the tokens of a kind.
func (p promised) takes(kind string) bool {
	return slices.ContainsFunc(p.Security, func(one map[string][]string) bool { _, ok := one[kind]; return ok })
}

// strange are queries that say what no operation expects: each parameter that it takes, and none.
func (p promised) strange() []string {
	all := []string{""}
	for _, one := range p.Parameters {
		if one.In == "query" {
			all = append(all, "?"+strings.ReplaceAll(one.Name, "*", "x")+"=nobody")
		}
	}
	return all
}

// everything gives the operations of the document, with ids in their paths that nothing has. What is no request and an answer
// is left out.
func everything(t *testing.T) (all []promised) {
	t.Helper()
	var document struct {
		Paths      map[string]map[string]promised
		Components struct{ Parameters map[string]parameter }
	}
	if err := json.Unmarshal(openapi.Document, &document); err != nil {
		t.Fatal(err)
	}
	parameter := regexp.MustCompile(`\{[^}]*\}`)
	for _, path := range slices.Sorted(maps.Keys(document.Paths)) {
		for method, p := range document.Paths[path] {
			p.method, p.path = strings.ToUpper(method), parameter.ReplaceAllString(path, "0198c0de-0000-7000-8000-00000000dead")
			for i, one := range p.Parameters {
				if name, ref := strings.CutPrefix(one.Ref, "#/components/parameters/"); ref {
					p.Parameters[i] = document.Components.Parameters[name]
				}
			}
			if p.Messages == nil {
				all = append(all, p)
			}
		}
	}
	return all
}

func knowsItsCallers(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	for _, p := range everything(t) {
		if !p.takes("workspace") {
			continue
		}
		for _, token := range []string{"", "mus_ws_nobody"} {
			if status, answer := h.call(t, p.method, p.path, token, nil); status != http.StatusUnauthorized {
				t.Errorf("%s answers %d %s to the token %q", p.ID, status, answer, token)
			}
		}
		if status, answer := h.call(t, p.method, p.path, d.Token, nil); !p.takes("deployment") && status != http.StatusForbidden {
			t.Errorf("%s answers %d %s to a deployment's token", p.ID, status, answer)
		}
	}
}

func saysWhatIsWrong(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	long := `{"input": "` + strings.Repeat("x", 1<<20) + `"}`
	for _, p := range everything(t) {
		if p.ID == "redriveDead" {
			continue // which would do it
		}
		bodies := []any{nil}
		if p.RequestBody != nil {
			bodies = []any{nil, "{}", "nonsense", "[]", `{"a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "}", long}
		}
		for _, body := range bodies {
			for _, query := range p.strange() {
				if status, answer := h.call(t, p.method, p.path+query, d.Token, body, "Content-Type", "application/json"); status >= 500 {
					t.Errorf("%s answers %d %s", p.ID, status, answer)
				}
			}
		}
	}
}
