package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/workspace"
)

// API serves routes.
type API struct {
	Routes []Route
	Tokens interface {
		// Authenticate gives the caller of a token, or fault.Unauthorized.
		Authenticate(ctx context.Context, token string) (workspace.Caller, error)
	}
	// Fallback is the dialect of paths that no route is near.
	Fallback Dialect
	// Log is told of failures; slog.Default when nil.
	Log *slog.Logger
}

// Handler gives the handler of all routes. It panics when two routes conflict, as net/http does.
func (a API) Handler() http.Handler {
	if a.Log == nil {
		a.Log = slog.Default()
	}
	s := &server{API: a, first: http.NewServeMux(), last: http.NewServeMux(), inside: http.NewServeMux(), dialects: map[string]Dialect{}}
	for _, route := range a.Routes {
		mux := s.first
		switch {
		case route.Inside:
			mux = s.inside
		case strings.HasPrefix(route.Path, "/{"):
			mux = s.last
		}
		s.dialects[route.Method+" "+route.Path] = route.Dialect
		mux.HandleFunc(route.Method+" "+route.Path, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, route) })
		if !slices.Contains(s.methods, route.Method) {
			s.methods = append(s.methods, route.Method)
		}
	}
	slices.Sort(s.methods)
	return s
}

type server struct {
	API
	// last has the patterns that begin with a wildcard, which net/http does not take beside some others.
	first, last *http.ServeMux
	// inside has the routes that are not for everybody.
	inside   *http.ServeMux
	methods  []string
	dialects map[string]Dialect // by pattern
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set(RequestIDHeader, requestID(r))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	// The front door says in the request's pattern by which route it came: it has none for what is inside.
	if pattern, known := knows(s.inside, r, r.Method); known && r.Pattern == pattern {
		s.inside.ServeHTTP(w, r)
		return
	}
	for _, mux := range []*http.ServeMux{s.first, s.last} {
		if _, known := knows(mux, r, r.Method); known {
			mux.ServeHTTP(w, r)
			return
		}
	}
	s.unknown(w, r)
}

// RequestIDHeader carries the id of a request, in the answer and in the log.
const RequestIDHeader = "X-Request-Id"

// requestID takes the id that the front door gave the request, and makes one for a request without.
func requestID(r *http.Request) string {
	given := r.Header.Get(RequestIDHeader)
	strange := func(c rune) bool { return c <= ' ' || c > '~' }
	if given == "" || len(given) > 100 || strings.ContainsFunc(given, strange) {
		return id.New()
	}
	return given
}

func knows(mux *http.ServeMux, r *http.Request, method string) (pattern string, known bool) {
	asked := *r
	asked.Method = method
	_, pattern = mux.Handler(&asked)
	return pattern, pattern != ""
}

// unknown answers what no route serves.
func (s *server) unknown(w http.ResponseWriter, r *http.Request) {
	dialect := s.near(r.URL.Path)
	var allowed []string
	for _, m := range s.methods {
		for _, mux := range []*http.ServeMux{s.last, s.first} {
			if pattern, known := knows(mux, r, m); known && !slices.Contains(allowed, m) {
				allowed, dialect = append(allowed, m), s.dialects[pattern]
			}
		}
	}
	if len(allowed) == 0 {
		s.refuse(w, r, dialect, fault.New(fault.NotFound, "Not Found"))
		return
	}
	if slices.Contains(allowed, http.MethodGet) {
		allowed = append(allowed, http.MethodHead)
	}
	w.Header().Set("Allow", strings.Join(append(allowed, http.MethodOptions), ", "))
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	s.refuse(w, r, dialect, fault.New(fault.NotAllowed, "Method Not Allowed"))
}

// near gives the dialect of the routes that share the path's first segment.
func (s *server) near(path string) Dialect {
	for _, route := range s.Routes {
		if segment(route.Path) == segment(path) {
			return route.Dialect
		}
	}
	return s.Fallback
}

func segment(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return first
}

// serve lets the route answer, if the caller may call it, and answers for it when it fails.
func (s *server) serve(rw http.ResponseWriter, r *http.Request, route Route) {
	w := &answer{ResponseWriter: rw}
	defer func() {
		switch v := recover(); {
		case v == nil:
		case v == http.ErrAbortHandler || w.begun:
			panic(http.ErrAbortHandler)
		default:
			s.refuse(w, r, route.Dialect, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		}
	}()
	caller, err := s.admit(r, route.Who)
	if err == nil {
		err = route.Handle(w, r, caller)
	}
	if err != nil {
		s.refuse(w, r, route.Dialect, err)
	}
}

// admit gives the caller if a route for who takes its token.
func (s *server) admit(r *http.Request, who Who) (workspace.Caller, error) {
	if who == Anyone {
		return workspace.Caller{}, nil
	}
	header := r.Header.Get("Authorization")
	if ticket := r.URL.Query().Get("ticket"); who == Watcher && header == "" && workspace.IsTicket(ticket) {
		header = "Bearer " + ticket
	}
	if header == "" {
		return workspace.Caller{}, fault.New(fault.Unauthorized, "Not authenticated")
	}
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return workspace.Caller{}, fault.New(fault.Unauthorized, "Invalid or missing authentication credentials")
	}
	caller, err := s.Tokens.Authenticate(r.Context(), token)
	if err != nil {
		return workspace.Caller{}, err
	}
	if !slices.Contains(takes[who], caller.Kind) {
		return workspace.Caller{}, fault.New(fault.Forbidden, "This token is of the kind %q and cannot be used for this.", caller.Kind)
	}
	return caller, nil
}

// refuse answers with an error. The text of anything that is no fault is only logged.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, d Dialect, err error) {
	var f *fault.Error
	if !errors.As(err, &f) {
		f = fault.New(fault.Internal, "%s", fault.Message(err))
	}
	status := d.status(f.Kind)
	left := errors.Is(r.Context().Err(), context.Canceled) // whoever asked has gone
	if status >= http.StatusInternalServerError && !left {
		s.Log.ErrorContext(r.Context(), "request failed", "request_id", w.Header().Get(RequestIDHeader),
			"method", r.Method, "route", r.Pattern, "status", status, "error", err)
	}
	if a, ok := w.(*answer); ok && a.begun {
		return
	}
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}
	if line, ok := d.Body(f).(Text); ok {
		WriteText(w, status, line)
		return
	}
	if f.Kind == fault.Unauthorized && w.Header().Get("WWW-Authenticate") == "" {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if err := WriteJSON(w, status, d.Body(f)); err != nil {
		s.Log.ErrorContext(r.Context(), "write an error answer", "error", err)
	}
}

// answer knows whether the answer has begun: from then on its status cannot change.
type answer struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(b []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController flush.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
