package trigger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/workspace"
)

// Service is everything that can be done with triggers.
type Service struct {
	Store  record.Store
	Crews  *crew.Store
	Runs   *run.Service
	Sealer *workspace.Sealer
	// Rules compiles filters and inputs; without it no trigger may have any.
	Rules Rules
	// Count takes how many requests came to triggers that are not there, by the name of the metric; it is logged unless set.
	Count func(counts map[string]int)
	// Now is the clock, time.Now unless set.
	Now func() time.Time
	// Log is slog.Default unless set.
	Log *slog.Logger
}

func (s *Service) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Service) log() *slog.Logger {
	if s.Log != nil {
		return s.Log
	}
	return slog.Default()
}

// UnknownTrigger is the metric of requests to triggers that are not there. It has no dimension: strangers choose the tokens.
const UnknownTrigger = "unknown_trigger"

// Stray counts a request to a token that stands for nothing. Nothing else is kept of it.
func (s *Service) Stray(ctx context.Context, err error) {
	switch {
	case !fault.Is(err, fault.NotFound):
	case s.Count != nil:
		s.Count(map[string]int{UnknownTrigger: 1})
	default:
		s.log().InfoContext(ctx, "a request to a trigger that is not there", "metric", UnknownTrigger)
	}
}

const (
	// startWait is how long a caller waits for its run to be begun.
	startWait = 25 * time.Second
	// lastWords is how much of an invocation is left for the answer.
	lastWords = 2 * time.Second
	// comeBack is what a caller is told to wait whose run nobody began.
	comeBack = 30 * time.Second
	// signatureLife is how long a signature alone tells a repetition: the same body may mean another run the next day.
	signatureLife = time.Minute
	// proofLife is how long an id that is signed does, as long as any id.
	proofLife   = 24 * time.Hour
	proofPrefix = "PROOF#"
	maxKey      = 255
)

// Request is one request to a trigger.
type Request struct {
	Trigger Trigger
	At      time.Time
	Header  http.Header
	Body    []byte
	// DeliveryID is the sender's own id of it, Signature what signed it, as far as they are known: by them a repetition is
	// known where there is no Idempotency-Key. IDSigned says that Signature covers DeliveryID.
	DeliveryID, Signature string
	IDSigned              bool

	receipt Receipt
}

// Begin takes a request to a trigger that its wire has read.
func (s *Service) Begin(t Trigger, h http.Header, body []byte) *Request {
	q := &Request{Trigger: t, At: s.now().UTC().Truncate(time.Millisecond), Header: h, Body: body}
	q.receipt = Receipt{
		ID: id.NewAt(q.At), Trigger: t.ID, WorkspaceID: t.WorkspaceID, DeploymentID: t.DeploymentID, At: q.At,
		Delivery: h.Get("Idempotency-Key"), Headers: scrub(h, t.Sender), Size: len(body),
	}
	return q
}

// ReceiptID gives the id of the request's receipt as ShowReceipt spells it; "" when it leaves none.
func (q *Request) ReceiptID() string {
	if q.receipt.ID == "" {
		return ""
	}
	return ShowReceipt(q.Trigger.ID, q.receipt.ID)
}

// Refuse notes that a request is not the sender's, or could not be read, and returns why.
func (s *Service) Refuse(ctx context.Context, q *Request, why error) error {
	s.bound(ctx, q)
	q.receipt.Delivery = clip(q.receipt.Delivery, maxKey)
	s.note(ctx, q, Refused, fault.Message(why), "")
	return why
}

// bound lets a request that was turned away leave no receipt when too many of this minute have.
func (s *Service) bound(ctx context.Context, q *Request) {
	left, _, err := record.CountMinute(ctx, s.Store, record.Key{Part: "W#" + q.Trigger.ID, Sort: "REFUSED"}, s.now, maxRefused)
	if err != nil {
		s.log().ErrorContext(ctx, "a request that was refused leaves no receipt", "trigger", q.Trigger.ID, "error", err)
	}
	if err != nil || left < 0 {
		q.receipt.ID = ""
	}
}

// Start starts the run of a request that is the sender's, with what start says of it: deployment, environment, inputs. The
// same request again gives the run of the first, and Before is set there.
func (s *Service) Start(ctx context.Context, q *Request, start run.StartRequest) (run.Run, error) {
	started, err := s.start(ctx, q, start)
	switch {
	case err != nil:
		if fault.Is(err, fault.TooMany) {
			s.bound(ctx, q)
		}
		s.note(ctx, q, Failed, fault.Message(err), "")
	case started.Before:
		s.note(ctx, q, Duplicate, "An earlier request had started the run.", started.ID)
	default:
		s.note(ctx, q, Accepted, "", started.ID)
	}
	return started, err
}

func (s *Service) start(ctx context.Context, q *Request, start run.StartRequest) (run.Run, error) {
	start.Trigger, start.Traffic = q.Trigger.ID, q.Trigger.Traffic
	if start.Origin == "" {
		start.Origin = "trigger"
	}
	kind, key := q.key()
	if len(key) > maxKey && kind == "key" {
		q.receipt.Delivery = clip(key, maxKey)
		return run.Run{}, fault.New(fault.Invalid, "The Idempotency-Key is longer than %d characters.", maxKey)
	}
	if kind != "signature" {
		q.receipt.Delivery = clip(key, maxKey)
	}
	if key != "" && q.receipt.ReplayOf == "" {
		var err error
		if kind, key, err = s.firstKey(ctx, q, kind, key); err != nil {
			return run.Run{}, err
		}
		start.IdempotencyKey = "trigger/" + q.Trigger.ID + "/" + kind + "/" + key
		switch kind {
		case "key":
			digest := sha256.Sum256(q.Body)
			start.BodyDigest = hex.EncodeToString(digest[:])
		case "signature":
			start.KeyLife = signatureLife
		}
	}
	return s.Runs.Start(ctx, start)
}

// key gives that by which a repetition of the request is known, and of what kind it is.
func (q *Request) key() (kind, key string) {
	if key := q.Header.Get("Idempotency-Key"); key != "" {
		return "key", key
	}
	if q.DeliveryID != "" {
		return "delivery", q.DeliveryID
	}
	return "signature", q.Signature
}

// known is a key by which a repetition is known, and of what kind it is.
type known struct {
	Kind string `json:"kind"`
	Key  string `json:"key"`
}

// firstKey gives the key of the first request with the same proof. Whoever has seen a signed request may send it again under
// another id, where that is not signed; it is still the same request, for as long as its proof tells that: the id if it is signed,
// else the signature.
func (s *Service) firstKey(ctx context.Context, q *Request, kind, key string) (string, string, error) {
	proof, life := known{"signature", q.Signature}, signatureLife
	if q.IDSigned {
		proof, life = known{"delivery", q.DeliveryID}, proofLife
	}
	if q.Signature == "" || kind == "key" && q.Trigger.Sender.setsKeys() {
		return kind, key, nil
	}
	body, err := json.Marshal(known{kind, key})
	if err != nil {
		return "", "", fmt.Errorf("encode the key of a request: %w", err)
	}
	hash := workspace.Hash(proof.Kind + "/" + proof.Key)
	_, err = s.Store.Put(ctx, record.Record{
		Key: record.Key{Part: "W#" + q.Trigger.ID, Sort: proofPrefix + hash}, Body: body, Expires: q.At.Add(life),
	})
	if there, taken := record.Current(err); taken {
		var first known
		if err := json.Unmarshal(there.Body, &first); err != nil {
			return "", "", fmt.Errorf("decode the key of a request: %w", err)
		}
		return first.Kind, first.Key, nil
	}
	if err != nil {
		return "", "", fmt.Errorf("keep the key of a request: %w", err)
	}
	return kind, key, nil
}

// Answer is what came of a request that was taken.
type Answer struct {
	// Run is the run of the request. It was begun, unless Pending says that nobody waited for that.
	Run     run.Run
	Pending bool
	// Ignored says that the filter said no, Reply what a sender's challenge or ping is answered; then there is no run.
	Ignored bool
	Reply   any
}

// Receive takes a request to an incoming webhook. With async it does not wait for its run to be begun.
// Errors: fault.NotFound for a trigger that is disabled, fault.Unauthorized for a request that is not the sender's,
// fault.Invalid and fault.Missing for what it says, fault.Unavailable when its run was not begun: then it never will be,
// unless an earlier request had started it.
func (s *Service) Receive(ctx context.Context, q *Request, async bool) (Answer, error) {
	if !q.Trigger.Enabled {
		return Answer{}, s.Refuse(ctx, q, errUnknown)
	}
	err := s.verify(ctx, q)
	if fault.Is(err, fault.Internal) {
		s.note(ctx, q, Failed, fault.Message(err), "")
		return Answer{}, err
	}
	if err != nil {
		return Answer{}, s.Refuse(ctx, q, err)
	}
	body, err := parse(q.Header, q.Body, q.Trigger.Sender.takesForms())
	if err != nil {
		return Answer{}, s.Refuse(ctx, q, err)
	}
	return s.act(ctx, q, body, async)
}

// verify holds a request against the sender of its trigger.
func (s *Service) verify(ctx context.Context, q *Request) (err error) {
	secret := ""
	if q.Trigger.Secret != "" {
		if secret, err = s.Sealer.Open(ctx, q.Trigger.WorkspaceID, q.Trigger.ID, SecretField, q.Trigger.Secret); err != nil {
			return err
		}
	}
	q.Signature, err = q.Trigger.Sender.Verify(secret, q.Header, q.Body, q.At)
	return err
}

// act does what a request asks for that is the sender's.
func (s *Service) act(ctx context.Context, q *Request, body any, async bool) (Answer, error) {
	if reply, ok := q.Trigger.Sender.greet(q.Header, body); ok {
		s.note(ctx, q, Answered, "The sender wanted to know whether somebody is there.", "")
		return Answer{Reply: reply}, nil
	}
	q.DeliveryID, q.IDSigned = q.Trigger.Sender.deliveryID(q.Header, body)
	if why := s.filtered(ctx, q, body); why != "" {
		s.note(ctx, q, Ignored, why, "")
		return Answer{Ignored: true}, nil
	}
	inputs, err := s.inputs(ctx, q, body)
	if err != nil {
		s.note(ctx, q, Failed, fault.Message(err), "")
		return Answer{}, err
	}
	d, err := s.Crews.Deployment(ctx, q.Trigger.DeploymentID)
	if err != nil {
		s.note(ctx, q, Failed, fault.Message(err), "")
		return Answer{}, err
	}
	started, err := s.Start(ctx, q, run.StartRequest{Deployment: d, Environment: q.Trigger.Environment, Inputs: inputs})
	if fault.Is(err, fault.TooMany) {
		f := fault.Wrap(err, fault.Unavailable, "%s", fault.Message(err))
		f.RetryAfter = retryAfter(err)
		return Answer{}, f
	}
	if err != nil || async {
		return Answer{Run: started, Pending: started.StartedAt.IsZero()}, err
	}
	return s.await(ctx, q, started)
}

func retryAfter(err error) time.Duration {
	var f *fault.Error
	if errors.As(err, &f) && f.RetryAfter > 0 {
		return f.RetryAfter
	}
	return comeBack
}

// filtered says why the filter does not want a request, "" if it does. An expression that cannot be evaluated for a body
// (most often because a field is not there) does not want it.
func (s *Service) filtered(ctx context.Context, q *Request, body any) (why string) {
	filter, err := s.rule(q.Trigger.Filter, Filter)
	if err == nil && filter == nil {
		return ""
	}
	var wanted any
	if err == nil {
		wanted, err = filter(ctx, body, q.receipt.Headers)
	}
	switch {
	case err != nil:
		return "The filter cannot be evaluated: " + fault.Message(err)
	case wanted != true:
		return "The filter said no."
	}
	return ""
}

// inputs gives the inputs of a request's run: what the trigger's expression makes of it, else its body.
func (s *Service) inputs(ctx context.Context, q *Request, body any) (map[string]any, error) {
	rule, err := s.rule(q.Trigger.Input, Input)
	if err != nil {
		return nil, err
	}
	if rule == nil {
		inputs, ok := body.(map[string]any)
		if !ok {
			return nil, fault.New(fault.Invalid, "The request body must be a JSON object: the inputs of the run by their names.")
		}
		return inputs, nil
	}
	made, err := rule(ctx, body, q.receipt.Headers)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "The inputs cannot be made of this request: %s", fault.Message(err))
	}
	inputs, ok := made.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the rule %q gave a %T", q.Trigger.Input, made)
	}
	return inputs, nil
}

// await waits until the run was begun. When nobody does, it is withdrawn, if the request is the one that started it: unless
// its sender would have gone by then, and not come again. Such a sender is told that the run is pending.
func (s *Service) await(ctx context.Context, q *Request, started run.Run) (Answer, error) {
	patience := q.Trigger.Sender.patience()
	until := q.At.Add(startWait)
	if patience > 0 {
		until = q.At.Add(patience)
	}
	if end, ok := ctx.Deadline(); ok {
		if end = s.now().Add(time.Until(end) - lastWords); end.Before(until) {
			until = end
		}
	}
	r, err := s.Runs.AwaitStart(ctx, started.ID, until)
	if err != nil {
		return Answer{}, err
	}
	if patience > 0 && r.StartedAt.IsZero() && !r.Withdrawn {
		return Answer{Run: started, Pending: true}, nil
	}
	waited := fmt.Sprintf("Nobody began the run within %d seconds, so it was withdrawn; send the request again.", int(math.Round(s.now().Sub(q.At).Seconds())))
	if r.StartedAt.IsZero() && !started.Before {
		if r, err = s.Runs.Withdraw(ctx, r.ID, waited); err != nil {
			return Answer{}, err
		}
	}
	if !r.StartedAt.IsZero() {
		r.Rate = started.Rate
		return Answer{Run: r}, nil
	}
	why := "Nobody has begun the run of an earlier request with the same id yet; send the request again."
	if !started.Before {
		why = waited
		s.note(ctx, q, Failed, why, r.ID)
	}
	f := fault.New(fault.Unavailable, "%s", why)
	f.RetryAfter = comeBack
	return Answer{}, f
}

// Replay does what a kept request asked for once more, as the trigger is now, and does not wait for its run to be begun.
// Who may do that is decided by the caller: the request is not verified again, and starts a run of its own.
func (s *Service) Replay(ctx context.Context, r Receipt, kept []byte) (Answer, *Request, error) {
	switch {
	case r.Status == Refused:
		return Answer{}, nil, fault.New(fault.Conflict, "The request was refused, so nothing of it is kept that could be replayed.")
	case r.Size > len(kept):
		return Answer{}, nil, fault.New(fault.Conflict, "Only the first %d of the %d bytes of this request are kept, so it cannot be replayed.", len(kept), r.Size)
	}
	t, err := s.Find(ctx, r.Trigger)
	if fault.Is(err, fault.NotFound) {
		t, err = s.FindAgent(ctx, r.Trigger)
	}
	if err != nil {
		return Answer{}, nil, err
	}
	h := http.Header{}
	for name, value := range r.Headers {
		h.Set(name, value)
	}
	q := s.Begin(t, h, kept)
	q.receipt.ReplayOf = r.ID
	if t.Agent != "" {
		p, err := ReadPayload(kept)
		if err != nil {
			return Answer{}, q, s.Refuse(ctx, q, err)
		}
		started, err := s.StartAgent(ctx, q, p)
		return Answer{Run: started, Pending: started.StartedAt.IsZero()}, q, err
	}
	body, err := parse(h, kept, t.Sender.takesForms())
	if err != nil {
		return Answer{}, q, s.Refuse(ctx, q, err)
	}
	a, err := s.act(ctx, q, body, true)
	return a, q, err
}
