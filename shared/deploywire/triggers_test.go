package deploywire_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/shared/workspace"
)

// incoming makes an incoming webhook and gives the reply.
func (b *bench) incoming(token, deploymentID string, body object) object {
	b.t.Helper()
	return b.want(201, token, "POST", "/v1/deployments/"+deploymentID+"/webhooks/incoming", encode(body))
}

func TestIncomingWebhooks(t *testing.T) {
	t.Run("URL, token and a secret that was made are shown once", func(t *testing.T) {
		b := newBench(t)
		deploymentID, token := b.deploy("tea")
		made := b.incoming(token, deploymentID, object{"name": "pushes", "sender": "github", "filter": "body.ref == 'x'"})
		url, secret := made["url"].(string), made["secret"].(string)
		if url != "http://example.com/webhooks/runs/"+made["token"].(string) || !strings.HasPrefix(secret, "whsec_") {
			t.Errorf("got %v", made)
		}
		path := "/v1/webhooks/incoming/" + made["id"].(string)
		for _, name := range []string{"url", "token", "secret"} {
			delete(made, name)
		}
		made["last_used_at"], made["last_run_id"] = nil, nil
		b.check("it", b.want(200, token, "GET", path, ""), made)
		b.check("the list", b.want(200, token, "GET", "/v1/deployments/"+deploymentID+"/webhooks/incoming", ""), object{"webhooks": []any{made}, "next_cursor": nil})
	})
	t.Run("the URL says https where the front door does", func(t *testing.T) {
		b := newBench(t)
		deploymentID, token := b.deploy("tea")
		made := b.want(201, token, "POST", "/v1/deployments/"+deploymentID+"/webhooks/incoming", `{"name": "ci"}`, "X-Forwarded-Proto", "https")
		if !strings.HasPrefix(made["url"].(string), "https://example.com/webhooks/runs/mus_in_") || made["secret"] != nil || made["sender"] != "none" {
			t.Errorf("got %v", made)
		}
	})
	t.Run("a change names what it changes", func(t *testing.T) {
		b := newBench(t)
		deploymentID, token := b.deploy("tea")
		made := b.incoming(token, deploymentID, object{"name": "alerts", "sender": "grafana", "timestamp_header": "X-At", "secret": "open sesame"})
		path := "/v1/webhooks/incoming/" + made["id"].(string)
		got := b.want(200, token, "PATCH", path, `{"enabled": false, "name": "other", "filter": "true"}`)
		if got["enabled"] != false || got["name"] != "other" || got["filter"] != "true" || got["sender"] != "grafana" || got["timestamp_header"] != "X-At" || got["secret"] != nil {
			t.Errorf("got %v", got)
		}
		if got = b.want(200, token, "PATCH", path, `{"filter": null, "secret": null}`); got["filter"] != nil || !strings.HasPrefix(got["secret"].(string), "whsec_") {
			t.Errorf("got %v", got)
		}
		b.refuse(400, "bad_request", `"enabled" must be true or false, and it is a string.`, token, "PATCH", path, `{"enabled": "no"}`)
		b.refuse(400, "bad_request", `"filter" is not right: A filter must give true or false, and this gives int.`, token, "PATCH", path, `{"filter": "1"}`)
	})
	t.Run("who may not see the deployment finds nothing", func(t *testing.T) {
		b := newBench(t)
		deploymentID, token := b.deploy("tea")
		made := b.incoming(token, deploymentID, object{"name": "ci"})
		_, other := b.deploy("coffee")
		stranger := b.mint(workspace.Caller{Kind: workspace.Workspace, WorkspaceID: "01a20000-0000-7000-8000-00000000dead"})
		shown := made["id"].(string)
		for _, who := range []string{other, stranger} {
			for _, call := range [][2]string{{"GET", ""}, {"PATCH", ""}, {"DELETE", ""}, {"POST", "/regenerate"}} {
				b.refuse(404, "not_found", `There is no incoming webhook "`+shown+`".`, who, call[0], "/v1/webhooks/incoming/"+shown+call[1], "{}")
			}
		}
		b.refuse(404, "not_found", `There is no incoming webhook "inc_x".`, token, "GET", "/v1/webhooks/incoming/inc_x", "")
		b.refuse(404, "not_found", `There is no receipt "rec_x".`, token, "GET", "/v1/receipts/rec_x", "")
		b.refuse(400, "bad_request", `There is no status "lost"; there are [accepted duplicate ignored answered refused failed].`, token, "GET", "/v1/receipts?status=lost", "")
		b.refuse(400, "bad_request", `"since" must be a time like 2027-01-31T09:30:00Z.`, token, "GET", "/v1/receipts?since=monday", "")
		b.refuse(400, "bad_request", `There is no trigger "cron"; there are api, trigger, schedule, replay, and the ids of incoming webhooks.`, token, "GET", "/v1/runs?trigger=cron", "")
	})
	t.Run("a sender with a password is asked for it", func(t *testing.T) {
		b := newBench(t)
		deploymentID, token := b.deploy("tea")
		made := b.incoming(token, deploymentID, object{"name": "ci", "sender": "basic", "secret": "ci:open sesame"})
		w := b.call("", "POST", "/webhooks/runs/"+made["token"].(string), "{}")
		if w.Code != 401 || w.Header().Get("WWW-Authenticate") != `Basic realm="webhook"` || !strings.HasPrefix(w.Header().Get("Muster-Receipt"), "rec_") {
			t.Errorf("got %d %v", w.Code, w.Header())
		}
	})
	t.Run("Slack is answered 200, and told what to show", func(t *testing.T) {
		b := newBench(t)
		deploymentID, token := b.deploy("tea")
		made := b.incoming(token, deploymentID, object{"name": "slack", "sender": "slack", "secret": "8f742231b10e8888", "input": "{'company': 'us', 'topic': body.text}"})
		body, at := "command=%2Ftea&text=green", strconv.FormatInt(time.Now().Unix(), 10)
		mac := hmac.New(sha256.New, []byte("8f742231b10e8888"))
		mac.Write([]byte("v0:" + at + ":" + body))
		got := b.want(200, "", "POST", "/webhooks/runs/"+made["token"].(string), body, "Content-Type", "application/x-www-form-urlencoded", "Prefer", "respond-async",
			"X-Slack-Request-Timestamp", at, "X-Slack-Signature", "v0="+hex.EncodeToString(mac.Sum(nil)))
		if got["status"] != "pending" || got["text"] != "The run "+got["run_id"].(string)+" begins as soon as it can." {
			t.Errorf("got %v", got)
		}
	})
}
