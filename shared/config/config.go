// Package config reads the settings of the Lambda functions from the environment, and is the only package that does. The
// names here are the ones that infra/cdk gives to the functions; the AWS SDK and the Lambda runtime read their own
// (AWS_REGION, AWS_ENDPOINT_URL_DYNAMODB, AWS_LAMBDA_LOG_LEVEL, …).
package config

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"muster/shared/crew"
	"muster/shared/engine/llm"
	"muster/shared/id"
	"muster/shared/workspace"
)

// The names of the environment variables.
const (
	TableKey               = "MUSTER_TABLE"
	RunsURLKey             = "MUSTER_RUNS_QUEUE_URL"
	RunsDeadURLKey         = "MUSTER_RUNS_DLQ_URL"
	DeliveriesURLKey       = "MUSTER_DELIVERIES_QUEUE_URL"
	DeliveriesDeadURLKey   = "MUSTER_DELIVERIES_DLQ_URL"
	SealingKeyKey          = "MUSTER_SEALING_KEY"
	SealingKeyParameterKey = "MUSTER_SEALING_KEY_PARAMETER"
	WorkspaceIDKey         = "MUSTER_WORKSPACE_ID"
	WorkspaceTokenKey      = "MUSTER_WORKSPACE_TOKEN_SHA256"
	InternalTokenKey       = "MUSTER_INTERNAL_TOKEN_SHA256"
	ToolFunctionsKey       = "MUSTER_TOOL_FUNCTIONS"
	PrivateNetworksKey     = "MUSTER_PRIVATE_NETWORKS"
	MaxConcurrentRunsKey   = "MUSTER_MAX_CONCURRENT_RUNS"
	WhenFullKey            = "MUSTER_WHEN_FULL"
	MaxKickoffsKey         = "MUSTER_MAX_KICKOFFS_PER_MINUTE"
	PublicURLKey           = "MUSTER_PUBLIC_URL"
	LeaseKey               = "MUSTER_LEASE"
	StreamURLKey           = "MUSTER_STREAM_URL"
	SocketURLKey           = "MUSTER_SOCKET_URL"
	OrchestratorKey        = "MUSTER_ORCHESTRATOR"
	ContainerProviderKey   = "MUSTER_CONTAINER_PROVIDER"
	LogWriterKey           = "MUSTER_LOG_WRITER"
)

// A lease is renewed when a third of it has gone, which must leave time for a slow write; and it is how long a run whose
// owner died is left lying.
const (
	shortestLease = time.Second
	longestLease  = 10 * time.Minute
)

// Config is everything that a function is told from outside. Every function is told the same, and may do less with it
// than it knows: what it may do is in its grants.
type Config struct {
	// Table is the name of the DynamoDB table (MUSTER_TABLE).
	Table string
	// Runs and Deliveries are the two queues (MUSTER_RUNS_QUEUE_URL and _DLQ_URL, MUSTER_DELIVERIES_QUEUE_URL and _DLQ_URL).
	Runs, Deliveries Queue
	// SealingKeyParameter names the SSM SecureString that holds the sealing keys (MUSTER_SEALING_KEY_PARAMETER).
	SealingKeyParameter string
	// SealingKeys holds the keys themselves, for machines without SSM (MUSTER_SEALING_KEY). One of the two is set. Both hold
	// what workspace.ParseKeys reads.
	SealingKeys string
	// WorkspaceID is the workspace of this installation (MUSTER_WORKSPACE_ID).
	WorkspaceID string
	// Callers holds the callers of the tokens made at deploy time, by the SHA-256 of the token: the workspace's
	// (MUSTER_WORKSPACE_TOKEN_SHA256) and the internal one (MUSTER_INTERNAL_TOKEN_SHA256; may be absent).
	Callers map[string]workspace.Caller
	// ToolFunctions names the Lambda functions that `lambda` tools may call (MUSTER_TOOL_FUNCTIONS, comma-separated; may
	// be absent).
	ToolFunctions []string
	// PrivateNetworks holds the addresses inside that webhooks and tools may reach (MUSTER_PRIVATE_NETWORKS, comma-separated
	// prefixes such as 10.1.0.0/16; absent: public addresses only).
	PrivateNetworks []netip.Prefix
	// Traffic bounds the runs of the whole workspace (MUSTER_MAX_CONCURRENT_RUNS, MUSTER_WHEN_FULL: queue or reject,
	// MUSTER_MAX_KICKOFFS_PER_MINUTE; absent: no limit).
	Traffic crew.Traffic
	// PublicURL is where others reach the routes, for the links in questions to people (MUSTER_PUBLIC_URL; absent: no links).
	PublicURL string
	// StreamURL is where the function that streams is reached (MUSTER_STREAM_URL; absent: streams are answered here).
	StreamURL string
	// Orchestrator (MUSTER_ORCHESTRATOR) names the queue where runs wait, ContainerProvider (MUSTER_CONTAINER_PROVIDER) the
	// function that executes them, LogWriter (MUSTER_LOG_WRITER) the table that keeps their events, as far as they are there.
	// Without any one of the three, or without an internal token (MUSTER_INTERNAL_TOKEN_SHA256), agents have no trigger.
	Orchestrator, ContainerProvider, LogWriter string
	// InternalToken says that there is an internal token.
	InternalToken bool
	// SocketURL is where what is sent to the connections of the WebSocket API goes (MUSTER_SOCKET_URL; absent: nowhere).
	SocketURL string
	// Lease is how long a run's owner may be silent before it is taken over (MUSTER_LEASE, a duration such as 60s, from 1s to
	// 10m; absent: 0, which is the default of package run). The run's message is hidden for as long, and renewed with it. The
	// other period, from one sweep to the next, is the clock's: the manifest's Every.
	Lease time.Duration
	// Models is what llm.FromEnv reads. On AWS an API key may be "ssm:" and the name of a SecureString that holds it.
	Models llm.Settings
}

// Queue is where a queue and its dead-letter queue are.
type Queue struct{ URL, DeadURL string }

// Read reads the environment of the process.
func Read() (Config, error) { return From(os.Getenv) }

// Models, ToolFunctions, Traffic and PrivateNetworks read one setting each: all that a single machine needs to know.

// Models reads what the environment says of models.
func Models() llm.Settings { return llm.FromEnv(os.Getenv) }

// ToolFunctions reads the names of the functions that `lambda` tools may call.
func ToolFunctions() []string { return list(os.Getenv(ToolFunctionsKey)) }

// Traffic reads what the environment says of how many runs there may be.
func Traffic() (crew.Traffic, error) {
	r := reader{getenv: os.Getenv}
	return r.traffic(), r.err()
}

// PrivateNetworks reads which addresses inside webhooks and tools may reach.
func PrivateNetworks() ([]netip.Prefix, error) {
	r := reader{getenv: os.Getenv}
	return r.prefixes(PrivateNetworksKey), r.err()
}

// From reads settings by getenv, which gives "" for what is not set. Everything that is missing or wrong is told in one
// error.
func From(getenv func(string) string) (Config, error) {
	r := reader{getenv: getenv}
	c := Config{
		Table:               r.need(TableKey, "the name of the DynamoDB table"),
		Runs:                Queue{r.url(RunsURLKey), r.url(RunsDeadURLKey)},
		Deliveries:          Queue{r.url(DeliveriesURLKey), r.url(DeliveriesDeadURLKey)},
		SealingKeyParameter: getenv(SealingKeyParameterKey),
		SealingKeys:         getenv(SealingKeyKey),
		WorkspaceID:         r.id(WorkspaceIDKey),
		ToolFunctions:       list(getenv(ToolFunctionsKey)),
		PrivateNetworks:     r.prefixes(PrivateNetworksKey),
		Traffic:             r.traffic(),
		PublicURL:           r.base(PublicURLKey),
		StreamURL:           r.base(StreamURLKey),
		SocketURL:           r.base(SocketURLKey),
		Orchestrator:        getenv(OrchestratorKey),
		ContainerProvider:   getenv(ContainerProviderKey),
		LogWriter:           getenv(LogWriterKey),
		InternalToken:       getenv(InternalTokenKey) != "",
		Lease:               r.duration(LeaseKey, shortestLease, longestLease),
		Models:              llm.FromEnv(getenv),
	}
	if (c.SealingKeyParameter == "") == (c.SealingKeys == "") {
		r.wrong("set either %s (the name of an SSM SecureString) or %s", SealingKeyParameterKey, SealingKeyKey)
	}
	c.Callers = map[string]workspace.Caller{
		r.hash(WorkspaceTokenKey): {Kind: workspace.Workspace, WorkspaceID: c.WorkspaceID},
	}
	if c.InternalToken {
		internal := r.hash(InternalTokenKey)
		if _, same := c.Callers[internal]; same && len(r.problems) == 0 {
			r.wrong("%s and %s are the same token; the two open different doors", WorkspaceTokenKey, InternalTokenKey)
		}
		c.Callers[internal] = workspace.Caller{Kind: workspace.Internal, WorkspaceID: c.WorkspaceID}
	}
	if err := r.err(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// reader reads variables and collects what is wrong with them, without ever quoting a value.
type reader struct {
	getenv   func(string) string
	problems []string
}

func (r *reader) wrong(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	return fmt.Errorf("the environment is not complete: %s", strings.Join(r.problems, "; "))
}

// traffic reads the limits of the workspace.
func (r *reader) traffic() crew.Traffic {
	t := crew.Traffic{MaxConcurrentRuns: r.number(MaxConcurrentRunsKey), WhenFull: r.getenv(WhenFullKey), MaxKickoffsPerMinute: r.number(MaxKickoffsKey)}
	if err := t.Check(); err != nil {
		r.wrong("%s, %s and %s: %s", MaxConcurrentRunsKey, WhenFullKey, MaxKickoffsKey, err)
	}
	return t
}

// number reads a whole number, 0 when it is not set.
func (r *reader) number(key string) int {
	v := r.getenv(key)
	if v == "" {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		r.wrong("%s is not a whole number", key)
	}
	return n
}

// duration reads a duration within bounds, 0 when it is not set.
func (r *reader) duration(key string, least, most time.Duration) time.Duration {
	v := r.getenv(key)
	if v == "" {
		return 0
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < least || d > most {
		r.wrong("%s is not a duration such as 60s, from %s to %s", key, least, most)
	}
	return d
}

func (r *reader) need(key, what string) string {
	v := r.getenv(key)
	if v == "" {
		r.wrong("%s is missing (%s)", key, what)
	}
	return v
}

func (r *reader) url(key string) string {
	v := r.need(key, "the URL of an SQS queue")
	if u, err := url.Parse(v); v != "" && (err != nil || u.Scheme == "" || u.Host == "") {
		r.wrong("%s is not a URL", key)
	}
	return v
}

// base reads the URL of an installation; "" when it is absent.
func (r *reader) base(key string) string {
	v := r.getenv(key)
	if u, err := url.Parse(v); v != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "") {
		r.wrong("%s is not a URL such as https://muster.example.com", key)
	}
	return v
}

func (r *reader) id(key string) string {
	v := r.need(key, "a UUID")
	parsed, ok := id.Parse("ws", v)
	if v != "" && !ok {
		r.wrong("%s is not a UUID", key)
	}
	return parsed
}

func (r *reader) hash(key string) string {
	v := r.need(key, "the SHA-256 of a token, as 64 hex digits")
	if raw, err := hex.DecodeString(v); v != "" && (err != nil || len(raw) != 32) {
		r.wrong("%s is not the 64 hex digits of a SHA-256", key)
	}
	return strings.ToLower(v)
}

func (r *reader) prefixes(key string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, item := range list(r.getenv(key)) {
		p, err := netip.ParsePrefix(item)
		if err != nil {
			r.wrong("%s is not a list of network prefixes such as 10.1.0.0/16", key)
			return nil
		}
		prefixes = append(prefixes, p)
	}
	return prefixes
}

// list splits a comma-separated list, leaving out what is empty.
func list(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
