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
		`"deliveries":[{"delivery_id":"`+d.Shown()+`","run_id":"`+id.Show("run", r.ID)+`","status":"failed","due_since":"`+at(began.Add(time.Minute))+`","attempts":0}],`+
		`"checked_at":"`+at(now)+`"}`)

	other := b.mint(workspace.Caller{Kind: workspace.Workspace, WorkspaceID: id.New()})
	b.health(other, nothing+`"`+at(now)+`"}`)
	inside := b.mint(workspace.Caller{Kind: workspace.Deployment, WorkspaceID: b.workspaceID, DeploymentID: deployment})
	b.refuse(http.StatusForbidden, "forbidden", `This token is of the kind "deployment" and cannot be used for this.`, inside, "GET", "/v1/health/runs", "")
}

func (b *bench) health(token, want string) {
	b.t.Helper()
	w := b.call(token, "GET", "/v1/health/runs", "")
	if diff := cmp.Diff(strings.TrimSpace(w.Body.String()), want); w.Code != http.StatusOK || diff != "" {
		b.t.Errorf("unexpected answer %d (-got +want):\n%s", w.Code, diff)
	}
}
