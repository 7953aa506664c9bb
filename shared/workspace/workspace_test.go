package workspace_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/shared/fault"
	"muster/shared/record"
	"muster/shared/storetest"
	"muster/shared/workspace"
)

// callers are one of each kind.
var callers = []workspace.Caller{
	{Kind: workspace.Workspace, WorkspaceID: "ws-1", Name: "laptop"},
	{Kind: workspace.Workspace, WorkspaceID: "ws-1", Name: "ci"},
	{Kind: workspace.Deployment, WorkspaceID: "ws-1", DeploymentID: "dep-1"},
	{Kind: workspace.Internal, WorkspaceID: "ws-1"},
}

func TestTokensStandForTheirCallerUntilRevoked(t *testing.T) {
	tokens := &workspace.Tokens{Records: &storetest.Memory{}}
	minted := map[string]workspace.Caller{}
	for _, c := range callers {
		token, err := tokens.Mint(t.Context(), c)
		if err != nil {
			t.Fatalf("mint for %+v: %v", c, err)
		}
		minted[token] = c
	}
	if len(minted) != len(callers) {
		t.Fatalf("minted %d different tokens, want %d", len(minted), len(callers))
	}
	for token, want := range minted {
		got, err := tokens.Authenticate(t.Context(), token)
		if err != nil {
			t.Fatalf("authenticate %+v: %v", want, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("caller (-want +got):\n%s", diff)
		}
	}
	for token := range minted {
		for range 2 { // a second time changes nothing
			if err := tokens.Revoke(t.Context(), token); err != nil {
				t.Fatalf("revoke: %v", err)
			}
		}
		if _, err := tokens.Authenticate(t.Context(), token); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("a revoked token gives %v, want unauthorized", err)
		}
	}
}

func TestTokensOfDeployTimeAreKnownByTheirHash(t *testing.T) {
	want := callers[0]
	tokens := &workspace.Tokens{
		Records: &storetest.Memory{},
		Static:  map[string]workspace.Caller{workspace.Hash("given at deploy time"): want},
	}
	got, err := tokens.Authenticate(t.Context(), "given at deploy time")
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, wrong := range []string{"", "another", workspace.Hash("given at deploy time")} {
		if _, err := tokens.Authenticate(t.Context(), wrong); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("token %q gives %v, want unauthorized", wrong, err)
		}
	}
}

func TestNobodyGetsNoToken(t *testing.T) {
	tokens := &workspace.Tokens{Records: &storetest.Memory{}}
	for _, c := range []workspace.Caller{
		{},
		{Kind: workspace.Workspace},
		{Kind: "root", WorkspaceID: "ws-1"},
		{Kind: workspace.Deployment, WorkspaceID: "ws-1"},
		{Kind: workspace.Workspace, WorkspaceID: "ws-1", DeploymentID: "dep-1"},
		{Kind: workspace.Deployment, WorkspaceID: "ws-1", DeploymentID: "dep-1", RunID: "run-1"},
		{Kind: workspace.Ticket, WorkspaceID: "ws-1", DeploymentID: "dep-1", Until: time.Now().Add(time.Hour)},
		{Kind: workspace.Ticket, WorkspaceID: "ws-1", DeploymentID: "dep-1", RunID: "run-1"},
	} {
		if token, err := tokens.Mint(t.Context(), c); err == nil {
			t.Errorf("%+v was given a token of %d characters", c, len(token))
		}
	}
}

// broken is a store that cannot be reached.
type broken struct{ record.Store }

func (broken) Get(context.Context, record.Key) (record.Record, error) {
	return record.Record{}, errors.New("the store is down")
}

func TestAStoreThatIsDownIsNotAWrongToken(t *testing.T) {
	_, err := (&workspace.Tokens{Records: broken{}}).Authenticate(t.Context(), "mus_ws_x")
	if !fault.Is(err, fault.Internal) {
		t.Errorf("got %v, want an internal error", err)
	}
}

func TestTheStoreHoldsNoToken(t *testing.T) {
	kept := &keeping{Store: &storetest.Memory{}}
	token, err := (&workspace.Tokens{Records: kept}).Mint(t.Context(), callers[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(kept.put) != 1 {
		t.Fatalf("%d records put, want 1", len(kept.put))
	}
	r := kept.put[0]
	if all := r.Part + r.Sort + r.List + r.Order + string(r.Body); strings.Contains(all, token) {
		t.Errorf("the record %q holds the token itself", all)
	}
}

// keeping remembers what was put.
type keeping struct {
	record.Store
	put []record.Record
}

func (k *keeping) Put(ctx context.Context, r record.Record) (int64, error) {
	k.put = append(k.put, r)
	return k.Store.Put(ctx, r)
}

func TestSees(t *testing.T) {
	for _, c := range []struct {
		name   string
		caller workspace.Caller
		ws     string
		dep    string
		want   bool
	}{
		{"a workspace sees its deployments", callers[0], "ws-1", "dep-9", true},
		{"a workspace does not see another's", callers[0], "ws-2", "dep-1", false},
		{"a deployment sees itself", callers[2], "ws-1", "dep-1", true},
		{"a deployment does not see its neighbour", callers[2], "ws-1", "dep-2", false},
		{"an internal caller sees nothing of the kind", callers[3], "ws-1", "dep-1", false},
		{"nobody sees nothing", workspace.Caller{}, "", "", false},
	} {
		if got := c.caller.Sees(c.ws, c.dep); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

func TestATicketShowsOneRunForATime(t *testing.T) {
	now := time.Now()
	tokens := &workspace.Tokens{Records: &storetest.Memory{Now: func() time.Time { return now }}}
	want := workspace.Caller{Kind: workspace.Ticket, WorkspaceID: "ws-1", DeploymentID: "dep-1", RunID: "run-1", Until: now.Add(time.Minute).UTC().Truncate(time.Second)}
	ticket, err := tokens.Mint(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tokens.Authenticate(t.Context(), ticket)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("caller (-want +got): %v\n%s", err, diff)
	}
	if !got.SeesRun("ws-1", "dep-1", "run-1") || got.SeesRun("ws-1", "dep-1", "run-2") || got.Sees("ws-1", "dep-1") {
		t.Error("a ticket shows something else than its run")
	}
	if !callers[2].SeesRun("ws-1", "dep-1", "run-2") || callers[2].SeesRun("ws-1", "dep-2", "run-1") {
		t.Error("a deployment sees all of its runs, and no others")
	}
	if !workspace.IsTicket(ticket) || workspace.IsTicket("mus_dep_x") || workspace.IsTicket("") {
		t.Error("only a ticket may stand in a URL")
	}
	now = now.Add(2 * time.Minute)
	if _, err := tokens.Authenticate(t.Context(), ticket); !fault.Is(err, fault.Unauthorized) {
		t.Errorf("a ticket that has run out gives %v", err)
	}
}

func sealer(t testing.TB, keys map[string][]byte, current string) *workspace.Sealer {
	t.Helper()
	s, err := workspace.NewSealer(keys, current)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	oldKey = bytes.Repeat([]byte{1}, 32)
	newKey = bytes.Repeat([]byte{2}, 32)
)

func TestSealedValuesOpenInTheirPlaceOnly(t *testing.T) {
	s := sealer(t, map[string][]byte{"k1": oldKey}, "k1")
	rapid.Check(t, func(t *rapid.T) {
		place := rapid.SliceOfN(rapid.String(), 3, 3)
		at, elsewhere := place.Draw(t, "place"), place.Draw(t, "elsewhere")
		plain := rapid.String().Draw(t, "plain")
		sealed, err := s.Seal(context.Background(), at[0], at[1], at[2], plain)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Open(context.Background(), at[0], at[1], at[2], sealed); err != nil || got != plain {
			t.Fatalf("opened %q, %v; want %q", got, err, plain)
		}
		_, err = s.Open(context.Background(), elsewhere[0], elsewhere[1], elsewhere[2], sealed)
		if moved := !cmp.Equal(at, elsewhere); (err != nil) != moved {
			t.Fatalf("sealed at %q, opened at %q: %v", at, elsewhere, err)
		}
	})
}

func TestPlacesThatLookAlikeAreDifferent(t *testing.T) {
	s := sealer(t, map[string][]byte{"k1": oldKey}, "k1")
	sealed, _ := s.Seal(t.Context(), "ws", "run", "a", "secret")
	if _, err := s.Open(t.Context(), "ws", "ru", "na", sealed); err == nil {
		t.Error("a value of field \"a\" of record \"run\" opened as field \"na\" of record \"ru\"")
	}
}

func TestSealingKeysCanBeChanged(t *testing.T) {
	before := sealer(t, map[string][]byte{"2026-11": oldKey}, "2026-11")
	after := sealer(t, map[string][]byte{"2026-11": oldKey, "2026-12": newKey}, "2026-12")
	old, _ := before.Seal(t.Context(), "ws", "run", "f", "secret")
	if got, err := after.Open(t.Context(), "ws", "run", "f", old); err != nil || got != "secret" {
		t.Errorf("an older value gives %q, %v", got, err)
	}
	fresh, _ := after.Seal(t.Context(), "ws", "run", "f", "secret")
	if _, err := before.Open(t.Context(), "ws", "run", "f", fresh); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a value of a key that is not configured gives %v", err)
	}
}

func TestChangedValuesDoNotOpen(t *testing.T) {
	s := sealer(t, map[string][]byte{"k1": oldKey, "k2": newKey}, "k1")
	sealed, _ := s.Seal(t.Context(), "ws", "run", "f", "secret")
	for _, changed := range []string{
		"", "v1", "v1:k1", "v1:k1:", "secret", sealed + "A", sealed[:len(sealed)-1], "v2" + sealed[2:],
		strings.Replace(sealed, "k1", "k2", 1), strings.Replace(sealed, "k1", "k3", 1), sealed + "\n",
	} {
		if got, err := s.Open(t.Context(), "ws", "run", "f", changed); err == nil {
			t.Errorf("%q opened as %q", changed, got)
		}
	}
}

func TestSealersNeedGoodKeys(t *testing.T) {
	for name, c := range map[string]struct {
		keys    map[string][]byte
		current string
	}{
		"no key at all":            {nil, ""},
		"a current key not there":  {map[string][]byte{"k1": oldKey}, "k2"},
		"a short key":              {map[string][]byte{"k1": oldKey[:16]}, "k1"},
		"an id with a colon":       {map[string][]byte{"k:1": oldKey}, "k:1"},
		"an empty id":              {map[string][]byte{"": oldKey}, ""},
		"an older key that is bad": {map[string][]byte{"k1": oldKey, "k0": nil}, "k1"},
	} {
		if _, err := workspace.NewSealer(c.keys, c.current); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestSecretsAreFreshAndMarked(t *testing.T) {
	a, b := workspace.NewSecret(), workspace.NewSecret()
	if a == b || !strings.HasPrefix(a, "whsec_") || len(a) != len("whsec_")+44 {
		t.Errorf("got %d and %d characters, the same: %v", len(a), len(b), a == b)
	}
}

func FuzzOpen(f *testing.F) {
	s := sealer(f, map[string][]byte{"k1": oldKey}, "k1")
	// Made once by Seal: each process that fuzzes would make another.
	const sealed = "v1:k1:lj70wh-OX7H9vI-ILFXRipaAofOxxr0q2cGd3HazLdtd8w"
	f.Add(sealed)
	f.Add("v1:k1:")
	f.Add("v1::::")
	f.Fuzz(func(t *testing.T, value string) {
		plain, err := s.Open(context.Background(), "ws", "run", "f", value)
		if err == nil && (plain != "secret" || value != sealed) {
			t.Errorf("%q opened as %q", value, plain)
		}
	})
}
