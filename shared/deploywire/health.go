package deploywire

import (
	"net/http"
	"time"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/webhook"
	"muster/shared/workspace"
)

// healthReply lists what somebody has to look after: the sweeper will, within a minute, unless something is wrong with it.
type healthReply struct {
	Runs       []overdueRun      `json:"runs"`
	Deliveries []overdueDelivery `json:"deliveries"`
	CheckedAt  *string           `json:"checked_at"`
}

type overdueRun struct {
	RunID        string      `json:"run_id"`
	DeploymentID string      `json:"deployment_id"`
	State        run.State   `json:"state"`
	DueSince     *string     `json:"due_since"`
	Reason       run.Finding `json:"reason"`
	// TakeOvers counts the owners that died since the run last got further.
	TakeOvers int `json:"take_overs"`
}

type overdueDelivery struct {
	DeliveryID string         `json:"delivery_id"`
	RunID      string         `json:"run_id"`
	Status     webhook.Status `json:"status"`
	DueSince   *string        `json:"due_since"`
	Reason     run.Finding    `json:"reason"`
	Attempts   int            `json:"attempts"`
}

func (w *Wire) health(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	runs, keys, err := w.Runs.Overdue(r.Context(), c.WorkspaceID)
	if err != nil {
		return err
	}
	now := time.Now()
	if w.Runs.Now != nil {
		now = w.Runs.Now()
	}
	reply := healthReply{Runs: []overdueRun{}, Deliveries: []overdueDelivery{}, CheckedAt: timestamp(now)}
	for _, o := range runs {
		reply.Runs = append(reply.Runs, overdueRun{
			RunID: id.Show("run", o.Run.ID), DeploymentID: id.Show("dep", o.Run.DeploymentID), State: o.Run.State,
			DueSince: timestamp(o.Since), Reason: o.Finding, TakeOvers: o.Run.TakeOvers,
		})
	}
	for _, k := range keys {
		d, err := webhook.Deliveries{Store: w.Runs.Store}.At(r.Context(), k)
		if fault.Is(err, fault.NotFound) || err == nil && (d.Due.IsZero() || d.Due.After(now)) {
			continue // somebody was quicker
		}
		if err != nil {
			return err
		}
		reply.Deliveries = append(reply.Deliveries, overdueDelivery{
			DeliveryID: d.Shown(), RunID: id.Show("run", d.RunID), Status: d.Status, DueSince: timestamp(d.Due), Reason: run.NotDelivered,
			Attempts: len(d.Attempts),
		})
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}
