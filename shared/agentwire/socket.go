package agentwire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"muster/shared/channel"
	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/thread"
	"muster/shared/trigger"
	"muster/shared/workspace"
)

// SocketPath is where the WebSocket is.
const SocketPath = "/ws"

// maxFrame is the largest message that a client may send.
const maxFrame = 64 << 10

// Socket is the WebSocket of a workspace: what a client sends is read here, what it is told is spelled here, and package
// channel does the rest. Nothing is answered to what succeeds, but to a ping.
type Socket struct {
	Hub  *channel.Hub
	Runs *run.Service
	// Crews, Threads and Agents find whose a channel is.
	Crews   *crew.Store
	Threads *thread.Threads
	Agents  interface {
		FindAgent(ctx context.Context, agentID string) (trigger.Trigger, error)
	}
}

// frame is a message in either direction.
type frame struct {
	Type    string `json:"type"`
	Channel string `json:"channel,omitempty"`
	Payload any    `json:"payload"`
}

// sent is a message of a client. Resume has positions by run in its payload.
type sent struct {
	Type    string          `json:"type"`
	Token   string          `json:"token"`
	Channel string          `json:"channel"`
	Payload json.RawMessage `json:"payload"`
}

// complaint is the payload of an error.
type complaint struct {
	Message string `json:"message"`
	Error   string `json:"error,omitempty"`
}

// Connect takes in a connection that r opens, or answers with the status of a refusal. The token may be in the query.
func (s *Socket) Connect(ctx context.Context, connectionID string, r *http.Request) (status int, err error) {
	if !sameOrigin(r) {
		return http.StatusForbidden, nil
	}
	if err := s.Hub.Open(ctx, connectionID); err != nil {
		return 0, err
	}
	token := r.URL.Query().Get("token")
	if token == "" {
		return http.StatusOK, nil
	}
	if _, err = s.Hub.Admit(ctx, connectionID, token); err == nil {
		return http.StatusOK, nil
	}
	switch fault.KindOf(err) {
	case fault.Unauthorized:
		status = http.StatusUnauthorized
	case fault.TooMany:
		status = http.StatusTooManyRequests
	default:
		return 0, err
	}
	return status, s.Hub.Close(ctx, connectionID)
}

// sameOrigin says that no page from elsewhere opens the connection: a browser names the page's origin.
func sameOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	from, err := url.Parse(origin)
	return err == nil && from.Host != "" && strings.EqualFold(from.Host, r.Host)
}

// Disconnect forgets a connection.
func (s *Socket) Disconnect(ctx context.Context, connectionID string) error {
	return s.Hub.Close(ctx, connectionID)
}

// Receive does what a client asks for, and tells it what is wrong. It fails only where not even that can be told.
func (s *Socket) Receive(ctx context.Context, connectionID string, message []byte) error {
	err := s.receive(ctx, connectionID, message)
	if err == nil {
		return nil
	}
	slog.ErrorContext(ctx, "A message on a WebSocket came to nothing.", "connection", connectionID, "error", err)
	return s.answer(ctx, connectionID, errorFrame("", fault.New(fault.Internal, "internal error")))
}

func (s *Socket) receive(ctx context.Context, connectionID string, message []byte) error {
	if len(message) > maxFrame {
		return s.Hub.End(ctx, connectionID, channel.TooLarge)
	}
	c, known, err := s.Hub.Hear(ctx, connectionID)
	switch {
	case errors.Is(err, channel.ErrGone):
		return nil
	case fault.Is(err, fault.Unauthorized):
		return s.Hub.End(ctx, connectionID, channel.Revoked)
	case err != nil:
		return err
	}
	m, err := readFrame(message)
	if err != nil {
		if !known {
			return s.Hub.EndWith(ctx, connectionID, errorFrame("", err))
		}
		return s.answer(ctx, connectionID, errorFrame("", err))
	}
	switch {
	case m.Type == "ping": // says that the connection lives, whoever asks
		return s.answer(ctx, connectionID, encodeFrame(frame{Type: "pong"}))
	case !known && m.Type == "auth":
		return s.auth(ctx, connectionID, m)
	}
	if !known {
		// API Gateway hands over messages at the same time: this one may have come right after the one that says who it is.
		if c, known, err = s.await(ctx, connectionID); err != nil {
			return err
		}
	}
	if !known {
		return s.Hub.EndWith(ctx, connectionID, errorFrame("", fault.New(fault.Unauthorized, "authentication required")))
	}
	err = s.do(ctx, c, m)
	switch {
	case err == nil, errors.Is(err, channel.ErrGone):
		return nil
	case fault.KindOf(err) == fault.Internal:
		return err
	}
	return s.answer(ctx, connectionID, errorFrame(m.Channel, err))
}

// readFrame reads a message. An error of it is a fault to show.
func readFrame(message []byte) (m sent, err error) {
	if !utf8.Valid(message) || json.Unmarshal(message, &m) != nil {
		return m, fault.New(fault.Invalid, "invalid message")
	}
	return m, nil
}

// auth takes the message that says who it is from.
func (s *Socket) auth(ctx context.Context, connectionID string, m sent) error {
	_, err := s.Hub.Admit(ctx, connectionID, m.Token)
	switch {
	case err == nil, errors.Is(err, channel.ErrGone):
		return nil
	case fault.KindOf(err) == fault.Internal:
		return err
	}
	return s.Hub.EndWith(ctx, connectionID, errorFrame("", err))
}

// A message that comes before anybody has said who it is from waits for that a little.
const (
	authWait = 3 * time.Second
	authLook = 100 * time.Millisecond
)

func (s *Socket) await(ctx context.Context, connectionID string) (c channel.Connection, known bool, err error) {
	tick := time.NewTicker(authLook)
	defer tick.Stop()
	for range authWait / authLook {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return c, false, ctx.Err()
		}
		if c, known, err = s.Hub.Hear(ctx, connectionID); known || err != nil {
			return c, known, err
		}
	}
	return c, false, nil
}

func (s *Socket) answer(ctx context.Context, connectionID string, message []byte) error {
	err := s.Hub.Push.Push(ctx, connectionID, message)
	if errors.Is(err, channel.ErrGone) {
		return s.Hub.Close(ctx, connectionID)
	}
	return err
}

func (s *Socket) do(ctx context.Context, c channel.Connection, m sent) error {
	switch m.Type {
	case "auth":
		return fault.New(fault.Invalid, "already authenticated")
	case "subscribe":
		ch, err := s.channel(ctx, c.Caller, m.Channel)
		if err != nil {
			return err
		}
		return s.Hub.Subscribe(ctx, c, ch)
	case "unsubscribe":
		return s.Hub.Unsubscribe(ctx, c, m.Channel)
	case "resume":
		return s.resume(ctx, c, m)
	}
	return fault.New(fault.Invalid, "unknown message type: %s", short(m.Type))
}

// mostResumed is how many runs may be resumed at once.
const mostResumed = 20

func (s *Socket) resume(ctx context.Context, c channel.Connection, m sent) error {
	var positions map[string]int64
	if json.Unmarshal(m.Payload, &positions) != nil || len(positions) == 0 || len(positions) > mostResumed {
		return fault.New(fault.Invalid, "resume wants a payload of 1 to %d positions by run: {\"run_…\": 41}", mostResumed)
	}
	for shown, after := range positions {
		name := "run:" + shown
		ch, r, err := s.run(ctx, c.Caller, name, shown)
		if err == nil {
			err = s.Hub.Resume(ctx, c, ch, r, after)
		}
		if err == nil {
			continue
		}
		if fault.KindOf(err) == fault.Internal || errors.Is(err, channel.ErrGone) {
			return err
		}
		if err := s.answer(ctx, c.ID, errorFrame(short(name), err)); err != nil { // of one run, and no reason to leave the others
			return err
		}
	}
	return nil
}

// errDenied is told of channels that are not there, too.
var errDenied = fault.New(fault.Forbidden, "access denied")

// channel finds the channel of a name that the caller may use.
func (s *Socket) channel(ctx context.Context, c workspace.Caller, name string) (channel.Channel, error) {
	kind, shown, _ := strings.Cut(name, ":")
	ch := channel.Channel{Name: name, WorkspaceID: c.WorkspaceID}
	switch kind {
	case "workspace":
		if given, ok := id.Parse("ws", shown); !ok || given != c.WorkspaceID || c.Kind != workspace.Workspace {
			return ch, errDenied
		}
		return ch, nil
	case "crew":
		given, ok := id.Parse("dep", shown)
		if !ok {
			return ch, errDenied
		}
		d, err := s.Crews.Deployment(ctx, given)
		if err != nil || !c.Sees(d.WorkspaceID, d.ID) {
			return ch, denied(err)
		}
		ch.DeploymentID = d.ID
		return ch, nil
	case "agent":
		t, err := s.agent(ctx, c, shown)
		ch.DeploymentID, ch.AgentID = t.DeploymentID, t.ID
		return ch, err
	case "session":
		if agent, webhook := strings.CutPrefix(shown, "webhook-"); webhook {
			t, err := s.agent(ctx, c, agent)
			ch.DeploymentID, ch.Thread = t.DeploymentID, trigger.SessionThread(t.ID)
			return ch, err
		}
		given, ok := id.Parse("thr", shown)
		if !ok {
			return ch, errDenied
		}
		t, err := s.Threads.Get(ctx, given)
		if err != nil || !c.Sees(t.WorkspaceID, t.DeploymentID) {
			return ch, denied(err)
		}
		ch.DeploymentID, ch.Thread = t.DeploymentID, t.ID
		return ch, nil
	case "run":
		ch, _, err := s.run(ctx, c, name, shown)
		return ch, err
	}
	return ch, errDenied
}

func (s *Socket) agent(ctx context.Context, c workspace.Caller, shown string) (trigger.Trigger, error) {
	agentID, ok := id.Parse(agentPrefix, shown)
	if !ok {
		return trigger.Trigger{}, errDenied
	}
	t, err := s.Agents.FindAgent(ctx, agentID)
	if err != nil || !c.Sees(t.WorkspaceID, t.DeploymentID) {
		return trigger.Trigger{}, denied(err)
	}
	return t, nil
}

func (s *Socket) run(ctx context.Context, c workspace.Caller, name, shown string) (channel.Channel, run.Run, error) {
	runID, ok := id.Parse("run", shown)
	if !ok {
		return channel.Channel{}, run.Run{}, errDenied
	}
	r, err := s.Runs.Get(ctx, runID)
	if err != nil || !c.Sees(r.WorkspaceID, r.DeploymentID) {
		return channel.Channel{}, run.Run{}, denied(err)
	}
	return channel.Channel{Name: name, WorkspaceID: r.WorkspaceID, DeploymentID: r.DeploymentID, RunID: r.ID}, r, nil
}

// denied makes a lookup that found nothing a denial, and leaves one that failed.
func denied(err error) error {
	if err == nil || fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid) {
		return errDenied
	}
	return err
}

// Channels is how this wire spells what connections are told.
var Channels = channel.Dialect{
	Spell: spell,
	Ping:  encodeFrame(frame{Type: "ping"}),
	Goodbye: func(why channel.Reason) []byte {
		kind := "error"
		if why == channel.Revoked {
			kind = "session_revoked"
		}
		return encodeFrame(frame{Type: kind, Payload: complaint{Message: string(why)}})
	},
}

// logPayload is the payload of agent.log. An entry that is too long for a message is cut, and says so: the whole of it is in
// the events of the run.
type logPayload struct {
	LogEntry
	RunID     string `json:"run_id"`
	Seq       int64  `json:"seq"`
	Truncated bool   `json:"truncated,omitempty"`
}

// runPayload is the payload of run.started, run.completed and run.failed.
type runPayload struct {
	Run
	RunID string `json:"run_id"`
	Seq   int64  `json:"seq"`
}

// maxContent keeps a message within the 32 KiB that API Gateway bills as one.
const maxContent = 24 << 10

// runFrames are the events that are told as news of the run, and not as a line of its log.
var runFrames = map[string]string{"crew_kickoff_started": "run.started", "crew_kickoff_completed": "run.completed", "crew_kickoff_failed": "run.failed"}

// spell makes one frame of each event, but of pieces of answers none. The channel of an agent has its part, and the run's
// beginning and end.
func spell(c channel.Channel, about channel.About, p run.Page) (all []channel.Message, err error) {
	r := about.Run
	runID := id.Show("run", r.ID)
	for _, entry := range Log(r, about.Definition, p) {
		n := entry.Metadata.Sequence
		f := frame{Type: "agent.log", Channel: c.Name}
		switch kind, ofRun := runFrames[entry.Event]; {
		case ofRun:
			f.Type, f.Payload = kind, runPayload{newsOf(kind, about, p), runID, n}
		case entry.Event == "llm_stream_chunk", entry.Event == "llm_thinking_chunk":
			continue
		case c.AgentID != "" && (entry.AgentID == nil || *entry.AgentID != c.AgentID):
			continue
		default:
			payload := logPayload{LogEntry: entry, RunID: runID, Seq: n}
			if cut := clip(entry.Content); cut != entry.Content {
				payload.Content, payload.Truncated = cut, true
			}
			f.Payload = payload
		}
		all = append(all, channel.Message{N: n, Body: encodeFrame(f)})
	}
	return all, nil
}

// newsOf shows the run as it was when it began, or as it ended.
func newsOf(kind string, about channel.About, p run.Page) Run {
	r, meta := about.Run, about.Request.Meta
	if kind == "run.started" {
		r.State, r.EndedAt, r.Error, p.Outcome = run.Running, time.Time{}, "", nil
	}
	if len(meta) > maxContent {
		meta = json.RawMessage(`{"truncated":true}`)
	}
	shown := ShowRun(r, p, meta)
	if shown.ErrorMessage != nil {
		shown.ErrorMessage = text(clip(*shown.ErrorMessage))
	}
	return shown
}

func clip(s string) string {
	if len(s) <= maxContent {
		return s
	}
	cut := maxContent
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// short keeps what a client wrote from filling an answer.
func short(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

func errorFrame(name string, err error) []byte {
	c := complaint{Message: fault.Message(err)}
	if fault.Is(err, fault.Forbidden) {
		c.Error = c.Message
	}
	return encodeFrame(frame{Type: "error", Channel: short(name), Payload: c})
}

// encodeFrame writes a frame without escapes for HTML. Frames are made of what can be encoded.
func encodeFrame(f frame) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(f)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
