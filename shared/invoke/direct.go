package invoke

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

// Direct does what an invocation asks for that is no request. payload is what its owner made AWS send, id is the same when
// AWS sends it again, and event says that it came as the detail of an event of EventBridge.
type Direct func(ctx context.Context, payload []byte, id string, event bool) (any, error)

// HTTPOr is HTTP for a function that its owner may also invoke otherwise: by a schedule or a rule of EventBridge.
func HTTPOr(h http.Handler, direct Direct) lambda.Handler { return either{HTTP(h), direct} }

type either struct {
	http   lambda.Handler
	direct Direct
}

// Invoke implements lambda.Handler. It fails for an invocation that cannot be done, so that AWS counts it, and repeats it or
// keeps it as its owner said.
func (e either) Invoke(ctx context.Context, raw []byte) (_ []byte, err error) {
	var kind struct {
		RequestContext json.RawMessage `json:"requestContext"`
		DetailType     string          `json:"detail-type"`
		ID             string          `json:"id"`
		Detail         json.RawMessage `json:"detail"`
	}
	if err := decode(raw, &kind, "an invocation"); err != nil {
		return nil, err
	}
	if kind.RequestContext != nil {
		return e.http.Invoke(ctx, raw)
	}
	payload, id, event := raw, "", kind.DetailType != ""
	switch called, ok := lambdacontext.FromContext(ctx); {
	case event:
		payload, id = kind.Detail, kind.ID
	case ok:
		id = called.AwsRequestID
	}
	ctx, cancel := early(ctx)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil {
			logPanic(ctx, "invocation", cause)
			err = fmt.Errorf("do what the invocation asks for: panic: %v", cause)
		}
	}()
	done, err := e.direct(ctx, payload, id, event)
	if err != nil {
		return nil, fmt.Errorf("do what the invocation asks for: %w", err)
	}
	return json.Marshal(done)
}
