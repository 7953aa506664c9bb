// Package infra says, as plain data, what Muster runs on: its routes, functions, queues and clock, in the order a run meets
// them. Both homes are built from it: infra/cdk turns it into CloudFormation, infra/local into one process. What is not
// written here runs in neither. All records are in one table, which shared/dynamo or shared/sqlite describes.
package infra

import "time"

// The names of the queues.
const (
	Runs       = "runs"
	Deliveries = "deliveries"
)

// Function is one Lambda function: the folder functions/<Name> and what it needs.
type Function struct {
	Name string
	// Does is its description.
	Does     string
	MemoryMB int
	Timeout  time.Duration

	// One of four things invokes it: routes that name it (Routes), the messages of the queue Eats, the clock, Every so often,
	// or, with Sockets, what happens on the connections of the WebSocket API.
	Eats    *Batch
	Every   time.Duration
	Sockets bool

	// Streams says that its answers are read while they are written. API Gateway cannot do that, so on AWS the function has
	// a URL of its own, and Otherwise sends those there who ask at the usual place.
	Streams bool
	// Reserved is how many invocations at a time are kept for it, and the most there can be; 0 is neither.
	Reserved int

	May May
}

// Batch says how messages of a queue come to a function.
type Batch struct {
	// Queue is the queue's name.
	Queue string
	// Size is the largest number of messages in one invocation.
	Size int
	// Concurrency is the largest number of invocations at a time.
	Concurrency int
}

// May is what a function is allowed to do, beside logging, and receiving, hiding, deleting and burying messages of the
// queue it eats.
type May struct {
	// Keep allows to read and write the records of the table.
	Keep bool
	// Send names the queues it may send to.
	Send []string
	// Redrive names the queues whose dead letters it may look at and move back.
	Redrive []string
	// Unseal allows to read the sealing key.
	Unseal bool
	// Push allows to send to the connections of the WebSocket API, and to end them.
	Push bool
	// Think allows to read the API keys of models, Call to call the functions of `lambda` tools.
	Think, Call bool
}

// Queue is one queue; each has a dead-letter queue.
type Queue struct {
	Name string
	// Visibility is how long a received message is hidden at first. AWS wants at least the timeout of the function that
	// eats it; a handler that is to be missed earlier shortens it by Hide. A dispatcher does not: for deliveries it is six times
	// the timeout, as AWS advises, because a batch waits, hidden, at Lambda's pollers too while invocations are throttled, and
	// one that came back meanwhile would be posted twice. What this costs is that after a dispatcher was killed its messages
	// come back late; to shorten it and renew it on the way would be two more requests for each message, and a retry as well as
	// the end of a run has a due time by which the sweeper finds it earlier.
	Visibility time.Duration
	// Receives is how often a message may be received before it goes to the dead-letter queue. A message that is handed back
	// on purpose (a run that goes on in another invocation, a delivery that waits for its retry) counts too.
	Receives int
	// Held is how many messages of one group are in flight at most, 0 for any number. It holds on one machine; on AWS a fair
	// queue serves other groups first, and Concurrency leaves room for them.
	Held int
	// Retention is how long messages are kept, DeadRetention how long those in the dead-letter queue.
	Retention, DeadRetention time.Duration
}

const day = 24 * time.Hour

// Otherwise names the function that answers what no route serves: it knows how each wire says so.
const Otherwise = "api"

// InternalToken says that an internal token is made at deployment. Without one nobody can read an agent's secret, and agents
// have no trigger.
var InternalToken = true

// Functions holds the functions in the order a run meets them.
var Functions = []Function{
	{
		Name:     "kickoff",
		Does:     "Starts runs.",
		MemoryMB: 256, Timeout: 15 * time.Second,
		May: May{Keep: true, Send: []string{Runs}, Unseal: true},
	},
	{
		Name:     "trigger",
		Does:     "Takes what starts runs from outside, and answers once they run.",
		MemoryMB: 256, Timeout: 29 * time.Second,
		Reserved: 100, // each waits for its run, half a minute at the most
		May:      May{Keep: true, Send: []string{Runs}, Unseal: true},
	},
	{
		Name:     "runner",
		Does:     "Executes crews, many runs at a time; most of its time it waits for models.",
		MemoryMB: 256, Timeout: 15 * time.Minute,
		Eats: &Batch{Queue: Runs, Size: 10, Concurrency: 50},
		May:  May{Keep: true, Send: []string{Runs, Deliveries}, Unseal: true, Think: true, Call: true},
	},
	{
		Name:     "dispatcher",
		Does:     "Tells receivers what happened: one signed POST per delivery.",
		MemoryMB: 256, Timeout: 2 * time.Minute,
		// A receiver that hangs keeps an invocation for half a minute, and everybody else wants one meanwhile.
		Eats: &Batch{Queue: Deliveries, Size: 10, Concurrency: 200},
		May:  May{Keep: true, Send: []string{Deliveries}, Unseal: true, Push: true},
	},
	{
		Name:     "sweeper",
		Does:     "Finds what is due and knocks again.",
		MemoryMB: 128, Timeout: 50 * time.Second,
		Every: time.Minute,
		May:   May{Keep: true, Send: []string{Runs, Deliveries}, Push: true},
	},
	{
		Name:     "stream",
		Does:     "Shows runs to those who watch: one invocation is one watcher, for a minute.",
		MemoryMB: 128, Timeout: 62 * time.Second,
		Streams: true, Reserved: 100,
		May: May{Keep: true},
	},
	{
		Name:     "socket",
		Does:     "Hears the connections of the WebSocket API: who they are, and what they want to be told of.",
		MemoryMB: 128, Timeout: 29 * time.Second,
		Sockets: true,
		May:     May{Keep: true, Send: []string{Deliveries}, Push: true},
	},
	{
		Name:     "api",
		Does:     "Answers everything else that is asked over HTTP.",
		MemoryMB: 256, Timeout: 29 * time.Second,
		May: May{Keep: true, Send: []string{Runs, Deliveries}, Redrive: []string{Runs, Deliveries}, Unseal: true},
	},
}

// Queues holds the queues in the order a run meets them.
var Queues = []Queue{
	{
		Name:       Runs,
		Visibility: 15 * time.Minute,
		Receives:   1000, // what is wrong with a run ends the run, after five take-overs; its message only knocks
		Retention:  4 * day, DeadRetention: 14 * day,
	},
	{
		Name:       Deliveries,
		Visibility: 12 * time.Minute,
		Receives:   20,
		Held:       50,
		Retention:  4 * day, DeadRetention: 14 * day,
	},
}
