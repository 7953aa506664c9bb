package guides

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// step is what a pipeline runs.
type step struct {
	Env map[string]string `yaml:"env"`
	Run string            `yaml:"run"`
}

// expression finds what GitHub replaces before it runs a step.
var expression = regexp.MustCompile(`\$\{\{ *(.*?) *\}\}`)

// github runs a step as GitHub does: expressions replaced, with the variables that it sets.
func github(t *testing.T, one step, values map[string]string) (string, error) {
	t.Helper()
	replace := func(s string) string {
		return expression.ReplaceAllStringFunc(s, func(found string) string {
			value, known := values[expression.FindStringSubmatch(found)[1]]
			if !known {
				t.Errorf("the workflow wants %s", found)
			}
			return value
		})
	}
	summary := filepath.Join(t.TempDir(), "summary.md")
	s := &session{dir: t.TempDir(), env: []string{
		"GITHUB_SHA=" + values["github.sha"], "GITHUB_REF_NAME=" + values["github.ref_name"], "GITHUB_REPOSITORY=org/repo", "GITHUB_RUN_ID=1658821493",
		"GITHUB_RUN_ATTEMPT=1", "GITHUB_STEP_SUMMARY=" + summary,
	}}
	for name, value := range one.Env {
		s.env = append(s.env, name+"="+replace(value))
	}
	out, err := s.bash(t, "set -e\n"+replace(one.Run))
	said, _ := os.ReadFile(summary)
	return out + s.complained + string(said), err
}

// steps gives the steps of a workflow, or those of a part of one.
func steps(t *testing.T, text string) []step {
	t.Helper()
	if strings.HasPrefix(text, " ") {
		text = "jobs:\n  part:\n    steps:\n" + text
	}
	var workflow struct {
		Jobs map[string]struct {
			Steps []step `yaml:"steps"`
		} `yaml:"jobs"`
	}
	if err := yaml.Unmarshal([]byte(text), &workflow); err != nil {
		t.Fatal(err)
	}
	for _, job := range workflow.Jobs {
		return job.Steps
	}
	t.Fatal("the workflow has no job")
	return nil
}

func TestGitHubActions(t *testing.T) {
	const page = "ci"
	up(t)
	// A branch may be called almost anything.
	hostile := map[string]string{"github.sha": "59b20b8d", "github.ref_name": `"; exit 7; $(exit 7)'`}
	with := func(more map[string]string, base map[string]string) map[string]string {
		all := maps.Clone(base)
		maps.Copy(all, more)
		return all
	}
	t.Run("an incoming webhook", func(t *testing.T) {
		d := deploy(t, "commit", "branch")
		url, _ := d.hook(t, nil)
		one := steps(t, snippet(t, page, "webhook.yml"))[0]
		for range 2 { // the second is a repetition
			if out, err := github(t, one, with(map[string]string{"secrets.MUSTER_WEBHOOK_URL": url}, hostile)); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
		d.started(t, map[string]any{"commit": hostile["github.sha"], "branch": hostile["github.ref_name"]})
		if _, err := github(t, one, with(map[string]string{"secrets.MUSTER_WEBHOOK_URL": url + "x"}, hostile)); err == nil {
			t.Error("the job succeeds where no run was started")
		}
	})
	t.Run("the workflow of seed 002", func(t *testing.T) {
		d := deploy(t, "commit", "branch")
		url, _ := d.hook(t, nil)
		for _, text := range []string{snippet(t, page, "crewship.yml"), string(seed(t, "actions.yml"))} {
			out, err := github(t, steps(t, text)[0], map[string]string{"secrets.CREWSHIP_WEBHOOK_URL": url, "github.sha": "59b20b8d", "github.ref_name": "main"})
			if err != nil || !strings.Contains(out, `"status":"running"`) {
				t.Errorf("%v: %s", err, out)
			}
		}
		if n := len(d.runs(t)); n != 2 {
			t.Errorf("%d runs", n)
		}
	})
	t.Run("the AMP wire", func(t *testing.T) {
		d := deploy(t, "commit", "branch")
		values := with(map[string]string{"vars.MUSTER_URL": d.home.URL, "secrets.MUSTER_TOKEN": d.Token}, hostile)
		out, err := github(t, steps(t, snippet(t, page, "kickoff.yml"))[0], values)
		if err != nil || !strings.Contains(out, "true") {
			t.Errorf("%v: %s", err, out)
		}
		d.started(t, map[string]any{"commit": hostile["github.sha"], "branch": hostile["github.ref_name"]})
	})
	t.Run("the trigger of an agent", func(t *testing.T) {
		d := deploy(t)
		agent := d.agent(t)
		values := with(map[string]string{
			"vars.MUSTER_AGENT_URL": d.home.URL + "/api/v1/webhooks/" + d.ID + "/" + agent.ID + "/trigger", "secrets.MUSTER_AGENT_SECRET": agent.Secret,
			"github.event.workflow_run.html_url": "https://github.com/org/repo/actions/runs/7",
		}, hostile)
		for range 2 {
			if out, err := github(t, steps(t, snippet(t, page, "agent.yml"))[0], values); err != nil || !strings.Contains(out, `"accepted"`) {
				t.Errorf("%v: %s", err, out)
			}
		}
		d.started(t, nil)
	})
	t.Run("GitHub itself", func(t *testing.T) {
		d := deploy(t, "commit", "branch")
		hook := made(t, d.shell(t).run(t, page, "github.sh").said[0])
		opened := `{"action":"opened","number":7,"pull_request":{"title":"Ask","head":{"sha":"59b20b8d","ref":"ask"}}}`
		closed := strings.Replace(opened, "opened", "closed", 1)
		for _, c := range []struct {
			event, delivery, body string
			want                  int
		}{
			{"ping", "d0", `{"zen":"Keep it logically awesome."}`, http.StatusOK},
			{"pull_request", "d1", opened, http.StatusAccepted},
			{"pull_request", "d1", opened, http.StatusAccepted}, // sent again by hand
			{"pull_request", "d2", closed, http.StatusOK},
			{"push", "d3", `{"ref":"refs/heads/main"}`, http.StatusOK},
		} {
			if got, said := post(t, hook.URL, c.body, "X-GitHub-Event", c.event, "X-GitHub-Delivery", c.delivery,
				"X-Hub-Signature-256", "sha256="+sign(hook.Secret, c.body)); got != c.want {
				t.Errorf("%s %s: %d %s", c.event, c.delivery, got, said)
			}
		}
		if got, _ := post(t, hook.URL, opened, "X-GitHub-Event", "pull_request", "X-Hub-Signature-256", "sha256="+sign("x", opened)); got != http.StatusUnauthorized {
			t.Errorf("not signed by GitHub: %d", got)
		}
		d.started(t, map[string]any{"commit": "59b20b8d", "branch": "ask"})
	})
}

func TestGitLabCI(t *testing.T) {
	d := deploy(t, "commit", "branch")
	url, _ := d.hook(t, nil)
	var pipeline struct {
		Review struct {
			Script []string `yaml:"script"`
		} `yaml:"review"`
	}
	if err := yaml.Unmarshal([]byte(snippet(t, "ci", ".gitlab-ci.yml")), &pipeline); err != nil {
		t.Fatal(err)
	}
	env := []string{"CI_COMMIT_SHA=59b20b8d", "CI_COMMIT_REF_NAME=main", "CI_JOB_ID=42", "MUSTER_WEBHOOK_URL=" + url}
	for _, line := range pipeline.Review.Script {
		if out, err := run(t, t.TempDir(), env, "sh", "-ec", line); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	d.started(t, map[string]any{"commit": "59b20b8d", "branch": "main"})

	// What the last sentences say.
	d = deploy(t)
	url, secret := d.hook(t, map[string]any{"sender": "gitlab"})
	if got, said := post(t, url, `{"object_kind":"push"}`, "X-Gitlab-Event", "Push Hook", "X-Gitlab-Token", secret); got != http.StatusAccepted {
		t.Errorf("%d %s", got, said)
	}
}

func TestGrafana(t *testing.T) {
	d := deploy(t, "alert", "summary")
	s := d.shell(t).run(t, "grafana", "webhook.sh")
	hook := made(t, s.said[0])
	var provisioned struct {
		ContactPoints []struct {
			Receivers []struct {
				Type     string `yaml:"type"`
				Settings struct {
					URL        string `yaml:"url"`
					HTTPMethod string `yaml:"httpMethod"`
					HMACConfig struct {
						Secret          string `yaml:"secret"`
						Header          string `yaml:"header"`
						TimestampHeader string `yaml:"timestampHeader"`
					} `yaml:"hmacConfig"`
				} `yaml:"settings"`
			} `yaml:"receivers"`
		} `yaml:"contactPoints"`
	}
	// Grafana puts its environment into what it reads.
	text := strings.NewReplacer("$MUSTER_WEBHOOK_URL", hook.URL, "$MUSTER_WEBHOOK_SECRET", hook.Secret).Replace(snippet(t, "grafana", "contact-points.yaml"))
	if err := yaml.Unmarshal([]byte(text), &provisioned); err != nil {
		t.Fatal(err)
	}
	to := provisioned.ContactPoints[0].Receivers[0]
	if to.Type != "webhook" || to.Settings.HTTPMethod != http.MethodPost {
		t.Errorf("%+v", to)
	}
	c := to.Settings.HMACConfig
	for status, want := range map[string]int{"firing": http.StatusAccepted, "resolved": http.StatusOK} {
		body := string(mustJSON(t, map[string]any{
			"receiver": "muster", "status": status, "orgId": 1, "groupKey": "{}:{alertname=\"Slow checkout\"}", "version": "1",
			"alerts": []any{map[string]any{
				"status": status, "labels": map[string]any{"alertname": "Slow checkout", "team": "blue"},
				"annotations": map[string]any{"summary": "p99 above 2 s"}, "startsAt": "2026-11-23T09:51:03Z", "fingerprint": "c6eadffa33fcdf37",
			}},
		}))
		if got, said := post(t, to.Settings.URL, body, c.TimestampHeader, unix(0), c.Header, sign(c.Secret, unix(0)+":"+body)); got != want {
			t.Errorf("%s: %d %s", status, got, said)
		}
		if got, _ := post(t, to.Settings.URL, body, c.TimestampHeader, unix(-301), c.Header, sign(c.Secret, unix(-301)+":"+body)); got != http.StatusUnauthorized {
			t.Errorf("signed long ago: %d", got)
		}
	}
	r := d.started(t, map[string]any{"alert": `{}:{alertname="Slow checkout"}`})
	if got := string(mustJSON(t, r.Input["summary"])); got != `["Slow checkout: p99 above 2 s"]` {
		t.Errorf("the summary is %s", got)
	}
	s.run(t, "grafana", "receipts.sh").says(t, 0, `"receipts"`)

	d = deploy(t)
	url, _ := d.hook(t, map[string]any{"sender": "basic", "secret": "grafana:correct horse"})
	q, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	q.SetBasicAuth("grafana", "correct horse")
	if got, said := send(t, q); got != http.StatusAccepted {
		t.Errorf("with user and password: %d %s", got, said)
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// seed reads what the users of seed 002 copied from Crewship's documentation, word for word.
func seed(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "seed002", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}
