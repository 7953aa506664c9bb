// Package guide serves the guides at /guides: how to receive webhooks, how to start runs from elsewhere, how to move over
// from another product, and what to do when something does not work. A guide is a Markdown file in pages/; every snippet in
// one is run by a test (infra/guides). A browser gets a page, a program that does not ask for HTML gets the Markdown.
package guide

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/workspace"
)

//go:embed pages/*.md
var pages embed.FS

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// Guide is one guide.
type Guide struct {
	// Name is the last part of its path, Title its first heading.
	Name, Title string
	// Markdown is its text.
	Markdown []byte
}

// Path is where the guide is served.
func (g Guide) Path() string { return "/guides/" + g.Name }

// All gives every guide, in the order of their names.
func All() []Guide {
	files, err := fs.Glob(pages, "pages/*.md")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	var all []Guide
	for _, file := range files {
		text, err := pages.ReadFile(file)
		if err != nil {
			panic(err) // it is in the binary
		}
		first, _, _ := strings.Cut(string(text), "\n")
		all = append(all, Guide{strings.TrimSuffix(path.Base(file), ".md"), strings.TrimPrefix(first, "# "), text})
	}
	return all
}

// Routes lists what is served. Errors are spelled as the dialect does.
func Routes(d httpapi.Dialect) []httpapi.Route {
	return []httpapi.Route{
		{Method: "GET", Path: "/guides", Function: "api", Who: httpapi.Anyone, Dialect: d, Handle: showAll},
		{Method: "GET", Path: "/guides/{name}", Function: "api", Who: httpapi.Anyone, Dialect: d, Handle: showOne},
	}
}

func showAll(w http.ResponseWriter, r *http.Request, _ workspace.Caller) error {
	var list strings.Builder
	list.WriteString("# Guides\n\n")
	for _, g := range All() {
		fmt.Fprintf(&list, "- [%s](%s)\n", g.Title, g.Path())
	}
	list.WriteString("\nEvery request there is, with its answers: [a page](/openapi), and the same as [OpenAPI](/openapi.json).\n")
	return show(w, r, Guide{Title: "Guides", Markdown: []byte(list.String())})
}

func showOne(w http.ResponseWriter, r *http.Request, _ workspace.Caller) error {
	all := All()
	i := slices.IndexFunc(all, func(g Guide) bool { return g.Name == r.PathValue("name") })
	if i < 0 {
		return fault.New(fault.NotFound, "There is no such guide; /guides lists them.")
	}
	return show(w, r, all[i])
}

// show gives the guide as a page, or as Markdown to a program that does not ask for one.
func show(w http.ResponseWriter, r *http.Request, g Guide) error {
	w.Header().Set("Vary", "Accept")
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Set("Content-Type", "text/markdown; charset=utf-8")
		_, err := w.Write(g.Markdown)
		return err
	}
	var body, all bytes.Buffer
	markdown := goldmark.New(goldmark.WithExtensions(extension.Table), goldmark.WithParserOptions(parser.WithAutoHeadingID()))
	if err := markdown.Convert(g.Markdown, &body); err != nil {
		return fmt.Errorf("render the guide %s: %w", g.Name, err)
	}
	if err := page.Execute(&all, struct {
		Title string
		Body  template.HTML
	}{g.Title, template.HTML(body.String())}); err != nil {
		return fmt.Errorf("render the guide %s: %w", g.Name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	_, err := w.Write(all.Bytes())
	return err
}
