package openapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"muster/shared/openapi"
)

// compiler knows the document under the URL "muster:openapi".
func compiler(t *testing.T) *jsonschema.Compiler {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(openapi.Document))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("muster:openapi", document); err != nil {
		t.Fatal(err)
	}
	return c
}

// plain gives a value of ours as the validator wants it.
func plain(t *testing.T, v any) any {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func served(t *testing.T) object {
	t.Helper()
	document, err := parse(openapi.Document) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	return document
}

func TestTheDocumentIsOpenAPI(t *testing.T) {
	text, err := os.ReadFile("testdata/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	c := compiler(t)
	if err := c.AddResource("muster:rules", plain(t, rules)); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("muster:rules")
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(plain(t, served(t))); err != nil {
		t.Error(err)
	}
}

// each calls do for every object in the document with its place, as a fragment of its URL.
func each(at string, v any, do func(at string, o object)) {
	switch v := v.(type) {
	case object:
		do(at, v)
		for _, f := range v {
			each(at+"/"+url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(f.name)), f.value, do)
		}
	case []any:
		for i, one := range v {
			each(fmt.Sprintf("%s/%d", at, i), one, do)
		}
	}
}

func TestNamesInTheDocumentMeanSomething(t *testing.T) {
	document := served(t)
	used, ids := map[string]bool{}, map[string]bool{}
	paint := painter{document}
	each("", document, func(at string, o object) {
		if ref := o.text("$ref"); ref != "" {
			used[ref] = true
			if paint.resolve(o) == nil {
				t.Errorf("%s refers to %s, which is not there", at, ref)
			}
		}
		id := o.text("operationId")
		if id == "" {
			return
		}
		if ids[id] {
			t.Errorf("there are two operations %s", id)
		}
		ids[id] = true
		for _, one := range o.list("security") {
			name := one.(object)[0].name
			used["#/components/securitySchemes/"+name] = true
			if document.object("components").object("securitySchemes").get(name) == nil {
				t.Errorf("%s takes a token %s, which nobody describes", id, name)
			}
		}
		var inPath []string
		for _, p := range o.list("parameters") {
			if p := paint.resolve(p.(object)); p.text("in") == "path" {
				inPath = append(inPath, "{"+p.text("name")+"}")
			}
		}
		if path := strings.NewReplacer("~1", "/", "%7B", "{", "%7D", "}").Replace(strings.Split(at, "/")[2]); strings.HasPrefix(at, "/paths/") {
			if want := regexp.MustCompile(`\{[^}]*\}`).FindAllString(path, -1); !slices.Equal(inPath, want) {
				t.Errorf("%s has %v in its path, and parameters %v", id, want, inPath)
			}
		}
	})
	for _, kind := range document.object("components") {
		for _, f := range kind.value.(object) {
			if at := "#/components/" + kind.name + "/" + f.name; !used[at] {
				t.Errorf("nothing uses %s", at)
			}
		}
	}
}

func TestExamplesAreWhatTheySay(t *testing.T) {
	c := compiler(t)
	validate := func(at string, example any) {
		schema, err := c.Compile("muster:openapi#" + at)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(plain(t, example)); err != nil {
			t.Errorf("an example at %s is none: %v", at, err)
		}
	}
	each("", served(t), func(at string, o object) {
		if example := o.get("example"); example != nil && o.get("schema") != nil {
			validate(at+"/schema", example)
		}
		if o.get("type") != nil || o.get("anyOf") != nil {
			for _, example := range o.list("examples") {
				validate(at, example)
			}
		}
		if body := o.object("requestBody"); body != nil && !strings.HasPrefix(at, "/webhooks/") && o.text("operationId") != "useLink" {
			for _, f := range body.object("content") {
				if f.value.(object).get("example") == nil {
					t.Errorf("%s shows no example of its body", o.text("operationId"))
				}
			}
		}
	})
}

// TestSchemasAreStrict: what is ours lists all its fields, unless it is open on purpose.
func TestSchemasAreStrict(t *testing.T) {
	each("", served(t), func(at string, o object) {
		if o.text("type") == "object" && o.get("properties") != nil && !strings.Contains(at, "/schemas/Event") {
			if open := o.get("additionalProperties"); open != false && !strings.Contains(at, "/if/") && !isRequest(at) {
				t.Errorf("%s takes any other field", at)
			}
		}
	})
}

// requests are the schemas of what clients send, which may have fields that are ignored.
var requests = regexp.MustCompile(`^/components/schemas/(Kickoff|StreamTarget|HumanTarget|Authentication|Resume|New\w+|DeploymentPatch|Promotion|Rotation|Rerun|Answer|LinkForm|\w+Settings|TargetRedelivery|DeadRedrive|Trigger|Files)(/|$)`)

func isRequest(at string) bool { return requests.MatchString(at) }

func TestThePageStandsAlone(t *testing.T) {
	document := served(t)
	page, err := render(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"<script", "<link", "<img", "@import", "url(", "src=", "ZgotmplZ"} {
		if bytes.Contains(page, []byte(what)) {
			t.Errorf("the page has %q in it", what)
		}
	}
	anchors := map[string]bool{}
	for _, found := range regexp.MustCompile(` id="([^"]*)"`).FindAllSubmatch(page, -1) {
		if anchors[string(found[1])] {
			t.Errorf("there are two places %s", found[1])
		}
		anchors[string(found[1])] = true
	}
	for _, found := range regexp.MustCompile(`href="#([^"]*)"`).FindAllSubmatch(page, -1) {
		if !anchors[string(found[1])] {
			t.Errorf("the page leads to %s, which is nowhere", found[1])
		}
	}
	each("", document, func(_ string, o object) {
		if id := o.text("operationId"); id != "" && !anchors[id] {
			t.Errorf("the page does not show %s", id)
		}
	})
}
