package deploywire_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"muster/events"
	"muster/shared/deploywire"
	"muster/shared/run"
	"muster/shared/webhook"
)

const (
	told       = "0190e2a4-7d1c-7c3e-8f00-5f3f9d0b8a11"
	deployment = "0190e2a4-7d1c-7c3e-8f00-5f3f9d0b8a12"
)

var (
	tellingBegan = time.Date(2025, 1, 15, 10, 29, 15, 0, time.UTC)
	tellingEnded = time.Date(2025, 1, 15, 10, 30, 0, 0, time.UTC)
	tellingRun   = run.Run{ID: told, DeploymentID: deployment, StartedAt: tellingBegan}
	everything   = run.Target{Kind: run.EndpointTarget, Events: []string{"*"}}
)

func endPage(o run.Outcome) run.Page {
	return run.Page{Seq: 9, Kind: run.EndPage, At: tellingEnded, Outcome: &o}
}

func TestOutgoingBodies(t *testing.T) {
	const who = `"run_id":"run_0190e2a47d1c7c3e8f005f3f9d0b8a11","deployment_id":"dep_0190e2a47d1c7c3e8f005f3f9d0b8a12"`
	const began = `"started_at":"2025-01-15T10:29:15.000Z"`
	const ended = `"completed_at":"2025-01-15T10:30:00.000Z"`
	// What JavaScript would write in another way than Go: see the outputs of issue 4.
	hard := run.Outcome{State: run.Succeeded, Result: "<b>&</b> 🎉 \u2028", JSON: json.RawMessage(`{"b":1.0,"2":1e21,"1":"<>&","a":[0.1e-7]}`)}
	started := run.Page{Seq: 1, Kind: run.MarkPage, At: tellingEnded, Events: []events.Event{{ID: "e1", N: 1, At: tellingBegan, Type: "crew_kickoff_started"}}}
	for _, c := range []struct {
		name   string
		q      run.Request
		page   run.Page
		events []string
		want   []string
		names  string
	}{
		{"a success, as the seed shows it", run.Request{}, endPage(run.Outcome{State: run.Succeeded, Result: "Your crew output here..."}), []string{"run.succeeded"},
			[]string{`{"event":"run.succeeded","timestamp":"2025-01-15T10:30:00.000Z","data":{` + who + `,"status":"succeeded","output":{"result":"Your crew output here..."},` + began + `,` + ended + `}}`}, "run.succeeded"},
		{"a success with JSON, and what the kickoff calls meta", run.Request{Meta: json.RawMessage(`{"x": 1.0, "2":2, "1":1}`)}, endPage(hard), []string{"run.succeeded", "run.failed"},
			[]string{`{"event":"run.succeeded","timestamp":"2025-01-15T10:30:00.000Z","data":{` + who + `,"status":"succeeded","output":{"result":"<b>&</b> 🎉 ` + "\u2028" + `","result_json":{"1":"<>&","2":1e+21,"b":1,"a":[1e-8]}},` + began + `,` + ended + `,"meta":{"1":1,"2":2,"x":1}}}`}, "run.succeeded"},
		{"a failure", run.Request{}, endPage(run.Outcome{State: run.Failed, Error: "It broke."}), []string{"*"},
			[]string{`{"event":"run.failed","timestamp":"2025-01-15T10:30:00.000Z","data":{` + who + `,"status":"failed","output":null,` + began + `,` + ended + `,"error_message":"It broke."}}`}, "run.failed"},
		{"a run out of time has failed", run.Request{}, endPage(run.Outcome{State: run.TimedOut, Error: "Too slow."}), []string{"run.failed"},
			[]string{`{"event":"run.failed","timestamp":"2025-01-15T10:30:00.000Z","data":{` + who + `,"status":"failed","output":null,` + began + `,` + ended + `,"error_message":"Too slow."}}`}, "run.failed"},
		{"a canceled run sends nothing else", run.Request{}, endPage(run.Outcome{State: run.Canceled, Error: "Stopped."}), []string{"run.failed", "run.succeeded", "run.canceled"},
			[]string{`{"event":"run.canceled","timestamp":"2025-01-15T10:30:00.000Z","data":{` + who + `,"status":"canceled","output":null,` + began + `,` + ended + `}}`}, "run.canceled"},
		{"a beginning", run.Request{}, started, []string{"run.started"},
			[]string{`{"event":"run.started","timestamp":"2025-01-15T10:29:15.000Z","data":{` + who + `,"status":"running","output":null,` + began + `,"completed_at":null}}`}, "run.started"},
		{"a question", run.Request{}, run.Page{Seq: 3, Kind: run.QuestionPage, At: tellingEnded, Asked: &run.Asked{ID: "apr_1", Round: 2, Task: run.TaskOutput{Name: "draft", Raw: "text"}}}, []string{"run.waiting"},
			[]string{`{"event":"run.waiting","timestamp":"2025-01-15T10:30:00.000Z","data":{` + who + `,"status":"running","output":null,` + began + `,"completed_at":null,"approval":{"id":"apr_1","task":"draft","output":"text","round":2,"expires_at":null}}}`}, "run.waiting"},
		{"what is not asked for", run.Request{}, endPage(hard), []string{"run.failed", "task_completed"}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bodies, err := deploywire.Outgoing(tellingRun, c.q, c.page, run.Target{Kind: run.EndpointTarget, Events: c.events}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got, names []string
			for _, b := range bodies {
				got, names = append(got, string(b.JSON)), append(names, b.Event)
			}
			if diff := cmp.Diff(c.want, got); diff != "" || strings.Join(names, " ") != c.names {
				t.Errorf("%v (-want +got):\n%s", names, diff)
			}
		})
	}
}

func TestOutgoingBodiesOfTheCatalogue(t *testing.T) {
	page := run.Page{Seq: 1, Kind: run.MarkPage, At: tellingEnded, Events: []events.Event{
		{ID: "e1", N: 1, At: tellingBegan, Type: "crew_kickoff_started", Data: json.RawMessage(`{"crew_name":"c"}`)},
		{ID: "e2", N: 2, At: tellingBegan, Type: "order.shipped", Data: json.RawMessage(`{"run_id":"run_of_another","meta":"its own","10":1,"9":2}`)},
		{ID: "e3", N: 3, At: tellingBegan, Type: "llm_stream_chunk"},
	}}
	bodies, err := deploywire.Outgoing(tellingRun, run.Request{Meta: json.RawMessage(`7`)}, page, everything, nil)
	if err != nil || len(bodies) != 3 {
		t.Fatalf("%d bodies, %v; want run.started and two events, for chunks are asked for by name", len(bodies), err)
	}
	var names []string
	for i, b := range bodies {
		names = append(names, b.Event)
		var body struct {
			Event, Timestamp string
			Data             struct {
				RunID string          `json:"run_id"`
				Meta  json.RawMessage `json:"meta"`
				N     int             `json:"emission_sequence"`
			}
		}
		if err := json.Unmarshal(b.JSON, &body); err != nil || body.Event != b.Event || body.Timestamp == "" || body.Data.RunID != "run_0190e2a47d1c7c3e8f005f3f9d0b8a11" {
			t.Errorf("%s (%v)", b.JSON, err)
		}
		if want := []string{"7", "7", `"its own"`}[i]; string(body.Data.Meta) != want || body.Data.N != i {
			t.Errorf("meta is %s, want %s; number %d", body.Data.Meta, want, body.Data.N)
		}
		isCanonical(t, b.JSON)
	}
	if diff := cmp.Diff([]string{"run.started", "crew_kickoff_started", "order.shipped"}, names); diff != "" {
		t.Error(diff)
	}
	if bodies, err := deploywire.Outgoing(tellingRun, run.Request{}, page, run.Target{Kind: run.EndpointTarget, Events: []string{"llm_stream_chunk"}}, nil); err != nil || len(bodies) != 1 {
		t.Errorf("%d bodies for chunks, %v", len(bodies), err)
	}
}

// A body is what JavaScript writes after it has read it.
func isCanonical(t *testing.T, body []byte) {
	t.Helper()
	if again, err := webhook.Canonical(body); err != nil || string(again) != string(body) {
		t.Errorf("%v: %s is written again as %s", err, body, again)
	}
}

func TestBodiesForChats(t *testing.T) {
	page := endPage(run.Outcome{State: run.Succeeded, Result: strings.Repeat("<!channel> @everyone & 🎉 ", 1000)})
	page.Events = []events.Event{{ID: "e", At: tellingEnded, Type: "task_completed", Identity: events.Identity{TaskName: "draft", AgentRole: "Writer"}}}
	slack, err := deploywire.Slack(tellingRun, run.Request{}, page, everything, nil)
	if err != nil || len(slack) != 2 {
		t.Fatalf("%d bodies, %v", len(slack), err)
	}
	for _, b := range slack {
		isCanonical(t, b.JSON)
		var body struct {
			Text   string
			Blocks []struct {
				Type     string
				Text     struct{ Type, Text string }
				Elements []struct{ Type, Text string }
			}
		}
		if err := json.Unmarshal(b.JSON, &body); err != nil || body.Text == "" || len(body.Blocks) == 0 || len(body.Blocks) > 50 {
			t.Fatalf("%s (%v)", b.JSON, err)
		}
		for _, block := range body.Blocks {
			texts := []string{block.Text.Text}
			for _, e := range block.Elements {
				texts = append(texts, e.Text)
			}
			for _, text := range texts {
				if strings.ContainsAny(text, "<>") || length(text) > 3000 || (block.Type == "section" && text == "") {
					t.Errorf("a %s of %d characters: %.100s", block.Type, length(text), text)
				}
			}
		}
	}
	if !strings.Contains(string(slack[0].JSON), "Run succeeded") || !strings.Contains(string(slack[1].JSON), "draft, Writer") {
		t.Errorf("%.300s\n%s", slack[0].JSON, slack[1].JSON)
	}

	discord, err := deploywire.Discord(tellingRun, run.Request{}, page, everything, nil)
	if err != nil || len(discord) != 2 {
		t.Fatalf("%d bodies, %v", len(discord), err)
	}
	for _, b := range discord {
		isCanonical(t, b.JSON)
		var body struct {
			Content string
			Embeds  []struct {
				Title, Description, Timestamp string
				Footer                        struct{ Text string }
			}
			AllowedMentions struct{ Parse []string } `json:"allowed_mentions"`
		}
		if err := json.Unmarshal(b.JSON, &body); err != nil || len(body.Embeds) != 1 || body.AllowedMentions.Parse == nil || len(body.AllowedMentions.Parse) != 0 {
			t.Fatalf("%s (%v)", b.JSON, err)
		}
		e := body.Embeds[0]
		if n := length(body.Content); n == 0 || n > 2000 || length(e.Title) > 256 || length(e.Description) > 4096 || length(e.Title+e.Description+e.Footer.Text) > 6000 {
			t.Errorf("content %d, title %d, description %d", n, length(e.Title), length(e.Description))
		}
	}
}

func length(s string) int { return len(utf16.Encode([]rune(s))) }

func TestChatsAreCutWhereNothingBreaks(t *testing.T) {
	for n := 2990; n < 3010; n++ {
		for _, filler := range []string{"x", "&", "🎉"} {
			page := endPage(run.Outcome{State: run.Failed, Error: strings.Repeat("x", n%7) + strings.Repeat(filler, n)})
			bodies, err := deploywire.Slack(tellingRun, run.Request{}, page, everything, nil)
			if err != nil || len(bodies) != 1 {
				t.Fatal(err)
			}
			var body struct {
				Blocks []struct{ Text struct{ Text string } }
			}
			if err := json.Unmarshal(bodies[0].JSON, &body); err != nil {
				t.Fatal(err)
			}
			text := body.Blocks[1].Text.Text
			if rest := strings.ReplaceAll(text, "&amp;", ""); length(text) > 3000 || strings.Contains(rest, "&") || strings.Contains(text, "\ufffd") {
				t.Fatalf("%d of %s: %d characters, ends in %q", n, filler, length(text), text[len(text)-10:])
			}
		}
	}
}

func TestNoticesInEveryFormat(t *testing.T) {
	about := webhook.Endpoint{ID: told, DeploymentID: deployment, Environment: "production", Name: "<orders>", URL: "https://example.com/secret"}
	const id = `"endpoint_id":"wh_0190e2a47d1c7c3e8f005f3f9d0b8a11","deployment_id":"dep_0190e2a47d1c7c3e8f005f3f9d0b8a12","environment":"production","name":"<orders>"`
	body, err := deploywire.Notice(webhook.Crewship, webhook.Notice{ID: told, Event: "ping", At: tellingEnded, About: about})
	if want := `{"event":"ping","timestamp":"2025-01-15T10:30:00.000Z","data":{` + id + `,"message":"This is a test."}}`; err != nil || string(body) != want {
		t.Errorf("got %s, %v; want %s", body, err, want)
	}
	for _, format := range webhook.Formats {
		for _, n := range []webhook.Notice{
			{ID: told, Event: "ping", At: tellingEnded, About: about},
			{ID: told, Event: events.EndpointDisabled, At: tellingEnded, About: about, Why: webhook.ByGone},
			{ID: told, Event: events.EndpointDisabled, At: tellingEnded, About: about, Why: webhook.ByFailing},
			{ID: told, Event: events.EndpointRecovered, At: tellingEnded, About: about},
		} {
			body, err := deploywire.Notice(format, n)
			if err != nil || strings.Contains(string(body), "secret") || !strings.Contains(string(body), "orders") {
				t.Errorf("%s in %s: %s, %v", n.Event, format, body, err)
			}
			isCanonical(t, body)
		}
	}
}
