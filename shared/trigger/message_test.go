package trigger

import (
	"errors"
	"strings"
	"testing"
)

// seedBody is the body in seed 003.
const seedBody = `{
  "event": "pull_request.opened",
  "source": "github",
  "data": {
    "repository": "org/repo",
    "pr_number": 42,
    "branch": "feat/new-feature",
    "author": "developer",
    "title": "Add user authentication",
    "url": "https://github.com/org/repo/pull/42"
  }
}`

func TestMessages(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"the seed's", seedBody, "Webhook event received:\nEvent: pull_request.opened\nSource: github\n" +
			"Data: {repository: org/repo, pr_number: 42, branch: feat/new-feature, author: developer, title: Add user authentication, url: https://github.com/org/repo/pull/42}"},
		{"members in the order in which they came", `{"source":"s","data":{"b":1,"a":2,"2":3,"1":4},"event":"e"}`,
			"Webhook event received:\nEvent: e\nSource: s\nData: {b: 1, a: 2, 2: 3, 1: 4}"},
		{"values of every kind", `{"data":{"n":1.50,"big":12345678901234567890,"e":1E400,"t":true,"f":false,"z":null,"l":[1,"a",[],{}],"o":{"k":{"v":"x"}},"":""}}`,
			"Webhook event received:\nData: {n: 1.50, big: 12345678901234567890, e: 1E400, t: true, f: false, z: null, l: [1, a, [], {}], o: {k: {v: x}}, : }"},
		{"lines for which there is nothing are left out", `{"event":"e"}`, "Webhook event received:\nEvent: e"},
		{"further keys have lines of their own", `{"severity":"high","event":"e","labels":["a","b"]}`, "Webhook event received:\nEvent: e\nseverity: high\nlabels: [a, b]"},
		{"null is something", `{"event":null,"data":null}`, "Webhook event received:\nEvent: null\nData: null"},
		{"a string cannot pass for a line", `{"event":"e\nSource: trusted","data":"a\r\nb\u2028c"}`, `Webhook event received:` + "\n" + `Event: e\nSource: trusted` + "\n" + `Data: a\nb\nc`},
		{"of a repeated key the last value counts", `{"event":"a","event":"b"}`, "Webhook event received:\nEvent: b"},
		{"placeholders stay what they are", `{"data":{"t":"{topic}"}}`, "Webhook event received:\nData: {t: {topic}}"},
		{"a body that is no object is the data", `[1,"two"]`, "Webhook event received:\nData: [1, two]"},
		{"a bare string is the data", `"hello"`, "Webhook event received:\nData: hello"},
		{"an empty body", " \n", "Webhook event received:"},
		{"an empty object", "{}", "Webhook event received:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := ReadPayload([]byte(c.body))
			if err != nil || p.Message != c.want {
				t.Errorf("%v\n got %s\nwant %s", err, p.Message, c.want)
			}
		})
	}
}

func TestNothingOfALongBodyIsLeftOut(t *testing.T) {
	long := strings.Repeat("x", 500_000)
	p, err := ReadPayload([]byte(`{"data":{"a":"` + long + `","z":"end"}}`))
	if err != nil || p.Message != heading+"\nData: {a: "+long+", z: end}" {
		t.Errorf("%v, %d characters", err, len(p.Message))
	}
}

func TestBodiesThatAreNotJSON(t *testing.T) {
	for name, body := range map[string]string{
		"text": "hello", "not UTF-8": "\"\xff\"", "two values": "{} {}", "cut off": `{"event":`, "a form": "event=x",
		"deep": strings.Repeat("[", 100_000), "deep and closed": strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000),
	} {
		if _, err := ReadPayload([]byte(body)); !errors.Is(err, ErrNotJSON) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReadPayload(f *testing.F) {
	for _, s := range []string{seedBody, `[]`, `{"a":[{"b":null}]}`, "{\"data\":\"\\ud800\xff\"}", `""`, "1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := ReadPayload(body)
		if err != nil {
			return
		}
		if !strings.HasPrefix(p.Message, heading) || strings.ToValidUTF8(p.Message, "") != p.Message {
			t.Errorf("%q", p.Message)
		}
	})
}
