package deploywire

import (
	"context"
	"net/http"
	"strings"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/run"
	"muster/shared/trigger"
	"muster/shared/workspace"
)

// ReceiptHeader names the receipt of a request to a trigger.
const ReceiptHeader = "Muster-Receipt"

type ignoredReply struct {
	Status string `json:"status"`
}

// receive takes a request to an incoming webhook. The token in the path is all the permission there is, unless the webhook
// names its sender; Authorization is not read.
func (w *Wire) receive(rw http.ResponseWriter, r *http.Request, _ workspace.Caller) error {
	ctx := r.Context()
	t, err := w.Triggers.ByToken(ctx, r.PathValue("token"))
	if err != nil {
		w.Triggers.Stray(ctx, err)
		return err
	}
	body, unread := httpapi.ReadRaw(r, httpapi.MaxBody)
	q := w.Triggers.Begin(t, r.Header, body)
	async := prefersAsync(r.Header)
	var a trigger.Answer
	if unread != nil && t.Enabled {
		err = w.Triggers.Refuse(ctx, q, unread)
	} else {
		a, err = w.Triggers.Receive(ctx, q, async)
	}
	if receipt := q.ReceiptID(); receipt != "" && !fault.Is(err, fault.NotFound) { // who asks in vain learns nothing
		rw.Header().Set(ReceiptHeader, receipt)
	}
	if fault.Is(err, fault.Unauthorized) && t.Sender.Scheme == trigger.Basic {
		rw.Header().Set("WWW-Authenticate", `Basic realm="webhook"`)
	}
	if err != nil {
		return err
	}
	if async && a.Run.ID != "" {
		rw.Header().Set("Preference-Applied", "respond-async")
	}
	if t.Sender.Scheme == trigger.Slack && a.Run.ID != "" {
		return writeToSlack(rw, a)
	}
	return writeAnswer(rw, a)
}

// slackReply is the answer to Slack, which shows the text to whoever has typed a command.
type slackReply struct {
	startReply
	Text string `json:"text"`
}

// writeToSlack answers 200: of a command, Slack takes anything else for a failure.
func writeToSlack(rw http.ResponseWriter, a trigger.Answer) error {
	showRate(rw, a.Run)
	reply := slackReply{startReply: newStartReply(a.Run)}
	reply.Text = "The run " + reply.RunID + " has begun."
	if a.Pending {
		reply.Status, reply.Text = statusWords[run.Queued], "The run "+reply.RunID+" begins as soon as it can."
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

func writeAnswer(rw http.ResponseWriter, a trigger.Answer) error {
	showRate(rw, a.Run)
	switch {
	case a.Reply != nil:
		return httpapi.WriteJSON(rw, http.StatusOK, a.Reply)
	case a.Ignored:
		return httpapi.WriteJSON(rw, http.StatusOK, ignoredReply{"ignored"})
	}
	reply := newStartReply(a.Run)
	if a.Pending {
		reply.Status = statusWords[run.Queued]
	}
	return httpapi.WriteJSON(rw, http.StatusAccepted, reply)
}

// prefersAsync says whether the caller does not want to wait (RFC 7240).
func prefersAsync(h http.Header) bool {
	for _, line := range h.Values("Prefer") {
		for one := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(one, ";")
			if strings.EqualFold(strings.TrimSpace(name), "respond-async") {
				return true
			}
		}
	}
	return false
}

// Direct starts a run for an invocation of the function that is no request: payload is what its owner made EventBridge
// send, and id the same when it is sent again. event says that it came as the detail of an event, rather than from a
// schedule.
func (w *Wire) Direct(ctx context.Context, payload []byte, id string, event bool) (any, error) {
	d, err := trigger.ParseDirect(payload)
	if err != nil {
		return nil, err
	}
	if d.Execution == "" {
		d.Execution = id
	}
	if event {
		d.Origin = "trigger"
	}
	started, err := w.Triggers.StartDirect(ctx, d)
	if err != nil {
		return nil, err
	}
	reply := newStartReply(started)
	reply.Status = statusWords[started.State]
	return reply, nil
}
