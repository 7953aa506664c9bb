package emulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Fake answers the requests of an AWS client in its place, for what no emulator does: to refuse a part of a batch, to lose
// an answer. It gets the action ("SendMessageBatch") and the members of the request, and gives the status and the
// members of the answer. An error is a connection that broke.
type Fake func(action string, in map[string]any) (status int, out any, err error)

// Config is the configuration of a client that asks the fake.
func (f Fake) Config() aws.Config {
	c := Config("http://fake.invalid")
	c.HTTPClient = f
	return c
}

// Do answers one request.
func (f Fake) Do(r *http.Request) (*http.Response, error) {
	_, action, ok := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	if !ok {
		return nil, fmt.Errorf("a request without X-Amz-Target")
	}
	var in map[string]any
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, err
	}
	status, out, err := f(action, in)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: status, Request: r, ContentLength: int64(len(body)),
		Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, Body: io.NopCloser(bytes.NewReader(body)),
	}, nil
}
