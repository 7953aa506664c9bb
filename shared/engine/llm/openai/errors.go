package openai

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/openai/openai-go/v3/option"

	"muster/shared/fault"
	"muster/shared/guard"
)

// maxErrorBody is the number of bytes of an error's body that are read.
const maxErrorBody = 64 << 10

// attempts is what is known of the HTTP side of one call: the status of the last attempt, 0 when nobody answered, and the
// body when it was an error.
type attempts struct {
	status int
	body   []byte
}

// watch is the middleware around each attempt.
func (a *attempts) watch(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	a.status, a.body = 0, nil
	response, err := next(r)
	if err != nil {
		return response, err
	}
	a.status = response.StatusCode
	if a.status >= http.StatusBadRequest {
		a.body, _ = io.ReadAll(io.LimitReader(response.Body, maxErrorBody))
		_ = response.Body.Close()
		response.Body = http.NoBody
		return response, nil
	}
	response.Body = &capped{ReadCloser: response.Body, left: maxAnswer}
	return response, nil
}

// capped is a body that fails when it is longer than it may be.
type capped struct {
	io.ReadCloser
	left int
}

func (c *capped) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if c.left -= n; c.left < 0 {
		return 0, errTooLong
	}
	return n, err
}

// explain makes of an error the sentence that people see in events and in the run's error.
func (m *Model) explain(err error, a attempts) error {
	say := func(kind fault.Kind, what string) error {
		return fault.New(kind, "The model %s %s.", m.endpoint.Name, m.redact(what))
	}
	if a.status >= http.StatusBadRequest {
		kind := fault.Unavailable
		if a.status < http.StatusInternalServerError && a.status != http.StatusTooManyRequests {
			kind = fault.Invalid
		}
		return say(kind, explainStatus(a))
	}
	var known problem
	switch {
	case a.status >= http.StatusMultipleChoices:
		return say(fault.Invalid, "redirected the call to another address, which is not followed")
	case errors.As(err, &known):
		return say(fault.Unavailable, string(known))
	case guard.Class(err) == guard.Timeout:
		return say(fault.Unavailable, "did not answer in time")
	case a.status == 0:
		return say(fault.Unavailable, "could not be reached"+unreachable(err))
	case guard.Class(err) == guard.Reset:
		return say(fault.Unavailable, string(errCut))
	}
	return say(fault.Unavailable, string(errNotJSON))
}

func explainStatus(a attempts) string {
	said := said(a.body)
	switch a.status {
	case http.StatusUnauthorized:
		return "answered 401 (the key is missing or not accepted)"
	case http.StatusForbidden:
		return "answered 403 (the key may not do this)"
	case http.StatusTooManyRequests:
		return "answered 429 (rate limit)" + said
	}
	text := strings.ToLower(http.StatusText(a.status))
	if text == "" {
		text = "an error"
	}
	return "answered " + strconv.Itoa(a.status) + " (" + text + ")" + said
}

// said finds the provider's own words in the body of an error, in the places where servers of this protocol put them.
func said(body []byte) string {
	var wire struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
		Detail  string          `json:"detail"`
	}
	var inner struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(body, &wire)
	_ = json.Unmarshal(wire.Error, &inner)
	if inner.Message == "" {
		_ = json.Unmarshal(wire.Error, &inner.Message)
	}
	for _, words := range []string{inner.Message, wire.Message, wire.Detail} {
		if words = strings.TrimRight(oneLine(words), "."); words != "" {
			return ": " + words
		}
	}
	return ""
}

// unreachable says why nobody answered, without the address: it may be the operator's own.
func unreachable(err error) string {
	switch guard.Class(err) {
	case "", guard.Timeout, guard.Canceled, guard.TooLarge, guard.Protocol:
		return ""
	}
	return ": " + strings.TrimRight(guard.Message(err), ".")
}

// secrets are the forms that keys have in error messages of providers that quote them.
var secrets = regexp.MustCompile(`(?i)\b(?:bearer|basic)\s+\S+|\b(?:sk|gsk|csk|pk|key)[-_][\w*.-]{4,}`)

func (m *Model) redact(text string) string {
	if m.endpoint.APIKey != "" {
		text = strings.ReplaceAll(text, m.endpoint.APIKey, "[hidden]")
	}
	return secrets.ReplaceAllString(text, "[hidden]")
}

// maxSaid is the number of characters of a provider's own words that are passed on.
const maxSaid = 300

func oneLine(text string) string {
	runes := []rune(strings.Join(strings.Fields(text), " "))
	if len(runes) > maxSaid {
		return string(runes[:maxSaid]) + "…"
	}
	return string(runes)
}
