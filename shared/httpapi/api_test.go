package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/workspace"
)

// plain and framed are two dialects.
var (
	plain  = httpapi.Dialect{Body: func(f *fault.Error) any { return map[string]string{"detail": f.Message} }}
	framed = httpapi.Dialect{
		Body:   func(f *fault.Error) any { return map[string]any{"error": map[string]string{"message": f.Message}} },
		Status: map[fault.Kind]int{fault.Missing: http.StatusBadRequest},
	}
)

// ring knows three tokens by the name of their kind; the token "down" finds the store unreachable.
type ring struct{}

func (ring) Authenticate(_ context.Context, token string) (workspace.Caller, error) {
	switch kind := workspace.Kind(token); kind {
	case workspace.Workspace, workspace.Deployment, workspace.Internal:
		return workspace.Caller{Kind: kind, WorkspaceID: "ws-1"}, nil
	}
	if token == "mus_tkt_1" {
		return workspace.Caller{Kind: workspace.Ticket, WorkspaceID: "ws-1"}, nil
	}
	if token == "down" {
		return workspace.Caller{}, errors.New("dial tcp 10.0.0.1: secret host is down")
	}
	return workspace.Caller{}, fault.New(fault.Unauthorized, "Invalid or missing authentication credentials")
}

// say answers with a text and the caller's kind.
func say(text string) func(http.ResponseWriter, *http.Request, workspace.Caller) error {
	return func(w http.ResponseWriter, r *http.Request, c workspace.Caller) error {
		fmt.Fprint(w, text, " ", r.PathValue("id"), " ", c.Kind)
		return nil
	}
}

func fail(err error) func(http.ResponseWriter, *http.Request, workspace.Caller) error {
	return func(http.ResponseWriter, *http.Request, workspace.Caller) error { return err }
}

var routes = []httpapi.Route{
	{Method: "GET", Path: "/status/{id}", Dialect: plain, Handle: say("status")},
	{Method: "GET", Path: "/{id}/status", Dialect: plain, Handle: say("alias")},
	{Method: "POST", Path: "/kickoff", Who: httpapi.Deployment, Dialect: plain, Handle: say("kickoff")},
	{Method: "POST", Path: "/v1/things", Who: httpapi.Workspace, Dialect: framed, Handle: say("things")},
	{Method: "GET", Path: "/v1/things", Who: httpapi.Workspace, Dialect: framed, Handle: say("things")},
	{Method: "GET", Path: "/v1/internal", Who: httpapi.Internal, Dialect: framed, Handle: say("internal")},
	{Method: "GET", Path: "/v1/watch", Who: httpapi.Watcher, Dialect: framed, Handle: say("watch")},
	{Method: "GET", Path: "/v1/panic", Dialect: framed, Handle: func(http.ResponseWriter, *http.Request, workspace.Caller) error {
		panic("the secret of the panic")
	}},
	{Method: "GET", Path: "/v1/broken", Dialect: framed, Handle: fail(errors.New("secret cause"))},
	{Method: "GET", Path: "/v1/unencodable", Dialect: framed, Handle: func(w http.ResponseWriter, _ *http.Request, _ workspace.Caller) error {
		return httpapi.WriteJSON(w, http.StatusOK, func() {})
	}},
	{Method: "GET", Path: "/v1/missing", Dialect: framed, Handle: fail(fault.New(fault.Missing, "a is missing"))},
	{Method: "GET", Path: "/missing", Dialect: plain, Handle: fail(fmt.Errorf("start: %w", fault.New(fault.Missing, "a is missing")))},
	{Method: "GET", Path: "/busy", Dialect: plain, Handle: fail(&fault.Error{Kind: fault.TooMany, Message: "Later.", RetryAfter: 1500 * time.Millisecond})},
}

func handler(log io.Writer) http.Handler {
	return httpapi.API{Routes: routes, Tokens: ring{}, Fallback: plain, Log: slog.New(slog.NewTextHandler(log, nil))}.Handler()
}

func TestAPI(t *testing.T) {
	const (
		noToken  = `{"detail":"Not authenticated"}`
		badToken = `{"detail":"Invalid or missing authentication credentials"}`
		broken   = `{"error":{"message":"An unexpected error occurred."}}`
	)
	for _, c := range []struct {
		name, method, path, auth string
		status                   int
		body                     string
		header                   map[string]string
	}{
		{name: "a route of anyone needs no token", method: "GET", path: "/status/7", status: 200, body: "status 7 "},
		{name: "an alias that begins with a wildcard is tried last", method: "GET", path: "/7/status", status: 200, body: "alias 7 "},
		{name: "a path that fits both goes to the plainer one", method: "GET", path: "/status/status", status: 200, body: "status status "},
		{name: "HEAD is GET", method: "HEAD", path: "/7/status", status: 200, body: "alias 7 "},

		{name: "no token", method: "POST", path: "/kickoff", status: 401, body: noToken, header: map[string]string{"WWW-Authenticate": "Bearer"}},
		{name: "a wrong token", method: "POST", path: "/kickoff", auth: "Bearer wrong", status: 401, body: badToken},
		{name: "an empty token", method: "POST", path: "/kickoff", auth: "Bearer ", status: 401, body: badToken},
		{name: "another scheme", method: "POST", path: "/kickoff", auth: "Basic d29ya3NwYWNl", status: 401, body: badToken},
		{name: "a bare token", method: "POST", path: "/kickoff", auth: "workspace", status: 401, body: badToken},
		{name: "the scheme in any case", method: "POST", path: "/kickoff", auth: "bEARER deployment", status: 200, body: "kickoff  deployment"},
		{name: "a workspace may do what a deployment may", method: "POST", path: "/kickoff", auth: "Bearer workspace", status: 200, body: "kickoff  workspace"},
		{name: "a deployment may not do what a workspace may", method: "POST", path: "/v1/things", auth: "Bearer deployment", status: 403,
			body: `{"error":{"message":"This token is of the kind \"deployment\" and cannot be used for this."}}`},
		{name: "a workspace may not call internal routes", method: "GET", path: "/v1/internal", auth: "Bearer workspace", status: 403,
			body: `{"error":{"message":"This token is of the kind \"workspace\" and cannot be used for this."}}`},
		{name: "an internal token may", method: "GET", path: "/v1/internal", auth: "Bearer internal", status: 200, body: "internal  internal"},
		{name: "an internal token may nothing else", method: "POST", path: "/kickoff", auth: "Bearer internal", status: 403,
			body: `{"detail":"This token is of the kind \"internal\" and cannot be used for this."}`},
		{name: "a store that is down is no 401", method: "POST", path: "/kickoff", auth: "Bearer down", status: 500, body: `{"detail":"An unexpected error occurred."}`},

		{name: "a watcher may show a ticket in the URL", method: "GET", path: "/v1/watch?ticket=mus_tkt_1", status: 200, body: "watch  ticket"},
		{name: "a watcher may show a token as everywhere", method: "GET", path: "/v1/watch?ticket=mus_tkt_1", auth: "Bearer deployment", status: 200, body: "watch  deployment"},
		{name: "a token in the URL is no ticket", method: "GET", path: "/v1/watch?ticket=deployment", status: 401, body: `{"error":{"message":"Not authenticated"}}`},
		{name: "a ticket in the URL opens nothing else", method: "GET", path: "/v1/things?ticket=mus_tkt_1", status: 401, body: `{"error":{"message":"Not authenticated"}}`},
		{name: "nor does a ticket in the header", method: "POST", path: "/kickoff", auth: "Bearer mus_tkt_1", status: 403,
			body: `{"detail":"This token is of the kind \"ticket\" and cannot be used for this."}`},

		{name: "an unknown path", method: "GET", path: "/nothing", status: 404, body: `{"detail":"Not Found"}`},
		{name: "the root", method: "GET", path: "/", status: 404, body: `{"detail":"Not Found"}`},
		{name: "an unknown path beside framed routes", method: "GET", path: "/v1/nothing", status: 404, body: `{"error":{"message":"Not Found"}}`},
		{name: "an unknown method", method: "DELETE", path: "/v1/things", status: 405, body: `{"error":{"message":"Method Not Allowed"}}`,
			header: map[string]string{"Allow": "GET, POST, HEAD, OPTIONS"}},
		{name: "an unknown method of an alias", method: "POST", path: "/7/status", status: 405, body: `{"detail":"Method Not Allowed"}`,
			header: map[string]string{"Allow": "GET, HEAD, OPTIONS"}},
		{name: "HEAD of what can only be posted", method: "HEAD", path: "/kickoff", status: 405, body: `{"detail":"Method Not Allowed"}`},
		{name: "OPTIONS", method: "OPTIONS", path: "/kickoff", status: 204, header: map[string]string{"Allow": "POST, OPTIONS"}},
		{name: "OPTIONS of nothing", method: "OPTIONS", path: "/nothing", status: 404, body: `{"detail":"Not Found"}`},

		{name: "a panic shows nothing of itself", method: "GET", path: "/v1/panic", status: 500, body: broken},
		{name: "an error that is no fault shows nothing of itself", method: "GET", path: "/v1/broken", status: 500, body: broken},
		{name: "an answer that cannot be encoded", method: "GET", path: "/v1/unencodable", status: 500, body: broken},
		{name: "a fault has its usual status", method: "GET", path: "/missing", status: 422, body: `{"detail":"a is missing"}`},
		{name: "a fault has the status of its dialect", method: "GET", path: "/v1/missing", status: 400, body: `{"error":{"message":"a is missing"}}`},
		{name: "a hint to come later is rounded up", method: "GET", path: "/busy", status: 429, body: `{"detail":"Later."}`, header: map[string]string{"Retry-After": "2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			r := httptest.NewRequest(c.method, c.path, nil)
			if c.auth != "" {
				r.Header.Set("Authorization", c.auth)
			}
			w := httptest.NewRecorder()
			handler(&log).ServeHTTP(w, r)
			if w.Code != c.status || w.Body.String() != c.body {
				t.Errorf("got %d %s\nwant %d %s", w.Code, w.Body, c.status, c.body)
			}
			for name, want := range c.header {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			for _, name := range []string{"X-Request-Id", "X-Content-Type-Options", "Cache-Control"} {
				if w.Header().Get(name) == "" {
					t.Errorf("no %s", name)
				}
			}
			if logged := log.Len() > 0; logged != (c.status >= 500) {
				t.Errorf("status %d, logged: %q", c.status, log.String())
			}
		})
	}
}

func TestTheRequestIDIsTheFrontDoors(t *testing.T) {
	for given, kept := range map[string]bool{"Root=1-65-abc": true, "": false, "two words": false, strings.Repeat("x", 101): false} {
		r := httptest.NewRequest("GET", "/status/7", nil)
		r.Header.Set("X-Request-Id", given)
		w := httptest.NewRecorder()
		handler(io.Discard).ServeHTTP(w, r)
		if got := w.Header().Get("X-Request-Id"); got == "" || (got == given) != kept {
			t.Errorf("given %q, got %q", given, got)
		}
	}
}

func TestAnAnswerThatHasBegunIsCutOff(t *testing.T) {
	api := httpapi.API{Fallback: plain, Routes: []httpapi.Route{
		{Method: "GET", Path: "/late", Dialect: plain, Handle: func(w http.ResponseWriter, _ *http.Request, _ workspace.Caller) error {
			io.WriteString(w, "begun")
			panic("late")
		}},
	}}
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("got %v, want the connection aborted", v)
		}
	}()
	api.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/late", nil))
}

func TestABodyOverItsLimitIsAnsweredNotCutOff(t *testing.T) {
	api := httpapi.API{Fallback: plain, Routes: []httpapi.Route{
		{Method: "POST", Path: "/", Dialect: plain, Handle: func(w http.ResponseWriter, r *http.Request, _ workspace.Caller) error {
			_, err := httpapi.ReadBody(r, httpapi.MaxBody)
			return err
		}},
	}}
	server := httptest.NewServer(api.Handler())
	defer server.Close()
	res, err := http.Post(server.URL, "application/json", bytes.NewReader(make([]byte, 6<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if want := `{"detail":"The request body is larger than 1 MiB."}`; res.StatusCode != 413 || string(body) != want {
		t.Errorf("got %d %s, want 413 %s", res.StatusCode, body, want)
	}
}

func TestParseObject(t *testing.T) {
	nested := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	for _, c := range []struct{ name, body, want string }{
		{"nothing", "", "The request body is empty; send a JSON object."},
		{"blanks", " \n\t", "The request body is empty; send a JSON object."},
		{"text", "hello", "The request body is not JSON: invalid character 'h' looking for beginning of value (at byte 1)."},
		{"half an object", `{"a":`, "The request body is not JSON: unexpected end of JSON input (at byte 5)."},
		{"two objects", `{} {}`, "The request body is not JSON: invalid character '{' after top-level value (at byte 4)."},
		{"a null byte", "{\"a\":\"\x00\"}", "The request body is not JSON: invalid character '\\x00' in string literal (at byte 7)."},
		{"bytes that are no text", "{\"a\":\"\xff\"}", "The request body is not valid UTF-8."},
		{"an array", `[1]`, "The request body must be a JSON object, and it is an array."},
		{"a number", `17`, "The request body must be a JSON object, and it is the number 17."},
		{"a string", `"{}"`, "The request body must be a JSON object, and it is a string."},
		{"null", `null`, "The request body must be a JSON object, and it is null."},
		{"true", `true`, "The request body must be a JSON object, and it is true or false."},
		{"ten thousand levels", nested(10_000), "The request body is nested more than 100 levels deep."},
		{"ten million brackets", strings.Repeat("[", 10_000_000), "The request body is nested more than 100 levels deep."},
		{"a hundred and one levels", nested(100), "The request body is nested more than 100 levels deep."},
		{"a hundred levels", nested(99), ""},
		{"brackets in strings", `{"a":"` + strings.Repeat(`[{\"`, 200) + `"}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := httpapi.ParseObject([]byte(c.body))
			if c.want == "" && err == nil {
				return
			}
			if !fault.Is(err, fault.Invalid) || fault.Message(err) != c.want {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestObject(t *testing.T) {
	o, err := httpapi.ParseObject([]byte(`{"s":"x","b":true,"n":3,"list":["a","b"],"mixed":["a",1],"nulls":[null],"o":{"k":1},"null":null,"twice":1,"twice":2,
		"big":{"n":12345678901234567890,"deep":[1.50]}}`))
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, got any, err error, want any, message string) {
		t.Helper()
		if message != "" {
			if !fault.Is(err, fault.Invalid) || fault.Message(err) != message {
				t.Errorf("%s: got %v, want %s", name, err, message)
			}
			return
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	s, err := o.String("s")
	check("a string", s, err, "x", "")
	s, err = o.String("n")
	check("a number for a string", s, err, nil, `"n" must be a string, and it is the number 3.`)
	s, err = o.String("absent")
	check("an absent string", s, err, "", "")
	s, err = o.String("null")
	check("null for a string", s, err, "", "")
	b, err := o.Bool("b")
	check("true", b, err, true, "")
	b, err = o.Bool("s")
	check("a string for true", b, err, nil, `"s" must be true or false, and it is a string.`)
	n, err := o.Int("twice")
	check("the last of two", n, err, 2, "")
	n, err = o.Int("o")
	check("an object for a number", n, err, nil, `"o" must be a whole number, and it is an object.`)
	list, err := o.Strings("list")
	check("strings", list, err, []string{"a", "b"}, "")
	list, err = o.Strings("mixed")
	check("a number among strings", list, err, nil, `"mixed" must be an array of strings, and one of its items is the number 1.`)
	list, err = o.Strings("nulls")
	check("null among strings", list, err, nil, `"nulls" must be an array of strings, and one of its items is null.`)
	inner, err := o.Object("list")
	check("an array for an object", inner, err, nil, `"list" must be an object, and it is an array.`)
	values, err := o.Values("big")
	check("numbers keep their digits", values, err, map[string]any{"n": json.Number("12345678901234567890"), "deep": []any{json.Number("1.50")}}, "")
	values, err = o.Values("absent")
	check("absent values", values, err, map[string]any{}, "")
	values, err = o.Values("list")
	check("an array for values", values, err, nil, `"list" must be an object, and it is an array.`)
	if diff := cmp.Diff([]string{"unknown field list was ignored", "unknown field mixed was ignored"},
		o.Unknown("s", "b", "n", "nulls", "o", "null", "twice", "big")); diff != "" {
		t.Errorf("unknown fields (-want +got):\n%s", diff)
	}
}

func TestWarn(t *testing.T) {
	for _, c := range []struct {
		name     string
		warnings []string
		want     string
	}{
		{"none", nil, ""},
		{"several are joined", []string{"a was ignored", "b was ignored"}, "a was ignored; b was ignored"},
		{"no second header can be smuggled in", []string{"x\r\nSet-Cookie: a=b"}, "x??Set-Cookie: a=b"},
		{"other alphabets are replaced", []string{"поле"}, "????"},
		{"long ones are cut", []string{strings.Repeat("x", 5000)}, strings.Repeat("x", 2045) + "..."},
	} {
		w := httptest.NewRecorder()
		httpapi.Warn(w, c.warnings)
		if got := w.Header().Get("Muster-Warning"); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzParseObject(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":[1,{"b":null}]}`, `[`, `{"a":"\ud800"}`, "{\"\\", `{"a":1e999}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := httpapi.ParseObject(body)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v, want a fault that can be shown", err)
			}
			return
		}
		for _, field := range slices.Collect(maps.Keys(o)) {
			o.String(field)
			o.Strings(field)
			if v, err := o.Values(field); err == nil {
				if _, err := json.Marshal(v); err != nil {
					t.Errorf("the values of %q do not encode again: %v", field, err)
				}
			}
		}
	})
}
