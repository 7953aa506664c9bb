package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"muster/shared/engine/llm/scripted"
	"muster/shared/id"
)

// watching is about those who watch a run.
var watching = []behaviour{
	{"a run is watched live, and read again afterwards: the same in every reading, from every position", watchesInFourWays},
	{"the three vocabularies say the same in their own words", watchesInThreeWords},
	{"a watcher is refused in the words of the wire, before the stream begins", refusesWatchers},
	{"a ticket shows one run to a browser, and opens nothing else", watchesByTicket},
}

// watchingByTheClock is for homes where nobody moves the clock: who has not said so for a minute watches no more.
var watchingByTheClock = []behaviour{
	{"growing answers are shown to those who ask for them, and to nobody else", watchesChunks},
}

// watchingAnyDay holds on a bad day too.
var watchingAnyDay = []behaviour{
	{"a watcher who is thrown out again and again has every message once", watchesInPieces},
	{"a watcher sees that a model is asked while the model still thinks, whenever he came", watchesAModelThink},
}

// watched is a message as a watcher got it.
type watched struct {
	ID   string `json:"-"` // the id of a server-sent event
	Type string
	Seq  int64
	At   time.Time `json:"timestamp"`
	Data json.RawMessage
	Load json.RawMessage `json:"payload"`
	line string
}

// watcher reads a stream.
type watcher struct {
	t      *testing.T
	status int
	header http.Header
	body   io.ReadCloser
	lines  *bufio.Scanner
}

// watch opens a stream.
func (h *home) watch(t *testing.T, token, path string, headers ...string) *watcher {
	t.Helper()
	for range 20 {
		r, err := http.NewRequestWithContext(t.Context(), "GET", h.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		w := &watcher{t: t, status: answer.StatusCode, header: answer.Header, body: answer.Body, lines: bufio.NewScanner(answer.Body)}
		w.lines.Buffer(nil, 4<<20)
		if w.status < 500 { // a bad day has some
			t.Cleanup(w.close)
			return w
		}
		w.close()
	}
	t.Fatal("the stream never opened")
	return nil
}

func (w *watcher) close() { w.body.Close() }

// next gives the next message, false at the end of the stream.
func (w *watcher) next() (m watched, ok bool) {
	for w.lines.Scan() {
		line := w.lines.Text()
		if rest, found := strings.CutPrefix(line, "id: "); found {
			m.ID = rest
			continue
		}
		if line == "" || strings.HasPrefix(line, "retry: ") {
			continue
		}
		m.line = strings.TrimPrefix(line, "data: ")
		if err := json.Unmarshal([]byte(m.line), &m); err != nil {
			w.t.Errorf("a watcher was told %q", line)
			return m, false
		}
		return m, true
	}
	return m, false
}

// sequence gives the messages of the sequence up to the end of the stream, and what was said last.
func (w *watcher) sequence() (all []watched, last string) {
	for {
		m, ok := w.next()
		if !ok {
			return all, last
		}
		if last = m.Type; m.Seq > 0 {
			all = append(all, m)
		}
	}
}

func lines(all []watched) (lines []string) {
	for _, m := range all {
		lines = append(lines, m.line)
	}
	return lines
}

func (d deployment) events(runID, query string) string {
	return "/v1/runs/" + runID + "/events?" + query
}

const (
	sse    = "text/event-stream"
	ndjson = "application/x-ndjson"
)

func watchesInFourWays(t *testing.T, h *home) {
	d := h.deploy(t, reference(h.answer(referenceModel(nil))))
	runID := d.kickoff(t, map[string]any{"inputs": map[string]any{"company": "tesla"}})
	for _, format := range []string{"", "guide", "native"} {
		t.Run("format "+format, func(t *testing.T) {
			query := "format=" + format
			live, last := h.watch(t, d.Token, d.events(runID, query), "Accept", sse).sequence()
			if last != "complete" {
				t.Fatalf("the stream ended with %q", last)
			}
			for i, m := range live {
				if m.ID != strconv.FormatInt(m.Seq, 10) || i > 0 && m.Seq <= live[i-1].Seq {
					t.Errorf("message %d has the id %q and the seq %d", i, m.ID, m.Seq)
				}
			}
			end := live[len(live)-1].Seq
			if format == "native" && len(live) != int(end) {
				t.Errorf("%d messages came to position %d", len(live), end)
			}
			for _, at := range []int{0, 1, len(live) / 2, len(live) - 1} {
				after := int64(0)
				if at > 0 {
					after = live[at-1].Seq
				}
				want := lines(live[at:])
				again, _ := h.watch(t, d.Token, d.events(runID, query), "Accept", sse, "Last-Event-ID", fmt.Sprint(after)).sequence()
				if diff := cmp.Diff(want, lines(again)); diff != "" {
					t.Errorf("SSE from %d (-want +got):\n%s", after, diff)
				}
				from := query + "&last_seq=" + fmt.Sprint(after)
				plain, _ := h.watch(t, d.Token, d.events(runID, from), "Accept", ndjson).sequence()
				if diff := cmp.Diff(want, lines(plain)); diff != "" {
					t.Errorf("NDJSON from %d (-want +got):\n%s", after, diff)
				}
				if diff := cmp.Diff(want, polled(t, d, runID, query, after)); diff != "" {
					t.Errorf("long poll from %d (-want +got):\n%s", after, diff)
				}
				if diff := cmp.Diff(want, socketed(t, h, d, runID, from)); diff != "" {
					t.Errorf("WebSocket from %d (-want +got):\n%s", after, diff)
				}
			}
			if w := h.watch(t, d.Token, d.events(runID, query), "Accept", sse, "Last-Event-ID", fmt.Sprint(end)); w.status != http.StatusNoContent {
				t.Errorf("whoever has the end is answered %d, and a browser would come back", w.status)
			}
		})
	}
}

// polled reads a run by long polls.
func polled(t *testing.T, d deployment, runID, query string, after int64) (all []string) {
	t.Helper()
	for {
		var page struct {
			Events  []json.RawMessage
			LastSeq int64 `json:"last_seq"`
			Ended   bool
		}
		d.home.want(t, http.StatusOK, "GET", d.events(runID, fmt.Sprintf("%s&wait=20&last_seq=%d", query, after)), d.Token, nil, &page)
		for _, e := range page.Events {
			all = append(all, string(e))
		}
		if after = page.LastSeq; page.Ended {
			return all
		}
	}
}

// socketed reads a run by a WebSocket.
func socketed(t *testing.T, h *home, d deployment, runID, query string) (all []string) {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), h.url+d.events(runID, query), &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {"Bearer " + d.Token}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(4 << 20)
	for {
		_, message, err := c.Read(t.Context())
		if code := websocket.CloseStatus(err); code != -1 {
			if code != websocket.StatusNormalClosure || !strings.Contains(err.Error(), "complete") {
				t.Errorf("the WebSocket was closed: %v", err)
			}
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		frames(t, watchFrames, message)
		if !bytes.Contains(message, []byte(`"heartbeat"`)) {
			all = append(all, string(message))
		}
	}
}

func watchesInThreeWords(t *testing.T, h *home) {
	d := h.deploy(t, withTool(h.answer(once("look_up", map[string]any{"name": "tesla"}))))
	runID := d.kickoff(t, about("words"))
	d.over(t, runID)
	read := func(query string) (types []string, all []watched) {
		all, _ = h.watch(t, d.Token, d.events(runID, query), "Accept", sse).sequence()
		for _, m := range all {
			types = append(types, m.Type)
		}
		return types, all
	}
	api, said := read("")
	for _, kind := range []string{"run.started", "task.started", "agent.action", "tool_use", "task.completed", "run.completed", "complete"} {
		if !slices.Contains(api, kind) {
			t.Errorf("the API's words have no %s: %v", kind, api)
		}
	}
	var complete struct {
		RunID, Status string
		Output        struct{ Result string }
	}
	if err := json.Unmarshal(said[len(said)-1].Data, &complete); err != nil || complete.Status != "succeeded" || complete.Output.Result == "" {
		t.Errorf("the end says %s, %v", said[len(said)-1].Data, err)
	}
	guide, said := read("format=guide")
	for _, kind := range []string{"run.started", "agent.started", "tool.called", "agent.completed", "log", "run.completed", "complete"} {
		if !slices.Contains(guide, kind) {
			t.Errorf("the guide's words have no %s: %v", kind, guide)
		}
	}
	if said[0].Load == nil || said[0].Data != nil {
		t.Errorf("the guide has its content elsewhere than in payload: %s", said[0].line)
	}
	native, said := read("format=native&types=task_started,llm_call_started")
	if want := []string{"task_started", "llm_call_started", "llm_call_started", "complete"}; !slices.Equal(native, want) {
		t.Errorf("of two types %v were shown", native)
	}
	var started struct{ Messages []json.RawMessage }
	if err := json.Unmarshal(said[1].Data, &started); err != nil || len(started.Messages) == 0 {
		t.Errorf("a call of the model is shown as %s", said[1].line)
	}
}

func watchesChunks(t *testing.T, h *home) {
	for _, test := range []struct {
		query  string
		chunks bool
	}{{"", false}, {"format=native", false}, {"chunks=1", true}, {"format=native&types=llm_call_started,llm_stream_chunk", true}} {
		t.Run("asked "+test.query, func(t *testing.T) {
			gate := make(chan struct{})
			d := h.deploy(t, simple(h.answer(func(scripted.Request) scripted.Reply {
				return scripted.Reply{Text: "One two three four five six seven.", Wait: gate}
			})))
			var thread struct {
				ID string `json:"thread_id"`
			}
			h.want(t, http.StatusCreated, "POST", "/v1/threads", d.Token, map[string]any{}, &thread)
			var started struct {
				RunID string `json:"run_id"`
			}
			for range 2 { // the second run begins after the first, and its owner knows from the start who watches
				h.want(t, http.StatusAccepted, "POST", "/v1/threads/"+thread.ID+"/runs", d.Token,
					map[string]any{"input": map[string]any{"topic": "chunks"}, "multitask_strategy": "enqueue"}, &started)
			}
			w := h.watch(t, d.Token, d.events(started.RunID, test.query), "Accept", sse)
			canonical, _ := id.Parse("run", started.RunID)
			eventually(t, "the run is told of the watcher", func() bool {
				r, err := h.app.Runs.Get(t.Context(), canonical)
				return err == nil && !r.WatchedUntil.IsZero()
			})
			close(gate)
			pieces := 0
			for {
				m, ok := w.next()
				if !ok || m.Type == "complete" {
					break
				}
				if m.Type == "llm_stream_chunk" {
					pieces++
				}
			}
			if (pieces > 0) != test.chunks {
				t.Errorf("%d pieces were shown", pieces)
			}
		})
	}
}

func watchesAModelThink(t *testing.T, h *home) {
	for _, comes := range []string{"before the model is asked", "while the model thinks"} {
		t.Run(comes, func(t *testing.T) {
			gate, asked := make(chan struct{}), make(chan struct{}, 100)
			d := h.deploy(t, simple(h.answer(func(scripted.Request) scripted.Reply {
				asked <- struct{}{}
				return scripted.Reply{Text: "Done.", Wait: gate}
			})))
			runID := d.kickoff(t, about("thought"))
			if comes == "while the model thinks" {
				wait(t, asked, "the model is asked")
			}
			thinking, once := make(chan struct{}), sync.Once{}
			over := make(chan string, 1)
			go func() {
				over <- follow(t, d, runID, 0, func(m watched) bool {
					if isThought(m) {
						once.Do(func() { close(thinking) })
					}
					return true
				})
			}()
			wait(t, thinking, "the watcher sees that the model thinks")
			close(gate)
			if last := <-over; last != "complete" {
				t.Errorf("the stream ended with %q", last)
			}
		})
	}
}

// TestAWatcherSeesACallWithinASecond runs while no other test does, for it looks at the clock.
func TestAWatcherSeesACallWithinASecond(t *testing.T) {
	for _, where := range []struct {
		name string
		open opener
	}{{"in the embedded home", onSQLite}, {"in the AWS home", onAWS}} {
		t.Run(where.name, func(t *testing.T) {
			h := newHome(t, where.open, settings{})
			gate := make(chan struct{})
			d := h.deploy(t, chain(h.answer(func(scripted.Request) scripted.Reply { return scripted.Reply{Text: "Done.", Wait: gate} }), 3))
			w := h.watch(t, d.Token, d.events(d.kickoff(t, about("haste")), "format=native&types=llm_call_started"))
			for calls := 0; ; {
				m, ok := w.next()
				if !ok || m.Type == "complete" {
					if calls != 3 {
						t.Errorf("%d calls were seen", calls)
					}
					return
				}
				if m.Type != "llm_call_started" {
					continue
				}
				if calls++; calls == 1 { // the owner knows of the watcher from now on
					close(gate)
					continue
				}
				if took := time.Since(m.At); took > time.Second {
					t.Errorf("a call was seen %s after it began, want less than a second", took)
				}
			}
		})
	}
}

// isThought says whether a message tells that a model is asked.
func isThought(m watched) bool {
	return m.Type == "agent.action" && strings.Contains(string(m.Data), `"thinking"`)
}

// follow reads a run until its end, coming back whenever the stream ends before or stay says so, and gives the type of the
// last message. It fails the test for a message that comes twice or out of turn.
func follow(t *testing.T, d deployment, runID string, most int, stay func(watched) bool) (last string) {
	position := int64(0)
	for range 2000 {
		w := d.home.watch(t, d.Token, d.events(runID, ""), "Accept", sse, "Last-Event-ID", fmt.Sprint(position))
		for n := 0; most == 0 || n < most; n++ {
			m, ok := w.next()
			if !ok {
				break
			}
			if m.Seq > 0 && m.Seq <= position {
				t.Errorf("message %d came after %d", m.Seq, position)
			}
			position = max(position, m.Seq)
			if m.Type == "complete" {
				w.close()
				return m.Type
			}
			if !stay(m) {
				break
			}
		}
		w.close()
	}
	return "nothing after 2000 connections"
}

func watchesInPieces(t *testing.T, h *home) {
	d := h.deploy(t, reference(h.answer(referenceModel(nil))))
	runID := d.kickoff(t, map[string]any{"inputs": map[string]any{"company": "tesla"}})
	var got []string
	last := follow(t, d, runID, 3, func(m watched) bool {
		if m.Seq > 0 {
			got = append(got, m.line)
		}
		return true
	})
	if last != "complete" {
		t.Fatal(last)
	}
	var want []string
	follow(t, d, runID, 0, func(m watched) bool {
		if m.Seq > 0 {
			want = append(want, m.line)
		}
		return true
	})
	if diff := cmp.Diff(want, got); diff != "" || len(got) < 10 {
		t.Errorf("%d messages in one piece, and in many (-one +many):\n%s", len(got), diff)
	}
}

func refusesWatchers(t *testing.T, h *home) {
	d, other := h.deploy(t, simple(h.answer(say("Done.")))), h.deploy(t, simple(h.answer(say("Done."))))
	runID := d.kickoff(t, about("refusals"))
	d.over(t, runID)
	for _, c := range []struct {
		name, token, path string
		code              int
	}{
		{"a run that is not there", d.Token, d.events("run_0190a1b2c3d47e5f8091a2b3c4d5e6f7", ""), 404},
		{"another deployment's run", other.Token, d.events(runID, ""), 404},
		{"nobody", "", d.events(runID, ""), 401},
		{"a token in the URL", "", d.events(runID, "ticket="+d.Token), 401},
		{"a made-up ticket", "", d.events(runID, "ticket=mus_tkt_x"), 401},
		{"a format nobody knows", d.Token, d.events(runID, "format=xml"), 400},
		{"a type nobody knows", d.Token, d.events(runID, "types=task.started,nonsense"), 400},
		{"a type of another format", d.Token, d.events(runID, "format=native&types=task.started"), 400},
		{"a position that is no number", d.Token, d.events(runID, "last_seq=next"), 400},
		{"a position before the beginning", d.Token, d.events(runID, "last_seq=-1"), 400},
		{"a position that the run never comes to", d.Token, d.events(runID, "last_seq=100000"), 400},
		{"a wait that is no number", d.Token, d.events(runID, "wait=long"), 400},
		{"a wish for chunks that is neither", d.Token, d.events(runID, "chunks=some"), 400},
	} {
		refused(t, h, c.code, "GET", c.path, c.token, nil)
		c, answer, err := websocket.Dial(t.Context(), h.url+c.path, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + c.token}}})
		if err == nil {
			c.CloseNow()
			t.Error("a WebSocket was opened")
		} else if answer == nil || answer.StatusCode < 400 {
			t.Errorf("a WebSocket was refused with %+v, %v", answer, err)
		}
	}
	elsewhere := http.Header{"Authorization": {"Bearer " + d.Token}, "Origin": {"https://elsewhere.example.com"}}
	if c, answer, err := websocket.Dial(t.Context(), h.url+d.events(runID, ""), &websocket.DialOptions{HTTPHeader: elsewhere}); err == nil {
		c.CloseNow()
		t.Error("a page from elsewhere opened a WebSocket")
	} else if answer == nil || answer.StatusCode != http.StatusForbidden {
		t.Errorf("a page from elsewhere is answered %+v, %v", answer, err)
	}
	code, body := h.call(t, "HEAD", d.events(runID, ""), d.Token, nil)
	if code != http.StatusOK || len(body) > 0 {
		t.Errorf("HEAD gives %d %s", code, body)
	}
	w := h.watch(t, d.Token, d.events(runID, ""))
	for name, want := range map[string]string{"Content-Type": sse, "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"} {
		if got := w.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func watchesByTicket(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	runID, another := d.kickoff(t, about("tickets")), d.kickoff(t, about("other things"))
	d.over(t, runID)
	d.over(t, another)
	var given struct{ Ticket, URL string }
	h.want(t, http.StatusCreated, "POST", "/v1/runs/"+runID+"/tickets", d.Token, nil, &given)
	if _, last := h.watch(t, "", given.URL).sequence(); last != "complete" {
		t.Errorf("with a ticket the stream ended with %q", last)
	}
	c, _, err := websocket.Dial(context.Background(), h.url+given.URL, nil)
	if err != nil {
		t.Errorf("a WebSocket with a ticket: %v", err)
	} else {
		c.CloseNow()
	}
	for _, call := range []struct {
		method, path, token string
		code                int
	}{
		{"GET", d.events(another, "ticket="+given.Ticket), "", 404},
		{"GET", "/v1/runs/" + runID, given.Ticket, 403},
		{"GET", "/v1/runs/" + runID + "?ticket=" + given.Ticket, "", 401},
		{"POST", "/v1/runs/" + runID + "/cancel", given.Ticket, 403},
		{"POST", "/v1/runs/" + runID + "/tickets", given.Ticket, 403},
	} {
		refused(t, h, call.code, call.method, call.path, call.token, nil)
	}
}
