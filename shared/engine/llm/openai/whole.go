package openai

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"muster/shared/engine/llm"
)

// whole catches the answer of a server that was asked to stream and answers in one piece all the same, as small servers do.
type whole struct{ body []byte }

// watch is middleware of the SDK. It keeps such an answer and gives the SDK an empty stream instead.
func (w *whole) watch(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	answer, err := next(r)
	if err != nil || answer.StatusCode != http.StatusOK || !strings.HasPrefix(answer.Header.Get("Content-Type"), "application/json") {
		return answer, err
	}
	defer answer.Body.Close()
	if w.body, err = io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1)); err != nil {
		return nil, err
	}
	answer.Header.Set("Content-Type", "text/event-stream")
	answer.Body = io.NopCloser(bytes.NewReader(nil))
	return answer, nil
}

// read reads the answer, and passes it on as its only piece.
func (w *whole) read(pass func(llm.Chunk)) (llm.Reply, error) {
	if len(w.body) > maxAnswer {
		return llm.Reply{}, errTooLong
	}
	var answer openai.ChatCompletion
	if err := json.Unmarshal(w.body, &answer); err != nil {
		return llm.Reply{}, errNotJSON
	}
	reply, err := read(&answer)
	if err == nil && reply.Text != "" {
		pass(llm.Chunk{Text: reply.Text, ResponseID: reply.ResponseID})
	}
	return reply, err
}
