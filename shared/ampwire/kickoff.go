package ampwire

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/workspace"
)

type kickoffReply struct {
	KickoffID string `json:"kickoff_id"`
}

func (w *Wire) kickoff(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	object, body, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	k, err := readKickoff(object)
	if err != nil {
		return err
	}
	if err := w.checkTargets(k.targets); err != nil {
		return err
	}
	key, digest, err := httpapi.Idempotency(r, "kickoff", body)
	if err != nil {
		return err
	}
	d, err := w.deployment(r, c)
	if err != nil {
		return err
	}
	restored, err := w.restore(r.Context(), d, &k)
	if err != nil {
		return err
	}
	started, err := w.Runs.Start(r.Context(), run.StartRequest{
		Deployment: d, Inputs: k.inputs, Meta: k.meta, Targets: k.targets, Limits: k.limits, Of: restored.Of, Kept: restored.Kept,
		IdempotencyKey: key, BodyDigest: digest,
	})
	if l := started.Rate; l != nil {
		httpapi.Rate(rw, l.Limit, l.Remaining, l.Reset)
	}
	if err != nil {
		return err
	}
	httpapi.Warn(rw, k.warnings)
	return httpapi.WriteJSON(rw, http.StatusOK, kickoffReply{started.ID})
}

// kickoff is a kickoff as it was understood.
type kickoff struct {
	inputs   map[string]any
	meta     json.RawMessage
	targets  []run.Target
	limits   crew.Limits
	restore  string
	warnings []string
}

// urlField names the field that holds the URL of each kind of target.
var urlField = map[run.Kind]string{
	run.StepTarget: "stepWebhookUrl", run.TaskTarget: "taskWebhookUrl", run.CrewTarget: "crewWebhookUrl",
	run.StreamTarget: "webhooks.url", run.HumanTarget: "humanInputWebhook.url",
}

// targetFields are the fields that name targets.
var targetFields = []string{"webhooks", "stepWebhookUrl", "taskWebhookUrl", "crewWebhookUrl", "humanInputWebhook", "humanInputWebhookUrl"}

// checkTargets refuses URLs that no POST could go to.
func (w *Wire) checkTargets(targets []run.Target) error {
	for _, t := range targets {
		if err := w.CheckURL(t.URL); err != nil {
			return fault.New(fault.Invalid, "%s: %s", urlField[t.Kind], err)
		}
	}
	return nil
}

// notBuilt are the fields of the wire that are accepted and have no effect yet.
var notBuilt = []string{"trainingFilename", "generateArtifact", "conformInputs"}

// readKickoff reads the fields of a kickoff. An empty string is as good as no field: clients made from the dashboard send one
// for everything unused.
func readKickoff(o httpapi.Object) (kickoff, error) {
	var k kickoff
	var err error
	if k.inputs, err = o.Values("inputs"); err != nil {
		return k, err
	}
	if o.Has("meta") {
		k.meta = o["meta"]
	}
	if k.targets, err = readTargets(o, k.inputs); err != nil {
		return k, err
	}
	if o.Has("limits") {
		if k.limits, err = crew.ParseLimits(o["limits"]); err != nil {
			return k, err
		}
	}
	if k.restore, err = o.String("restoreFromStateId"); err != nil {
		return k, err
	}
	k.warnings = ignored(o)
	return k, nil
}

// restore finds what the run takes over from the one that restoreFromStateId names, whose inputs it has unless it is given
// others. Where there is nothing to take over the run begins as any other, with a warning.
func (w *Wire) restore(ctx context.Context, d crew.Deployment, k *kickoff) (run.Restored, error) {
	if k.restore == "" {
		return run.Restored{}, nil
	}
	runID, ok := id.Parse("run", k.restore)
	if !ok {
		k.warnings = append(k.warnings, "restoreFromStateId is no kickoff id; the run begins at the beginning")
		return run.Restored{}, nil
	}
	restored, why, err := w.Runs.Restore(ctx, d, runID, k.inputs)
	if err != nil {
		return run.Restored{}, err
	}
	if restored.Inputs != nil {
		k.inputs = restored.Inputs
	}
	if why != "" {
		k.warnings = append(k.warnings, "restoreFromStateId: "+why+"; the run begins at the beginning")
	}
	return restored, nil
}

// readTargets reads the targets that a request names.
func readTargets(o httpapi.Object, inputs map[string]any) (targets []run.Target, err error) {
	for _, kind := range []run.Kind{run.StepTarget, run.TaskTarget, run.CrewTarget} {
		url, err := webhookURL(o, inputs, urlField[kind])
		if err != nil {
			return nil, err
		}
		if url != "" {
			targets = append(targets, run.Target{ID: string(kind), Kind: kind, URL: url})
		}
	}
	for _, read := range []func(httpapi.Object) (*run.Target, error){readStream, readHuman} {
		t, err := read(o)
		if err != nil {
			return nil, err
		}
		if t != nil {
			targets = append(targets, *t)
		}
	}
	return targets, nil
}

// webhookURL finds one of the three URLs at the top level, or inside the inputs, where the original's guide lists them. It is
// never left there.
func webhookURL(o httpapi.Object, inputs map[string]any, field string) (string, error) {
	nested, there := inputs[field]
	delete(inputs, field)
	top, err := o.String(field)
	if err != nil || top != "" || !there || nested == nil {
		return top, err
	}
	url, ok := nested.(string)
	if !ok {
		return "", fault.New(fault.Invalid, "%q inside the inputs must be a string.", field)
	}
	return url, nil
}

// readStream reads the `webhooks` object; nil when it is absent or its url is empty.
func readStream(o httpapi.Object) (*run.Target, error) {
	if !given(o, "webhooks") {
		return nil, nil
	}
	w, err := o.Object("webhooks")
	if err != nil {
		return nil, err
	}
	t := run.Target{ID: string(run.StreamTarget), Kind: run.StreamTarget}
	if t.URL, err = w.String("url"); err != nil {
		return nil, within("webhooks", err)
	}
	if _, there := w["url"]; !there {
		return nil, fault.New(fault.Invalid, "webhooks: \"url\" is missing.")
	}
	if t.URL == "" {
		return nil, nil
	}
	if t.Events, err = w.Strings("events"); err != nil {
		return nil, within("webhooks", err)
	}
	if len(t.Events) == 0 || slices.Contains(t.Events, "") {
		return nil, fault.New(fault.Invalid, "webhooks: \"events\" must name the events to send, or be [\"*\"] for all.")
	}
	if t.Realtime, err = w.Bool("realtime"); err != nil {
		return nil, within("webhooks", err)
	}
	if t.Authorization, err = readAuthentication(w, false); err != nil {
		return nil, within("webhooks", err)
	}
	return &t, nil
}

// readHuman reads where questions to people go: the object humanInputWebhook, or the older flat URL; nil for neither.
func readHuman(o httpapi.Object) (*run.Target, error) {
	t := run.Target{ID: string(run.HumanTarget), Kind: run.HumanTarget}
	var err error
	if t.URL, err = o.String("humanInputWebhookUrl"); err != nil {
		return nil, err
	}
	if given(o, "humanInputWebhook") {
		h, err := o.Object("humanInputWebhook")
		if err != nil {
			return nil, err
		}
		url, err := h.String("url")
		if err != nil {
			return nil, within("humanInputWebhook", err)
		}
		if _, there := h["url"]; !there {
			return nil, fault.New(fault.Invalid, "humanInputWebhook: \"url\" is missing.")
		}
		if url != "" {
			t.URL = url
			if t.Authorization, err = readAuthentication(h, true); err != nil {
				return nil, within("humanInputWebhook", err)
			}
		}
	}
	if t.URL == "" {
		return nil, nil
	}
	return &t, nil
}

// readAuthentication gives the value of the Authorization header that the receiver wants, "" for none. basic says whether
// it may be a name and a password.
func readAuthentication(o httpapi.Object, basic bool) (string, error) {
	if !given(o, "authentication") {
		return "", nil
	}
	a, err := o.Object("authentication")
	if err != nil {
		return "", err
	}
	strategy, err := a.String("strategy")
	if err != nil {
		return "", within("authentication", err)
	}
	if strategy == "basic" && basic {
		return readBasic(a)
	}
	token, err := a.String("token")
	if err != nil {
		return "", within("authentication", err)
	}
	if strategy == "" && token == "" {
		return "", nil
	}
	if strategy != "bearer" && basic {
		return "", fault.New(fault.Invalid, "authentication: the strategy must be \"bearer\" or \"basic\", and it is %.80q.", strategy)
	}
	if strategy != "bearer" {
		return "", fault.New(fault.Invalid, "authentication: the strategy must be \"bearer\", and it is %.80q.", strategy)
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fault.New(fault.Invalid, "authentication: the token has characters that a header cannot carry.")
	}
	if _, there := a["token"]; !there {
		return "", fault.New(fault.Invalid, "authentication: the token of the strategy \"bearer\" is missing.")
	}
	if token == "" {
		return "", nil // a form sends "" for what it leaves out
	}
	return "Bearer " + token, nil
}

func readBasic(a httpapi.Object) (string, error) {
	username, err := a.String("username")
	if err != nil {
		return "", within("authentication", err)
	}
	password, err := a.String("password")
	if err != nil {
		return "", within("authentication", err)
	}
	if username == "" && password == "" {
		return "", nil
	}
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	if strings.Contains(username, ":") || strings.ContainsFunc(username+password, control) {
		return "", fault.New(fault.Invalid, "authentication: a username has no colon, and neither it nor the password has control characters.")
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+password)), nil
}

// within says inside which object a field is wrong.
func within(field string, err error) error {
	return fault.Wrap(err, fault.KindOf(err), "%s: %s", field, fault.Message(err))
}

// ignored tells of the fields that have no effect.
func ignored(o httpapi.Object) (warnings []string) {
	for _, field := range notBuilt {
		if given(o, field) && string(o[field]) != "false" {
			warnings = append(warnings, fmt.Sprintf("%s is not built yet and was ignored", field))
		}
	}
	return append(warnings, o.Unknown(known...)...)
}

// known are all fields of the wire.
var known = slices.Concat(notBuilt, targetFields, []string{"inputs", "meta", "limits", "restoreFromStateId"})

// given tells whether a field says anything: it is there, and neither null nor "".
func given(o httpapi.Object, field string) bool {
	return o.Has(field) && !bytes.Equal(o[field], []byte(`""`))
}
