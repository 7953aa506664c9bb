package host

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/uuid"

	"muster/infra"
)

// maxRequest is the largest request body that API Gateway takes, in bytes. Every wire takes less, so what is longer is cut
// here, and the wire says in its own words that it is too large.
const maxRequest = 10 << 20

// bodyTime is how long the body of a request may be under way.
const bodyTime = 30 * time.Second

// HTTP serves the manifest's routes as an API Gateway HTTP API does, by invoking the function of each. What no route serves
// goes to the function infra.Otherwise, which knows how each wire says so.
func (h *Host) HTTP() http.Handler {
	byName := map[string]infra.Function{}
	for _, f := range infra.Functions {
		byName[f.Name] = f
	}
	first, last := http.NewServeMux(), http.NewServeMux()
	agents := infra.Agents()
	if h.Agents != nil {
		agents = *h.Agents
	}
	for _, r := range infra.RoutesWith(agents) {
		mux := first
		if strings.HasPrefix(r.Path, "/{") {
			mux = last // net/http does not take it beside some of the others
		}
		f, front := byName[r.Function], h.front
		if f.Streams {
			front = h.stream
		}
		mux.Handle(r.Method+" "+r.Path, front(f, r.Method+" "+r.Path))
	}
	for _, f := range infra.Functions {
		if f.Sockets && h.Sockets != nil {
			first.Handle("GET "+infra.SocketPath, h.socket(f))
		}
	}
	other := h.front(byName[infra.Otherwise], "$default")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, mux := range []*http.ServeMux{first, last} {
			if handler, pattern := mux.Handler(r); pattern != "" {
				handler.ServeHTTP(w, r)
				return
			}
		}
		other.ServeHTTP(w, r)
	})
}

// front invokes one function for a request.
func (h *Host) front(f infra.Function, routeKey string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := readRequest(w, r)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			writeMessage(w, http.StatusRequestTimeout, "Request Timeout")
			return
		}
		if err != nil {
			writeMessage(w, http.StatusBadRequest, "Bad Request")
			return
		}
		answer, err := h.call(r.Context(), f, requestEvent(r, routeKey, body))
		var response events.APIGatewayV2HTTPResponse
		if err == nil {
			err = json.Unmarshal(answer, &response)
		}
		if err != nil {
			if r.Context().Err() == nil {
				h.log().Error("an invocation failed", "function", f.Name, "error", err)
			}
			writeMessage(w, http.StatusInternalServerError, "Internal Server Error")
			return
		}
		write(w, response)
	})
}

// readRequest reads a request's body, which must be here within bodyTime.
func readRequest(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	connection := http.NewResponseController(w)
	if connection.SetReadDeadline(time.Now().Add(bodyTime)) == nil { // a recorder of a test has none
		defer func() { _ = connection.SetReadDeadline(time.Time{}) }()
	}
	return io.ReadAll(io.LimitReader(r.Body, maxRequest))
}

func requestEvent(r *http.Request, routeKey string, body []byte) events.APIGatewayV2HTTPRequest {
	headers := make(map[string]string, len(r.Header)+1)
	for name, values := range r.Header {
		if name != "Cookie" {
			headers[strings.ToLower(name)] = strings.Join(values, ",")
		}
	}
	headers["host"] = r.Host
	ip, _, _ := net.SplitHostPort(r.RemoteAddr)
	now := time.Now()
	e := events.APIGatewayV2HTTPRequest{
		Version: "2.0", RouteKey: routeKey, RawPath: r.URL.EscapedPath(), RawQueryString: r.URL.RawQuery,
		Headers: headers, Body: string(body), Cookies: r.Header.Values("Cookie"),
		RequestContext: events.APIGatewayV2HTTPRequestContext{
			RouteKey: routeKey, Stage: "$default", RequestID: uuid.NewString(), DomainName: r.Host,
			Time: now.UTC().Format("02/Jan/2006:15:04:05 -0700"), TimeEpoch: now.UnixMilli(),
			HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{
				Method: r.Method, Path: r.URL.EscapedPath(), Protocol: r.Proto, SourceIP: ip, UserAgent: r.UserAgent(),
			},
		},
	}
	if !utf8.Valid(body) {
		e.Body, e.IsBase64Encoded = base64.StdEncoding.EncodeToString(body), true
	}
	return e
}

func write(w http.ResponseWriter, a events.APIGatewayV2HTTPResponse) {
	for name, value := range a.Headers {
		w.Header().Set(name, value)
	}
	for name, values := range a.MultiValueHeaders {
		for _, v := range values {
			w.Header().Add(name, v)
		}
	}
	for _, c := range a.Cookies {
		w.Header().Add("Set-Cookie", c)
	}
	body := []byte(a.Body)
	if a.IsBase64Encoded {
		body, _ = base64.StdEncoding.DecodeString(a.Body)
	}
	if a.StatusCode == 0 {
		a.StatusCode = http.StatusOK
	}
	w.WriteHeader(a.StatusCode)
	w.Write(body)
}

// writeMessage answers as API Gateway answers itself.
func writeMessage(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"message": message})
}
