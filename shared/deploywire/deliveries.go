package deploywire

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/webhook"
	"muster/shared/workspace"
)

// deliverySummary is a delivery in a log. What was said is of its newest attempt.
type deliverySummary struct {
	ID           string  `json:"id"`
	Event        *string `json:"event"`
	RunID        *string `json:"run_id"`
	Status       string  `json:"status"`
	ResponseCode *int    `json:"response_code"`
	Error        *string `json:"error"`
	// Timestamp is when it was tried last, or made.
	Timestamp     *string `json:"timestamp"`
	Attempts      int     `json:"attempts"`
	NextAttemptAt *string `json:"next_attempt_at"`
	// Parked says that it waits for its endpoint to be enabled, or to answer again.
	Parked bool `json:"parked"`
}

func summarizeDelivery(d webhook.Delivery) deliverySummary {
	s := deliverySummary{
		ID: d.Shown(), Event: text(d.Event), Status: string(d.Status), Timestamp: timestamp(d.CreatedAt), Attempts: d.Made(),
		NextAttemptAt: timestamp(d.NextAttempt), Parked: d.Parked,
	}
	if d.Seq > 0 {
		s.RunID = text(id.Show("run", d.RunID))
	}
	if n := len(d.Attempts); n > 0 {
		newest := d.Attempts[n-1]
		s.ResponseCode, s.Error, s.Timestamp = code(newest), text(newest.Error), timestamp(newest.At)
	}
	return s
}

// code is the status that a receiver answered, null when it did not.
func code(a webhook.Attempt) *int {
	if a.Code == 0 {
		return nil
	}
	return &a.Code
}

type deliveriesReply struct {
	Deliveries []deliverySummary `json:"deliveries"`
	NextCursor *string           `json:"next_cursor"`
}

func showDeliveries(found []webhook.Delivery, next string) deliveriesReply {
	reply := deliveriesReply{Deliveries: []deliverySummary{}, NextCursor: text(next)}
	for _, d := range found {
		reply.Deliveries = append(reply.Deliveries, summarizeDelivery(d))
	}
	return reply
}

// listDeliveries is the log of an endpoint.
func (w *Wire) listDeliveries(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	q, err := readLog(r.URL.Query())
	if err != nil {
		return err
	}
	e, err := w.endpoint(r, c)
	if err != nil {
		return err
	}
	q.Endpoint = e.ID
	found, next, err := w.Deliveries.Log(r.Context(), q)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, showDeliveries(found, next))
}

// readLog reads the query of a log.
func readLog(v url.Values) (q webhook.LogRequest, err error) {
	q = webhook.LogRequest{Event: v.Get("event"), Cursor: v.Get("cursor")}
	for _, word := range v["status"] {
		s, err := webhook.ParseStatus(word)
		if err != nil {
			return q, err
		}
		q.Statuses = append(q.Statuses, s)
	}
	if shown := v.Get("run_id"); shown != "" {
		var ok bool
		if q.RunID, ok = id.Parse("run", shown); !ok {
			return q, fault.New(fault.Invalid, "\"run_id\" is no id of a run.")
		}
	}
	for name, bound := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if written := v.Get(name); written != "" {
			if *bound, err = parseTime(name, written); err != nil {
				return q, err
			}
		}
	}
	q.Limit, err = readLimit(v)
	return q, err
}

// deliveryReply is a delivery with its attempts, the oldest first. Attempted counts all of them, also those that are
// not listed any more.
type deliveryReply struct {
	ID            string         `json:"id"`
	Event         *string        `json:"event"`
	RunID         *string        `json:"run_id"`
	WebhookID     *string        `json:"webhook_id"`
	Target        *string        `json:"target"`
	Status        string         `json:"status"`
	CreatedAt     *string        `json:"created_at"`
	NextAttemptAt *string        `json:"next_attempt_at"`
	Parked        bool           `json:"parked"`
	Attempted     int            `json:"attempted"`
	Attempts      []attemptReply `json:"attempts"`
}

type attemptReply struct {
	Timestamp       *string           `json:"timestamp"`
	LatencyMS       int64             `json:"latency_ms"`
	ResponseCode    *int              `json:"response_code"`
	ErrorClass      *string           `json:"error_class"`
	Error           *string           `json:"error"`
	ResponseHeaders map[string]string `json:"response_headers"`
	ResponseBody    string            `json:"response_body"`
	Truncated       bool              `json:"truncated"`
}

func (w *Wire) getDelivery(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	d, err := w.delivery(r, c)
	if err != nil {
		return err
	}
	reply := deliveryReply{
		ID: d.Shown(), Event: text(d.Event), Status: string(d.Status), CreatedAt: timestamp(d.CreatedAt), NextAttemptAt: timestamp(d.NextAttempt),
		Parked: d.Parked, Attempted: d.Made(), Attempts: []attemptReply{},
	}
	if d.Seq > 0 {
		reply.RunID = text(id.Show("run", d.RunID))
	}
	if webhook.IsEndpoint(d.Target) {
		reply.WebhookID = text(id.Show("wh", d.Target))
	} else {
		reply.Target = text(d.Target)
	}
	for _, a := range d.Attempts {
		headers := a.Headers
		if headers == nil {
			headers = map[string]string{}
		}
		reply.Attempts = append(reply.Attempts, attemptReply{
			Timestamp: timestamp(a.At), LatencyMS: a.LatencyMS, ResponseCode: code(a), ErrorClass: text(a.Class), Error: text(a.Error),
			ResponseHeaders: headers, ResponseBody: a.Response, Truncated: a.Truncated,
		})
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

// delivery finds the delivery that the path names, if the caller may see it. One that is tried for the first time just now
// has no record yet; it is there all the same, for the receiver may ask about it.
func (w *Wire) delivery(r *http.Request, c workspace.Caller) (webhook.Delivery, error) {
	shown, ctx := r.PathValue("id"), r.Context()
	unknown := fault.New(fault.NotFound, "There is no delivery %q.", shown)
	at, ok := webhook.ParseDeliveryID(shown)
	if !ok {
		return webhook.Delivery{}, unknown
	}
	d, err := w.Deliveries.Get(ctx, at.RunID, at.Seq, at.Target, at.Part)
	absent := fault.Is(err, fault.NotFound)
	if err != nil && !absent || absent && at.Seq == 0 {
		if absent {
			err = unknown
		}
		return webhook.Delivery{}, err
	}
	sees, err := w.seesDelivery(ctx, d, at, c)
	if err != nil || !sees {
		if err == nil || fault.Is(err, fault.NotFound) {
			err = unknown
		}
		return webhook.Delivery{}, err
	}
	if !absent {
		return d, nil
	}
	page, err := w.Runs.Page(ctx, at.RunID, at.Seq)
	if fault.Is(err, fault.NotFound) || err == nil && !slices.Contains(page.Targets, at.Target) {
		return webhook.Delivery{}, unknown
	}
	if err != nil {
		return webhook.Delivery{}, err
	}
	siblings, err := w.Deliveries.OfPage(ctx, at.RunID, at.Seq, at.Target)
	if err != nil {
		return webhook.Delivery{}, err
	}
	// Any record tells how many parts there are, and that of the whole that it was cut in two.
	index, halves, _ := webhook.SplitPart(at.Part)
	beyond := func(d webhook.Delivery) bool { return index >= d.Parts }
	whole := func(d webhook.Delivery) bool { return d.Halved && d.Part == at.Part[:len(at.Part)-1] }
	if slices.ContainsFunc(siblings, beyond) || halves != "" && !slices.ContainsFunc(siblings, whole) {
		return webhook.Delivery{}, unknown
	}
	return webhook.New(at.RunID, at.Seq, at.Target, at.Part, "", page.At), nil
}

// seesDelivery tells whether a delivery is the caller's to see: what belongs to no run belongs to a deployment.
func (w *Wire) seesDelivery(ctx context.Context, d webhook.Delivery, at webhook.Place, c workspace.Caller) (bool, error) {
	if at.Seq == 0 {
		of, err := w.Crews.Deployment(ctx, d.Deployment)
		return err == nil && c.Sees(of.WorkspaceID, of.ID), err
	}
	of, err := w.Runs.Get(ctx, at.RunID)
	return err == nil && c.Sees(of.WorkspaceID, of.DeploymentID), err
}

// redeliver asks for another attempt at once.
func (w *Wire) redeliver(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	d, err := w.delivery(r, c)
	if err != nil {
		return err
	}
	if webhook.IsEndpoint(d.Target) {
		e, err := w.Endpoints.Find(r.Context(), d.Target)
		if fault.Is(err, fault.NotFound) {
			return fault.New(fault.Conflict, "The webhook of this delivery was deleted.")
		}
		if err != nil {
			return err
		}
		if !e.Enabled {
			return fault.New(fault.Conflict, "The webhook is disabled; enable it first.")
		}
	}
	if d, err = w.Resend.Redeliver(r.Context(), d); err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusAccepted, summarizeDelivery(d))
}

// targetReply is a target that was given at kickoff, with how its deliveries stand.
type targetReply struct {
	ID       string   `json:"id"`
	Kind     string   `json:"kind"`
	URL      string   `json:"url"`
	Events   []string `json:"events,omitempty"`
	Realtime bool     `json:"realtime,omitempty"`
	// Deliveries counts them by status, Attempts all their attempts.
	Deliveries   map[string]int   `json:"deliveries"`
	Attempts     int              `json:"attempts"`
	LastDelivery *deliverySummary `json:"last_delivery"`
}

type targetsReply struct {
	Targets []targetReply `json:"targets"`
}

func (w *Wire) listTargets(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	found, err := w.run(r, c)
	if err != nil {
		return err
	}
	_, request, err := w.Runs.Whole(r.Context(), found.ID)
	if err != nil {
		return err
	}
	all, err := w.Deliveries.OfRun(r.Context(), found.ID)
	if err != nil {
		return err
	}
	reply := targetsReply{Targets: []targetReply{}}
	for _, t := range request.Targets {
		reply.Targets = append(reply.Targets, showTarget(t, all))
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

func showTarget(t run.Target, all []webhook.Delivery) targetReply {
	reply := targetReply{ID: t.ID, Kind: string(t.Kind), URL: plainURL(t.URL), Events: t.Events, Realtime: t.Realtime, Deliveries: map[string]int{}}
	for _, s := range webhook.Statuses {
		reply.Deliveries[string(s)] = 0
	}
	var newest webhook.Delivery
	for _, d := range all {
		if d.Target != t.ID || d.Parts == 0 {
			continue
		}
		reply.Deliveries[string(d.Status)]++
		reply.Attempts += d.Made()
		if d.Seq >= newest.Seq {
			newest = d
		}
	}
	if newest.ID != "" {
		last := summarizeDelivery(newest)
		reply.LastDelivery = &last
	}
	return reply
}

// plainURL is a URL without what may be a credential: a user, and the values of its query.
func plainURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return masked
	}
	if u.User != nil {
		u.User = url.User(masked)
	}
	query, err := url.ParseQuery(u.RawQuery)
	bare := false // a name without a value may be the credential itself
	for name, values := range query {
		bare = bare || strings.Join(values, "") == ""
		query[name] = []string{masked}
	}
	if u.RawQuery = query.Encode(); err != nil || bare {
		u.RawQuery = masked
	}
	u.Fragment = ""
	return u.String()
}

// listRunDeliveries lists the deliveries of a run to all its targets, the newest first.
func (w *Wire) listRunDeliveries(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	q, err := readLog(r.URL.Query())
	if err != nil {
		return err
	}
	found, err := w.run(r, c)
	if err != nil {
		return err
	}
	if q.RunID, q.Endpoint = found.ID, r.URL.Query().Get("target"); q.Endpoint != "" {
		if endpointID, ok := id.Parse("wh", q.Endpoint); ok {
			q.Endpoint = endpointID
		}
	}
	deliveries, next, err := w.Deliveries.Log(r.Context(), q)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, showDeliveries(deliveries, next))
}

// redeliverTarget asks for what a target of a run did not take.
func (w *Wire) redeliverTarget(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, err := optionalObject(r)
	if err != nil {
		return err
	}
	status, err := o.String("status")
	if err != nil {
		return err
	}
	if status == "" {
		status = string(webhook.Exhausted)
	}
	wanted, err := webhook.ParseStatus(status)
	if err != nil {
		return err
	}
	found, err := w.run(r, c)
	if err != nil {
		return err
	}
	_, request, err := w.Runs.Whole(r.Context(), found.ID)
	if err != nil {
		return err
	}
	target := r.PathValue("target")
	if !slices.ContainsFunc(request.Targets, func(t run.Target) bool { return t.ID == target }) {
		return fault.New(fault.NotFound, "The run was given no target %q.", target)
	}
	sent, err := w.Resend.Target(r.Context(), found.ID, target, wanted)
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown("status"))
	return httpapi.WriteJSON(rw, http.StatusAccepted, map[string]int{"sent": sent})
}
