package guides

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/shared/guide"
)

// Whoever looks for a tool or a product finds it in the list of guides.
func TestEveryToolIsInATitle(t *testing.T) {
	var titles string
	for _, g := range guide.All() {
		titles += g.Title + "\n"
	}
	for _, name := range []string{
		"GitHub Actions", "GitLab CI", "Grafana", "cron", "EventBridge", "ActivePieces", "Zapier", "Make", "n8n", "Slack", "Discord", "Threads", "Watching",
		"CrewAI AMP", "crewship.dev", "self-hosted Crewship", "Receiving webhooks", "Troubleshooting",
	} {
		if !strings.Contains(titles, name) {
			t.Errorf("no guide has %q in its title:\n%s", name, titles)
		}
	}
}

func TestMovingFromCrewAIAMP(t *testing.T) {
	const page = "moving-from-crewai-amp"
	d := deployment{home: up(t)}
	s := d.shell(t)
	for _, name := range []string{"agents.yaml", "tasks.yaml"} {
		text, err := os.ReadFile(filepath.Join("testdata", "crew", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.run(t, page, "deploy.sh").says(t, 0, `"topic"`, `"audience"`)
	text, err := os.ReadFile(filepath.Join(s.dir, "deployment.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"client.py": snippet(t, page, "client.py")})
	out, err := run(t, dir, []string{"CREW_URL=" + d.home.URL, "CREW_TOKEN=" + d.Token}, "python3", "client.py")
	if err != nil || !strings.Contains(out, "SUCCESS") {
		t.Errorf("%v: %s", err, out)
	}
	d.started(t, map[string]any{"topic": "AI agents", "audience": "engineers"})
}

func TestMovingFromCrewshipDev(t *testing.T) {
	const page = "moving-from-crewship-dev"
	d := deploy(t, "topic")
	s := d.shell(t, "RECEIVER_URL="+up(t).URL+"/inbox/dashboard").run(t, page, "webhooks.sh", "runs.sh")
	s.says(t, 0, `"url"`, `"secret"`)
	s.says(t, 1, `"type":"run.completed"`, `"status":"succeeded"`)
	r := d.started(t, map[string]any{"topic": "AI agents"})
	if got := d.home.inbox(t, "dashboard"); !strings.Contains(got, r.ID) {
		t.Errorf("the receiver was told %s", got)
	}
}

func TestMovingFromTheSelfHostedCrewship(t *testing.T) {
	const page = "moving-from-crewship-self-hosted"
	d := deploy(t)
	s := d.shell(t).run(t, page, "trigger.sh", "runs.sh")
	s.says(t, 0, `"status":"accepted"`)
	s.says(t, 1, `"trigger_type":"WEBHOOK"`, d.started(t, nil).ID)
}

func TestTroubleshooting(t *testing.T) {
	const page = "troubleshooting"
	d := deploy(t)
	var hook struct{ ID string }
	d.home.call(t, "POST", "/v1/deployments/"+d.ID+"/webhooks/outgoing", d.Token, map[string]any{"url": "http://127.0.0.1:9/", "events": []string{"run.succeeded"}}, &hook)
	r := d.begin(t, nil)
	s := d.shell(t, "RUN="+r.ID, "WEBHOOK="+hook.ID).run(t, page, "look.sh", "deliveries.sh", "redrive.sh", "dead.sh", "prerequisite.sh")
	s.says(t, 0, r.ID, `"succeeded"`)
	s.says(t, 2, `"webhook_id":"`+hook.ID+`"`)
	s.says(t, 3, `"runs"`, `"deliveries"`)
	s.says(t, 4, "401")
}

func TestWithoutAPrerequisiteTheTriggerOfAgentsIsNotThere(t *testing.T) {
	var h home
	up(t)
	if err := h.start(t.TempDir(), "-without", "log-writer"); err != nil {
		t.Fatal(err)
	}
	defer h.close()
	h.deploy(t).shell(t).run(t, "troubleshooting", "prerequisite.sh").says(t, 0, "404")
}
