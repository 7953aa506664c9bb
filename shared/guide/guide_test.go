package guide

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"muster/shared/fault"
	"muster/shared/httpapi"
)

func get(path, accept string) *httptest.ResponseRecorder {
	d := httpapi.Dialect{Body: func(f *fault.Error) any { return f.Message }}
	r := httptest.NewRequest("GET", path, nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	httpapi.API{Routes: Routes(d), Fallback: d}.Handler().ServeHTTP(w, r)
	return w
}

func TestGuidesAreServedAsPagesAndAsMarkdown(t *testing.T) {
	for _, g := range All() {
		w := get(g.Path(), "text/html")
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "<h1") || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%s as a page: %d %s", g.Name, w.Code, w.Body)
		}
		if w := get(g.Path(), "*/*"); w.Body.String() != string(g.Markdown) {
			t.Errorf("%s as Markdown: %s", g.Name, w.Body)
		}
		if !strings.Contains(get("/guides", "text/html").Body.String(), `href="`+g.Path()+`"`) {
			t.Errorf("/guides does not list %s", g.Name)
		}
	}
	if w := get("/guides/none", "text/html"); w.Code != http.StatusNotFound {
		t.Errorf("an unknown guide: %d", w.Code)
	}
}

// link finds where a Markdown text points to on this server.
var link = regexp.MustCompile(`\]\((/[^)#]*)`)

func TestGuidesPointToGuidesThatExist(t *testing.T) {
	known := map[string]bool{"/guides": true, "/openapi.json": true, "/openapi": true}
	for _, g := range All() {
		known[g.Path()] = true
	}
	for _, g := range All() {
		if !strings.HasPrefix(string(g.Markdown), "# "+g.Title+"\n") {
			t.Errorf("%s does not begin with its title", g.Name)
		}
		for _, to := range link.FindAllStringSubmatch(string(g.Markdown), -1) {
			if !known[to[1]] {
				t.Errorf("%s points to %s, which is not there", g.Name, to[1])
			}
		}
	}
}
