package webhook

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	testSecret  = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
	otherSecret = "whsec_AAAQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
	testID      = "del_0190e2a47d1c7c3e8f005f3f9d0b8a11"
)

func sign(t *testing.T, secret, body string, at time.Time) http.Header {
	t.Helper()
	h, err := Sign(Secrets{Current: secret}, "amp.crew", testID, at, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestSignedHeaders(t *testing.T) {
	h := sign(t, testSecret, `{"a":1}`, time.Unix(1736937000, 999_000_000))
	for name, want := range map[string]string{
		"X-Crewship-Event":     "amp.crew",
		"X-Crewship-Delivery":  testID,
		"X-Crewship-Timestamp": "1736937000",
		"webhook-id":           testID,
		"webhook-timestamp":    "1736937000",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for name, form := range map[string]string{"X-Crewship-Signature": `^sha256=[0-9a-f]{64}$`, "webhook-signature": `^v1,[A-Za-z0-9+/]{43}=$`} {
		if got := h.Get(name); !regexp.MustCompile(form).MatchString(got) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	for _, c := range []struct{ name, secret, id string }{
		{"an id with a dot", testSecret, "del.1"},
		{"an empty id", testSecret, ""},
		{"a secret without its prefix", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=", testID},
		{"a secret that is no base64", "whsec_%%%", testID},
		{"an empty secret", "whsec_", testID},
	} {
		h, err := Sign(Secrets{Current: c.secret}, "amp.crew", c.id, time.Unix(0, 0), nil)
		if err == nil {
			t.Errorf("%s: signed as %v", c.name, h)
		} else if c.secret != testSecret && len(c.secret) > 6 && strings.Contains(err.Error(), c.secret) {
			t.Errorf("%s: the error shows the secret: %v", c.name, err)
		}
	}
}

func TestVerify(t *testing.T) {
	at := time.Unix(1736937000, 0)
	for _, c := range []struct {
		name   string
		change func(http.Header)
		secret string
		body   string
		late   time.Duration
		ok     bool
	}{
		{name: "as it was sent", ok: true},
		{name: "at the end of the tolerance", late: 5 * time.Minute, ok: true},
		{name: "too late", late: 5*time.Minute + time.Second},
		{name: "too early", late: -5*time.Minute - time.Second},
		{name: "another body", body: `{"a":2}`},
		{name: "another secret", secret: otherSecret},
		{name: "no headers", change: func(h http.Header) { clear(h) }},
		{name: "another id in one scheme", change: func(h http.Header) { h.Set("webhook-id", "del_2") }},
		{name: "another id in both", change: func(h http.Header) { h.Set("webhook-id", "del_2"); h.Set(HeaderDelivery, "del_2") }},
		{name: "another timestamp", change: func(h http.Header) { h.Set("webhook-timestamp", "1736937001"); h.Set(HeaderTimestamp, "1736937001") }},
		{name: "a timestamp that is no number", change: func(h http.Header) { h.Set("webhook-timestamp", "x"); h.Set(HeaderTimestamp, "x") }},
		{name: "no crewship signature", change: func(h http.Header) { h.Del(HeaderSignature) }},
		{name: "no standard signature", change: func(h http.Header) { h.Del("webhook-signature") }},
		{name: "a second standard signature", ok: true,
			change: func(h http.Header) { h.Set("webhook-signature", "v1,AAAA "+h.Get("webhook-signature")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := sign(t, testSecret, `{"a":1}`, at)
			if c.change != nil {
				c.change(h)
			}
			secret, body := testSecret, `{"a":1}`
			if c.secret != "" {
				secret = c.secret
			}
			if c.body != "" {
				body = c.body
			}
			if err := Verify(secret, h, []byte(body), at.Add(c.late)); (err == nil) != c.ok {
				t.Errorf("Verify: %v", err)
			}
		})
	}
}

func TestWhileASecretTakesAnothersPlaceBothAreGood(t *testing.T) {
	at, body := time.Unix(1736937000, 0), []byte(`{"a":1}`)
	h, err := Sign(Secrets{Current: testSecret, Old: otherSecret}, "run.succeeded", testID, at, body)
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{"the new one": testSecret, "the old one": otherSecret} {
		if err := Verify(secret, h, body, at); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Verify("whsec_BBBQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=", h, body, at); err == nil {
		t.Error("a third one is good too")
	}
	old, next := sign(t, otherSecret, string(body), at), sign(t, testSecret, string(body), at)
	if h.Get(HeaderSignature) != old.Get(HeaderSignature) || h.Get(HeaderNext) != next.Get(HeaderSignature) {
		t.Errorf("%s is not by the old one, or %s not by the new one: %v", HeaderSignature, HeaderNext, h)
	}
	if old.Values(HeaderNext) != nil {
		t.Errorf("there is %s when there is one secret", HeaderNext)
	}
	if h, err := Sign(Secrets{testSecret, "whsec_%%%"}, "run.succeeded", testID, at, body); err == nil {
		t.Errorf("signed by an old secret that is no base64: %v", h)
	}
}

func FuzzVerify(f *testing.F) {
	h, _ := Sign(Secrets{Current: testSecret}, "amp.crew", testID, time.Unix(1736937000, 0), []byte("{}"))
	f.Add(h.Get(HeaderDelivery), h.Get(HeaderTimestamp), h.Get(HeaderSignature), h.Get("webhook-signature"), []byte("{}"))
	f.Add("del_1", "-1", "sha256=", "v1, v1", []byte{})
	f.Fuzz(func(t *testing.T, id, timestamp, crewship, standard string, body []byte) {
		got := http.Header{}
		for name, value := range map[string]string{HeaderDelivery: id, "webhook-id": id, HeaderTimestamp: timestamp,
			"webhook-timestamp": timestamp, HeaderSignature: crewship, "webhook-signature": standard} {
			got.Set(name, value)
		}
		if Verify(testSecret, got, body, time.Unix(1736937000, 0)) == nil && (id != testID || crewship != h.Get(HeaderSignature) || string(body) != "{}") {
			t.Errorf("verified: %v %q", got, body)
		}
	})
}

func TestTheStandardWebhooksLibraryAgrees(t *testing.T) {
	hook, err := standardwebhooks.NewWebhook(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range signedBodies(t) {
		if err := hook.Verify([]byte(body), sign(t, testSecret, body, time.Now())); err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if hook.Verify([]byte(body+" "), sign(t, testSecret, body, time.Now())) == nil {
			t.Errorf("%s: another body is verified too", body)
		}
	}
}

// signedBodies are events whose output has what a receiver that writes JSON anew may spell in another way.
func signedBodies(t *testing.T) (bodies []string) {
	for _, output := range []string{
		`"plain"`, `"<b>&amp;</b> \u2028 \u00e9 \ud83d\ude00 \ud83d"`, `1.0`, `[1e21, 1e-7, -0.0, 0.1, 100000000000000000000]`,
		`{"b": 1, "2": 2, "1": 3, "b": 4}`, `"` + strings.Repeat("0123456789", 2000) + `"`, `null`,
	} {
		body, err := Canonical([]byte(`{"event": "run.succeeded", "data": {"run_id": "run_1", "output": {"result": ` + output + `}}}`))
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, string(body))
	}
	return bodies
}

// The users of seed 002 copied its receivers. The one in TypeScript verifies what it gets by parsing and writing the body.
func TestSeedReceivers(t *testing.T) {
	type sent struct {
		Secret  string            `json:"secret"`
		Headers map[string]string `json:"headers"`
		Body    string            `json:"body"`
	}
	var cases []sent
	var want []int
	for _, body := range signedBodies(t) {
		for _, secret := range []string{testSecret, otherSecret} {
			headers := map[string]string{}
			for name, values := range sign(t, testSecret, body, time.Now()) {
				headers[strings.ToLower(name)] = values[0]
			}
			cases = append(cases, sent{secret, headers, body})
			want = append(want, map[string]int{testSecret: 200, otherSecret: 401}[secret])
		}
	}
	input, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	wanted, _ := json.Marshal(want)
	for _, c := range []struct{ name, program, harness, receiver string }{
		{"TypeScript", "node", "testdata/seed/harness.mjs", withoutTypes(t, "testdata/seed/verify.ts")},
		{"Python", "python3", "testdata/seed/harness.py", "testdata/seed/verify.py"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(tool(t, c.program), c.harness, c.receiver)
			cmd.Stdin = bytes.NewReader(input)
			out, err := cmd.CombinedOutput()
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if got := strings.ReplaceAll(lines[len(lines)-1], " ", ""); err != nil || got != string(wanted) {
				t.Errorf("%v\n got %s\nwant %s\n%s", err, got, wanted, out)
			}
		})
	}
}

// withoutTypes makes JavaScript of TypeScript as plain as the seed's.
func withoutTypes(t *testing.T, file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "verify.mjs")
	if err := os.WriteFile(plain, regexp.MustCompile(`: (string|boolean)\b`).ReplaceAll(text, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	return plain
}

func BenchmarkSign(b *testing.B) {
	body := make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		Sign(Secrets{Current: testSecret}, "amp.crew", testID, time.Unix(0, 0), body)
	}
}
