package infra_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestEveryLineOfTheSurviveListHasItsTest reads the tests as source: one that was renamed leaves its line alone.
func TestEveryLineOfTheSurviveListHasItsTest(t *testing.T) {
	list, err := os.ReadFile(filepath.Join("testdata", "survive.txt"))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]proofs{}
	lines := 0
	for line := range strings.Lines(string(list)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		lines++
		what, test, ok := strings.Cut(line, " | ")
		dir, name, dotted := strings.Cut(test, ".")
		if !ok || !dotted || what == "" {
			t.Errorf("%q is no sentence with a test", line)
			continue
		}
		if _, read := known[dir]; !read {
			known[dir] = proofsIn(t, dir)
		}
		name, row, _ := strings.Cut(name, "/")
		switch {
		case !known[dir].names[name]:
			t.Errorf("%s has no %s, which is to show: %s", dir, name, what)
		case row != "" && !known[dir].rows[row]:
			t.Errorf("%s.%s has no row %q, which is to show: %s", dir, name, row, what)
		}
	}
	if lines < 50 {
		t.Errorf("the list has %d lines; it had more than 50", lines)
	}
}

// proofs are what a package's files hold that can show something.
type proofs struct {
	// names are its functions and variables: of a suite, the tables.
	names map[string]bool
	// rows are its strings: the names of rows are among them.
	rows map[string]bool
}

func proofsIn(t *testing.T, dir string) proofs {
	t.Helper()
	p := proofs{map[string]bool{}, map[string]bool{}}
	files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Errorf("there is no package %s: %v", dir, err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") && !strings.HasSuffix(dir, "test") {
			continue // no test, and no help for tests
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				p.names[n.Name.Name] = p.names[n.Name.Name] || n.Recv == nil
			case *ast.ValueSpec:
				for _, name := range n.Names {
					p.names[name.Name] = true
				}
			case *ast.BasicLit:
				if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					p.rows[s] = true
				}
			}
			return true
		})
	}
	return p
}
