package rank

import (
	"strings"
	"unicode"
)

// Words gives the words of a text that carry meaning, in order, in a form in which "Prices", "priced" and "price" are one.
func Words(text string) []string {
	var words []string
	for _, raw := range RawWords(text) {
		if w := Normal(raw); w != "" {
			words = append(words, w)
		}
	}
	return words
}

// RawWords gives every word of a text as it is written. A letter of a script without spaces is a word of its own.
func RawWords(text string) []string {
	var (
		words []string
		start = -1
	)
	end := func(i int) {
		if start >= 0 {
			words = append(words, strings.Trim(text[start:i], "'’"))
			start = -1
		}
	}
	for i, r := range text {
		switch {
		case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai):
			end(i)
			words = append(words, string(r))
		case unicode.IsLetter(r), unicode.IsDigit(r), unicode.IsMark(r), r == '\'', r == '’':
			if start < 0 {
				start = i
			}
		default:
			end(i)
		}
	}
	end(len(text))
	return words
}

// Normal gives the form of a word that it shares with its relatives, "" for a word without a meaning of its own.
func Normal(word string) string {
	w := strings.ToLower(word)
	w = strings.TrimSuffix(strings.TrimSuffix(w, "'s"), "’s")
	if w == "" || stop[w] {
		return ""
	}
	for _, r := range w {
		if r > unicode.MaxASCII || unicode.IsDigit(r) {
			return w
		}
	}
	return stem(w)
}

// stem cuts the commonest English endings. It is crude on purpose: relatives only have to end up alike.
func stem(w string) string {
	switch {
	case strings.HasSuffix(w, "ies") && len(w) > 4:
		w = w[:len(w)-3] + "y"
	case strings.HasSuffix(w, "s") && len(w) > 3 && !strings.HasSuffix(w, "ss") && !strings.HasSuffix(w, "us") && !strings.HasSuffix(w, "is"):
		w = w[:len(w)-1]
	}
	for _, ending := range []string{"ing", "ed", "ly"} {
		if strings.HasSuffix(w, ending) && len(w) >= len(ending)+4 {
			w = w[:len(w)-len(ending)]
			if n := len(w); w[n-1] == w[n-2] && !strings.ContainsRune("lsz", rune(w[n-1])) {
				w = w[:n-1] // planned, plan
			}
			break
		}
	}
	if len(w) > 4 {
		w = strings.TrimSuffix(w, "e")
	}
	return w
}

var stop = func() map[string]bool {
	words := map[string]bool{}
	for _, w := range strings.Fields(`a about above after again against all also am an and any are aren't as at be because been before
		being below between both but by can can't cannot could couldn't did didn't do does doesn't doing don't down during each etc
		few for from further had hadn't has hasn't have haven't having he her here hers herself him himself his how however i i'd
		i'll i'm i've if in into is isn't it it's its itself just let's me more most must my myself no nor not now of off on once
		only or other our ours ourselves out over own per please same shall she should shouldn't so some such than that that's the
		their theirs them themselves then there there's these they they're this those through thus to too under until up upon us
		very via was wasn't we we're we've were weren't what when where whether which while who whom whose why will with within
		without won't would wouldn't yes yet you you're you've your yours yourself yourselves`) {
		words[w] = true
	}
	return words
}()
