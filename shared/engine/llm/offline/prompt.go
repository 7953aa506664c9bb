package offline

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"muster/shared/engine/llm"
	"muster/shared/engine/rank"
)

// The sections of the engine's prompts begin with these words, each at the start of a line.
const (
	expectedMarker = "Expected output:"
	schemaMarker   = "Answer with JSON that satisfies this JSON Schema:"
	contextMarker  = "Context:"
	goalMarker     = "Your goal:"
	judgedMarker   = "Answer:"
	sourceMarker   = "Source:"
)

// prompt is a conversation, taken apart.
type prompt struct {
	// task is what to do, with the inputs that were written into it, and sorted the same without the JSON in it, which is
	// values; expected is what the answer should be.
	task, expected string
	sorted         task
	values         []any
	schema         json.RawMessage
	// context is what earlier tasks found, found is what tools answered, judged the answer that a guardrail asks about.
	context string
	found   []string
	judged  string
}

func readPrompt(c llm.Call) prompt {
	p := prompt{schema: c.Schema}
	task := ""
	for _, m := range c.Messages {
		switch m.Role {
		case llm.User:
			if task == "" {
				task = m.Content
			}
		case llm.Tool:
			p.found = append(p.found, withoutSources(m.Content))
		}
	}
	p.readSections(withoutRole(task))
	return p
}

// withoutRole takes the description of the agent off a prompt that has no system message of its own.
func withoutRole(text string) string {
	if !strings.HasPrefix(text, "You are ") {
		return text
	}
	if _, rest, ok := cutLine(text, goalMarker); ok {
		if _, task, ok := strings.Cut(rest, "\n\n"); ok {
			return task
		}
	}
	return text
}

func (p *prompt) readSections(text string) {
	head, tail, _ := cutLine(text, contextMarker)
	// The schema may stand before the context or after it.
	if before, schema, ok := cutSchema(head); ok {
		head = before
		p.setSchema(schema)
	} else if before, schema, ok := cutSchema(tail); ok {
		tail = before
		p.setSchema(schema)
	}
	p.context = strings.TrimSpace(tail)
	what, expected, _ := cutLine(head, expectedMarker)
	p.task, p.expected = strings.TrimSpace(what), firstParagraph(expected)
	prose, values := withoutJSON(p.task)
	p.sorted, p.values = readTask(prose), values
	if _, judged, ok := cutLine(p.task, judgedMarker); ok {
		p.judged = judged
	}
}

func (p *prompt) setSchema(schema json.RawMessage) {
	if p.schema == nil {
		p.schema = schema
	}
}

// cutSchema cuts a text before the section with the schema, if what follows is JSON.
func cutSchema(text string) (before string, schema json.RawMessage, ok bool) {
	before, after, ok := cutLine(text, schemaMarker)
	if !ok || json.NewDecoder(strings.NewReader(after)).Decode(&schema) != nil {
		return text, nil, false
	}
	return before, schema, true
}

// cutLine cuts a text around a marker at the start of a line.
func cutLine(text, marker string) (before, after string, ok bool) {
	for at := 0; ; {
		i := strings.Index(text[at:], marker)
		if i < 0 {
			return text, "", false
		}
		if at += i; at == 0 || text[at-1] == '\n' {
			return text[:at], text[at+len(marker):], true
		}
		at += len(marker)
	}
}

func firstParagraph(text string) string {
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n\n")
	return first
}

func withoutSources(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, sourceMarker) {
			line = "\n" // what follows is of another source
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}

// sentence is a candidate for the answer.
type sentence struct {
	text string
	// words are those that carry meaning, in order; has holds each once.
	words []string
	has   map[string]bool
	// origin is where it comes from: the inputs in the task, the context, or what tools found.
	origin origin
	// place is its number in its source, from 0.
	place int
}

type origin int

const (
	fromTask  origin = iota
	fromScene        // before the first instruction of a task
	fromContext
	fromTool
)

// facts are the pieces that say something, in order and each once. Those that only tell the model what to do are left out,
// unless there is nothing else.
func (p prompt) facts() []sentence {
	var all []sentence
	seen := map[string]bool{}
	add := func(texts []string, from origin) {
		for i, text := range texts {
			text = strings.Trim(text, " |")
			key := strings.ToLower(text)
			words := rank.Words(text)
			if seen[key] || len(words) == 0 || isLabel(text) || aboutAnswers.MatchString(text) {
				continue
			}
			seen[key] = true
			has := make(map[string]bool, len(words))
			for _, w := range words {
				has[w] = true
			}
			all = append(all, sentence{text, words, has, from, i})
		}
	}
	add(p.sorted.scene, fromScene)
	add(p.sorted.data, fromTask)
	add(texts(p.values), fromTask)
	prose, values := withoutJSON(p.context)
	add(units(prose, recordWord(prose)), fromContext)
	add(texts(values), fromContext)
	for _, f := range p.found {
		prose, values = withoutJSON(f)
		add(rank.Sentences(prose), fromTool)
		add(texts(values), fromTool)
	}
	if len(all) < fewFacts {
		add(p.sorted.doubtful, fromTask)
	}
	if len(all) == 0 {
		add(p.sorted.instructions, fromTask)
	}
	return all
}

// fewFacts is the number of facts below which sentences count that are probably instructions.
const fewFacts = 3

// task is the text of a task, sorted.
type task struct {
	// instructions say what to do; scene is said before them, data is what the user put in, and doubtful may be anything.
	instructions, scene, data, doubtful []string
}

// readTask sorts the sentences of a task. A paragraph that begins with an instruction goes on with instructions, until a
// colon or the word "following" announces data. What stands below a line that ends with a colon is data, in which "please"
// is no instruction to us.
func readTask(text string) task {
	var t task
	quoted := false
	alike := recordWord(text)
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		sentences := rank.Sentences(paragraph)
		if len(sentences) == 0 {
			continue
		}
		if firstWord(paragraph) == alike || quoted && !instructs(sentences[0]) {
			t.data = append(t.data, units(paragraph, alike)...)
			continue
		}
		quoted = false
		instructed, told := false, !slices.ContainsFunc(sentences, instructs)
		for i, s := range sentences {
			before, data, colon := strings.Cut(s, ": ")
			switch {
			case quoted:
				t.data = append(t.data, s)
			case isLabel(s):
				// A label stands alone on its line, or ends the paragraph.
				t.instructions = append(t.instructions, s)
				quoted = true
			case instructs(s) && colon && instructs(before) && isData(data):
				t.instructions = append(t.instructions, before)
				t.data = append(t.data, data)
				instructed = true
				quoted = announces(sentences[i+1:])
			case instructs(s):
				t.instructions = append(t.instructions, s)
				instructed = true
				quoted = following.MatchString(s)
			case told:
				t.data = append(t.data, s)
			case instructed:
				t.doubtful = append(t.doubtful, s)
			default:
				t.scene = append(t.scene, s)
			}
		}
	}
	return t
}

var following = regexp.MustCompile(`(?i)\b(?:the following|below)\b`)

// isData tells what stands behind a colon: a text of its own, or the rest of the instruction.
func isData(s string) bool {
	first := []rune(s)[0]
	return len(strings.Fields(s)) > 3 && !unicode.IsLower(first) && !instructs(s)
}

// announces tells whether data that begins behind a colon goes on: until the next instruction it does.
func announces(rest []string) bool { return len(rest) > 0 && !instructs(rest[0]) }

// maxUnit is the number of bytes up to which a record or an item of a list is kept in one piece.
const maxUnit = 400

// units are the pieces of a text that stand for themselves: items of a list, and the records that begin with a word, in one
// piece, prose by sentences.
func units(text, record string) []string {
	var all []string
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		if whole := oneLine(paragraph); firstWord(paragraph) == record && len(whole) <= maxUnit {
			all = append(all, whole)
			continue
		}
		var prose strings.Builder
		for line := range strings.Lines(paragraph) {
			item, ok := strings.CutPrefix(strings.TrimSpace(line), "- ")
			if !ok || len(item) > maxUnit {
				prose.WriteString(line)
				continue
			}
			all = append(all, rank.Sentences(prose.String())...)
			prose.Reset()
			all = append(all, item)
		}
		all = append(all, rank.Sentences(prose.String())...)
	}
	return all
}

// oneLine joins the lines of a paragraph and leaves a single one as it is.
func oneLine(paragraph string) string {
	paragraph = strings.TrimSpace(paragraph)
	if strings.Contains(paragraph, "\n") {
		return strings.Join(strings.Fields(paragraph), " ")
	}
	return paragraph
}

// recordWord gives the word with which at least three paragraphs begin, "" without one: then each is a record, such as
// a ticket or a review.
func recordWord(text string) string {
	counts := map[string]int{}
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		word := firstWord(paragraph)
		if counts[word]++; word != noWord && counts[word] == 3 && !instructs(word) {
			return word
		}
	}
	return ""
}

// noWord is what a paragraph begins with that is no record.
const noWord = "-"

// firstWord gives the first word of a paragraph that does not begin with a mark.
func firstWord(paragraph string) string {
	fields := strings.Fields(paragraph)
	if len(fields) < 2 || !unicode.IsLetter([]rune(fields[0])[0]) {
		return noWord
	}
	return fields[0]
}

var (
	verbs = regexp.MustCompile(`(?i)^(?:please |then |first,? |next,? |finally,? |also |now |carefully |briefly |and |only |always )*` +
		`(?:add|analy[sz]e|answer|ask|assess|assign|avoid|base|begin|build|call|check|choose|cite|classify|collect|combine|compare|compile|consider|cover|create|` +
		`decide|define|describe|design|determine|develop|do|don't|draft|end|ensure|estimate|evaluate|examine|explain|explore|extract|figure|fill|find|flag|focus|` +
		`follow|gather|generate|get|give|go|group|highlight|identify|include|inspect|interpret|investigate|judge|keep|leave|limit|list|look|make|mark|match|mention|name|` +
		`never|note|organi[sz]e|outline|output|pay|pick|plan|point|prefer|prepare|prioriti[sz]e|produce|propose|provide|put|qualify|quote|rank|rate|read|reason|recommend|` +
		`report|research|respond|return|review|rewrite|route|say|score|search|select|separate|set|show|sort|start|state|structure|study|suggest|summari[sz]e|` +
		`support|take|tell|think|translate|treat|triage|try|turn|understand|use|using|validate|verify|weigh|work|write)\b`)
	toTheModel = regexp.MustCompile(`(?i)\b(?:your (?:answer|task|job|goal|output|response|report|final)|you (?:are|must|should|will|have to|may|can use)|` +
		`the (?:answer|output|response|result|report|brief|summary) (?:must|should|has to|is to|needs to)|in your)\b`)
	aboutAnswers = regexp.MustCompile(`^(?:Your previous answer was|Answer again so that|Nothing in the knowledge matches|\[(?:cut after|the (?:page|response) was longer))`)
)

// instructs tells whether a sentence of a task says what to do and not what is.
func instructs(s string) bool { return verbs.MatchString(s) || toTheModel.MatchString(s) }

// isLabel tells a line that only announces what follows.
func isLabel(s string) bool { return strings.HasSuffix(s, ":") }

// query is what to search for: the words of the task that say most, as they are written, in order. Those of the inputs,
// names and words that come again count more.
func (p prompt) query() string {
	weight := map[string]float64{}
	written := map[string]string{}
	times := map[string]int{}
	var order []string
	weigh := func(text string, by float64) {
		for _, raw := range rank.RawWords(text) {
			w := rank.Normal(raw)
			if w == "" || generic[w] || strings.ContainsFunc(raw, unicode.IsDigit) || len([]rune(raw)) < 2 || verbs.MatchString(raw) {
				continue
			}
			if times[w]++; times[w] > maxTimes {
				continue
			}
			if written[w] == "" {
				written[w] = raw
				order = append(order, w)
			}
			weight[w] += by
			if unicode.IsUpper([]rune(raw)[0]) {
				weight[w] += by / 4
			}
		}
	}
	task := p.sorted
	weigh(strings.Join(task.instructions, "\n"), 2)
	weigh(strings.Join(task.doubtful, "\n"), 1)
	weigh(p.expected, 1)
	weigh(strings.Join(append(task.scene, task.data...), "\n"), 0.25)
	weigh(p.context, 0.15)
	best := slices.Clone(order)
	slices.SortStableFunc(best, func(a, b string) int {
		switch {
		case weight[a] > weight[b]:
			return -1
		case weight[a] < weight[b]:
			return 1
		}
		return 0
	})
	best = best[:min(queryWords, len(best))]
	var words []string
	for _, w := range order {
		if slices.Contains(best, w) {
			words = append(words, written[w])
		}
	}
	return strings.Join(words, " ")
}

const (
	// queryWords is the number of words of a query.
	queryWords = 12
	// maxTimes is how often a word counts: a word of every record says nothing of the task.
	maxTimes = 4
)

// generic are words of tasks about answers; they say nothing of what a task is about.
var generic = func() map[string]bool {
	words := map[string]bool{}
	for _, w := range strings.Fields(`answer answers based below bullet bullets brief clear concise context detailed each exactly expected field fields final
		first following form format given good information input inputs item items json key list long markdown message needed one output paragraph
		paragraphs point points relevant report response result results section sections sentence sentences short single step steps summary task
		text three two five four title use using well words`) {
		words[rank.Normal(w)] = true
	}
	return words
}()
