package engine

import (
	"strings"
	"unicode/utf8"
)

// summaryLength is the most bytes of a task's summary.
const summaryLength = 500

// summaryOf is the last paragraph of an output: where the conclusion is. What stands below the last heading of that
// paragraph counts alone, and a long one is cut after a sentence, or else between words.
func summaryOf(raw string) string {
	text := strings.TrimSpace(strings.ReplaceAll(raw, "\r\n", "\n"))
	if i := strings.LastIndex(text, "\n\n"); i >= 0 {
		text = strings.TrimSpace(text[i:])
	}
	lines := strings.Split(text, "\n")
	for i := len(lines) - 2; i >= 0; i-- {
		line := strings.Trim(lines[i], " \t*_")
		if strings.HasSuffix(line, ":") || strings.HasPrefix(line, "#") {
			lines = lines[i+1:]
			break
		}
	}
	return shorten(strings.TrimSpace(strings.Join(lines, "\n")), summaryLength)
}

// shorten cuts text to at most limit bytes.
func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	const ellipsis = "…"
	cut := limit - len(ellipsis)
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	text = text[:cut]
	end := -1
	for _, mark := range []string{". ", "! ", "? ", ".\n"} {
		end = max(end, strings.LastIndex(text, mark))
	}
	if end >= cut/2 {
		return text[:end+1]
	}
	if i := strings.LastIndexAny(text, " \n"); i >= cut/2 {
		text = text[:i]
	}
	return strings.TrimRight(text, " \n,;:") + ellipsis
}
