// Package trigger is how a run is started from outside: a URL with a token in it, who may use it, and what came of each
// request. It knows no wire. It promises:
//
//   - A token is 256 random bits, kept as SHA-256 and read consistently at each use: regenerated, disabled or deleted, the
//     old one is dead at once.
//   - A trigger that names its Sender starts runs for requests of that sender only. Its secret is sealed, and never shown.
//   - Every request to a trigger that is there leaves a Receipt: what came, what became of it, why, and which run. Of one
//     that was refused no body is kept, and at most sixty a minute leave a receipt.
//   - The same request again gives the run of the first: it is known by its Idempotency-Key, else by the sender's id of the
//     delivery, for 24 hours, else by its signature, for a minute. What proves a request decides whether an id can be
//     believed, see below.
//   - A run that nobody has begun when the caller is told so is withdrawn, and never begins. (Slack, GitHub and GitLab hang
//     up before that; they are told that the run is pending, and it begins when it can.)
//
// Receive does all that for an incoming webhook. The trigger of a single agent (agent.go) has no token: its wire knows its
// callers by AgentTrigger's secret, and uses Begin, Refuse and StartAgent.
//
// # The same again
//
// Whoever has seen a signed request can send it once more under another id, unless the signature covers the id. So a repetition
// is also known by what cannot be changed, whatever id stands beside it:
//
//	slack           event_id, else trigger_id, which are in the signed body             24 hours
//	stripe          id, likewise                                                        24 hours
//	standard        webhook-id, which is signed                                         24 hours
//	gitlab          webhook-id, where the request is signed as in standard              24 hours
//	github          the signature, of the body alone: X-GitHub-Delivery is not signed   1 minute
//	grafana, generic-hmac, agents; slack and stripe without an id: the signature        1 minute
//	gitlab with its token, basic, none, X-Webhook-Secret: nothing is signed, so only keys and ids tell
//
// That holds against an Idempotency-Key too, but for generic-hmac and agents: whoever signs there says by the key that
// the same body is meant twice, and must keep who listens from the request by TLS, or a timestamp.
//
// A sender's own redelivery has the id of the first delivery, and gives its run for 24 hours. Two deliveries of the
// very same signed bytes within a minute are taken for one, also under two ids: those that mean two things differ in
// their bodies.
//
// # Keys
//
// The triggers of a deployment lie beside its endpoints, everything of one trigger in a partition of its own:
//
//	W#<deployment> / IN#<trigger>       the Trigger
//	W#<trigger> / OF                    its deployment
//	W#<deployment> / AGENT#<agent>      the Trigger of an agent
//	W#<agent> / AGENT                   its deployment
//	N#<sha256> / DEPLOYMENTS            the deployments of a name
//	T#<sha256> / TRIGGER                what a token stands for
//	W#<trigger> / RECEIPT#<receipt>     a Receipt (list "receipts/<deployment>", by id)
//	W#<trigger> / RECEIVED#<receipt>    the body that came (blob)
//	W#<trigger> / PROOF#<sha256>        the key of the first request with a signature, or a signed id
//	W#<trigger> / REFUSED               how many were refused this minute
package trigger
