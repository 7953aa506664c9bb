package host

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/coder/websocket"

	"muster/infra"
)

// patience is how long a client may take to take a piece of a stream, before it is cut off.
const patience = 30 * time.Second

// stream invokes a function whose answer streams, and hands on each piece as it comes. A WebSocket is shown the lines of
// the answer as messages.
func (h *Host) stream(f infra.Function, routeKey string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upgrade := strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
		event := requestEvent(r, routeKey, nil)
		if upgrade {
			event.Headers["accept"] = "application/x-ndjson"
		}
		payload, err := json.Marshal(event)
		if err != nil {
			writeMessage(w, http.StatusInternalServerError, "Internal Server Error")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), h.timeout(f))
		defer cancel()
		answer, err := h.Stream(ctx, f.Name, payload)
		if err != nil {
			if r.Context().Err() == nil {
				h.log().Error("an invocation failed", "function", f.Name, "error", err)
			}
			writeMessage(w, http.StatusInternalServerError, "Internal Server Error")
			return
		}
		defer answer.Close()
		switch {
		case !upgrade:
			pour(w, answer)
		case answer.StatusCode == http.StatusOK:
			frame(ctx, w, r, answer.Body)
		default:
			pour(w, answer)
		}
	})
}

// pour hands on an answer piece by piece.
func pour(w http.ResponseWriter, a *events.LambdaFunctionURLStreamingResponse) {
	for name, value := range a.Headers {
		w.Header().Set(name, value)
	}
	for _, c := range a.Cookies {
		w.Header().Add("Set-Cookie", c)
	}
	w.WriteHeader(a.StatusCode)
	control := http.NewResponseController(w)
	if control.Flush() != nil || a.Body == nil {
		return
	}
	piece := make([]byte, 32<<10)
	for {
		n, err := a.Body.Read(piece)
		_ = control.SetWriteDeadline(time.Now().Add(patience)) // a test's recorder has none
		if n > 0 {
			if _, err := w.Write(piece[:n]); err != nil {
				return
			}
			if control.Flush() != nil {
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			panic(http.ErrAbortHandler) // the client is not to take it for whole
		}
	}
}

// frame shows the lines of an answer as messages of a WebSocket. The last line says why it is the last.
func frame(ctx context.Context, w http.ResponseWriter, r *http.Request, lines io.Reader) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it has answered
	}
	defer c.CloseNow()
	ctx = c.CloseRead(ctx)
	last := ""
	for in := bufio.NewReader(lines); ; {
		line, err := in.ReadBytes('\n')
		if err != nil {
			break
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		var message struct{ Type string }
		if json.Unmarshal(line, &message) == nil {
			last = message.Type
		}
		writing, done := context.WithTimeout(ctx, patience)
		err = c.Write(writing, websocket.MessageText, line)
		done()
		if err != nil {
			return
		}
	}
	if last == "error" {
		_ = c.Close(websocket.StatusInternalError, last)
		return
	}
	_ = c.Close(websocket.StatusNormalClosure, last)
}
