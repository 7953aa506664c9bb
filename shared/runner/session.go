package runner

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/run"
)

// What an agent that does a run alone is told of its session: the exchanges that the request remembers, the newest ones
// first while there is room for them, and long texts without their middle.
const (
	mostOfSession = 32 << 10 // bytes in all
	mostOfText    = 4 << 10  // bytes of a message, or of an answer
)

// single gives the definition of a run that one agent does.
func single(d crew.Definition, q run.Request) (crew.Definition, error) {
	message, _ := q.Inputs[run.Message].(string)
	d, err := d.Single(q.Agent, message, session(q.Earlier))
	if err != nil {
		return d, &impossible{fault.Message(err)}
	}
	return d, nil
}

// impossible says why a run cannot be done at all.
type impossible struct{ why string }

func (i *impossible) Error() string { return i.why }

// session writes earlier turns, which come newest first, in their order; "" for none.
func session(earlier []run.Turn) string {
	var exchanges []string
	left := mostOfSession
	for _, t := range earlier {
		asked, _ := t.Values[run.Message].(string)
		answered, _ := t.Values[run.Output].(string)
		one := "It came:\n" + middleless(asked) + "\nYou answered:\n" + middleless(answered)
		if left -= len(one); left < 0 {
			break
		}
		exchanges = append(exchanges, one)
	}
	if len(exchanges) == 0 {
		return ""
	}
	slices.Reverse(exchanges)
	return "Earlier in this session, the oldest first:\n\n" + strings.Join(exchanges, "\n\n")
}

// middleless leaves out the middle of a long text, and says so.
func middleless(s string) string {
	if len(s) <= mostOfText {
		return s
	}
	head, tail := mostOfText/2, len(s)-mostOfText/2
	for !utf8.RuneStart(s[head]) {
		head--
	}
	for !utf8.RuneStart(s[tail]) {
		tail++
	}
	return s[:head] + fmt.Sprintf(" [%d bytes left out] ", tail-head) + s[tail:]
}
