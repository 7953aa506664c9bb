package ampwire_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/crew"
	"muster/shared/id"
	"muster/shared/run"
)

// workOn claims a run, does its one task if it is to be done, and ends it.
func (b *bench) workOn(runID string, done bool) {
	b.t.Helper()
	owner, err := b.runs.Claim(b.t.Context(), runID)
	if err != nil {
		b.t.Fatal(err)
	}
	main := owner.Root()
	if done {
		_, err := main.Step(b.t.Context(), run.Step{Key: "research/1/model/1", Do: func(_ context.Context, e *run.Emitter, _ int) (any, error) {
			e.Use("gpt-4o", run.Usage{TotalTokens: 10, PromptTokens: 10})
			return 1, nil
		}})
		if err != nil {
			b.t.Fatal(err)
		}
		main.Finished(run.TaskOutput{TaskID: run.TaskID(runID, "research"), Name: "research", Raw: "All about cars."})
	}
	if err := owner.End(run.Outcome{State: run.Failed, Error: "why"}, main); err != nil {
		b.t.Fatal(err)
	}
}

func TestRestoreFromStateID(t *testing.T) {
	b := newBench(t)
	d, token := b.deployFiles("one", map[string][]byte{
		"agents.yaml": []byte(agents), "tasks.yaml": []byte(tasks + "write:\n  description: Write on {topic}\n  expected_output: A text\n  agent: researcher\n"),
	})
	_, stranger := b.deploy("two")
	done := b.kickoff(token, `{"inputs":`+inputs+`}`)
	b.workOn(done, true)
	empty := b.kickoff(token, `{"inputs":`+inputs+`}`)
	b.workOn(empty, false)
	under := b.kickoff(token, `{"inputs":`+inputs+`}`)
	foreign := b.kickoff(stranger, `{"inputs":`+inputs+`}`)

	const beginning = "; the run begins at the beginning"
	for _, c := range []struct {
		name, restore, inputs, warning string
		kept                           []string
	}{
		{"finished tasks are kept", done, inputs, "", []string{"research"}},
		{"inputs that are not given are the earlier run's", done, `{}`, "", []string{"research"}},
		{"the id of the other wire", id.Show("run", done), inputs, "", []string{"research"}},
		{"an empty string is none", "", inputs, "", nil},
		{"other inputs", done, strings.Replace(inputs, "cars", "boats", 1), "restoreFromStateId: with other inputs its outputs may not hold" + beginning, nil},
		{"a run that is under way", under, inputs, "restoreFromStateId: that run is not over yet" + beginning, nil},
		{"a run that did nothing", empty, inputs, "restoreFromStateId: that run leaves nothing to take over" + beginning, nil},
		{"an unknown id", id.New(), inputs, "restoreFromStateId: this deployment has no such run" + beginning, nil},
		{"a run of another deployment", foreign, inputs, "restoreFromStateId: this deployment has no such run" + beginning, nil},
		{"no id at all", "state-7", inputs, "restoreFromStateId is no kickoff id" + beginning, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := b.call(token, "POST", "/kickoff", `{"inputs":`+c.inputs+`,"restoreFromStateId":"`+c.restore+`"}`)
			var reply struct {
				KickoffID string `json:"kickoff_id"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &reply); w.Code != 200 || err != nil {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if got := w.Header().Get("Muster-Warning"); got != c.warning {
				t.Errorf("warning %q, want %q", got, c.warning)
			}
			q, err := b.runs.Request(t.Context(), reply.KickoffID)
			if err != nil {
				t.Fatal(err)
			}
			var kept []string
			for key, k := range q.Kept {
				kept = append(kept, key)
				if k.Output.Raw != "All about cars." || k.Calls != 1 {
					t.Errorf("kept: %+v", k)
				}
			}
			if diff := cmp.Diff(c.kept, kept); diff != "" {
				t.Errorf("kept tasks (-want +got):\n%s", diff)
			}
			if r, err := b.runs.Get(t.Context(), reply.KickoffID); err != nil || r.DeploymentID != d.ID {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

func TestLimitsAtKickoff(t *testing.T) {
	b := newBench(t)
	_, token := b.deploy("one")
	runID := b.kickoff(token, `{"inputs":`+inputs+`,"limits":{"max_steps":1,"max_tokens":10}}`)
	q, err := b.runs.Request(t.Context(), runID)
	if err != nil || q.Limits.MaxSteps != 1 || q.Limits.MaxTokens != 10 {
		t.Errorf("%+v, %v", q.Limits, err)
	}
	expect(t, b.call(token, "POST", "/kickoff", `{"inputs":`+inputs+`,"limits":{"max_stepps":1}}`), 422, `{"detail":"limits: unknown field \"max_stepps\"."}`)
	d, busy := b.deploy("busy")
	if _, err := b.crews.Change(t.Context(), d.ID, func(d *crew.Deployment) error { d.Traffic.MaxKickoffsPerMinute = 1; return nil }); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	b.runs.Now = func() time.Time { return now } // a minute that does not end
	for i, want := range []int{200, 429} {
		w := b.call(busy, "POST", "/kickoff", `{"inputs":`+inputs+`}`)
		if w.Code != want || w.Header().Get("RateLimit-Limit") != "1" || w.Header().Get("RateLimit-Remaining") != "0" || (w.Header().Get("Retry-After") == "") != (want == 200) {
			t.Errorf("kickoff %d of a minute that takes one: %d %s %v", i+1, w.Code, w.Body, w.Header())
		}
	}
	expect(t, b.call(token, "POST", "/kickoff", `{"inputs":`+inputs+`,"limits":3}`), 422, `{"detail":"\"limits\" must be an object."}`)
}
