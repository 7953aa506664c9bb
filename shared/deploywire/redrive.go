package deploywire

import (
	"context"
	"net/http"
	"time"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/resend"
	"muster/shared/webhook"
	"muster/shared/workspace"
)

// redriveState is a redrive and how far it has come. Looked counts the deliveries that were looked at, or, when Status is
// skipped, the runs; Sent those that are sent again.
type redriveState struct {
	ID        string  `json:"id"`
	WebhookID string  `json:"webhook_id"`
	State     string  `json:"state"`
	Status    string  `json:"status"`
	Since     *string `json:"since"`
	Until     *string `json:"until"`
	// CoversUntil is the time before which nothing is passed over.
	CoversUntil *string `json:"covers_until"`
	Event       *string `json:"event"`
	Looked      int     `json:"looked"`
	Sent        int     `json:"sent"`
	CreatedAt   *string `json:"created_at"`
	EndedAt     *string `json:"ended_at"`
}

func showRedrive(r resend.Redrive) redriveState {
	return redriveState{
		ID: id.Show("rdr", r.ID), WebhookID: id.Show("wh", r.EndpointID), State: string(r.State), Status: string(r.Ask.Status),
		Since: timestamp(r.Ask.Since), Until: timestamp(r.Ask.Until), CoversUntil: timestamp(r.CoversUntil()),
		Event: text(r.Ask.Event), Looked: r.Looked, Sent: r.Sent,
		CreatedAt: timestamp(r.CreatedAt), EndedAt: timestamp(r.EndedAt),
	}
}

type redriveStates struct {
	Redrives   []redriveState `json:"redrives"`
	NextCursor *string        `json:"next_cursor"`
}

// startRedrive begins to send again what is asked for.
func (w *Wire) startRedrive(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, err := optionalObject(r)
	if err != nil {
		return err
	}
	ask, err := readAsk(o)
	if err != nil {
		return err
	}
	e, err := w.endpoint(r, c)
	if err != nil {
		return err
	}
	begun, err := w.Resend.Start(r.Context(), e, ask, r.Header.Get("Idempotency-Key"))
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown("status", "since", "until", "event"))
	return httpapi.WriteJSON(rw, http.StatusAccepted, showRedrive(begun))
}

// readAsk reads what is to be sent again: what is exhausted, unless a status is named.
func readAsk(o httpapi.Object) (ask resend.Ask, err error) {
	status, err := o.String("status")
	if err != nil {
		return ask, err
	}
	if ask.Status = webhook.Status(status); status == "" {
		ask.Status = webhook.Exhausted
	}
	if ask.Event, err = o.String("event"); err != nil {
		return ask, err
	}
	for name, bound := range map[string]*time.Time{"since": &ask.Since, "until": &ask.Until} {
		if *bound, err = readTime(o, name); err != nil {
			return ask, err
		}
	}
	return ask, nil
}

func (w *Wire) listRedrives(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	e, err := w.endpoint(r, c)
	if err != nil {
		return err
	}
	all, err := w.Resend.Redrives(r.Context(), e.ID)
	if err != nil {
		return err
	}
	reply := redriveStates{Redrives: []redriveState{}}
	for _, one := range all {
		reply.Redrives = append(reply.Redrives, showRedrive(one))
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

func (w *Wire) getRedrive(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	return w.onRedrive(rw, r, c, w.Resend.Redrive)
}

// cancelRedrive stops a redrive; what it has sent stays sent.
func (w *Wire) cancelRedrive(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	return w.onRedrive(rw, r, c, w.Resend.Cancel)
}

func (w *Wire) onRedrive(rw http.ResponseWriter, r *http.Request, c workspace.Caller, do func(ctx context.Context, endpointID, redriveID string) (resend.Redrive, error)) error {
	e, err := w.endpoint(r, c)
	if err != nil {
		return err
	}
	shown := r.PathValue("redrive")
	redriveID, ok := id.Parse("rdr", shown)
	if !ok {
		return fault.New(fault.NotFound, "There is no redrive %q.", shown)
	}
	found, err := do(r.Context(), e.ID, redriveID)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, showRedrive(found))
}
