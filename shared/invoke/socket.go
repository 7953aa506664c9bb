package invoke

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
)

// Sockets is told what happens on connections of a WebSocket API.
type Sockets interface {
	// Connect is asked whether a connection may be opened; a status of 200 lets it in.
	Connect(ctx context.Context, connectionID string, r *http.Request) (status int, err error)
	// Receive is given each message.
	Receive(ctx context.Context, connectionID string, message []byte) error
	// Disconnect is told that a connection is over, as far as the gateway knows.
	Disconnect(ctx context.Context, connectionID string) error
}

// Socket answers the events of a WebSocket API of API Gateway. An error of the handler refuses a connection, and on a message
// counts as an error of the Lambda function.
func Socket(s Sockets) lambda.Handler { return socketHandler{s} }

type socketHandler struct{ sockets Sockets }

// Invoke implements lambda.Handler.
func (s socketHandler) Invoke(ctx context.Context, payload []byte) (_ []byte, err error) {
	var e events.APIGatewayWebsocketProxyRequest
	if err := decode(payload, &e, "an event of a WebSocket API"); err != nil {
		return nil, err
	}
	connectionID := e.RequestContext.ConnectionID
	if connectionID == "" {
		return nil, errors.New("the event is none of a WebSocket API: it names no connection")
	}
	ctx, cancel := early(ctx)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil {
			logPanic(ctx, e.RequestContext.EventType+" event", cause)
			err = fmt.Errorf("handle the event of a connection: panic: %v", cause)
		}
	}()
	status := http.StatusOK
	switch e.RequestContext.EventType {
	case "CONNECT":
		status, err = s.sockets.Connect(ctx, connectionID, opening(ctx, e))
	case "MESSAGE":
		message := []byte(e.Body)
		if e.IsBase64Encoded {
			if message, err = base64.StdEncoding.DecodeString(e.Body); err != nil {
				return nil, errors.New("the event says that its body is base64, and it is not")
			}
		}
		err = s.sockets.Receive(ctx, connectionID, message)
	case "DISCONNECT":
		err = s.sockets.Disconnect(ctx, connectionID)
	default:
		err = fmt.Errorf("a WebSocket API has no events of the type %q", e.RequestContext.EventType)
	}
	if err != nil {
		return nil, fmt.Errorf("handle the event of a connection: %w", err)
	}
	return json.Marshal(events.APIGatewayProxyResponse{StatusCode: status})
}

// opening gives the request that opens a connection.
func opening(ctx context.Context, e events.APIGatewayWebsocketProxyRequest) *http.Request {
	r := &http.Request{
		Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody,
		URL: &url.URL{Path: "/"}, RemoteAddr: net.JoinHostPort(e.RequestContext.Identity.SourceIP, "0"),
	}
	for name, values := range e.MultiValueHeaders {
		for _, value := range values {
			r.Header.Add(name, value)
		}
	}
	for name, value := range e.Headers {
		r.Header.Set(name, value)
	}
	if r.Host = r.Header.Get("Host"); r.Host == "" {
		r.Host = e.RequestContext.DomainName
	}
	r.Header.Del("Host")
	query := url.Values(e.MultiValueQueryStringParameters)
	if query == nil {
		query = url.Values{}
	}
	for name, value := range e.QueryStringParameters {
		query.Set(name, value)
	}
	r.URL.RawQuery = query.Encode()
	return r.WithContext(ctx)
}
