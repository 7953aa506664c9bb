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
	// task is what to do, with the inputs that were written into it; expected is what the answer should be.
	task, expected string
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
	task, expected, _ := cutLine(head, expectedMarker)
	p.task, p.expected = strings.TrimSpace(task), firstParagraph(expected)
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
	text  string
	words []string
	// origin is where it comes from: the inputs in the task, the context, or what tools found.
	origin origin
	// place is its number in its source, from 0.
	place int
}

type origin int

const (
	fromTask origin = iota
	fromContext
	fromTool
)

// facts are the sentences that say something, in order and each once. Those that only tell the model what to do are left
// out, unless there is nothing else.
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
			all = append(all, sentence{text, words, from, i})
		}
	}
	prose, values := withoutJSON(p.task)
	add(inputs(prose), fromTask)
	add(texts(values), fromTask)
	prose, values = withoutJSON(p.context)
	add(rank.Sentences(prose), fromContext)
	add(texts(values), fromContext)
	for _, f := range p.found {
		prose, values = withoutJSON(f)
		add(rank.Sentences(prose), fromTool)
		add(texts(values), fromTool)
	}
	if len(all) == 0 {
		add(rank.Sentences(p.task), fromTask)
	}
	return all
}

// inputs are the sentences of a task that are no instructions. What stands below a line that ends with a colon is the
// user's text, in which "please" is no instruction to us.
func inputs(task string) []string {
	var all []string
	quoted := false
	for paragraph := range strings.SplitSeq(task, "\n\n") {
		for block := range strings.SplitSeq(paragraph, "\n") {
			if isLabel(strings.TrimSpace(block)) {
				quoted = true
			}
		}
		sentences := rank.Sentences(paragraph)
		if len(sentences) > 0 && instructs(sentences[0]) {
			quoted = isLabel(strings.TrimSpace(paragraph))
		}
		if quoted && (len(sentences) == 0 || !instructs(sentences[0])) {
			all = append(all, sentences...)
			continue
		}
		for _, s := range sentences {
			if !instructs(s) {
				all = append(all, s)
			} else if _, data, ok := strings.Cut(s, ": "); ok && len(strings.Fields(data)) > 3 && !instructs(data) {
				all = append(all, data)
			}
		}
	}
	return all
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
	var order []string
	weigh := func(text string, by float64) {
		for _, raw := range rank.RawWords(text) {
			w := rank.Normal(raw)
			if w == "" || generic[w] || len([]rune(raw)) < 2 || verbs.MatchString(raw) {
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
	weigh(p.task, 1)
	weigh(p.expected, 0.5)
	weigh(p.context, 0.25)
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

// queryWords is the number of words of a query.
const queryWords = 12

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
