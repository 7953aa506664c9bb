package invoke_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"muster/shared/invoke"
)

func TestAStreamIsReadWhileTheHandlerWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		more := make(chan struct{})
		answer, err := invoke.Stream(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
			w.Header().Add("X-Two", "1")
			w.Header().Add("X-Two", "2")
			w.WriteHeader(http.StatusAccepted)
			w.Header().Set("X-Late", "3")
			io.WriteString(w, "one")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-more
			io.WriteString(w, r.URL.Path)
		})).Answer(t.Context(), event(t, "stream/watch.json"))
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != http.StatusAccepted || answer.Headers["X-Two"] != "1, 2" || answer.Headers["X-Late"] != "" || len(answer.Cookies) != 1 || answer.Headers["Set-Cookie"] != "" {
			t.Errorf("the answer begins with %+v", answer)
		}
		piece := make([]byte, 10)
		if n, err := answer.Body.Read(piece); err != nil || string(piece[:n]) != "one" {
			t.Errorf("read %q, %v", piece[:n], err)
		}
		close(more)
		rest, err := io.ReadAll(answer.Body)
		if err != nil || string(rest) != "/v1/runs/019ab0c4-7d1e-7c3a-9b52-4f6e8d2a1c07/events" {
			t.Errorf("read %q, %v", rest, err)
		}
	})
}

func TestAStreamThatNobodyReadsEndsItsHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		answer, err := invoke.Stream(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			<-r.Context().Done()
			_, err := io.WriteString(w, "too late")
			ended <- err
		})).Answer(t.Context(), event(t, "stream/watch.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := answer.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("writing to nobody gives %v", err)
		}
	})
}

func TestAStreamEndsASecondBeforeItsFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		out, err := lambda.NewHandler(invoke.Stream(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		})).Answer).Invoke(ctx, event(t, "stream/watch.json"))
		if took := time.Since(began); took != 59*time.Second || err != nil || len(out) == 0 {
			t.Errorf("after %s: %q, %v", took, out, err)
		}
	})
}

func TestAHandlerOfStreamsThatPanics(t *testing.T) {
	for _, test := range []struct {
		name   string
		begun  bool
		status int
		body   string
		broken bool
	}{
		{"before it has begun gives the usual answer", false, 500, `{"message":"Internal Server Error"}`, false},
		{"in the middle cuts the answer off", true, 200, "half", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer, err := invoke.Stream(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Secret", "s")
				if test.begun {
					io.WriteString(w, "half")
				}
				panic("oh")
			})).Answer(t.Context(), event(t, "stream/watch.json"))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			if answer.StatusCode != test.status || string(body) != test.body || (err != nil) != test.broken || !test.begun && answer.Headers["X-Secret"] != "" {
				t.Errorf("got %d %v %q, %v", answer.StatusCode, answer.Headers, body, err)
			}
		})
	}
}

func TestStreamRefusesWhatIsNoRequest(t *testing.T) {
	for _, raw := range []json.RawMessage{event(t, "stream/bad-event.json"), json.RawMessage("stream"), json.RawMessage(`{"version": "2.0"}`)} {
		answer, err := invoke.Stream(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") })).Answer(t.Context(), raw)
		if err == nil {
			t.Errorf("%s is answered with %+v", raw, answer)
		}
	}
}
