package trigger

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"muster/shared/fault"
)

// Payload is the body of a request to an agent's trigger: the event that it tells of, where it came from, and everything else.
type Payload struct {
	Event, Source string
	// Message is what the agent reads.
	Message string
}

// ErrNotJSON says that the body of a request to an agent's trigger cannot be read.
var ErrNotJSON = fault.New(fault.Invalid, "invalid JSON")

// ReadPayload reads the body of a request to an agent's trigger. Its message is the four lines that callers of Crewship know,
//
//	Webhook event received:
//	Event: pull_request.opened
//	Source: github
//	Data: {repository: org/repo, pr_number: 42}
//
// without those for which there is nothing, and with one more for each further key. Values stand in the order in which they
// came, nothing is left out, and strings are bare; a line break in one is written as \n, so that no string can pass for a
// line. A body that is no object is the data; an empty one is an event without any.
func ReadPayload(body []byte) (Payload, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return Payload{Message: heading}, nil
	}
	if !utf8.Valid(body) || !json.Valid(body) {
		return Payload{}, ErrNotJSON
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	first, err := d.Token()
	if err != nil {
		return Payload{}, ErrNotJSON
	}
	lines := map[string]string{}
	var order []string
	if first != json.Delim('{') {
		lines["data"], order = flat(d, first), []string{"data"}
	} else {
		for d.More() {
			key, _ := d.Token()
			value, _ := d.Token()
			name := oneLine(key.(string))
			if _, repeated := lines[name]; !repeated {
				order = append(order, name)
			}
			lines[name] = flat(d, value)
		}
	}
	p := Payload{Event: lines["event"], Source: lines["source"]}
	var b strings.Builder
	b.WriteString(heading)
	for _, known := range []struct{ key, label string }{{"event", "Event"}, {"source", "Source"}, {"data", "Data"}} {
		if value, ok := lines[known.key]; ok {
			b.WriteString("\n" + known.label + ": " + value)
			delete(lines, known.key)
		}
	}
	for _, key := range order {
		if value, ok := lines[key]; ok {
			b.WriteString("\n" + key + ": " + value)
		}
	}
	p.Message = b.String()
	return p, nil
}

const heading = "Webhook event received:"

// flat writes the value that begins with token, as ReadPayload says. What follows in d is valid JSON.
func flat(d *json.Decoder, token json.Token) string {
	var b strings.Builder
	// open holds, for each object or array that is under way, its closing delimiter and whether it has a member.
	type level struct {
		end    byte
		filled bool
	}
	var open []level
	for {
		switch v := token.(type) {
		case json.Delim:
			switch v {
			case '{', '[':
				b.WriteByte(byte(v))
				open = append(open, level{end: byte(v) + 2})
			default:
				b.WriteByte(byte(v))
				open = open[:len(open)-1]
			}
		case string:
			b.WriteString(oneLine(v))
		case json.Number:
			b.WriteString(v.String())
		case bool:
			b.WriteString(map[bool]string{true: "true", false: "false"}[v])
		case nil:
			b.WriteString("null")
		}
		if len(open) == 0 {
			return b.String()
		}
		top := &open[len(open)-1]
		if d.More() {
			if top.filled {
				b.WriteString(", ")
			}
			top.filled = true
			if top.end == '}' {
				key, _ := d.Token()
				b.WriteString(oneLine(key.(string)) + ": ")
			}
		}
		token, _ = d.Token()
	}
}

// oneLine keeps a string from ending its line.
func oneLine(s string) string {
	return breaks.Replace(strings.ToValidUTF8(s, "\ufffd"))
}

var breaks = strings.NewReplacer("\r\n", `\n`, "\n", `\n`, "\r", `\n`, "\u2028", `\n`, "\u2029", `\n`, "\v", `\n`, "\f", `\n`, "\u0085", `\n`)
