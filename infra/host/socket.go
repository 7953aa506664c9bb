package host

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/coder/websocket"
	"github.com/google/uuid"

	"muster/infra"
	"muster/shared/channel"
)

// Sockets holds the open connections of a WebSocket API, as API Gateway does: functions are invoked with what comes in, and
// push what goes out, which is the channel.Pusher of one machine. The zero value has none.
type Sockets struct {
	// slack is how long a push waits for room among the messages of a connection; 0 means 10 s. A connection that makes none
	// is slow.
	slack time.Duration

	mu   sync.Mutex
	open map[string]*socket
}

const (
	// waiting is how many messages may wait for a connection that takes them slowly.
	waiting = 256
	// largest is the longest message that API Gateway takes.
	largest = 128 << 10
)

// socket is one open connection.
type socket struct {
	messages chan []byte
	// ended is closed when last is to be written after what waits, and then no more.
	ended chan struct{}
	once  sync.Once
	last  []byte
	over  chan struct{} // closed when it is gone
}

// Push implements channel.Pusher.
func (s *Sockets) Push(ctx context.Context, connectionID string, message []byte) error {
	c := s.get(connectionID)
	if c == nil {
		return channel.ErrGone
	}
	select {
	case <-c.ended:
		return channel.ErrGone
	case <-c.over:
		return channel.ErrGone
	default:
	}
	room := time.NewTimer(cmp.Or(s.slack, 10*time.Second))
	defer room.Stop()
	select {
	case c.messages <- message:
		return nil
	case <-c.ended:
		return channel.ErrGone
	case <-c.over:
		return channel.ErrGone
	case <-room.C:
		return channel.ErrSlow
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close implements channel.Pusher. What waits is still written, as far as it is taken.
func (s *Sockets) Close(_ context.Context, connectionID string, last []byte) error {
	if c := s.get(connectionID); c != nil {
		c.once.Do(func() {
			c.last = last
			close(c.ended)
		})
	}
	return nil
}

func (s *Sockets) get(connectionID string) *socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[connectionID]
}

func (s *Sockets) add(connectionID string) *socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[string]*socket{}
	}
	c := &socket{messages: make(chan []byte, waiting), ended: make(chan struct{}), over: make(chan struct{})}
	s.open[connectionID] = c
	return c
}

func (s *Sockets) remove(connectionID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.open[connectionID].over)
	delete(s.open, connectionID)
}

// socket serves a WebSocket by invoking the function that takes the events of connections.
func (h *Host) socket(f infra.Function) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connectionID := base64.URLEncoding.EncodeToString([]byte(uuid.NewString()))[:15] + "="
		asked := h.socketEvent(r, connectionID, "CONNECT", nil)
		c := h.Sockets.add(connectionID) // what the function pushes at once waits
		defer h.Sockets.remove(connectionID)
		status, err := h.tellSocket(r.Context(), f, asked)
		if err != nil {
			status = http.StatusInternalServerError
		}
		if status != http.StatusOK {
			writeMessage(w, status, http.StatusText(status))
			return
		}
		// It is for the function to say which origins are good.
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err == nil {
			h.converse(r, f, conn, c, connectionID)
		}
		ctx := context.WithoutCancel(r.Context())
		if _, err := h.tellSocket(ctx, f, h.socketEvent(r, connectionID, "DISCONNECT", nil)); err != nil {
			h.log().Error("a connection is over and nobody was told", "error", err)
		}
	})
}

// converse hands on messages in both directions until either side ends it.
func (h *Host) converse(r *http.Request, f infra.Function, conn *websocket.Conn, c *socket, connectionID string) {
	defer conn.CloseNow()
	conn.SetReadLimit(largest)
	ctx, cancel := context.WithCancel(r.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		defer cancel()
		write := func(ctx context.Context, message []byte) bool {
			taking, done := context.WithTimeout(ctx, patience)
			defer done()
			return conn.Write(taking, websocket.MessageText, message) == nil
		}
		for {
			select {
			case <-ctx.Done():
				return
			case message := <-c.messages:
				if !write(ctx, message) {
					return
				}
			case <-c.ended:
				rest, done := context.WithTimeout(ctx, patience)
				defer done()
				for len(c.messages) > 0 {
					if !write(rest, <-c.messages) {
						return
					}
				}
				if write(rest, c.last) {
					_ = conn.Close(websocket.StatusPolicyViolation, "")
				}
				return
			}
		}
	})
	for {
		_, message, err := conn.Read(ctx)
		if err != nil {
			break
		}
		if _, err := h.tellSocket(ctx, f, h.socketEvent(r, connectionID, "MESSAGE", message)); err != nil && ctx.Err() == nil {
			h.log().Error("an invocation failed", "function", f.Name, "error", err)
			failure, _ := json.Marshal(map[string]string{"message": "Internal server error", "connectionId": connectionID})
			_ = h.Sockets.Push(ctx, connectionID, failure)
		}
	}
	cancel()
	writing.Wait()
}

// tellSocket invokes the function and gives the status that it answers.
func (h *Host) tellSocket(ctx context.Context, f infra.Function, e events.APIGatewayWebsocketProxyRequest) (status int, err error) {
	answer, err := h.call(ctx, f, e)
	if err != nil {
		return 0, err
	}
	var response events.APIGatewayProxyResponse
	if err := json.Unmarshal(answer, &response); err != nil {
		return 0, err
	}
	return response.StatusCode, nil
}

// socketEvent makes the event that API Gateway would.
func (h *Host) socketEvent(r *http.Request, connectionID, kind string, message []byte) events.APIGatewayWebsocketProxyRequest {
	ip, _, _ := net.SplitHostPort(r.RemoteAddr)
	now := time.Now()
	e := events.APIGatewayWebsocketProxyRequest{
		Body: string(message),
		RequestContext: events.APIGatewayWebsocketProxyRequestContext{
			Stage: "ws", RequestID: uuid.NewString(), ExtendedRequestID: uuid.NewString(), APIID: "local", ConnectionID: connectionID, DomainName: r.Host,
			EventType: kind, RouteKey: map[string]string{"CONNECT": "$connect", "MESSAGE": "$default", "DISCONNECT": "$disconnect"}[kind],
			MessageDirection: "IN", RequestTime: now.UTC().Format("02/Jan/2006:15:04:05 -0700"), RequestTimeEpoch: now.UnixMilli(),
			Identity: events.APIGatewayRequestIdentity{SourceIP: ip, UserAgent: r.UserAgent()},
		},
	}
	if !utf8.Valid(message) {
		e.Body, e.IsBase64Encoded = base64.StdEncoding.EncodeToString(message), true
	}
	if kind != "CONNECT" {
		return e
	}
	e.Headers, e.MultiValueHeaders = map[string]string{"Host": r.Host}, map[string][]string{"Host": {r.Host}}
	for name, values := range r.Header {
		e.Headers[name], e.MultiValueHeaders[name] = values[len(values)-1], values
	}
	for name, values := range r.URL.Query() {
		if e.QueryStringParameters == nil {
			e.QueryStringParameters, e.MultiValueQueryStringParameters = map[string]string{}, map[string][]string{}
		}
		e.QueryStringParameters[name], e.MultiValueQueryStringParameters[name] = values[len(values)-1], values
	}
	return e
}
