package invoke_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"muster/shared/invoke"
)

// heard is an invoke.Sockets that notes what it is told.
type heard struct {
	said string
	fail func() error
}

func (h *heard) Connect(_ context.Context, connectionID string, r *http.Request) (int, error) {
	h.said = "connect " + connectionID + " " + r.Host + " " + r.Header.Get("Origin") + " " + r.URL.Query().Get("token")
	return http.StatusForbidden, h.fail()
}

func (h *heard) Receive(_ context.Context, connectionID string, message []byte) error {
	h.said = "message " + connectionID + " " + string(message)
	return h.fail()
}

func (h *heard) Disconnect(_ context.Context, connectionID string) error {
	h.said = "disconnect " + connectionID
	return h.fail()
}

func TestEventsOfConnections(t *testing.T) {
	none := func() error { return nil }
	for _, c := range []struct {
		name, event  string
		fail         func() error
		said, answer string
		fails        bool
	}{
		{"a connection is opened, and refused", `{"headers":{"Host":"h","Origin":"https://o"},"queryStringParameters":{"token":"t"},"requestContext":{"eventType":"CONNECT","connectionId":"c"}}`,
			none, "connect c h https://o t", `{"statusCode":403,"headers":null,"multiValueHeaders":null,"body":""}`, false},
		{"headers come many at a time", `{"multiValueHeaders":{"Host":["h"],"Origin":["https://o"]},"multiValueQueryStringParameters":{"token":["t"]},"requestContext":{"eventType":"CONNECT","connectionId":"c"}}`,
			none, "connect c h https://o t", `{"statusCode":403,"headers":null,"multiValueHeaders":null,"body":""}`, false},
		{"a message", `{"body":"hello","requestContext":{"eventType":"MESSAGE","connectionId":"c"}}`, none, "message c hello", `{"statusCode":200,"headers":null,"multiValueHeaders":null,"body":""}`, false},
		{"a message that is no text", `{"body":"aGVsbG8=","isBase64Encoded":true,"requestContext":{"eventType":"MESSAGE","connectionId":"c"}}`, none, "message c hello", `{"statusCode":200,"headers":null,"multiValueHeaders":null,"body":""}`, false},
		{"a message that is not what it says", `{"body":"?","isBase64Encoded":true,"requestContext":{"eventType":"MESSAGE","connectionId":"c"}}`, none, "", "", true},
		{"the end", `{"requestContext":{"eventType":"DISCONNECT","connectionId":"c"}}`, none, "disconnect c", `{"statusCode":200,"headers":null,"multiValueHeaders":null,"body":""}`, false},
		{"a failure", `{"requestContext":{"eventType":"DISCONNECT","connectionId":"c"}}`, func() error { return errors.New("no") }, "disconnect c", "", true},
		{"a panic", `{"requestContext":{"eventType":"DISCONNECT","connectionId":"c"}}`, func() error { panic("no") }, "disconnect c", "", true},
		{"another event", `{"requestContext":{"eventType":"PING","connectionId":"c"}}`, none, "", "", true},
		{"an event without a connection", `{"requestContext":{"eventType":"MESSAGE"}}`, none, "", "", true},
		{"no event", `[]`, none, "", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &heard{fail: c.fail}
			answer, err := invoke.Socket(h).Invoke(t.Context(), []byte(c.event))
			if h.said != c.said || (err != nil) != c.fails || string(answer) != c.answer {
				t.Errorf("it heard %q and answered %s, %v", h.said, answer, err)
			}
		})
	}
}
