package deploywire

import (
	"net/url"
	"testing"

	"muster/shared/fault"
	"muster/shared/httpapi"
)

func FuzzReadFiles(f *testing.F) {
	for _, seed := range []string{
		`{"files":{"agents.yaml":"a: {}","logo.png":{"base64":"AAEC"}}}`,
		`{"files":{"a":{"base64":null}}}`,
		`{"files":{"":[],"..":"x"}}`,
		`{"files":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := httpapi.ParseObject(body)
		if err != nil {
			return
		}
		files, err := readFiles(o)
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("got %v, want a fault that can be shown", err)
		}
		given, _ := o.Object("files")
		if err == nil && len(files) != len(given) {
			t.Errorf("%d files of %d", len(files), len(given))
		}
	})
}

func FuzzReadList(f *testing.F) {
	f.Add("status=running&limit=5&cursor=run_0192d1f27c3a7b6e8f00aabbccddeeff")
	f.Add("limit=1e9&status=")
	f.Fuzz(func(t *testing.T, query string) {
		v, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		q, err := readList(v)
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("got %v, want a fault that can be shown", err)
		}
		if err == nil && (q.Limit < 0 || q.Limit > 100) {
			t.Errorf("a limit of %d", q.Limit)
		}
	})
}
