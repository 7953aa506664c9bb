package deploywire

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"time"
	"unicode/utf8"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/trigger"
	"muster/shared/workspace"
)

// receiptReply is what is kept of a request to a trigger.
type receiptReply struct {
	ID           string  `json:"id"`
	TriggerID    string  `json:"trigger_id"`
	DeploymentID string  `json:"deployment_id"`
	ReceivedAt   *string `json:"received_at"`
	Status       string  `json:"status"`
	Reason       *string `json:"reason"`
	RunID        *string `json:"run_id"`
	DeliveryID   *string `json:"delivery_id"`
	ReplayOf     *string `json:"replay_of"`
	// BodyBytes is how long the body was.
	BodyBytes int `json:"body_bytes"`
}

// wholeReceipt has the request too. Body is null when none is kept, BodyBase64 is there instead when it is no text.
type wholeReceipt struct {
	receiptReply
	Headers       map[string]string `json:"headers"`
	Body          *string           `json:"body"`
	BodyBase64    string            `json:"body_base64,omitempty"`
	BodyTruncated bool              `json:"body_truncated"`
}

type receiptsReply struct {
	Receipts   []receiptReply `json:"receipts"`
	NextCursor *string        `json:"next_cursor"`
}

func showReceipt(r trigger.Receipt) receiptReply {
	reply := receiptReply{
		ID: trigger.ShowReceipt(r.Trigger, r.ID), TriggerID: id.Show("inc", r.Trigger), DeploymentID: id.Show("dep", r.DeploymentID),
		ReceivedAt: timestamp(r.At), Status: string(r.Status), Reason: text(r.Reason), DeliveryID: text(r.Delivery), BodyBytes: r.Size,
	}
	if r.Run != "" {
		reply.RunID = text(id.Show("run", r.Run))
	}
	if r.ReplayOf != "" {
		reply.ReplayOf = text(trigger.ShowReceipt(r.Trigger, r.ReplayOf))
	}
	return reply
}

func (w *Wire) listReceipts(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	q, err := readReceiptQuery(r.URL.Query())
	if err != nil {
		return err
	}
	if q.DeploymentIDs, err = w.asked(r.Context(), r.URL.Query().Get("deployment_id"), c); err != nil {
		return err
	}
	found, next, err := w.Triggers.Receipts(r.Context(), q)
	if err != nil {
		return err
	}
	reply := receiptsReply{Receipts: []receiptReply{}}
	for _, one := range found {
		reply.Receipts = append(reply.Receipts, showReceipt(one))
	}
	if next != "" {
		reply.NextCursor = text(id.Show("rec", next))
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

func readReceiptQuery(v url.Values) (q trigger.ReceiptQuery, err error) {
	if q.Limit, err = readLimit(v); err != nil {
		return q, err
	}
	ok := true
	if shown := v.Get("trigger"); shown != "" {
		if q.Trigger, ok = id.Parse("inc", shown); !ok {
			return q, fault.New(fault.Invalid, "\"trigger\" must be the id of an incoming webhook.")
		}
	}
	if cursor := v.Get("cursor"); cursor != "" {
		if q.Cursor, ok = id.Parse("rec", cursor); !ok {
			return q, errCursor
		}
	}
	if q.Status = trigger.Status(v.Get("status")); q.Status != "" && !slices.Contains(trigger.Statuses, q.Status) {
		return q, fault.New(fault.Invalid, "There is no status %q; there are %v.", q.Status, trigger.Statuses)
	}
	for name, bound := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if at := v.Get(name); at != "" {
			if *bound, err = parseTime(name, at); err != nil {
				return q, err
			}
		}
	}
	return q, nil
}

// receipt finds the receipt that the path names, if the caller may see it, and the body that is kept with it.
func (w *Wire) receipt(r *http.Request, c workspace.Caller) (trigger.Receipt, []byte, error) {
	shown := r.PathValue("id")
	unknown := fault.New(fault.NotFound, "There is no receipt %q.", shown)
	triggerID, receiptID, ok := trigger.ParseReceipt(shown)
	if !ok {
		return trigger.Receipt{}, nil, unknown
	}
	found, body, err := w.Triggers.Receipt(r.Context(), triggerID, receiptID)
	if fault.Is(err, fault.NotFound) || err == nil && !c.Sees(found.WorkspaceID, found.DeploymentID) {
		return trigger.Receipt{}, nil, unknown
	}
	return found, body, err
}

func (w *Wire) getReceipt(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	found, body, err := w.receipt(r, c)
	if err != nil {
		return err
	}
	reply := wholeReceipt{receiptReply: showReceipt(found), Headers: found.Headers, BodyTruncated: found.Kept > 0 && found.Kept < found.Size}
	switch {
	case found.Kept == 0:
	case utf8.Valid(body):
		s := string(body)
		reply.Body = &s
	default:
		reply.BodyBase64 = base64.StdEncoding.EncodeToString(body)
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

// replayReceipt does what the request asked for once more, as the trigger is now.
func (w *Wire) replayReceipt(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	found, body, err := w.receipt(r, c)
	if err != nil {
		return err
	}
	a, q, err := w.Triggers.Replay(r.Context(), found, body)
	if q != nil && q.ReceiptID() != "" {
		rw.Header().Set(ReceiptHeader, q.ReceiptID())
	}
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.Conflict, "The webhook of this receipt was deleted, so it cannot be replayed.")
	}
	if err != nil {
		return err
	}
	return writeAnswer(rw, a)
}
