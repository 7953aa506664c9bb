package tool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/fault"
	"muster/shared/guard"
)

// stepIDHeader lets a receiver recognise a call that is repeated after a crash.
const stepIDHeader = "Muster-Step-Id"

// maxResponse is the number of bytes of a response that are read. It is more than the model is told, so that the events of
// a long JSON reply are found.
const maxResponse = 1 << 20

// httpSettings are the settings of http_request.
type httpSettings struct {
	// AllowedMethods default to all of methods.
	AllowedMethods []string `json:"allowed_methods"`
	// BaseURL pins requests to one server and path; the model may then give a path alone.
	BaseURL string `json:"base_url"`
	// AllowedHosts pins requests to hosts, each "host" for the usual port or "host:port".
	AllowedHosts []string `json:"allowed_hosts"`
	// Headers are sent with each request and never shown to the model. They need a BaseURL or AllowedHosts: a model must not
	// be talked into carrying them elsewhere.
	Headers map[string]string `json:"headers"`
}

var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// ownHeaders are set by the client or by us, and by nobody else.
var ownHeaders = []string{"Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Te", "Trailer", "Accept-Encoding", stepIDHeader}

type httpRequest struct {
	function llm.Function
	client   *http.Client
	settings httpSettings
	base     *url.URL
}

func (b Box) openHTTPRequest(t crew.Tool) (Tool, error) {
	h := &httpRequest{client: b.HTTP}
	s := &h.settings
	if err := readSettings(t, s); err != nil {
		return nil, err
	}
	if len(s.AllowedMethods) == 0 {
		s.AllowedMethods = methods
	}
	for i, m := range s.AllowedMethods {
		s.AllowedMethods[i] = strings.ToUpper(m)
		if !slices.Contains(methods, strings.ToUpper(m)) {
			return nil, fault.New(fault.Invalid, "The tool %s has the method %q in allowed_methods; there are %s.", t.Name, m, strings.Join(methods, ", "))
		}
	}
	if s.BaseURL != "" {
		var err error
		if h.base, err = parseURL(s.BaseURL); err != nil {
			return nil, fault.New(fault.Invalid, "The base_url of the tool %s cannot be used: %v.", t.Name, err)
		}
	}
	if len(s.Headers) > 0 && !h.pinned() {
		return nil, fault.New(fault.Invalid, "The tool %s has headers and neither base_url nor allowed_hosts; name the servers that may see them.", t.Name)
	}
	for name, value := range s.Headers {
		if !validHeader(name, value) {
			return nil, fault.New(fault.Invalid, "The tool %s cannot send the header %q of its settings.", t.Name, name)
		}
	}
	where := "the address, https://…"
	if h.base != nil {
		where = "the path, below the address that this tool is for"
	}
	allowed, err := json.Marshal(s.AllowedMethods)
	if err != nil {
		return nil, fmt.Errorf("encode the methods: %w", err)
	}
	h.function = describe(t, "Sends an HTTP request and gives the status and the body of the response.", fmt.Sprintf(`{
		"type": "object",
		"properties": {
			"method": {"type": "string", "enum": %s},
			"url": {"type": "string", "description": %q},
			"headers": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
			"body": {"type": ["string", "null"], "description": "the body as text, such as JSON"}
		},
		"required": ["method", "url"],
		"additionalProperties": false
	}`, allowed, where))
	return h, nil
}

// Function tells the model of it.
func (h *httpRequest) Function() llm.Function { return h.function }

func (h *httpRequest) pinned() bool { return h.base != nil || len(h.settings.AllowedHosts) > 0 }

// Call sends one request. It is not repeated here: a repetition after a crash carries the same Muster-Step-Id.
func (h *httpRequest) Call(ctx context.Context, c Call) (Result, error) {
	request, err := h.request(ctx, c)
	if err != nil {
		return invalidInput(fault.Message(err)), nil
	}
	response, body, cut, err := send(h.client, request, maxResponse)
	if err != nil {
		return Result{}, err
	}
	text, taken := h.readable(response, body)
	text = fmt.Sprintf("HTTP %d %s\n", response.StatusCode, http.StatusText(response.StatusCode)) + header(response, "Content-Type") +
		header(response, "Location") + "\n" + text
	if cut {
		text += "\n[the response was longer than was read]"
	}
	result := Result{Text: capped(h.hide(text)), Events: taken}
	if status := response.StatusCode; status >= http.StatusBadRequest {
		again := status >= http.StatusInternalServerError || status == http.StatusTooManyRequests
		said := fmt.Sprintf("The server answered %d %s.", status, http.StatusText(status))
		failure := failed(result.Text, said, strconv.Itoa(status), again)
		failure.Events = taken
		return failure, nil
	}
	return result, nil
}

func (h *httpRequest) request(ctx context.Context, c Call) (*http.Request, error) {
	method := strings.ToUpper(argument(c, "method"))
	if !slices.Contains(h.settings.AllowedMethods, method) {
		return nil, fault.New(fault.Invalid, "The method %q is not allowed here; allowed are %s.", method, strings.Join(h.settings.AllowedMethods, ", "))
	}
	target, err := h.target(argument(c, "url"))
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader([]byte(argument(c, "body"))))
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The request cannot be sent as it is.")
	}
	if body := argument(c, "body"); body != "" && json.Valid([]byte(body)) {
		request.Header.Set("Content-Type", "application/json")
	}
	asked, _ := c.Arguments["headers"].(map[string]any)
	for name, v := range asked {
		value, ok := v.(string)
		if !ok || !validHeader(name, value) {
			return nil, fault.New(fault.Invalid, "The header %q cannot be sent.", name)
		}
		request.Header.Set(name, value)
	}
	for name, value := range h.settings.Headers {
		request.Header.Set(name, value)
	}
	request.Header.Set(stepIDHeader, c.StepID)
	return request, nil
}

// target finds the address, and holds it to what the settings allow.
func (h *httpRequest) target(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "The url cannot be read.")
	}
	if h.base != nil && !u.IsAbs() && u.Host == "" {
		joined := h.base.JoinPath(u.EscapedPath())
		joined.RawQuery = u.RawQuery
		u = joined
	}
	if u, err = parseURL(u.String()); err != nil {
		return nil, fault.New(fault.Invalid, "The url cannot be called: %v.", err)
	}
	if h.base != nil && within(h.base, u) {
		return u, nil
	}
	for _, host := range h.settings.AllowedHosts {
		if strings.EqualFold(u.Host, host) {
			return u, nil
		}
	}
	if h.pinned() {
		return nil, fault.New(fault.Invalid, "The host %s is not one that this tool may call.", u.Host)
	}
	return u, nil
}

// within tells whether an address is on the server of base and below its path, also after the server has resolved the
// dots of the path.
func within(base, u *url.URL) bool {
	root := strings.TrimSuffix(path.Clean("/"+base.Path), "/")
	below := path.Clean("/" + u.Path)
	return u.Scheme == base.Scheme && strings.EqualFold(u.Host, base.Host) && (below == root || strings.HasPrefix(below, root+"/"))
}

// readable makes text of a body. Events are taken only from servers that the definition names: a page of a stranger must
// not speak in the crew's name.
func (h *httpRequest) readable(response *http.Response, body []byte) (string, []Event) {
	if !textual(response, body) {
		return fmt.Sprintf("[%d bytes that are no text]", len(body)), nil
	}
	if h.pinned() {
		return takeEvents([]byte(h.hide(string(body))))
	}
	return string(body), nil
}

// hide takes the values of configured headers out of a response that quotes them.
func (h *httpRequest) hide(text string) string {
	for _, value := range h.settings.Headers {
		for _, secret := range append(strings.Fields(value), value) {
			if len(secret) >= 8 {
				text = strings.ReplaceAll(text, secret, "[hidden]")
			}
		}
	}
	return text
}

// parseURL takes http and https addresses without a user, and drops the fragment.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("it cannot be read")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("it does not begin with http:// or https://")
	case u.Host == "":
		return nil, errors.New("it has no host")
	case u.User != nil:
		return nil, errors.New("it has a user name in it")
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

func validHeader(name, value string) bool {
	if name == "" || slices.Contains(ownHeaders, http.CanonicalHeaderKey(name)) || strings.ContainsAny(value, "\r\n\x00") {
		return false
	}
	return strings.IndexFunc(name, func(r rune) bool {
		return !(r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}) < 0
}

// send sends a request and reads at most limit bytes of the body; cut tells that there was more.
func send(client *http.Client, request *http.Request, limit int64) (response *http.Response, body []byte, cut bool, err error) {
	response, err = client.Do(request)
	if err == nil {
		defer func() { _ = response.Body.Close() }()
		body, cut, err = guard.ReadBody(response.Body, limit)
	}
	if err != nil {
		if request.Context().Err() != nil {
			return nil, nil, false, request.Context().Err()
		}
		return nil, nil, false, fault.New(fault.Unavailable, "The request to %s failed: %s", request.URL.Host, guard.Message(err))
	}
	return response, body, cut, nil
}

func header(response *http.Response, name string) string {
	if v := response.Header.Get(name); v != "" {
		return name + ": " + v + "\n"
	}
	return ""
}

// textual tells whether a body is for reading.
func textual(response *http.Response, body []byte) bool {
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil {
		return utf8.Valid(body)
	}
	for _, part := range []string{"text/", "json", "xml", "javascript", "x-www-form-urlencoded", "yaml", "csv"} {
		if strings.Contains(kind, part) {
			return true
		}
	}
	return kind == "application/octet-stream" && utf8.Valid(body)
}
