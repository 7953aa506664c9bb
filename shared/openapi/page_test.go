package openapi_test

import (
	"bytes"
	_ "embed" // the template
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"slices"
	"strings"

	"github.com/yuin/goldmark"
)

//go:embed source/page.html
var pageText string

// The page is drawn from the document, and from nothing else.
type pageData struct {
	Title    string
	Doc      template.HTML
	Groups   []*group
	Security []named
	Schemas  []named
}

type group struct {
	Name, ID   string
	Doc        template.HTML
	Operations []drawn
	Webhooks   []drawn
}

type named struct {
	Name string
	Doc  template.HTML
	Body template.HTML
}

type drawn struct {
	ID, Method, Path, Does string
	Doc                    template.HTML
	Who                    string
	Parameters             []drawnParameter
	Bodies                 []named
	Curl                   string
	Answers                []drawnAnswer
}

type drawnParameter struct {
	Name, In string
	Is, Doc  template.HTML
	Required bool
}

type drawnAnswer struct {
	Status, Doc string
	Fault       bool // which is drawn in one line
	Headers     []string
	Bodies      []named
}

func render(document object) ([]byte, error) {
	t, err := template.New("page").Parse(pageText)
	if err != nil {
		return nil, err
	}
	p := painter{document}
	info := document.object("info")
	data := pageData{Title: info.text("title"), Doc: markdown(info.text("description"))}
	for _, tag := range document.list("tags") {
		name := tag.(object).text("name")
		data.Groups = append(data.Groups, &group{Name: name, ID: strings.ToLower(strings.ReplaceAll(name, " ", "-")), Doc: markdown(tag.(object).text("description"))})
	}
	of := func(op object) *group {
		i := slices.IndexFunc(data.Groups, func(g *group) bool { return g.Name == op.list("tags")[0] })
		return data.Groups[i]
	}
	for _, path := range document.object("paths") {
		for _, method := range path.value.(object) {
			op := method.value.(object)
			g := of(op)
			g.Operations = append(g.Operations, p.operation(strings.ToUpper(method.name), path.name, op))
		}
	}
	for _, w := range document.object("webhooks") {
		op := w.value.(object).object("post")
		g := of(op)
		g.Webhooks = append(g.Webhooks, p.operation("POST", "", op))
	}
	components := document.object("components")
	for _, s := range components.object("securitySchemes") {
		data.Security = append(data.Security, named{Name: s.name, Doc: markdown(s.value.(object).text("description"))})
	}
	for _, s := range components.object("schemas") {
		schema := s.value.(object)
		data.Schemas = append(data.Schemas, named{s.name, markdown(schema.text("description")), template.HTML(p.shape(schema, ""))})
	}
	var b bytes.Buffer
	err = t.Execute(&b, data)
	return b.Bytes(), err
}

func markdown(text string) template.HTML {
	var b bytes.Buffer
	if err := goldmark.Convert([]byte(text), &b); err != nil {
		panic(err)
	}
	return template.HTML(strings.TrimSpace(b.String()))
}

type painter struct{ document object }

// resolve follows a reference.
func (p painter) resolve(o object) object {
	ref := o.text("$ref")
	if ref == "" {
		return o
	}
	found := p.document
	for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		found = found.object(part)
	}
	return found
}

func (p painter) operation(method, path string, op object) drawn {
	d := drawn{
		ID: op.text("operationId"), Method: method, Path: path, Does: op.text("summary"), Doc: markdown(op.text("description")),
		Who: takers(op), Curl: p.curl(method, path, op),
	}
	for _, one := range op.list("parameters") {
		q := p.resolve(one.(object))
		required, _ := q.get("required").(bool)
		d.Parameters = append(d.Parameters, drawnParameter{
			Name: q.text("name"), In: q.text("in"), Required: required, Is: template.HTML(p.shape(q.object("schema"), "")), Doc: markdown(q.text("description")),
		})
	}
	d.Bodies = p.bodies(op.object("requestBody"), true)
	for _, f := range op.object("responses") {
		r := f.value.(object)
		a := drawnAnswer{Status: f.name, Doc: r.text("description"), Fault: f.name >= "400", Bodies: p.bodies(r, f.name < "400")}
		for _, h := range r.object("headers") {
			a.Headers = append(a.Headers, h.name)
		}
		d.Answers = append(d.Answers, a)
	}
	return d
}

// bodies draws the bodies by media type, the fields of those with a name too if they are wanted.
func (p painter) bodies(o object, fields bool) (all []named) {
	for _, f := range o.object("content") {
		media := f.value.(object)
		schema := media.object("schema")
		if item := media.object("x-item-schema"); item != nil {
			schema = item
		}
		body := p.shape(schema, "")
		if of := p.resolve(schema); fields && schema.text("$ref") != "" && of.object("properties") != nil {
			body += " " + p.shape(of, "")
		}
		all = append(all, named{Name: f.name, Body: template.HTML(body)})
	}
	return all
}

func takers(op object) string {
	var names []string
	for _, one := range op.list("security") {
		names = append(names, one.(object)[0].name)
	}
	if len(names) == 0 {
		return "no token"
	}
	return strings.Join(names, " or ")
}

// curl is a line that can be tried.
func (p painter) curl(method, path string, op object) string {
	if path == "" {
		return ""
	}
	line := "curl"
	if method != "GET" {
		line += " -X " + method
	}
	line += ` "$MUSTER_URL` + strings.NewReplacer("{", "$", "}", "").Replace(path) + `"`
	if names := takers(op); strings.HasPrefix(names, "deployment") || strings.HasPrefix(names, "workspace") {
		line += " \\\n  -H \"Authorization: Bearer $TOKEN\""
	}
	for _, f := range op.object("requestBody").object("content") {
		example := f.value.(object).get("example")
		if example == nil {
			continue
		}
		raw, err := json.Marshal(example)
		if err != nil {
			panic(err)
		}
		line += " \\\n  -H 'Content-Type: application/json' \\\n  --data '" + strings.ReplaceAll(string(raw), "'", `'\''`) + "'"
	}
	return line
}

// shape draws a schema in a few characters.
func (p painter) shape(s object, indent string) string {
	if ref := s.text("$ref"); ref != "" {
		name := ref[strings.LastIndex(ref, "/")+1:]
		return fmt.Sprintf(`<a href="#schema-%s">%s</a>`, name, name)
	}
	if c := s.get("const"); c != nil {
		return fmt.Sprintf("= %v", html.EscapeString(fmt.Sprint(c)))
	}
	if values := s.list("enum"); values != nil {
		return html.EscapeString(joined(values))
	}
	var parts []string
	for _, one := range append(s.list("anyOf"), s.list("allOf")...) {
		one := one.(object)
		if then := one.object("then"); then != nil {
			one = then
		}
		parts = append(parts, p.shape(one, indent))
	}
	if s.list("anyOf") != nil {
		return strings.Join(parts, " | ")
	}
	if properties := s.object("properties"); properties != nil || parts != nil {
		return strings.Join(append(parts, p.fields(s, properties, indent)), " and ")
	}
	kind := "any"
	switch t := s.get("type").(type) {
	case string:
		kind = t
	case []any:
		kind = joined(t)
	}
	if format := s.text("format"); format != "" {
		kind += " (" + format + ")"
	}
	if prefix, _, ok := strings.Cut(s.text("pattern"), "_"); ok {
		kind = strings.Replace(kind, "string", strings.TrimPrefix(prefix, "^")+"_…", 1)
	}
	if items := s.object("items"); items != nil {
		kind = strings.Replace(html.EscapeString(kind), "array", "list of "+p.shape(items, indent), 1)
		return kind
	}
	if of := s.object("additionalProperties"); of != nil {
		return "map of " + p.shape(of, indent)
	}
	return html.EscapeString(kind)
}

func (p painter) fields(s, properties object, indent string) string {
	var b strings.Builder
	b.WriteString("{\n")
	for _, f := range properties {
		schema := f.value.(object)
		optional := ""
		if !slices.Contains(s.list("required"), any(f.name)) {
			optional = "?"
		}
		fmt.Fprintf(&b, "%s  %s%s: %s", indent, html.EscapeString(f.name), optional, p.shape(schema, indent+"  "))
		if doc := schema.text("description"); doc != "" {
			fmt.Fprintf(&b, "  <i>%s</i>", html.EscapeString(doc))
		}
		b.WriteString("\n")
	}
	if open := s.get("additionalProperties"); open != false && s.get("unevaluatedProperties") != false {
		fmt.Fprintf(&b, "%s  …\n", indent)
	}
	return b.String() + indent + "}"
}

func joined(values []any) string {
	var words []string
	for _, v := range values {
		if v == nil {
			v = "null"
		}
		if v == "" {
			v = `""`
		}
		words = append(words, fmt.Sprint(v))
	}
	return strings.Join(words, " | ")
}
