package webhook_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
	"muster/shared/storetest"
	"muster/shared/webhook"
)

// endpoint is one as a caller hands it in.
func endpoint(deploymentID string) webhook.Endpoint {
	return webhook.Endpoint{
		ID: id.New(), WorkspaceID: id.New(), DeploymentID: deploymentID, Environment: "production", Name: "orders", URL: "https://example.com/hook",
		Events: []string{"run.succeeded"}, Format: webhook.Crewship, Headers: map[string]string{"X-Key": "sealed"}, MaxRPS: 3, Enabled: true, Signing: webhook.Signing{Secret: "sealed"},
	}
}

func TestEndpointsAreKept(t *testing.T) {
	ctx := t.Context()
	store := &storetest.Memory{}
	all := webhook.Endpoints{Store: store, Now: func() time.Time { return now }}
	deploymentID := id.New()
	first, second, other := endpoint(deploymentID), endpoint(deploymentID), endpoint(id.New())
	for _, e := range []*webhook.Endpoint{&first, &second, &other} {
		if err := all.Create(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	health := record.Key{Part: "W#" + deploymentID, Sort: "OUT#" + first.ID + "#HEALTH"}
	if _, err := store.Put(ctx, record.Record{Key: health, Body: []byte("{}")}); err != nil {
		t.Fatal(err)
	}

	same := cmpopts.IgnoreUnexported(webhook.Endpoint{})
	got, err := all.Of(ctx, deploymentID)
	if diff := cmp.Diff([]webhook.Endpoint{first, second}, got, same); err != nil || diff != "" {
		t.Errorf("those of a deployment: %v (-want +got):\n%s", err, diff)
	}
	found, err := all.Find(ctx, other.ID)
	if diff := cmp.Diff(other, found, same); err != nil || diff != "" {
		t.Errorf("by its id: %v (-want +got):\n%s", err, diff)
	}
	if _, err := all.Get(ctx, deploymentID, other.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("another deployment's: %v, want not found", err)
	}

	if err := all.Delete(ctx, first.ID); err != nil {
		t.Fatal(err)
	}
	_, getErr := all.Get(ctx, deploymentID, first.ID)
	_, findErr := all.Find(ctx, first.ID)
	for _, err := range []error{getErr, findErr, all.Delete(ctx, first.ID)} {
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("after its end: %v, want not found", err)
		}
	}
	if left, err := store.Get(ctx, health); err != nil || left.Due.IsZero() {
		t.Errorf("nobody calls off what was parked under it: %+v, %v", left, err)
	}
	if got, err := all.Of(ctx, deploymentID); err != nil || len(got) != 1 || got[0].ID != second.ID {
		t.Errorf("%d are left (%v), want the second", len(got), err)
	}
}

func TestAChangeThatLosesARaceIsMadeOnWhatWon(t *testing.T) {
	ctx := t.Context()
	all := webhook.Endpoints{Store: &storetest.Memory{}}
	e := endpoint(id.New())
	if err := all.Create(ctx, &e); err != nil {
		t.Fatal(err)
	}
	raced := false
	got, err := all.Change(ctx, e.ID, func(mine *webhook.Endpoint) error {
		if !raced {
			raced = true
			if _, err := all.Change(ctx, e.ID, func(theirs *webhook.Endpoint) error { theirs.Name = "theirs"; return nil }); err != nil {
				t.Error(err)
			}
		}
		mine.MaxRPS = 7
		return nil
	})
	if err != nil || got.Name != "theirs" || got.MaxRPS != 7 {
		t.Errorf("got %q and %d (%v), want both changes", got.Name, got.MaxRPS, err)
	}
	refused := errors.New("no")
	if _, err := all.Change(ctx, e.ID, func(*webhook.Endpoint) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("got %v, want what the change refused with", err)
	}
}

func TestADeploymentHasSoManyEndpointsAndNoMore(t *testing.T) {
	all := webhook.Endpoints{Store: &storetest.Memory{}}
	deploymentID := id.New()
	for n := 0; ; n++ {
		e := endpoint(deploymentID)
		err := all.Create(t.Context(), &e)
		if err == nil && n < 50 {
			continue
		}
		if n != 50 || !fault.Is(err, fault.Conflict) {
			t.Errorf("endpoint %d: %v", n+1, err)
		}
		return
	}
}
