package events

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/doc"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestEveryTypeOfTheSeedIsInTheCatalogue(t *testing.T) {
	seed, err := os.ReadFile("testdata/seed001.txt")
	if err != nil {
		t.Fatal(err)
	}
	types := strings.Fields(string(seed))
	if len(types) != 61 {
		t.Errorf("the seed has 61 types, the file %d", len(types))
	}
	for _, typ := range types {
		if familyOf()[typ] == "" {
			t.Errorf("%s is missing", typ)
		}
	}
}

func TestEveryScopeThatOpensCanCloseAndTheReverse(t *testing.T) {
	opens, closes := map[string]int{}, map[string]int{}
	for _, k := range All() {
		if k.Opens != "" {
			opens[k.Opens]++
		}
		if k.Closes != "" {
			closes[k.Closes]++
		}
		if k.Emitted && k.Closes != "" && !slices.ContainsFunc(All(), func(o Kind) bool { return o.Emitted && o.Opens == k.Closes }) {
			t.Errorf("%s is emitted but nothing emitted opens %s", k.Type, k.Closes)
		}
		if want := k.Opens + "_started"; k.Opens != "" && k.Type != want {
			t.Errorf("%s opens %s, which %s should open", k.Type, k.Opens, want)
		}
		if k.Closes != "" && !strings.HasPrefix(k.Type, k.Closes+"_") {
			t.Errorf("%s closes %s", k.Type, k.Closes)
		}
	}
	for scope, n := range opens {
		if n != 1 || closes[scope] == 0 {
			t.Errorf("scope %s is opened by %d types and closed by %d", scope, n, closes[scope])
		}
	}
	for scope := range closes {
		if opens[scope] == 0 {
			t.Errorf("scope %s is closed but never opened", scope)
		}
	}
}

func TestEmittedTypesAreThoseThatTheEngineProduces(t *testing.T) {
	var got []string
	for _, k := range All() {
		if k.Emitted {
			got = append(got, k.Type)
		}
	}
	want := strings.Fields(`
		crew_kickoff_started crew_kickoff_completed crew_kickoff_failed
		task_started task_completed task_failed
		agent_execution_started agent_execution_completed agent_execution_error agent_logs_started agent_logs_execution
		llm_call_started llm_call_completed llm_call_failed llm_stream_chunk
		llm_guardrail_started llm_guardrail_completed
		tool_usage_started tool_usage_finished tool_usage_error tool_failure_detected tool_selection_error
		tool_validate_input_error
		human_feedback_requested human_feedback_received
		run_budget_reached`)
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestCheckEmitted(t *testing.T) {
	seen := map[string]bool{"order.shipped": true, "my_event": true, "mcp_tool_execution_started": false}
	for _, k := range All() {
		seen[k.Type] = k.Emitted
	}
	if missing, unexpected := CheckEmitted(seen); missing != nil || unexpected != nil {
		t.Errorf("a complete suite: missing %v, unexpected %v", missing, unexpected)
	}
	delete(seen, "task_failed")
	seen["flow_started"], seen["task_startled"] = true, true
	missing, unexpected := CheckEmitted(seen)
	if !slices.Equal(missing, []string{"task_failed"}) || !slices.Equal(unexpected, []string{"flow_started", "task_startled"}) {
		t.Errorf("missing %v, unexpected %v", missing, unexpected)
	}
}

func TestFieldsAreThoseThatArePublished(t *testing.T) {
	for _, k := range All() {
		d := examples(t)[k.Type]
		published := decodeObject(t, publishExample(d).Data)
		var want []string
		for _, f := range k.Fields {
			want = append(want, f.Name)
			if slices.Contains(baseNames, f.Name) {
				t.Errorf("%s has a field %s of its own beside the base field", k.Type, f.Name)
			}
		}
		want = append(want, baseNames...)
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(published)); !slices.Equal(got, want) {
			t.Errorf("%s shows %v, its description says %v", k.Type, got, want)
		}
	}
}

func TestNullability(t *testing.T) {
	tests := []struct {
		typ, field string
		want       Field
	}{
		{"task_started", "context", Field{Type: "string"}},
		{"crew_kickoff_started", "crew_name", Field{Type: "string", Nullable: true}},
		{"crew_kickoff_started", "inputs", Field{Type: "object", Nullable: true}},
		{"flow_finished", "state", Field{Type: "object"}},
		{"flow_finished", "result", Field{Type: "any", Nullable: true}},
		{"memory_query_completed", "results", Field{Type: "array"}},
		{"llm_call_started", "stop_sequences", Field{Type: "array", Nullable: true}},
		{"llm_call_started", "messages", Field{Type: "array", Nullable: true}},
		{"llm_call_started", "seed", Field{Type: "integer", Nullable: true}},
		{"tool_usage_finished", "started_at", Field{Type: "time"}},
		{"mcp_connection_failed", "failed_at", Field{Type: "time", Nullable: true}},
	}
	all := All()
	for _, test := range tests {
		k := all[slices.IndexFunc(all, func(k Kind) bool { return k.Type == test.typ })]
		f := k.Fields[slices.IndexFunc(k.Fields, func(f Field) bool { return f.Name == test.field })]
		if f.Type != test.want.Type || f.Nullable != test.want.Nullable {
			t.Errorf("%s.%s is %+v, want %+v", k.Type, f.Name, f, test.want)
		}
	}
}

func TestNoSystemEventCanBeACustomEvent(t *testing.T) {
	for _, k := range All() {
		if _, err := NewCustom(k.Type, nil, Identity{}); err == nil {
			t.Errorf("no reserved prefix covers %s", k.Type)
		}
	}
}

var draftByHand = regexp.MustCompile(`\bevents\.Draft\{[^}]`)

func TestOnlyConstructorsMakeDrafts(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && path != ".." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "node_modules"):
			return filepath.SkipDir
		case e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		if draftByHand.Match(source) {
			t.Errorf("%s makes a Draft by hand; use or add a constructor of package events", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// docs_generated.go and EVENTS.md say what the comments in the source say.
func TestGeneratedFilesAreUpToDate(t *testing.T) {
	docs = sourceDocs(t)
	for _, k := range All() {
		if k.Doc == "" {
			t.Errorf("the comment of the struct of %s must begin with its name and \"is\"", k.Type)
		}
	}
	generated := map[string][]byte{"docs_generated.go": docsFile(t), "EVENTS.md": []byte(Markdown())}
	for path, want := range generated {
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is stale (%v): run go test ./events -update", path, err)
		}
	}
}

func docsFile(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("// Code generated from the comments in this package by go test ./events -update; DO NOT EDIT.\n\npackage events\n\n")
	b.WriteString("// docs holds the comments that the catalogue shows, by struct and by struct and field.\nvar docs = map[string]string{\n")
	for _, key := range slices.Sorted(maps.Keys(docs)) {
		fmt.Fprintf(&b, "%q: %q,\n", key, docs[key])
	}
	b.WriteString("}\n")
	source, err := format.Source(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// sourceDocs reads the comments of structs and of their fields, with the JSON names for the Go names.
func sourceDocs(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") || path == "event.go" || path == "catalogue.go" {
			continue // holds nothing of the catalogue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if d, ok := decl.(*ast.GenDecl); ok && d.Tok == token.TYPE {
				structDocs(found, d)
			}
		}
	}
	return found
}

func structDocs(found map[string]string, d *ast.GenDecl) {
	spec := d.Specs[0].(*ast.TypeSpec)
	s, ok := spec.Type.(*ast.StructType)
	if !ok {
		return
	}
	name := spec.Name.Name
	if when, ok := strings.CutPrefix(new(doc.Package).Synopsis(d.Doc.Text()), name+" is "); ok {
		found[name] = strings.ToUpper(when[:1]) + when[1:]
	}
	jsonNames := map[string]string{}
	for _, f := range s.Fields.List {
		if len(f.Names) == 1 && f.Tag != nil {
			tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`"))
			jsonNames[f.Names[0].Name], _, _ = strings.Cut(tag.Get("json"), ",")
		}
	}
	for _, f := range s.Fields.List {
		if len(f.Names) == 1 && f.Doc != nil {
			text := strings.Join(strings.Fields(f.Doc.Text()), " ")
			found[name+"."+f.Names[0].Name] = word.ReplaceAllStringFunc(text, func(w string) string {
				if j := jsonNames[w]; j != "" {
					return j
				}
				return w
			})
		}
	}
}

var word = regexp.MustCompile(`\w+`)
