package deploywire

import (
	"net/url"
	"testing"

	"muster/shared/fault"
	"muster/shared/guard"
	"muster/shared/httpapi"
	"muster/shared/webhook"
	"muster/shared/workspace"
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

func FuzzReadLog(f *testing.F) {
	f.Add("status=failed&status=exhausted&event=run.failed&run_id=run_0192d1f27c3a7b6e8f00aabbccddeeff&since=2026-01-01T00:00:00Z&limit=5")
	f.Add("since=&until=0000-01-01T00:00:00Z&limit=-1")
	f.Fuzz(func(t *testing.T, query string) {
		v, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		q, err := readLog(v)
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("got %v, want a fault that can be shown", err)
		}
		if err == nil && (q.Limit < 0 || q.Limit > 100) {
			t.Errorf("a limit of %d", q.Limit)
		}
	})
}

func FuzzChangeEndpoint(f *testing.F) {
	sealer, err := workspace.NewSealer(map[string][]byte{"k": make([]byte, 32)}, "k")
	if err != nil {
		f.Fatal(err)
	}
	w := &Wire{Sealer: sealer, CheckURL: guard.New(guard.Options{}).CheckURL}
	f.Add([]byte(`{"url":"https://example.com/x?y","name":"a","events":["run.failed","*"],"headers":{"x-a":"b"},"max_rps":3,"enabled":false}`))
	f.Add([]byte(`{"url":"http://[::ffff:127.0.0.1]:9001/","headers":{"X-Crewship-Signature":null}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := httpapi.ParseObject(body)
		if err != nil {
			return
		}
		e := webhook.Endpoint{ID: "e", WorkspaceID: "w", Environment: "production", Format: webhook.Crewship, Events: []string{"*"}, Enabled: true}
		err = w.changeEndpoint(t.Context(), o, &e)
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("got %v, want a fault that can be shown", err)
		}
		if err == nil && (e.Check() != nil || w.CheckURL(e.URL) != nil || e.Enabled != (e.DisabledBy == "")) {
			t.Errorf("%s makes %+v", body, e)
		}
	})
}

func FuzzPlainURL(f *testing.F) {
	f.Add("https://user:hidden@example.com/a?token=hidden#hidden")
	f.Add("https://example.com/a?hidden")
	f.Add("%zz")
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.Parse(plainURL(raw))
		if err != nil {
			return
		}
		if _, has := u.User.Password(); has || u.Fragment != "" {
			t.Errorf("%q is shown as %q", raw, u)
		}
		if u.RawQuery == masked {
			return
		}
		for _, values := range u.Query() {
			if len(values) != 1 || values[0] != masked {
				t.Errorf("%q is shown as %q", raw, u)
			}
		}
	})
}
