package offline

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"muster/shared/engine/rank"
)

// ranking rates the facts of a prompt.
type ranking struct {
	facts []sentence
	index *rank.Index
	// general is how much each fact matters to the task as a whole, from 0 to about 2.
	general []float64
}

func (p prompt) rank() ranking {
	r := ranking{facts: p.facts()}
	texts := make([]string, len(r.facts))
	for i, f := range r.facts {
		texts[i] = f.text
	}
	r.index = rank.New(texts)
	asked := r.asked(strings.Join(p.sorted.instructions, " ") + " " + p.expected)
	central := scaled(r.centrality())
	for i, f := range r.facts {
		r.general = append(r.general, asked[i]+0.5*central[i]+bearing(f))
	}
	return r
}

// asked rates each fact by the words that it shares with a question, from 0 to 1: half by how rare they are, half by how
// many.
func (r ranking) asked(question string) []float64 {
	words := meaning(question)
	rare := scaled(r.index.Score(words))
	many := make([]float64, len(r.facts))
	once := map[string]bool{}
	for _, w := range words {
		if once[w] {
			continue
		}
		once[w] = true
		for i, f := range r.facts {
			if f.has[w] {
				many[i]++
			}
		}
	}
	many = scaled(many)
	for i := range rare {
		rare[i] = (rare[i] + many[i]) / 2
	}
	return rare
}

// meaning gives the words of a text that are not generic.
func meaning(text string) []string {
	return slices.DeleteFunc(rank.Words(text), func(w string) bool { return generic[w] })
}

// centrality rates a fact by how much of what all facts speak of it speaks of.
func (r ranking) centrality() []float64 {
	often := map[string]float64{}
	for _, f := range r.facts {
		for _, w := range f.words {
			often[w]++
		}
	}
	scores := make([]float64, len(r.facts))
	for i, f := range r.facts {
		for _, w := range f.words {
			if often[w] > 1 {
				scores[i] += r.index.Weight(w)
			}
		}
		scores[i] /= float64(len(f.words) + 4)
	}
	return scores
}

func scaled(scores []float64) []float64 {
	top := 0.0
	for _, s := range scores {
		top = max(top, s)
	}
	if top > 0 {
		for i := range scores {
			scores[i] /= top
		}
	}
	return scores
}

var (
	figure = regexp.MustCompile(`\d`)
	gist   = regexp.MustCompile(`(?i)\b(?:error|fatal|critical|fail(?:s|ed|ing|ure)?|outage|down|cannot|unable|urgent|deadline|because|caused?|root cause|resolved|` +
		`recovered|deployed?|rolled back|refund|cancel|charged|twice|nobody|stop(?:s|ped)?|decided?|need(?:s|ed)?|wants?|must|since|impact|affected|risk|cost|budget|grow(?:s|n|th)?)\b`)
)

// bearing rates what a fact looks like: facts with figures, names and turns of events carry more than others; crumbs and
// giants carry less.
func bearing(f sentence) float64 {
	score := 0.0
	if figure.MatchString(f.text) {
		score += 0.1
	}
	if gist.MatchString(f.text) {
		score += 0.2
	}
	for i, word := range strings.Fields(f.text) {
		if i > 0 && unicode.IsUpper([]rune(word)[0]) {
			score += 0.05
			break
		}
	}
	switch f.origin {
	case fromScene:
		score -= 0.2
	case fromContext:
		score += 0.3
	case fromTool:
		score += 0.1
	}
	switch n := len(strings.Fields(f.text)); {
	case n < 4:
		score -= 0.5
	case n > 45:
		score -= 0.2
	}
	if strings.HasSuffix(f.text, "?") {
		score -= 0.2
	}
	return score
}

// monotony is what each chosen fact costs the others of its origin, so that the log and the rules about it both have a say.
const monotony = 0.1

// best gives the numbers of the facts with the highest scores, at most n and the best first, none of which says what another
// says already.
func (r ranking) best(scores []float64, n int) []int {
	left := make([]bool, len(r.facts))
	for i := range left {
		left[i] = true
	}
	from := map[origin]int{}
	value := func(i int) float64 { return scores[i] - monotony*float64(from[r.facts[i].origin]) }
	var chosen []int
	for len(chosen) < n {
		top := -1
		for i := range r.facts {
			if left[i] && (top < 0 || value(i) > value(top)) {
				top = i
			}
		}
		if top < 0 {
			break
		}
		chosen = append(chosen, top)
		from[r.facts[top].origin]++
		for i := range r.facts {
			left[i] = left[i] && i != top && !alike(r.facts[i], r.facts[top])
		}
	}
	return chosen
}

// alike tells whether two facts share more than half of their words.
func alike(a, b sentence) bool {
	both := 0
	for w := range b.has {
		if a.has[w] {
			both++
		}
	}
	return 2*both > len(a.has)+len(b.has)-both
}

// brief is the free answer: the facts that matter most in the order of the input, as a list, or as prose if that is what
// was asked for.
func (p prompt) brief() string {
	r := p.rank()
	n, prose := p.size(len(r.facts))
	chosen := r.best(r.general, n)
	slices.Sort(chosen)
	var texts []string
	for _, i := range chosen {
		texts = append(texts, r.facts[i].text)
	}
	switch {
	case len(texts) == 0:
		return "Nothing to go by."
	case prose && !slices.ContainsFunc(texts, func(s string) bool { return !closed.MatchString(s) }):
		return strings.Join(texts, " ")
	}
	return "- " + strings.Join(texts, "\n- ")
}

// closed are sentences with an end, which can stand in prose.
var closed = regexp.MustCompile(`[.!?。！？]["')\]*_]*$`)

var (
	amount = regexp.MustCompile(`(?i)(\b(?:at most|up to|no more than|maximum of) )?\b(one|two|three|four|five|six|seven|eight|nine|ten|a|an|single|\d{1,2})` +
		`(?:\s*(?:-|–|to|or)\s*(\w+))?\s+(?:[\w-]+\s+){0,2}?(bullets?|points?|sentences?|items?|facts?|findings?|lines?|paragraphs?)\b`)
	vague   = regexp.MustCompile(`(?i)\b(?:a few|few|several|some)\b`)
	numbers = map[string]int{"a": 1, "an": 1, "single": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
)

// size reads from what is expected how many pieces to give, and whether as prose. Unless it says, it is about a third of the
// facts, three to eight.
func (p prompt) size(facts int) (n int, prose bool) {
	n = min(8, max(3, (facts+2)/3))
	m := amount.FindStringSubmatch(p.expected)
	if m == nil {
		return n, strings.Contains(strings.ToLower(p.expected), "paragraph")
	}
	count := max(number(m[2]), number(m[3]))
	what := strings.ToLower(m[4])
	switch {
	case strings.HasPrefix(what, "paragraph"):
		return min(12, 4*max(1, count)), true
	case strings.HasPrefix(what, "sentence") && vague.MatchString(m[0]):
		return min(5, n), true
	case strings.HasPrefix(what, "sentence") && m[1] != "":
		return min(count, n), true
	case strings.HasPrefix(what, "sentence"):
		return min(12, max(1, count)), true
	case m[1] != "":
		return min(count, n), false
	case count < 2: // "a bullet list"
		return n, false
	}
	return min(20, count), false
}

func number(word string) int {
	if n, err := strconv.Atoi(word); err == nil {
		return n
	}
	return numbers[strings.ToLower(word)]
}
