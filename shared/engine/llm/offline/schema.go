package offline

import (
	"bytes"
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"muster/shared/engine/rank"
)

// isVerdict tells the schema of a guardrail's answer.
func isVerdict(schema json.RawMessage) bool {
	var s struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	return json.Unmarshal(schema, &s) == nil && len(s.Properties) == 2 && s.Properties["valid"] != nil && s.Properties["feedback"] != nil
}

// schema is the part of JSON Schema that is filled by what it says; the rest is left to luck.
type schema struct {
	Type        any               `json:"type"`
	Description string            `json:"description"`
	Title       string            `json:"title"`
	Enum        []json.RawMessage `json:"enum"`
	Const       json.RawMessage   `json:"const"`
	Properties  json.RawMessage   `json:"properties"`
	Items       json.RawMessage   `json:"items"`
	AnyOf       []json.RawMessage `json:"anyOf"`
	OneOf       []json.RawMessage `json:"oneOf"`
	AllOf       []json.RawMessage `json:"allOf"`
	Ref         string            `json:"$ref"`
	Format      string            `json:"format"`
	Pattern     string            `json:"pattern"`
	MinLength   int               `json:"minLength"`
	MaxLength   *int              `json:"maxLength"`
	MinItems    int               `json:"minItems"`
	MaxItems    *int              `json:"maxItems"`
	Minimum     *float64          `json:"minimum"`
	Maximum     *float64          `json:"maximum"`
	ExclMinimum *float64          `json:"exclusiveMinimum"`
	ExclMaximum *float64          `json:"exclusiveMaximum"`
	MultipleOf  *float64          `json:"multipleOf"`
}

const (
	maxFillDepth = 12
	// maxFilled bounds the values of one answer: a schema that refers to itself has no end.
	maxFilled = 2000
)

// filler fills a schema with what a prompt says.
type filler struct {
	ranking
	root   json.RawMessage
	labels []labelled
	used   map[int]bool
	// task is the text in which a word may stand before the name of a property: "the retail industry".
	task string
	// listed is the number of items in a list that says nothing of its length.
	listed int
	filled int
}

// fillSchema gives JSON for the schema of a prompt.
func fillSchema(p prompt) string {
	f := &filler{ranking: p.rank(), root: p.schema, labels: p.labels(), used: map[int]bool{}, task: p.task + "\n" + p.expected}
	f.listed = min(7, max(3, len(f.facts)/3))
	if m := amount.FindStringSubmatch(p.expected); m != nil && !vague.MatchString(m[0]) {
		f.listed = max(3, number(m[2]), number(m[3]))
	}
	var out bytes.Buffer
	if err := json.Indent(&out, f.fill(p.schema, "", 0), "", "  "); err != nil {
		return "{}"
	}
	return out.String()
}

func (f *filler) fill(raw json.RawMessage, name string, depth int) json.RawMessage {
	var s schema
	if f.filled++; depth > maxFillDepth || f.filled > maxFilled || json.Unmarshal(raw, &s) != nil {
		return json.RawMessage("null")
	}
	if s.Ref != "" {
		return f.fill(f.resolve(s.Ref), name, depth+1)
	}
	for _, choices := range [][]json.RawMessage{s.AnyOf, s.OneOf, s.AllOf} {
		if len(choices) > 0 && s.Type == nil {
			return f.fill(notNull(choices), name, depth+1)
		}
	}
	about := strings.TrimSpace(words(name) + " " + s.Title + " " + s.Description)
	switch {
	case s.Const != nil:
		return s.Const
	case len(s.Enum) > 0:
		return f.choose(s.Enum, about)
	}
	switch s.kind() {
	case "object":
		return f.object(s, depth)
	case "array":
		return f.array(s, name, about, depth)
	case "string":
		return encode(f.text(s, name, about))
	case "integer", "number":
		return encode(f.number(s, name, about))
	case "boolean":
		return encode(f.truth(name, about))
	}
	return json.RawMessage("null")
}

// kind gives the first type that is not null; a schema without a type is known by its other fields.
func (s schema) kind() string {
	switch t := s.Type.(type) {
	case string:
		return t
	case []any:
		for _, one := range t {
			if name, ok := one.(string); ok && name != "null" {
				return name
			}
		}
		return "null"
	}
	switch {
	case s.Properties != nil:
		return "object"
	case s.Items != nil:
		return "array"
	}
	return "string"
}

func notNull(choices []json.RawMessage) json.RawMessage {
	for _, c := range choices {
		var s schema
		if json.Unmarshal(c, &s) == nil && s.Type != "null" {
			return c
		}
	}
	return choices[0]
}

// resolve follows a reference inside the schema.
func (f *filler) resolve(ref string) json.RawMessage {
	at := f.root
	for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		var object map[string]json.RawMessage
		if json.Unmarshal(at, &object) != nil {
			return nil
		}
		at = object[strings.NewReplacer("~1", "/", "~0", "~").Replace(part)]
	}
	return at
}

// object fills every property, in the order of the schema.
func (f *filler) object(s schema, depth int) json.RawMessage {
	var out bytes.Buffer
	out.WriteByte('{')
	var properties map[string]json.RawMessage
	if json.Unmarshal(s.Properties, &properties) == nil {
		for i, name := range keys(s.Properties) {
			if i > 0 {
				out.WriteByte(',')
			}
			out.Write(encode(name))
			out.WriteByte(':')
			out.Write(f.fill(properties[name], name, depth+1))
		}
	}
	out.WriteByte('}')
	return out.Bytes()
}

// keys gives the names of a JSON object in their order, each once.
func keys(object json.RawMessage) []string {
	d := json.NewDecoder(bytes.NewReader(object))
	if _, err := d.Token(); err != nil {
		return nil
	}
	var names []string
	for d.More() {
		name, err := d.Token()
		text, ok := name.(string)
		var skipped json.RawMessage
		if err != nil || !ok || d.Decode(&skipped) != nil {
			return names
		}
		if !slices.Contains(names, text) {
			names = append(names, text)
		}
	}
	return names
}

func (f *filler) array(s schema, name, about string, depth int) json.RawMessage {
	var item schema
	_ = json.Unmarshal(s.Items, &item)
	n := max(s.MinItems, f.listed)
	if s.MaxItems != nil {
		n = min(n, *s.MaxItems)
	}
	var items []json.RawMessage
	switch {
	case len(item.Enum) > 0:
		items = f.mentioned(item.Enum, max(1, s.MinItems))
	case item.kind() == "string" && item.Ref == "" && item.AnyOf == nil && item.Format == "" && item.Pattern == "":
		for _, i := range f.find(about+" "+item.Description, n) {
			items = append(items, encode(fit(f.facts[i].text, item)))
		}
	default:
		for range min(n, len(f.facts)) {
			if f.filled > maxFilled {
				break
			}
			one := f.fill(s.Items, name, depth+1)
			if !slices.ContainsFunc(items, func(other json.RawMessage) bool { return bytes.Equal(one, other) }) {
				items = append(items, one)
			}
		}
	}
	for len(items) < s.MinItems && f.filled <= maxFilled {
		items = append(items, f.fill(s.Items, name, depth+1))
	}
	if s.MaxItems != nil && len(items) > *s.MaxItems {
		items = items[:max(0, *s.MaxItems)]
	}
	if items == nil {
		return json.RawMessage("[]")
	}
	return encode(items)
}

// find gives the facts that say most about something and have not been used yet; if all have, they are used again.
func (f *filler) find(about string, n int) []int {
	asked := f.asked(unhinted(about))
	scores := make([]float64, len(f.facts))
	for i := range scores {
		scores[i] = asked[i] + f.general[i] + hinted(about, f.facts[i].text)
		if f.used[i] {
			scores[i] -= 10
		}
	}
	chosen := f.best(scores, n)
	if len(chosen) > 0 && !f.used[chosen[0]] {
		chosen = slices.DeleteFunc(chosen, func(i int) bool { return f.used[i] })
	}
	for _, i := range chosen {
		f.used[i] = true
	}
	slices.Sort(chosen)
	return chosen
}

// hints are turns of phrase that answer a property although they share no word with its name. With instead, sharing the
// word says nothing: a rule that every review names a root cause is none.
var hints = []struct {
	about, fact *regexp.Regexp
	instead     bool
}{
	{regexp.MustCompile(`(?i)\b(?:root cause|causes?|reasons?|why)\b`), regexp.MustCompile(`(?i)\b(?:because|due to|caused|skipped|changed|led to)\b`), true},
	{regexp.MustCompile(`(?i)\b(?:actions?|recommend\w*|next steps?|improvements?|changed?)\b`), regexp.MustCompile(`(?i)\b(?:must|should|ha(?:s|ve) to|needs? to)\b`), true},
	{regexp.MustCompile(`(?i)\b(?:impact|affected|damage)\b`), regexp.MustCompile(`(?i)\b(?:failed|lost|affected|percent|cannot|customers?)\b`), false},
	{regexp.MustCompile(`(?i)\b(?:opportunit\w+|benefits?|advantages?)\b`), regexp.MustCompile(`(?i)\b(?:sav(?:e|es|ing)|shorten\w*|payback|faster|fewer|gains?)\b`), false},
}

func hinted(about, fact string) float64 {
	for _, h := range hints {
		if h.about.MatchString(about) && h.fact.MatchString(fact) {
			return 0.6
		}
	}
	return 0
}

// unhinted takes the words out of a question whose hints count instead of them.
func unhinted(about string) string {
	for _, h := range hints {
		if h.instead {
			about = h.about.ReplaceAllString(about, " ")
		}
	}
	return about
}

var formats = map[string]*regexp.Regexp{
	"date":      regexp.MustCompile(`\b\d{4}-\d{2}-\d{2}\b`),
	"date-time": regexp.MustCompile(`\b\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})`),
	"time":      regexp.MustCompile(`\b\d{2}:\d{2}:\d{2}(?:Z|[+-]\d{2}:\d{2})?\b`),
	"email":     regexp.MustCompile(`[\w.+-]+@[\w-]+(?:\.[\w-]+)+`),
	"uri":       regexp.MustCompile(`https?://[^\s"'<>)]+[^\s"'<>).,;:!?]`),
}

// text fills a string: a labelled value, something of the format or pattern asked for, or the sentence that fits best.
func (f *filler) text(s schema, name, about string) string {
	shape := formats[s.Format]
	if s.Pattern != "" {
		shape, _ = regexp.Compile(s.Pattern)
	}
	if shape != nil {
		if value, ok := f.label(name); ok && shape.MatchString(value) {
			return fit(value, s)
		}
		for _, fact := range f.facts {
			if found := shape.FindString(fact.text); found != "" {
				return found
			}
		}
	}
	if value, ok := f.label(name); ok {
		return fit(value, s)
	}
	if kind, ok := f.kindOf(name); ok {
		return fit(kind, s)
	}
	chosen := f.find(about, 1)
	if len(chosen) == 0 {
		return fit("", s)
	}
	text := f.facts[chosen[0]].text
	for utf8.RuneCountInString(text) < s.MinLength {
		more := f.find(about, 1)
		if len(more) == 0 {
			break
		}
		text += " " + f.facts[more[0]].text
	}
	return fit(text, s)
}

// kindOf gives the word that the task puts before the name of a property at least twice: with "the retail industry" twice in
// the task, the industry is "retail".
func (f *filler) kindOf(name string) (string, bool) {
	if len(rank.RawWords(words(name))) != 1 {
		return "", false
	}
	counts := map[string]int{}
	all := rank.RawWords(f.task)
	for i := 1; i < len(all); i++ {
		before := rank.Normal(all[i-1])
		if !strings.EqualFold(all[i], name) || before == "" || generic[before] || verbs.MatchString(all[i-1]) {
			continue
		}
		if counts[before]++; counts[before] == 2 {
			return all[i-1], true
		}
	}
	return "", false
}

// fit cuts a text after the last word that fits, and fills up one that is too short with dots.
func fit(text string, s schema) string {
	runes := []rune(text)
	if s.MaxLength != nil && len(runes) > *s.MaxLength {
		text = string(runes[:max(0, *s.MaxLength)])
		if space := strings.LastIndexByte(text, ' '); space > 0 && utf8.RuneCountInString(text[:space]) >= s.MinLength {
			text = text[:space]
		}
	}
	if short := min(s.MinLength, 10000) - utf8.RuneCountInString(text); short > 0 {
		text += strings.Repeat(".", short)
	}
	return text
}

var (
	decimal = regexp.MustCompile(`-?\d+(?:,\d{3})*(?:\.\d+)?`)
	moment  = regexp.MustCompile(`\d{4}-\d{2}-\d{2}(?:T[\d:.]+Z?)?|\d{1,2}:\d{2}(?::\d{2})?`)
)

// limits are what a number must keep.
type limits struct {
	low, high float64
	whole     bool
}

func (s schema) limits() limits {
	l := limits{math.Inf(-1), math.Inf(1), s.kind() == "integer"}
	step := 1e-6
	if l.whole {
		step = 1
	}
	if s.Minimum != nil {
		l.low = *s.Minimum
	}
	if s.Maximum != nil {
		l.high = *s.Maximum
	}
	if s.ExclMinimum != nil {
		l.low = math.Max(l.low, *s.ExclMinimum+step)
	}
	if s.ExclMaximum != nil {
		l.high = math.Min(l.high, *s.ExclMaximum-step)
	}
	return l
}

func (l limits) keeps(n float64) bool {
	return n >= l.low && n <= l.high && (!l.whole || n == math.Trunc(n) && math.Abs(n) < 1<<53)
}

// number fills a number: a labelled one, or that in the facts which stands nearest to the property's name; else the least
// that is allowed, or 0.
func (f *filler) number(s schema, name, about string) float64 {
	l := s.limits()
	value, ok := 0.0, false
	if text, labelled := f.label(name); labelled {
		value, ok = nearest(text, nil, l)
	}
	if !ok {
		asked := f.index.Score(meaning(about))
		for _, i := range f.best(asked, 5) {
			if asked[i] == 0 || ok {
				break
			}
			value, ok = nearest(f.facts[i].text, rank.Words(words(name)), l)
		}
	}
	if !ok {
		value = math.Min(math.Max(0, l.low), l.high)
	}
	if m := s.MultipleOf; m != nil && *m > 0 {
		value = math.Ceil(value / *m) * *m
	}
	return value
}

// nearest finds the number in a text that keeps the limits and stands nearest to one of the words. Dates and times of day
// are no numbers.
func nearest(text string, words []string, l limits) (number float64, ok bool) {
	text = moment.ReplaceAllStringFunc(text, func(s string) string { return strings.Repeat(" ", len(s)) })
	closest := math.MaxInt
	for _, at := range decimal.FindAllStringIndex(text, -1) {
		n, err := strconv.ParseFloat(strings.ReplaceAll(text[at[0]:at[1]], ",", ""), 64)
		if err != nil || !l.keeps(n) {
			continue
		}
		if d := distance(text, at, words); !ok || d < closest {
			number, closest, ok = n, d, true
		}
	}
	return number, ok
}

// distance counts the words between a span of a text and the nearest of the words.
func distance(text string, span []int, words []string) int {
	before, after := rank.RawWords(text[:span[0]]), rank.RawWords(text[span[1]:])
	slices.Reverse(before)
	least := math.MaxInt - 1
	for _, side := range [][]string{before, after} {
		for i, raw := range side {
			if slices.Contains(words, rank.Normal(raw)) {
				least = min(least, i)
				break
			}
		}
	}
	return least
}

var negated = regexp.MustCompile(`(?i)\b(?:no|not|never|none|without|cannot|n't|false)\b|n't\b`)

// truth fills a boolean: what is labelled, else whether a fact speaks of it without a "not".
func (f *filler) truth(name, about string) bool {
	if value, ok := f.label(name); ok {
		return !negated.MatchString(value) && value != "0"
	}
	asked := f.index.Score(meaning(words(name)))
	best := f.best(asked, 1)
	return len(best) > 0 && asked[best[0]] > 0 && !negated.MatchString(f.facts[best[0]].text)
}

// choose picks the value of an enumeration that the facts mention most; without a mention the one nearest to them in words.
func (f *filler) choose(values []json.RawMessage, about string) json.RawMessage {
	counts := f.mentions(values)
	best := 0
	for i := range values {
		if counts[i] > counts[best] {
			best = i
		}
	}
	return values[best]
}

// mentioned gives the values that the facts mention, at least n.
func (f *filler) mentioned(values []json.RawMessage, n int) []json.RawMessage {
	counts := f.mentions(values)
	var found []json.RawMessage
	for i, v := range values {
		if counts[i] > 0 {
			found = append(found, v)
		}
	}
	for _, v := range values {
		if len(found) < n && !slices.ContainsFunc(found, func(o json.RawMessage) bool { return bytes.Equal(o, v) }) {
			found = append(found, v)
		}
	}
	return found
}

func (f *filler) mentions(values []json.RawMessage) []int {
	counts := make([]int, len(values))
	for i, v := range values {
		var text string
		if json.Unmarshal(v, &text) != nil {
			text = string(v)
		}
		wanted := rank.Words(words(text))
		for _, fact := range f.facts {
			if len(wanted) > 0 && !slices.ContainsFunc(wanted, func(w string) bool { return !fact.has[w] }) {
				counts[i]++
			}
		}
	}
	return counts
}

// words makes words of a name: snake_case, kebab-case and camelCase.
func words(name string) string {
	var b strings.Builder
	last := ' '
	for _, r := range name {
		if unicode.IsUpper(r) && unicode.IsLower(last) {
			b.WriteByte(' ')
		}
		if r == '_' || r == '-' || r == '.' {
			r = ' '
		}
		b.WriteRune(r)
		last = r
	}
	return b.String()
}

func encode(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return json.RawMessage("null")
	}
	return bytes.TrimSpace(b.Bytes())
}
