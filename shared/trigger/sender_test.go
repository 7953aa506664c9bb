package trigger_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/shared/fault"
	"muster/shared/trigger"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func mac(key, text string) []byte {
	h := hmac.New(sha256.New, []byte(key))
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hexMAC(key, text string) string { return hex.EncodeToString(mac(key, text)) }

func seconds(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

// headers are name and value in turn.
func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func TestVerify(t *testing.T) {
	const (
		secret = "8f742231b10e8888abcd99yyyzzz85a5"
		body   = `{"action":"opened"}`
		whsec  = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	)
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(whsec, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	now, old, ahead := seconds(noon), seconds(noon.Add(-301*time.Second)), seconds(noon.Add(301*time.Second))
	standard := func(at string) http.Header {
		return headers("Webhook-Id", "msg_1", "Webhook-Timestamp", at, "Webhook-Signature",
			"v1,bm90IHRoaXMgb25l v1,"+base64.StdEncoding.EncodeToString(mac(string(key), "msg_1."+at+"."+body)))
	}
	slack := func(at string) http.Header {
		return headers("X-Slack-Request-Timestamp", at, "X-Slack-Signature", "v0="+hexMAC(secret, "v0:"+at+":"+body))
	}
	stripe := func(at string) http.Header {
		return headers("Stripe-Signature", "t="+at+",v1="+strings.Repeat("0", 64)+",v1="+hexMAC(secret, at+"."+body)+",v0=x")
	}
	grafana := trigger.Sender{Scheme: trigger.Grafana, TimestampHeader: "X-Grafana-Alerting-Timestamp"}
	timed := func(at string) http.Header {
		return headers("X-Grafana-Alerting-Timestamp", at, "X-Grafana-Alerting-Signature", hexMAC(secret, at+":"+body))
	}
	for _, test := range []struct {
		name   string
		sender trigger.Sender
		secret string
		header http.Header
		want   string // "" when it is the sender's
	}{
		{"anybody", trigger.Sender{Scheme: trigger.None}, "", headers(), ""},

		{"GitHub", trigger.Sender{Scheme: trigger.GitHub}, secret, headers("X-Hub-Signature-256", "sha256="+hexMAC(secret, body)), ""},
		{"GitHub with another secret", trigger.Sender{Scheme: trigger.GitHub}, secret, headers("X-Hub-Signature-256", "sha256="+hexMAC("x", body)), "The header X-Hub-Signature-256 does not match."},
		{"GitHub in upper case", trigger.Sender{Scheme: trigger.GitHub}, secret, headers("X-Hub-Signature-256", "sha256="+strings.ToUpper(hexMAC(secret, body))), "The header X-Hub-Signature-256 does not match."},
		{"GitHub without its prefix", trigger.Sender{Scheme: trigger.GitHub}, secret, headers("X-Hub-Signature-256", hexMAC(secret, body)), `The header X-Hub-Signature-256 does not begin with "sha256=".`},
		{"GitHub without a signature", trigger.Sender{Scheme: trigger.GitHub}, secret, headers(), "The header X-Hub-Signature-256 is missing."},

		{"GitLab by its token", trigger.Sender{Scheme: trigger.GitLab}, secret, headers("X-Gitlab-Token", secret), ""},
		{"GitLab by another token", trigger.Sender{Scheme: trigger.GitLab}, secret, headers("X-Gitlab-Token", secret+"x"), "The header X-Gitlab-Token does not match."},
		{"GitLab without a token", trigger.Sender{Scheme: trigger.GitLab}, secret, headers(), "The header X-Gitlab-Token is missing."},
		{"GitLab by its signature", trigger.Sender{Scheme: trigger.GitLab}, whsec, standard(now), ""},
		{"GitLab by a wrong signature and the right token", trigger.Sender{Scheme: trigger.GitLab}, whsec, headers("X-Gitlab-Token", whsec, "Webhook-Signature", "v1,x", "Webhook-Id", "1", "Webhook-Timestamp", now), "The signature does not hold: Webhook-Signature does not match."},

		{"Slack", trigger.Sender{Scheme: trigger.Slack}, secret, slack(now), ""},
		{"Slack of five minutes ago", trigger.Sender{Scheme: trigger.Slack}, secret, slack(old), "The timestamp in X-Slack-Request-Timestamp is more than five minutes off."},
		{"Slack of the future", trigger.Sender{Scheme: trigger.Slack}, secret, slack(ahead), "The timestamp in X-Slack-Request-Timestamp is more than five minutes off."},
		{"Slack without a time", trigger.Sender{Scheme: trigger.Slack}, secret, headers("X-Slack-Signature", "v0=x"), "The timestamp in X-Slack-Request-Timestamp is missing, or not a number of seconds."},
		{"Slack with another time than was signed", trigger.Sender{Scheme: trigger.Slack}, secret, headers("X-Slack-Request-Timestamp", seconds(noon.Add(time.Second)), "X-Slack-Signature", slack(now).Get("X-Slack-Signature")), "The header X-Slack-Signature does not match."},

		{"Stripe, one of two signatures", trigger.Sender{Scheme: trigger.Stripe}, secret, stripe(now), ""},
		{"Stripe of five minutes ago", trigger.Sender{Scheme: trigger.Stripe}, secret, stripe(old), "The timestamp in Stripe-Signature is more than five minutes off."},
		{"Stripe with nothing but a time", trigger.Sender{Scheme: trigger.Stripe}, secret, headers("Stripe-Signature", "t="+now), "The header Stripe-Signature does not match."},
		{"Stripe without a signature", trigger.Sender{Scheme: trigger.Stripe}, secret, headers(), "The header Stripe-Signature is missing."},

		{"Standard Webhooks", trigger.Sender{Scheme: trigger.Standard}, whsec, standard(now), ""},
		{"Standard Webhooks of five minutes ago", trigger.Sender{Scheme: trigger.Standard}, whsec, standard(old), "The signature does not hold: the timestamp is more than five minutes off."},

		{"Grafana", trigger.Sender{Scheme: trigger.Grafana}, secret, headers("X-Grafana-Alerting-Signature", hexMAC(secret, body)), ""},
		{"Grafana with a time", grafana, secret, timed(now), ""},
		{"Grafana of five minutes ago", grafana, secret, timed(old), "The timestamp in X-Grafana-Alerting-Timestamp is more than five minutes off."},
		{"Grafana that leaves the time out", grafana, secret, headers("X-Grafana-Alerting-Signature", hexMAC(secret, body)), "The timestamp in X-Grafana-Alerting-Timestamp is missing, or not a number of seconds."},

		{"a signature in base64 in a header of one's own", trigger.Sender{Scheme: trigger.HMAC, Header: "X-Mine", Prefix: "h=", Encoding: "base64"}, secret, headers("X-Mine", "h="+base64.StdEncoding.EncodeToString(mac(secret, body))), ""},
		{"a signature of one's own that is wrong", trigger.Sender{Scheme: trigger.HMAC, Header: "X-Mine", Encoding: "hex"}, secret, headers("X-Mine", hexMAC(secret, body+" ")), "The header X-Mine does not match."},

		{"user and password", trigger.Sender{Scheme: trigger.Basic}, "ci:open sesame", headers("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("ci:open sesame"))), ""},
		{"another password", trigger.Sender{Scheme: trigger.Basic}, "ci:open sesame", headers("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("ci:open"))), "The header Authorization does not match."},
		{"a bearer token for a password", trigger.Sender{Scheme: trigger.Basic}, "ci:open sesame", headers("Authorization", "Bearer x"), "The request has no user and password."},
		{"a scheme that nobody knows", trigger.Sender{Scheme: "carrier-pigeon"}, secret, headers(), "The sender of this webhook is not known."},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := test.sender.Verify(test.secret, test.header, []byte(body), noon)
			if test.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				if test.secret == "" {
					return
				}
				if _, err := test.sender.Verify(test.secret+"A", test.header, []byte(body), noon); err == nil {
					t.Error("another secret is as good")
				}
				if _, err := test.sender.Verify(test.secret, test.header, []byte(body+" "), noon); err == nil && test.sender.Scheme != trigger.Basic && test.header.Get("X-Gitlab-Token") == "" {
					t.Error("another body is as good")
				}
				return
			}
			if !fault.Is(err, fault.Unauthorized) || fault.Message(err) != test.want {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func FuzzVerify(f *testing.F) {
	f.Add("t=1,v1=a", "1", `{}`)
	f.Add("v1,a v1,b", "9223372036854775807", "")
	f.Add("Basic Og==", "-9223372036854775808", "x")
	f.Fuzz(func(t *testing.T, signature, at, body string) {
		for _, scheme := range trigger.Schemes[1:] {
			s := trigger.Sender{Scheme: scheme, Header: "X-Signature", Encoding: "hex"}
			h := headers("X-Hub-Signature-256", signature, "X-Gitlab-Token", signature, "X-Slack-Signature", signature, "X-Slack-Request-Timestamp", at,
				"Stripe-Signature", signature, "Webhook-Signature", signature, "Webhook-Id", "1", "Webhook-Timestamp", at,
				"X-Grafana-Alerting-Signature", signature, "X-Signature", signature, "Authorization", signature)
			if _, err := s.Verify("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", h, []byte(body), noon); !fault.Is(err, fault.Unauthorized) {
				t.Errorf("%s let %q of %q in: %v", scheme, signature, at, err)
			}
		}
	})
}
