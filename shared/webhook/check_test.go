package webhook_test

import (
	"slices"
	"strings"
	"testing"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/webhook"
)

func TestCheckEndpoint(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*webhook.Endpoint)
		err    string // a part of the sentence
	}{
		{name: "a usual one", change: func(*webhook.Endpoint) {}},
		{name: "everything in staging for a chat", change: func(e *webhook.Endpoint) {
			e.Environment, e.Format, e.Events, e.MaxRPS = "staging", "slack", []string{"*", "order.shipped"}, 1000
		}},
		{name: "no name", change: func(e *webhook.Endpoint) { e.Name = "" }, err: `"name"`},
		{name: "a name of blanks", change: func(e *webhook.Endpoint) { e.Name = " \u00a0" }, err: `"name"`},
		{name: "a long host for a name", change: func(e *webhook.Endpoint) { e.Name = webhook.NameOf(strings.Repeat("ü", 253)) }},
		{name: "a long name", change: func(e *webhook.Endpoint) { e.Name = strings.Repeat("ü", 101) }, err: `"name"`},
		{name: "a name with a line end", change: func(e *webhook.Endpoint) { e.Name = "a\nb" }, err: `"name"`},
		{name: "a long URL", change: func(e *webhook.Endpoint) { e.URL = "https://example.com/" + strings.Repeat("x", 2048) }, err: `"url"`},
		{name: "another environment", change: func(e *webhook.Endpoint) { e.Environment = "test" }, err: `no environment "test"`},
		{name: "no events", change: func(e *webhook.Endpoint) { e.Events = nil }, err: `"events"`},
		{name: "too many events", change: func(e *webhook.Endpoint) { e.Events = slices.Repeat([]string{"*"}, 101) }, err: `"events"`},
		{name: "an event that is a slip", change: func(e *webhook.Endpoint) { e.Events = []string{"run.suceeded"} }, err: `did you mean run.succeeded?`},
		{name: "another format", change: func(e *webhook.Endpoint) { e.Format = "teams" }, err: `there are crewship, amp-stream, slack, discord`},
		{name: "a rate below nothing", change: func(e *webhook.Endpoint) { e.MaxRPS = -1 }, err: `"max_rps"`},
		{name: "a rate that is none", change: func(e *webhook.Endpoint) { e.MaxRPS = 1001 }, err: `"max_rps"`},
		{name: "too many headers", change: func(e *webhook.Endpoint) {
			e.Headers = map[string]string{}
			for range 21 {
				e.Headers[id.New()] = "sealed"
			}
		}, err: "at most 20 headers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := endpoint(id.New())
			c.change(&e)
			err := e.Check()
			if (c.err == "") != (err == nil) || err != nil && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%v, want %q", err, c.err)
			}
		})
	}
}

func TestCheckHeader(t *testing.T) {
	for _, c := range []struct{ name, value, canonical, err string }{
		{name: "authorization", value: "Bearer abc", canonical: "Authorization"},
		{name: "X-API-KEY", value: "", canonical: "X-Api-Key"},
		{name: "user-agent", value: "mine/1", canonical: "User-Agent"},
		{name: "x-crewship-signature", err: "begin with X-Crewship-"},
		{name: "X-CREWSHIP-Anything", err: "begin with X-Crewship-"},
		{name: "x_crewship_signature", err: "begin with X-Crewship-"},
		{name: "webhook_id", err: "begin with Webhook-"},
		{name: "Content_Length", err: "Content-Length is set by Muster"},
		{name: "X_Mine", value: "abc", canonical: "X_mine"},
		{name: "WEBHOOK-ID", err: "begin with Webhook-"},
		{name: "proxy-authorization", err: "begin with Proxy-"},
		{name: "HOST", err: "Host is set by Muster"},
		{name: "content-length", err: "is set by Muster"},
		{name: "content-Type", err: "is set by Muster"},
		{name: "transfer-encoding", err: "is set by Muster"},
		{name: "Connection", err: "is set by Muster"},
		{name: "idempotency-key", err: "is set by Muster"},
		{name: "x-idempotency-key", err: "is set by Muster"},
		{name: "te", err: "is set by Muster"},
		{name: "HTTP2-Settings", err: "is set by Muster"},
		{name: "accept-encoding", err: "is set by Muster"},
		{name: "", err: "no name of a header"},
		{name: "a b", err: "no name of a header"},
		{name: "a:b", err: "no name of a header"},
		{name: "a\r\nb", err: "no name of a header"},
		{name: "ü", err: "no name of a header"},
		{name: strings.Repeat("a", 101), err: "no name of a header"},
		{name: "x-a", value: "hidden\r\nX-B: c", err: "no line ends"},
		{name: "x-a", value: "hidden\x00", err: "no line ends"},
		{name: "x-a", value: "hidden\u00fc", err: "ASCII"},
		{name: "x-a", value: "hidden ", err: "no blanks around it"},
		{name: "x-a", value: strings.Repeat("a", 4097), err: "4096"},
	} {
		t.Run(c.name+" "+c.err, func(t *testing.T) {
			canonical, err := webhook.CheckHeader(c.name, c.value)
			if canonical != c.canonical || (c.err == "") != (err == nil) || err != nil && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%q, %v, want %q, %q", canonical, err, c.canonical, c.err)
			}
			if err != nil && strings.Contains(err.Error(), "hidden") {
				t.Errorf("the error shows the value: %v", err)
			}
		})
	}
}
