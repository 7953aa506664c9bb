package invoke

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
)

// RequestIDHeader carries the id that API Gateway gave the request, whatever the caller wrote there.
const RequestIDHeader = "X-Request-Id"

// HTTP answers events of an API Gateway HTTP API (payload format 2.0) with an ordinary http.Handler.
func HTTP(h http.Handler) lambda.Handler { return httpHandler{h} }

type httpHandler struct{ handler http.Handler }

// Invoke implements lambda.Handler. It fails, and the caller gets a 500 from API Gateway, only if the event is none.
func (h httpHandler) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	var event events.APIGatewayV2HTTPRequest
	if err := decode(payload, &event, "a request of an HTTP API"); err != nil {
		return nil, err
	}
	ctx, cancel := early(ctx)
	defer cancel()
	r, err := request(ctx, event)
	if err != nil {
		return nil, err
	}
	return json.Marshal(h.serve(r))
}

func (h httpHandler) serve(r *http.Request) (answer events.APIGatewayV2HTTPResponse) {
	w := &recorder{header: http.Header{}}
	defer func() {
		if cause := recover(); cause != nil {
			logPanic(r.Context(), r.Method+" request", cause)
			answer = events.APIGatewayV2HTTPResponse{
				StatusCode: http.StatusInternalServerError,
				Headers:    map[string]string{"Content-Type": "application/json"},
				Body:       `{"message":"Internal Server Error"}`,
			}
		}
	}()
	h.handler.ServeHTTP(w, r)
	return w.answer()
}

func request(ctx context.Context, e events.APIGatewayV2HTTPRequest) (*http.Request, error) {
	if e.Version != "2.0" || e.RequestContext.HTTP.Method == "" || !strings.HasPrefix(e.RawPath, "/") {
		return nil, errors.New("the event is no request of an HTTP API in payload format 2.0")
	}
	body := []byte(e.Body)
	if e.IsBase64Encoded {
		var err error
		if body, err = base64.StdEncoding.DecodeString(e.Body); err != nil {
			return nil, errors.New("the event says that its body is base64, and it is not")
		}
	}

	header := http.Header{}
	for name, value := range e.Headers {
		header.Set(name, value)
	}
	if len(e.Cookies) > 0 {
		header.Set("Cookie", strings.Join(e.Cookies, "; "))
	}
	header.Set(RequestIDHeader, e.RequestContext.RequestID)
	host := header.Get("Host")
	if host == "" {
		host = e.RequestContext.DomainName
	}
	header.Del("Host")

	r := &http.Request{
		Method: e.RequestContext.HTTP.Method,
		URL:    &url.URL{RawQuery: e.RawQueryString},
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        header,
		Host:          host,
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
		RemoteAddr:    net.JoinHostPort(e.RequestContext.HTTP.SourceIP, "0"),
	}
	r.Pattern = e.RouteKey
	setPath(r.URL, e)
	r.RequestURI = r.URL.RequestURI()
	return r.WithContext(ctx), nil
}

// setPath takes the path without the name of the stage. API Gateway has already decoded some paths and not others, so one
// that does not decode is taken as it is.
func setPath(u *url.URL, e events.APIGatewayV2HTTPRequest) {
	raw := e.RawPath
	if stage := e.RequestContext.Stage; stage != "" && stage != "$default" {
		if rest, found := strings.CutPrefix(raw, "/"+stage); found && (rest == "" || rest[0] == '/') {
			raw = "/" + strings.TrimPrefix(rest, "/")
		}
	}
	u.Path, u.RawPath = raw, ""
	if decoded, err := url.PathUnescape(raw); err == nil {
		u.Path, u.RawPath = decoded, raw
	}
}

// recorder is the http.ResponseWriter that keeps an answer until it is whole.
type recorder struct {
	header http.Header
	sent   http.Header // header as it was when the status was written
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status != 0 || status < 200 {
		return // written twice, or one of the interim answers that Lambda cannot pass on
	}
	w.status, w.sent = status, w.header.Clone()
}

func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

func (w *recorder) answer() events.APIGatewayV2HTTPResponse {
	w.WriteHeader(http.StatusOK)
	a := events.APIGatewayV2HTTPResponse{
		StatusCode: w.status,
		Headers:    map[string]string{},
		Cookies:    w.sent.Values("Set-Cookie"),
	}
	for name, values := range w.sent {
		if name != "Set-Cookie" {
			a.Headers[name] = strings.Join(values, ", ")
		}
	}
	if a.Headers["Content-Type"] == "" && w.body.Len() > 0 {
		a.Headers["Content-Type"] = http.DetectContentType(w.body.Bytes())
	}
	if body := w.body.Bytes(); utf8.Valid(body) {
		a.Body = string(body)
	} else {
		a.Body, a.IsBase64Encoded = base64.StdEncoding.EncodeToString(body), true
	}
	return a
}
