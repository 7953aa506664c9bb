package openapi_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"muster/shared/httpapi"
	"muster/shared/openapi"
	"muster/shared/workspace"
)

var update = flag.Bool("update", false, "make openapi.json and openapi.html of source/ and the catalogue of events")

func TestTheFilesAreServed(t *testing.T) {
	for _, r := range openapi.Routes(httpapi.Dialect{}) {
		w := httptest.NewRecorder()
		if err := r.Handle(w, httptest.NewRequest(r.Method, r.Path, nil), workspace.Caller{}); err != nil {
			t.Fatal(err)
		}
		h := w.Header()
		switch r.Path {
		case "/openapi.json":
			if !json.Valid(w.Body.Bytes()) || h.Get("Content-Type") != "application/json" || h.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s is served with %v", r.Path, h)
			}
		case "/openapi":
			if h.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
				t.Errorf("%s is served with %v", r.Path, h)
			}
		default:
			t.Errorf("nobody expects %s", r.Path)
		}
	}
}

func TestWhatIsAbsentIsNotSpokenOf(t *testing.T) {
	const path = "/api/v1/webhooks/{crewId}/{agentId}/trigger"
	for _, r := range openapi.Routes(httpapi.Dialect{}, httpapi.Route{Method: "POST", Path: path}) {
		w, whole := httptest.NewRecorder(), httptest.NewRecorder()
		if err := r.Handle(w, httptest.NewRequest(r.Method, r.Path, nil), workspace.Caller{}); err != nil {
			t.Fatal(err)
		}
		for _, all := range openapi.Routes(httpapi.Dialect{}) {
			if all.Path == r.Path {
				_ = all.Handle(whole, httptest.NewRequest(r.Method, r.Path, nil), workspace.Caller{})
			}
		}
		if !strings.Contains(whole.Body.String(), path) || strings.Contains(w.Body.String(), path) {
			t.Errorf("%s speaks of what is absent, or never did", r.Path)
		}
		for _, there := range []string{"/v1/runs", "/api/v1/agents/{agentId}/webhook-secret/rotate"} {
			if !strings.Contains(w.Body.String(), there) {
				t.Errorf("%s has lost %s", r.Path, there)
			}
		}
		if r.Path == "/openapi" && strings.Count(w.Body.String(), "<details>") != strings.Count(w.Body.String(), "</details>") {
			t.Error("the page is broken")
		}
	}
}

func TestTheFilesAreMadeOfTheSources(t *testing.T) {
	document, err := build()
	if err != nil {
		t.Fatal(err)
	}
	var written bytes.Buffer
	e := json.NewEncoder(&written)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(document); err != nil {
		t.Fatal(err)
	}
	page, err := render(document)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"openapi.json": written.Bytes(), "openapi.html": page} {
		if *update {
			if err := os.WriteFile(name, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the sources and the catalogue say (%v); run go test ./shared/openapi -update", name, err)
		}
	}
}
