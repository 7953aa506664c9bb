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
	question := meaning(p.task + " " + p.expected)
	asked := scaled(r.index.Score(question))
	central := scaled(r.centrality())
	for i, f := range r.facts {
		r.general = append(r.general, asked[i]+0.6*central[i]+bearing(f))
	}
	return r
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
		`recovered|deployed?|rolled back|refund|cancel|charged|decided?|need(?:s|ed)?|wants?|must|since|impact|affected|risk|cost|budget|grow(?:s|n|th)?)\b`)
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
	if f.place == 0 {
		score += 0.1
	}
	switch f.origin {
	case fromTool:
		score += 0.15
	case fromContext:
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

// best gives the numbers of the facts with the highest scores, at most n, none of which says what another says already.
func (r ranking) best(scores []float64, n int) []int {
	order := make([]int, len(r.facts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case scores[a] > scores[b]:
			return -1
		case scores[a] < scores[b]:
			return 1
		}
		return 0
	})
	var chosen []int
	for _, i := range order {
		if len(chosen) == n {
			break
		}
		if !slices.ContainsFunc(chosen, func(j int) bool { return alike(r.facts[i], r.facts[j]) }) {
			chosen = append(chosen, i)
		}
	}
	return chosen
}

// alike tells whether two facts share more than half of their words.
func alike(a, b sentence) bool {
	in := map[string]bool{}
	for _, w := range a.words {
		in[w] = true
	}
	either := len(in)
	both := 0
	counted := map[string]bool{}
	for _, w := range b.words {
		if counted[w] {
			continue
		}
		counted[w] = true
		if in[w] {
			both++
		} else {
			either++
		}
	}
	return 2*both > either
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
	case prose:
		return strings.Join(texts, " ")
	}
	return "- " + strings.Join(texts, "\n- ")
}

var (
	amount  = regexp.MustCompile(`(?i)\b(one|two|three|four|five|six|seven|eight|nine|ten|a|an|single|\d{1,2})(?:\s*(?:-|–|to|or)\s*(\w+))?\s+(?:[\w-]+\s+){0,2}?(bullets?|bullet points?|points?|sentences?|items?|facts?|findings?|lines?|paragraphs?)\b`)
	numbers = map[string]int{"a": 1, "an": 1, "single": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
)

// size reads from what is expected how many sentences to give, and whether as prose. Unless it says, it is about a third of
// the facts, three to eight.
func (p prompt) size(facts int) (n int, prose bool) {
	n = min(8, max(3, (facts+2)/3))
	m := amount.FindStringSubmatch(p.expected)
	if m == nil {
		return n, false
	}
	count := number(m[1])
	if upper := number(m[2]); upper > count {
		count = upper
	}
	what := strings.ToLower(m[3])
	switch {
	case strings.HasPrefix(what, "paragraph"):
		return min(12, max(3, 4*count)), true
	case strings.HasPrefix(what, "sentence"):
		return min(12, max(1, count)), true
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
