package httpapi_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"muster/shared/fault"
	"muster/shared/httpapi"
)

func TestIdempotency(t *testing.T) {
	read := func(family, header, body string) (key, digest string) {
		t.Helper()
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("Idempotency-Key", header)
		key, digest, err := httpapi.Idempotency(r, family, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return key, digest
	}
	const first = `{"inputs": {"a": 1, "b": [1, 2]}, "meta": null}`
	_, digest := read("kickoff", "k", first)
	for _, c := range []struct {
		name, body string
		same       bool
	}{
		{"the same bytes are the same", first, true},
		{"space and the order of fields do not matter", "{\"meta\":null,\n\"inputs\":{\"b\":[1,2],\"a\":1}}", true},
		{"an escape is the character it stands for", `{"inputs": {"\u0061": 1, "b": [1, 2]}, "meta": null}`, true},
		{"another value is another request", `{"inputs": {"a": 2, "b": [1, 2]}, "meta": null}`, false},
		{"the order of a list matters", `{"inputs": {"a": 1, "b": [2, 1]}, "meta": null}`, false},
		{"a large number keeps its digits", `{"inputs": {"a": 1, "b": [1, 2.00000000000000000001]}, "meta": null}`, false},
		{"null is not nothing", `{"inputs": {"a": 1, "b": [1, 2]}}`, false},
	} {
		if _, got := read("kickoff", "k", c.body); (got == digest) != c.same {
			t.Errorf("%s: got %v", c.name, got == digest)
		}
	}
	mine, _ := read("kickoff", "k", first)
	if again, _ := read("kickoff", "k", first); again != mine {
		t.Error("a key is not the same the second time")
	}
	if other, _ := read("runs", "k", first); other == mine {
		t.Error("a key means the same in two families of routes")
	}
	if none, _ := read("kickoff", "", first); none != "" {
		t.Errorf("no key became %q", none)
	}
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("Idempotency-Key", strings.Repeat("k", 256))
	if _, _, err := httpapi.Idempotency(r, "kickoff", nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("a key of 256 characters: %v", err)
	}
}
