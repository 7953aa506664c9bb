package invoke

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
)

// Tick answers scheduled events of EventBridge. Its answer is JSON null; what the function fails with counts as an error
// of the Lambda function, which an alarm watches.
func Tick(f func(ctx context.Context) error) lambda.Handler { return tickHandler{f} }

type tickHandler struct {
	tick func(ctx context.Context) error
}

// Invoke implements lambda.Handler.
func (t tickHandler) Invoke(ctx context.Context, payload []byte) (_ []byte, err error) {
	var event events.EventBridgeEvent
	if err := decode(payload, &event, "a tick"); err != nil {
		return nil, err
	}
	if event.Source != "aws.events" || event.DetailType != "Scheduled Event" {
		return nil, errors.New("the event is no tick of an EventBridge schedule")
	}
	ctx, cancel := early(ctx)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil {
			logPanic(ctx, "tick", cause)
			err = fmt.Errorf("handle the tick: panic: %v", cause)
		}
	}()
	if err := t.tick(ctx); err != nil {
		return nil, fmt.Errorf("handle the tick: %w", err)
	}
	return []byte("null"), nil
}
