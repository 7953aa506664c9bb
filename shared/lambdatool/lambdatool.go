// Package lambdatool calls AWS Lambda functions for the tool "lambda", through the Invoke API. Which functions may be called
// is decided before, by the list in tool.Box.
package lambdatool

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/smithy-go"

	"muster/shared/fault"
)

// Invoker is the tool.Invoker on AWS.
type Invoker struct{ client *lambda.Client }

// New makes an Invoker of a client. Invoke must not be repeated unasked, so the SDK's own retries are switched off for it:
// the function may have done its work although the answer got lost.
func New(client *lambda.Client) *Invoker { return &Invoker{client: client} }

// Invoke calls a function and waits. The step's id is in the client context under custom, as Muster-Step-Id.
func (i *Invoker) Invoke(ctx context.Context, function, stepID string, payload []byte) (reply []byte, failed bool, err error) {
	about, err := json.Marshal(map[string]any{"custom": map[string]string{"Muster-Step-Id": stepID}})
	if err != nil {
		return nil, false, fmt.Errorf("encode the client context: %w", err)
	}
	out, err := i.client.Invoke(ctx, &lambda.InvokeInput{
		FunctionName:  aws.String(function),
		ClientContext: aws.String(base64.StdEncoding.EncodeToString(about)),
		Payload:       payload,
	}, func(o *lambda.Options) { o.RetryMaxAttempts = 1 })
	if err != nil {
		return nil, false, explain(err)
	}
	return out.Payload, out.FunctionError != nil, nil
}

// sentences are what the errors of the Invoke API mean to somebody who wrote a crew. What AWS says beside the code may name
// roles and accounts.
var sentences = map[string]string{
	"ResourceNotFoundException":      "there is no such function.",
	"AccessDeniedException":          "Muster may not call it.",
	"TooManyRequestsException":       "it is called too often just now.",
	"RequestTooLargeException":       "the arguments are too long.",
	"InvalidRequestContentException": "the arguments are not JSON that Lambda takes.",
}

func explain(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		if sentence := sentences[api.ErrorCode()]; sentence != "" {
			return fault.Wrap(err, fault.Unavailable, "%s", sentence)
		}
		return fault.Wrap(err, fault.Unavailable, "Lambda answered %s.", api.ErrorCode())
	}
	return fault.Wrap(err, fault.Unavailable, "Lambda could not be reached.")
}
