package deploywire_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/crew"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/webhook"
	"muster/shared/workspace"
)

func TestHealthListsWhatIsDue(t *testing.T) {
	b := newBench(t)
	began := time.Now().UTC().Truncate(time.Second)
	now := began
	b.runs.Now = func() time.Time { return now }
	deployment := id.New()
	r, err := b.runs.Start(t.Context(), run.StartRequest{Deployment: crew.Deployment{
		ID: deployment, WorkspaceID: b.workspaceID, Environments: map[string]crew.Pointer{"production": {VersionID: id.New()}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.runs.Claim(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	d := webhook.New(r.ID, 1, "crew", "0", "amp.crew", now)
	d.Status, d.Due = webhook.Failed, now.Add(time.Minute)
	if err := (webhook.Deliveries{Store: b.runs.Store}).Put(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
	at := func(t time.Time) string { return t.Format("2006-01-02T15:04:05.000Z") }
	const nothing = `{"runs":[],"deliveries":[],"checked_at":`
	b.health(b.token, nothing+`"`+at(now)+`"}`)

	now = began.Add(90 * time.Second)
	b.health(b.token, `{"runs":[{"run_id":"`+id.Show("run", r.ID)+
		`","deployment_id":"`+id.Show("dep", deployment)+`","state":"running","due_since":"`+at(began.Add(time.Minute))+`","reason":"lease_ran_out","take_overs":0}],`+
		`"deliveries":[{"delivery_id":"`+d.Shown()+`","run_id":"`+id.Show("run", r.ID)+`","status":"failed","due_since":"`+at(began.Add(time.Minute))+`","reason":"attempt_overdue","attempts":0}],`+
		`"checked_at":"`+at(now)+`"}`)

	other := b.mint(workspace.Caller{Kind: workspace.Workspace, WorkspaceID: id.New()})
	b.health(other, nothing+`"`+at(now)+`"}`)
	inside := b.mint(workspace.Caller{Kind: workspace.Deployment, WorkspaceID: b.workspaceID, DeploymentID: deployment})
	b.refuse(http.StatusForbidden, "forbidden", `This token is of the kind "deployment" and cannot be used for this.`, inside, "GET", "/v1/health/runs", "")
}

func TestARunThatWaitsForASlotIsHealthy(t *testing.T) {
	b := newBench(t)
	now := time.Now().UTC().Truncate(time.Second)
	b.runs.Now = func() time.Time { return now }
	start := func() run.Run {
		t.Helper()
		r, err := b.runs.Start(t.Context(), run.StartRequest{Deployment: crew.Deployment{
			ID: "01a20000-0000-7000-8000-000000000001", WorkspaceID: b.workspaceID, Traffic: crew.Traffic{MaxConcurrentRuns: 1},
			Environments: map[string]crew.Pointer{"production": {VersionID: id.New()}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first, second := start(), start()
	o, err := b.runs.Claim(t.Context(), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	listed := func() (runs []any) {
		t.Helper()
		for _, one := range b.want(200, b.token, "GET", "/v1/health/runs", "")["runs"].([]any) {
			runs = append(runs, one.(object)["run_id"].(string)+" "+one.(object)["reason"].(string))
		}
		return runs
	}
	now = now.Add(5 * time.Minute)
	b.check("while it waits for a slot", listed(), []any{id.Show("run", first.ID) + " lease_ran_out"})
	if err := o.End(run.Outcome{State: run.Succeeded}, o.Root()); err != nil {
		t.Fatal(err)
	}
	b.check("when it has one and nobody began it", listed(), []any{id.Show("run", second.ID) + " queued_for_long"})
}

func (b *bench) health(token, want string) {
	b.t.Helper()
	w := b.call(token, "GET", "/v1/health/runs", "")
	if diff := cmp.Diff(strings.TrimSpace(w.Body.String()), want); w.Code != http.StatusOK || diff != "" {
		b.t.Errorf("unexpected answer %d (-got +want):\n%s", w.Code, diff)
	}
}
