package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"muster/events"
	"muster/shared/id"
	"muster/shared/webhook"
)

// inbox takes any POST at /inbox/<name> and shows what came, newest first: a receiver to look at webhooks with. It keeps
// the newest posts in memory, and asks nobody for a token, so it is there only for requests from this machine.
type inbox struct {
	// signers gives whoever may have signed a webhook.
	signers func(ctx context.Context) ([]signer, error)
	now     func() time.Time

	mu    sync.Mutex
	posts []post // of all names, oldest first
	hears func(post)
}

// signer is a secret and whose it is.
type signer struct{ who, secret string }

// post is one POST as it came.
type post struct {
	name string
	// At is when it came, RFC 3339.
	At string `json:"at"`
	// Verified says that By, a deployment or one of its endpoints, signed it. Why says what is wrong otherwise.
	Verified bool        `json:"verified"`
	By       string      `json:"by,omitempty"`
	Why      string      `json:"why,omitempty"`
	Headers  http.Header `json:"headers"`
	// Body is the body as text; bytes that are none are shown as U+FFFD.
	Body string `json:"body"`
}

const (
	inboxPosts = 500
	inboxBody  = 1 << 20
	inboxName  = 100
)

// handler serves the inbox before next.
func (i *inbox) handler(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /inbox/{name}", i.take)
	mux.HandleFunc("GET /inbox/{name}", i.show)
	mux.HandleFunc("DELETE /inbox/{name}", i.clear)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern == "" || !fromHere(r) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

// fromHere says that a program on this machine sent the request, and not a page that a browser was tricked into reading
// under another name.
func fromHere(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		return false
	}
	name := r.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	if name == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}

func (i *inbox) take(w http.ResponseWriter, r *http.Request) {
	p := post{name: r.PathValue("name"), At: i.now().UTC().Format(events.TimeFormat), Headers: r.Header.Clone()}
	if len(p.name) > inboxName {
		http.Error(w, "The name of an inbox is too long.", http.StatusNotFound)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, inboxBody))
	if err != nil {
		http.Error(w, "The body cannot be read, or is longer than 1 MiB.", http.StatusRequestEntityTooLarge)
		return
	}
	p.Body = strings.ToValidUTF8(string(body), string(utf8.RuneError))
	p.By, p.Why = i.verify(r.Context(), r.Header, body)
	p.Verified = p.By != ""

	i.mu.Lock()
	i.posts = append(i.posts, p)
	if len(i.posts) > inboxPosts {
		i.posts = slices.Delete(i.posts, 0, 1)
	}
	hears := i.hears
	i.mu.Unlock()
	if hears != nil {
		hears(p)
	}
	w.WriteHeader(http.StatusNoContent)
}

// tell lets f hear of each post from now on.
func (i *inbox) tell(f func(post)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.hears = f
}

// verify gives who signed a POST, or why nobody did.
func (i *inbox) verify(ctx context.Context, h http.Header, body []byte) (by, why string) {
	if h.Get(webhook.HeaderSignature) == "" {
		return "", "it has no " + webhook.HeaderSignature
	}
	all, err := i.signers(ctx)
	if err != nil {
		return "", "the secrets cannot be read: " + err.Error()
	}
	why = "nothing here has a secret"
	for _, s := range all {
		err := webhook.Verify(s.secret, h, body, i.now())
		if err == nil {
			return s.who, ""
		}
		why = err.Error()
	}
	return "", why
}

// of gives the posts of a name, newest first.
func (i *inbox) of(name string) []post {
	i.mu.Lock()
	defer i.mu.Unlock()
	found := []post{}
	for _, p := range slices.Backward(i.posts) {
		if p.name == name {
			found = append(found, p)
		}
	}
	return found
}

func (i *inbox) clear(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.posts = slices.DeleteFunc(i.posts, func(p post) bool { return p.name == r.PathValue("name") })
	w.WriteHeader(http.StatusNoContent)
}

//go:embed inbox.html
var inboxText string

var inboxPage = template.Must(template.New("inbox").Funcs(template.FuncMap{"pretty": pretty, "join": strings.Join}).Parse(inboxText))

// show gives a page to browsers, and JSON to everybody else.
func (i *inbox) show(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	view := struct {
		Name  string `json:"name"`
		Posts []post `json:"posts"`
	}{name, i.of(name)}
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(view)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'")
	_ = inboxPage.Execute(w, view)
}

// pretty indents a body that is JSON.
func pretty(body string) string {
	var b bytes.Buffer
	if json.Indent(&b, []byte(body), "", "  ") != nil {
		return body
	}
	return b.String()
}

// signers gives all secrets of this home with which webhooks are signed.
func (h *home) signers(ctx context.Context) (all []signer, err error) {
	workspaceID, _ := id.Parse("ws", h.kept.WorkspaceID)
	deployments, err := h.app.Crews.Deployments(ctx, workspaceID)
	if err != nil {
		return nil, err
	}
	add := func(who string, s webhook.Signing, record, field string) error {
		secrets, err := s.Open(ctx, h.seal, workspaceID, record, field, time.Now())
		if err != nil {
			return fmt.Errorf("open the secret of %s: %w", who, err)
		}
		all = append(all, signer{who, secrets.Current})
		if secrets.Old != "" {
			all = append(all, signer{who + " (its old secret)", secrets.Old})
		}
		return nil
	}
	for _, d := range deployments {
		if err := add("deployment "+d.Name, webhook.Signing{Secret: d.WebhookSecret, Old: d.OldWebhookSecret, OldUntil: d.OldWebhookSecretUntil}, d.ID, "webhook_secret"); err != nil {
			return nil, err
		}
		endpoints, err := webhook.Endpoints{Store: h.db.Records()}.Of(ctx, d.ID)
		if err != nil {
			return nil, err
		}
		for _, e := range endpoints {
			if err := add("outgoing webhook "+e.Name+" of "+d.Name, e.Signing, e.ID, webhook.SecretField); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}
