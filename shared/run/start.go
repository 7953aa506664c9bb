package run

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
)

// StartRequest is a kickoff that its dialect has decoded.
type StartRequest struct {
	Deployment crew.Deployment
	// Environment is "production" unless given.
	Environment string
	Inputs      map[string]any
	// Meta is echoed in webhooks as it came; nil is none.
	Meta json.RawMessage
	// Targets carry their Authorization in clear; Start seals it.
	Targets []Target
	// IdempotencyKey makes a repeated request give the same run for KeyLife, record.KeyLife unless given; "" is none. BodyDigest
	// tells a repetition from another request with the same key.
	IdempotencyKey, BodyDigest string
	KeyLife                    time.Duration
	// Origin says what starts the run, "api" unless given; Trigger is the trigger's id, and Traffic bounds its runs.
	Origin, Trigger string
	Traffic         crew.Traffic
	// Limits bind the run beside those of the deployment.
	Limits crew.Limits
	// Version is another one than the environment's; nil is none.
	Version *crew.Pointer
	// Thread is the thread that the run is in, "" for none: the values of the thread lie under its inputs. When a run of the
	// thread is under way it is refused, or waits if Enqueue says so. Remember is how many earlier turns it wants to know.
	Thread   string
	Enqueue  bool
	Remember int
	// Ousts stops the runs of the thread that were admitted before this one; Enqueue goes with it.
	Ousts Oust
	// MaxWaiting is how many runs of the thread may wait before a further one is fault.TooMany; 0 is as many as a list holds.
	MaxWaiting int
	// Agent is the key of an agent of the version that does the run alone, "" for the whole crew. Its task is the input
	// Message; no other input is needed.
	Agent string
	// Of is the earlier run that this one repeats, Kept what it takes over from there.
	Of   string
	Kept map[string]Kept
}

// Message is the input that the task of an agent is which does a run alone.
const Message = "message"

// queuedGrace is how long a queued run's message may be under way before the sweeper sends another.
const queuedGrace = 15 * time.Second

// Start accepts a run: it picks the version, checks the inputs, keeps what was asked for, and knocks. Once the run item
// is there the run is accepted, whatever happens to the message: the sweeper finds it.
// Errors: fault.Missing names missing inputs, fault.Invalid an unknown environment, fault.Conflict a key that was
// used with another body, or a thread that is busy.
func (s *Service) Start(ctx context.Context, q StartRequest) (Run, error) {
	version, err := s.Check(ctx, &q)
	if err != nil {
		return Run{}, err
	}

	now := s.now().UTC().Truncate(time.Millisecond)
	r := Run{
		ID: id.New(), WorkspaceID: q.Deployment.WorkspaceID, DeploymentID: q.Deployment.ID, VersionID: version.VersionID,
		VersionNumber: version.Number, Environment: q.Environment, Origin: q.Origin, Trigger: q.Trigger, Agent: q.Agent, Thread: q.Thread, Ousts: q.Ousts, CreatedAt: now, State: Queued, Due: now.Add(queuedGrace),
	}
	if q.IdempotencyKey != "" {
		runID, err := s.reserve(ctx, q, r)
		if err != nil {
			return Run{}, err
		}
		if runID != r.ID {
			before, err := s.Get(ctx, runID)
			if err == nil && before.State == Queued && before.StartedAt.IsZero() {
				// Whoever asked first may have died before it could.
				if before, err = s.takePlace(ctx, before); err != nil {
					return before, err
				}
				s.knockFor(ctx, before)
			}
			if !fault.Is(err, fault.NotFound) {
				before.Before = true
				return before, err
			}
			r.ID = runID // the request that reserved the id did not get as far as the run
		}
	}

	rate, err := s.countKickoff(ctx, q)
	r.Rate = rate
	if err != nil {
		return r, err
	}
	admitted, err := s.enterAll(ctx, &r, q)
	if err != nil {
		return r, err
	}
	if err := s.keepRequest(ctx, r, q); err != nil {
		return Run{}, err
	}
	if err := s.put(ctx, &r); err != nil {
		if there, ok := record.Current(err); ok {
			before, err := decodeRun(there)
			before.Rate, before.Before = rate, true
			return before, err
		}
		return Run{}, fmt.Errorf("put run %s: %w", r.ID, err)
	}
	if r, err = s.takePlace(ctx, r); err != nil || r.State.Ended() {
		return r, err
	}
	if !admitted {
		// Whoever leaves its slot to the run knocks, but may have done so before there was a run.
		waits, err := s.waitsForSlot(ctx, r)
		if err != nil || waits {
			r.Waits = true
			return r, nil
		}
	}
	s.knockFor(ctx, r)
	return r, nil
}

// Check says what is wrong with a request, without starting anything, and gives the version that it would execute. It
// fills in what the request leaves open.
func (s *Service) Check(ctx context.Context, q *StartRequest) (crew.Pointer, error) {
	if q.Environment == "" {
		q.Environment = crew.Production
	}
	if q.Origin == "" {
		q.Origin = "api"
	}
	version, err := q.Deployment.Environment(q.Environment)
	if err != nil {
		return crew.Pointer{}, err
	}
	if q.Version != nil {
		version = *q.Version
	}
	if err := q.Limits.Check(); err != nil {
		return crew.Pointer{}, err
	}
	inputs := q.Inputs
	if q.Thread != "" {
		_, valued, err := s.LastTurn(ctx, q.Thread)
		if err != nil {
			return crew.Pointer{}, err
		}
		inputs = overlay(valued.Values, inputs)
		if len(encode(inputs)) > maxValues {
			return crew.Pointer{}, fault.New(fault.TooLarge, "The values of the thread and the input together have more than %d MiB.", maxValues>>20)
		}
	}
	if q.Agent != "" {
		return version, nil
	}
	return version, version.Check(inputs)
}

// Earlier gives the run that an earlier request with the same idempotency key has started, if there is one.
func (s *Service) Earlier(ctx context.Context, q StartRequest) (r Run, found bool, err error) {
	if q.IdempotencyKey == "" {
		return Run{}, false, nil
	}
	runID, err := q.once().Find(ctx, s.Store)
	if fault.Is(err, fault.NotFound) {
		return Run{}, false, nil
	}
	if err != nil {
		return Run{}, false, err
	}
	r, err = s.Get(ctx, runID)
	if fault.Is(err, fault.NotFound) || r.Withdrawn {
		return Run{}, false, nil
	}
	return r, err == nil, err
}

// knockFor sends the message of a run that was accepted.
func (s *Service) knockFor(ctx context.Context, r Run) {
	if err := s.Runs.Send(ctx, RunMessage{r.ID}.Message()); err != nil {
		s.log().Error("the run is accepted, but its message was not sent; the sweeper will send it", "run", r.ID, "error", err)
	}
}

// keepRequest writes what was asked for, before the run item that makes it count.
func (s *Service) keepRequest(ctx context.Context, r Run, q StartRequest) error {
	targets, err := s.sealed(ctx, r, q.Targets)
	if err != nil {
		return err
	}
	req := Request{
		Inputs: q.Inputs, Meta: q.Meta, Targets: targets,
		Limits: q.Deployment.Limits.Tighter(q.Limits), Asked: q.Limits, Prices: q.Deployment.Prices, Of: q.Of, Kept: q.Kept, Agent: q.Agent, Remember: q.Remember,
	}
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode the request of run %s: %w", r.ID, err)
	}
	rec := record.Record{Key: requestKey(r.ID), Body: body, Expires: s.expires(r)}
	_, err = s.repeat(ctx, func() (int64, error) { return record.PutBlob(ctx, s.Store, rec) }, nil)
	if err != nil && !fault.Is(err, fault.Conflict) { // a conflict: an earlier try got through
		return fmt.Errorf("put the request of run %s: %w", r.ID, err)
	}
	return nil
}

// sealed gives a copy of targets whose Authorization is sealed.
func (s *Service) sealed(ctx context.Context, r Run, targets []Target) ([]Target, error) {
	targets = slices.Clone(targets)
	for i := range targets {
		t := &targets[i]
		if t.Authorization == "" {
			continue
		}
		var err error
		if t.Authorization, err = s.Seal(ctx, r.WorkspaceID, r.ID, "target/"+t.ID, t.Authorization); err != nil {
			return nil, fmt.Errorf("seal the authorization of target %s: %w", t.ID, err)
		}
	}
	return targets, nil
}

// once is the request's idempotency key.
func (q StartRequest) once() record.Once {
	return record.Once{Deployment: q.Deployment.ID, Key: q.IdempotencyKey, Digest: q.BodyDigest, Life: q.KeyLife}
}

// reserve gives the id of the run that the request's key stands for: that of r when the key is new, or stands for a run that
// was withdrawn.
func (s *Service) reserve(ctx context.Context, q StartRequest, r Run) (runID string, err error) {
	_, err = s.repeat(ctx, func() (int64, error) {
		runID, err = q.once().ID(ctx, s.Store, r.ID, r.CreatedAt, s.tookBack)
		return 0, err
	}, nil)
	return runID, err
}

// tookBack says whether a run was withdrawn. One that never came to be was not.
func (s *Service) tookBack(ctx context.Context, runID string) (bool, error) {
	r, err := s.Get(ctx, runID)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return r.Withdrawn, err
}
