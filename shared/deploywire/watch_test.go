package deploywire

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/queue"
	"muster/shared/run"
	"muster/shared/storetest"
	"muster/shared/watch"
	"muster/shared/workspace"
)

type nowhere struct{}

func (nowhere) Send(context.Context, ...queue.Message) error { return nil }

// stage is a run, and the wire that shows it.
type stage struct {
	wire    *Wire
	run     run.Run
	owner   *run.Owner
	token   string
	handler http.Handler
}

func newShow(t *testing.T, streamURL string) *stage {
	t.Helper()
	store := &storetest.Memory{}
	runs := &run.Service{Store: store, Runs: nowhere{}, Deliveries: nowhere{}, LeaseTime: 24 * time.Hour}
	s := &stage{wire: &Wire{Runs: runs, Tokens: &workspace.Tokens{Records: store}, Feed: &watch.Feed{Runs: runs}, StreamURL: streamURL}}
	var err error
	if s.run, err = runs.Start(t.Context(), run.StartRequest{Deployment: crew.Deployment{
		ID: id.New(), WorkspaceID: id.New(), Environments: map[string]crew.Pointer{"production": {VersionID: "v", Number: 1}},
	}}); err != nil {
		t.Fatal(err)
	}
	if s.owner, err = runs.Claim(t.Context(), s.run.ID); err != nil {
		t.Fatal(err)
	}
	if s.token, err = s.wire.Tokens.Mint(t.Context(), workspace.Caller{
		Kind: workspace.Deployment, WorkspaceID: s.run.WorkspaceID, DeploymentID: s.run.DeploymentID,
	}); err != nil {
		t.Fatal(err)
	}
	s.handler = httpapi.API{Routes: s.wire.Routes(), Tokens: s.wire.Tokens, Fallback: Dialect}.Handler()
	return s
}

// tell puts a page with an event.
func (s *stage) tell(t *testing.T, b *run.Branch, key string) {
	t.Helper()
	d, err := events.NewCustom("test.event", json.RawMessage(`{"key": "`+key+`"}`), events.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	b.Emit(d, run.Scope{})
	if err := b.Mark(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

func (s *stage) request(ctx context.Context, query string, headers ...string) *http.Request {
	r := httptest.NewRequestWithContext(ctx, "GET", "/v1/runs/"+id.Show("run", s.run.ID)+"/events?"+query, nil)
	r.Header.Set("Authorization", "Bearer "+s.token)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// types gives the types of what was told, and the text around them.
func types(body string) (names []string) {
	for line := range strings.Lines(body) {
		var m struct{ Type string }
		if data, found := strings.CutPrefix(line, "data: "); found && json.Unmarshal([]byte(data), &m) == nil {
			names = append(names, m.Type)
		}
	}
	return names
}

func TestAStreamSaysThatItLivesAndWhyItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShow(t, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		time.AfterFunc(20*time.Second, func() { s.tell(t, s.owner.Root(), "a") })
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, s.request(ctx, ""))
		if diff := cmp.Diff([]string{"heartbeat", "log", "heartbeat", "heartbeat", "timeout"}, types(w.Body.String())); diff != "" {
			t.Errorf("told in a minute (-want +got):\n%s", diff)
		}
		if ctx.Err() != nil {
			t.Error("the stream ended when its time was over already")
		}
		if strings.Count(w.Body.String(), "retry: 1000\n") != 2 || strings.Count(w.Body.String(), "id: ") != 1 {
			t.Errorf("the stream is:\n%s", w.Body)
		}

		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Second, stop)
		w = httptest.NewRecorder()
		s.handler.ServeHTTP(w, s.request(ctx, "last_seq=1"))
		if got := types(w.Body.String()); !slices.Equal(got, []string{"timeout"}) {
			t.Errorf("a server that stops says %v", got)
		}
		began := time.Now()
		w = httptest.NewRecorder()
		s.handler.ServeHTTP(w, s.request(t.Context(), "last_seq=1"))
		if took := time.Since(began); took != longest {
			t.Errorf("a stream without a bound lasted %s", took)
		}
	})
}

// sluggish takes its time over the n-th write.
type sluggish struct {
	*httptest.ResponseRecorder
	writes, n int
	time      time.Duration
	err       error
}

func (s *sluggish) Write(b []byte) (int, error) {
	if s.writes++; s.writes == s.n {
		<-time.After(s.time)
		if s.err != nil {
			return 0, s.err
		}
	}
	return s.ResponseRecorder.Write(b)
}

func TestASlowConsumerIsToldAndLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShow(t, "")
		for _, key := range []string{"a", "b", "c", "d"} {
			s.tell(t, s.owner.Root(), key)
		}
		w := &sluggish{ResponseRecorder: httptest.NewRecorder(), n: 3, time: time.Minute}
		s.handler.ServeHTTP(w, s.request(t.Context(), ""))
		if got := types(w.Body.String()); !slices.Equal(got, []string{"log", "log", "error"}) || !strings.Contains(w.Body.String(), `"slow_consumer"`) || !strings.Contains(w.Body.String(), `"last_seq":2`) {
			t.Errorf("a slow consumer was told:\n%s", w.Body)
		}
		gone := &sluggish{ResponseRecorder: httptest.NewRecorder(), n: 3, err: errors.New("gone")}
		s.handler.ServeHTTP(gone, s.request(t.Context(), ""))
		if gone.writes != 3 {
			t.Errorf("to one who has gone %d pieces were written", gone.writes)
		}
	})
}

func TestWatchersAreSentToWhereStreamsAre(t *testing.T) {
	s := newShow(t, "https://stream.example.com/")
	s.tell(t, s.owner.Root(), "a")
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, s.request(t.Context(), "format=native&last_seq=1"))
	to, err := url.Parse(w.Header().Get("Location"))
	if err != nil || w.Code != http.StatusTemporaryRedirect || to.Host != "stream.example.com" || to.Path != "/v1/runs/"+id.Show("run", s.run.ID)+"/events" {
		t.Fatalf("sent to %d %s, %v", w.Code, to, err)
	}
	if got := w.Header().Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("with a token a page from elsewhere may read %q", got)
	}
	ticket := to.Query().Get("ticket")
	if !workspace.IsTicket(ticket) || to.Query().Get("format") != "native" || to.Query().Get("last_seq") != "1" || strings.Contains(to.String(), s.token) {
		t.Errorf("sent to %s", to)
	}
	caller, err := s.wire.Tokens.Authenticate(t.Context(), ticket)
	if err != nil || caller.Kind != workspace.Ticket || caller.RunID != s.run.ID {
		t.Errorf("the ticket is for %+v, %v", caller, err)
	}

	// Who has a ticket keeps it, and who polls is answered here.
	w = httptest.NewRecorder()
	r := s.request(t.Context(), "ticket="+ticket)
	r.Header.Del("Authorization")
	s.handler.ServeHTTP(w, r)
	if to, err = url.Parse(w.Header().Get("Location")); err != nil || to.Query().Get("ticket") != ticket {
		t.Errorf("with a ticket sent to %s, %v", to, err)
	}
	if got := w.Header().Get("Access-Control-Allow-Origin"); got != "*" {
		t.Errorf("with a ticket a page from elsewhere may read %q", got)
	}
	w = httptest.NewRecorder()
	s.handler.ServeHTTP(w, s.request(t.Context(), "wait=0"))
	var page pollReply
	if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != http.StatusOK || len(page.Events) != 1 || page.LastSeq != 1 || page.Ended {
		t.Errorf("a long poll is answered %d %s, %v", w.Code, w.Body, err)
	}
}

func TestAPollIsAnsweredWhenThereIsSomething(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShow(t, "")
		poll := func(query string) (page pollReply, took time.Duration) {
			began := time.Now()
			w := httptest.NewRecorder()
			s.handler.ServeHTTP(w, s.request(t.Context(), query))
			if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != http.StatusOK {
				t.Errorf("%d %s, %v", w.Code, w.Body, err)
			}
			return page, time.Since(began)
		}
		if page, took := poll("wait=5"); len(page.Events) > 0 || took != 5*time.Second {
			t.Errorf("nothing after %s: %+v", took, page)
		}
		if _, took := poll("wait=100000000000"); took != longestWait*time.Second {
			t.Errorf("the longest wait is %s", took)
		}
		root := s.owner.Root()
		told := make(chan struct{}) // a branch belongs to one goroutine at a time
		time.AfterFunc(3*time.Second, func() { s.tell(t, root, "a"); close(told) })
		if page, took := poll("wait=20"); len(page.Events) != 1 || took > 4*time.Second {
			t.Errorf("something after %s: %+v", took, page)
		}
		<-told
		for range 3 * mostMessages {
			s.tell(t, root, id.New())
		}
		if page, _ := poll("wait=0"); len(page.Events) != mostMessages || page.LastSeq != mostMessages {
			t.Errorf("a page has %d messages", len(page.Events))
		}
		if err := s.owner.Fail(run.Outcome{State: run.Failed, Error: "It is over."}); err != nil {
			t.Fatal(err)
		}
		page, _ := poll("wait=0&last_seq=601")
		end := page.LastSeq
		if page, _ := poll("wait=0&last_seq=601&types=artifact"); len(page.Events) != 1 || !page.Ended {
			t.Errorf("the end is for everybody, and %d messages were told", len(page.Events))
		}
		if page, took := poll("wait=20&last_seq=" + string(jsonOf(t, end))); len(page.Events) > 0 || !page.Ended || took > 0 {
			t.Errorf("after the end come %d messages in %s", len(page.Events), took)
		}
	})
}

func jsonOf(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestVocabularies(t *testing.T) {
	ended := run.Page{Outcome: &run.Outcome{State: run.Succeeded, Result: "Done."}}
	stopped := run.Page{Outcome: &run.Outcome{State: run.Canceled, Error: run.Stopped}}
	tests := []struct {
		event, data string
		page        run.Page
		api, guide  string // type and content; "" for none
	}{
		{"crew_kickoff_started", `{}`, run.Page{}, `run.started {"run_id":"RUN","started_at":"TIME"}`, `run.started {"run_id":"RUN","started_at":"TIME"}`},
		{"crew_kickoff_completed", `{}`, ended, `run.completed {"completed_at":"TIME","output":{"result":"Done."},"run_id":"RUN"}`,
			`run.completed {"duration_ms":2500,"result":{"result":"Done."},"run_id":"RUN"}`},
		{"crew_kickoff_failed", `{"error":"No."}`, run.Page{}, `run.failed {"completed_at":"TIME","error":"No.","run_id":"RUN","status":"failed"}`,
			`run.failed {"error":"No.","run_id":"RUN","stack_trace":null}`},
		{"crew_kickoff_failed", `{"error":"Stopped."}`, stopped, `run.failed {"completed_at":"TIME","error":"Stopped.","run_id":"RUN","status":"canceled"}`,
			`run.canceled {"canceled_at":"TIME","run_id":"RUN"}`},
		{"task_started", `{"task_description":"Look.","expected_output":"It."}`, run.Page{},
			`task.started {"agent":"Scout","description":"Look.","expected_output":"It.","task":"look","task_id":"t"}`,
			`log {"event":"task_started","level":"info","message":"The task \"look\" has begun.","timestamp":"TIME"}`},
		{"task_completed", `{"output_raw":"Seen."}`, run.Page{}, `task.completed {"agent":"Scout","output":"Seen.","task":"look","task_id":"t"}`,
			`log {"event":"task_completed","level":"info","message":"The task \"look\" is done.","timestamp":"TIME"}`},
		{"agent_execution_started", `{}`, run.Page{}, `agent.action {"action":"started","agent":"Scout","task":"look"}`, `agent.started {"agent":"Scout","task":"look"}`},
		{"llm_call_started", `{"model":"m","call_id":"c"}`, run.Page{}, `agent.action {"action":"thinking","agent":"Scout","call_id":"c","model":"m","task":"look"}`,
			`log {"event":"llm_call_started","level":"info","message":"Scout asks the model m.","timestamp":"TIME"}`},
		{"llm_call_completed", `{}`, run.Page{}, "", ""},
		{"agent_execution_completed", `{"output":"<b>"}`, run.Page{}, `agent.action {"action":"completed","agent":"Scout","output":"<b>","task":"look"}`,
			`agent.completed {"agent":"Scout","output":"<b>","task":"look"}`},
		{"agent_execution_error", `{"error":"No."}`, run.Page{}, `agent.action {"action":"failed","agent":"Scout","error":"No.","task":"look"}`,
			`agent.error {"agent":"Scout","error":"No.","task":"look"}`},
		{"tool_usage_started", `{"tool_name":"t","tool_args":{"a":1}}`, run.Page{}, `tool_use {"agent":"Scout","input":{"a":1},"status":"started","task":"look","tool":"t"}`,
			`tool.called {"input":{"a":1},"tool":"t"}`},
		{"tool_usage_finished", `{"tool_name":"t","tool_args":"a","output":[1]}`, run.Page{},
			`tool_use {"agent":"Scout","input":"a","output":[1],"status":"finished","task":"look","tool":"t"}`, `tool.result {"output":[1],"tool":"t"}`},
		{"tool_usage_error", `{"tool_name":"t","tool_args":{},"error":"No."}`, run.Page{},
			`tool_use {"agent":"Scout","error":"No.","input":{},"status":"failed","task":"look","tool":"t"}`, `tool.error {"error":"No.","tool":"t"}`},
		{"llm_guardrail_completed", `{"success":true}`, run.Page{}, "", ""},
		{"lead_found", `{"lead":1}`, run.Page{}, `log {"data":{"lead":1},"event":"lead_found","level":"info","message":"lead_found","timestamp":"TIME"}`,
			`log {"data":{"lead":1},"event":"lead_found","level":"info","message":"lead_found","timestamp":"TIME"}`},
	}
	at := time.Date(2026, 11, 23, 9, 0, 2, 500e6, time.UTC)
	r := run.Run{ID: "0190a1b2-c3d4-7e5f-8091-a2b3c4d5e6f7", StartedAt: at.Add(-2500 * time.Millisecond)}
	for _, test := range tests {
		e := events.Event{ID: "e", N: 3, At: at, Type: test.event, Data: json.RawMessage(test.data),
			Identity: events.Identity{TaskID: "t", TaskName: "look", AgentID: "a", AgentRole: "Scout"}}
		for name, want := range map[string]string{"": test.api, "guide": test.guide} {
			m, known, err := formats[name].spell(nil, t.Context(), r, test.page, e)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if known {
				content, err := encode(m.Data)
				if err != nil {
					t.Fatal(err)
				}
				got = m.Type + " " + string(content)
			}
			want = strings.NewReplacer("RUN", id.Show("run", r.ID), "TIME", at.Format(events.TimeFormat)).Replace(want)
			if got != want {
				t.Errorf("%s in format %q:\ngot  %s\nwant %s", test.event, name, got, want)
			}
		}
	}
}

func FuzzReadWatching(f *testing.F) {
	for _, seed := range [][3]string{
		{"format=native&types=a,b&chunks=1", "text/event-stream", "12"}, {"wait=20&last_seq=3", "", ""},
		{"wait=-1", "application/json", "x"}, {"last_seq=99999999999999999999", "application/x-ndjson", ""}, {"chunks=maybe&format=", "*/*", "-1"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, query, accept, position string) {
		r := &http.Request{URL: &url.URL{RawQuery: query}, Header: http.Header{"Accept": {accept}, "Last-Event-Id": {position}}, Body: io.NopCloser(strings.NewReader(""))}
		a, err := readWatching(r)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v, want a fault that can be shown", err)
			}
			return
		}
		if a.after < 0 || a.wait < 0 || a.wait > longestWait*time.Second || a.format.spell == nil || a.sse && a.poll {
			t.Errorf("%q, %q, %q asks for %+v", query, accept, position, a)
		}
	})
}

func TestTypesThatAFormatDoesNotHave(t *testing.T) {
	for query, says := range map[string]string{
		"types=nonsense":                           "task.started",
		"types=run.canceled":                       "run.failed",
		"types=log,*":                              "task.started",
		"format=guide&types=agent.action":          "agent.started",
		"format=native&types=No sense":             "/v1/events/types",
		"format=native&types=run.started":          "/v1/events/types",
		"format=native&types=task_start":           "task_started",
		"types=":                                   "",
		"types=,log, complete ,":                   "",
		"types=artifact":                           "",
		"types=llm_stream_chunk":                   "",
		"format=guide&types=run.canceled":          "",
		"format=native&types=task_started":         "",
		"format=native&types=complete,my.own_type": "",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		values, _ := url.ParseQuery(query)
		r.URL.RawQuery = values.Encode()
		a, err := readWatching(r)
		if own := strings.Contains(query, "my.own"); own != (len(a.warnings) > 0) {
			t.Errorf("%s is warned of: %q", query, a.warnings)
		}
		switch {
		case says == "" && err != nil:
			t.Errorf("%s: %v", query, err)
		case says != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(fault.Message(err), says)):
			t.Errorf("%s is answered %v, which does not name %s", query, err, says)
		}
	}
}
