package push_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"muster/shared/channel"
	"muster/shared/push"
)

func TestPushes(t *testing.T) {
	var asked, body string
	status, kind := http.StatusOK, ""
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		asked, body = r.Method+" "+r.URL.EscapedPath(), string(raw)
		if kind != "" {
			w.Header().Set("X-Amzn-Errortype", kind)
		}
		w.WriteHeader(status)
	}))
	defer gateway.Close()
	p := push.New(aws.Config{
		Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""), RetryMaxAttempts: 1,
	}, gateway.URL+"/ws")

	if err := p.Push(t.Context(), "L0SM9cOFvHcCIhw=", []byte(`{"type":"ping"}`)); err != nil {
		t.Fatal(err)
	}
	if want := "POST /ws/@connections/L0SM9cOFvHcCIhw%3D"; asked != want && asked != "POST /ws/%40connections/L0SM9cOFvHcCIhw%3D" || body != `{"type":"ping"}` {
		t.Errorf("asked for %s with %s, want %s", asked, body, want)
	}
	status, kind = http.StatusGone, "GoneException"
	if err := p.Push(t.Context(), "c", []byte("{}")); !errors.Is(err, channel.ErrGone) {
		t.Errorf("a push to nobody: %v", err)
	}
	if err := p.Close(t.Context(), "c", []byte("{}")); err != nil || asked[:6] != "DELETE" {
		t.Errorf("closing what is gone: %s, %v", asked, err)
	}
	status, kind = http.StatusTooManyRequests, "LimitExceededException"
	if err := p.Push(t.Context(), "c", []byte("{}")); err == nil || errors.Is(err, channel.ErrGone) {
		t.Errorf("a push that is refused for now: %v", err)
	}
}
