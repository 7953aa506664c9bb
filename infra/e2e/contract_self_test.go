package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// complaints are what the contract says to those who do not keep it.
type complaints []string

func (c *complaints) Errorf(format string, args ...any) {
	*c = append(*c, fmt.Sprintf(format, args...))
}

// TestTheContractIsHeld: a home that answers otherwise than the document says is found out.
func TestTheContractIsHeld(t *testing.T) {
	const id = "0198c0de00007000800000000000000a"
	const started = `{"run_id":"run_` + id + `","version_id":"ver_` + id + `","version_number":1,"status":"running"}`
	const asJSON = "application/json"
	c := readContract()
	for _, test := range []struct {
		name         string
		method, path string
		sent         string
		status       int
		header       http.Header
		kind, body   string
		want         string // in the complaint, "" for none
	}{
		{"what is promised", "POST", "/v1/runs", `{"input":{}}`, 202, nil, asJSON, started, ""},
		{"a status that nobody expects", "POST", "/v1/runs", "", 418, nil, asJSON, started, "answers with 418"},
		{"another type", "POST", "/v1/runs", "{}", 202, nil, "text/plain", started, "text/plain"},
		{"a field more", "POST", "/v1/runs", "{}", 202, nil, asJSON, strings.Replace(started, "{", `{"more":1,`, 1), "more"},
		{"a field less", "POST", "/v1/runs", "{}", 202, nil, asJSON, strings.Replace(started, `,"version_number":1`, "", 1), "version_number"},
		{"a word that is not in the list", "POST", "/v1/runs", "{}", 202, nil, asJSON, strings.Replace(started, "running", "going", 1), "status"},
		{"an id without its prefix", "POST", "/v1/runs", "{}", 202, nil, asJSON, strings.Replace(started, "run_", "", 1), "run_id"},
		{"a header that nobody expects", "POST", "/v1/runs", "{}", 202, http.Header{"Muster-Receipt": {"rec_1"}}, asJSON, started, "Muster-Receipt"},
		{"an error in the shape of another wire", "POST", "/v1/runs", "{}", 404, nil, asJSON, `{"detail":"Not Found"}`, "404"},
		{"a field that was taken and is not known", "POST", "/v1/runs", `{"wish":1}`, 202, nil, asJSON, started, `"wish"`},
		{"a field that was ignored, with a warning", "POST", "/v1/runs", `{"wish":1}`, 202, http.Header{"Muster-Warning": {"unknown field wish was ignored"}}, asJSON, started, ""},
		{"a field of another type that was taken", "POST", "/v1/runs", `{"environment":1}`, 202, nil, asJSON, started, "environment"},
		{"no body where there must be one", "POST", "/v1/runs", "", 202, nil, asJSON, started, "no body"},
		{"a query that was taken and is not known", "POST", "/v1/runs?fast=1", "{}", 202, nil, asJSON, started, `"fast"`},
		{"a value of a query that cannot be", "GET", "/v1/runs?limit=1000", "", 200, nil, asJSON, `{"runs":[],"next_cursor":null}`, "limit"},
		{"a body where there is none", "DELETE", "/v1/webhooks/outgoing/wh_1", "", 204, nil, asJSON, "{}", "a body"},
		{"a message of a stream", "GET", "/v1/runs/run_1/events", "", 200, nil, "text/event-stream", "data: {\"type\":\"complete\"}\n\n", "a message complete"},
		{"a time that is none", "POST", "/v1/runs/run_1/tickets", "", 201, nil, asJSON, `{"ticket":"t","url":"u","expires_at":"soon"}`, "expires_at"},
		{"an unknown path in no wire's shape", "GET", "/nothing/there/is", "", 404, nil, asJSON, `{"oops":1}`, "/nothing"},
		{"an unknown path", "GET", "/nothing/there/is", "", 404, nil, asJSON, `{"detail":"Not Found"}`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var told complaints
			h := &held{contract: c, t: &told}
			r := httptest.NewRequest(test.method, test.path, strings.NewReader(test.sent))
			h.hold(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				for name, values := range test.header {
					w.Header()[name] = values
				}
				w.Header().Set("Content-Type", test.kind)
				w.WriteHeader(test.status)
				io.WriteString(w, test.body)
			})).ServeHTTP(httptest.NewRecorder(), r)
			if all := strings.Join(told, "\n"); (all == "") != (test.want == "") || !strings.Contains(all, test.want) {
				t.Errorf("the contract said %q, want %q", all, test.want)
			}
		})
	}
}
