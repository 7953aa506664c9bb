package openapi_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"muster/events"
)

// sources are the files of source/ in the order of the document.
var sources = []string{"amp", "deployments", "runs", "people", "schedules", "incoming", "outgoing", "agent", "pages"}

// builder makes the document of what the files say.
type builder struct {
	info     object
	notation notation
	files    []object
}

func read(name string) (object, error) {
	text, err := os.ReadFile(filepath.Join("source", name+".yaml"))
	if err != nil {
		return nil, err
	}
	o, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("read source/%s.yaml: %w", name, err)
	}
	return o, nil
}

// build makes the document. What is written wrong panics: it is a mistake of whoever wrote it, and the test says where.
func build() (document object, err error) {
	b := &builder{notation: notation{used: map[string]bool{}}}
	if b.info, err = read("info"); err != nil {
		return nil, err
	}
	for _, name := range sources {
		file, err := read(name)
		if err != nil {
			return nil, err
		}
		b.files = append(b.files, file)
		for _, s := range file.object("schemas") {
			if b.notation.schemas.get(s.name) != nil {
				return nil, fmt.Errorf("there are two schemas %s", s.name)
			}
			b.notation.schemas = append(b.notation.schemas, s)
		}
	}
	generated := eventSchemas()
	for _, s := range generated {
		b.notation.schemas = append(b.notation.schemas, field{s.name, object{{"$raw", s.value}}})
	}

	var tags []any
	var paths, webhooks, schemas object
	for _, file := range b.files {
		wire := file.text("wire")
		tags = append(tags, object{{"name", wire}, {"description", file.text("doc")}})
		for _, op := range file.object("operations") {
			method, path, _ := strings.Cut(op.name, " ")
			at := slices.IndexFunc(paths, func(f field) bool { return f.name == path })
			if at < 0 {
				paths, at = append(paths, field{path, object{}}), len(paths)
			}
			paths[at].value = append(paths[at].value.(object), field{strings.ToLower(method), b.operation(wire, file.text("error"), path, op.value.(object))})
		}
		for _, w := range file.object("webhooks") {
			webhooks = append(webhooks, field{w.name, object{{"post", b.webhook(wire, w.name, w.value.(object))}}})
		}
	}
	based := map[string]bool{} // what only others are written with is no schema of its own
	for _, s := range b.notation.schemas {
		if o, ok := s.value.(object); ok {
			for _, name := range o.list("$with") {
				based[name.(string)] = true
			}
		}
		schemas = append(schemas, field{s.name, b.notation.schema(s.value)})
	}
	schemas = slices.DeleteFunc(schemas, func(s field) bool { return based[s.name] && !b.notation.used[s.name] })
	return object{
		{"openapi", "3.1.1"},
		{"info", object{{"title", b.info.text("title")}, {"version", "1"}, {"description", b.info.text("doc")}}},
		{"jsonSchemaDialect", "https://spec.openapis.org/oas/3.1/dialect/base"},
		{"servers", []any{object{{"url", "/"}, {"description", "Where this document came from"}}}},
		{"tags", tags}, {"paths", paths}, {"webhooks", webhooks},
		{"components", object{
			{"schemas", schemas}, {"parameters", b.parameters()}, {"headers", b.headers()},
			{"securitySchemes", b.info.object("securitySchemes")},
		}},
	}, nil
}

// who says which tokens are taken; one of them is enough.
var who = map[string][]string{
	"anyone": {}, "deployment": {"deployment", "workspace"}, "workspace": {"workspace"},
	"watcher": {"deployment", "workspace", "ticket"},
}

func (b *builder) operation(wire, errorSchema, path string, o object) object {
	if own := o.text("error"); own != "" {
		errorSchema = own
	}
	for _, f := range o {
		if !slices.Contains([]string{"id", "does", "doc", "who", "proves", "inside", "socket", "takes", "query", "body", "body?", "example", "answers", "error", "errors"}, f.name) {
			panic(fmt.Sprintf("%s says %q, which means nothing", o.text("id"), f.name))
		}
	}
	op := object{{"operationId", o.text("id")}, {"summary", o.text("does")}}.with("description", strings.TrimSpace(o.text("doc")))
	op = append(op, field{"tags", []any{wire}})
	security := []any{}
	tokens, known := who[o.text("who")]
	if !known {
		panic(o.text("id") + " does not say for whom it is")
	}
	for _, token := range append(tokens[:len(tokens):len(tokens)], strings.Fields(o.text("proves"))...) {
		security = append(security, object{{token, []any{}}})
	}
	op = append(op, field{"security", security})
	op = op.with("x-internal", o.get("inside"))
	op = op.with("parameters", b.parametersOf(path, o))
	if socket := o.object("socket"); socket != nil {
		op = append(op, field{"x-messages", object{
			{"client", b.notation.schema(socket.text("client"))}, {"server", b.notation.schema(socket.text("server"))},
		}})
	}
	op = op.with("requestBody", b.requestBody(o))
	return append(op, field{"responses", b.responses(errorSchema, o, len(tokens) > 0)})
}

func (b *builder) parametersOf(path string, o object) (all []any) {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, segment := range segments {
		if !strings.HasPrefix(segment, "{") {
			continue
		}
		key := ""
		if i > 0 {
			key = segments[i-1] + "/" + segment
		} else {
			key = segment + "/" + segments[1]
		}
		doc := b.info.object("paths").text(key)
		if doc == "" {
			panic("nobody says what " + segment + " is in " + path)
		}
		all = append(all, object{
			{"name", strings.Trim(segment, "{}")}, {"in", "path"}, {"required", true}, {"description", doc}, {"schema", object{{"type", "string"}}},
		})
	}
	for _, name := range o.list("takes") {
		if b.info.object("parameters").get(name.(string)) == nil {
			panic(fmt.Sprintf("there is no parameter %v", name))
		}
		all = append(all, object{{"$ref", "#/components/parameters/" + name.(string)}})
	}
	for _, q := range o.object("query") {
		all = append(all, parameter(q.name, "query", b.notation.schema(q.value)))
	}
	return all
}

// parameter is a parameter that may be absent; what its schema says of it, it says itself.
func parameter(name, in string, schema object) object {
	p := object{{"name", name}, {"in", in}}.with("description", schema.get("description"))
	schema = slices.DeleteFunc(slices.Clone(schema), func(f field) bool { return f.name == "description" })
	return append(p, field{"schema", schema})
}

func (b *builder) parameters() (all object) {
	for _, f := range b.info.object("parameters") {
		o := f.value.(object)
		schema := b.notation.schema(o.text("is")).with("minimum", o.get("least")).with("maximum", o.get("most")).with("description", o.text("doc"))
		all = append(all, field{f.name, parameter(f.name, o.text("in"), schema)})
	}
	return all
}

func (b *builder) headers() (all object) {
	for _, f := range b.info.object("headers") {
		o := f.value.(object)
		all = append(all, field{f.name, object{{"description", o.text("doc")}, {"schema", b.notation.schema(o.text("is"))}}})
	}
	return all
}

func (b *builder) requestBody(o object) object {
	written, required := o.get("body"), true
	if written == nil {
		if written, required = o.get("body?"), false; written == nil {
			return nil
		}
	}
	content := b.content(written)
	if example := o.get("example"); example != nil {
		content[0].value = append(content[0].value.(object), field{"example", example})
	}
	return object{{"required", required}, {"content", content}}
}

// media are the words for bodies that are no JSON.
var media = map[string]string{"html": "text/html", "markdown": "text/markdown", "plain": "text/plain"}

// content gives the bodies by media type: those that are named, or one, or a list of those that can be.
func (b *builder) content(v any) (all object) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			kind := "application/json"
			if one == "Problem" {
				kind = "application/problem+json"
			}
			if word, ok := one.(string); ok && media[word] != "" {
				kind, one = media[word], "text"
			}
			if i := slices.IndexFunc(all, func(f field) bool { return f.name == kind }); i >= 0 {
				other := all[i].value.(object).object("schema")
				all[i].value = object{{"schema", object{{"anyOf", []any{other, b.notation.schema(one)}}}}}
				continue
			}
			all = append(all, field{kind, object{{"schema", b.notation.schema(one)}}})
		}
		return all
	case object:
		if named := v.object("content"); named != nil {
			for _, f := range named {
				if of, ok := strings.CutPrefix(fmt.Sprint(f.value), "stream of "); ok {
					all = append(all, field{f.name, object{{"schema", object{{"type", "string"}}}, {"x-item-schema", b.notation.schema(of)}}})
					continue
				}
				all = append(all, field{f.name, object{{"schema", b.notation.schema(f.value)}}})
			}
			return all
		}
	}
	return b.content([]any{v})
}

// responses are the answers that are written, and the errors that every operation of its kind has.
func (b *builder) responses(errorSchema string, o object, guarded bool) object {
	answers := map[int]object{}
	for _, f := range o.object("answers") {
		status, err := strconv.Atoi(f.name)
		if err != nil {
			panic(fmt.Sprintf("%s answers with %q", o.text("id"), f.name))
		}
		answers[status] = b.response(status, f.value)
	}
	faults := []int{http.StatusInternalServerError, http.StatusServiceUnavailable}
	if guarded {
		faults = append(faults, http.StatusUnauthorized, http.StatusForbidden)
	}
	if o.get("body") != nil || o.get("body?") != nil {
		faults = append(faults, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	for _, word := range strings.Fields(fmt.Sprint(o.get("errors"))) {
		if status, err := strconv.Atoi(word); err == nil {
			faults = append(faults, status)
		}
	}
	for _, status := range faults {
		if answers[status] != nil {
			continue
		}
		answer := object{{"is", errorSchema}}
		switch status {
		case http.StatusUnauthorized:
			answer = append(answer, field{"headers", []any{"WWW-Authenticate"}})
		case http.StatusTooManyRequests:
			answer = append(answer, field{"headers", []any{"Retry-After", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"}})
		case http.StatusServiceUnavailable:
			answer = append(answer, field{"headers", []any{"Retry-After"}})
		}
		answers[status] = b.response(status, answer)
	}
	var all object
	for status := range 600 {
		if answers[status] != nil {
			all = append(all, field{strconv.Itoa(status), answers[status]})
		}
	}
	return all
}

func (b *builder) response(status int, v any) object {
	doc := http.StatusText(status)
	var headers object
	if o, ok := v.(object); ok {
		if o.text("doc") != "" {
			doc = o.text("doc")
		}
		for _, name := range o.list("headers") {
			if b.info.object("headers").get(name.(string)) == nil {
				panic(fmt.Sprintf("there is no header %v", name))
			}
			headers = append(headers, field{name.(string), object{{"$ref", "#/components/headers/" + name.(string)}}})
		}
		if is := o.get("is"); is != nil {
			v = is
		}
	}
	r := object{{"description", doc}}.with("headers", headers)
	if v == "nothing" {
		return r
	}
	return r.with("content", b.content(v))
}

// signed are the headers of every POST that Muster sends.
var signed = []struct{ name, doc string }{
	{"X-Crewship-Event", "What it is about."},
	{"X-Crewship-Delivery", "The id of the delivery, the same for every attempt."},
	{"X-Crewship-Timestamp", "When this attempt was made, in seconds."},
	{"X-Crewship-Signature", "`sha256=` and the hex HMAC-SHA256 of `<timestamp>.<body>`; the key is the secret as it is shown."},
	{"Webhook-Id", "The same id, as Standard Webhooks name it."},
	{"Webhook-Timestamp", "The same time."},
	{"Webhook-Signature", "`v1,` and the base64 HMAC of `<id>.<timestamp>.<body>`, as Standard Webhooks sign."},
}

func (b *builder) webhook(wire, name string, o object) object {
	var headers []any
	for _, h := range signed {
		headers = append(headers, object{{"name", h.name}, {"in", "header"}, {"required", true}, {"description", h.doc}, {"schema", object{{"type", "string"}}}})
	}
	return object{
		{"operationId", "webhook_" + name}, {"summary", o.text("does")}, {"description", o.text("doc")}, {"tags", []any{wire}},
		{"security", []any{}}, {"parameters", headers},
		{"requestBody", object{{"required", true}, {"content", b.content(o.get("body"))}}},
		{"responses", object{
			{"2XX", object{{"description", "It is taken."}}},
			{"410", object{{"description", "The receiver is gone; nothing more is sent."}}},
			{"default", object{{"description", "It is sent again later."}}},
		}},
	}
}

// eventSchemas makes schemas of the catalogue: of each type that is emitted its own fields, and of events as they are shown.
// Types of the user's own have the fields that they came with.
func eventSchemas() (all object) {
	var known, cases []any
	var own object
	for _, k := range events.All() {
		if !k.Emitted {
			continue
		}
		known = append(known, k.Type)
		name := "EventData_" + k.Type
		own = append(own, field{name, object{{"description", k.Doc}, {"type", "object"}}.with("properties", eventFields(k.Fields)).with("required", eventNames(k.Fields))})
		cases = append(cases, object{
			{"if", object{{"properties", object{{"type", object{{"const", k.Type}}}}}}},
			{"then", object{{"$ref", "#/components/schemas/" + name}}},
		})
	}
	cases = append(cases, object{
		{"if", object{{"not", object{{"properties", object{{"type", object{{"enum", known}}}}}}}}},
		{"then", object{{"type", "object"}, {"additionalProperties", true}}},
	})
	ref := func(name string) object { return object{{"$ref", "#/components/schemas/" + name}} }
	common := events.Common()
	all = object{
		{"EventCommon", object{{"description", "The fields of every event."}, {"type", "object"}, {"properties", eventFields(common)}, {"required", eventNames(common)}}},
		{"EventOwn", object{{"description", "The fields of each type of event."}, {"allOf", cases}}},
		{"EventData", object{{"description", "An event with all its fields."}, {"type", "object"}, {"allOf", []any{ref("EventCommon"), ref("EventOwn")}}, {"unevaluatedProperties", false}}},
		{"Event", object{
			{"description", "An event in a stream."}, {"type", "object"},
			{"properties", object{
				{"id", object{{"type", "string"}}}, {"execution_id", object{{"type", "string"}}},
				{"timestamp", object{{"type", "string"}, {"format", "date-time"}}}, {"type", object{{"type", "string"}}}, {"data", ref("EventData")},
			}},
			{"required", []any{"id", "execution_id", "timestamp", "type", "data"}}, {"additionalProperties", false},
		}},
		{"EventNewsData", object{
			{"description", "An event with all its fields, and which run it is of."}, {"type", "object"},
			{"allOf", []any{ref("EventCommon"), ref("EventOwn")}},
			{"properties", object{{"run_id", object{{"type", "string"}, {"pattern", "^run_[0-9a-f]{32}$"}}}, {"deployment_id", object{{"type", "string"}, {"pattern", "^dep_[0-9a-f]{32}$"}}}, {"meta", object{}}}},
			{"required", []any{"run_id", "deployment_id"}}, {"unevaluatedProperties", false},
		}},
	}
	return append(all, own...)
}

func eventFields(fields []events.Field) (properties object) {
	for _, f := range fields {
		s := object{}
		switch f.Type {
		case "any":
		case "time":
			s = object{{"type", "string"}, {"format", "date-time"}}
		default:
			s = object{{"type", f.Type}}
		}
		inner := object{{"type", "object"}}.with("properties", eventFields(f.Fields)).with("required", eventNames(f.Fields))
		switch {
		case len(f.Fields) > 0 && f.Type == "array":
			s = append(s, field{"items", append(inner, field{"additionalProperties", false})})
		case len(f.Fields) > 0:
			s = append(inner, field{"additionalProperties", false})
		}
		if f.Nullable && f.Type != "any" {
			s = orNull(s)
		}
		properties = append(properties, field{f.Name, s.with("description", f.Doc)})
	}
	return properties
}

func eventNames(fields []events.Field) (names []any) {
	for _, f := range fields {
		names = append(names, f.Name)
	}
	return names
}
