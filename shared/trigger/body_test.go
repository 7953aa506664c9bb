package trigger

import (
	"encoding/json"
	"net/http"
	"testing"

	"muster/shared/fault"
)

func FuzzParse(f *testing.F) {
	f.Add("application/json", "", `{"topic": "tea", "n": 12345678901234567890}`)
	f.Add("application/x-www-form-urlencoded", "", `payload=%7B%7D`)
	f.Add("application/x-www-form-urlencoded", "", `a=b&a=%ff`)
	f.Add("text/plain; charset=x", "identity", ``)
	f.Add("multipart/form-data; boundary=x", "gzip", "\xff")
	f.Fuzz(func(t *testing.T, kind, encoding, body string) {
		for _, forms := range []bool{false, true} {
			v, err := parse(http.Header{"Content-Type": {kind}, "Content-Encoding": {encoding}}, []byte(body), forms)
			if err != nil {
				if !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Unsupported) {
					t.Errorf("got %v, want fault.Invalid or fault.Unsupported", err)
				}
				continue
			}
			if deeper(v, maxDepth) {
				t.Error("what it gave is too deep")
			}
			if _, err := json.Marshal(v); err != nil {
				t.Errorf("what it gave cannot be kept: %v", err)
			}
		}
	})
}
