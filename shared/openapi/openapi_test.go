package openapi_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "make openapi.json and openapi.html of source/ and the catalogue of events")

func TestTheFilesAreMadeOfTheSources(t *testing.T) {
	document, err := build()
	if err != nil {
		t.Fatal(err)
	}
	var written bytes.Buffer
	e := json.NewEncoder(&written)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(document); err != nil {
		t.Fatal(err)
	}
	page, err := render(document)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"openapi.json": written.Bytes(), "openapi.html": page} {
		if *update {
			if err := os.WriteFile(name, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the sources and the catalogue say (%v); run go test ./shared/openapi -update", name, err)
		}
	}
}
