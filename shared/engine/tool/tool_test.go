package tool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/guard"
)

var client = guard.New(guard.Options{AllowLoopback: true}).HTTP()

func open(t *testing.T, b Box, typ, settings string, s Source) Tool {
	t.Helper()
	b.HTTP = client
	made, err := b.Open(crew.Tool{Type: typ, Name: typ, Settings: json.RawMessage(settings)}, s)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func call(t *testing.T, made Tool, arguments map[string]any) Result {
	t.Helper()
	r, err := made.Call(context.Background(), Call{Arguments: arguments, StepID: "step-1"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func serve(t *testing.T, handle http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s
}

func TestFunctionName(t *testing.T) {
	for name, want := range map[string]string{
		"research_tool": "research_tool", "Web Search": "web_search", "searchTheWeb": "search_the_web", "Größe & Prix d'été!": "groe_prix_d_ete",
		"__x--y__": "x_y", "日本": "tool", "HTTP v2Tool": "http_v2_tool",
	} {
		if got := FunctionName(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	long := strings.Repeat("a", 65)
	if a, b := FunctionName(long), FunctionName(long+"a"); len(a) != 64 || a == b {
		t.Errorf("got %s and %s", a, b)
	}
	rapid.Check(t, func(t *rapid.T) {
		name := FunctionName(rapid.String().Draw(t, "name"))
		if len(name) == 0 || len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" || FunctionName(name) != name {
			t.Fatalf("got %q", name)
		}
	})
}

func TestOpenRefusesWithASentence(t *testing.T) {
	box := Box{HTTP: client, Functions: []string{"mine"}, Invoker: function{}}
	cases := []struct{ name, typ, settings, want string }{
		{"an unknown type", "shell", ``, `"shell" is not known`},
		{"an unknown setting", "http_request", `{"allow":1}`, `unknown field "allow"`},
		{"a setting of a wrong type", "scrape_website", `{"website_url":1}`, "website_url"},
		{"an unknown method", "http_request", `{"allowed_methods":["TRACE"]}`, "TRACE"},
		{"a base_url of another scheme", "http_request", `{"base_url":"ftp://x"}`, "base_url"},
		{"headers for everybody", "http_request", `{"headers":{"Authorization":"Bearer x"}}`, "allowed_hosts"},
		{"a header of the client's own", "http_request", `{"headers":{"host":"x"},"base_url":"http://x"}`, `"host"`},
		{"no function", "lambda", `{}`, "setting function"},
		{"a function that is not listed", "lambda", `{"function":"muster-runner"}`, "tool_functions"},
		{"parameters that are no object", "lambda", `{"function":"mine","parameters":{"type":"string"}}`, "parameters"},
		{"a search of nothing", "knowledge_search", ``, "nothing to search"},
		{"a file that is not there", "knowledge_search", `{"files":["a.md"]}`, "a.md"},
		{"a setting where there is none", "emit_event", `{"type":"x"}`, `"type"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := box.Open(crew.Tool{Type: c.typ, Name: c.typ, Settings: json.RawMessage(c.settings)}, Source{})
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a sentence with %s", err, c.want)
			}
		})
	}
	if _, err := box.Open(crew.Tool{Type: "knowledge_search", Name: "k"}, Source{Files: map[string][]byte{"knowledge/x.pdf": {0x25, 0, 0xff}}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a binary file: got %v", err)
	}
}

func TestEachSchemaIsAnObject(t *testing.T) {
	box := Box{Functions: []string{"f"}, Invoker: function{}}
	source := Source{Files: map[string][]byte{"knowledge/a.md": []byte("A.")}}
	for typ, settings := range map[string]string{"http_request": `{"allowed_methods":["get"]}`, "scrape_website": ``, "knowledge_search": ``, "lambda": `{"function":"f"}`, "emit_event": ``} {
		f := open(t, box, typ, settings, source).Function()
		var schema struct{ Type string }
		if err := json.Unmarshal(f.Parameters, &schema); err != nil || schema.Type != "object" || f.Description == "" || f.Name != typ {
			t.Errorf("%s: %v, %+v", typ, err, f)
		}
	}
}

func TestHTTPRequest(t *testing.T) {
	var got *http.Request
	var sent string
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got, sent = r, string(body)
		switch r.URL.Path {
		case "/echo":
			fmt.Fprintf(w, "you said %s with %s", body, r.Header.Get("Authorization"))
		case "/events":
			fmt.Fprint(w, `{"ok":true,"muster_events":[{"type":"lead_found","data":{"n":1}},{"type":"crew_kickoff_started"}]}`)
		case "/missing":
			http.Error(w, "no such lead", http.StatusNotFound)
		case "/long":
			fmt.Fprint(w, strings.Repeat("é", maxResponse))
		case "/image":
			w.Header().Set("Content-Type", "image/png")
			fmt.Fprint(w, "\x89PNG")
		case "/moved":
			http.Redirect(w, r, "/echo", http.StatusFound)
		}
	})
	host := strings.TrimPrefix(server.URL, "http://")
	pinned := fmt.Sprintf(`{"allowed_hosts":[%q],"headers":{"Authorization":"Bearer a-long-secret"}}`, host)

	t.Run("sends what it is told, its own headers and the step's id", func(t *testing.T) {
		tool := open(t, Box{}, "http_request", pinned, Source{})
		r := call(t, tool, map[string]any{"method": "post", "url": server.URL + "/echo", "body": `{"a":1}`,
			"headers": map[string]any{"X-One": "1", "authorization": "mine"}})
		if got.Method != "POST" || sent != `{"a":1}` || got.Header.Get("X-One") != "1" || got.Header.Get("Content-Type") != "application/json" ||
			got.Header.Get("Muster-Step-Id") != "step-1" || got.Header.Get("Authorization") != "Bearer a-long-secret" {
			t.Errorf("sent %s %s %v", got.Method, sent, got.Header)
		}
		want := "HTTP 200 OK\nContent-Type: text/plain; charset=utf-8\n\nyou said {\"a\":1} with Bearer [hidden]"
		if diff := cmp.Diff(Result{Text: want}, r); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("takes events from servers that the definition names", func(t *testing.T) {
		r := call(t, open(t, Box{}, "http_request", pinned, Source{}), map[string]any{"method": "GET", "url": server.URL + "/events"})
		if diff := cmp.Diff([]Event{{Type: "lead_found", Data: json.RawMessage(`{"n":1}`)}}, r.Events); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if !strings.Contains(r.Text, `{"ok":true}`) || !strings.Contains(r.Text, "muster_events[1] was left out") {
			t.Errorf("got %s", r.Text)
		}
	})
	t.Run("and from no others", func(t *testing.T) {
		r := call(t, open(t, Box{}, "http_request", ``, Source{}), map[string]any{"method": "GET", "url": server.URL + "/events"})
		if r.Events != nil {
			t.Errorf("got %v", r.Events)
		}
	})
	t.Run("an error status is a failure, with the body", func(t *testing.T) {
		r := call(t, open(t, Box{}, "http_request", ``, Source{}), map[string]any{"method": "GET", "url": server.URL + "/missing"})
		if r.Failure == nil || r.Failure.Reason != "tool_reported" || r.Failure.Code != "404" || r.Failure.Retryable || !strings.Contains(r.Text, "no such lead") {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("a redirect is told and not followed", func(t *testing.T) {
		r := call(t, open(t, Box{}, "http_request", ``, Source{}), map[string]any{"method": "GET", "url": server.URL + "/moved"})
		if !strings.HasPrefix(r.Text, "HTTP 302 Found\n") || !strings.Contains(r.Text, "Location: /echo") {
			t.Errorf("got %s", r.Text)
		}
	})
	t.Run("a long response is cut between characters", func(t *testing.T) {
		r := call(t, open(t, Box{}, "http_request", ``, Source{}), map[string]any{"method": "GET", "url": server.URL + "/long"})
		if len(r.Text) > maxText+100 || !strings.HasSuffix(r.Text, "é\n[cut after 64 KB]") {
			t.Errorf("got %d bytes, %q", len(r.Text), r.Text[len(r.Text)-30:])
		}
	})
	t.Run("what is no text is only counted", func(t *testing.T) {
		r := call(t, open(t, Box{}, "http_request", ``, Source{}), map[string]any{"method": "GET", "url": server.URL + "/image"})
		if !strings.Contains(r.Text, "[4 bytes that are no text]") {
			t.Errorf("got %s", r.Text)
		}
	})
	t.Run("base_url takes a path, and nothing above it", func(t *testing.T) {
		tool := open(t, Box{}, "http_request", fmt.Sprintf(`{"base_url":%q}`, server.URL+"/api"), Source{})
		call(t, tool, map[string]any{"method": "GET", "url": "/leads?x=1"})
		if got.URL.String() != "/api/leads?x=1" {
			t.Errorf("called %s", got.URL)
		}
		for _, url := range []string{server.URL + "/api/../admin", server.URL + "/api/%2e%2e/admin", "../admin", server.URL + "/apis", "http://example.com/api", "//example.com/api"} {
			got = nil
			if r := call(t, tool, map[string]any{"method": "GET", "url": url}); got != nil && !strings.HasPrefix(got.URL.Path, "/api/") || got == nil && r.Failure == nil {
				t.Errorf("%s: called %v", url, got)
			}
		}
	})
	for name, arguments := range map[string]map[string]any{
		"a method that is not allowed": {"method": "DELETE", "url": server.URL},
		"another scheme":               {"method": "GET", "url": "file:///etc/passwd"},
		"a user in the address":        {"method": "GET", "url": "http://a:b@" + host},
		"a header with a line break":   {"method": "GET", "url": server.URL, "headers": map[string]any{"X": "a\r\nb: c"}},
		"a header of ours":             {"method": "GET", "url": server.URL, "headers": map[string]any{"muster-step-id": "x"}},
		"a missing method":             {"url": server.URL},
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			got = nil
			r := call(t, open(t, Box{}, "http_request", `{"allowed_methods":["GET"]}`, Source{}), arguments)
			if r.Failure == nil || r.Failure.Reason != "invalid_input" || r.Text == "" || got != nil {
				t.Errorf("got %+v", r)
			}
		})
	}
	t.Run("an address inside is an error without the address", func(t *testing.T) {
		_, err := open(t, Box{}, "http_request", ``, Source{}).Call(context.Background(), Call{Arguments: map[string]any{"method": "GET", "url": "http://169.254.169.254/latest"}})
		if err == nil || !strings.Contains(err.Error(), "cannot be reached from here") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := open(t, Box{}, "http_request", ``, Source{}).Call(ctx, Call{Arguments: map[string]any{"method": "GET", "url": server.URL}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestScrapeWebsite(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			fmt.Fprint(w, `<html><head><title> Plans &amp;
				prices </title><style>p{}</style></head><body><nav>Home</nav><h1>Plans</h1><p>Two  plans,<b> both</b> good.</p>
				<ul><li>Basic</li><li>Pro <i>plus</i></li></ul><table><tr><td>Basic</td><td>10</td></tr></table><script>alert(1)</script></body></html>`)
		case "/latin":
			w.Header().Set("Content-Type", "text/html; charset=iso-8859-1")
			_, _ = w.Write([]byte("<p>caf\xe9</p>"))
		case "/plain":
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprint(w, "a < b")
		case "/empty":
			fmt.Fprint(w, "<html><script>x</script></html>")
		case "/gone":
			http.NotFound(w, r)
		case "/moved":
			http.Redirect(w, r, "/plain", http.StatusMovedPermanently)
		case "/pdf":
			w.Header().Set("Content-Type", "application/pdf")
		}
	})
	cases := []struct{ name, path, want string }{
		{"the readable text of a page", "/", "Title: Plans & prices\n\n# Plans\n\nTwo plans, both good.\n\n- Basic\n- Pro plus\n\nBasic | 10"},
		{"another encoding", "/latin", "café"},
		{"plain text as it is", "/plain", "a < b"},
		{"a page of scripts", "/empty", "The page has no text; it may be made by scripts, which are not run here."},
	}
	tool := open(t, Box{}, "scrape_website", ``, Source{})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := call(t, tool, map[string]any{"website_url": server.URL + c.path})
			if diff := cmp.Diff(Result{Text: c.want}, r); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for path, want := range map[string]string{"/gone": "answered 404 Not Found", "/moved": "has moved to /plain", "/pdf": "application/pdf"} {
		r := call(t, tool, map[string]any{"website_url": server.URL + path})
		if r.Failure == nil || !strings.Contains(r.Text, want) {
			t.Errorf("%s: got %+v", path, r)
		}
	}
	fixed := open(t, Box{}, "scrape_website", fmt.Sprintf(`{"website_url":%q}`, server.URL+"/plain"), Source{})
	if r := call(t, fixed, map[string]any{"website_url": server.URL + "/gone"}); r.Text != "a < b" {
		t.Errorf("a fixed page: got %+v", r)
	}
}

func TestKnowledgeSearch(t *testing.T) {
	source := Source{Files: map[string][]byte{
		"knowledge/plans.md":   []byte("# Plans\n\n## Basic\n\nBasic has 10 seats.\n\n## Enterprise\n\nEnterprise has single sign-on and an audit log.\n"),
		"knowledge/prices.csv": []byte("plan,price\nBasic,49\nEnterprise,900\n"),
		"knowledge/faq.json":   []byte(`{"refunds":{"window":"30 days","limit":1000000}}`),
		"crew.yaml":            []byte("secret: sign-on"),
	}}
	tool := open(t, Box{}, "knowledge_search", ``, source)
	cases := []struct{ name, query, want string }{
		{"a passage comes with its file and place", "Which plan has single sign-on?", "Source: knowledge/plans.md (Plans > Enterprise)\nEnterprise has single sign-on and an audit log."},
		{"a row comes with its columns", "price of Enterprise", "Source: knowledge/prices.csv (row 3)\nplan: Enterprise\nprice: 900"},
		{"a value comes with its names", "refund window", "Source: knowledge/faq.json\nrefunds limit: 1000000\nrefunds window: 30 days"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if r := call(t, tool, map[string]any{"query": c.query}); !strings.HasPrefix(r.Text, c.want) {
				t.Errorf("got %s", r.Text)
			}
		})
	}
	if r := call(t, tool, map[string]any{"query": "giraffes"}); r.Text != `Nothing in the knowledge matches "giraffes".` {
		t.Errorf("got %s", r.Text)
	}
	only := open(t, Box{}, "knowledge_search", ``, Source{Files: source.Files, Knowledge: []string{"plans.md"}})
	if r := call(t, only, map[string]any{"query": "price"}); strings.Contains(r.Text, "prices.csv") {
		t.Errorf("searched what the agent does not know: %s", r.Text)
	}
}

func FuzzCut(f *testing.F) {
	f.Add("a.md", "# A\n\ntext")
	f.Add("a.csv", "a,b\n1,\"2")
	f.Add("a.json", `{"a":[[[]]]}`)
	f.Fuzz(func(t *testing.T, file, content string) {
		for _, p := range cut(file, content) {
			if p.file != file {
				t.Fatal("a passage of another file")
			}
		}
	})
}

// function is a Lambda function as Invoker sees it.
type function struct {
	reply  string
	failed bool
	err    error
	got    *string
}

func (f function) Invoke(_ context.Context, name, stepID string, payload []byte) ([]byte, bool, error) {
	if f.got != nil {
		*f.got = name + " " + stepID + " " + string(payload)
	}
	return []byte(f.reply), f.failed, f.err
}

func TestLambda(t *testing.T) {
	event := []Event{{Type: "lead_found", Data: json.RawMessage(`{}`)}}
	cases := []struct {
		name string
		f    function
		want Result
	}{
		{"a string is its text", function{reply: `"42 leads"`}, Result{Text: "42 leads"}},
		{"any JSON is its text", function{reply: `{"leads":42}`}, Result{Text: `{"leads":42}`}},
		{"what is no JSON too", function{reply: `42 leads`}, Result{Text: `42 leads`}},
		{"an envelope is taken apart", function{reply: `{"result":{"leads":42},"events":[{"type":"lead_found"}]}`}, Result{Text: `{"leads":42}`, Events: event}},
		{"muster_events are taken from any object", function{reply: `{"leads":42,"muster_events":[{"type":"lead_found"}]}`}, Result{Text: `{"leads":42}`, Events: event}},
		{"events beside other fields are an answer", function{reply: `{"leads":42,"events":[]}`}, Result{Text: `{"leads":42,"events":[]}`}},
		{"an error of its own is a failure", function{reply: `{"error":"no CRM"}`}, Result{Text: "no CRM", Failure: &Failure{Message: "no CRM", Reason: "tool_reported"}}},
		{"no error is none", function{reply: `{"result":"done","error":null}`}, Result{Text: "done"}},
		{"a crash is a failure without its stack", function{reply: `{"errorMessage":"boom","errorType":"Error","stackTrace":["secret"]}`, failed: true},
			Result{Text: "The function mine failed: boom", Failure: &Failure{Message: "The function mine failed: boom", Reason: "tool_reported", Code: "Error"}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var got string
			c.f.got = &got
			tool := open(t, Box{Functions: []string{"mine"}, Invoker: c.f}, "lambda", `{"function":"mine"}`, Source{})
			if diff := cmp.Diff(c.want, call(t, tool, map[string]any{"company": "Acme"})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if want := `mine step-1 {"company":"Acme","muster_step_id":"step-1"}`; got != want {
				t.Errorf("invoked %s, want %s", got, want)
			}
		})
	}
	tool := open(t, Box{Functions: []string{"mine"}, Invoker: function{err: errors.New("dial tcp 10.0.0.1")}}, "lambda", `{"function":"mine"}`, Source{})
	if _, err := tool.Call(context.Background(), Call{}); fault.Message(err) != "The function mine was not invoked: it could not be called" || strings.Contains(err.Error(), "10.0.0.1") {
		t.Errorf("got %v", err)
	}
}

func TestEmitEvent(t *testing.T) {
	tool := open(t, Box{}, "emit_event", ``, Source{})
	r := call(t, tool, map[string]any{"type": "lead_found", "data": map[string]any{"n": 1}})
	if diff := cmp.Diff(Result{Text: "The event lead_found was published.", Events: []Event{{Type: "lead_found", Data: json.RawMessage(`{"n":1}`)}}}, r); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r := call(t, tool, map[string]any{"type": "task_completed"}); r.Failure == nil || r.Failure.Reason != "invalid_input" || r.Events != nil {
		t.Errorf("an event of the system: got %+v", r)
	}
}

func FuzzReadReply(f *testing.F) {
	f.Add(`{"result":1,"events":[{"type":"a"}],"muster_events":[1]}`)
	f.Fuzz(func(t *testing.T, reply string) {
		for _, e := range readReply([]byte(reply)).Events {
			if _, err := checkEvent(e); err != nil {
				t.Fatal(err)
			}
		}
	})
}
