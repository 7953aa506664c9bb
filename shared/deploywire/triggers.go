package deploywire

import (
	"context"
	"net/http"
	"strings"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/trigger"
	"muster/shared/workspace"
)

// triggerReply is an incoming webhook as it is shown: without its token, and without its secret.
type triggerReply struct {
	ID           string `json:"id"`
	DeploymentID string `json:"deployment_id"`
	Name         string `json:"name"`
	Environment  string `json:"environment"`
	Enabled      bool   `json:"enabled"`
	// Sender is whose requests start runs; the four after it are for senders that have a choice, and absent otherwise.
	Sender            string  `json:"sender"`
	SignatureHeader   string  `json:"signature_header,omitempty"`
	SignaturePrefix   string  `json:"signature_prefix,omitempty"`
	SignatureEncoding string  `json:"signature_encoding,omitempty"`
	TimestampHeader   string  `json:"timestamp_header,omitempty"`
	Filter            *string `json:"filter"`
	Input             *string `json:"input"`
	CreatedAt         *string `json:"created_at"`
	UpdatedAt         *string `json:"updated_at"`
}

// listedTrigger is an incoming webhook with its last use, null before the first.
type listedTrigger struct {
	triggerReply
	LastUsedAt *string `json:"last_used_at"`
	LastRunID  *string `json:"last_run_id"`
}

// createdTrigger shows the token, this once, and the secret that was made for the sender.
type createdTrigger struct {
	triggerReply
	URL    string `json:"url"`
	Token  string `json:"token"`
	Secret string `json:"secret,omitempty"`
}

type triggersReply struct {
	Webhooks   []listedTrigger `json:"webhooks"`
	NextCursor *string         `json:"next_cursor"`
}

func showTrigger(t trigger.Trigger) triggerReply {
	return triggerReply{
		ID: id.Show("inc", t.ID), DeploymentID: id.Show("dep", t.DeploymentID), Name: t.Name, Environment: t.Environment, Enabled: t.Enabled,
		Sender: string(t.Sender.Scheme), SignatureHeader: t.Sender.Header, SignaturePrefix: t.Sender.Prefix, SignatureEncoding: t.Sender.Encoding,
		TimestampHeader: t.Sender.TimestampHeader, Filter: text(t.Filter), Input: text(t.Input),
		CreatedAt: timestamp(t.CreatedAt), UpdatedAt: timestamp(t.UpdatedAt),
	}
}

// triggerFields are what a request may say of an incoming webhook.
var triggerFields = []string{
	"name", "environment", "enabled", "sender", "secret", "signature_header", "signature_prefix", "signature_encoding", "timestamp_header", "filter", "input",
}

// readTrigger lets a request change what it names.
func readTrigger(o httpapi.Object, t *trigger.Trigger) error {
	sender := string(t.Sender.Scheme)
	for field, to := range map[string]*string{
		"name": &t.Name, "environment": &t.Environment, "sender": &sender, "filter": &t.Filter, "input": &t.Input,
		"signature_header": &t.Sender.Header, "signature_prefix": &t.Sender.Prefix, "signature_encoding": &t.Sender.Encoding,
		"timestamp_header": &t.Sender.TimestampHeader,
	} {
		if _, named := o[field]; !named {
			continue
		}
		value, err := o.String(field)
		if err != nil {
			return err
		}
		*to = value
	}
	t.Sender.Scheme = trigger.Scheme(sender)
	if !o.Has("enabled") {
		return nil
	}
	var err error
	t.Enabled, err = o.Bool("enabled")
	return err
}

func (w *Wire) createTrigger(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, _, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	d, err := w.deployment(r.Context(), r.PathValue("id"), c)
	if err != nil {
		return err
	}
	t := trigger.Trigger{WorkspaceID: d.WorkspaceID, DeploymentID: d.ID, Enabled: true}
	if err := readTrigger(o, &t); err != nil {
		return err
	}
	secret, err := o.String("secret")
	if err != nil {
		return err
	}
	token, made, err := w.Triggers.Create(r.Context(), &t, secret)
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown(triggerFields...))
	return httpapi.WriteJSON(rw, http.StatusCreated, createdTrigger{showTrigger(t), w.triggerURL(r, token), token, made})
}

// triggerURL is where a token is used.
func (w *Wire) triggerURL(r *http.Request, token string) string {
	base := strings.TrimSuffix(w.PublicURL, "/")
	if base == "" {
		scheme := "http"
		if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
			scheme = "https"
		}
		base = scheme + "://" + r.Host
	}
	return base + "/webhooks/runs/" + token
}

// listTriggers lists all of a deployment's: there are few.
func (w *Wire) listTriggers(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	d, err := w.deployment(r.Context(), r.PathValue("id"), c)
	if err != nil {
		return err
	}
	all, err := w.Triggers.Of(r.Context(), d.ID)
	if err != nil {
		return err
	}
	reply := triggersReply{Webhooks: []listedTrigger{}}
	for _, t := range all {
		listed, err := w.listed(r.Context(), t)
		if err != nil {
			return err
		}
		reply.Webhooks = append(reply.Webhooks, listed)
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

func (w *Wire) listed(ctx context.Context, t trigger.Trigger) (listedTrigger, error) {
	listed := listedTrigger{triggerReply: showTrigger(t)}
	last, used, err := w.Triggers.LastUse(ctx, t)
	if used {
		listed.LastUsedAt, listed.LastRunID = timestamp(last.At), text(id.Show("run", last.Run))
	}
	return listed, err
}

// trigger finds the incoming webhook that the path names, if the caller may see it.
func (w *Wire) trigger(r *http.Request, c workspace.Caller) (trigger.Trigger, error) {
	shown := r.PathValue("wid")
	unknown := fault.New(fault.NotFound, "There is no incoming webhook %q.", shown)
	triggerID, ok := id.Parse("inc", shown)
	if !ok {
		return trigger.Trigger{}, unknown
	}
	t, err := w.Triggers.Find(r.Context(), triggerID)
	if fault.Is(err, fault.NotFound) || err == nil && !c.Sees(t.WorkspaceID, t.DeploymentID) {
		return trigger.Trigger{}, unknown
	}
	return t, err
}

func (w *Wire) getTrigger(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	t, err := w.trigger(r, c)
	if err != nil {
		return err
	}
	listed, err := w.listed(r.Context(), t)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, listed)
}

// changeTrigger changes what it names. A secret of null or "", or another sender without one, gets a new secret.
func (w *Wire) changeTrigger(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, _, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	t, err := w.trigger(r, c)
	if err != nil {
		return err
	}
	var secret *string
	if _, named := o["secret"]; named {
		given, err := o.String("secret")
		if err != nil {
			return err
		}
		secret = &given
	}
	t, made, err := w.Triggers.Change(r.Context(), t.ID, secret, func(t *trigger.Trigger) error { return readTrigger(o, t) })
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown(triggerFields...))
	return httpapi.WriteJSON(rw, http.StatusOK, struct {
		triggerReply
		Secret string `json:"secret,omitempty"`
	}{showTrigger(t), made})
}

func (w *Wire) deleteTrigger(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	t, err := w.trigger(r, c)
	if err != nil {
		return err
	}
	if err := w.Triggers.Delete(r.Context(), t.ID); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	rw.WriteHeader(http.StatusNoContent)
	return nil
}

func (w *Wire) regenerateTrigger(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	t, err := w.trigger(r, c)
	if err != nil {
		return err
	}
	t, token, err := w.Triggers.Regenerate(r.Context(), t.ID)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusOK, createdTrigger{triggerReply: showTrigger(t), URL: w.triggerURL(r, token), Token: token})
}
