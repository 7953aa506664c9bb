package invoke_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"muster/shared/invoke"
)

func TestHTTPOr(t *testing.T) {
	request, err := os.ReadFile(filepath.Join("..", "..", "testevents", "trigger", "incoming.json"))
	if err != nil {
		t.Fatal(err)
	}
	type call struct {
		payload, id string
		event       bool
	}
	for _, test := range []struct {
		name, payload string
		want          *call // nil: the request is for the HTTP handler
	}{
		{"a request goes to the handler", string(request), nil},
		{"what a schedule sends is done, known by the invocation", `{"deployment":"d"}`, &call{`{"deployment":"d"}`, "request-1", false}},
		{"an event's detail is done, known by the event", `{"id":"e1","detail-type":"x","source":"y","detail":{"deployment":"d"}}`, &call{`{"deployment":"d"}`, "e1", true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got *call
			h := invoke.HTTPOr(http.NotFoundHandler(), func(_ context.Context, payload []byte, id string, event bool) (any, error) {
				got = &call{string(payload), id, event}
				return map[string]string{"run_id": "run_1"}, nil
			})
			ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: "request-1"})
			out, err := h.Invoke(ctx, []byte(test.payload))
			if err != nil {
				t.Fatal(err)
			}
			if test.want == nil {
				if got != nil || !strings.Contains(string(out), `"statusCode":404`) {
					t.Errorf("got %+v, %s", got, out)
				}
				return
			}
			if got == nil || *got != *test.want || string(out) != `{"run_id":"run_1"}` {
				t.Errorf("got %+v, %s", got, out)
			}
		})
	}
	for name, direct := range map[string]invoke.Direct{
		"what fails":  func(context.Context, []byte, string, bool) (any, error) { return nil, errors.New("no such deployment") },
		"what panics": func(context.Context, []byte, string, bool) (any, error) { panic("oh") },
	} {
		t.Run(name+" is a failed invocation", func(t *testing.T) {
			if out, err := invoke.HTTPOr(http.NotFoundHandler(), direct).Invoke(t.Context(), []byte(`{}`)); err == nil {
				t.Errorf("got %s", out)
			}
		})
	}
	t.Run("what is no JSON is a failed invocation", func(t *testing.T) {
		if out, err := invoke.HTTPOr(http.NotFoundHandler(), nil).Invoke(t.Context(), []byte(`{`)); err == nil {
			t.Errorf("got %s", out)
		}
	})
}
