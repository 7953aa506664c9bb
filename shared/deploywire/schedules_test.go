package deploywire_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"muster/shared/record"
	"muster/shared/schedule"
)

func TestSchedules(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("one")
	path := "/v1/deployments/" + dep + "/schedules"

	made := b.want(201, token, "POST", path, `{"name":"Mornings","expression":"cron(0 9 ? * MON-FRI 2199)","timezone":"Europe/Berlin",
		"inputs":{"company":"Acme","topic":12345678901234567890},"catch_up":"once"}`)
	if s, _ := made["id"].(string); !regexp.MustCompile(`^sch_[0-9a-f]{32}$`).MatchString(s) {
		t.Errorf("the id is %v", made["id"])
	}
	want := object{
		"id": made["id"], "deployment_id": dep, "name": "Mornings", "expression": "cron(0 9 ? * MON-FRI 2199)", "timezone": "Europe/Berlin",
		"environment": "production", "version_number": nil, "inputs": object{"company": "Acme", "topic": 12345678901234567890.0},
		"paused": false, "catch_up": "once", "start": nil, "end": nil,
		"next_firings": []any{"2199-01-01T08:00:00.000Z", "2199-01-02T08:00:00.000Z", "2199-01-03T08:00:00.000Z"},
		"last_firing":  nil, "firings": []any{}, "created_at": made["created_at"], "updated_at": made["created_at"],
	}
	// 2199 begins with a Tuesday.
	b.check("a schedule", made, want)
	if w := b.call(token, "GET", path, ""); !strings.Contains(w.Body.String(), `"topic":12345678901234567890`) {
		t.Errorf("an input lost digits: %s", w.Body)
	}
	one := path + "/" + made["id"].(string)
	b.check("read again", b.want(200, token, "GET", one, ""), made)
	b.check("a list", b.want(200, token, "GET", path, ""), object{"schedules": []any{made}})

	changed := b.want(200, token, "PATCH", one, `{"name":null,"paused":true,"version_number":1,"end":"2199-06-01T00:00:00+02:00"}`)
	want["name"], want["paused"], want["version_number"], want["end"] = nil, true, 1.0, "2199-05-31T22:00:00.000Z"
	want["next_firings"], want["updated_at"] = []any{}, changed["updated_at"]
	b.check("changed", changed, want)

	started := b.want(202, token, "POST", one+"/run", "", "Idempotency-Key", "k")
	b.check("run now, twice", b.want(202, token, "POST", one+"/run", "", "Idempotency-Key", "k"), started)
	r := b.want(200, token, "GET", "/v1/runs/"+started["run_id"].(string), "")
	b.check("its input", r["input"], made["inputs"])

	now := b.want(202, token, "POST", one+"/run", `{"inputs":{"company":"Bolt"}}`)
	r = b.want(200, token, "GET", "/v1/runs/"+now["run_id"].(string), "")
	b.check("inputs lie over those of the schedule", r["input"], object{"company": "Bolt", "topic": 12345678901234567890.0})
	b.check("and not for ever", b.want(200, token, "GET", one, "")["inputs"], made["inputs"])
	if w := b.call(token, "POST", one+"/run", `{"environment":"staging"}`); w.Code != 202 || w.Header().Get("Muster-Warning") != "unknown field environment was ignored" {
		t.Errorf("what cannot be said of a run now: %d %v", w.Code, w.Header())
	}
	b.refuse(400, "bad_request", `"inputs" must be an object, and it is an array.`, token, "POST", one+"/run", `{"inputs":[]}`)
	b.refuse(409, "conflict", "This Idempotency-Key was used with another request body in the last 24 hours.", token, "POST", one+"/run", `{"inputs":{}}`, "Idempotency-Key", "k")

	if w := b.call(token, "DELETE", one, ""); w.Code != 204 || w.Body.Len() > 0 {
		t.Errorf("delete: %d %s", w.Code, w.Body)
	}
	b.refuse(404, "not_found", `There is no schedule "`+made["id"].(string)+`".`, token, "GET", one, "")
}

// wake fires the schedules that are due.
func (b *bench) wake() {
	b.t.Helper()
	for shard := range record.Shards {
		due, err := b.runs.Store.Due(b.t.Context(), shard, b.runs.Now(), 100)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, e := range due {
			if strings.HasPrefix(e.Part, schedule.Partition) {
				if err := b.schedules.Wake(b.t.Context(), e.Key); err != nil {
					b.t.Fatal(err)
				}
			}
		}
	}
}

func TestWhatAScheduleShowsOfItsFirings(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("one")
	path := "/v1/deployments/" + dep + "/schedules"
	made := b.want(201, token, "POST", path, `{"expression":"rate(1 hour)","input":{"company":"Acme","topic":"rain"}}`)
	b.wake()
	shown := b.want(200, token, "GET", path+"/"+made["id"].(string), "")
	last := shown["last_firing"].(object)
	begin := made["next_firings"].([]any)[0]
	b.check("the last firing", last, object{
		"at": begin, "fired_at": last["fired_at"], "run_id": last["run_id"], "status": "pending", "reason": nil, "missed": 0.0,
	})
	delete(last, "status")
	b.check("the firings", shown["firings"], []any{last})
	listed := b.want(200, token, "GET", "/v1/runs", "")["runs"].([]any)
	if len(listed) != 1 || listed[0].(object)["id"] != last["run_id"] {
		t.Errorf("the runs are %v", listed)
	}

	b.want(201, b.token, "POST", "/v1/deployments/"+dep+"/versions", encode(object{"files": files("product")}))
	b.want(200, b.token, "PUT", "/v1/deployments/"+dep+"/environments/production", `{"version_number":2}`)
	b.ahead = 61 * time.Minute
	b.wake()
	last = b.want(200, token, "GET", path+"/"+made["id"].(string), "")["last_firing"].(object)
	b.check("why there is no run", []any{last["run_id"], last["reason"], last["status"]}, []any{nil, "Missing inputs: product", nil})
}

func TestSchedulesThatAreRefused(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("one")
	other, otherToken := b.deploy("two")
	path := "/v1/deployments/" + dep + "/schedules"
	const inputs = `"inputs":{"company":"Acme","topic":"rain"}`
	for body, message := range map[string]string{
		`{` + inputs + `}`: "The schedule expression is not valid. It must be cron(…), rate(…) or at(…).",
		`{"expression":"cron(0 9 * * * *)",` + inputs + `}`:             `The schedule expression is not valid. Exactly one of day-of-month and day-of-week must be "?".`,
		`{"expression":"rate(1 day)"}`:                                  "Missing inputs: company, topic",
		`{"expression":5}`:                                              `"expression" must be a string, and it is the number 5.`,
		`{"expression":"rate(1 day)","start":"soon"}`:                   `"start" must be a time like 2027-01-31T09:30:00Z.`,
		`{"expression":"rate(1 day)","timezone":"CEST",` + inputs + `}`: `There is no time zone "CEST"; it must be an IANA name like Europe/Berlin.`,
	} {
		b.refuse(400, "bad_request", message, token, "POST", path, body)
	}
	made := b.want(201, token, "POST", path, `{"expression":"rate(1 day)",`+inputs+`}`)["id"].(string)
	b.refuse(404, "not_found", `There is no deployment "`+dep+`".`, otherToken, "GET", path+"/"+made, "")
	b.refuse(404, "not_found", `There is no schedule "`+made+`".`, otherToken, "DELETE", "/v1/deployments/"+other+"/schedules/"+made, "")
	b.refuse(404, "not_found", `There is no schedule "x".`, token, "POST", path+"/x/run", "")
}

// What is made once for an Idempotency-Key: a request whose answer got lost may come again, also at the same time.
func TestSchedulesAndThreadsAreMadeOnceForAKey(t *testing.T) {
	b := newBench(t)
	dep, token := b.deploy("one")
	_, stranger := b.deploy("two")
	schedules := "/v1/deployments/" + dep + "/schedules"
	for path, c := range map[string]struct{ id, list, body, same, other string }{
		schedules: {"id", "schedules", `{"expression":"rate(1 day)","inputs":{"company":"Acme","topic":"rain"}}`, `{"inputs":{"topic":"rain","company":"Acme"},"expression":"rate(1 day)"}`,
			`{"expression":"rate(2 days)","inputs":{"company":"Acme","topic":"rain"}}`},
		"/v1/threads": {"thread_id", "threads", `{"values":{"a":1}}`, `{"values": {"a": 1}}`, `{"values":{"a":2}}`},
	} {
		const key = "Idempotency-Key"
		first := b.want(201, token, "POST", path, c.body, key, "k")
		b.check(path+": made again", b.want(201, token, "POST", path, c.same, key, "k"), first)
		b.refuse(409, "conflict", "This Idempotency-Key was used with another request body in the last 24 hours.", token, "POST", path, c.other, key, "k")
		if b.want(201, token, "POST", path, c.other, key, "l")[c.id] == first[c.id] || b.want(201, token, "POST", path, c.body)[c.id] == first[c.id] {
			t.Errorf("%s: another key, or none, gave the same", path)
		}
		if n := len(b.want(200, token, "GET", path, "")[c.list].([]any)); n != 3 {
			t.Errorf("%s: there are %d", path, n)
		}
		b.refuse(400, "bad_request", "The Idempotency-Key is longer than 255 characters.", token, "POST", path, c.body, key, strings.Repeat("k", 256))
	}
	if b.want(201, stranger, "POST", "/v1/threads", `{"values":{"a":1}}`, "Idempotency-Key", "k")["deployment_id"] == dep {
		t.Error("a key holds for another deployment")
	}
}
