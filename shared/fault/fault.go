// Package fault is the one coded error of Muster. Inside, code asks for the kind of an error and never for its text;
// at the edge, httpapi turns the kind into a status and a dialect turns the message into its own shape. An error that
// is no fault is Internal, and nothing of its text is ever shown.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Kind says what sort of thing went wrong. The list is closed.
type Kind string

// The kinds, with the HTTP status that httpapi gives them unless a dialect says otherwise.
const (
	Invalid      Kind = "invalid"      // 400: the request cannot be right, whoever sends it
	Unauthorized Kind = "unauthorized" // 401: no token, or one that is unknown
	Forbidden    Kind = "forbidden"    // 403: a good token, for something else
	NotFound     Kind = "not_found"    // 404
	NotAllowed   Kind = "not_allowed"  // 405: the path is known, its method is not
	Conflict     Kind = "conflict"     // 409: the state has moved on, or somebody else was first
	TooLarge     Kind = "too_large"    // 413
	Unsupported  Kind = "unsupported"  // 415: sent in a form that is not taken
	Missing      Kind = "missing"      // 422: understood, but something is absent or of the wrong type
	TooMany      Kind = "too_many"     // 429
	Unavailable  Kind = "unavailable"  // 503: try again later
	Internal     Kind = "internal"     // 500: everything that is not ours to explain
)

// Error is a fault: a kind, a sentence that is safe to show to whoever sent the request, and the cause, which is not.
type Error struct {
	Kind    Kind
	Message string
	// Details are shown beside the message where the dialect has a place for them; nil is none.
	Details map[string]any
	// RetryAfter is a hint for TooMany and Unavailable; 0 is none.
	RetryAfter time.Duration
	cause      error
}

// Error gives the message and the cause, for logs.
func (e *Error) Error() string {
	if e.cause == nil {
		return e.Message
	}
	return e.Message + ": " + e.cause.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.cause }

// New makes a fault whose message is safe to show.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// Wrap makes a fault with a message that is safe to show and a cause that is only logged.
func Wrap(cause error, kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...), cause: cause}
}

// With adds details and returns the fault.
func (e *Error) With(details map[string]any) *Error {
	e.Details = details
	return e
}

// KindOf gives the kind of the outermost fault in err, Internal for any other error and "" for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	var f *Error
	if errors.As(err, &f) {
		return f.Kind
	}
	return Internal
}

// Is tells whether err is a fault of this kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// Message gives the sentence that may be shown; for anything that is not a fault it admits only that something broke.
func Message(err error) string {
	var f *Error
	if errors.As(err, &f) {
		return f.Message
	}
	return "An unexpected error occurred."
}
