package agentwire

import (
	"context"
	"mime"
	"net/http"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/run"
	"muster/shared/trigger"
	"muster/shared/workspace"
)

// ReceiptHeader names the receipt of a request that was its sender's.
const ReceiptHeader = "Muster-Receipt"

var (
	errRefused = fault.New(fault.Unauthorized, "unauthorized")
	errStale   = fault.New(fault.Invalid, "stale or invalid timestamp")
	errOld     = fault.New(fault.Unauthorized, "X-Webhook-Secret is not accepted since %s; send X-Signature, the hex HMAC-SHA256 of the body", sunset.Format(time.DateOnly))
	errMedia   = fault.New(fault.Unsupported, "unsupported media type: send application/json, not encoded")
)

// errLarge is the same for every body that is not taken.
var errLarge = httpapi.TooLarge(httpapi.MaxBody)

// maxProof is how much of a body is read to see whether it is its sender's: one that is too large leaves a receipt like any
// other that was refused. More than that is nobody's.
const maxProof = 8 << 20

// refusedAfter is when a request is answered that proves nothing, counted from when it came. What is done for it until then
// depends on whether there is such an agent (it leaves a receipt); the answer does not show it.
const refusedAfter = 100 * time.Millisecond

type acceptedReply struct {
	Status string `json:"status"`
	RunID  string `json:"run_id"`
}

// trigger takes a request to an agent's trigger.
func (w *Wire) trigger(rw http.ResponseWriter, r *http.Request, _ workspace.Caller) error {
	ctx := r.Context()
	q, err := w.proven(rw, r)
	if err != nil {
		return err
	}
	started, err := w.take(ctx, q)
	if fault.Is(err, fault.Internal) {
		return err // and who knows what is kept of the request
	}
	if receipt := q.ReceiptID(); receipt != "" {
		rw.Header().Set(ReceiptHeader, receipt)
	}
	if l := started.Rate; l != nil {
		httpapi.Rate(rw, l.Limit, l.Remaining, l.Reset)
	}
	if err == trigger.ErrNoAgent {
		return errRefused
	}
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, http.StatusAccepted, acceptedReply{"accepted", id.Show("run", started.ID)})
}

// proven gives a request whose sender knows the secret of its agent. Any other one is refused, in the same way and after the
// same time whether there is such an agent or not.
func (w *Wire) proven(rw http.ResponseWriter, r *http.Request) (*proof, error) {
	came := time.Now()
	ctx := r.Context()
	body, unread := httpapi.ReadRaw(r, maxProof)
	if fault.Is(unread, fault.TooLarge) {
		unread = errLarge
	}
	t, secret, known, err := w.Triggers.AgentTrigger(ctx, r.PathValue("crewId"), r.PathValue("agentId"))
	if err != nil {
		return nil, err
	}
	signed := len(r.Header.Values(headerSignature)) > 0
	why := unread
	if why == nil || !signed { // the secret proves itself, whatever became of the body
		why = verify(r.Header, body, secret, w.now()).refusal()
	}
	if why == nil && !known {
		why = errRefused // somebody has guessed the secret that nobody knows
	}
	if why == errOld || why == nil && !signed {
		announce(rw.Header())
	}
	q := w.Triggers.Begin(t, r.Header, body)
	if why != nil {
		if known {
			w.Triggers.Refuse(ctx, q, why)
		} else {
			w.Triggers.Stray(ctx, fault.New(fault.NotFound, "There is no such agent."))
		}
		settle(ctx, came)
		return nil, why
	}
	if unread == nil && len(body) > httpapi.MaxBody {
		unread = errLarge
	}
	q.Signature = r.Header.Get(headerSignature)
	return &proof{q, unread}, nil
}

// proof is a request whose sender is known. unread says why its body cannot be taken, if so.
type proof struct {
	*trigger.Request
	unread error
}

// take starts the run of a request that is its sender's.
func (w *Wire) take(ctx context.Context, q *proof) (run.Run, error) {
	if q.unread != nil {
		return run.Run{}, w.Triggers.Refuse(ctx, q.Request, q.unread)
	}
	if !isJSON(q.Header, q.Body) {
		return run.Run{}, w.Triggers.Refuse(ctx, q.Request, errMedia)
	}
	p, err := trigger.ReadPayload(q.Body)
	if err != nil {
		return run.Run{}, w.Triggers.Refuse(ctx, q.Request, err)
	}
	return w.Triggers.StartAgent(ctx, q.Request, p)
}

// isJSON says whether a body is called JSON, and is sent as it is. None needs no name.
func isJSON(h http.Header, body []byte) bool {
	if httpapi.Encoded(h) {
		return false
	}
	if len(body) == 0 && h.Get("Content-Type") == "" {
		return true
	}
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json"))
}

// settle waits until a refused request may be answered.
func settle(ctx context.Context, came time.Time) {
	t := time.NewTimer(refusedAfter - time.Since(came))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
