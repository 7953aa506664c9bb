package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"muster/shared/openapi"
	"muster/shared/webhook"
)

// The document that Muster serves is held to everything that passes by in these tests: each request that was accepted, each
// answer, each message of a stream, and each webhook that a receiver is sent.

// contract is the document, ready to be compared with what happens, and what it was compared with.
type contract struct {
	operations  map[string]operation // by pattern
	webhooks    map[string]string    // the place of the body's schema, by name
	first, last *http.ServeMux       // as package httpapi divides them
	compiler    *jsonschema.Compiler

	mu      sync.Mutex
	schemas map[string]*jsonschema.Schema // by place in the document
	seen    map[string]map[int]int        // how often an operation answered with a status
	sampled map[string]int                // messages that were looked at, by kind
}

// operation is an operation of the document with the place where it is.
type operation struct {
	at          string
	ID          string `json:"operationId"`
	Parameters  []parameter
	RequestBody struct {
		Required bool
		Content  map[string]media
	}
	Responses map[string]response
}

type parameter struct {
	Ref      string `json:"$ref"`
	Name, In string
}

type response struct {
	Headers map[string]any
	Content map[string]media
}

type media struct {
	Item any `json:"x-item-schema"`
}

const documentURL = "muster:openapi"

// theContract is shared by all homes.
var theContract = sync.OnceValue(readContract)

func readContract() *contract {
	var document struct {
		Paths      map[string]map[string]operation
		Webhooks   map[string]any
		Components struct{ Parameters map[string]parameter }
	}
	if err := json.Unmarshal(openapi.Document, &document); err != nil {
		panic(err)
	}
	raw, err := jsonschema.UnmarshalJSON(bytes.NewReader(openapi.Document))
	if err != nil {
		panic(err)
	}
	c := &contract{
		operations: map[string]operation{}, webhooks: map[string]string{}, first: http.NewServeMux(), last: http.NewServeMux(),
		compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}, seen: map[string]map[int]int{}, sampled: map[string]int{},
	}
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource(documentURL, raw); err != nil {
		panic(err)
	}
	for path, methods := range document.Paths {
		for method, op := range methods {
			op.at = "/paths/" + escape(path) + "/" + method
			for i, p := range op.Parameters {
				if p.Ref != "" {
					op.Parameters[i] = document.Components.Parameters[strings.TrimPrefix(p.Ref, "#/components/parameters/")]
					op.Parameters[i].Ref = strings.TrimPrefix(p.Ref, "#")
				} else {
					op.Parameters[i].Ref = op.at + "/parameters/" + strconv.Itoa(i)
				}
			}
			pattern := strings.ToUpper(method) + " " + path
			c.operations[pattern] = op
			mux := c.first
			if strings.HasPrefix(path, "/{") {
				mux = c.last
			}
			mux.Handle(pattern, http.NotFoundHandler())
		}
	}
	for name := range document.Webhooks {
		c.webhooks[name] = "/webhooks/" + name + "/post/requestBody/content/application~1json/schema"
	}
	return c
}

// escape writes a name as a JSON pointer does.
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// schema compiles the schema at a place of the document, once.
func (c *contract) schema(at string) *jsonschema.Schema {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.schemas[at] == nil {
		compiled, err := c.compiler.Compile(documentURL + "#" + fragment(at))
		if err != nil {
			panic(err)
		}
		c.schemas[at] = compiled
	}
	return c.schemas[at]
}

// fragment writes a place as the fragment of a URL.
func fragment(at string) string {
	parts := strings.Split(at, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

// validate compares JSON with the schema at a place.
func (c *contract) validate(at string, body []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("this is no JSON: %w", err)
	}
	return c.schema(at).Validate(value)
}

// find gives the operation that a request is for. HEAD is taken wherever GET is.
func (c *contract) find(r *http.Request) (operation, bool) {
	asked := *r
	if asked.Method == http.MethodHead {
		asked.Method = http.MethodGet
	}
	for _, mux := range []*http.ServeMux{c.first, c.last} {
		if _, pattern := mux.Handler(&asked); pattern != "" {
			return c.operations[pattern], true
		}
	}
	return operation{}, false
}

// held is the contract as one test holds a home to it.
type held struct {
	*contract
	t interface {
		Errorf(format string, args ...any)
	}

	told sync.Map // complaints, each is made once
}

func (h *held) complain(err error, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if _, again := h.told.LoadOrStore(what, true); !again {
		h.t.Errorf("shared/openapi/source does not say so: %s: %v", what, err)
	}
}

// hold lets requests pass, and compares them and their answers with the contract.
func (h *held) hold(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var sent bytes.Buffer
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(r.Body, &sent), r.Body}
		said := &saying{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(said, r)
		op, known := h.find(r)
		if !known {
			h.unknown(r, said)
			return
		}
		h.note(op.ID, said.status)
		h.answered(op, r, said)
		if said.status < 300 {
			h.accepted(op, r, sent.Bytes(), said.Header().Get("Muster-Warning"))
		}
	})
}

// saying keeps what an answer says.
type saying struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (s *saying) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

func (s *saying) Write(b []byte) (int, error) {
	s.body.Write(b)
	return s.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController flush, and WebSockets begin.
func (s *saying) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (h *held) note(id string, status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seen[id] == nil {
		h.seen[id] = map[int]int{}
	}
	h.seen[id][status]++
}

// unknown looks at what no operation is for.
func (h *held) unknown(r *http.Request, said *saying) {
	switch said.status {
	case http.StatusNoContent:
		return
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		if r.Method == http.MethodHead || strings.HasPrefix(said.Header().Get("Content-Type"), "text/plain") {
			return
		}
		for _, shape := range []string{"Error", "AMPError", "ResumeError", "Problem"} {
			if h.validate("/components/schemas/"+shape, said.body.Bytes()) == nil {
				return
			}
		}
	}
	h.complain(errors.New(clip(said.body.Bytes())), "%s %s was answered with %d", r.Method, r.URL.Path, said.status)
}

// answered looks at an answer.
func (h *held) answered(op operation, r *http.Request, said *saying) {
	what := fmt.Sprintf("%s answers with %d", op.ID, said.status)
	status := strconv.Itoa(said.status)
	documented, ok := op.Responses[status]
	if !ok {
		h.complain(errors.New(clip(said.body.Bytes())), "%s", what)
		return
	}
	for name := range said.Header() {
		told := strings.HasPrefix(name, "Muster-") || strings.HasPrefix(name, "Ratelimit-") ||
			slices.Contains([]string{"Retry-After", "Location", "Preference-Applied", "Deprecation", "Sunset", "Www-Authenticate"}, name)
		if told && !hasHeader(documented.Headers, name) {
			h.complain(nil, "%s and the header %s", what, name)
		}
	}
	if said.status == http.StatusSwitchingProtocols || r.Method == http.MethodHead {
		return
	}
	body := said.body.Bytes()
	if len(documented.Content) == 0 {
		if len(body) > 0 {
			h.complain(errors.New(clip(body)), "%s and a body", what)
		}
		return
	}
	kind, _, _ := mime.ParseMediaType(said.Header().Get("Content-Type"))
	at := op.at + "/responses/" + status + "/content/" + escape(kind)
	switch m, ok := documented.Content[kind]; {
	case !ok:
		h.complain(errors.New(clip(body)), "%s and the type %q", what, kind)
	case m.Item != nil:
		for _, line := range messagesIn(kind, body) {
			h.message(what, at+"/x-item-schema", line)
		}
	case strings.HasSuffix(kind, "json"):
		if err := h.validate(at+"/schema", body); err != nil {
			h.complain(fmt.Errorf("%w\nin %s", err, clip(body)), "%s and a body like this", what)
		}
	}
}

func hasHeader(documented map[string]any, name string) bool {
	for one := range documented {
		if http.CanonicalHeaderKey(one) == name {
			return true
		}
	}
	return false
}

// messagesIn gives the messages of a stream. The last one may have been cut off with its watcher.
func messagesIn(kind string, body []byte) (messages [][]byte) {
	lines := bytes.Split(body, []byte("\n"))
	for _, line := range lines[:len(lines)-1] {
		if kind == "text/event-stream" {
			data, ok := bytes.CutPrefix(line, []byte("data: "))
			if !ok {
				continue
			}
			line = data
		}
		messages = append(messages, line)
	}
	return messages
}

// most is how many messages of a kind are looked at; those after them are the same.
const most = 25

func (h *held) message(what, at string, line []byte) {
	var m struct{ Type string }
	_ = json.Unmarshal(line, &m)
	kind := what + " " + m.Type
	h.mu.Lock()
	h.sampled[kind]++
	enough := h.sampled[kind] > most
	h.mu.Unlock()
	if enough {
		return
	}
	if err := h.validate(at, line); err != nil {
		h.complain(fmt.Errorf("%w\nin %s", err, clip(line)), "%s and a message %s", what, m.Type)
	}
}

// Where the document says what is told by a WebSocket.
const (
	socketFrames = "/paths/~1ws/get/x-messages/server"
	watchFrames  = "/components/schemas/WatchMessage"
)

// frames looks at what was told by a WebSocket.
func frames(t *testing.T, at string, message []byte) {
	(&held{contract: theContract(), t: t}).message("a WebSocket", at, message)
}

// accepted looks at a request that was accepted.
func (h *held) accepted(op operation, r *http.Request, body []byte, warning string) {
	for name, values := range r.URL.Query() {
		i := slices.IndexFunc(op.Parameters, func(p parameter) bool {
			prefix, open := strings.CutSuffix(p.Name, "*")
			return p.In == "query" && (p.Name == name || open && strings.HasPrefix(name, prefix))
		})
		if i < 0 && name != "ticket" && name != "token" { // which are how one says who one is
			h.complain(nil, "%s takes %q in the query", op.ID, name)
		}
		for _, value := range values {
			if i >= 0 && value != "" {
				h.value(op, i, value)
			}
		}
	}
	if len(body) == 0 {
		if op.RequestBody.Required {
			h.complain(nil, "%s takes no body at all", op.ID)
		}
		return
	}
	if len(op.RequestBody.Content) == 0 {
		return // nobody reads it
	}
	if _, ok := op.RequestBody.Content["application/json"]; !ok {
		return
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/x-www-form-urlencoded" && len(op.RequestBody.Content) > 1 {
		return
	}
	at := op.at + "/requestBody/content/application~1json/schema"
	if err := h.validate(at, body); err != nil {
		h.complain(fmt.Errorf("%w\nin %s", err, clip(body)), "%s takes a body like this", op.ID)
	}
	var given map[string]json.RawMessage
	if json.Unmarshal(body, &given) != nil {
		return
	}
	for name := range given {
		if !h.names(at, name) && !strings.Contains(warning, "unknown field "+name+" was ignored") {
			h.complain(nil, "%s takes %q", op.ID, name)
		}
	}
}

// value compares a value of a query with its parameter's schema: as a number, if it is one, or as a string.
func (h *held) value(op operation, i int, value string) {
	at := op.Parameters[i].Ref + "/schema"
	quoted, err := json.Marshal(value)
	if err != nil {
		h.t.Errorf("%v", err)
	}
	asString := h.validate(at, quoted)
	if asString == nil {
		return
	}
	if _, err := strconv.Atoi(value); err != nil || h.validate(at, []byte(value)) != nil {
		h.complain(asString, "%s takes %q for %s in the query", op.ID, value, op.Parameters[i].Name)
	}
}

// names tells whether the schema at a place names a field, or none at all, or takes any other.
func (h *held) names(at, name string) bool {
	s := h.schema(at)
	for s.Ref != nil {
		s = s.Ref
	}
	return len(s.Properties) == 0 || s.Properties[name] != nil || s.AdditionalProperties == true
}

// receives looks at a webhook that a receiver is sent.
func (h *held) receives(header http.Header, body []byte) {
	var o map[string]json.RawMessage
	if err := json.Unmarshal(body, &o); err != nil {
		h.complain(err, "a webhook has a body like %s", clip(body))
		return
	}
	has := func(name string) bool { _, ok := o[name]; return ok }
	var name string
	event := header.Get(webhook.HeaderEvent)
	switch {
	case has("events"):
		name = "stream"
	case has("blocks"):
		name = "slack"
	case has("embeds"):
		name = "discord"
	case has("task_output"):
		name = "human_input"
	case has("thought"):
		name = "step"
	case has("expected_output"):
		name = "task"
	case has("token_usage"):
		name = "crew"
	case event == "ping", strings.HasPrefix(event, "endpoint."):
		name = "endpoint"
	case strings.HasPrefix(event, "run."):
		name = "run"
	default:
		name = "event"
	}
	h.note("webhook_"+name, 0)
	h.message("the webhook "+name+" is sent", h.webhooks[name], body)
	for _, one := range []string{webhook.HeaderEvent, webhook.HeaderDelivery, webhook.HeaderTimestamp, webhook.HeaderSignature, webhook.HeaderStandardSignature} {
		if header.Get(one) == "" {
			h.complain(nil, "the webhook %s comes without %s", name, one)
		}
	}
}

// summary says what the suite saw of the contract, and which operations it did not.
func (c *contract) summary() (line string, missing []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pairs, all := 0, 0
	for _, pattern := range slices.Sorted(maps.Keys(c.operations)) {
		op := c.operations[pattern]
		if len(c.seen[op.ID]) == 0 {
			missing = append(missing, op.ID)
		}
		pairs, all = pairs+len(c.seen[op.ID]), all+len(op.Responses)
	}
	for _, name := range slices.Sorted(maps.Keys(c.webhooks)) {
		if len(c.seen["webhook_"+name]) == 0 {
			missing = append(missing, "webhook_"+name)
		}
	}
	return fmt.Sprintf("openapi: %d operations and %d webhooks, %d never seen; %d of %d documented answers seen",
		len(c.operations), len(c.webhooks), len(missing), pairs, all), missing
}
