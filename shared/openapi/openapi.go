// Package openapi serves what Muster says of itself: the OpenAPI 3.1 document of every wire at /openapi.json, and the same as
// a page for people at /openapi.
//
// Both files are made from source/, one YAML file for each part of each wire, in a notation that is short to write and strict
// unless it says otherwise (notation_test.go), and from the catalogue of package events:
//
//	go test ./shared/openapi -update
//
// The document is held to the code both ways: infra compares it with the routes, and the end-to-end suite with every request,
// answer, message and webhook that passes by.
package openapi

import (
	"bytes"
	_ "embed" // the two files
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"muster/shared/httpapi"
	"muster/shared/workspace"
)

// Document is the OpenAPI document, as JSON.
//
//go:embed openapi.json
var Document []byte

//go:embed openapi.html
var page []byte

// Routes lists what is served. Errors are spelled as the dialect does. The routes that are absent here are not spoken of.
func Routes(d httpapi.Dialect, absent ...httpapi.Route) []httpapi.Route {
	f := &files{absent: absent}
	return []httpapi.Route{
		{Method: "GET", Path: "/openapi.json", Function: "api", Who: httpapi.Anyone, Dialect: d, Handle: f.showDocument},
		{Method: "GET", Path: "/openapi", Function: "api", Who: httpapi.Anyone, Dialect: d, Handle: f.showPage},
	}
}

type files struct{ absent []httpapi.Route }

// showDocument lets pages from anywhere read it: it is the same for everybody, and what draws such documents is a page.
func (f *files) showDocument(w http.ResponseWriter, _ *http.Request, _ workspace.Caller) error {
	document, err := f.document()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Access-Control-Allow-Origin", "*")
	_, err = w.Write(document)
	return err
}

func (f *files) showPage(w http.ResponseWriter, _ *http.Request, _ workspace.Caller) error {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'")
	_, err := w.Write(f.page())
	return err
}

// document is the document without the operations that are absent.
func (f *files) document() ([]byte, error) {
	if len(f.absent) == 0 {
		return Document, nil
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(Document, &whole); err != nil {
		return nil, fmt.Errorf("read the document: %w", err)
	}
	var paths map[string]map[string]json.RawMessage
	if err := json.Unmarshal(whole["paths"], &paths); err != nil {
		return nil, fmt.Errorf("read the paths of the document: %w", err)
	}
	for _, r := range f.absent {
		delete(paths[r.Path], strings.ToLower(r.Method))
		if len(paths[r.Path]) == 0 {
			delete(paths, r.Path)
		}
	}
	var err error
	if whole["paths"], err = json.Marshal(paths); err != nil {
		return nil, fmt.Errorf("write the paths of the document: %w", err)
	}
	return json.Marshal(whole)
}

// page is the page without the operations that are absent.
func (f *files) page() []byte {
	left := page
	for _, r := range f.absent {
		before, rest, found := bytes.Cut(left, fmt.Appendf(nil, "<details><summary><b>%s</b> <code>%s</code>", r.Method, r.Path))
		_, after, ended := bytes.Cut(rest, []byte("</details>"))
		if found && ended {
			left = slices.Concat(before, after)
		}
	}
	return left
}
