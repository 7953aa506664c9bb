package tool

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
	"golang.org/x/net/html/charset"

	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/fault"
)

// maxPage is the number of bytes of a web page that are read.
const maxPage = 4 << 20

// scrapeSettings are the settings of scrape_website.
type scrapeSettings struct {
	// WebsiteURL, when given, is the only page that is read; the tool then has no arguments.
	WebsiteURL string `json:"website_url"`
}

type scrapeWebsite struct {
	function llm.Function
	client   *http.Client
	fixed    string
}

func (b Box) openScrapeWebsite(t crew.Tool) (Tool, error) {
	var s scrapeSettings
	if err := readSettings(t, &s); err != nil {
		return nil, err
	}
	parameters := `{
		"type": "object",
		"properties": {"website_url": {"type": "string", "description": "the address of the page, https://…"}},
		"required": ["website_url"],
		"additionalProperties": false
	}`
	description := "Reads a web page and gives its title and text."
	if s.WebsiteURL != "" {
		if _, err := parseURL(s.WebsiteURL); err != nil {
			return nil, fault.New(fault.Invalid, "The website_url of the tool %s cannot be used: %v.", t.Name, err)
		}
		parameters = `{"type": "object", "properties": {}, "required": [], "additionalProperties": false}`
		description = "Reads the web page " + s.WebsiteURL + " and gives its title and text."
	}
	return &scrapeWebsite{function: describe(t, description, parameters), client: b.HTTP, fixed: s.WebsiteURL}, nil
}

// Function tells the model of it.
func (s *scrapeWebsite) Function() llm.Function { return s.function }

// Call reads the page.
func (s *scrapeWebsite) Call(ctx context.Context, c Call) (Result, error) {
	address := s.fixed
	if address == "" {
		address = argument(c, "website_url")
	}
	u, err := parseURL(address)
	if err != nil {
		return invalidInput(fmt.Sprintf("The website_url cannot be called: %v.", err)), nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return Result{}, fmt.Errorf("make the request: %w", err)
	}
	request.Header.Set("Accept", "text/html, text/plain, */*;q=0.5")
	request.Header.Set("User-Agent", "Muster")
	request.Header.Set(stepIDHeader, c.StepID)
	response, body, cut, err := send(s.client, request, maxPage)
	if err != nil {
		return Result{}, err
	}
	status := response.StatusCode
	switch {
	case status >= http.StatusMultipleChoices && status < http.StatusBadRequest:
		said := fmt.Sprintf("The page %s has moved to %s.", u, response.Header.Get("Location"))
		return failed(said, said, strconv.Itoa(status), false), nil
	case status != http.StatusOK:
		said := fmt.Sprintf("The page %s cannot be read: the server answered %d %s.", u, status, http.StatusText(status))
		return failed(said, said, strconv.Itoa(status), status >= http.StatusInternalServerError), nil
	}
	kind := response.Header.Get("Content-Type")
	if !textual(response, body) {
		said := fmt.Sprintf("The page %s is no text but %s.", u, kind)
		return failed(said, said, "", false), nil
	}
	text := string(body)
	if strings.Contains(kind, "html") || kind == "" {
		if text, err = pageText(body, kind); err != nil {
			return Result{}, fmt.Errorf("read the page %s: %w", u, err)
		}
	}
	if strings.TrimSpace(text) == "" {
		text = "The page has no text; it may be made by scripts, which are not run here."
	}
	if cut {
		text += "\n[the page was longer than was read]"
	}
	return Result{Text: capped(text)}, nil
}

// pageText gives the title and the text of a page in lines: headings with #, items of lists with -, cells of tables with |.
func pageText(page []byte, contentType string) (string, error) {
	reader, err := charset.NewReader(bytes.NewReader(page), contentType)
	if err != nil {
		return "", err
	}
	root, err := html.Parse(reader)
	if err != nil {
		return "", err
	}
	var w pageWriter
	w.walk(root)
	text := strings.TrimSpace(tooManyBreaks.ReplaceAllString(w.out.String(), "\n\n"))
	if title := strings.Join(strings.Fields(w.title), " "); title != "" {
		return "Title: " + title + "\n\n" + text, nil
	}
	return text, nil
}

var (
	tooManyBreaks = regexp.MustCompile(`\s*\n\s*\n\s*`)
	spaces        = regexp.MustCompile(`\s+`)

	unread = map[atom.Atom]bool{atom.Script: true, atom.Style: true, atom.Noscript: true, atom.Template: true, atom.Svg: true, atom.Nav: true,
		atom.Iframe: true, atom.Form: true, atom.Button: true, atom.Select: true, atom.Textarea: true, atom.Object: true, atom.Canvas: true}
	blocks = map[atom.Atom]string{atom.P: "\n\n", atom.Div: "\n", atom.Section: "\n\n", atom.Article: "\n\n", atom.Main: "\n\n", atom.Header: "\n\n",
		atom.Footer: "\n\n", atom.Aside: "\n\n", atom.Ul: "\n", atom.Ol: "\n", atom.Table: "\n\n", atom.Tr: "\n", atom.Blockquote: "\n\n",
		atom.Pre: "\n\n", atom.Dl: "\n", atom.Dt: "\n", atom.Dd: "\n", atom.Br: "\n", atom.Hr: "\n\n", atom.Figure: "\n", atom.Li: "\n- ",
		atom.H1: "\n\n# ", atom.H2: "\n\n## ", atom.H3: "\n\n### ", atom.H4: "\n\n#### ", atom.H5: "\n\n##### ", atom.H6: "\n\n###### "}
)

type pageWriter struct {
	out   strings.Builder
	title string
	pre   int
}

func (w *pageWriter) walk(n *html.Node) {
	switch n.Type {
	case html.TextNode:
		text := n.Data
		if w.pre == 0 {
			text = spaces.ReplaceAllString(text, " ")
			if strings.HasSuffix(w.out.String(), "\n") || strings.HasSuffix(w.out.String(), " ") {
				text = strings.TrimPrefix(text, " ")
			}
		}
		w.out.WriteString(text)
		return
	case html.ElementNode:
		if unread[n.DataAtom] {
			return
		}
		if n.DataAtom == atom.Title && w.title == "" && n.FirstChild != nil {
			w.title = n.FirstChild.Data
			return
		}
	}
	opening, block := blocks[n.DataAtom]
	w.out.WriteString(opening)
	if n.DataAtom == atom.Pre {
		w.pre++
		defer func() { w.pre-- }()
	}
	for child := range n.ChildNodes() {
		w.walk(child)
	}
	switch {
	case n.DataAtom == atom.Td, n.DataAtom == atom.Th:
		if n.NextSibling != nil {
			w.out.WriteString(" | ")
		}
	case block && n.DataAtom != atom.Br && n.DataAtom != atom.Li:
		w.out.WriteString("\n")
	}
}
