package deploywire

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"muster/events"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/webhook"
)

// The bodies of outgoing webhooks. A page has one for each name that the endpoint asks for, where a run stands first, the
// events of the catalogue in their order.

// outgoing is a body in the format crewship.
type outgoing struct {
	Event     string  `json:"event"`
	Timestamp *string `json:"timestamp"`
	Data      any     `json:"data"`
}

// outgoingRun is what is told of a run. ErrorMessage is there when the run failed, Approval when it waits for one, Meta when
// the kickoff gave it.
type outgoingRun struct {
	RunID        string            `json:"run_id"`
	DeploymentID string            `json:"deployment_id"`
	Status       string            `json:"status"`
	Output       *output           `json:"output"`
	StartedAt    *string           `json:"started_at"`
	CompletedAt  *string           `json:"completed_at"`
	ErrorMessage *string           `json:"error_message,omitempty"`
	Approval     *outgoingApproval `json:"approval,omitempty"`
	Meta         json.RawMessage   `json:"meta,omitempty"`
}

type outgoingApproval struct {
	ID        string  `json:"id"`
	Task      string  `json:"task"`
	Output    string  `json:"output"`
	Round     int     `json:"round"`
	ExpiresAt *string `json:"expires_at"`
}

// Outgoing makes the bodies of the format crewship.
func Outgoing(r run.Run, q run.Request, p run.Page, t run.Target, messages []json.RawMessage) (bodies []webhook.Body, err error) {
	for _, name := range p.Lifecycle() {
		if !t.Asks(name) {
			continue
		}
		at, data := tellRun(name, r, q, p)
		if bodies, err = addBody(bodies, name, outgoing{name, timestamp(at), data}); err != nil {
			return nil, err
		}
	}
	for _, e := range p.Events {
		if !t.Asks(e.Type) {
			continue
		}
		data, err := tellEvent(e, r, q, messages)
		if err != nil {
			return nil, err
		}
		if bodies, err = addBody(bodies, e.Type, outgoing{e.Type, timestamp(e.At), data}); err != nil {
			return nil, err
		}
	}
	return bodies, nil
}

func addBody(bodies []webhook.Body, event string, v any) ([]webhook.Body, error) {
	raw, err := webhook.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write the body of %s: %w", event, err)
	}
	return append(bodies, webhook.Body{JSON: raw, Event: event}), nil
}

// tellRun tells where a run stands on a page. It is a function of the page: the run item is used for what never changes.
func tellRun(name string, r run.Run, q run.Request, p run.Page) (at time.Time, data outgoingRun) {
	data = outgoingRun{
		RunID: id.Show("run", r.ID), DeploymentID: id.Show("dep", r.DeploymentID), Status: statusWords[run.Running],
		StartedAt: timestamp(r.StartedAt), Meta: q.Meta,
	}
	switch {
	case name == events.RunStarted:
		i := slices.IndexFunc(p.Events, func(e events.Event) bool { return e.Type == "crew_kickoff_started" })
		return p.Events[i].At, data
	case p.Asked != nil:
		a := *p.Asked
		data.Approval = &outgoingApproval{ID: a.ID, Task: a.Task.Name, Output: a.Task.Raw, Round: a.Round, ExpiresAt: timestamp(a.Expires)}
	case p.Outcome != nil:
		o := *p.Outcome
		data.Status, data.CompletedAt = statusWords[o.State], timestamp(p.At)
		switch name {
		case events.RunSucceeded:
			data.Output = &output{Result: o.Result, ResultJSON: o.JSON}
		case events.RunFailed:
			data.ErrorMessage = &o.Error
		}
	}
	return p.At, data
}

// tellEvent tells an event of the catalogue: what it shows in a stream, and which run it is of.
func tellEvent(e events.Event, r run.Run, q run.Request, messages []json.RawMessage) (data json.RawMessage, err error) {
	published := e.Publish(r.ID, messages).Data
	var own map[string]json.RawMessage
	if err := json.Unmarshal(published, &own); err != nil {
		return nil, fmt.Errorf("read event %s of run %s: %w", e.ID, r.ID, err)
	}
	of := struct {
		RunID        string          `json:"run_id"`
		DeploymentID string          `json:"deployment_id"`
		Meta         json.RawMessage `json:"meta,omitempty"`
	}{id.Show("run", r.ID), id.Show("dep", r.DeploymentID), q.Meta}
	if own["meta"] != nil {
		of.Meta = nil // the event's own
	}
	more, err := json.Marshal(of)
	if err != nil {
		return nil, err
	}
	// Of a key that is there twice, the last value counts: nobody passes an event off as another run's.
	return append(append(published[:len(published)-1:len(published)-1], ','), more[1:]...), nil
}

// outgoingNews is what is told of an endpoint.
type outgoingNews struct {
	EndpointID   string  `json:"endpoint_id"`
	DeploymentID string  `json:"deployment_id"`
	Environment  string  `json:"environment"`
	Name         string  `json:"name"`
	Reason       *string `json:"reason,omitempty"`
	Message      string  `json:"message"`
}

// Notice makes the body of what belongs to no run, in any format.
func Notice(format string, n webhook.Notice) ([]byte, error) {
	message := sentences[n.Event]
	if n.Why != "" {
		message = disabledBecause[n.Why]
	}
	data := outgoingNews{
		EndpointID: id.Show("wh", n.About.ID), DeploymentID: id.Show("dep", n.About.DeploymentID), Environment: n.About.Environment,
		Name: n.About.Name, Reason: text(string(n.Why)), Message: message,
	}
	switch format {
	case webhook.Slack, webhook.Discord:
		return note{title: "Webhook " + n.About.Name, detail: message, at: n.At, bad: n.Why != ""}.in(format)
	case webhook.AMPStream:
		own, err := json.Marshal(data)
		if err != nil {
			return nil, err
		}
		e := events.Event{ID: n.ID, At: n.At, Type: n.Event, Data: own}
		return webhook.Marshal(map[string]any{"events": []events.Published{e.Publish(n.ID, nil)}})
	}
	return webhook.Marshal(outgoing{n.Event, timestamp(n.At), data})
}

// sentences say in a few words what a notice or the name of a lifecycle means.
var sentences = map[string]string{
	"ping":                   "This is a test.",
	events.EndpointRecovered: "Its receiver answers again; what waited for it is on its way.",
	events.RunStarted:        "Run started",
	events.RunWaiting:        "Run waits for an answer",
	events.RunSucceeded:      "Run succeeded",
	events.RunFailed:         "Run failed",
	events.RunCanceled:       "Run canceled",
}

// disabledBecause says why an endpoint was disabled.
var disabledBecause = map[webhook.DisabledBy]string{
	webhook.ByGone:    "It was disabled because its receiver answered 410 Gone. What was meant for it waits until it is enabled.",
	webhook.ByFailing: "It was disabled because its receiver did nothing but fail for five days. What was meant for it waits until it is enabled.",
}
