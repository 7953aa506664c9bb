package invoke

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/aws/aws-lambda-go/events"
)

// Streamer answers events of a function URL whose answers stream, with an ordinary http.Handler. It is no lambda.Handler,
// whose Invoke would read a stream to its end: lambda.Start is given its method, and so calls it a home of one's own.
type Streamer struct{ handler http.Handler }

// Stream makes a Streamer.
func Stream(h http.Handler) Streamer { return Streamer{h} }

// Answer answers one event. It comes back when the answer has begun; what the handler writes after that is read from the
// body as it is written. Whoever reads the body must close it.
func (s Streamer) Answer(ctx context.Context, payload json.RawMessage) (*events.LambdaFunctionURLStreamingResponse, error) {
	var event events.APIGatewayV2HTTPRequest // a function URL sends the same
	if err := decode(payload, &event, "a request of a function URL"); err != nil {
		return nil, err
	}
	ctx, cancel := early(ctx)
	r, err := request(ctx, event)
	if err != nil {
		cancel()
		return nil, err
	}
	out, in := io.Pipe()
	w := &streaming{header: http.Header{}, body: in, begun: make(chan struct{})}
	go func() {
		defer cancel()
		defer func() {
			if cause := recover(); cause != nil {
				if cause != http.ErrAbortHandler {
					logPanic(ctx, r.Method+" stream", cause)
				}
				w.header = http.Header{"Content-Type": {"application/json"}}
				if !w.begin(http.StatusInternalServerError) {
					in.CloseWithError(errCutOff)
					return
				}
				_, _ = io.WriteString(in, `{"message":"Internal Server Error"}`)
			}
			w.WriteHeader(http.StatusOK)
			in.Close()
		}()
		s.handler.ServeHTTP(w, r)
	}()
	<-w.begun
	answer := &events.LambdaFunctionURLStreamingResponse{
		StatusCode: w.status, Headers: map[string]string{}, Cookies: w.sent.Values("Set-Cookie"), Body: body{out, cancel},
	}
	for name, values := range w.sent {
		if name != "Set-Cookie" {
			answer.Headers[name] = strings.Join(values, ", ")
		}
	}
	return answer, nil
}

var errCutOff = errors.New("the answer was cut off")

// body is what a handler writes. Closing it ends the handler.
type body struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (b body) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}

// streaming is the http.ResponseWriter whose answer is read while it is written.
type streaming struct {
	header http.Header
	sent   http.Header // header as it was when the status was written
	status int
	once   sync.Once
	begun  chan struct{}
	body   *io.PipeWriter
}

func (w *streaming) Header() http.Header { return w.header }

// begin begins the answer, and says whether it had not begun before.
func (w *streaming) begin(status int) (first bool) {
	w.once.Do(func() {
		first = true
		w.status, w.sent = status, w.header.Clone()
		close(w.begun)
	})
	return first
}

func (w *streaming) WriteHeader(status int) {
	if status >= 200 { // interim answers cannot be passed on
		w.begin(status)
	}
}

func (w *streaming) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// FlushError has nothing to do: what was written was read.
func (w *streaming) FlushError() error { return nil }
