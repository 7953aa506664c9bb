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
	_ "embed" // the two files
	"net/http"

	"muster/shared/httpapi"
	"muster/shared/workspace"
)

// Document is the OpenAPI document, as JSON.
//
//go:embed openapi.json
var Document []byte

//go:embed openapi.html
var page []byte

// Routes lists what is served. Errors are spelled as the dialect does.
func Routes(d httpapi.Dialect) []httpapi.Route {
	return []httpapi.Route{
		{Method: "GET", Path: "/openapi.json", Function: "api", Who: httpapi.Anyone, Dialect: d, Handle: showDocument},
		{Method: "GET", Path: "/openapi", Function: "api", Who: httpapi.Anyone, Dialect: d, Handle: showPage},
	}
}

// showDocument lets pages from anywhere read it: it is the same for everybody, and what draws such documents is a page.
func showDocument(w http.ResponseWriter, _ *http.Request, _ workspace.Caller) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Access-Control-Allow-Origin", "*")
	_, err := w.Write(Document)
	return err
}

func showPage(w http.ResponseWriter, _ *http.Request, _ workspace.Caller) error {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'")
	_, err := w.Write(page)
	return err
}
