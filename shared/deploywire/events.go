package deploywire

import (
	"net/http"

	"muster/events"
	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/workspace"
)

// eventReply is the answer to an event from outside: 201 when the run's journal has it, 202 when it will get it, or, should the
// run end just then, not.
type eventReply struct {
	ID    string `json:"id"`
	RunID string `json:"run_id"`
	Type  string `json:"type"`
}

func (w *Wire) addEvent(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, _, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	eventType, err := o.String("type")
	if err != nil {
		return err
	}
	if eventType == "" {
		return fault.New(fault.Invalid, "\"type\" is missing.")
	}
	found, err := w.run(r, c)
	if err != nil {
		return err
	}
	eventID, recorded, err := w.Runs.Tell(r.Context(), found.ID, eventType, o["data"])
	if err != nil {
		return err
	}
	status := http.StatusAccepted
	if recorded {
		status = http.StatusCreated
	}
	httpapi.Warn(rw, o.Unknown("type", "data"))
	return httpapi.WriteJSON(rw, status, eventReply{ID: eventID, RunID: id.Show("run", found.ID), Type: eventType})
}

// typesReply holds the catalogue, and the names that outgoing webhooks may ask for beside it.
type typesReply struct {
	Types     []events.Kind  `json:"types"`
	Lifecycle []events.Named `json:"lifecycle"`
}

func (w *Wire) eventTypes(rw http.ResponseWriter, _ *http.Request, _ workspace.Caller) error {
	return httpapi.WriteJSON(rw, http.StatusOK, typesReply{events.All(), events.Lifecycle()})
}
