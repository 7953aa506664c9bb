package engine

import (
	"regexp"
	"strings"
)

// move is what a model without tool calling decided: to use a tool, to answer, or something that cannot be read.
type move struct {
	thought string
	// tool and input are the action; answer is the final answer when there is no action.
	tool, input, answer string
	// problem says what is missing in an action that cannot be read, "" when nothing is.
	problem string
}

const (
	finalMarker       = "Final Answer:"
	observationMarker = "Observation:"
)

var (
	actionLine = regexp.MustCompile(`(?mi)^[ \t*#>-]*action[ \t]*\d*[ \t]*:[ \t*]*(.*)$`)
	inputLine  = regexp.MustCompile(`(?mi)^[ \t*#>-]*action[ \t]*\d*[ \t]*input[ \t]*\d*[ \t]*:[ \t*]*`)
)

// parseMove reads an answer of the text loop. The text after the last "Final Answer:" wins over everything else; without
// any marker the whole text is the final answer, because that is what models mean that forget the form.
func parseMove(text string) move {
	if i := strings.LastIndex(text, finalMarker); i >= 0 {
		answer := strings.TrimSpace(strings.TrimPrefix(text[i+len(finalMarker):], "**"))
		return move{thought: thoughtOf(text[:i]), answer: trimOddFence(answer)}
	}
	// What follows is the model's own dream of the tool's result.
	if i := strings.Index(text, "\n"+observationMarker); i >= 0 {
		text = text[:i]
	}
	action := actionLine.FindStringSubmatchIndex(text)
	if action == nil {
		return move{thought: thoughtOf(text), answer: answerWithoutMarker(text)}
	}
	m := move{thought: thoughtOf(text[:action[0]]), tool: strings.Trim(text[action[2]:action[3]], " \t\r`'\"*")}
	rest := text[action[1]:]
	input := inputLine.FindStringIndex(rest)
	switch {
	case m.tool == "":
		m.problem = "the line \"Action:\" names no tool"
	case input == nil:
		m.problem = "there is a line \"Action:\" but no line \"Action Input:\" after it"
	default:
		m.input = unfenced(rest[input[1]:])
	}
	return m
}

func thoughtOf(text string) string {
	text = strings.TrimRight(strings.TrimSpace(text), "*# \t\n")
	text = strings.TrimSpace(strings.TrimPrefix(strings.TrimLeft(text, "*"), "Thought:"))
	return strings.TrimSpace(strings.TrimPrefix(text, "**"))
}

func answerWithoutMarker(text string) string {
	text = strings.TrimSpace(text)
	if rest, ok := strings.CutPrefix(text, "Thought:"); ok && strings.TrimSpace(rest) != "" {
		return strings.TrimSpace(rest)
	}
	return text
}

// trimOddFence removes a code fence that closes and was never opened.
func trimOddFence(text string) string {
	if strings.Count(text, "```")%2 == 1 && strings.HasSuffix(text, "```") {
		return strings.TrimSpace(strings.TrimSuffix(text, "```"))
	}
	return text
}

// unfenced gives the inside of text that is one code block, or the text.
func unfenced(text string) string {
	text = strings.TrimSpace(text)
	inside, ok := strings.CutPrefix(text, "```")
	if !ok {
		return text
	}
	if line, rest, ok := strings.Cut(inside, "\n"); ok && !strings.ContainsAny(line, "{[\"") {
		inside = rest // the name of the language
	}
	inside, _, _ = strings.Cut(inside, "```")
	return strings.TrimSpace(inside)
}
