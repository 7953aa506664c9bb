package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"muster/infra"
	"muster/infra/host"
	"muster/shared/agentwire"
	"muster/shared/app"
	"muster/shared/cloud"
	"muster/shared/config"
	"muster/shared/engine/llm/openai"
	"muster/shared/engine/tool"
	"muster/shared/guard"
	"muster/shared/id"
	"muster/shared/invoke"
	"muster/shared/queue"
	"muster/shared/sqlite"
	"muster/shared/trigger/cel"
	"muster/shared/workspace"
)

// options are the flags.
type options struct {
	addr, publicURL, data string
	deploy                []string
	demo, allowLoopback   bool
	ready, triggers       string
	lease, sweep          time.Duration
	agents                agentwire.Needs
}

// home is the running machine.
type home struct {
	options
	url  string // where others reach this home
	here string // where it listens
	kept kept
	app  *app.App
	db   *sqlite.DB
	seal *workspace.Sealer
	// sockets are the open WebSockets.
	sockets *host.Sockets
	// models is what the definitions' models will be by default, for the banner.
	models string
	say    *printer
}

// inboxPause is how often a run looks at its inbox: reading costs nothing here.
const inboxPause = 250 * time.Millisecond

// Watchers are shown what is new after lookPause, and for longestStream: here that costs next to nothing.
const (
	lookPause     = 100 * time.Millisecond
	longestStream = 31 * time.Minute
)

// serve runs Muster until ctx ends.
func serve(ctx context.Context, o options) error {
	if err := removeStale(o.ready); err != nil {
		return err
	}
	if err := os.MkdirAll(o.data, 0o700); err != nil {
		return err
	}
	db, err := sqlite.Open(filepath.Join(o.data, "muster.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	h := &home{options: o, db: db, sockets: &host.Sockets{}, say: &printer{out: os.Stdout}}
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))

	queues := map[string]queue.Queue{}
	for _, q := range infra.Queues {
		queues[q.Name] = db.Queue(q.Name, sqlite.QueueOptions{MaxReceives: q.Receives, MaxHeld: q.Held})
	}
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w (another address: -addr 127.0.0.1:0)", o.addr, err)
	}
	h.here = "http://" + listener.Addr().String()
	if h.url = o.publicURL; h.url == "" {
		h.url = h.here
	}
	if err := h.open(ctx, queues); err != nil {
		listener.Close()
		return err
	}

	handlers := map[string]lambda.Handler{
		"kickoff":    invoke.HTTP(h.app.Kickoff()),
		"trigger":    invoke.HTTPOr(h.app.Trigger(), h.app.Direct),
		"api":        invoke.HTTP(h.app.HTTP()),
		"runner":     invoke.Batch(h.app.Runner, queues[infra.Runs]),
		"dispatcher": invoke.Batch(h.app.Dispatcher, queues[infra.Deliveries]),
		"sweeper":    invoke.Tick(h.app.Sweep),
		"socket":     invoke.Socket(h.app.Socket()),
	}
	streams, stopStreams := context.WithCancel(context.Background())
	defer stopStreams()
	machine := &host.Host{
		Agents: &h.agents, Queues: queues, Sockets: h.sockets, Every: o.sweep, Timeouts: map[string]time.Duration{"stream": longestStream},
		Stream: func(ctx context.Context, _ string, event []byte) (*events.LambdaFunctionURLStreamingResponse, error) {
			ctx, cancel := context.WithCancel(ctx)
			forget := context.AfterFunc(streams, cancel)
			context.AfterFunc(ctx, func() { forget(); cancel() })
			return invoke.Stream(h.app.Stream()).Answer(ctx, event)
		},
		Invoke: func(ctx context.Context, function string, event []byte) ([]byte, error) {
			return handlers[function].Invoke(ctx, event)
		},
	}
	posts := &inbox{signers: h.signers, now: time.Now}
	server := &http.Server{Handler: posts.handler(machine.HTTP()), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	worked := make(chan struct{})
	working, stopWork := context.WithCancel(ctx)
	defer stopWork()
	go func() { defer close(worked); machine.Run(working) }()

	if err := h.deployAll(ctx); err != nil {
		return err
	}
	if err := h.writeReady(); err != nil {
		return err
	}
	var shown error
	if o.triggers != "" {
		shown = h.demoTriggers(ctx, handlers["trigger"])
	} else {
		h.banner()
		if o.demo {
			h.demo(ctx, posts)
		}
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
		}
		h.say.line("Stopping. Runs that are under way go on at the next start.")
	}
	stopWork()
	h.app.Stop()
	stopStreams()
	grace, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_ = server.Shutdown(grace)
	select {
	case <-worked:
	case <-grace.Done(): // what is cut here is taken up from the journal
	}
	return errors.Join(shown, ctx.Err())
}

// open reads or makes what is kept beside the database, and joins the app.
func (h *home) open(ctx context.Context, queues map[string]queue.Queue) error {
	key, err := sealingKey(h.data)
	if err != nil {
		return err
	}
	if h.seal, err = workspace.NewSealer(map[string][]byte{"local": key}, "local"); err != nil {
		return err
	}
	models := config.Models()
	traffic, err := config.Traffic()
	if err != nil {
		return err
	}
	inside, err := config.PrivateNetworks()
	if err != nil {
		return err
	}
	h.models = models.Default
	functions := config.ToolFunctions()
	var callFunction tool.Invoker
	if len(functions) > 0 {
		if callFunction, err = cloud.Functions(ctx); err != nil {
			return err
		}
	}
	h.app = app.New(app.Backends{
		Records: h.db.Records(), Runs: queues[infra.Runs], Deliveries: queues[infra.Deliveries], Sealer: h.seal, Models: models, OpenAI: openai.New, Rules: &cel.Rules{},
		Functions: callFunction, FunctionNames: functions, Inbox: inboxPause, Look: lookPause, Push: h.sockets,
		Guard: guard.Options{AllowLoopback: h.allowLoopback, Allow: inside}, Lease: h.lease, Traffic: traffic, PublicURL: h.url, Agents: h.agents,
	})

	var found bool
	if h.kept, found, err = readKept(h.data); err != nil {
		return err
	}
	if !found {
		ws := id.New()
		h.kept.WorkspaceID = id.Show("ws", ws)
		var errs [2]error
		h.kept.WorkspaceToken, errs[0] = h.app.Tokens.Mint(ctx, workspace.Caller{Kind: workspace.Workspace, WorkspaceID: ws})
		h.kept.InternalToken, errs[1] = h.app.Tokens.Mint(ctx, workspace.Caller{Kind: workspace.Internal, WorkspaceID: ws})
		if err := errors.Join(errs[:]...); err != nil {
			return err
		}
		if err := h.kept.write(h.data); err != nil {
			return err
		}
	}

	// The file is locked, so whoever held a lease or a message is gone.
	if err := h.db.Wake(ctx); err != nil {
		return err
	}
	_, err = h.app.Runs.ExpireLeases(ctx)
	return err
}

// ready is what -ready writes.
type ready struct {
	URL            string           `json:"url"`
	WorkspaceToken string           `json:"workspace_token"`
	InternalToken  string           `json:"internal_token"`
	WorkspaceID    string           `json:"workspace_id"`
	Deployments    []keptDeployment `json:"deployments"`
}

func (h *home) writeReady() error {
	if h.options.ready == "" {
		return nil
	}
	r := ready{h.url, h.kept.WorkspaceToken, h.kept.InternalToken, h.kept.WorkspaceID, h.kept.Deployments}
	if r.Deployments == nil {
		r.Deployments = []keptDeployment{}
	}
	return writeJSON(h.options.ready, r)
}

// removeStale removes what an earlier process wrote for those who wait for this one.
func removeStale(ready string) error {
	if err := os.Remove(ready); ready != "" && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
