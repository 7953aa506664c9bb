// Command local is Muster on one machine: every function of the manifest in one process, invoked with the JSON that
// Lambda would hand it, on one SQLite file. It needs nothing but itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"muster/infra"
	"muster/shared/agentwire"
)

func main() {
	o := options{agents: infra.Agents()}
	flag.StringVar(&o.addr, "addr", "127.0.0.1:8080", "address to listen on; port 0 takes a free one")
	flag.StringVar(&o.publicURL, "public-url", "", "URL under which others reach this address (default http://<addr>)")
	flag.StringVar(&o.data, "data", ".muster", "directory of the SQLite file, the tokens and the sealing key")
	flag.Func("deploy", "directory of a crew to deploy; repeatable; unchanged content makes no new version", func(dir string) error {
		o.deploy = append(o.deploy, dir)
		return nil
	})
	flag.BoolVar(&o.demo, "demo", false, "run a deployed sample crew once and show what happens")
	flag.StringVar(&o.triggers, "demo-triggers", "", "start a run in every way there is, with the events and requests of this directory, show the stream of each, and stop")
	flag.BoolVar(&o.allowLoopback, "allow-loopback", true, "let webhooks and tools reach this machine itself; never so on AWS")
	flag.StringVar(&o.ready, "ready", "", "file to write the URL, tokens and deployments to, as JSON, once requests are accepted")
	flag.DurationVar(&o.lease, "lease", time.Minute, "how long a run's owner may be silent before it is taken over")
	flag.DurationVar(&o.sweep, "sweep", 500*time.Millisecond, "pause between two looks after what is due")
	flag.Func("without", "orchestrator, container-provider, log-writer or internal-token: go without one of what the trigger of agents needs; repeatable", func(need string) error {
		return without(&o.agents, need)
	})
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "local: unexpected argument %q\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, o); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "local:", err)
		os.Exit(1)
	}
}

// without takes away what the trigger of agents needs.
func without(n *agentwire.Needs, need string) error {
	there, ok := map[string]*bool{
		"orchestrator": &n.Orchestrator, "container-provider": &n.ContainerProvider, "log-writer": &n.LogWriter, "internal-token": &n.InternalToken,
	}[need]
	if !ok {
		return errors.New("there is nothing of this name")
	}
	*there = false
	return nil
}
