package tool

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/engine/rank"
	"muster/shared/fault"
)

const (
	// knowledgeFolder is where files of knowledge lie unless named by their whole path.
	knowledgeFolder = "knowledge/"
	// passageSize is the number of bytes up to which paragraphs are put together in one passage.
	passageSize = 800
	// passages is the number of passages that a search gives.
	passages = 5
	// maxPassages bounds what is indexed of all files together.
	maxPassages = 20000
)

// knowledgeSettings are the settings of knowledge_search.
type knowledgeSettings struct {
	// Files are the files to search instead of those that the agent and the crew know.
	Files []string `json:"files"`
}

// passage is a piece of a file, and where in the file it stands.
type passage struct{ file, place, text string }

type knowledgeSearch struct {
	function llm.Function
	passages []passage
	index    *rank.Index
}

func openKnowledgeSearch(t crew.Tool, s Source) (Tool, error) {
	var settings knowledgeSettings
	if err := readSettings(t, &settings); err != nil {
		return nil, err
	}
	names := settings.Files
	if len(names) == 0 {
		names = s.Knowledge
	}
	if len(names) == 0 {
		for _, name := range slices.Sorted(maps.Keys(s.Files)) {
			if strings.HasPrefix(name, knowledgeFolder) {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return nil, fault.New(fault.Invalid, "The tool %s has nothing to search: the version has no files under %s and names none.", t.Name, knowledgeFolder)
	}
	k := &knowledgeSearch{}
	for _, name := range names {
		content, ok := s.Files[name]
		if !ok {
			name = knowledgeFolder + strings.TrimPrefix(name, "./")
			content, ok = s.Files[name]
		}
		if !ok {
			return nil, fault.New(fault.Invalid, "The file %s of the tool %s is not in this version.", strings.TrimPrefix(name, knowledgeFolder), t.Name)
		}
		if !utf8.Valid(content) || strings.ContainsRune(string(content), 0) {
			return nil, fault.New(fault.Invalid, "The file %s of the tool %s is no text; text, Markdown, CSV and JSON can be searched.", name, t.Name)
		}
		k.passages = append(k.passages, cut(name, string(content))...)
	}
	if len(k.passages) > maxPassages {
		return nil, fault.New(fault.TooLarge, "The files of the tool %s have more than %d passages; leave some out.", t.Name, maxPassages)
	}
	documents := make([]string, len(k.passages))
	for i, p := range k.passages {
		documents[i] = path.Base(p.file) + " " + p.place + "\n" + p.text
	}
	k.index = rank.New(documents)
	k.function = describe(t, "Searches the crew's knowledge and gives the passages that match best, with the files they are from.", `{
		"type": "object",
		"properties": {"query": {"type": "string", "description": "what to look for, in a few telling words"}},
		"required": ["query"],
		"additionalProperties": false
	}`)
	return k, nil
}

// Function tells the model of it.
func (k *knowledgeSearch) Function() llm.Function { return k.function }

// Call searches. Each passage is preceded by a line "Source:" with its file and place.
func (k *knowledgeSearch) Call(_ context.Context, c Call) (Result, error) {
	query := argument(c, "query")
	scores := k.index.Score(rank.Words(query))
	best := make([]int, len(scores))
	for i := range best {
		best[i] = i
	}
	slices.SortStableFunc(best, func(a, b int) int {
		switch {
		case scores[a] > scores[b]:
			return -1
		case scores[a] < scores[b]:
			return 1
		}
		return 0
	})
	var found []string
	for _, i := range best[:min(passages, len(best))] {
		if scores[i] == 0 {
			break
		}
		p := k.passages[i]
		source := "Source: " + p.file
		if p.place != "" {
			source += " (" + p.place + ")"
		}
		found = append(found, source+"\n"+p.text)
	}
	if len(found) == 0 {
		return Result{Text: fmt.Sprintf("Nothing in the knowledge matches %q.", query)}, nil
	}
	return Result{Text: capped(strings.Join(found, "\n\n"))}, nil
}

// cut cuts a file into passages, by its kind.
func cut(file, content string) []passage {
	switch strings.ToLower(path.Ext(file)) {
	case ".csv":
		if made := cutCSV(file, content); made != nil {
			return made
		}
	case ".json":
		if value, ok := shallowJSON(content); ok {
			var made []passage
			cutJSON(file, "", value, &made)
			return made
		}
	}
	return cutText(file, content)
}

// cutText makes passages of paragraphs; a heading of Markdown begins a new one and is the place of what follows.
func cutText(file, content string) []passage {
	var (
		made  []passage
		open  = -1 // the passage that may still grow
		trail []string
	)
	for _, paragraph := range paragraphs(content) {
		if level := heading(paragraph); level > 0 {
			title := strings.TrimSpace(strings.TrimLeft(paragraph, "#"))
			trail = append(trail[:min(level-1, len(trail))], title)
			open = -1
			continue
		}
		if open >= 0 && len(made[open].text)+len(paragraph) <= passageSize {
			made[open].text += "\n\n" + paragraph
			continue
		}
		made = append(made, passage{file, strings.Join(trail, " > "), paragraph})
		open = len(made) - 1
	}
	return made
}

// paragraphs cuts a text at blank lines, and around headings.
func paragraphs(content string) []string {
	var (
		all   []string
		lines []string
	)
	end := func() {
		if len(lines) > 0 {
			all = append(all, strings.Join(lines, "\n"))
			lines = nil
		}
	}
	size := 0
	for line := range strings.Lines(content) {
		line = strings.TrimRight(line, " \t\r\n")
		switch {
		case strings.TrimSpace(line) == "":
			end()
		case heading(line) > 0:
			end()
			all = append(all, line)
		default:
			if len(lines) == 0 {
				size = 0
			}
			// A log or a table is one long paragraph.
			if size += len(line); size > passageSize && len(lines) > 0 {
				end()
				size = len(line)
			}
			lines = append(lines, line)
		}
	}
	end()
	return all
}

// heading gives the level of a Markdown heading, 0 for any other line.
func heading(line string) int {
	level := len(line) - len(strings.TrimLeft(line, "#"))
	if level == 0 || level > 6 || !strings.HasPrefix(line[level:], " ") || strings.Contains(line, "\n") {
		return 0
	}
	return level
}

// cutCSV makes a passage of each row, "column: value" by line; nil when the file is no table.
func cutCSV(file, content string) []passage {
	r := csv.NewReader(strings.NewReader(content))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil || len(rows) < 2 {
		return nil
	}
	var made []passage
	for n, row := range rows[1:] {
		var lines []string
		for i, value := range row {
			if value = strings.TrimSpace(value); value == "" {
				continue
			}
			if i < len(rows[0]) {
				value = rows[0][i] + ": " + value
			}
			lines = append(lines, value)
		}
		made = append(made, passage{file, fmt.Sprintf("row %d", n+2), strings.Join(lines, "\n")})
	}
	return made
}

// maxNesting is how deep a JSON file may be nested to be taken apart; a deeper one is searched as text.
const maxNesting = 32

func shallowJSON(content string) (value any, ok bool) {
	depth, d := 0, json.NewDecoder(strings.NewReader(content))
	for {
		token, err := d.Token()
		if err != nil {
			break
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth > maxNesting {
			return nil, false
		}
	}
	d = json.NewDecoder(strings.NewReader(content))
	d.UseNumber() // numbers are shown as they were written
	err := d.Decode(&value)
	return value, err == nil && !d.More()
}

// cutJSON makes a passage of every value that is short enough, and goes into those that are not.
func cutJSON(file, place string, value any, made *[]passage) {
	text := plainJSON(value, "")
	inside := func(name string) string { return strings.TrimPrefix(place+"."+name, ".") }
	switch v := value.(type) {
	case map[string]any:
		if len(text) > passageSize {
			for _, name := range slices.Sorted(maps.Keys(v)) {
				cutJSON(file, inside(name), v[name], made)
			}
			return
		}
	case []any:
		for i, item := range v {
			cutJSON(file, inside(fmt.Sprint(i)), item, made)
		}
		return
	}
	if text != "" {
		*made = append(*made, passage{file, place, text})
	}
}

// plainJSON writes a value as lines of "name: value".
func plainJSON(value any, name string) string {
	var lines []string
	add := func(inner any, as string) {
		if text := plainJSON(inner, as); text != "" {
			lines = append(lines, text)
		}
	}
	switch v := value.(type) {
	case nil:
		return ""
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			add(v[key], strings.TrimPrefix(name+" "+key, " "))
		}
		return strings.Join(lines, "\n")
	case []any:
		for _, item := range v {
			add(item, name)
		}
		return strings.Join(lines, "\n")
	}
	text := fmt.Sprint(value)
	if name == "" {
		return text
	}
	return name + ": " + text
}
