package run

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/queue"
	"muster/shared/record"
)

// Service is everything that can be done with runs.
type Service struct {
	Store record.Store
	Crews *crew.Store
	// Runs and Deliveries are the two queues.
	Runs, Deliveries queue.Sender
	// Seal hides the Authorization of a target given at kickoff.
	Seal func(ctx context.Context, workspaceID, recordID, field, plain string) (string, error)

	// Unseal undoes Seal, for a run that is done again.
	Unseal func(ctx context.Context, workspaceID, recordID, field, sealed string) (string, error)

	// Standing gives the targets of a run that are not its kickoff's. Owners ask when they claim a run, and again before they
	// end it. None unless set.
	Standing func(ctx context.Context, r Run) ([]Target, error)
	// Watchers gives the target that stands for those who are told of a run while they are there, if anybody is. Owners ask
	// when they claim a run, and again when somebody says that he watches it. None unless set.
	Watchers func(ctx context.Context, r Run) ([]Target, error)

	// Now is the clock, time.Now unless set.
	Now func() time.Time
	// Log is slog.Default unless set.
	Log *slog.Logger
	// Traffic bounds the runs of each workspace.
	Traffic crew.Traffic
	// LeaseTime is how long a claim holds without being renewed; 0 means a minute.
	LeaseTime time.Duration
	// Inbox is how often an owner reads its inbox; 0 means 3 s.
	Inbox time.Duration
	// Keep is how long everything of a run is kept; 0 means 90 days.
	Keep time.Duration
}

// RunMessage is the body of a message in the runs queue: a knock for one run.
type RunMessage struct {
	Run string `json:"run"`
}

// DeliveryMessage is the body of a message in the deliveries queue: a page has something for a target. Part names one
// POST of several when only that one is meant.
type DeliveryMessage struct {
	Run    string `json:"run"`
	Seq    int    `json:"seq"`
	Target string `json:"target"`
	Part   string `json:"part,omitempty"`
}

// Message makes the queue's message of a knock.
func (m RunMessage) Message() queue.Message { return queue.Message{Body: encode(m), Group: m.Run} }

// Message makes the queue's message. Its group is the target: a slow one is nobody else's matter. An endpoint, whose id is a
// UUID, is one group over all runs.
func (m DeliveryMessage) Message() queue.Message {
	group := m.Run + "/" + m.Target
	if _, standing := id.Parse("", m.Target); standing {
		group = m.Target
	}
	return queue.Message{Body: encode(m), Group: group}
}

// encode is for values that cannot fail to encode.
func encode(v any) string {
	data, _ := json.Marshal(v)
	return string(data)
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

// Lease gives how long a claim holds without being renewed.
func (s *Service) Lease() time.Duration {
	if s.LeaseTime > 0 {
		return s.LeaseTime
	}
	return time.Minute
}

func (s *Service) inboxPause() time.Duration {
	if s.Inbox > 0 {
		return s.Inbox
	}
	return inboxPause
}

func (s *Service) expires(r Run) time.Time {
	keep := s.Keep
	if keep == 0 {
		keep = 90 * 24 * time.Hour
	}
	return r.CreatedAt.Add(keep)
}

func partition(runID string) string { return "R#" + runID }

func itemKey(runID string) record.Key    { return record.Key{Part: partition(runID), Sort: "RUN"} }
func requestKey(runID string) record.Key { return record.Key{Part: partition(runID), Sort: "REQUEST"} }
func pageKey(runID string, seq int) record.Key {
	return record.Key{Part: partition(runID), Sort: fmt.Sprintf("P#%06d", seq)}
}

// list names the list of a deployment's runs.
func list(deploymentID string) string { return "runs/" + deploymentID }

// Get reads the run item.
func (s *Service) Get(ctx context.Context, runID string) (Run, error) {
	rec, err := s.Store.Get(ctx, itemKey(runID))
	if fault.Is(err, fault.NotFound) {
		return Run{}, unknown(runID)
	}
	if err != nil {
		return Run{}, fmt.Errorf("read run %s: %w", runID, err)
	}
	return decodeRun(rec)
}

func unknown(runID string) error {
	return fault.New(fault.NotFound, "There is no run %s.", id.Show("run", runID))
}

func decodeRun(rec record.Record) (Run, error) {
	var r Run
	if err := json.Unmarshal(rec.Body, &r); err != nil {
		return Run{}, fmt.Errorf("decode the run of %s: %w", rec.Part, err)
	}
	r.rev = rec.Rev
	return r, nil
}

// put writes the run item on condition that it is still the one r was read as. A lost race is fault.Conflict, unless what
// is there is what was to be written: then an earlier try got through.
func (s *Service) put(ctx context.Context, r *Run) error {
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode run %s: %w", r.ID, err)
	}
	rec := record.Record{Key: itemKey(r.ID), Rev: r.rev, Body: body, Due: r.Due, List: list(r.DeploymentID), Order: r.ID, Expires: s.expires(*r)}
	rev, err := s.repeat(ctx, func() (int64, error) { return s.Store.Put(ctx, rec) }, body)
	if err != nil {
		return err
	}
	r.rev = rev
	return nil
}

// repeat repeats a conditional write whose outcome is unknown, with the same bytes, until it is known or ctx ends.
func (s *Service) repeat(ctx context.Context, put func() (int64, error), body []byte) (int64, error) {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		rev, err := put()
		if there, ok := record.Current(err); ok && string(there.Body) == string(body) {
			return there.Rev, nil
		}
		if fault.KindOf(err) != fault.Internal || ctx.Err() != nil {
			return rev, err
		}
		if s.pause(ctx, wait) != nil {
			return 0, err
		}
	}
}

// pause waits, unless ctx ends before.
func (s *Service) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
