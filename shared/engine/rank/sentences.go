package rank

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Sentences cuts a text into its sentences, in order. A line of a list, a table, a log or a form is a sentence of its own;
// prose that is wrapped over lines is put together again with single spaces. Nothing else is changed: each sentence stands
// in the text, but for the marks of lists, headings and quotes at its beginning, which are left out.
func Sentences(text string) []string {
	var sentences []string
	for _, line := range unwrap(text) {
		for _, s := range split(line) {
			if strings.IndexFunc(s, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) >= 0 {
				sentences = append(sentences, s)
			}
		}
	}
	return sentences
}

// wrapWidth is the number of bytes from which on a line without an end is taken to go on in the next.
const wrapWidth = 60

var (
	mark  = regexp.MustCompile(`^(?:[-*•–]\s+|#{1,6}\s+|>\s*|\d{1,3}[.)]\s+|\[[ xX]\]\s+)+`)
	label = regexp.MustCompile(`^[\p{L}][\p{L}\d _/-]{0,30}:(?:\s|$)`)
	clock = regexp.MustCompile(`\b\d{1,2}:\d{2}(?::\d{2})?\b`)
	rule  = regexp.MustCompile(`^[\s|:=*_-]+$`)
)

// unwrap gives the lines of a text, without marks, wrapped prose joined.
func unwrap(text string) []string {
	var (
		lines []string
		open  bool // the last line may go on
	)
	for raw := range strings.Lines(text) {
		line := strings.TrimSpace(raw)
		if line == "" || rule.MatchString(line) {
			open = false
			continue
		}
		bare := mark.ReplaceAllString(line, "")
		first, _ := utf8.DecodeRuneInString(line)
		goesOn := open && bare == line && (unicode.IsLetter(first) || first == '(') && !label.MatchString(line) &&
			!(clock.MatchString(line) && clock.MatchString(lines[len(lines)-1]))
		if goesOn {
			lines[len(lines)-1] += " " + line
		} else if bare != "" {
			lines = append(lines, bare)
		}
		open = bare != "" && len(line) >= wrapWidth && !strings.ContainsRune(".!?:;|", rune(line[len(line)-1])) && !strings.HasPrefix(line, "#")
	}
	return lines
}

// split cuts a line after each end of a sentence.
func split(line string) []string {
	var (
		parts []string
		start int
	)
	for i, r := range line {
		after := i + utf8.RuneLen(r)
		switch r {
		case '。', '！', '？':
		case '.', '!', '?':
			// Closing quotes and brackets belong to the sentence before.
			for after < len(line) && strings.ContainsRune(`"')]*_`, rune(line[after])) {
				after++
			}
			if !ends(line, i, after) {
				continue
			}
		default:
			continue
		}
		if after > start {
			parts = append(parts, strings.TrimSpace(line[start:after]))
			start = after
		}
	}
	if rest := strings.TrimSpace(line[start:]); rest != "" {
		parts = append(parts, rest)
	}
	return parts
}

// ends tells whether the mark at i, with what closes behind it up to after, ends a sentence.
func ends(line string, i, after int) bool {
	if after >= len(line) {
		return true
	}
	if line[after] != ' ' {
		return false
	}
	next, _ := utf8.DecodeRuneInString(strings.TrimLeft(line[after:], ` "'([*_`))
	if unicode.IsLower(next) {
		return false
	}
	if line[i] != '.' {
		return true
	}
	word := line[strings.LastIndexByte(line[:i], ' ')+1 : i]
	word = strings.TrimLeft(word, `"'([*_`)
	short := utf8.RuneCountInString(word) == 1 && unicode.IsLetter([]rune(word)[0]) // an initial
	return !short && !abbreviations[strings.ToLower(word)]
}

var abbreviations = map[string]bool{"e.g": true, "i.e": true, "mr": true, "mrs": true, "ms": true, "dr": true, "prof": true, "st": true,
	"vs": true, "approx": true, "no": true, "nr": true, "fig": true, "cf": true, "u.s": true, "a.m": true, "p.m": true, "jr": true}
