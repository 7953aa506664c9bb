package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"muster/shared/engine/llm/scripted"
	"muster/shared/id"
)

// sockets is about the workspace WebSocket.
var sockets = []behaviour{
	{"who comes late to a channel is told from then on", func(t *testing.T, h *home) { joinsLate(t, h, false) }},
	{"and so is who comes when somebody watches already", func(t *testing.T, h *home) { joinsLate(t, h, true) }},
	{"what is wrong is said on the WebSocket, and nothing of others is told", refusesOnSockets},
	{"a token that is revoked ends the connection, and tells nothing more", revokesSockets},
	{"an agent's channel has the agent's part", followsAnAgent},
}

// socketsAnyDay holds on a bad day too.
var socketsAnyDay = []behaviour{
	{"two connections are told everything once, although one is cut off again and again", tellsTwo},
}

// TestSockets has homes of its own, where nobody moves the clock: a connection ends when it is old or silent.
func TestSockets(t *testing.T) {
	t.Parallel()
	for _, where := range []struct {
		name string
		open opener
		all  []behaviour
		s    settings
	}{
		{"the embedded home", onSQLite, concat(sockets, socketsAnyDay, watchingByTheClock), settings{}},
		{"the embedded home on a bad day", behind(onSQLite, 3), socketsAnyDay, settings{lease: shortLease}},
		{"the AWS home", onAWS, concat(sockets, socketsAnyDay, watchingByTheClock), settings{}},
		{"the AWS home on a bad day", behind(onAWS, 4), socketsAnyDay, settings{lease: shortLease}},
	} {
		t.Run(where.name, func(t *testing.T) {
			t.Parallel()
			where.s.every = 500 * time.Millisecond
			h := newHome(t, where.open, where.s)
			t.Run("it", func(t *testing.T) {
				for _, b := range where.all {
					t.Run(b.name, func(t *testing.T) {
						t.Parallel()
						b.do(t, h)
					})
				}
			})
		})
	}
}

// client is one end of a WebSocket.
type client struct {
	t    *testing.T
	conn *websocket.Conn
}

// heardFrame is what a client was told.
type heardFrame struct {
	Type    string
	Channel string
	Payload struct {
		Message string
		Error   string
		RunID   string `json:"run_id"`
		Seq     int64
		Status  string
		Event   string
		Agent   string
		AgentID *string `json:"agent_id"`
		Code    *int    `json:"exit_code"`
	}
	raw string
}

// dial opens a WebSocket and says who it is, unless the token is "".
func (h *home) dial(t *testing.T, token string) *client {
	t.Helper()
	for range 20 {
		conn, answer, err := websocket.Dial(t.Context(), strings.Replace(h.url, "http", "ws", 1)+"/ws", nil)
		if err == nil {
			conn.SetReadLimit(1 << 20)
			c := &client{t, conn}
			t.Cleanup(c.close)
			if token != "" {
				c.say(map[string]any{"type": "auth", "token": token})
			}
			return c
		}
		if answer == nil || answer.StatusCode < 500 {
			t.Fatal(err)
		}
	}
	t.Fatal("nobody took the connection")
	return nil
}

func (c *client) close() { _ = c.conn.CloseNow() }

func (c *client) say(message map[string]any) {
	raw, _ := json.Marshal(message)
	c.sayRaw(string(raw))
}

func (c *client) sayRaw(message string) {
	if err := c.conn.Write(c.t.Context(), websocket.MessageText, []byte(message)); err != nil {
		c.t.Logf("say %s: %v", message, err)
	}
}

// next gives the next frame but pings; ok is false at the end.
func (c *client) next() (f heardFrame, ok bool) {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	for {
		_, raw, err := c.conn.Read(ctx)
		if err != nil {
			return f, false
		}
		frames(c.t, socketFrames, raw)
		f = heardFrame{raw: string(raw)}
		if err := json.Unmarshal(raw, &f); err != nil {
			c.t.Errorf("a client was told %s", raw)
		}
		if f.Type != "ping" {
			return f, true
		}
	}
}

// ready waits until everything that was asked before is done, which on a bad day it may not be.
func (c *client) ready() bool {
	c.say(map[string]any{"type": "ping"})
	f, ok := c.next()
	return ok && f.Type == "pong"
}

func over(f heardFrame) bool { return f.Type == "run.completed" || f.Type == "run.failed" }

// until reads the frames of a run up to its end and wants each number once, from first on.
func (c *client) until(t *testing.T, runID string, first int64) (all []heardFrame) {
	t.Helper()
	for {
		f, ok := c.next()
		if !ok {
			t.Errorf("the connection ended after %d frames", len(all))
			return all
		}
		if f.Payload.RunID != runID {
			continue
		}
		if f.Payload.Seq != first+int64(len(all)) {
			t.Errorf("frame %d has the number %d: %s", len(all), f.Payload.Seq, f.raw)
		}
		if all = append(all, f); over(f) {
			return all
		}
	}
}

func tellsTwo(t *testing.T, h *home) {
	d := h.deploy(t, reference(h.answer(referenceModel(nil))))
	subscribed := func(token, channel string) *client {
		for {
			c := h.dial(t, token)
			c.say(map[string]any{"type": "subscribe", "channel": channel})
			if c.ready() {
				return c
			}
			c.close()
		}
	}
	steady := subscribed(h.token, "workspace:"+h.workspaceID)
	cut := subscribed(d.Token, "crew:"+d.ID)
	kicked := d.kickoff(t, map[string]any{"inputs": map[string]any{"company": "tesla"}})
	canonical, _ := id.Parse("run", kicked)
	runID := id.Show("run", canonical)

	var got []heardFrame
	for connections := 1; ; connections++ {
		ended, had := false, 0
		for had < 7 && !ended {
			f, ok := cut.next()
			if !ok || f.Payload.RunID == "" { // on a bad day a message may fail, which is said
				break
			}
			if f.Payload.RunID != runID || f.Payload.Seq <= int64(len(got)) { // a push that was repeated
				continue
			}
			if want := int64(len(got) + 1); f.Payload.Seq != want {
				t.Fatalf("connection %d was told %d, want %d", connections, f.Payload.Seq, want)
			}
			got, had, ended = append(got, f), had+1, over(f)
		}
		if ended {
			break
		}
		cut.close()
		cut = h.dial(t, d.Token)
		cut.say(map[string]any{"type": "resume", "payload": map[string]any{runID: len(got)}})
	}
	last := int64(0)
	for {
		f, ok := steady.next()
		if !ok {
			t.Fatalf("the steady connection ended after %d", last)
		}
		if f.Payload.RunID != runID || f.Payload.Seq <= last {
			continue
		}
		if f.Payload.Seq != last+1 {
			t.Fatalf("after %d came %d", last, f.Payload.Seq)
		}
		if f.Channel != "workspace:"+h.workspaceID {
			t.Errorf("it came by %q", f.Channel)
		}
		if last++; last == 1 && f.Type != "run.started" {
			t.Errorf("the first frame is %s", f.raw)
		}
		if over(f) {
			if f.Payload.Status != "COMPLETED" || f.Payload.Code == nil || *f.Payload.Code != 0 {
				t.Errorf("the end is %s", f.raw)
			}
			break
		}
	}
	if last != int64(len(got)) {
		t.Errorf("one was told %d, the other %d", last, len(got))
	}
}

func joinsLate(t *testing.T, h *home, watched bool) {
	gate, asked := make(chan struct{}), make(chan struct{}, 100)
	d := h.deploy(t, chain(h.answer(func(scripted.Request) scripted.Reply {
		asked <- struct{}{}
		return scripted.Reply{Text: "Done.", Wait: gate}
	}), 2))
	runID := d.kickoff(t, about("lateness"))
	wait(t, asked, "the model is asked")
	if watched {
		for w := h.watch(t, d.Token, d.events(runID, "")); ; {
			m, ok := w.next()
			if !ok {
				t.Fatal("the stream ended")
			}
			if isThought(m) {
				break // the owner has looked who watches
			}
		}
	}
	c := h.dial(t, h.token)
	c.say(map[string]any{"type": "subscribe", "channel": "run:" + runID})
	if !c.ready() {
		t.Fatal("nobody answers")
	}
	close(gate) // should the owner not know of the watcher yet, it looks once more before the end
	f, ok := c.next()
	if !ok || f.Type != "agent.log" || f.Payload.Seq < 2 {
		t.Fatalf("at first came %s", f.raw)
	}
	c.until(t, f.Payload.RunID, f.Payload.Seq+1)
}

func followsAnAgent(t *testing.T, h *home) {
	d := h.deploy(t, pair(h.answer(say("Reviewed.")), h.answer(say("Written."))))
	w := d.hand(t, "reviewer")
	c := h.dial(t, h.token)
	c.say(map[string]any{"type": "subscribe", "channel": "agent:" + w.ID})
	c.say(map[string]any{"type": "subscribe", "channel": "session:webhook-" + w.ID})
	if !c.ready() {
		t.Fatal("there is no such channel")
	}
	runID := w.tell(t, `{"event":"pull_request.opened"}`, "X-Signature", hexMAC(w.secret(t), `{"event":"pull_request.opened"}`))
	kinds := map[string]int{}
	for {
		f, ok := c.next()
		if !ok {
			t.Fatal("the connection ended")
		}
		if f.Payload.RunID != runID {
			continue
		}
		kinds[f.Type]++
		if f.Type == "agent.log" && (f.Payload.AgentID == nil || *f.Payload.AgentID != w.ID) {
			t.Errorf("the agent's channel has %s", f.raw)
		}
		if over(f) {
			break
		}
	}
	if kinds["run.started"] != 1 || kinds["run.completed"] != 1 || kinds["agent.log"] == 0 {
		t.Errorf("it was told %v", kinds)
	}
}

func refusesOnSockets(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Done."))))
	other := h.deploy(t, simple(h.answer(say("Done."))))
	for name, test := range map[string]struct{ token, channel string }{
		"another workspace":                    {h.token, "workspace:ws_0198c0de000070008000000000000009"},
		"the workspace, for a deployment":      {d.Token, "workspace:" + h.workspaceID},
		"another deployment, for a deployment": {d.Token, "crew:" + other.ID},
		"a deployment that is not there":       {h.token, "crew:dep_0198c0de000070008000000000000009"},
		"an agent that is not there":           {h.token, "agent:0198c0de-0000-7000-8000-000000000009"},
		"a session that is not there":          {h.token, "session:webhook-x"},
		"a thread that is not there":           {h.token, "session:thr_0198c0de000070008000000000000009"},
		"a run that is not there":              {h.token, "run:run_0198c0de000070008000000000000009"},
		"a kind that is none":                  {h.token, "keeper:x"},
		"nothing":                              {h.token, ""},
	} {
		c := h.dial(t, test.token)
		c.say(map[string]any{"type": "subscribe", "channel": test.channel})
		if f, _ := c.next(); f.Type != "error" || f.Channel != test.channel || f.Payload.Message != "access denied" || f.Payload.Error != "access denied" {
			t.Errorf("%s: %s", name, f.raw)
		}
		if !c.ready() {
			t.Errorf("%s: the connection ended", name)
		}
		c.close()
	}

	c := h.dial(t, h.token)
	for message, want := range map[string]string{
		`{"type":"send_message","payload":{}}`: `{"type":"error","payload":{"message":"unknown message type: send_message"}}`,
		`{}`:                                   `{"type":"error","payload":{"message":"unknown message type: "}}`,
		`not json`:                             `{"type":"error","payload":{"message":"invalid message"}}`,
		`{"type":"auth","token":"x"}`:          `{"type":"error","payload":{"message":"already authenticated"}}`,
		`{"type":"ping"}`:                      `{"type":"pong","payload":null}`,
		`{"type":"resume","payload":{"run_x":1}}`: `{"type":"error","channel":"run:run_x","payload":{"message":"access denied","error":"access denied"}}`,
		`{"type":"unsubscribe","channel":"x"} `:   "",
		`{"type":"resume","payload":[1]}`:         `{"type":"error","payload":{"message":"resume wants a payload of 1 to 20 positions by run: {\"run_…\": 41}"}}`,
	} {
		c.sayRaw(message)
		if want == "" {
			continue
		}
		if f, _ := c.next(); f.raw != want {
			t.Errorf("%s is answered %s, want %s", message, f.raw, want)
		}
	}
	c.sayRaw(`{"type":"ping","payload":"` + strings.Repeat("x", 64<<10) + `"}`)
	if f, _ := c.next(); f.Type != "error" || !strings.Contains(f.raw, "64 KiB") {
		t.Errorf("a large message is answered %s", f.raw)
	}
	if f, ok := c.next(); ok {
		t.Errorf("after it came %s", f.raw)
	}

	for name, message := range map[string]string{
		"a wrong token":      `{"type":"auth","token":"mus_ws_wrong"}`,
		"no token":           `{"type":"auth"}`,
		"another message":    `{"type":"subscribe","channel":"workspace:` + h.workspaceID + `"}`,
		"what is no message": `hello`,
	} {
		c := h.dial(t, "")
		c.sayRaw(message)
		if f, _ := c.next(); f.Type != "error" || f.Payload.Message == "" {
			t.Errorf("%s is answered %s", name, f.raw)
		}
		if f, ok := c.next(); ok {
			t.Errorf("after %s came %s", name, f.raw)
		}
	}

	url := strings.Replace(h.url, "http", "ws", 1) + "/ws"
	for _, test := range []struct {
		name, query, origin string
		status              int
	}{
		{"a page from elsewhere", "", "https://evil.example", http.StatusForbidden},
		{"a page of nowhere", "", "null", http.StatusForbidden},
		{"a wrong token in the query", "?token=mus_ws_wrong", "", http.StatusUnauthorized},
		{"a page from here", "", h.url, http.StatusSwitchingProtocols},
		{"a token in the query", "?token=" + h.token, "", http.StatusSwitchingProtocols},
	} {
		options := &websocket.DialOptions{HTTPHeader: http.Header{}}
		if test.origin != "" {
			options.HTTPHeader.Set("Origin", test.origin)
		}
		conn, answer, err := websocket.Dial(t.Context(), url+test.query, options)
		if answer == nil || answer.StatusCode != test.status {
			t.Errorf("%s: %v, %v", test.name, answer, err)
		}
		if conn == nil {
			continue
		}
		if c := (&client{t, conn}); test.query != "" && !c.ready() {
			t.Errorf("%s: nobody answers", test.name)
		}
		conn.CloseNow()
	}
}

func revokesSockets(t *testing.T, h *home) {
	gate, asked := make(chan struct{}), make(chan struct{}, 100)
	d := h.deploy(t, chain(h.answer(func(scripted.Request) scripted.Reply {
		asked <- struct{}{}
		return scripted.Reply{Text: "Done.", Wait: gate}
	}), 2))
	c := h.dial(t, d.Token)
	c.say(map[string]any{"type": "subscribe", "channel": "crew:" + d.ID})
	if !c.ready() {
		t.Fatal("nobody answers")
	}
	d.kickoff(t, about("trust"))
	wait(t, asked, "the model is asked")
	if err := h.app.Tokens.Revoke(t.Context(), d.Token); err != nil {
		t.Fatal(err)
	}
	close(gate)
	for {
		f, ok := c.next()
		if !ok {
			t.Fatal("the connection ended without a word")
		}
		if f.Type == "session_revoked" {
			break
		}
		if over(f) {
			t.Fatalf("after the token was revoked came %s", f.raw)
		}
	}
	if f, ok := c.next(); ok {
		t.Errorf("after it came %s", f.raw)
	}
}

// diesUnderAClient kills the process while a client is told of a run, and starts it again.
func diesUnderAClient(t *testing.T, local string) {
	gate, asked := make(chan struct{}), make(chan struct{}, 100)
	model := scripted.Start(func(r scripted.Request) scripted.Reply {
		asked <- struct{}{}
		if len(asked) >= 3 {
			return scripted.Reply{Text: "Done.", Wait: gate}
		}
		return scripted.Text("Done.")
	})
	defer model.Close()
	data := t.TempDir()
	p := start(t, local, data, model.URL, write(t, "watched", chain("gpt-4.1-mini", 6)))
	d := p.deployment(t, "watched")
	c := p.home.dial(t, d.Token)
	c.say(map[string]any{"type": "subscribe", "channel": "crew:" + d.ID})
	if !c.ready() {
		t.Fatal("nobody answers")
	}
	started := d.kickoff(t, about("death"))
	canonical, _ := id.Parse("run", started)
	runID := id.Show("run", canonical)
	seq := int64(0)
	follow := func() (ended bool) {
		for {
			f, ok := c.next()
			if !ok {
				return false
			}
			if f.Payload.RunID != runID || f.Payload.Seq <= seq {
				continue
			}
			if f.Payload.Seq != seq+1 {
				t.Errorf("after %d came %d", seq, f.Payload.Seq)
			}
			if seq = f.Payload.Seq; over(f) {
				return true
			}
		}
	}
	go func() {
		for range 3 {
			<-asked
		}
		p.end(t, syscall.SIGKILL)
	}()
	if follow() {
		t.Fatal("the run ended before the process did")
	}
	<-p.done
	close(gate)
	p = start(t, local, data, model.URL)
	c = p.home.dial(t, d.Token)
	c.say(map[string]any{"type": "resume", "payload": map[string]any{runID: seq}})
	if !follow() {
		t.Errorf("the connection ended after %d", seq)
	}
	if fmt.Sprint(seq) == "0" {
		t.Error("nothing was told")
	}
}
