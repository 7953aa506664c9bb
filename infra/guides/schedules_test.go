package guides

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"muster/infra"
	"muster/shared/app"
	"muster/shared/id"
	"muster/shared/invoke"
	"muster/shared/sqlite"
	"muster/shared/workspace"
)

// unix is a time some seconds from now.
func unix(seconds int) string {
	return strconv.FormatInt(time.Now().Unix()+int64(seconds), 10)
}

func TestSchedules(t *testing.T) {
	d := deploy(t, "date")
	s := d.shell(t).run(t, "schedules", "schedule.sh", "now.sh")
	if n := strings.Count(s.said[0], "T"); n != 3 {
		t.Errorf("the next firings are %s", s.said[0])
	}
	if r := d.started(t, map[string]any{"date": "today"}); r.Trigger != "schedule" {
		t.Errorf("it was started by %q", r.Trigger)
	}
}

// crontab is a line of a crontab as cron reads it.
func crontab(line string) (command, input string) {
	fields := regexp.MustCompile(`^(?:\S+\s+){5}`).FindString(line)
	var b strings.Builder
	rest := strings.TrimPrefix(line, fields)
	for i := 0; i < len(rest); i++ {
		switch {
		case rest[i] == '\\' && i+1 < len(rest) && rest[i+1] == '%':
			b.WriteByte('%')
			i++
		case rest[i] == '%':
			b.WriteByte('\n')
		default:
			b.WriteByte(rest[i])
		}
	}
	command, input, _ = strings.Cut(b.String(), "\n")
	return command, input
}

// cron runs the entries of a crontab once, with its variables.
func cron(t *testing.T, table string, replace *strings.Replacer) (out string, err error) {
	t.Helper()
	env := []string{"SHELL=/bin/sh"}
	for line := range strings.Lines(table) {
		line = replace.Replace(strings.TrimSuffix(line, "\n"))
		if name, value, ok := strings.Cut(line, "="); ok && !strings.Contains(name, " ") {
			env = append(env, name+"="+value)
			continue
		}
		command, input := crontab(line)
		if out, err = run(t, t.TempDir(), env, "sh", "-c", "printf '%s' \"$1\" | sh -c \"$0\"", command, input); err != nil {
			return out, err
		}
	}
	return out, nil
}

func TestCron(t *testing.T) {
	up(t)
	t.Run("the line of the guide", func(t *testing.T) {
		d := deploy(t, "date")
		url, _ := d.hook(t, nil)
		at := strings.NewReplacer("https://muster.example.com/webhooks/runs/mus_in_…", url)
		before := time.Now().Format(time.DateOnly)
		for range 2 { // two machines, say
			if out, err := cron(t, snippet(t, "schedules", "muster.crontab"), at); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		r := d.started(t, nil)
		if got := r.Input["date"]; got != before && got != time.Now().Format(time.DateOnly) {
			t.Errorf("the date is %v", got)
		}
	})
	t.Run("the line of seed 002 breaks in cron, and its body starts a run", func(t *testing.T) {
		d := deploy(t, "date")
		url, _ := d.hook(t, nil)
		at := strings.NewReplacer("https://api.crewship.dev/webhooks/runs/YOUR_TOKEN", url)
		line := snippet(t, "schedules", "seed.crontab")
		var entry string
		for part := range strings.Lines(string(seed(t, "crontab"))) {
			if !strings.HasPrefix(part, "#") {
				entry += strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(part), `\`)) + " "
			}
		}
		if strings.TrimSpace(entry) != strings.TrimSpace(line) {
			t.Errorf("the guide shows %q, the seed %q", line, entry)
		}
		if out, err := cron(t, line, at); err == nil {
			t.Errorf("cron ran it: %s", out)
		}
		if n := len(d.runs(t)); n != 0 {
			t.Errorf("%d runs were started", n)
		}
		fields := regexp.MustCompile(`^(?:\S+\s+){5}`).FindString(line)
		if out, err := run(t, t.TempDir(), nil, "sh", "-c", at.Replace(strings.TrimPrefix(line, fields))); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		d.started(t, map[string]any{"date": "$(date +%Y-%m-%d)"})
	})
}

// The CDK's bindings are for infra/cdk alone: its test synthesises the lines that are compared here.
func TestEventBridgeLinesAreThoseThatAreSynthesised(t *testing.T) {
	need(t)
	source, err := os.ReadFile(filepath.Join("..", "cdk", "schedule_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(snippet(t, "schedules", "schedule.go")) {
		if !strings.Contains(string(source), strings.TrimSpace(line)) {
			t.Errorf("infra/cdk does not synthesise the line %s", line)
		}
	}
}

// EventBridge invokes the function itself, which nothing outside of AWS can do to a running home. So this is its handler.
func TestEventBridge(t *testing.T) {
	need(t)
	db, err := sqlite.Open(filepath.Join(t.TempDir(), "muster.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	sealer, err := workspace.NewSealer(map[string][]byte{"test": make([]byte, 32)}, "test")
	if err != nil {
		t.Fatal(err)
	}
	a := app.New(app.Backends{
		Records: db.Records(), Runs: db.Queue(infra.Runs, sqlite.QueueOptions{}), Deliveries: db.Queue(infra.Deliveries, sqlite.QueueOptions{}), Sealer: sealer,
	})
	server := httptest.NewServer(a.HTTP())
	defer server.Close()
	h := &home{URL: server.URL}
	if h.WorkspaceToken, err = a.Tokens.Mint(t.Context(), workspace.Caller{Kind: workspace.Workspace, WorkspaceID: id.New()}); err != nil {
		t.Fatal(err)
	}
	d := h.deploy(t, "date")

	trigger := invoke.HTTPOr(a.HTTP(), a.Direct)
	for _, c := range []struct {
		name string
		runs int
	}{{"input.json", 1}, {"input.json", 1}, {"event.json", 2}, {"event.json", 2}} { // each is sent twice, and starts one run
		payload := strings.NewReplacer("dep_…", d.ID, "<aws.scheduler.execution-id>", "5f0c1b9e-6a53-4b3c-8f0d-2f5d3c7a9b11").Replace(snippet(t, "schedules", c.name))
		ctx := lambdacontext.NewContext(context.Background(), &lambdacontext.LambdaContext{AwsRequestID: id.New()})
		if answer, err := trigger.Invoke(ctx, []byte(payload)); err != nil || !strings.Contains(string(answer), `"run_id"`) {
			t.Errorf("%s: %v %s", c.name, err, answer)
		}
		var listed struct {
			Runs []startedRun `json:"runs"`
		}
		h.call(t, "GET", "/v1/runs", d.Token, nil, &listed)
		if len(listed.Runs) != c.runs {
			t.Errorf("after %s there are %d runs, want %d", c.name, len(listed.Runs), c.runs)
		}
	}
	if _, err := trigger.Invoke(t.Context(), []byte(`{"inputs": {}}`)); err == nil {
		t.Error("what cannot be started does not fail the invocation")
	}
}
