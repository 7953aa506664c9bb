// Package rank finds what matters in text without a model: it cuts text into sentences and words, and ranks pieces of text
// by the words they share with a question (Okapi BM25). Everything is deterministic and made for English; other languages
// work by their bare words. The search in knowledge and the offline model stand on it.
package rank

import "math"

// The usual constants of BM25: how soon a repeated word stops to count, and how much the length of a document matters.
const (
	saturation = 1.2
	lengthBias = 0.75
)

// Index ranks a fixed list of documents.
type Index struct {
	counts []map[string]int
	length []int
	mean   float64
	in     map[string]int
}

// New makes an index of documents.
func New(documents []string) *Index {
	x := &Index{in: map[string]int{}}
	total := 0
	for _, d := range documents {
		words := Words(d)
		counts := make(map[string]int, len(words))
		for _, w := range words {
			counts[w]++
		}
		for w := range counts {
			x.in[w]++
		}
		x.counts = append(x.counts, counts)
		x.length = append(x.length, len(words))
		total += len(words)
	}
	x.mean = math.Max(1, float64(total)/math.Max(1, float64(len(documents))))
	return x
}

// Weight says how telling a word is: the fewer documents have it, the more.
func (x *Index) Weight(word string) float64 {
	n := float64(x.in[word])
	return math.Log(1 + (float64(len(x.counts))-n+0.5)/(n+0.5))
}

// Score rates every document by the words of a question; 0 is a document with none of them.
func (x *Index) Score(question []string) []float64 {
	scores := make([]float64, len(x.counts))
	for _, w := range unique(question) {
		if x.in[w] == 0 {
			continue
		}
		weight := x.Weight(w)
		for i, counts := range x.counts {
			f := float64(counts[w])
			norm := saturation * (1 - lengthBias + lengthBias*float64(x.length[i])/x.mean)
			scores[i] += weight * f * (saturation + 1) / (f + norm)
		}
	}
	return scores
}

func unique(words []string) []string {
	seen := make(map[string]bool, len(words))
	var once []string
	for _, w := range words {
		if !seen[w] {
			seen[w] = true
			once = append(once, w)
		}
	}
	return once
}
