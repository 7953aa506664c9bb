package deploywire

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"time"

	"muster/events"
	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/webhook"
	"muster/shared/workspace"
)

// endpointReply is an outgoing webhook as it is shown: without its secret, and with the names of its headers only.
type endpointReply struct {
	ID           string            `json:"id"`
	DeploymentID string            `json:"deployment_id"`
	Name         string            `json:"name"`
	URL          string            `json:"url"`
	Events       []string          `json:"events"`
	Environment  string            `json:"environment"`
	Enabled      bool              `json:"enabled"`
	DisabledBy   *string           `json:"disabled_by"`
	Format       string            `json:"format"`
	MaxRPS       *int              `json:"max_rps"`
	Headers      map[string]string `json:"headers"`
	// OldSecretUntil is until when the secret before this one is good too.
	OldSecretUntil *string `json:"old_secret_until"`
	CreatedAt      *string `json:"created_at"`
	UpdatedAt      *string `json:"updated_at"`
}

// listedEndpoint is an outgoing webhook with what came of its newest delivery, null before the first, and why nothing arrives
// if nothing does.
type listedEndpoint struct {
	endpointReply
	LastDelivery *deliverySummary    `json:"last_delivery"`
	Health       endpointHealthReply `json:"health"`
}

// endpointHealthReply is what an endpoint's receiver is known for. While the breaker is not closed all deliveries but a probe
// are parked.
type endpointHealthReply struct {
	Breaker      string  `json:"breaker"`
	OpenSince    *string `json:"open_since"`
	NextProbeAt  *string `json:"next_probe_at"`
	FailingSince *string `json:"failing_since"`
	// HoldUntil is until when the receiver asked to be left alone, NextSlotAt when max_rps has room again.
	HoldUntil  *string `json:"hold_until"`
	NextSlotAt *string `json:"next_slot_at"`
	// Parked counts what waits, up to mostParked.
	Parked int `json:"parked"`
}

// mostParked is how far parked deliveries are counted.
const mostParked = 1000

func showHealth(h webhook.Health, parked int, now time.Time) endpointHealthReply {
	reply := endpointHealthReply{Breaker: "closed", OpenSince: timestamp(h.OpenSince), FailingSince: timestamp(h.FailingSince), Parked: parked}
	switch h.State {
	case webhook.Open:
		reply.Breaker, reply.NextProbeAt = "open", timestamp(h.Due)
	case webhook.Probing:
		reply.Breaker = "probing"
	}
	if now.Before(h.Hold) {
		reply.HoldUntil = timestamp(h.Hold)
	}
	if now.Before(h.Slot) {
		reply.NextSlotAt = timestamp(h.Slot)
	}
	return reply
}

// createdEndpoint shows the secret, this once.
type createdEndpoint struct {
	endpointReply
	Secret string `json:"secret"`
}

type endpointsReply struct {
	Webhooks   []listedEndpoint `json:"webhooks"`
	NextCursor *string          `json:"next_cursor"`
}

// masked stands for the value of a header. Sent back, it means the value that is there.
const masked = "********"

func showEndpoint(e webhook.Endpoint, now time.Time) endpointReply {
	reply := endpointReply{
		ID: id.Show("wh", e.ID), DeploymentID: id.Show("dep", e.DeploymentID), Name: e.Name, URL: e.URL, Events: e.Events,
		Environment: e.Environment, Enabled: e.Enabled, DisabledBy: text(string(e.DisabledBy)), Format: e.Format,
		Headers: map[string]string{}, CreatedAt: timestamp(e.CreatedAt), UpdatedAt: timestamp(e.UpdatedAt),
	}
	if e.MaxRPS > 0 {
		reply.MaxRPS = &e.MaxRPS
	}
	if now.Before(e.OldUntil) {
		reply.OldSecretUntil = timestamp(e.OldUntil)
	}
	for name := range e.Headers {
		reply.Headers[name] = masked
	}
	return reply
}

// createEndpoint makes an endpoint. With an Idempotency-Key a request whose answer got lost can be repeated.
func (w *Wire) createEndpoint(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, body, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	key, digest, err := httpapi.Idempotency(r, "outgoing", body)
	if err != nil {
		return err
	}
	d, err := w.deployment(r.Context(), r.PathValue("id"), c)
	if err != nil {
		return err
	}
	ctx := r.Context()
	e := webhook.Endpoint{
		ID: id.New(), WorkspaceID: d.WorkspaceID, DeploymentID: d.ID, Environment: crew.Production,
		Events: []string{events.RunSucceeded, events.RunFailed}, Format: webhook.Crewship, Enabled: true,
	}
	if key != "" {
		e.ID, e.Request = id.Derive(d.ID, key), digest
	}
	if !o.Has("url") {
		return fault.New(fault.Invalid, "\"url\" is missing.")
	}
	if err := w.changeEndpoint(ctx, o, &e); err != nil {
		return err
	}
	secret := workspace.NewSecret()
	if e.Secret, err = w.Sealer.Seal(ctx, e.WorkspaceID, e.ID, webhook.SecretField, secret); err != nil {
		return err
	}
	err = w.Endpoints.Create(ctx, &e)
	if fault.Is(err, fault.Conflict) && key != "" {
		e, secret, err = w.createdBefore(ctx, e, err)
	}
	if err != nil {
		return err
	}
	httpapi.Warn(rw, endpointWarnings(o, e))
	return httpapi.WriteJSON(rw, http.StatusCreated, createdEndpoint{showEndpoint(e, w.now()), secret})
}

// createdBefore gives the endpoint that an earlier request with the same key has made, if this is its repetition.
func (w *Wire) createdBefore(ctx context.Context, e webhook.Endpoint, conflict error) (found webhook.Endpoint, secret string, err error) {
	found, err = w.Endpoints.Get(ctx, e.DeploymentID, e.ID)
	if fault.Is(err, fault.NotFound) {
		return found, "", conflict
	}
	if err != nil {
		return found, "", err
	}
	if !found.Repeats(e.Request, w.now()) {
		return found, "", fault.New(fault.Conflict, "This Idempotency-Key was used for the webhook %s.", id.Show("wh", found.ID))
	}
	secret, err = w.Sealer.Open(ctx, found.WorkspaceID, found.ID, webhook.SecretField, found.Secret)
	return found, secret, err
}

// endpointFields are what a request may say of an outgoing webhook.
var endpointFields = []string{"name", "url", "events", "environment", "enabled", "headers", "format", "max_rps"}

// endpointWarnings tells of unknown fields, and of types that only events of the user's own can have.
func endpointWarnings(o httpapi.Object, e webhook.Endpoint) []string {
	warnings := o.Unknown(endpointFields...)
	for _, typ := range e.Events {
		if custom, _ := events.CheckFilter(typ); custom && o.Has("events") {
			warnings = append(warnings, ownType(typ))
		}
	}
	return warnings
}

// changeEndpoint makes the changes that a request names; the rest stays. An endpoint without a name gets its host's.
func (w *Wire) changeEndpoint(ctx context.Context, o httpapi.Object, e *webhook.Endpoint) (err error) {
	for field, value := range map[string]*string{"name": &e.Name, "url": &e.URL, "environment": &e.Environment, "format": &e.Format} {
		if !o.Has(field) {
			continue
		}
		if *value, err = o.String(field); err != nil {
			return err
		}
	}
	if o.Has("events") {
		if e.Events, err = o.Strings("events"); err != nil {
			return err
		}
		e.Events = unique(e.Events)
	}
	if o.Has("enabled") {
		if e.Enabled, err = o.Bool("enabled"); err != nil {
			return err
		}
		e.DisabledBy, e.DisabledAt = "", time.Time{}
		if !e.Enabled {
			e.DisabledBy = webhook.ByOwner
		}
	}
	if _, named := o["max_rps"]; named {
		if e.MaxRPS, err = o.Int("max_rps"); err != nil {
			return err
		}
	}
	if _, named := o["headers"]; named {
		if e.Headers, err = w.readHeaders(ctx, o, *e); err != nil {
			return err
		}
	}
	if err := w.CheckURL(e.URL); err != nil {
		return fault.New(fault.Invalid, "url: %s", err)
	}
	if e.Name == "" {
		u, _ := url.Parse(e.URL) // which has been checked
		e.Name = webhook.NameOf(u.Hostname())
	}
	return e.Check()
}

// readHeaders reads and seals the headers that take the place of those there. A masked value stays what it is.
func (w *Wire) readHeaders(ctx context.Context, o httpapi.Object, e webhook.Endpoint) (map[string]string, error) {
	given, err := o.Object("headers")
	if err != nil {
		return nil, err
	}
	sealed := map[string]string{}
	for name := range given {
		var value *string
		if json.Unmarshal(given[name], &value) != nil || value == nil {
			return nil, fault.New(fault.Invalid, "The value of the header %.120q must be a string.", name)
		}
		canonical, err := webhook.CheckHeader(name, *value)
		if err != nil {
			return nil, err
		}
		if _, twice := sealed[canonical]; twice {
			return nil, fault.New(fault.Invalid, "The header %s is given twice.", canonical)
		}
		if *value == masked {
			if sealed[canonical] = e.Headers[canonical]; sealed[canonical] == "" {
				return nil, fault.New(fault.Invalid, "There is no header %s whose value could be kept; send the value.", canonical)
			}
			continue
		}
		sealed[canonical], err = w.Sealer.Seal(ctx, e.WorkspaceID, e.ID, webhook.HeaderField(canonical), *value)
		if err != nil {
			return nil, err
		}
	}
	return sealed, nil
}

// unique drops what was there before, and keeps the order.
func unique(list []string) (kept []string) {
	for _, s := range list {
		if !slices.Contains(kept, s) {
			kept = append(kept, s)
		}
	}
	return kept
}

// listEndpoints lists all of them: a deployment has few.
func (w *Wire) listEndpoints(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	d, err := w.deployment(r.Context(), r.PathValue("id"), c)
	if err != nil {
		return err
	}
	all, err := w.Endpoints.Of(r.Context(), d.ID)
	if err != nil {
		return err
	}
	reply := endpointsReply{Webhooks: []listedEndpoint{}}
	for _, e := range all {
		shown, err := w.describeEndpoint(r.Context(), e)
		if err != nil {
			return err
		}
		reply.Webhooks = append(reply.Webhooks, shown)
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

// describeEndpoint shows an endpoint with its newest delivery and its health.
func (w *Wire) describeEndpoint(ctx context.Context, e webhook.Endpoint) (listedEndpoint, error) {
	newest, _, err := w.Deliveries.Log(ctx, webhook.LogRequest{Endpoint: e.ID, Limit: 1})
	if err != nil {
		return listedEndpoint{}, err
	}
	_, h, err := w.Endpoints.Read(ctx, e.DeploymentID, e.ID)
	if err != nil {
		return listedEndpoint{}, err
	}
	parked, err := w.Deliveries.Parked(ctx, e.ID, mostParked)
	if err != nil {
		return listedEndpoint{}, err
	}
	shown := listedEndpoint{endpointReply: showEndpoint(e, w.now()), Health: showHealth(h, parked, w.now())}
	if len(newest) > 0 {
		last := summarizeDelivery(newest[0])
		shown.LastDelivery = &last
	}
	return shown, nil
}

func (w *Wire) getEndpoint(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	e, err := w.endpoint(r, c)
	if err != nil {
		return err
	}
	shown, err := w.describeEndpoint(r.Context(), e)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, shown)
}

// patchEndpoint changes what it names. An endpoint that is enabled, or has a new URL, begins without old trouble, and is sent
// what has waited for it.
func (w *Wire) patchEndpoint(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, _, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	found, err := w.endpoint(r, c)
	if err != nil {
		return err
	}
	e := found
	if err := w.changeEndpoint(r.Context(), o, &e); err != nil {
		return err
	}
	if e.Enabled && (!found.Enabled || e.URL != found.URL) {
		if err := w.Endpoints.Resume(r.Context(), found); err != nil {
			return err
		}
	}
	e, err = w.Endpoints.Change(r.Context(), found.ID, func(e *webhook.Endpoint) error { return w.changeEndpoint(r.Context(), o, e) })
	if err != nil {
		return err
	}
	shown, err := w.describeEndpoint(r.Context(), e)
	if err != nil {
		return err
	}
	httpapi.Warn(rw, endpointWarnings(o, e))
	return httpapi.WriteJSON(rw, http.StatusOK, shown)
}

func (w *Wire) deleteEndpoint(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	e, err := w.endpoint(r, c)
	if err != nil {
		return err
	}
	if err := w.Endpoints.Delete(r.Context(), e.ID); err != nil {
		return err
	}
	rw.WriteHeader(http.StatusNoContent)
	return nil
}

type secretReply struct {
	ID             string  `json:"id"`
	Secret         string  `json:"secret"`
	OldSecretUntil *string `json:"old_secret_until"`
}

// regenerateSecret shows the new secret, this once, and again to the repetition of a request with an Idempotency-Key.
func (w *Wire) regenerateSecret(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	found, err := w.endpoint(r, c)
	if err != nil {
		return err
	}
	o, ask, err := w.readRotation(r, found.DeploymentID, found.ID)
	if err != nil {
		return err
	}
	sealed, err := w.Sealer.Seal(r.Context(), found.WorkspaceID, found.ID, webhook.SecretField, workspace.NewSecret())
	if err != nil {
		return err
	}
	e, err := w.Endpoints.Change(r.Context(), found.ID, func(e *webhook.Endpoint) error {
		return e.Rotate(ask.id, sealed, ask.overlap, ask.force, w.now())
	})
	if err != nil {
		return err
	}
	secret, err := w.Sealer.Open(r.Context(), e.WorkspaceID, e.ID, webhook.SecretField, e.Secret)
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown("overlap_seconds", "force"))
	return httpapi.WriteJSON(rw, http.StatusOK, secretReply{id.Show("wh", e.ID), secret, timestamp(e.OldUntil)})
}

// regenerateDeploymentSecret does the same for the secret that signs what targets given at kickoff are told.
func (w *Wire) regenerateDeploymentSecret(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	d, err := w.deployment(r.Context(), r.PathValue("id"), c)
	if err != nil {
		return err
	}
	o, ask, err := w.readRotation(r, d.ID, d.ID)
	if err != nil {
		return err
	}
	sealed, err := w.Sealer.Seal(r.Context(), d.WorkspaceID, d.ID, "webhook_secret", workspace.NewSecret())
	if err != nil {
		return err
	}
	d, err = w.Crews.Change(r.Context(), d.ID, func(d *crew.Deployment) error {
		s := webhook.Signing{
			Secret: d.WebhookSecret, Old: d.OldWebhookSecret, OldUntil: d.OldWebhookSecretUntil, Made: d.WebhookSecretMade,
		}
		if err := s.Rotate(ask.id, sealed, ask.overlap, ask.force, w.now()); err != nil {
			return err
		}
		d.WebhookSecret, d.OldWebhookSecret, d.OldWebhookSecretUntil, d.WebhookSecretMade = s.Secret, s.Old, s.OldUntil, s.Made
		return nil
	})
	if err != nil {
		return err
	}
	secret, err := w.Sealer.Open(r.Context(), d.WorkspaceID, d.ID, "webhook_secret", d.WebhookSecret)
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown("overlap_seconds", "force"))
	return httpapi.WriteJSON(rw, http.StatusOK, secretReply{id.Show("dep", d.ID), secret, timestamp(d.OldWebhookSecretUntil)})
}

// rotation is what is asked of another secret: its id, how long the old one stays good, and whether even an older one ends.
type rotation struct {
	id      string
	overlap time.Duration
	force   bool
}

// readRotation reads what is asked of another secret of something in a deployment, or of itself. The body may be empty.
func (w *Wire) readRotation(r *http.Request, deploymentID, of string) (o httpapi.Object, ask rotation, err error) {
	body, err := httpapi.ReadBody(r, httpapi.MaxBody)
	if err != nil {
		return nil, ask, err
	}
	key, digest, err := httpapi.Idempotency(r, "rotate/"+of, body)
	if err != nil {
		return nil, ask, err
	}
	if o, err = objectOrNone(body); err != nil {
		return nil, ask, err
	}
	seconds, err := o.Int("overlap_seconds")
	if err != nil {
		return nil, ask, err
	}
	if limit := int(webhook.MaxOverlap.Seconds()); seconds < 0 || seconds > limit {
		return nil, ask, fault.New(fault.Invalid, "\"overlap_seconds\" must be a number from 0 to %d.", limit)
	}
	ask.overlap = time.Duration(seconds) * time.Second
	if ask.force, err = o.Bool("force"); err != nil {
		return nil, ask, err
	}
	ask.id, err = w.Endpoints.Rotation(r.Context(), deploymentID, key, digest)
	return o, ask, err
}

// optionalObject reads a body that may be empty.
func optionalObject(r *http.Request) (httpapi.Object, error) {
	body, err := httpapi.ReadBody(r, httpapi.MaxBody)
	if err != nil {
		return nil, err
	}
	return objectOrNone(body)
}

func objectOrNone(body []byte) (httpapi.Object, error) {
	if len(body) == 0 {
		return httpapi.Object{}, nil
	}
	return httpapi.ParseObject(body)
}

type testReply struct {
	OK         bool    `json:"ok"`
	StatusCode *int    `json:"status_code"`
	Error      *string `json:"error"`
	LatencyMS  int64   `json:"latency_ms"`
	Body       string  `json:"body"`
}

// testEndpoint posts a ping, as everything is posted, and tells at once what came of it.
func (w *Wire) testEndpoint(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	e, err := w.endpoint(r, c)
	if err != nil {
		return err
	}
	if err := w.Endpoints.CountTest(r.Context(), e); err != nil {
		return err
	}
	a, err := w.Ping(r.Context(), e)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, testReply{
		OK: a.Class == "", StatusCode: code(a), Error: text(a.Error), LatencyMS: a.LatencyMS, Body: a.Response,
	})
}

// endpoint finds the endpoint that the path names, if the caller may see it.
func (w *Wire) endpoint(r *http.Request, c workspace.Caller) (webhook.Endpoint, error) {
	shown := r.PathValue("wid")
	unknown := fault.New(fault.NotFound, "There is no outgoing webhook %q.", shown)
	endpointID, ok := id.Parse("wh", shown)
	if !ok {
		return webhook.Endpoint{}, unknown
	}
	e, err := w.Endpoints.Find(r.Context(), endpointID)
	if fault.Is(err, fault.NotFound) || err == nil && !c.Sees(e.WorkspaceID, e.DeploymentID) {
		return webhook.Endpoint{}, unknown
	}
	return e, err
}
