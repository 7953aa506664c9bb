package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

// way is one way to start a run: begin does it, and gives the run and how it was asked for.
type way struct {
	name  string
	crew  string
	begin func(ctx context.Context, d keptDeployment) (begun, error)
}

// begun is a run that was started. asked says by what, status is the answer's, 0 for what is no HTTP.
type begun struct {
	run, asked string
	status     int
}

// demoTriggers starts a run in every way there is, with what testevents (the directory) holds, and shows the stream of
// each.
func (h *home) demoTriggers(ctx context.Context, trigger lambda.Handler) error {
	h.say.line("Muster is up on %s. Each way to start a run, once:\n", h.here)
	ways, failed := h.ways(trigger), 0
	for i, w := range ways {
		if err := h.show(ctx, i+1, w); err != nil {
			failed++
			h.say.line("    FAILED: %v", err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d ways to start a run have failed", failed, len(ways))
	}
	h.say.line("%d ways, %d runs, and each has succeeded. How to set them up is in the guides, at /guides of any Muster.", len(ways), len(ways))
	return nil
}

// show goes one way.
func (h *home) show(ctx context.Context, n int, w way) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	i := slices.IndexFunc(h.kept.Deployments, func(d keptDeployment) bool { return d.Name == w.crew })
	if i < 0 {
		return fmt.Errorf("%s wants the crew %s; deploy it with -deploy", w.name, w.crew)
	}
	d := h.kept.Deployments[i]
	began := time.Now()
	b, err := w.begin(ctx, d)
	took := time.Since(began)
	if err != nil {
		h.say.line("%2d  %s", n, w.name)
		return err
	}
	answer := "invoked"
	if b.status > 0 {
		answer = strconv.Itoa(b.status)
	}
	h.say.line("%2d  %s: %s", n, w.name, b.asked)
	h.say.line("    %s in %d ms: %s of %s", answer, took.Milliseconds(), b.run, w.crew)
	return h.follow(ctx, d, b.run)
}

// message is a message of a stream, as far as it is shown.
type message struct {
	Type string `json:"type"`
	Data struct {
		Task   string          `json:"task"`
		Status string          `json:"status"`
		Error  string          `json:"error_message"`
		Output json.RawMessage `json:"output"`
	} `json:"data"`
}

// follow watches a run until it ends, and shows its stream: the tasks in their order with the tools that they used.
func (h *home) follow(ctx context.Context, d keptDeployment, run string) error {
	began := time.Now()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.here+"/v1/runs/"+run+"/events", nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+d.Token)
	r.Header.Set("Accept", "application/x-ndjson")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the stream of %s answered %d", run, response.StatusCode)
	}
	var tasks []string
	tools, messages := map[string]int{}, 0
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		var m message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return fmt.Errorf("read the stream of %s: %w", run, err)
		}
		messages++
		switch {
		case m.Type == "task.started":
			tasks = append(tasks, m.Data.Task)
		case m.Type == "tool_use" && m.Data.Status == "finished":
			tools[m.Data.Task]++
		case m.Type == "complete":
			for i, name := range tasks {
				if tools[name] > 0 {
					tasks[i] = fmt.Sprintf("%s (%d × tool)", name, tools[name])
				}
			}
			h.say.line("    started › %s › %s: %d messages in %d ms", strings.Join(tasks, " › "), m.Data.Status, messages, time.Since(began).Milliseconds())
			if m.Data.Status != "succeeded" {
				return errors.New(m.Data.Error)
			}
			var output struct {
				Result string `json:"result"`
			}
			err := json.Unmarshal(m.Data.Output, &output)
			h.say.line("    “%s”\n", short(output.Result))
			return err
		}
	}
	return errors.Join(lines.Err(), fmt.Errorf("the stream of %s has no end", run))
}

// The sample crews.
const (
	leads     = "lead-research"
	support   = "support-triage"
	incidents = "incident-review"
)

// ways lists them.
func (h *home) ways(trigger lambda.Handler) []way {
	return []way{
		{"CrewAI AMP", leads, h.byKickoff},
		{"crewship.dev", leads, h.byRuns},
		{"incoming webhook, by curl", leads, h.byHook("curl", nil, nil)},
		{"GitHub, an issue", support, h.byHook("github", map[string]any{
			"sender": "github", "filter": "body.action == 'opened'",
			"input": "{'product': body.repository.name, 'period': body.issue.created_at, 'tickets': body.issue.title + ': ' + body.issue.body}",
		}, hexOf(""))},
		{"GitLab, an issue", support, h.byHook("gitlab", map[string]any{
			"sender": "gitlab",
			"input":  "{'product': body.project.name, 'period': body.object_attributes.created_at, 'tickets': body.object_attributes.description}",
		}, standard("7c2d6f0b-51a4-4e57-9c64-3b1f6d2a8e90"))},
		{"Slack, a slash command", support, h.byHook("slack", map[string]any{
			"sender": "slack", "secret": "8f742231b10e8888abcd99yyyzzz85a5",
			"input": "{'product': 'Plannerly', 'period': 'today', 'tickets': body.user_name + ' writes: ' + body.text}",
		}, hexOf("v0:{timestamp}:"))},
		{"Stripe, a dispute", support, h.byHook("stripe", map[string]any{
			"sender": "stripe", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "filter": "body.type.startsWith('charge.dispute.')",
			"input": "{'product': 'Plannerly', 'period': 'today', 'tickets': 'A card was charged twice: dispute ' + body.data.object.id + ', reason ' + body.data.object.reason}",
		}, hexOf("{timestamp}."))},
		{"Standard Webhooks, a helpdesk", support, h.byHook("standard", map[string]any{
			"sender": "standard", "input": "{'product': 'Plannerly', 'period': body.timestamp, 'tickets': body.data.from + ': ' + body.data.text}",
		}, standard("msg_2mZx7fV3cT0aKq9rYb"))},
		{"Grafana, an alert", incidents, h.byHook("grafana", map[string]any{
			"sender": "grafana", "timestamp_header": "X-Grafana-Alerting-Timestamp", "filter": "body.status == 'firing'",
			"input": "{'service': body.commonLabels.service, 'incident_log': body.alerts.map(a, a.startsAt + ' ' + a.annotations.summary)}",
		}, hexOf("{timestamp}:"))},
		{"any HMAC, a form", leads, h.byHook("form", map[string]any{
			"sender": "generic-hmac", "signature_header": "X-Formbox-Signature", "signature_prefix": "sha256=",
		}, hexOf(""))},
		{"user and password, a monitor", incidents, h.byHook("basic", map[string]any{
			"sender": "basic", "input": "{'service': body.check, 'incident_log': body.since + ' ' + body.output}",
		}, password)},
		{"the trigger of an agent", support, h.byAgent},
		{"a schedule, run now", leads, h.bySchedule},
		{"EventBridge, a schedule", leads, h.byInvocation(trigger, "schedule.json")},
		{"EventBridge, a rule", leads, h.byInvocation(trigger, "event.json")},
		{"a thread", leads, h.byThread},
	}
}

// event reads the body of a request of testevents, or all of it where it is none.
func (h *home) event(name string) (json.RawMessage, error) {
	text, err := os.ReadFile(filepath.Join(h.triggers, name))
	if err != nil {
		return nil, err
	}
	var request struct {
		Body *string `json:"body"`
	}
	if err := json.Unmarshal(text, &request); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if request.Body != nil {
		return json.RawMessage(*request.Body), nil
	}
	return text, nil
}

// inputs gives the inputs of testevents' kickoff.
func (h *home) inputs() (json.RawMessage, error) {
	var kickoff struct {
		Inputs json.RawMessage `json:"inputs"`
	}
	body, err := h.event("kickoff/kickoff.json")
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(body, &kickoff)
	return kickoff.Inputs, err
}

func (h *home) byKickoff(ctx context.Context, d keptDeployment) (begun, error) {
	body, err := h.event("kickoff/kickoff.json")
	if err != nil {
		return begun{}, err
	}
	var kickoff map[string]any
	if err := json.Unmarshal(body, &kickoff); err != nil {
		return begun{}, err
	}
	// Its webhooks lead to nobody who is there.
	maps.DeleteFunc(kickoff, func(field string, _ any) bool { return field != "inputs" && field != "meta" })
	var started struct {
		ID string `json:"kickoff_id"`
	}
	err = h.call(ctx, "POST", "/kickoff", d.Token, kickoff, &started)
	return begun{started.ID, "POST /kickoff", http.StatusOK}, err
}

// started is the answer of what starts a run.
type started struct {
	RunID string `json:"run_id"`
}

func (h *home) byRuns(ctx context.Context, d keptDeployment) (begun, error) {
	inputs, err := h.inputs()
	if err != nil {
		return begun{}, err
	}
	var s started
	err = h.call(ctx, "POST", "/v1/runs", d.Token, map[string]any{"deployment_id": d.ID, "input": inputs}, &s)
	return begun{s.RunID, "POST /v1/runs", http.StatusAccepted}, err
}

func (h *home) bySchedule(ctx context.Context, d keptDeployment) (begun, error) {
	inputs, err := h.inputs()
	if err != nil {
		return begun{}, err
	}
	var made struct {
		ID string `json:"id"`
	}
	path := "/v1/deployments/" + d.ID + "/schedules"
	schedule := map[string]any{"expression": "cron(0 9 ? * MON-FRI *)", "timezone": "Europe/Berlin", "inputs": inputs}
	if err := h.call(ctx, "POST", path, d.Token, schedule, &made); err != nil {
		return begun{}, err
	}
	var s started
	err = h.call(ctx, "POST", path+"/"+made.ID+"/run", d.Token, struct{}{}, &s)
	return begun{s.RunID, "cron(0 9 ? * MON-FRI *), Europe/Berlin", http.StatusAccepted}, err
}

func (h *home) byThread(ctx context.Context, d keptDeployment) (begun, error) {
	inputs, err := h.inputs()
	if err != nil {
		return begun{}, err
	}
	var thread struct {
		ID string `json:"thread_id"`
	}
	if err := h.call(ctx, "POST", "/v1/threads", d.Token, map[string]any{"deployment_id": d.ID, "values": inputs}, &thread); err != nil {
		return begun{}, err
	}
	var s started
	err = h.call(ctx, "POST", "/v1/threads/"+thread.ID+"/runs", d.Token, map[string]any{"input": map[string]any{"company": "Northwind Freight"}}, &s)
	return begun{s.RunID, "POST /v1/threads/thr_…/runs", http.StatusAccepted}, err
}

// deploymentID finds the deployment that an event is for.
var deploymentID = regexp.MustCompile(`dep_[0-9a-f]+`)

// byInvocation invokes the function itself, as EventBridge does, with an event of testevents.
func (h *home) byInvocation(trigger lambda.Handler, name string) func(context.Context, keptDeployment) (begun, error) {
	return func(ctx context.Context, d keptDeployment) (begun, error) {
		event, err := h.event("trigger/" + name)
		if err != nil {
			return begun{}, err
		}
		event = deploymentID.ReplaceAll(event, []byte(d.ID))
		answer, err := trigger.Invoke(ctx, event)
		if err != nil {
			return begun{}, err
		}
		var s started
		err = json.Unmarshal(answer, &s)
		return begun{run: s.RunID, asked: "the function trigger, with " + name}, err
	}
}
