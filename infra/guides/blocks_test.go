// Package guides runs every snippet of the guides (shared/guide): a guide whose snippets do not work fails here.
//
// A fenced block names itself after its language (```python receiver.py); one of the language "text" is no snippet. Each
// name of each guide has to be used by a test.
package guides

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"muster/shared/guide"
)

// enabled says that the tools which the snippets want may be fetched: `make guides`.
var enabled = os.Getenv("MUSTER_GUIDES") != ""

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	muster.close()
	for _, w := range []*workshop{&node, &python} {
		_ = os.RemoveAll(w.dir) // "" when nothing was made
	}
	if whole := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""; code == 0 && enabled && whole {
		if unused := unused(); len(unused) > 0 {
			fmt.Println("FAIL: nothing runs these snippets:", strings.Join(unused, ", "))
			code = 1
		}
	}
	os.Exit(code)
}

// fence finds the fenced blocks of a Markdown text: language, name, text.
var fence = regexp.MustCompile("(?ms)^```([^ \n]*) ?([^\n]*)\n(.*?)^```$")

var used sync.Map // "<guide>/<name>"

// snippet gives the text of a guide's snippet.
func snippet(t *testing.T, guideName, name string) string {
	t.Helper()
	for _, g := range guide.All() {
		for _, found := range fence.FindAllSubmatch(g.Markdown, -1) {
			if g.Name == guideName && string(found[2]) == name {
				used.Store(g.Name+"/"+name, true)
				return string(found[3])
			}
		}
	}
	t.Fatalf("the guide %s has no snippet %s", guideName, name)
	return ""
}

func unused() (names []string) {
	for _, g := range guide.All() {
		for _, found := range fence.FindAllSubmatch(g.Markdown, -1) {
			name := g.Name + "/" + string(found[2])
			if _, ok := used.Load(name); !ok && string(found[1]) != "text" {
				names = append(names, name)
			}
		}
	}
	return names
}

func TestSnippetsHaveNames(t *testing.T) {
	for _, g := range guide.All() {
		var names []string
		for _, found := range fence.FindAllSubmatch(g.Markdown, -1) {
			language, name := string(found[1]), string(found[2])
			switch {
			case language == "text":
			case name == "":
				t.Errorf("%s has a block of %q without a name: how is a test to find it?", g.Name, language)
			case slices.Contains(names, name):
				t.Errorf("%s has two snippets %s", g.Name, name)
			}
			names = append(names, name)
		}
		if n := strings.Count(string(g.Markdown), "\n```"); n != 2*len(names) {
			t.Errorf("%s has %d fences, and %d blocks were found", g.Name, n, len(names))
		}
	}
}
