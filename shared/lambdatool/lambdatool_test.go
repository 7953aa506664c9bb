package lambdatool

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"muster/shared/engine/tool"
	"muster/shared/fault"
)

var _ tool.Invoker = (*Invoker)(nil)

// api starts a fake of the Invoke API.
func api(t *testing.T, handle http.HandlerFunc) (*Invoker, *atomic.Int32) {
	t.Helper()
	var calls atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		handle(w, r)
	}))
	t.Cleanup(s.Close)
	return New(lambda.New(lambda.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(s.URL), HTTPClient: s.Client(),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "id", SecretAccessKey: "secret"}, nil
		}),
	})), &calls
}

func TestInvokeIsARealRequestOfTheInvokeAPI(t *testing.T) {
	i, _ := api(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		about, _ := base64.StdEncoding.DecodeString(r.Header.Get("X-Amz-Client-Context"))
		if r.Method != "POST" || r.URL.Path != "/2015-03-31/functions/crm/invocations" || string(body) != `{"a":1}` ||
			string(about) != `{"custom":{"Muster-Step-Id":"step-1"}}` {
			t.Errorf("got %s %s %s with %s", r.Method, r.URL, body, about)
		}
		_, _ = w.Write([]byte(`{"leads":42}`))
	})
	reply, failed, err := i.Invoke(context.Background(), "crm", "step-1", []byte(`{"a":1}`))
	if err != nil || failed || string(reply) != `{"leads":42}` {
		t.Errorf("got %s, %v, %v", reply, failed, err)
	}
}

func TestAnErrorOfTheFunctionIsAReply(t *testing.T) {
	i, _ := api(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Amz-Function-Error", "Unhandled")
		_, _ = w.Write([]byte(`{"errorMessage":"boom"}`))
	})
	reply, failed, err := i.Invoke(context.Background(), "crm", "s", []byte(`{}`))
	if err != nil || !failed || string(reply) != `{"errorMessage":"boom"}` {
		t.Errorf("got %s, %v, %v", reply, failed, err)
	}
}

func TestAnErrorOfTheAPIIsASentenceAndIsNotRepeated(t *testing.T) {
	for code, want := range map[string]string{
		"ResourceNotFoundException": "there is no such function.", "AccessDeniedException": "Muster may not call it.",
		"TooManyRequestsException": "it is called too often just now.", "ServiceException": "Lambda answered ServiceException.",
	} {
		i, calls := api(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Amzn-Errortype", code)
			w.WriteHeader(500)
			_, _ = w.Write([]byte(`{"message":"arn:aws:iam::1:role/secret"}`))
		})
		if _, _, err := i.Invoke(context.Background(), "crm", "s", []byte(`{}`)); fault.Message(err) != want || calls.Load() != 1 {
			t.Errorf("%s: got %q after %d calls, want %q after one", code, fault.Message(err), calls.Load(), want)
		}
	}
}

func TestInvokeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	i, _ := api(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	})
	if _, _, err := i.Invoke(ctx, "crm", "s", []byte(`{}`)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
