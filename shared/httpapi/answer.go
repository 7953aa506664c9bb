package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// WriteJSON answers with a status and a JSON value.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode an answer: %w", err)
	}
	kind := "application/json"
	if _, ok := v.(Problem); ok {
		kind = "application/problem+json"
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	w.Write(bytes.TrimSuffix(b.Bytes(), []byte("\n"))) // fails only when the client has gone
	return nil
}

// WriteText answers with a status and plain text.
func WriteText(w http.ResponseWriter, status int, line Text) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, string(line)) // fails only when the client has gone
}

// WarningHeader carries what was tolerated and had no effect.
const WarningHeader = "Muster-Warning"

// maxWarning keeps the header well below what proxies take.
const maxWarning = 2048

// Warn puts warnings into the answer's header, joined by "; ". It is called before the answer is written. What a header
// cannot carry is replaced: warnings quote what strangers sent.
func Warn(w http.ResponseWriter, warnings []string) {
	if len(warnings) == 0 {
		return
	}
	line := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, strings.Join(warnings, "; "))
	if len(line) > maxWarning {
		line = line[:maxWarning-3] + "..."
	}
	w.Header().Set(WarningHeader, line)
}

// Rate tells how many requests of a kind are left, and when there are more again. It is called before the answer is
// written, an error answer included.
func Rate(w http.ResponseWriter, limit, remaining int, reset time.Duration) {
	w.Header().Set("RateLimit-Limit", strconv.Itoa(limit))
	w.Header().Set("RateLimit-Remaining", strconv.Itoa(remaining))
	w.Header().Set("RateLimit-Reset", strconv.Itoa(int(math.Ceil(reset.Seconds()))))
}
