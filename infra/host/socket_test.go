package host_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/coder/websocket"

	"muster/infra/host"
	"muster/shared/channel"
)

// front is a host whose function answers as told, and notes its events.
func front(t *testing.T, status func(events.APIGatewayWebsocketProxyRequest) int) (s *host.Sockets, url string, heard chan events.APIGatewayWebsocketProxyRequest) {
	t.Helper()
	s, heard = &host.Sockets{}, make(chan events.APIGatewayWebsocketProxyRequest, 100)
	h := &host.Host{Sockets: s, Invoke: func(_ context.Context, function string, raw []byte) ([]byte, error) {
		var e events.APIGatewayWebsocketProxyRequest
		if err := json.Unmarshal(raw, &e); err != nil || function != "socket" {
			t.Errorf("%s was invoked with %s", function, raw)
		}
		heard <- e
		return json.Marshal(events.APIGatewayProxyResponse{StatusCode: status(e)})
	}}
	server := httptest.NewServer(h.HTTP())
	t.Cleanup(server.Close)
	return s, strings.Replace(server.URL, "http", "ws", 1) + "/ws", heard
}

func fine(events.APIGatewayWebsocketProxyRequest) int { return http.StatusOK }

func TestAConnectionIsHeardAndTold(t *testing.T) {
	s, url, heard := front(t, fine)
	c, _, err := websocket.Dial(t.Context(), url+"?token=x&token=y", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://page.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	e := <-heard
	id := e.RequestContext.ConnectionID
	if e.RequestContext.EventType != "CONNECT" || e.RequestContext.RouteKey != "$connect" || e.QueryStringParameters["token"] != "y" || e.Headers["Origin"] != "https://page.example" || e.Headers["Host"] == "" {
		t.Errorf("it was opened by %+v", e)
	}
	if err := c.Write(t.Context(), websocket.MessageText, []byte(`{"type":"ping"}`)); err != nil {
		t.Fatal(err)
	}
	if e = <-heard; e.RequestContext.EventType != "MESSAGE" || e.RequestContext.ConnectionID != id || e.Body != `{"type":"ping"}` {
		t.Errorf("a message came as %+v", e)
	}
	if err := s.Push(t.Context(), id, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context(), id, []byte("last")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "last"} {
		if _, got, err := c.Read(t.Context()); err != nil || string(got) != want {
			t.Errorf("it was told %q, %v, want %q", got, err, want)
		}
	}
	if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("it ended with %v", err)
	}
	if e = <-heard; e.RequestContext.EventType != "DISCONNECT" || e.RequestContext.ConnectionID != id {
		t.Errorf("its end came as %+v", e)
	}
	if err := s.Push(t.Context(), id, []byte("two")); !errors.Is(err, channel.ErrGone) {
		t.Errorf("after that a push gives %v", err)
	}
	if err := s.Close(t.Context(), id, nil); err != nil {
		t.Errorf("closing what is gone: %v", err)
	}
}

func TestARefusedConnectionIsNotOpened(t *testing.T) {
	_, url, _ := front(t, func(events.APIGatewayWebsocketProxyRequest) int { return http.StatusForbidden })
	if _, answer, err := websocket.Dial(t.Context(), url, nil); err == nil || answer.StatusCode != http.StatusForbidden {
		t.Errorf("it was answered %v, %v", answer, err)
	}
}

func TestWhoTakesNothingIsSlow(t *testing.T) {
	s, url, heard := front(t, fine)
	s.SetSlack(time.Millisecond)
	c, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	id := (<-heard).RequestContext.ConnectionID
	message, pushed := bytes.Repeat([]byte("x"), 100<<10), 0
	for err = s.Push(t.Context(), id, message); err == nil; err = s.Push(t.Context(), id, message) {
		pushed++
	}
	if !errors.Is(err, channel.ErrSlow) {
		t.Fatalf("after %d messages a push gives %v", pushed, err)
	}
	if err := s.Close(t.Context(), id, []byte("too slow")); err != nil {
		t.Fatal(err)
	}
	for ; ; pushed-- {
		_, got, err := c.Read(t.Context())
		if err != nil {
			t.Fatalf("it was never told why it ends: %v", err)
		}
		if string(got) == "too slow" {
			break
		}
	}
	if pushed != 0 {
		t.Errorf("%d messages that were taken are lost", pushed)
	}
}
