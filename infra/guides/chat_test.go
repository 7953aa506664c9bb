package guides

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestTellingAChannel(t *testing.T) {
	d := deploy(t)
	d.shell(t, "SLACK_URL="+d.home.URL+"/inbox/slack", "DISCORD_URL="+d.home.URL+"/inbox/discord").run(t, "chat", "slack.sh", "discord.sh")
	r := d.begin(t, nil)
	for chat, has := range map[string]string{"slack": `"blocks"`, "discord": `"embeds"`} {
		if got := d.home.inbox(t, chat); !strings.Contains(got, has) || !strings.Contains(got, r.ID) {
			t.Errorf("%s was told %s", chat, got)
		}
	}
}

func TestStartingARunFromSlack(t *testing.T) {
	const secret = "8f742231b10e8888abcd99yyyzzz85a5"
	d := deploy(t, "topic")
	s := d.shell(t, "SLACK_SIGNING_SECRET="+secret).run(t, "chat", "command.sh", "mention.sh")
	command, mention := made(t, s.said[0]), made(t, s.said[1])
	from := func(to, kind, body, key string) (int, string) {
		return post(t, to, body, "Content-Type", kind, "X-Slack-Request-Timestamp", unix(0), "X-Slack-Signature", "v0="+sign(key, "v0:"+unix(0)+":"+body))
	}
	const form, asJSON = "application/x-www-form-urlencoded", "application/json"
	slash := url.Values{"command": {"/research"}, "text": {"queues & retries"}, "trigger_id": {"13345224609.738474920"}, "user_name": {"ada"}}.Encode()
	if got, said := from(command.URL, form, slash, secret); got != http.StatusOK || !strings.Contains(said, `"text":"The run run_`) {
		t.Errorf("a command: %d %s", got, said)
	}
	if got, said := from(command.URL, form, slash, secret); got/100 != 2 {
		t.Errorf("the command again: %d %s", got, said)
	}
	if got, _ := from(command.URL, form, slash, "another secret"); got != http.StatusUnauthorized {
		t.Errorf("not Slack's: %d", got)
	}
	d.started(t, map[string]any{"topic": "queues & retries"})

	if got, said := from(mention.URL, asJSON, `{"type":"url_verification","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}`, secret); got != http.StatusOK || !strings.Contains(said, "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P") {
		t.Errorf("the challenge: %d %s", got, said)
	}
	for _, id := range []string{"Ev1", "Ev1", "Ev2"} {
		body := `{"type":"event_callback","event_id":"` + id + `","event":{"type":"app_mention","text":"<@U1> what of ` + id + `?"}}`
		if got, said := from(mention.URL, asJSON, body, secret); got/100 != 2 {
			t.Errorf("a mention: %d %s", got, said)
		}
	}
	if n := len(d.runs(t)); n != 3 {
		t.Errorf("there are %d runs, want 3", n)
	}
}

func TestStartingARunFromDiscord(t *testing.T) {
	d := deploy(t, "topic")
	hook, _ := d.hook(t, nil)
	d.shell(t, "URL="+hook, "INTERACTION_ID=1181273451234567890").run(t, "chat", "bot.sh")
	d.started(t, map[string]any{"topic": "what somebody asked in Discord"})
}
