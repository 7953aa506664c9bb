package deploywire_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/events"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/webhook"
	"muster/shared/workspace"
)

// endpoint makes an outgoing webhook with these fields beside its URL, and gives the reply.
func (b *bench) endpoint(token, deployment string, fields object) object {
	b.t.Helper()
	body := object{"url": "https://example.com/hook"}
	maps.Copy(body, fields)
	return b.want(201, token, "POST", "/v1/deployments/"+deployment+"/webhooks/outgoing", encode(body))
}

// keptEndpoint reads an endpoint as it is kept.
func (b *bench) keptEndpoint(shown any) webhook.Endpoint {
	b.t.Helper()
	endpointID, _ := id.Parse("wh", shown.(string))
	e, err := (webhook.Endpoints{Store: b.runs.Store}).Find(b.t.Context(), endpointID)
	if err != nil {
		b.t.Fatal(err)
	}
	return e
}

func (b *bench) secrets(e webhook.Endpoint) webhook.Secrets {
	b.t.Helper()
	s, err := e.Secrets(b.t.Context(), b.sealer, b.runs.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func TestAnOutgoingWebhookFromItsMakingToItsEnd(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("crew")
	list, path := "/v1/deployments/"+dep+"/webhooks/outgoing", "/v1/webhooks/outgoing/"

	made := b.endpoint(token, dep, nil)
	secret := made["secret"].(string)
	if !strings.HasPrefix(secret, "whsec_") || !strings.HasPrefix(made["id"].(string), "wh_") {
		t.Errorf("made %v", made)
	}
	want := object{
		"id": made["id"], "deployment_id": dep, "name": "example.com", "url": "https://example.com/hook", "events": []any{"run.succeeded", "run.failed"},
		"environment": "production", "enabled": true, "disabled_by": nil, "format": "crewship", "max_rps": nil, "headers": object{},
		"old_secret_until": nil, "created_at": made["created_at"], "updated_at": made["created_at"], "last_delivery": nil,
		"health": object{
			"breaker": "closed", "open_since": nil, "next_probe_at": nil, "failing_since": nil, "hold_until": nil, "next_slot_at": nil, "parked": 0.0,
		},
	}
	path += made["id"].(string)
	b.check("it is read without its secret", b.want(200, token, "GET", path, ""), want)
	b.check("it is listed", b.want(200, b.token, "GET", list, ""), object{"webhooks": []any{want}, "next_cursor": nil})
	canonical, _ := id.Parse("wh", made["id"].(string))
	b.check("it is found by its bare id", b.want(200, token, "GET", "/v1/webhooks/outgoing/"+canonical, ""), want)
	if got := b.secrets(b.keptEndpoint(made["id"])); got.Current != secret || got.Old != "" {
		t.Error("the secret that is kept is not the one that was shown")
	}

	changed := b.want(200, token, "PATCH", path, encode(object{
		"name": "Orders", "url": "https://example.org/", "events": []string{"*", "run.failed", "*"}, "environment": "staging", "format": "slack",
		"max_rps": 5, "headers": object{"authorization": "Bearer abc", "X-Team": "7"},
	}))
	want["name"], want["url"], want["events"], want["environment"], want["format"] = "Orders", "https://example.org/", []any{"*", "run.failed"}, "staging", "slack"
	want["max_rps"], want["headers"], want["updated_at"] = 5.0, object{"Authorization": "********", "X-Team": "********"}, changed["updated_at"]
	b.check("it is changed", changed, want)
	e := b.keptEndpoint(made["id"])
	if strings.Contains(fmt.Sprint(e), "Bearer abc") {
		t.Error("the value of a header is kept in the clear")
	}
	value, err := b.sealer.Open(t.Context(), e.WorkspaceID, e.ID, webhook.HeaderField("Authorization"), e.Headers["Authorization"])
	if err != nil || value != "Bearer abc" {
		t.Errorf("the header is kept as %q, %v", value, err)
	}

	b.want(200, token, "PATCH", path, `{"headers": {"Authorization": "********", "X-New": "1"}}`)
	if again := b.keptEndpoint(made["id"]); again.Headers["Authorization"] != e.Headers["Authorization"] || len(again.Headers) != 2 || again.Headers["X-Team"] != "" {
		t.Error("a masked value does not stand for what was there, or a header that is not named any more stays")
	}
	changed = b.want(200, token, "PATCH", path, `{"max_rps": null, "headers": null, "enabled": false}`)
	if changed["max_rps"] != nil || len(changed["headers"].(object)) != 0 || changed["enabled"] != false || changed["disabled_by"] != "owner" {
		t.Errorf("got %v", changed)
	}
	if changed = b.want(200, token, "PATCH", path, `{"enabled": true}`); changed["enabled"] != true || changed["disabled_by"] != nil {
		t.Errorf("got %v", changed)
	}

	if w := b.call(token, "DELETE", path, ""); w.Code != 204 || w.Body.Len() != 0 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	gone := fmt.Sprintf("There is no outgoing webhook %q.", made["id"])
	for _, method := range []string{"GET", "DELETE", "PATCH"} {
		b.refuse(404, "not_found", gone, token, method, path, "{}")
	}
	b.check("nothing is listed", b.want(200, token, "GET", list, ""), object{"webhooks": []any{}, "next_cursor": nil})
}

func TestWhatNoOutgoingWebhookMayHave(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("crew")
	made := b.endpoint(token, dep, nil)
	for _, c := range []struct{ name, body, message string }{
		{"no URL", `{}`, `"url" is missing.`},
		{"a URL that is none", `{"url": "ftp://example.com"}`, "url: The URL must begin with http:// or https://."},
		{"a URL with a password", `{"url": "https://user:pass@example.com"}`, "url: The URL must not hold a user name or password."},
		{"an address of our own", `{"url": "http://127.0.0.1:9001/"}`, "url: This address cannot be reached from here."},
		{"the same in another spelling", `{"url": "http://0x7f000001/"}`, "url: This address cannot be reached from here."},
		{"the metadata of a machine", `{"url": "http://169.254.169.254/latest"}`, "url: This address cannot be reached from here."},
		{"a name of our own", `{"url": "http://localhost"}`, "url: This address cannot be reached from here."},
		{"an event that is a slip", `{"url": "https://example.com", "events": ["run.suceeded"]}`,
			`In "events": there is no event type "run.suceeded"; did you mean run.succeeded? GET /v1/events/types lists all.`},
		{"no event at all", `{"url": "https://example.com", "events": []}`, `"events" must name 1 to 100 types; "*" is all.`},
		{"another environment", `{"url": "https://example.com", "environment": "test"}`, `There is no environment "test"; there are production and staging.`},
		{"another format", `{"url": "https://example.com", "format": "teams"}`, `There is no format "teams"; there are crewship, amp-stream, slack, discord.`},
		{"a header of ours", `{"url": "https://example.com", "headers": {"x-crewship-signature": "x"}}`, "Headers that begin with X-Crewship- are set by Muster and cannot be given."},
		{"a header that frames", `{"url": "https://example.com", "headers": {"content-LENGTH": "1"}}`, "The header Content-Length is set by Muster and cannot be given."},
		{"a header given twice", `{"url": "https://example.com", "headers": {"X-A": "1", "x-a": "2"}}`, "The header X-A is given twice."},
		{"a header that is no text", `{"url": "https://example.com", "headers": {"X-A": 1}}`, `The value of the header "X-A" must be a string.`},
		{"a masked value that stands for none", `{"url": "https://example.com", "headers": {"X-A": "********"}}`, "There is no header X-A whose value could be kept; send the value."},
		{"a name that is no text", `{"url": "https://example.com", "name": 1}`, `"name" must be a string, and it is the number 1.`},
		{"a rate that is none", `{"url": "https://example.com", "max_rps": 0.5}`, `"max_rps" must be a whole number, and it is the number 0.5.`},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.refuse(400, "bad_request", c.message, token, "POST", "/v1/deployments/"+dep+"/webhooks/outgoing", c.body)
			if c.name != "no URL" {
				b.refuse(400, "bad_request", c.message, token, "PATCH", "/v1/webhooks/outgoing/"+made["id"].(string), c.body)
			}
		})
	}
	w := b.call(token, "POST", "/v1/deployments/"+dep+"/webhooks/outgoing", `{"url": "https://example.com", "events": ["order.shipped", "run.failed"], "colour": 1}`)
	want := "unknown field colour was ignored; no event of the system is of the type order.shipped; it is taken for one of your own"
	if got := w.Header().Get("Muster-Warning"); w.Code != 201 || got != want {
		t.Errorf("got %d, %q", w.Code, got)
	}
}

func TestOutgoingWebhooksOfOthersAreNotThere(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("crew")
	made := b.endpoint(token, dep, nil)
	_, other := b.deploy("other")
	stranger := b.mint(workspace.Caller{Kind: workspace.Workspace, WorkspaceID: id.New()})
	webhookID := made["id"].(string)
	for name, who := range map[string]string{"another deployment": other, "another workspace": stranger} {
		t.Run(name, func(t *testing.T) {
			unknown := fmt.Sprintf("There is no outgoing webhook %q.", webhookID)
			for _, call := range []string{
				"GET ", "PATCH ", "DELETE ", "POST /test", "POST /regenerate-secret", "GET /deliveries", "POST /redrive", "GET /redrive", "GET /redrive/" + id.New(),
				"DELETE /redrive/" + id.New(),
			} {
				method, rest, _ := strings.Cut(call, " ")
				b.refuse(404, "not_found", unknown, who, method, "/v1/webhooks/outgoing/"+webhookID+rest, "{}")
			}
			unknown = fmt.Sprintf("There is no deployment %q.", dep)
			b.refuse(404, "not_found", unknown, who, "GET", "/v1/deployments/"+dep+"/webhooks/outgoing", "")
			b.refuse(404, "not_found", unknown, who, "POST", "/v1/deployments/"+dep+"/webhooks/outgoing", `{"url": "https://example.com"}`)
		})
	}
	b.refuse(404, "not_found", `There is no outgoing webhook "x".`, token, "GET", "/v1/webhooks/outgoing/x", "")
}

func TestASecretIsMadeAnew(t *testing.T) {
	b := newBench(t)
	made := b.want(201, b.token, "POST", "/v1/deployments", encode(object{"files": files("topic")}))
	dep, token := made["id"].(string), made["token"].(string)
	hook := b.endpoint(token, dep, nil)
	deploymentID, _ := id.Parse("dep", dep)
	for _, c := range []struct {
		name, path, token string
		first             any
		good              func() webhook.Secrets
	}{
		{"of an outgoing webhook", "/v1/webhooks/outgoing/" + hook["id"].(string) + "/regenerate-secret", token, hook["secret"],
			func() webhook.Secrets { return b.secrets(b.keptEndpoint(hook["id"])) }},
		{"of a deployment", "/v1/deployments/" + dep + "/regenerate-webhook-secret", b.token, made["webhook_secret"], func() webhook.Secrets {
			d, err := b.crews.Deployment(t.Context(), deploymentID)
			if err != nil {
				t.Fatal(err)
			}
			s := webhook.Signing{Secret: d.WebhookSecret, Old: d.OldWebhookSecret, OldUntil: d.OldWebhookSecretUntil}
			open, err := s.Open(t.Context(), b.sealer, d.WorkspaceID, d.ID, "webhook_secret", b.runs.Now())
			if err != nil {
				t.Fatal(err)
			}
			return open
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.check("at first", c.good(), webhook.Secrets{Current: c.first.(string)})
			second := b.want(200, c.token, "POST", c.path, "")
			b.check("the old one ends at once", c.good(), webhook.Secrets{Current: second["secret"].(string)})
			if second["old_secret_until"] != nil || second["secret"] == c.first {
				t.Errorf("got %v", second)
			}
			third := b.want(200, c.token, "POST", c.path, `{"overlap_seconds": 3600}`)
			b.check("both are good", c.good(), webhook.Secrets{Current: third["secret"].(string), Old: second["secret"].(string)})
			until, err := time.Parse(time.RFC3339, third["old_secret_until"].(string))
			if left := until.Sub(b.runs.Now()); err != nil || left < 59*time.Minute || left > time.Hour {
				t.Errorf("until %v, %v", third["old_secret_until"], err)
			}
			w := b.call(c.token, "POST", c.path, `{}`)
			if w.Code != 409 || !strings.Contains(w.Body.String(), `Two secrets are good until `) {
				t.Errorf("a second one within the time: %d %s", w.Code, w.Body)
			}
			forced := b.want(200, c.token, "POST", c.path, `{"force": true, "overlap_seconds": 60, "colour": 1}`)
			b.check("forced", c.good(), webhook.Secrets{Current: forced["secret"].(string), Old: third["secret"].(string)})
			b.ahead += time.Minute
			b.check("after its time the old one is worthless", c.good(), webhook.Secrets{Current: forced["secret"].(string)})
			fourth := b.want(200, c.token, "POST", c.path, `{"overlap_seconds": 0}`, "Idempotency-Key", "k")
			again := b.want(200, c.token, "POST", c.path, `{"overlap_seconds": 0}`, "Idempotency-Key", "k")
			b.check("who repeats the request is told the same", again, fourth)
			b.check("and it is good", c.good(), webhook.Secrets{Current: fourth["secret"].(string)})
			b.refuse(409, "conflict", "This Idempotency-Key was used with another request body in the last 24 hours.", c.token, "POST", c.path, `{"overlap_seconds": 1}`, "Idempotency-Key", "k")
			for _, seconds := range []string{"-1", "604801", "9999999999999"} {
				b.refuse(400, "bad_request", `"overlap_seconds" must be a number from 0 to 604800.`, c.token, "POST", c.path, `{"overlap_seconds": `+seconds+`}`)
			}
		})
	}
	b.refuse(403, "forbidden", `This token is of the kind "deployment" and cannot be used for this.`, token, "POST", "/v1/deployments/"+dep+"/regenerate-webhook-secret", "")
}

func TestATestTellsWhatCameOfIt(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("crew")
	made := b.endpoint(token, dep, nil)
	path := "/v1/webhooks/outgoing/" + made["id"].(string) + "/test"
	b.ping = func(e webhook.Endpoint) webhook.Attempt {
		if id.Show("wh", e.ID) != made["id"] {
			t.Errorf("asked for %s", e.ID)
		}
		return webhook.Attempt{Code: 204, LatencyMS: 12, Response: "thanks"}
	}
	b.check("what is taken", b.want(200, token, "POST", path, ""),
		object{"ok": true, "status_code": 204.0, "error": nil, "latency_ms": 12.0, "body": "thanks"})
	b.ping = func(webhook.Endpoint) webhook.Attempt {
		return webhook.Attempt{Class: "blocked", Error: "This address cannot be reached from here."}
	}
	b.check("what is not", b.want(200, token, "POST", path, ""),
		object{"ok": false, "status_code": nil, "error": "This address cannot be reached from here.", "latency_ms": 0.0, "body": ""})
}

func TestTestsAreLimited(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("crew")
	path := "/v1/webhooks/outgoing/" + b.endpoint(token, dep, nil)["id"].(string) + "/test"
	pings := 0
	b.ping = func(webhook.Endpoint) webhook.Attempt {
		pings++
		return webhook.Attempt{Code: 200}
	}
	// However the minutes lie, of twenty-one within a moment one is too many.
	for range 21 {
		if w := b.call(token, "POST", path, ""); w.Code == 429 {
			wait, err := strconv.Atoi(w.Header().Get("Retry-After"))
			if err != nil || wait < 1 || wait > 60 || !strings.Contains(w.Body.String(), "too_many_requests") {
				t.Errorf("Retry-After is %q, %s", w.Header().Get("Retry-After"), w.Body)
			}
			break
		}
	}
	if pings != 10 && pings != 20 {
		t.Errorf("%d pings were sent", pings)
	}
	other := b.endpoint(token, dep, nil)["id"].(string)
	b.want(200, token, "POST", "/v1/webhooks/outgoing/"+other+"/test", "")
	b.ahead += time.Minute
	b.want(200, token, "POST", path, "")
}

func TestAnOutgoingWebhookTellsWhyNothingArrives(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("crew")
	made := b.endpoint(token, dep, object{"max_rps": 1})
	path, e := "/v1/webhooks/outgoing/"+made["id"].(string), b.keptEndpoint(made["id"])
	health := func() object { return b.want(200, token, "GET", path, "")["health"].(object) }
	calm := object{"breaker": "closed", "open_since": nil, "next_probe_at": nil, "failing_since": nil, "hold_until": nil, "next_slot_at": nil, "parked": 0.0}
	b.check("at first", health(), calm)

	_, h, err := b.endpoints().Read(t.Context(), e.DeploymentID, e.ID)
	if err != nil {
		t.Fatal(err)
	}
	began := b.runs.Now().UTC().Truncate(time.Millisecond)
	err = b.endpoints().ChangeHealth(t.Context(), &h, func(h *webhook.Health) bool {
		for range 10 {
			h.Note(webhook.Outcome{Failed: 1, Hold: time.Hour}, began)
		}
		h.Slot = began.Add(time.Minute)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	d := webhook.New(id.New(), 1, e.ID, "0", "run.failed", began)
	d.Parts, d.Parked = 1, true
	if err := (webhook.Deliveries{Store: b.runs.Store}).Put(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
	at := func(t time.Time) string { return t.Format(events.TimeFormat) }
	b.check("while the breaker is open", health(), object{
		"breaker": "open", "open_since": at(began), "next_probe_at": at(began.Add(time.Minute)), "failing_since": at(began),
		"hold_until": at(began.Add(time.Hour)), "next_slot_at": at(began.Add(time.Minute)), "parked": 1.0,
	})
	b.want(200, token, "PATCH", path, `{"enabled": false}`)
	b.want(200, token, "PATCH", path, `{"enabled": true}`)
	b.ahead += time.Minute
	calm["parked"] = 1.0
	b.check("once its owner has looked after it", health(), calm)
}

func (b *bench) endpoints() webhook.Endpoints {
	return webhook.Endpoints{Store: b.runs.Store, Now: b.runs.Now}
}

// delivery keeps a delivery of a run's page to a target.
func (b *bench) delivery(runID string, seq int, target, event string, status webhook.Status, attempts ...webhook.Attempt) webhook.Delivery {
	b.t.Helper()
	d := webhook.New(runID, seq, target, "0", event, b.runs.Now().Add(time.Duration(seq)*time.Second).Truncate(time.Millisecond))
	d.Parts, d.Status = 1, status
	for _, a := range attempts {
		d.Add(a)
	}
	if err := (webhook.Deliveries{Store: b.runs.Store}).Put(b.t.Context(), &d); err != nil {
		b.t.Fatal(err)
	}
	return d
}

func TestTheLogOfAnOutgoingWebhook(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("crew")
	hook := b.keptEndpoint(b.endpoint(token, dep, nil)["id"])
	runID := b.start(dep)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	refused := webhook.Attempt{At: at, LatencyMS: 7, Code: 500, Class: "status", Error: "The receiver answered 500 Internal Server Error.", Headers: map[string]string{"X-A": "b"}, Response: "oops", Truncated: true}
	taken := webhook.Attempt{At: at.Add(time.Minute), LatencyMS: 9, Code: 200}
	first := b.delivery(runID, 1, hook.ID, "run.started", webhook.Succeeded, refused, taken)
	second := b.delivery(runID, 2, hook.ID, "run.failed", webhook.Exhausted, webhook.Attempt{At: at, Class: "connect", Error: "The connection was refused."})
	path := "/v1/webhooks/outgoing/" + id.Show("wh", hook.ID)

	shownRun := id.Show("run", runID)
	older := object{"id": first.Shown(), "event": "run.started", "run_id": shownRun, "status": "succeeded", "response_code": 200.0, "error": nil,
		"timestamp": "2026-03-01T12:01:00.000Z", "attempts": 2.0, "next_attempt_at": nil, "parked": false}
	newer := object{"id": second.Shown(), "event": "run.failed", "run_id": shownRun, "status": "exhausted", "response_code": nil, "error": "The connection was refused.",
		"timestamp": "2026-03-01T12:00:00.000Z", "attempts": 1.0, "next_attempt_at": nil, "parked": false}
	for query, want := range map[string][]any{
		"":                                   {newer, older},
		"?status=exhausted":                  {newer},
		"?status=exhausted&status=succeeded": {newer, older},
		"?event=run.started":                 {older},
		"?run_id=" + shownRun:                {newer, older},
		"?run_id=" + id.New():                {},
		"?until=2020-01-01T00:00:00Z":        {},
		"?since=2020-01-01T00:00:00%2B01:00": {newer, older},
	} {
		b.check("the log "+query, b.want(200, token, "GET", path+"/deliveries"+query, ""), object{"deliveries": want, "next_cursor": nil})
	}
	page := b.want(200, token, "GET", path+"/deliveries?limit=1", "")
	next := b.want(200, token, "GET", path+"/deliveries?limit=1&cursor="+page["next_cursor"].(string), "")
	b.check("page by page", []any{page["deliveries"].([]any)[0], next["deliveries"].([]any)[0]}, []any{newer, older})
	b.check("the newest is shown with the webhook", b.want(200, token, "GET", path, "")["last_delivery"], newer)
	for query, message := range map[string]string{
		"?status=broken": `There is no status "broken" of deliveries; there are pending, failed, succeeded, exhausted, canceled.`,
		"?run_id=x":      `"run_id" is no id of a run.`,
		"?since=monday":  `"since" must be a time like 2027-01-31T09:30:00Z.`,
		"?limit=0":       `"limit" must be a number from 1 to 100.`,
		"?cursor=x":      `"cursor" must be the next_cursor of the page before.`,
	} {
		b.refuse(400, "bad_request", message, token, "GET", path+"/deliveries"+query, "")
	}

	one := b.want(200, token, "GET", "/v1/deliveries/"+first.Shown(), "")
	b.check("a delivery", one, object{
		"id": first.Shown(), "event": "run.started", "run_id": shownRun, "webhook_id": id.Show("wh", hook.ID), "target": nil, "status": "succeeded",
		"created_at": one["created_at"], "next_attempt_at": nil, "parked": false, "attempted": 2.0, "attempts": []any{
			object{"timestamp": "2026-03-01T12:00:00.000Z", "latency_ms": 7.0, "response_code": 500.0, "error_class": "status", "error": refused.Error,
				"response_headers": object{"X-A": "b"}, "response_body": "oops", "truncated": true},
			object{"timestamp": "2026-03-01T12:01:00.000Z", "latency_ms": 9.0, "response_code": 200.0, "error_class": nil, "error": nil,
				"response_headers": object{}, "response_body": "", "truncated": false},
		},
	})
	_, other := b.deploy("other")
	for name, c := range map[string]struct{ token, shown string }{
		"one of another deployment":      {other, first.Shown()},
		"one that is not there":          {token, webhook.New(runID, 9, hook.ID, "0", "", at).Shown()},
		"one of a run that is not there": {token, webhook.New(id.New(), 1, hook.ID, "0", "", at).Shown()},
		"a notice that is not there":     {token, webhook.New(id.New(), 0, hook.ID, "0", "", at).Shown()},
		"none":                           {token, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, call := range []string{"GET ", "POST /redeliver"} {
				method, rest, _ := strings.Cut(call, " ")
				b.refuse(404, "not_found", fmt.Sprintf("There is no delivery %q.", c.shown), c.token, method, "/v1/deliveries/"+c.shown+rest, "")
			}
		})
	}
}

// start starts a run of a deployment, and gives its bare id.
func (b *bench) start(dep string) string {
	b.t.Helper()
	reply := b.want(202, b.token, "POST", "/v1/runs", encode(object{"deployment_id": dep, "input": object{"company": "a", "topic": "b"}}))
	runID, _ := id.Parse("run", reply["run_id"].(string))
	return runID
}

func TestADeliveryIsAskedForAgain(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("crew")
	hook := b.keptEndpoint(b.endpoint(token, dep, nil)["id"])
	runID := b.start(dep)
	d := b.delivery(runID, 1, hook.ID, "run.failed", webhook.Exhausted, webhook.Attempt{At: b.runs.Now(), Code: 500, Class: "status", Error: "no"})
	path := "/v1/deliveries/" + d.Shown()

	got := b.want(202, token, "POST", path+"/redeliver", "")
	if got["id"] != d.Shown() || got["status"] != "pending" || got["next_attempt_at"] == nil || got["attempts"] != 1.0 {
		t.Errorf("got %v", got)
	}
	b.check("it is shown so", b.want(200, token, "GET", path, "")["status"], "pending")

	b.want(200, token, "PATCH", "/v1/webhooks/outgoing/"+id.Show("wh", hook.ID), `{"enabled": false}`)
	b.refuse(409, "conflict", "The webhook is disabled; enable it first.", token, "POST", path+"/redeliver", "")
	b.call(token, "DELETE", "/v1/webhooks/outgoing/"+id.Show("wh", hook.ID), "")
	b.refuse(409, "conflict", "The webhook of this delivery was deleted.", token, "POST", path+"/redeliver", "")
}

func TestADeliveryIsThereBeforeItsRecord(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("crew")
	hook := b.keptEndpoint(b.endpoint(token, dep, object{"events": []string{"run.failed"}})["id"])
	b.runs.Standing = func(ctx context.Context, r run.Run) ([]run.Target, error) {
		return []run.Target{{ID: hook.ID, Kind: run.EndpointTarget, Events: hook.Events}}, nil
	}
	runID := b.start(dep)
	owner := b.claim(id.Show("run", runID))
	if err := owner.End(run.Outcome{State: run.Failed, Error: "no"}, owner.Root()); err != nil {
		t.Fatal(err)
	}
	end, err := b.runs.Newest(t.Context(), runID)
	if err != nil {
		t.Fatal(err)
	}
	d := webhook.New(runID, end.Seq, hook.ID, "0", "run.failed", end.At)
	got := b.want(200, token, "GET", "/v1/deliveries/"+d.Shown(), "")
	if got["status"] != "pending" || len(got["attempts"].([]any)) != 0 {
		t.Errorf("got %v", got)
	}
	// Its first attempt is on its way; what was asked for before that is not written down.
	b.check("asked for", b.want(202, token, "POST", "/v1/deliveries/"+d.Shown()+"/redeliver", "")["status"], "pending")
	if made, err := (webhook.Deliveries{Store: b.runs.Store}).OfRun(t.Context(), runID); err != nil || len(made) != 0 {
		t.Errorf("there are %d records, %v", len(made), err)
	}
	b.delivery(runID, end.Seq, hook.ID, "run.failed", webhook.Succeeded)
	for _, part := range []string{"1", "99", "0a", "7bab"} {
		unknown := webhook.New(runID, end.Seq, hook.ID, part, "run.failed", end.At).Shown()
		b.refuse(404, "not_found", fmt.Sprintf("There is no delivery %q.", unknown), token, "GET", "/v1/deliveries/"+unknown, "")
		b.refuse(404, "not_found", fmt.Sprintf("There is no delivery %q.", unknown), token, "POST", "/v1/deliveries/"+unknown+"/redeliver", "")
	}
}

func TestAWebhookIsMadeOnceForAnIdempotencyKey(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("crew")
	path, body := "/v1/deployments/"+dep+"/webhooks/outgoing", `{"url":"https://example.com/a"}`
	made := b.want(201, token, "POST", path, body, "Idempotency-Key", "k")
	b.check("the same request again", b.want(201, token, "POST", path, body, "Idempotency-Key", "k"), made)
	used := fmt.Sprintf("This Idempotency-Key was used for the webhook %s.", made["id"])
	b.refuse(409, "conflict", used, token, "POST", path, `{"url":"https://example.com/b"}`, "Idempotency-Key", "k")
	if other := b.want(201, token, "POST", path, body); other["id"] == made["id"] {
		t.Error("without a key there is another one")
	}
	if all := b.want(200, token, "GET", path, "")["webhooks"].([]any); len(all) != 2 {
		t.Errorf("there are %d", len(all))
	}
	// A secret that took the first one's place is not shown to who has the key.
	b.want(200, token, "POST", "/v1/webhooks/outgoing/"+made["id"].(string)+"/regenerate-secret", "")
	b.refuse(409, "conflict", used, token, "POST", path, body, "Idempotency-Key", "k")
}

func TestTargetsGivenAtKickoff(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("crew")
	deploymentID, _ := id.Parse("dep", dep)
	d, err := b.crews.Deployment(t.Context(), deploymentID)
	if err != nil {
		t.Fatal(err)
	}
	started, err := b.runs.Start(t.Context(), run.StartRequest{Deployment: d, Inputs: map[string]any{"company": "a", "topic": "b"}, Targets: []run.Target{
		{ID: "step", Kind: run.StepTarget, URL: "https://example.com/step?token=hidden&x=hidden#hidden", Authorization: "Bearer hidden"},
		{ID: "stream", Kind: run.StreamTarget, URL: "https://example.com/stream", Events: []string{"*"}, Realtime: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b.delivery(started.ID, 1, "step", "amp.step", webhook.Succeeded, webhook.Attempt{At: at, Code: 500, Class: "status"}, webhook.Attempt{At: at, Code: 200})
	last := b.delivery(started.ID, 2, "step", "amp.step", webhook.Exhausted, webhook.Attempt{At: at, Code: 500, Class: "status", Error: "no"})
	path := "/v1/runs/" + id.Show("run", started.ID)

	none := object{"pending": 0.0, "failed": 0.0, "succeeded": 0.0, "exhausted": 0.0, "canceled": 0.0}
	some := maps.Clone(none)
	some["succeeded"], some["exhausted"] = 1.0, 1.0
	reply := b.want(200, token, "GET", path+"/targets", "")
	shown, _ := json.Marshal(reply)
	if strings.Contains(string(shown), "hidden") {
		t.Errorf("credentials are shown: %s", shown)
	}
	summary := object{"id": last.Shown(), "event": "amp.step", "run_id": id.Show("run", started.ID), "status": "exhausted", "response_code": 500.0, "error": "no",
		"timestamp": "2026-03-01T12:00:00.000Z", "attempts": 1.0, "next_attempt_at": nil, "parked": false}
	b.check("targets", reply, object{"targets": []any{
		object{"id": "step", "kind": "step", "url": "https://example.com/step?token=%2A%2A%2A%2A%2A%2A%2A%2A&x=%2A%2A%2A%2A%2A%2A%2A%2A",
			"deliveries": some, "attempts": 3.0, "last_delivery": summary},
		object{"id": "stream", "kind": "stream", "url": "https://example.com/stream", "events": []any{"*"}, "realtime": true,
			"deliveries": none, "attempts": 0.0, "last_delivery": nil},
	}})
	b.check("the run's deliveries", len(b.want(200, token, "GET", path+"/deliveries", "")["deliveries"].([]any)), 2)
	b.check("those of a status", b.want(200, token, "GET", path+"/deliveries?target=step&status=exhausted", "")["deliveries"], []any{summary})
	b.check("those of a target", b.want(200, token, "GET", path+"/deliveries?target=stream", "")["deliveries"], []any{})

	b.check("what it did not take is sent again", b.want(202, token, "POST", path+"/targets/step/redeliver", ""), object{"sent": 1.0})
	b.check("once", b.want(202, token, "POST", path+"/targets/step/redeliver", "{}"), object{"sent": 0.0})
	b.check("and what it took", b.want(202, token, "POST", path+"/targets/step/redeliver", `{"status": "succeeded"}`), object{"sent": 1.0})
	b.refuse(404, "not_found", `The run was given no target "x".`, token, "POST", path+"/targets/x/redeliver", "")
	b.refuse(400, "bad_request", `There is no status "x" of deliveries; there are pending, failed, succeeded, exhausted, canceled.`, token, "POST", path+"/targets/step/redeliver", `{"status": "x"}`)
}

func TestARedriveIsStartedFollowedAndStopped(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("crew")
	hook := b.keptEndpoint(b.endpoint(token, dep, nil)["id"])
	runID := b.start(dep)
	for seq := range 60 {
		d := webhook.New(runID, seq+1, hook.ID, "0", "run.failed", b.runs.Now().Add(-time.Hour))
		d.Parts, d.Status = 1, webhook.Exhausted
		if err := (webhook.Deliveries{Store: b.runs.Store}).Put(t.Context(), &d); err != nil {
			t.Fatal(err)
		}
	}
	path := "/v1/webhooks/outgoing/" + id.Show("wh", hook.ID) + "/redrive"

	begun := b.want(202, token, "POST", path, `{"event": "run.failed", "colour": 1}`)
	if begun["state"] != "running" || begun["status"] != "exhausted" || begun["sent"] == 0.0 || !strings.HasPrefix(begun["id"].(string), "rdr_") {
		t.Errorf("got %v", begun)
	}
	b.check("again", b.want(202, token, "POST", path, `{"event": "run.failed"}`)["id"], begun["id"])
	b.check("its progress", b.want(200, token, "GET", path+"/"+begun["id"].(string), ""), begun)
	b.check("all", b.want(200, token, "GET", path, ""), object{"redrives": []any{begun}, "next_cursor": nil})
	stopped := b.want(200, token, "DELETE", path+"/"+begun["id"].(string), "")
	if stopped["state"] != "canceled" || stopped["ended_at"] == nil {
		t.Errorf("got %v", stopped)
	}
	named := b.want(202, token, "POST", path, `{"status": "succeeded"}`, "Idempotency-Key", "k")
	b.check("with its key", b.want(202, token, "POST", path, `{"status": "succeeded"}`, "Idempotency-Key", "k")["id"], named["id"])
	b.refuse(409, "conflict", "This Idempotency-Key was used for another redrive of this webhook.", token, "POST", path, "", "Idempotency-Key", "k")
	b.refuse(400, "bad_request", `"status" must be failed, exhausted, succeeded, canceled or skipped.`, token, "POST", path, `{"status": "x"}`)
	b.refuse(400, "bad_request", `"until" is before "since".`, token, "POST", path, `{"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}`)
	b.refuse(404, "not_found", `There is no redrive "x".`, token, "GET", path+"/x", "")
}

func TestDeploymentsHavePages(t *testing.T) {
	b := newBench(t)
	var want []any
	for range 3 {
		dep, _ := b.deploy("crew")
		want = append([]any{dep}, want...)
	}
	_, token := b.deploy("newest")
	var got []any
	query := "?limit=2"
	for pages := 0; pages < 3; pages++ {
		reply := b.want(200, b.token, "GET", "/v1/deployments"+query, "")
		for _, d := range reply["deployments"].([]any) {
			got = append(got, d.(object)["id"])
		}
		if reply["next_cursor"] == nil {
			break
		}
		query = "?limit=2&cursor=" + reply["next_cursor"].(string)
	}
	b.check("all, newest first", got[1:], want)
	if own := b.want(200, token, "GET", "/v1/deployments", "")["deployments"].([]any); len(own) != 1 {
		t.Errorf("a deployment sees %d", len(own))
	}
	b.refuse(400, "bad_request", `"cursor" must be the next_cursor of the page before.`, b.token, "GET", "/v1/deployments?cursor=x", "")
}
