package infra_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// level says where a package stands. Imports point down.
type level int

const (
	ground  level = iota // what everything stands on: imports nothing but what its row lists
	domain               // what Muster is about: ground, and the neighbours its row lists
	edge                 // what comes in and what works in the background: ground and domains
	adapter              // a technology behind a port: ground and domains, never an edge, never each other
	join                 // what puts the parts together: everything above
	home                 // where it runs: everything
	harness              // help for tests: imported by tests and other help only
)

// below lists the levels that each level may import without a word in its row.
var below = map[level][]level{
	domain:  {ground},
	edge:    {ground, domain},
	adapter: {ground, domain},
	join:    {ground, domain, edge, adapter},
	home:    {ground, domain, edge, adapter, join},
	harness: {ground, domain, adapter},
}

type row struct {
	path  string
	level level
	may   []string
	why   string
}

// rows place each package (a path that ends in "/*" stands for each package of a folder) and name the neighbours it may import beside what
// its level may, with the reason. A package without a row fails the test, and so does a row without a package.
var rows = []row{
	{"events", ground, nil, "the catalogue is data; programs may take it and nothing else"},
	{"shared/fault", ground, nil, "every package may fail"},
	{"shared/guard", ground, []string{"shared/fault"}, "refused addresses are faults"},
	{"shared/id", ground, nil, "ids are plain values"},
	{"shared/price", ground, nil, "what things cost is one dated file and one formula"},
	{"shared/record", ground, []string{"shared/fault"}, "the port of all stores says what its errors are"},

	{"shared/queue", domain, nil, "the port of both queues"},
	{"shared/workspace", domain, nil, "who calls is decided before anything else is known"},
	{"shared/crew", domain, nil, "a crew is data; nothing has happened to it yet"},
	{"shared/webhook", domain, nil, "how to sign and when to repeat, whatever is told"},
	{"shared/run", domain, []string{"shared/crew", "shared/queue"}, "a run executes a version of a crew, and knocks at queues"},
	{"shared/resend", domain, []string{"shared/queue", "shared/run", "shared/webhook"}, "what is sent again is a delivery of a run's page"},
	{"shared/thread", domain, []string{"shared/crew", "shared/run"}, "a thread is a line of runs of a deployment"},
	{"shared/schedule", domain, []string{"shared/crew", "shared/run"}, "a schedule starts runs of a deployment"},
	{"shared/watch", domain, []string{"shared/run"}, "whoever watches reads a run's journal"},
	{"shared/channel", domain, []string{"shared/crew", "shared/run", "shared/workspace"}, "a connection is a caller who is told of runs"},
	{"shared/trigger", domain, []string{"shared/crew", "shared/run", "shared/thread", "shared/webhook", "shared/workspace"}, "a trigger starts runs, and Standard Webhooks are signed and verified alike"},
	{"shared/engine", domain, []string{"shared/crew", "shared/run", "shared/engine/llm", "shared/engine/rank", "shared/engine/tool"}, "the engine drives a crew and records in the run's journal"},
	{"shared/engine/llm", domain, []string{"shared/crew"}, "a definition says which model it wants"},
	{"shared/engine/rank", domain, nil, "which sentences matter, for whoever asks"},
	{"shared/engine/tool", domain, []string{"shared/crew", "shared/engine/llm", "shared/engine/rank"}, "a definition says which tools it wants, and models are told of them"},

	{"shared/httpapi", edge, nil, "what all wires share"},
	{"shared/ampwire", edge, []string{"shared/httpapi"}, "a wire translates and decides nothing"},
	{"shared/deploywire", edge, []string{"shared/httpapi"}, "a wire translates and decides nothing"},
	{"shared/agentwire", edge, []string{"shared/httpapi"}, "a wire translates and decides nothing"},
	{"shared/guide", edge, []string{"shared/httpapi"}, "pages are routes too"},
	{"shared/openapi", edge, []string{"shared/httpapi"}, "what is said of the wires is served like them"},
	{"shared/runner", edge, nil, "background work"},
	{"shared/dispatch", edge, nil, "background work; how a body looks is handed in"},
	{"shared/sweep", edge, nil, "background work"},

	{"shared/engine/llm/openai", adapter, nil, "a protocol of models"},
	{"shared/engine/llm/offline", adapter, nil, "the model without a network"},
	{"shared/trigger/cel", adapter, nil, "the language of filters and inputs"},
	{"shared/sqlite", adapter, nil, "the embedded backend"},
	{"shared/dynamo", adapter, nil, "records on AWS"},
	{"shared/sqs", adapter, nil, "queues on AWS"},
	{"shared/push", adapter, nil, "WebSockets on AWS"},
	{"shared/lambdatool", adapter, nil, "tools that are Lambda functions"},

	{"shared/config", join, nil, "the environment, read once"},
	{"shared/invoke", join, nil, "Lambda's events"},
	{"shared/app", join, nil, "the parts, joined on one page"},
	{"shared/cloud", join, []string{"shared/app", "shared/config"}, "the backends that the configuration names, for the app"},

	{"functions", home, []string{"infra", "infra/host"}, "the tests of the functions as they are deployed"},
	{"functions/*", home, nil, "one Lambda function each"},
	{"infra", home, nil, "the manifest"},
	{"infra/cdk", home, []string{"infra"}, "the manifest as CloudFormation"},
	{"infra/bench", home, []string{"infra", "infra/host", "infra/runtimeapi", "shared/engine/llm/scripted", "shared/guard/guardtest"}, "what make bench measures: a program, with the help that tests have"},
	{"infra/count", home, []string{"infra", "infra/host"}, "what a run costs, counted"},
	{"infra/guides", home, []string{"infra"}, "every snippet of the guides, run"},
	{"infra/faults", home, []string{"infra", "infra/host"}, "every fault, on purpose"},
	{"infra/e2e", home, []string{"infra", "infra/host"}, "both homes, from outside"},
	{"infra/host", home, []string{"infra"}, "what is around functions on one machine"},
	{"infra/local", home, []string{"infra", "infra/host"}, "the manifest in one process"},

	{"infra/runtimeapi", harness, nil, "the Lambda Runtime API, for bootstraps under test"},
	{"shared/emulator", harness, nil, "servers that stand in for AWS"},
	{"shared/run/runtest", harness, nil, "what every journal keeps"},
	{"shared/engine/llm/scripted", harness, nil, "a model server that says what it is told to"},
	{"shared/guard/guardtest", harness, nil, "a network to be guarded against"},
	{"shared/mean", harness, nil, "a wrapper that is as mean as AWS may be"},
	{"shared/queuetest", harness, nil, "what every queue keeps"},
	{"shared/sqlite/sqlitetest", harness, nil, "a store in a file that is thrown away"},
	{"shared/storetest", harness, nil, "what every store keeps"},
}

// inTests lists the levels that any test may import beside what its own package may: it sets up what it needs from real parts.
var inTests = []level{ground, domain, adapter, harness}

type library struct {
	path  string
	users []string
	tests bool
	why   string
}

// libraries names what is imported from outside of the standard library, who may, and why. What is not here is imported by
// nobody. Tests may import it too, of their own packages and wherever "tests" says so.
var libraries = []library{
	{"github.com/aws/aws-cdk-go", []string{"infra/cdk"}, false, "240 MB that nobody else should have to download"},
	{"github.com/aws/jsii-runtime-go", []string{"infra/cdk"}, false, "comes with the CDK"},
	{"github.com/aws/aws-sdk-go-v2", []string{"shared/cloud", "shared/dynamo", "shared/sqs", "shared/lambdatool", "shared/push", "shared/emulator"}, true, "AWS is known to its adapters only, and to tests that set up emulators"},
	{"github.com/aws/smithy-go", []string{"shared/cloud", "shared/dynamo", "shared/sqs", "shared/lambdatool", "shared/emulator"}, true, "the SDK's errors and middleware"},
	{"github.com/aws/aws-lambda-go", []string{"shared/invoke", "shared/cloud", "infra/host", "infra/local", "infra/runtimeapi"}, true, "Lambda's events stop at invoke"},
	{"github.com/coder/websocket", []string{"infra/host"}, true, "WebSockets (ISC)"},
	{"github.com/goccy/go-yaml", []string{"shared/crew"}, true, "definitions in YAML, and the workflows in guides"},
	{"github.com/google/cel-go", []string{"shared/trigger/cel"}, false, "filters and inputs of triggers (Apache-2; 2.6 MB of a zipped bootstrap)"},
	{"github.com/google/go-cmp", []string{"shared/queuetest", "shared/storetest"}, true, "what a test wanted and what it got"},
	{"github.com/google/uuid", []string{"shared/id", "shared/record", "infra/host", "infra/runtimeapi"}, true, "UUIDs"},
	{"github.com/ncruces/go-strftime", []string{"shared/engine"}, false, "date formats as crews write them"},
	{"github.com/openai/openai-go", []string{"shared/engine/llm/openai"}, false, "the official SDK"},
	{"github.com/santhosh-tekuri/jsonschema", []string{"shared/crew", "shared/engine", "shared/engine/tool"}, true, "JSON Schema of outputs and arguments"},
	{"github.com/standard-webhooks/standard-webhooks", nil, true, "the verifier that receivers use"},
	{"github.com/tailscale/hujson", []string{"shared/crew"}, false, "definitions in JSON with comments"},
	{"github.com/yuin/goldmark", []string{"shared/guide", "shared/openapi"}, false, "guides are Markdown, and browsers want HTML"},
	{"golang.org/x/net", []string{"shared/engine/tool", "shared/guard", "shared/guard/guardtest"}, true, "HTML, host names, and DNS and HTTP/2 in tests"},
	{"golang.org/x/sync", []string{"shared/runner"}, false, "a semaphore that lets one in alone, in its turn (BSD)"},
	{"golang.org/x/text", []string{"shared/engine/tool"}, false, "names of tools in one normal form"},
	{"modernc.org/sqlite", []string{"shared/sqlite"}, false, "SQLite without cgo"},
	{"pgregory.net/rapid", []string{"shared/storetest"}, true, "properties"},
}

// environment lists who else reads the environment of the process.
var environment = map[string]string{
	"shared/config":   "the one reader",
	"infra/cdk":       "what the stack is synthesised with is the deployer's environment",
	"shared/emulator": "where downloaded servers are cached, and whether CI insists on them",
}

const module = "muster"

// pkg is a folder of Go files: what they import, and what they say of themselves.
type pkg struct {
	imports, testImports map[string]string // path to file
	comments             []string          // files with a package comment
	code                 bool              // has files that are no tests
	readsEnvironment     []string
}

// packages parses every Go file of the module.
func packages(t *testing.T) map[string]*pkg {
	t.Helper()
	found := map[string]*pkg{}
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); file != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "cdk.out" || name == "dist") {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(file) != ".go" {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", file), nil, parser.ParseComments)
		if err != nil {
			return err
		}
		dir := path.Dir(file)
		if found[dir] == nil {
			found[dir] = &pkg{imports: map[string]string{}, testImports: map[string]string{}}
		}
		found[dir].add(file, parsed)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (p *pkg) add(file string, parsed *ast.File) {
	test := strings.HasSuffix(file, "_test.go")
	for _, spec := range parsed.Imports {
		imported := strings.Trim(spec.Path.Value, `"`)
		if test {
			p.testImports[imported] = file
		} else {
			p.imports[imported] = file
		}
	}
	if test {
		return
	}
	p.code = true
	if parsed.Doc != nil {
		p.comments = append(p.comments, file)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && (x.Name == "os" || x.Name == "syscall") && slices.Contains([]string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}, s.Sel.Name) {
				p.readsEnvironment = append(p.readsEnvironment, file)
			}
		}
		return true
	})
}

// matches tells whether a path is the one of a row.
func matches(pattern, dir string) bool {
	ok, err := path.Match(pattern, dir)
	return ok && err == nil
}

func in(patterns []string, dir string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return matches(pattern, dir) })
}

func TestImportsPointDown(t *testing.T) {
	all := packages(t)
	place := func(dir string) int {
		for i, r := range rows {
			if matches(r.path, dir) {
				return i
			}
		}
		return -1
	}
	for dir, p := range all {
		from := place(dir)
		if from < 0 {
			t.Errorf("the package %s has no row here: place it, and say what it may import and why", dir)
			continue
		}
		r := rows[from]
		check := func(imports map[string]string, test bool) {
			for imported, file := range imports {
				to, ours := strings.CutPrefix(imported, module+"/")
				if !ours || to == dir {
					continue
				}
				target := place(to)
				switch {
				case target < 0:
					t.Errorf("%s imports %s, which has no row", file, to)
				case in(r.may, to) || slices.Contains(below[r.level], rows[target].level):
				case r.level == harness && rows[target].level == harness:
				case test && slices.Contains(inTests, rows[target].level):
				default:
					t.Errorf("%s imports %s, and may not: %s (%s)", file, to, r.path, r.why)
				}
			}
		}
		check(p.imports, false)
		check(p.testImports, true)
	}
	for _, r := range rows {
		there := false
		for dir := range all {
			there = there || matches(r.path, dir)
		}
		if !there {
			t.Errorf("there is a row for %s, and no such package", r.path)
		}
		for _, may := range r.may {
			if all[may] == nil {
				t.Errorf("%s may import %s, and there is no such package", r.path, may)
			}
		}
	}
}

func TestLibrariesAreImportedByWhomTheyAreFor(t *testing.T) {
	used := map[string]bool{}
	for dir, p := range packages(t) {
		check := func(imports map[string]string, test bool) {
			for imported, file := range imports {
				first, _, _ := strings.Cut(imported, "/")
				if !strings.Contains(first, ".") {
					continue // ours, or the standard library
				}
				i := slices.IndexFunc(libraries, func(l library) bool {
					return imported == l.path || strings.HasPrefix(imported, l.path+"/")
				})
				switch {
				case i < 0:
					t.Errorf("%s imports %s, which is not among the libraries: name its users and its reason", file, imported)
				case in(libraries[i].users, dir) || test && libraries[i].tests:
					used[libraries[i].path] = true
				default:
					t.Errorf("%s imports %s, and may not: %s", file, imported, libraries[i].why)
				}
			}
		}
		check(p.imports, false)
		check(p.testImports, true)
	}
	for _, l := range libraries {
		if !used[l.path] {
			t.Errorf("nobody imports %s any more", l.path)
		}
	}
}

func TestPackagesSayWhatTheyAreForOnce(t *testing.T) {
	for dir, p := range packages(t) {
		if p.code && len(p.comments) != 1 {
			t.Errorf("the package %s has %d package comments, want one: %v", dir, len(p.comments), p.comments)
		}
	}
}

func TestOnlyConfigReadsTheEnvironment(t *testing.T) {
	all := packages(t)
	for dir, p := range all {
		if len(p.readsEnvironment) > 0 && environment[dir] == "" {
			t.Errorf("%v read the environment; let shared/config do it", p.readsEnvironment)
		}
	}
	for dir, why := range environment {
		if all[dir] == nil || len(all[dir].readsEnvironment) == 0 {
			t.Errorf("%s does not read the environment (%s): strike it out", dir, why)
		}
	}
}

func TestTestingStaysOutOfTheProduct(t *testing.T) {
	for dir, p := range packages(t) {
		file, imports := p.imports["testing"]
		if harnessed := slices.ContainsFunc(rows, func(r row) bool { return matches(r.path, dir) && r.level == harness }); imports && !harnessed {
			t.Errorf("%s imports testing, and %s is no help for tests", file, dir)
		}
	}
}
