package openai

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/engine/llm"
)

// A small server of one's own may know nothing of streams and answer in one piece. Every run whose events were all wanted,
// and with them the pieces of answers, failed on such a server.
func TestAServerThatDoesNotStreamIsUnderstood(t *testing.T) {
	for name, test := range map[string]struct{ body, text, fails string }{
		"a whole answer": {body: `{"id":"c1","object":"chat.completion","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"Forty-two."}}],
			"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`, text: "Forty-two."},
		"no answer": {body: `{"id":"c1","choices":[]}`, fails: "The model mine gave an empty answer."},
		"no JSON":   {body: `{"id":`, fails: "The model mine answered something that is not JSON of the OpenAI protocol."},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json; charset=utf-8")
				io.WriteString(w, test.body)
			}))
			defer s.Close()
			m := New(llm.Endpoint{Name: "mine", Model: "mine", BaseURL: s.URL, Timeout: time.Minute, HTTP: s.Client()})
			r, chunks, err := ask(m, true, "What is the answer?")
			if test.fails != "" {
				if err == nil || err.Error() != test.fails {
					t.Errorf("got %v, want %s", err, test.fails)
				}
				return
			}
			if err != nil || r.Text != test.text || r.Usage.TotalTokens != 5 {
				t.Errorf("got %+v, %v", r, err)
			}
			if diff := cmp.Diff([]llm.Chunk{{Text: test.text, ResponseID: "c1"}}, chunks); diff != "" {
				t.Errorf("pieces (-want +got):\n%s", diff)
			}
		})
	}
}
