package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/shared/webhook"
	"muster/shared/workspace"
)

var inboxTime = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func newInbox(secrets ...signer) http.Handler {
	i := &inbox{signers: func(context.Context) ([]signer, error) { return secrets, nil }, now: func() time.Time { return inboxTime }}
	return i.handler(http.NotFoundHandler())
}

func ask(h http.Handler, method, path, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host, r.RemoteAddr = "127.0.0.1:8080", "127.0.0.1:5000"
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func signed(t *testing.T, secret, body string) func(*http.Request) {
	headers, err := webhook.Sign(webhook.Secrets{Current: secret}, "run.succeeded", "del_1", inboxTime, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return func(r *http.Request) { r.Header = headers.Clone() }
}

func posts(t *testing.T, h http.Handler, name string) (found []post) {
	t.Helper()
	var view struct{ Posts []post }
	if err := json.Unmarshal(ask(h, "GET", "/inbox/"+name, "").Body.Bytes(), &view); err != nil {
		t.Fatal(err)
	}
	return view.Posts
}

func TestInboxTellsOfEachPost(t *testing.T) {
	i := &inbox{signers: func(context.Context) ([]signer, error) { return nil, nil }, now: func() time.Time { return inboxTime }}
	h := i.handler(http.NotFoundHandler())
	ask(h, "POST", "/inbox/a", "before anybody hears")
	var heard []string
	i.tell(func(p post) { heard = append(heard, p.name+": "+p.Body) })
	ask(h, "POST", "/inbox/a", "one")
	ask(h, "GET", "/inbox/a", "")
	ask(h, "POST", "/inbox/b", "two")
	if want := []string{"a: one", "b: two"}; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
}

func TestInboxSaysWhoSignedAPost(t *testing.T) {
	known, unknown := workspace.NewSecret(), workspace.NewSecret()
	h := newInbox(signer{"deployment other", workspace.NewSecret()}, signer{"deployment crew", known})
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		by     string
		why    string
	}{
		{"signed with a secret of this home", signed(t, known, "{}"), "deployment crew", ""},
		{"signed with another secret", signed(t, unknown, "{}"), "", "does not match"},
		{"signed over another body", signed(t, known, `{"a":1}`), "", "does not match"},
		{"not signed", func(*http.Request) {}, "", "it has no X-Crewship-Signature"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if w := ask(h, "POST", "/inbox/a", "{}", c.change); w.Code != http.StatusNoContent {
				t.Fatalf("status %d", w.Code)
			}
			p := posts(t, h, "a")[0]
			if p.By != c.by || p.Verified != (c.by != "") || !strings.Contains(p.Why, c.why) || p.Body != "{}" {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestInboxKeepsNamesApartAndTheNewestOnTop(t *testing.T) {
	h := newInbox()
	for i := range inboxPosts + 2 {
		ask(h, "POST", "/inbox/many", strconv.Itoa(i))
	}
	if n := len(posts(t, h, "many")); n != inboxPosts {
		t.Errorf("%d posts are kept", n)
	}
	ask(h, "POST", "/inbox/few", "x")
	if found := posts(t, h, "few"); len(found) != 1 || found[0].Body != "x" {
		t.Errorf("few: %+v", found)
	}
	if found := posts(t, h, "many"); found[0].Body != strconv.Itoa(inboxPosts+1) {
		t.Errorf("on top: %s", found[0].Body)
	}
	ask(h, "DELETE", "/inbox/many", "")
	if len(posts(t, h, "many")) != 0 || len(posts(t, h, "few")) != 1 {
		t.Error("DELETE empties the inbox of that name and no other")
	}
}

func TestInboxPageShowsWhatStrangersSendAsText(t *testing.T) {
	h := newInbox()
	ask(h, "POST", "/inbox/a", `{"x":"<script>alert(1)</script>"}`, func(r *http.Request) { r.Header.Set("X-Y", "<b>") })
	w := ask(h, "GET", "/inbox/a", "", func(r *http.Request) { r.Header.Set("Accept", "text/html") })
	page := w.Body.String()
	if !strings.Contains(page, "&lt;script&gt;") || strings.Contains(page, "<script>") || strings.Contains(page, "<b>") {
		t.Error(page)
	}
}

func TestInboxIsForThisMachineOnly(t *testing.T) {
	h := newInbox()
	for _, c := range []struct{ name, from, host string }{
		{"another machine asks", "192.0.2.1:5000", "127.0.0.1:8080"},
		{"a page under a name that points here asks", "127.0.0.1:5000", "evil.example:8080"},
	} {
		w := ask(h, "GET", "/inbox/a", "", func(r *http.Request) { r.RemoteAddr, r.Host = c.from, c.host })
		if w.Code != http.StatusNotFound {
			t.Errorf("%s: status %d", c.name, w.Code)
		}
	}
	for _, host := range []string{"localhost:8080", "[::1]:8080", "127.0.0.1"} {
		if w := ask(h, "GET", "/inbox/a", "", func(r *http.Request) { r.Host = host }); w.Code != http.StatusOK {
			t.Errorf("%s: status %d", host, w.Code)
		}
	}
	if w := ask(h, "POST", "/inbox/a", strings.Repeat("x", inboxBody+1)); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a huge body: status %d", w.Code)
	}
}
