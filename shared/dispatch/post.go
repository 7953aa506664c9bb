package dispatch

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/shared/guard"
	"muster/shared/run"
	"muster/shared/webhook"
)

const (
	// maxResponse is how much of a response is kept.
	maxResponse = 16 << 10
	// bodyTime is how long we listen to the body of an answer whose status we know.
	bodyTime = 2 * time.Second
)

// receiver is whom a POST goes to.
type receiver struct {
	url string
	// access reads the secrets when the first POST needs them.
	access func() (access, error)
}

// access is what a POST proves itself with.
type access struct {
	secrets webhook.Secrets
	// extra are headers that go with it, an authorization among them.
	extra map[string]string
	// hidden gives these in every form in which a receiver might repeat them, longest first.
	hidden func() []string
}

// unseal reads the deployment's signing secrets as they are now, and the target's authorization.
func (d *Dispatcher) unseal(ctx context.Context, r run.Run, t run.Target) (a access, err error) {
	deployment, err := d.Crews.Deployment(ctx, r.DeploymentID)
	if err != nil {
		return access{}, err
	}
	s := webhook.Signing{Secret: deployment.WebhookSecret, Old: deployment.OldWebhookSecret, OldUntil: deployment.OldWebhookSecretUntil}
	if a.secrets, err = s.Open(ctx, d.Sealer, r.WorkspaceID, r.DeploymentID, "webhook_secret", d.now()); err != nil {
		return access{}, err
	}
	if t.Authorization != "" {
		authorization, err := d.Sealer.Open(ctx, r.WorkspaceID, r.ID, "target/"+t.ID, t.Authorization)
		if err != nil {
			return access{}, fmt.Errorf("open the authorization of target %s: %w", t.ID, err)
		}
		a.extra = map[string]string{"Authorization": authorization}
	}
	a.hidden = sync.OnceValue(func() []string { return forms(a.secrets, a.extra) })
	return a, nil
}

// unsealEndpoint opens what an endpoint is signed and called with.
func (d *Dispatcher) unsealEndpoint(ctx context.Context, e webhook.Endpoint) (a access, err error) {
	if a.secrets, err = e.Secrets(ctx, d.Sealer, d.now()); err != nil {
		return access{}, err
	}
	a.extra = map[string]string{}
	for name, sealed := range e.Headers {
		if a.extra[name], err = d.Sealer.Open(ctx, e.WorkspaceID, e.ID, webhook.HeaderField(name), sealed); err != nil {
			return access{}, fmt.Errorf("open the header %s of endpoint %s: %w", name, e.ID, err)
		}
	}
	a.hidden = sync.OnceValue(func() []string { return forms(a.secrets, a.extra) })
	return a, nil
}

// forms gives the strings that must not be kept of a response.
func forms(secrets webhook.Secrets, extra map[string]string) (all []string) {
	for _, secret := range []string{secrets.Current, secrets.Old} {
		all = append(all, secret, strings.TrimPrefix(secret, "whsec_"))
	}
	for _, value := range extra {
		all = append(all, value)
		scheme, credentials, ok := strings.Cut(value, " ")
		if !ok {
			continue
		}
		all = append(all, credentials)
		if raw, err := base64.StdEncoding.DecodeString(credentials); err == nil && strings.EqualFold(scheme, "Basic") {
			_, password, _ := strings.Cut(string(raw), ":")
			all = append(all, string(raw), password)
		}
	}
	// A very short password would black out half of any text, and gives nothing away among it.
	all = slices.DeleteFunc(all, func(s string) bool { return len(s) < 4 })
	for _, plain := range all {
		all = append(all, written(plain)...)
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	return all
}

// written gives the other spellings of a text that somebody may answer with: in JSON, also as PHP writes it, in a URL, and in HTML.
func written(plain string) (spellings []string) {
	quoted, _ := json.Marshal(plain) // which cannot fail
	inJSON := string(quoted[1 : len(quoted)-1])
	bare := unescape.Replace(inJSON)
	inURL, inHTML := url.QueryEscape(plain), html.EscapeString(plain)
	for _, s := range []string{
		inJSON, bare, strings.ReplaceAll(bare, "/", `\/`), inURL, strings.ReplaceAll(inURL, "+", "%20"),
		inHTML, strings.ReplaceAll(inHTML, "&#34;", "&quot;"),
	} {
		if s != plain {
			spellings = append(spellings, s)
		}
	}
	return spellings
}

// unescape takes back what package json escapes and others do not.
var unescape = strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&")

// post makes one attempt. An error is ours: nothing was sent.
func (d *Dispatcher) post(ctx context.Context, to receiver, one webhook.Delivery, body []byte) (a webhook.Attempt, hint time.Duration, err error) {
	access, err := to.access()
	if err != nil {
		return a, 0, err
	}
	at := d.now()
	headers, err := webhook.Sign(access.secrets, one.Event, one.Shown(), at, body)
	if err != nil {
		return a, 0, err
	}
	headers.Set("Content-Type", "application/json")
	headers.Set("User-Agent", "Muster/1")
	for name, value := range access.extra {
		headers.Set(name, value)
	}
	a.At = at.UTC()
	began := time.Now()
	defer func() { a.LatencyMS = time.Since(began).Milliseconds() }()

	ctx, cancel := context.WithTimeout(ctx, postTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.url, bytes.NewReader(body))
	if err != nil {
		a.Class, a.Error = guard.Invalid, "This is not a valid URL."
		return a, 0, nil
	}
	r.Header = headers
	resp, err := d.Client.Do(r)
	if err != nil {
		a.Class, a.Error = guard.Class(err), guard.Message(err)
		return a, 0, nil
	}
	defer resp.Body.Close()
	defer time.AfterFunc(bodyTime, cancel).Stop()
	a.Code = resp.StatusCode
	a.Class, a.Error = judge(a.Code)
	a.Headers = access.headers(resp.Header)
	a.Response, a.Truncated = access.read(resp)
	if a.Class != "" {
		hint = webhook.RetryAfter(resp.Header, d.now())
	}
	return a, hint, nil
}

// judge says what is wrong with a status.
func judge(code int) (class, sentence string) {
	said := strings.TrimSpace(fmt.Sprintf("%d %s", code, http.StatusText(code)))
	switch {
	case code >= 200 && code < 300:
		return "", ""
	case code >= 300 && code < 400:
		return "redirect", "The receiver answered " + said + "; redirects are not followed."
	case code == http.StatusGone:
		return "gone", "The receiver answered " + said + ": it wants no more."
	case code == http.StatusRequestEntityTooLarge:
		return guard.TooLarge, "The receiver answered " + said + ": the body is too large for it."
	}
	return "status", "The receiver answered " + said + "."
}

const (
	// maxHeaders is how much is kept of the headers of a response, maxHeader of each.
	maxHeaders = 2 << 10
	maxHeader  = 200
)

// unkept are the headers of a response that say nothing about it, or are its sender's secret.
var unkept = []string{"Connection", "Content-Length", "Date", "Keep-Alive", "Set-Cookie", "Transfer-Encoding"}

// headers gives what there is room for of the headers of a response, without our secrets.
func (a access) headers(h http.Header) map[string]string {
	kept, room := map[string]string{}, maxHeaders
	for _, name := range slices.Sorted(maps.Keys(h)) {
		// The spelling of a name has been changed on its way here.
		ours := func(secret string) bool { return strings.Contains(strings.ToLower(name), strings.ToLower(secret)) }
		if slices.Contains(unkept, name) || slices.ContainsFunc(a.hidden(), ours) {
			continue
		}
		value := strings.ToValidUTF8(a.scrub(strings.Join(h[name], ", ")), "\ufffd")
		if len(value) > maxHeader {
			value = strings.ToValidUTF8(value[:maxHeader], "")
		}
		if len(name) > maxHeader || len(name)+len(value) > room {
			continue
		}
		room -= len(name) + len(value)
		kept[name] = value
	}
	return kept
}

// scrub blacks out our secrets.
func (a access) scrub(text string) string {
	for _, secret := range a.hidden() {
		text = strings.ReplaceAll(text, secret, "[secret]")
	}
	return text
}

// read gives the beginning of a response, without our secrets. A body that breaks off changes nothing: the status said
// what there was to say.
func (a access) read(resp *http.Response) (text string, truncated bool) {
	if resp.ContentLength == 0 {
		return "", false
	}
	limit := int64(maxResponse)
	if hidden := a.hidden(); len(hidden) > 0 {
		// A secret that begins within the limit is read whole, else its first half would stay.
		limit += int64(len(hidden[0]))
	}
	data, truncated, _ := guard.ReadBody(resp.Body, limit)
	text = a.scrub(strings.ToValidUTF8(string(data), "\ufffd"))
	if len(text) > maxResponse {
		text, truncated = strings.ToValidUTF8(text[:maxResponse], ""), true
	}
	return text, truncated
}
