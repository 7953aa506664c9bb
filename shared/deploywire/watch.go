package deploywire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/watch"
	"muster/shared/workspace"
)

// One sequence is read in four ways: as server-sent events, as lines of JSON, as pages of a long poll, and, where the front
// door turns lines into them (infra/host), as messages of a WebSocket. A message is the same JSON in all of them. The last
// one says why the reading ends: `complete` is the end of the run, after `timeout` and `error` a watcher comes back with
// the last `seq` it has.

const (
	// longest is how long a stream lasts, if the invocation does not end before.
	longest = 30 * time.Minute
	// goodbye is how long before the end of an invocation a stream ends.
	goodbye = time.Second
	// silence is how long nothing is said before a heartbeat is.
	silence = 15 * time.Second
	// patience is how long a watcher may take to take a message.
	patience = 20 * time.Second
	// again is how many milliseconds a client waits before it comes back.
	again = 1000
	// longestWait is how long a long poll waits at most, in seconds; API Gateway waits for 30.
	longestWait = 20
	// mostMessages and mostBytes bound a page of a long poll. A larger message goes alone.
	mostMessages = 200
	mostBytes    = 1 << 20
)

// watching is what a watcher asks for.
type watching struct {
	format format
	sse    bool
	poll   bool
	wait   time.Duration // of a long poll
	after  int64
	chunks bool
	types  []string // nil is all
	// warnings are about types that may be none.
	warnings []string
}

func readWatching(r *http.Request) (a watching, err error) {
	q := r.URL.Query()
	var known bool
	if a.format, known = formats[q.Get("format")]; !known {
		return a, fault.New(fault.Invalid, "There is no format %q; there are guide and native, and a third without a name.", q.Get("format"))
	}
	accept := r.Header.Get("Accept")
	switch {
	case q.Has("wait"):
		seconds, err := strconv.Atoi(q.Get("wait"))
		if err != nil || seconds < 0 {
			return a, fault.New(fault.Invalid, "\"wait\" must be a number of seconds.")
		}
		a.poll, a.wait = true, min(time.Duration(min(seconds, longestWait))*time.Second, longestWait*time.Second)
	case strings.Contains(accept, "application/x-ndjson"):
	case strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/event-stream"):
		a.poll = true
	default:
		a.sse = true
	}
	position := r.Header.Get("Last-Event-ID") // a browser that comes back knows better than the URL it came with first
	if position == "" {
		position = q.Get("last_seq")
	}
	if position != "" {
		if a.after, err = strconv.ParseInt(position, 10, 64); err != nil || a.after < 0 {
			return a, fault.New(fault.Invalid, "Last-Event-ID and \"last_seq\" are the number of the last message that is known.")
		}
	}
	for name := range strings.SplitSeq(q.Get("types"), ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		warning, err := a.format.check(name)
		if err != nil {
			return a, err
		}
		if a.types = append(a.types, name); warning != "" {
			a.warnings = append(a.warnings, warning)
		}
	}
	a.chunks = slices.Contains(a.types, chunkType)
	if asked := q.Get("chunks"); asked != "" {
		chunks, err := strconv.ParseBool(asked)
		if err != nil {
			return a, fault.New(fault.Invalid, "\"chunks\" must be 1 or 0.")
		}
		a.chunks = a.chunks || chunks
	}
	return a, nil
}

// wants says whether a message is for this watcher. The end is for everybody.
func (a watching) wants(m message) bool {
	switch {
	case m.Type == endType:
		return true
	case m.Type == chunkType && !a.chunks:
		return false
	}
	return a.types == nil || slices.Contains(a.types, m.Type)
}

// watchRun shows the sequence of a run.
func (w *Wire) watchRun(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	found, err := w.run(r, c)
	if err != nil {
		return err
	}
	a, err := readWatching(r)
	if err != nil {
		return err
	}
	httpapi.Warn(rw, a.warnings)
	if c.Kind == workspace.Ticket {
		// The ticket is the whole permission: a page from anywhere that has one may read what it opens.
		rw.Header().Set("Access-Control-Allow-Origin", "*")
	}
	if w.StreamURL != "" && !a.poll {
		return w.sendOn(rw, r, c, found)
	}
	watcher, err := w.Feed.Watch(r.Context(), found.ID, a.after, a.chunks)
	if err != nil {
		return err
	}
	defer watcher.Close()
	if a.poll {
		return w.poll(rw, r, found, a, watcher)
	}

	// Whoever has the end already is told so, and a browser does not come back after a 204. It is found before the answer
	// begins, and so is what cannot be read.
	first, ok, err := watcher.Next(r.Context(), 0)
	if errors.Is(err, watch.ErrOver) {
		rw.WriteHeader(http.StatusNoContent)
		return nil
	}
	if err != nil {
		return err
	}
	h := rw.Header()
	h.Set("Content-Type", "application/x-ndjson")
	if a.sse {
		h.Set("Content-Type", "text/event-stream")
	}
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	rw.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	s := &stream{wire: w, asked: a, run: found, w: rw, flush: http.NewResponseController(rw).Flush}
	if a.sse {
		s.write(fmt.Appendf(nil, "retry: %d\n\n", again))
	}
	s.play(r.Context(), watcher, first, ok)
	return nil
}

// stream is an answer that goes on.
type stream struct {
	wire  *Wire
	asked watching
	run   run.Run
	w     io.Writer
	flush func() error
	gone  error // why nobody reads any more
	slow  bool
}

// play shows everything from the first part on, until the run or the time is over, or nobody reads.
func (s *stream) play(ctx context.Context, watcher *watch.Watcher, part watch.Part, ok bool) {
	until := time.Now().Add(longest)
	if deadline, bounded := ctx.Deadline(); bounded && deadline.Add(-goodbye).Before(until) {
		until = deadline.Add(-goodbye)
	}
	for s.gone == nil {
		if ok {
			if err := s.show(ctx, part); err != nil {
				s.say("error", fields{"code": codes[fault.KindOf(err)], "message": fault.Message(err), "last_seq": watcher.Position()})
				return
			}
			if part.Ends() {
				return
			}
			if s.slow {
				s.say("error", fields{"code": "slow_consumer", "message": "Messages were taken too slowly.", "last_seq": watcher.Position()})
				return
			}
		}
		left := time.Until(until)
		if left <= 0 {
			s.say("timeout", fields{"message": "The connection has lasted as long as one may; come back with the last seq.", "last_seq": watcher.Position()})
			return
		}
		var err error
		part, ok, err = watcher.Next(ctx, min(left, silence))
		switch {
		case ctx.Err() != nil:
			s.say("timeout", fields{"message": "The server is about to stop; come back with the last seq.", "last_seq": watcher.Position()})
			return
		case err != nil:
			s.say("error", fields{"code": codes[fault.KindOf(err)], "message": fault.Message(err), "last_seq": watcher.Position()})
			return
		case !ok && time.Now().Before(until):
			s.say("heartbeat", fields{"last_seq": watcher.Position()})
		}
	}
}

// show shows what a page adds.
func (s *stream) show(ctx context.Context, p watch.Part) error {
	messages, err := s.wire.spelled(ctx, &s.run, s.asked, p)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if err := s.tell(m); err != nil {
			return err
		}
	}
	return nil
}

// spelled spells a part for a watcher. A run that had not begun when it was read is read again.
func (w *Wire) spelled(ctx context.Context, r *run.Run, a watching, p watch.Part) ([]message, error) {
	if r.StartedAt.IsZero() {
		again, err := w.Runs.Get(ctx, r.ID)
		if err != nil {
			return nil, err
		}
		*r = again
	}
	all, err := w.messages(ctx, a.format, *r, p)
	return slices.DeleteFunc(all, func(m message) bool { return !a.wants(m) }), err
}

// say tells what is no part of the sequence. After it a client of server-sent events knows when to come back.
func (s *stream) say(kind string, f fields) {
	if s.asked.sse && kind != "heartbeat" {
		s.write(fmt.Appendf(nil, "retry: %d\n", again))
	}
	_ = s.tell(message{Type: kind, At: s.wire.now(), Data: f})
}

func (s *stream) tell(m message) error {
	line, err := s.asked.format.line(m)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	switch {
	case s.asked.sse && m.Seq > 0:
		fmt.Fprintf(&b, "id: %d\ndata: %s\n\n", m.Seq, line)
	case s.asked.sse:
		fmt.Fprintf(&b, "data: %s\n\n", line)
	default:
		b.Write(append(line, '\n'))
	}
	s.write(b.Bytes())
	return nil
}

// write sends at once, and notices who does not take it.
func (s *stream) write(b []byte) {
	if s.gone != nil {
		return
	}
	began := time.Now()
	if _, s.gone = s.w.Write(b); s.gone == nil {
		if err := s.flush(); !errors.Is(err, http.ErrNotSupported) {
			s.gone = err
		}
	}
	s.slow = s.slow || time.Since(began) > patience
}

// pollReply is a page of a long poll. LastSeq is the position for the next one; Ended says that there is none.
type pollReply struct {
	RunID   string            `json:"run_id"`
	Events  []json.RawMessage `json:"events"`
	LastSeq int64             `json:"last_seq"`
	Ended   bool              `json:"ended"`
}

// poll answers as soon as there is something, or when the time is over.
func (w *Wire) poll(rw http.ResponseWriter, r *http.Request, found run.Run, a watching, watcher *watch.Watcher) error {
	reply := pollReply{RunID: id.Show("run", found.ID), Events: []json.RawMessage{}}
	size := 0
	for until := time.Now().Add(a.wait); ; {
		wait := time.Until(until)
		if len(reply.Events) > 0 {
			wait = 0
		}
		part, ok, err := watcher.Next(r.Context(), wait)
		if errors.Is(err, watch.ErrOver) {
			reply.Ended = true
			break
		}
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		messages, err := w.spelled(r.Context(), &found, a, part)
		if err != nil {
			return err
		}
		for _, m := range messages {
			line, err := a.format.line(m)
			if err != nil {
				return err
			}
			size += len(line)
			reply.Events = append(reply.Events, line)
		}
		if reply.Ended = part.Ends(); reply.Ended || len(reply.Events) >= mostMessages || size >= mostBytes {
			break
		}
	}
	reply.LastSeq = watcher.Position()
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

// sendOn sends a watcher to the function that streams, which is at a URL of its own. The token does not go along: clients
// leave it behind when they are sent elsewhere. A ticket goes.
func (w *Wire) sendOn(rw http.ResponseWriter, r *http.Request, c workspace.Caller, found run.Run) error {
	q := r.URL.Query()
	if c.Kind != workspace.Ticket {
		ticket, _, err := w.ticket(r.Context(), found)
		if err != nil {
			return err
		}
		q.Set("ticket", ticket)
	}
	rw.Header().Set("Location", strings.TrimSuffix(w.StreamURL, "/")+r.URL.Path+"?"+q.Encode())
	rw.WriteHeader(http.StatusTemporaryRedirect)
	return nil
}

// ticketTime is how long a ticket holds.
const ticketTime = 15 * time.Minute

// ticketReply is a ticket, which is shown once.
type ticketReply struct {
	Ticket    string  `json:"ticket"`
	URL       string  `json:"url"`
	ExpiresAt *string `json:"expires_at"`
}

// addTicket gives a ticket to a browser, whose EventSource and WebSocket cannot send an Authorization. With it one run can
// be watched for some minutes, and nothing else can be done.
func (w *Wire) addTicket(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	found, err := w.run(r, c)
	if err != nil {
		return err
	}
	ticket, until, err := w.ticket(r.Context(), found)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusCreated, ticketReply{
		Ticket: ticket, URL: "/v1/runs/" + id.Show("run", found.ID) + "/events?ticket=" + url.QueryEscape(ticket), ExpiresAt: timestamp(until),
	})
}

func (w *Wire) ticket(ctx context.Context, r run.Run) (string, time.Time, error) {
	until := w.now().Add(ticketTime)
	ticket, err := w.Tokens.Mint(ctx, workspace.Caller{
		Kind: workspace.Ticket, WorkspaceID: r.WorkspaceID, DeploymentID: r.DeploymentID, RunID: r.ID, Until: until,
	})
	return ticket, until, err
}

// encode writes JSON without escapes for HTML.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode a message: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
