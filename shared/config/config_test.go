package config_test

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster/shared/config"
	"muster/shared/crew"
	"muster/shared/workspace"
)

const (
	workspaceID = "0198c0de-0000-7000-8000-000000000001"
	hashA       = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	hashB       = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// environment is a complete one, changed by what is given: "" removes a variable.
func environment(changes map[string]string) func(string) string {
	env := map[string]string{
		config.TableKey:               "muster",
		config.RunsURLKey:             "https://queue.example.com/1/runs",
		config.RunsDeadURLKey:         "https://queue.example.com/1/runs-dead",
		config.DeliveriesURLKey:       "https://queue.example.com/1/deliveries",
		config.DeliveriesDeadURLKey:   "https://queue.example.com/1/deliveries-dead",
		config.SealingKeyParameterKey: "/muster/sealing-key",
		config.WorkspaceIDKey:         workspaceID,
		config.WorkspaceTokenKey:      strings.ToUpper(hashA),
		config.InternalTokenKey:       hashB,
	}
	maps.Copy(env, changes)
	return func(key string) string { return env[key] }
}

func TestFromReadsEverySetting(t *testing.T) {
	got, err := config.From(environment(map[string]string{
		config.ToolFunctionsKey:     " crm-lookup, send-quote ,",
		config.PrivateNetworksKey:   "10.1.0.0/16, fd00::/8",
		config.MaxConcurrentRunsKey: "20",
		config.WhenFullKey:          "reject",
		config.MaxKickoffsKey:       "60",
		"MODEL":                     "ollama/llama3.2",
		config.PublicURLKey:         "https://muster.example.com",
		config.LeaseKey:             "90s",
		config.StreamURLKey:         "https://stream.example.com/",
		config.OrchestratorKey:      "muster-runs",
		config.ContainerProviderKey: "runner",
		config.LogWriterKey:         "muster",
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := config.Config{
		Table:               "muster",
		Runs:                config.Queue{URL: "https://queue.example.com/1/runs", DeadURL: "https://queue.example.com/1/runs-dead"},
		Deliveries:          config.Queue{URL: "https://queue.example.com/1/deliveries", DeadURL: "https://queue.example.com/1/deliveries-dead"},
		SealingKeyParameter: "/muster/sealing-key",
		WorkspaceID:         workspaceID,
		Callers: map[string]workspace.Caller{
			hashA: {Kind: workspace.Workspace, WorkspaceID: workspaceID},
			hashB: {Kind: workspace.Internal, WorkspaceID: workspaceID},
		},
		ToolFunctions:   []string{"crm-lookup", "send-quote"},
		PrivateNetworks: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8")},
		Traffic:         crew.Traffic{MaxConcurrentRuns: 20, WhenFull: crew.Reject, MaxKickoffsPerMinute: 60},
		PublicURL:       "https://muster.example.com",
		Lease:           90 * time.Second,
		StreamURL:       "https://stream.example.com/",
		Orchestrator:    "muster-runs", ContainerProvider: "runner", LogWriter: "muster", InternalToken: true,
		Models: got.Models,
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if got.Models.Default != "ollama/llama3.2" {
		t.Errorf("the default model is %q, want the one of MODEL", got.Models.Default)
	}
}

func TestWhatTheTriggerOfAgentsNeedsMayBeAbsent(t *testing.T) {
	c, err := config.From(environment(map[string]string{config.InternalTokenKey: ""}))
	if err != nil {
		t.Fatal(err)
	}
	if c.Orchestrator != "" || c.ContainerProvider != "" || c.LogWriter != "" || c.InternalToken || len(c.Callers) != 1 {
		t.Errorf("there is something: %+v", c)
	}
}

func TestFromTellsEverythingThatIsWrong(t *testing.T) {
	tests := []struct {
		name    string
		changes map[string]string
		want    []string
	}{
		{"every missing key is named at once",
			map[string]string{config.TableKey: "", config.DeliveriesDeadURLKey: "", config.WorkspaceTokenKey: ""},
			[]string{"MUSTER_TABLE is missing", "MUSTER_DELIVERIES_DLQ_URL is missing", "MUSTER_WORKSPACE_TOKEN_SHA256 is missing"}},
		{"what is no URL is named", map[string]string{config.RunsURLKey: "runs"}, []string{"MUSTER_RUNS_QUEUE_URL is not a URL"}},
		{"what is no hash is named", map[string]string{config.InternalTokenKey: "mus_int_x"}, []string{"MUSTER_INTERNAL_TOKEN_SHA256 is not"}},
		{"what is no id is named", map[string]string{config.WorkspaceIDKey: "mine"}, []string{"MUSTER_WORKSPACE_ID is not"}},
		{"what is no URL is named", map[string]string{config.PublicURLKey: "muster.example.com"}, []string{"MUSTER_PUBLIC_URL is not"}},
		{"what is no network is named", map[string]string{config.PrivateNetworksKey: "10.1.0.0"}, []string{"MUSTER_PRIVATE_NETWORKS is not"}},
		{"what is no number is named", map[string]string{config.MaxConcurrentRunsKey: "many"}, []string{"MUSTER_MAX_CONCURRENT_RUNS is not"}},
		{"what is no way to be full is named", map[string]string{config.WhenFullKey: "wait"}, []string{"MUSTER_WHEN_FULL", "queue"}},
		{"what is no duration is named", map[string]string{config.LeaseKey: "60"}, []string{"MUSTER_LEASE is not"}},
		{"a lease too short to be renewed is named", map[string]string{config.LeaseKey: "900ms"}, []string{"MUSTER_LEASE is not", "from 1s to 10m"}},
		{"a lease that leaves a run lying is named", map[string]string{config.LeaseKey: "1h"}, []string{"MUSTER_LEASE is not"}},
		{"no sealing key", map[string]string{config.SealingKeyParameterKey: ""}, []string{"MUSTER_SEALING_KEY_PARAMETER", "MUSTER_SEALING_KEY"}},
		{"two sealing keys", map[string]string{config.SealingKeyKey: "k1:AA=="}, []string{"MUSTER_SEALING_KEY_PARAMETER", "MUSTER_SEALING_KEY"}},
		{"one token for two doors", map[string]string{config.InternalTokenKey: hashA}, []string{"the same token"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := config.From(environment(test.changes))
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "mus_int_x") {
				t.Errorf("%q quotes a value", err)
			}
		})
	}
}
