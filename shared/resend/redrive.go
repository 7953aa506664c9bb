package resend

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
	"muster/shared/webhook"
)

// State is where a redrive stands.
type State string

// A redrive is under way until it has gone through everything, or somebody stops it.
const (
	Running  State = "running"
	Done     State = "done"
	Canceled State = "canceled"
)

// Skipped stands, among the statuses of deliveries, for what was never sent because the endpoint was disabled, or did not
// ask for it, or was not there yet.
const Skipped webhook.Status = "skipped"

// Ask says which deliveries are to be sent again.
type Ask struct {
	// Status is one status of deliveries, or Skipped.
	Status webhook.Status `json:"status"`
	// Since and Until bound when the deliveries were made, or, of those that were never made, when it happened what they
	// would have told. Zero is as long ago as deliveries are kept, and now.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Event is the only event wanted, "" for all.
	Event string `json:"event,omitempty"`
}

// Redrive is one going-through of an endpoint's log.
type Redrive struct {
	ID         string `json:"id"`
	EndpointID string `json:"endpoint"`
	// Asked is what was asked for, Ask the same with both its bounds.
	Asked Ask   `json:"asked"`
	Ask   Ask   `json:"ask"`
	State State `json:"state"`
	// Looked counts the deliveries (of runs, for Skipped) that were looked at, Sent those that are sent again.
	Looked int `json:"looked"`
	Sent   int `json:"sent"`
	// Cursor is how far it has come.
	Cursor    string    `json:"cursor,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`

	due time.Time
	rev int64
}

const (
	// keep is how long deliveries are kept, and redrives.
	keep = 30 * 24 * time.Hour
	// unfinished is how many redrives of an endpoint may be under way.
	unfinished = 3
	// maxKey is how long an Idempotency-Key may be.
	maxKey = 255
)

const prefix = "REDRIVE#"

func redriveKey(endpointID, redriveID string) record.Key {
	return record.Key{Part: "W#" + endpointID, Sort: prefix + redriveID}
}

// behind is more than an index is behind what was written.
const behind = time.Minute

// CoversUntil is the time before which nothing that was asked for has been passed over. What was made later may not have been
// in the log when the redrive looked there; another redrive finds it.
func (r Redrive) CoversUntil() time.Time {
	if certain := r.CreatedAt.Add(-behind); certain.Before(r.Ask.Until) {
		return certain
	}
	return r.Ask.Until
}

// Start begins a redrive. The same request with the same key, and, while it is under way, without one, is the same redrive.
func (s *Service) Start(ctx context.Context, e webhook.Endpoint, ask Ask, key string) (Redrive, error) {
	if err := check(&ask, key); err != nil {
		return Redrive{}, err
	}
	if !e.Enabled {
		return Redrive{}, fault.New(fault.Conflict, "The webhook is disabled; enable it first.")
	}
	before, err := s.Redrives(ctx, e.ID)
	if err != nil {
		return Redrive{}, err
	}
	now := s.now().UTC().Truncate(time.Millisecond)
	r := Redrive{EndpointID: e.ID, Asked: ask, Ask: ask, State: Running, CreatedAt: now, due: now}
	if r.Ask.Until.IsZero() || r.Ask.Until.After(now) {
		r.Ask.Until = now
	}
	if oldest := now.Add(-keep); r.Ask.Since.Before(oldest) {
		r.Ask.Since = oldest
	}
	name, running := key, 0
	for _, b := range before {
		if b.State != Running {
			continue
		}
		if running++; key == "" && b.Asked == ask {
			return b, nil
		}
	}
	if key == "" {
		// Two that ask for the same at once come to the same name.
		same := slices.DeleteFunc(slices.Clone(before), func(b Redrive) bool { return b.Asked != ask })
		name = digest(ask) + "/" + strconv.Itoa(len(same))
	}
	r.ID = id.Derive(e.ID, "redrive/"+name)
	if running >= unfinished && !slices.ContainsFunc(before, func(b Redrive) bool { return b.ID == r.ID }) {
		return Redrive{}, fault.New(fault.TooMany, "%d redrives of this webhook are under way; wait for one to end, or cancel it.", running)
	}
	err = s.put(ctx, &r)
	if there, ok := record.Current(err); ok {
		if r, err = decode(there); err == nil && r.Asked != ask {
			return Redrive{}, fault.New(fault.Conflict, "This Idempotency-Key was used for another redrive of this webhook.")
		}
	}
	if err != nil || r.State != Running {
		return r, err
	}
	// What comes at once is a courtesy: should it fail, the sweeper begins.
	if s.advance(ctx, redriveKey(e.ID, r.ID), small) != nil {
		return r, nil
	}
	return s.Redrive(ctx, e.ID, r.ID)
}

// check tells what nobody can ask for, and spells times in one way.
func check(ask *Ask, key string) error {
	if len(key) > maxKey {
		return fault.New(fault.Invalid, "The Idempotency-Key is longer than %d characters.", maxKey)
	}
	if ask.Status == webhook.Pending {
		return fault.New(fault.Invalid, "What is pending will be sent anyway.")
	}
	if ask.Status != Skipped {
		if _, err := webhook.ParseStatus(string(ask.Status)); err != nil {
			return fault.New(fault.Invalid, "\"status\" must be failed, exhausted, succeeded, canceled or skipped.")
		}
	}
	for _, t := range []*time.Time{&ask.Since, &ask.Until} {
		if !t.IsZero() {
			*t = t.UTC().Truncate(time.Millisecond)
		}
	}
	if !ask.Since.IsZero() && !ask.Until.IsZero() && ask.Until.Before(ask.Since) {
		return fault.New(fault.Invalid, "\"until\" is before \"since\".")
	}
	return nil
}

func digest(ask Ask) string {
	body, _ := json.Marshal(ask)
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// Redrives reads the redrives of an endpoint, the newest first.
func (s *Service) Redrives(ctx context.Context, endpointID string) ([]Redrive, error) {
	records, err := s.Store.Scan(ctx, record.Prefix("W#"+endpointID, prefix))
	if err != nil {
		return nil, fmt.Errorf("read the redrives of endpoint %s: %w", endpointID, err)
	}
	var all []Redrive
	for _, one := range records {
		r, err := decode(one)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b Redrive) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return all, nil
}

// Redrive reads one redrive; fault.NotFound when there is none.
func (s *Service) Redrive(ctx context.Context, endpointID, redriveID string) (Redrive, error) {
	r, err := s.Store.Get(ctx, redriveKey(endpointID, redriveID))
	if fault.Is(err, fault.NotFound) {
		return Redrive{}, fault.New(fault.NotFound, "There is no redrive %q.", id.Show("rdr", redriveID))
	}
	if err != nil {
		return Redrive{}, fmt.Errorf("read redrive %s: %w", redriveID, err)
	}
	return decode(r)
}

// Cancel stops a redrive. What it has sent until then stays sent. One that is over stays as it is.
func (s *Service) Cancel(ctx context.Context, endpointID, redriveID string) (Redrive, error) {
	for range races {
		r, err := s.Redrive(ctx, endpointID, redriveID)
		if err != nil || r.State != Running {
			return r, err
		}
		s.end(&r, Canceled)
		if err = s.put(ctx, &r); err == nil || !fault.Is(err, fault.Conflict) {
			return r, err
		}
	}
	return Redrive{}, fault.New(fault.Conflict, "The redrive is being changed by someone else; please try again.")
}

func (s *Service) end(r *Redrive, state State) {
	r.State, r.EndedAt, r.due = state, s.now().UTC().Truncate(time.Millisecond), time.Time{}
}

// put writes a redrive on condition of the revision that was read.
func (s *Service) put(ctx context.Context, r *Redrive) error {
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode redrive %s: %w", r.ID, err)
	}
	rev, err := s.Store.Put(ctx, record.Record{
		Key: redriveKey(r.EndpointID, r.ID), Rev: r.rev, Body: body, Due: r.due, Expires: r.CreatedAt.Add(keep),
	})
	if err != nil {
		return fmt.Errorf("write redrive %s: %w", r.ID, err)
	}
	r.rev = rev
	return nil
}

func decode(rec record.Record) (Redrive, error) {
	var r Redrive
	if err := json.Unmarshal(rec.Body, &r); err != nil {
		return Redrive{}, fmt.Errorf("decode %s of %s: %w", rec.Sort, rec.Part, err)
	}
	r.due, r.rev = rec.Due, rec.Rev
	return r, nil
}

// IsRedrive tells whether a key that was found due is that of a redrive.
func IsRedrive(k record.Key) bool {
	return strings.HasPrefix(k.Part, "W#") && strings.HasPrefix(k.Sort, prefix)
}
