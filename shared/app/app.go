// Package app joins the domains, the wires and the three background workers on one page. A home (infra/local, or
// shared/cloud for the Lambda functions) hands in its Backends and is given handlers.
package app

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"muster/shared/ampwire"
	"muster/shared/crew"
	"muster/shared/deploywire"
	"muster/shared/dispatch"
	"muster/shared/engine/llm"
	"muster/shared/engine/llm/offline"
	"muster/shared/engine/llm/openai"
	"muster/shared/engine/tool"
	"muster/shared/guard"
	"muster/shared/httpapi"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/runner"
	"muster/shared/sweep"
	"muster/shared/workspace"
)

// Backends is what a home provides.
type Backends struct {
	Records          record.Store
	Runs, Deliveries queue.Queue
	// Callers holds the callers of tokens that no store knows, by the SHA-256 of the token.
	Callers map[string]workspace.Caller
	Sealer  *workspace.Sealer
	Models  llm.Settings
	// Guard says what the client for everything that leaves may reach.
	Guard guard.Options
	// Functions calls the Lambda functions that `lambda` tools name, FunctionNames lists the ones they may.
	Functions     tool.Invoker
	FunctionNames []string
	// Lease is how long a run's lease holds without being renewed; 0 is the default.
	Lease time.Duration
	// Margin is how much of an invocation must be left for a run to begin another step; 0 is the default.
	Margin time.Duration
	// Now is the clock, time.Now unless set.
	Now func() time.Time
	Log *slog.Logger
}

// App is Muster, ready to be invoked.
type App struct {
	// HTTP serves every route of every wire.
	HTTP http.Handler
	// Runner handles messages of the runs queue, Dispatcher those of the deliveries queue.
	Runner, Dispatcher queue.Handler
	// Sweep looks after everything that is due.
	Sweep func(ctx context.Context) error

	Runs   *run.Service
	Crews  *crew.Store
	Tokens *workspace.Tokens
}

// New joins everything.
func New(b Backends) *App {
	if b.Log == nil {
		b.Log = slog.Default()
	}
	client := guard.New(b.Guard)
	thinking := b.Guard // a model may think for long before it answers
	thinking.HeaderTimeout = 10 * time.Minute
	operator := guard.Options{AnyAddress: true, HeaderTimeout: 10 * time.Minute}
	crews := &crew.Store{Records: b.Records, Now: b.Now}
	tokens := &workspace.Tokens{Records: b.Records, Static: b.Callers}
	runs := &run.Service{
		Store: b.Records, Crews: crews, Runs: b.Runs, Deliveries: b.Deliveries, Seal: b.Sealer.Seal, LeaseTime: b.Lease, Now: b.Now, Log: b.Log,
	}
	models := llm.Providers{
		Settings: b.Models, Operator: guard.New(operator).HTTP(), Guarded: guard.New(thinking).HTTP(), OpenAI: openai.New, Offline: offline.New(),
	}

	amp := &ampwire.Wire{Runs: runs, Crews: crews, CheckURL: client.CheckURL, Note: modelNote(crews, models), Now: b.Now}
	deploy := &deploywire.Wire{Runs: runs, Crews: crews, Tokens: tokens, Sealer: b.Sealer}
	work := &runner.Runner{
		Runs: runs, Crews: crews, Queue: b.Runs, Models: models, Margin: b.Margin, Now: b.Now, Log: b.Log,
		Tools: tool.Box{HTTP: client.HTTP(), Invoker: b.Functions, Functions: b.FunctionNames},
	}
	tell := &dispatch.Dispatcher{
		Runs: runs, Crews: crews, Store: b.Records, Client: client, Sealer: b.Sealer, Queue: b.Deliveries, Now: b.Now, Log: b.Log,
		Formats: map[run.Kind]dispatch.Format{
			run.StepTarget: ampwire.Step, run.TaskTarget: ampwire.Task, run.CrewTarget: ampwire.Crew, run.StreamTarget: ampwire.Stream,
		},
	}
	look := &sweep.Sweeper{Store: b.Records, Runs: runs, Parked: tell.Parked, Now: b.Now, Log: b.Log}

	return &App{
		HTTP: httpapi.API{
			Routes: slices.Concat(amp.Routes(), deploy.Routes()), Tokens: tokens, Fallback: ampwire.Dialect, Log: b.Log,
		}.Handler(),
		Runner: work.Handle, Dispatcher: tell.Handle, Sweep: look.Sweep,
		Runs: runs, Crews: crews, Tokens: tokens,
	}
}

// modelNote says of a run whose agents have no model that this is so.
func modelNote(crews *crew.Store, models llm.Providers) func(run.Run) string {
	return func(r run.Run) string {
		def, err := crews.Definition(context.Background(), r.VersionID)
		if err != nil {
			return ""
		}
		for _, a := range def.Agents {
			if m, err := models.Open(a.LLM); err == nil && m.Name() == llm.OfflineName {
				return offline.Note
			}
		}
		return ""
	}
}
