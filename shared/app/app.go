// Package app joins the domains, the wires and the three background workers on one page. A home (infra/local, or
// shared/cloud for the Lambda functions) hands in its Backends and is given handlers.
package app

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"muster/shared/agentwire"
	"muster/shared/ampwire"
	"muster/shared/channel"
	"muster/shared/crew"
	"muster/shared/deploywire"
	"muster/shared/dispatch"
	"muster/shared/engine/llm"
	"muster/shared/engine/llm/offline"
	"muster/shared/engine/tool"
	"muster/shared/guard"
	"muster/shared/guide"
	"muster/shared/httpapi"
	"muster/shared/openapi"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/resend"
	"muster/shared/run"
	"muster/shared/runner"
	"muster/shared/schedule"
	"muster/shared/sweep"
	"muster/shared/thread"
	"muster/shared/trigger"
	"muster/shared/watch"
	"muster/shared/webhook"
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
	// OpenAI makes the models that speak the OpenAI protocol. Only a home that runs crews hands it in: its SDK alone is a
	// third of a bootstrap.
	OpenAI func(llm.Endpoint) llm.Model
	// Rules compiles the filters and inputs of triggers; only a home that takes triggers hands it in, for the same reason.
	Rules trigger.Rules
	// Guard says what the client for everything that leaves may reach.
	Guard guard.Options
	// Functions calls the Lambda functions that `lambda` tools name, FunctionNames lists the ones they may.
	Functions     tool.Invoker
	FunctionNames []string
	// Traffic bounds the runs of each workspace.
	Traffic crew.Traffic
	// Agents says what is there of that which the trigger of agents needs.
	Agents agentwire.Needs
	// Lease is how long a run's lease holds without being renewed; 0 is the default.
	Lease time.Duration
	// Inbox is how often a run under way looks for stops, answers and events from outside; 0 is the default.
	Inbox time.Duration
	// Margin is how much of an invocation must be left for a run to begin another step; 0 is the default.
	Margin time.Duration
	// PublicURL is where others reach the routes; without it, questions to people have no one-click links.
	PublicURL string
	// StreamURL is where the function that streams is reached, where it is not reached like all others.
	StreamURL string
	// Push sends to open connections; only a home or a function that does hands it in.
	Push channel.Pusher
	// Lag is how far the lists of records may be behind.
	Lag time.Duration
	// Look is the longest time between two looks for new pages of a run that is watched; 0 is the default.
	Look time.Duration
	// Report takes what a sweep found, for metrics; it is logged unless set.
	Report func(found map[run.Finding]int)
	// Count takes how often what nobody keeps anything of has happened, by the name of its metric; it is logged unless set.
	Count func(counts map[string]int)
	// Now is the clock, time.Now unless set.
	Now func() time.Time
	Log *slog.Logger
}

// App is Muster, ready to be invoked. What a function does not call is not linked into its bootstrap, so what a handler
// needs beside the stores is made in its own method.
type App struct {
	Runs   *run.Service
	Crews  *crew.Store
	Tokens *workspace.Tokens

	b      Backends
	feed   *watch.Feed
	client *guard.Client
	work   once[*runner.Runner]
	tell   once[*dispatch.Dispatcher]
}

// New joins the stores.
func New(b Backends) *App {
	if b.Log == nil {
		b.Log = slog.Default()
	}
	crews := &crew.Store{Records: b.Records, Now: b.Now}
	a := &App{
		b: b, client: guard.New(b.Guard), Crews: crews, Tokens: &workspace.Tokens{Records: b.Records, Static: b.Callers},
		Runs: &run.Service{
			Store: b.Records, Crews: crews, Runs: b.Runs, Deliveries: b.Deliveries, Seal: b.Sealer.Seal, Unseal: b.Sealer.Open,
			Standing: standing(b.Records), Watchers: channel.Watchers(b.Records), Traffic: b.Traffic, LeaseTime: b.Lease, Inbox: b.Inbox, Now: b.Now, Log: b.Log,
		},
	}
	crews.Enlist = a.triggers().Enlist
	a.feed = &watch.Feed{Runs: a.Runs, Pause: b.Look}
	return a
}

// HTTP gives the handler of every route of every wire.
func (a *App) HTTP() http.Handler {
	deploy := a.deploy()
	deploy.Threads, deploy.Feed = &thread.Threads{Store: a.b.Records, Runs: a.Runs, Now: a.b.Now}, a.feed
	deploy.Queues = []deploywire.NamedQueue{{Name: "runs", Queue: a.b.Runs}, {Name: "deliveries", Queue: a.b.Deliveries}}
	deploy.Endpoints, deploy.Deliveries = webhook.Endpoints{Store: a.b.Records, Now: a.b.Now}, webhook.Deliveries{Store: a.b.Records}
	deploy.Resend, deploy.Ping = a.resend(), a.tell.get(a.newDispatcher).Ping
	agents := a.agents()
	return a.serve(ampwire.Dialect, a.amp().Routes(), deploy.Routes(), agents.Routes(), guide.Routes(deploywire.Dialect), openapi.Routes(deploywire.Dialect, agents.Absent()...))
}

// Kickoff gives the handler of the routes that start runs, and of no others.
func (a *App) Kickoff() http.Handler {
	return a.serve(ampwire.Dialect, a.amp().Kickoffs(), a.deploy().Kickoffs())
}

// Trigger gives the handler of the routes that others start runs by, and of no others. What else comes here is for the
// trigger of agents, where there is none.
func (a *App) Trigger() http.Handler {
	return a.serve(agentwire.Dialect, a.deploy().Triggering(), a.agents().Triggering())
}

func (a *App) serve(fallback httpapi.Dialect, routes ...[]httpapi.Route) http.Handler {
	return httpapi.API{Routes: slices.Concat(routes...), Tokens: a.Tokens, Fallback: fallback, Log: a.b.Log}.Handler()
}

func (a *App) amp() *ampwire.Wire {
	return &ampwire.Wire{Runs: a.Runs, Crews: a.Crews, CheckURL: a.client.CheckURL, Note: a.modelNote, Now: a.b.Now}
}

// deploy is the wire with what starting runs needs.
func (a *App) deploy() *deploywire.Wire {
	return &deploywire.Wire{
		Runs: a.Runs, Crews: a.Crews, Tokens: a.Tokens, Sealer: a.b.Sealer, Schedules: a.schedules(), Triggers: a.triggers(),
		CheckURL: a.client.CheckURL, StreamURL: a.b.StreamURL, PublicURL: a.b.PublicURL, Now: a.b.Now,
	}
}

func (a *App) agents() *agentwire.Wire {
	return &agentwire.Wire{Runs: a.Runs, Crews: a.Crews, Triggers: a.triggers(), Tokens: a.Tokens, Needs: a.b.Agents, Now: a.b.Now}
}

// Direct starts a run for an invocation that is no request: of a schedule or a rule of EventBridge.
func (a *App) Direct(ctx context.Context, payload []byte, id string, event bool) (any, error) {
	return (&deploywire.Wire{Triggers: a.triggers()}).Direct(ctx, payload, id, event)
}

func (a *App) triggers() *trigger.Service {
	return &trigger.Service{Store: a.b.Records, Crews: a.Crews, Runs: a.Runs, Sealer: a.b.Sealer, Rules: a.b.Rules, Count: a.b.Count, Now: a.b.Now, Log: a.b.Log}
}

// Stream gives the handler of the routes whose answers stream, and of no others.
func (a *App) Stream() http.Handler {
	deploy := &deploywire.Wire{Runs: a.Runs, Tokens: a.Tokens, Feed: a.feed, Now: a.b.Now}
	return a.serve(deploywire.Dialect, deploy.Watching())
}

// Socket takes what happens on the connections of the WebSocket.
func (a *App) Socket() *agentwire.Socket {
	return &agentwire.Socket{
		Hub: a.hub(), Runs: a.Runs, Crews: a.Crews, Threads: &thread.Threads{Store: a.b.Records, Runs: a.Runs, Now: a.b.Now}, Agents: a.triggers(),
	}
}

func (a *App) hub() *channel.Hub {
	return &channel.Hub{Store: a.b.Records, Runs: a.Runs, Crews: a.Crews, Tokens: a.Tokens, Push: a.b.Push, Dialect: agentwire.Channels, Lag: a.b.Lag, Now: a.b.Now, Log: a.b.Log}
}

// Runner is the queue.Handler of the runs queue.
func (a *App) Runner(ctx context.Context, m queue.Received) queue.Answer {
	return a.work.get(a.newRunner).Handle(ctx, m)
}

func (a *App) newRunner() *runner.Runner {
	thinking := a.b.Guard // a model may think for long before it answers
	thinking.HeaderTimeout = 10 * time.Minute
	operator := guard.Options{AnyAddress: true, HeaderTimeout: 10 * time.Minute}
	return &runner.Runner{
		Runs: a.Runs, Crews: a.Crews, Queue: a.b.Runs, Margin: a.b.Margin, Now: a.b.Now, Log: a.b.Log,
		Models: llm.Providers{
			Settings: a.b.Models, Operator: guard.New(operator).HTTP(), Guarded: guard.New(thinking).HTTP(),
			OpenAI: a.b.OpenAI, Offline: offline.New(),
		},
		Tools: tool.Box{HTTP: a.client.HTTP(), Invoker: a.b.Functions, Functions: a.b.FunctionNames},
	}
}

// Stop makes every run leave this process, because it is about to end.
func (a *App) Stop() { a.work.get(a.newRunner).Stop() }

// Dispatcher is the queue.Handler of the deliveries queue.
func (a *App) Dispatcher(ctx context.Context, m queue.Received) queue.Answer {
	return a.tell.get(a.newDispatcher).Handle(ctx, m)
}

func (a *App) newDispatcher() *dispatch.Dispatcher {
	var channels dispatch.Channels
	if a.b.Push != nil {
		channels = a.hub()
	}
	return &dispatch.Dispatcher{
		Channels: channels,
		Runs:     a.Runs, Crews: a.Crews, Store: a.b.Records, Client: a.client, Sealer: a.b.Sealer, Queue: a.b.Deliveries, Now: a.b.Now, Log: a.b.Log,
		Formats: map[run.Kind]dispatch.Format{
			run.StepTarget: ampwire.Step, run.TaskTarget: ampwire.Task, run.CrewTarget: ampwire.Crew, run.StreamTarget: ampwire.Stream,
			run.HumanTarget: ampwire.HumanInput(a.link),
		},
		EndpointFormats: map[string]dispatch.Format{
			webhook.Crewship: deploywire.Outgoing, webhook.AMPStream: ampwire.Stream, webhook.Slack: deploywire.Slack, webhook.Discord: deploywire.Discord,
		},
		Notice: deploywire.Notice, Deployments: a.Crews.Deployments,
	}
}

// standing gives the targets of a run that are not its kickoff's: the enabled endpoints of its deployment and environment.
func standing(records record.Store) func(context.Context, run.Run) ([]run.Target, error) {
	return func(ctx context.Context, r run.Run) (targets []run.Target, err error) {
		all, err := webhook.Endpoints{Store: records}.Of(ctx, r.DeploymentID)
		for _, e := range all {
			if e.Enabled && e.Environment == r.Environment {
				targets = append(targets, run.Target{ID: e.ID, Kind: run.EndpointTarget, Events: e.Events})
			}
		}
		return targets, err
	}
}

// link gives the link to an answer to a question, "" where nobody knows under which URL we are reached.
func (a *App) link(r run.Run, q run.Asked, answer string) (string, error) {
	if a.b.PublicURL == "" {
		return "", nil
	}
	token, err := a.Runs.LinkToken(context.Background(), r, q)
	if err != nil {
		return "", err
	}
	return deploywire.ApprovalURL(a.b.PublicURL, q.ID, answer, token), nil
}

func (a *App) schedules() *schedule.Schedules {
	return &schedule.Schedules{Store: a.b.Records, Crews: a.Crews, Runs: a.Runs, Now: a.b.Now}
}

func (a *App) resend() *resend.Service {
	return &resend.Service{Store: a.b.Records, Runs: a.Runs, Queue: a.b.Deliveries, Now: a.b.Now}
}

// Sweep looks after everything that is due.
func (a *App) Sweep(ctx context.Context) error {
	s := sweep.Sweeper{
		Store: a.b.Records, Runs: a.Runs, Parked: a.tell.get(a.newDispatcher).Parked, Health: a.tell.get(a.newDispatcher).Tend, Schedule: a.schedules().Wake,
		Redrive: a.resend().Advance, Connection: a.hub().Tend,
		Report: a.b.Report, Now: a.b.Now, Log: a.b.Log,
	}
	return s.Sweep(ctx)
}

// modelNote says of a run whose agents have no model that this is so.
func (a *App) modelNote(r run.Run) string {
	def, err := a.Crews.Definition(context.Background(), r.VersionID)
	if err != nil {
		return ""
	}
	for _, agent := range def.Agents {
		if a.b.Models.NameOf(agent.LLM) == llm.OfflineName {
			return offline.Note
		}
	}
	return ""
}

// once makes a value when it is first needed.
type once[T any] struct {
	sync.Once
	value T
}

func (o *once[T]) get(make func() T) T {
	o.Do(func() { o.value = make() })
	return o.value
}
