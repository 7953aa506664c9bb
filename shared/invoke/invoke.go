// Package invoke turns Muster's handlers into Lambda handlers: it reads the raw JSON of an event, calls the handler, and
// writes the answer that Lambda wants to hear. HTTP takes requests of an API Gateway HTTP API, Stream those of a
// function URL, Socket what happens on connections of a WebSocket API, Batch takes messages of a queue, Tick takes the clock of EventBridge.
//
// Both homes go through here. On AWS the values are given to lambda.Start; on one machine their Invoke is called with the
// same JSON. A panic of a handler is logged and costs its own request or message, never the process and its neighbours.
package invoke

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// margin is what the handlers are not told of: their context ends this long before Lambda kills the function, so that
// they can still say what became of their work.
const margin = time.Second

// early gives a context that ends a margin before ctx does.
func early(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-margin))
}

// decode reads an event. Fields that AWS adds some day are no reason to fail.
func decode(payload []byte, event any, kind string) error {
	if err := json.Unmarshal(payload, event); err != nil {
		return fmt.Errorf("read the event as %s: %w", kind, err)
	}
	return nil
}

// logPanic logs what a handler panicked with, and where.
func logPanic(ctx context.Context, what string, cause any) {
	slog.ErrorContext(ctx, "A handler panicked.", "handling", what, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
}
