package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/workspace"
)

func TestRoutesThatAreInsideOrSpeakPlainText(t *testing.T) {
	plain := httpapi.Dialect{Body: func(f *fault.Error) any { return httpapi.Text(f.Message) }}
	problems := httpapi.Dialect{Body: func(f *fault.Error) any {
		return httpapi.Problem{Type: "about:blank", Title: string(f.Kind), Status: httpapi.StatusOf(f.Kind), Detail: f.Message}
	}}
	busy := func(http.ResponseWriter, *http.Request, workspace.Caller) error {
		return fault.New(fault.Unavailable, "busy")
	}
	handler := httpapi.API{Routes: []httpapi.Route{
		{Method: "GET", Path: "/a/b", Dialect: problems, Handle: busy},
		{Method: "POST", Path: "/a/{id}/text", Dialect: plain, Handle: busy},
		{Method: "GET", Path: "/a/{id}/inside", Inside: true, Dialect: problems, Handle: busy},
	}, Fallback: problems}.Handler()
	for _, c := range []struct {
		method, path, pattern string
		status                int
		kind, body            string
	}{
		{"GET", "/a/b", "", 503, "application/problem+json", `{"type":"about:blank","title":"unavailable","status":503,"detail":"busy"}`},
		{"POST", "/a/1/text", "", 503, "text/plain; charset=utf-8", "busy"},
		{"GET", "/a/1/text", "", 405, "text/plain; charset=utf-8", "Method Not Allowed"},
		{"POST", "/a/b", "", 405, "application/problem+json", "not_allowed"},
		{"GET", "/a/1/inside", "GET /a/{id}/inside", 503, "application/problem+json", "busy"},
		{"GET", "/a/1/inside", "$default", 404, "application/problem+json", "Not Found"},
		{"GET", "/a/1/inside", "", 404, "application/problem+json", "Not Found"},
		{"POST", "/a/1/inside", "GET /a/{id}/inside", 404, "application/problem+json", "Not Found"},
	} {
		r := httptest.NewRequest(c.method, c.path, nil)
		r.Pattern = c.pattern
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != c.status || w.Header().Get("Content-Type") != c.kind || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s %s by %q: got %d %v %s", c.method, c.path, c.pattern, w.Code, w.Header(), w.Body)
		}
	}
}
