package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
)

// Endpoint is a registered target: it is told of every run of its deployment in its environment.
type Endpoint struct {
	ID           string   `json:"id"`
	WorkspaceID  string   `json:"workspace"`
	DeploymentID string   `json:"deployment"`
	Environment  string   `json:"environment"`
	Name         string   `json:"name"`
	URL          string   `json:"url"`
	Events       []string `json:"events"`
	// Format says what bodies look like; see Formats.
	Format string `json:"format"`
	// Headers go with every POST. Their values are sealed for the endpoint's id and HeaderField of their name.
	Headers map[string]string `json:"headers,omitempty"`
	// MaxRPS bounds the POSTs a second; 0 is no bound.
	MaxRPS  int  `json:"max_rps,omitempty"`
	Enabled bool `json:"enabled"`
	// DisabledBy says who disabled it, "" while it is enabled.
	DisabledBy DisabledBy `json:"disabled_by,omitempty"`
	// DisabledAt is when Muster disabled it; the others are told of that once, however many answers said the same.
	DisabledAt time.Time `json:"disabled_at,omitzero"`
	// Its secrets are sealed for the endpoint's id and SecretField.
	Signing
	// Request is a digest of the request that made it, if that had an Idempotency-Key.
	Request   string    `json:"request,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`

	rev int64
}

// Repeats says whether a request made now with a digest is the one that made the endpoint, whose answer may have got lost.
// Once the endpoint was changed its answer is known.
func (e Endpoint) Repeats(request string, now time.Time) bool {
	return e.Request == request && e.UpdatedAt.Equal(e.CreatedAt) && now.Sub(e.CreatedAt) < 24*time.Hour
}

// DisabledBy says why an endpoint is disabled.
type DisabledBy string

// Who or what disables endpoints.
const (
	ByOwner   DisabledBy = "owner"   // somebody switched it off
	ByGone    DisabledBy = "gone"    // the receiver answered 410
	ByFailing DisabledBy = "failing" // nothing but failures for days
)

// The formats of an endpoint's bodies.
const (
	Crewship  = "crewship"   // {"event", "timestamp", "data"}
	AMPStream = "amp-stream" // {"events": […]}, as AMP streams them
	Slack     = "slack"      // what an incoming webhook of Slack takes
	Discord   = "discord"    // what a webhook of Discord takes
)

// SecretField is the field that an endpoint's secrets are sealed for.
const SecretField = "secret"

// HeaderField is the field that the value of one of an endpoint's headers is sealed for.
func HeaderField(name string) string { return "header/" + name }

// Endpoints keeps the endpoints of deployments: Part "W#<deployment>", Sort "OUT#<endpoint>"; what is known of an
// endpoint's health lies beside it, under the same Sort and "#HEALTH". Part "W#<endpoint>", Sort "OF" names the deployment.
type Endpoints struct {
	Store record.Store
	// Now is the clock, time.Now unless set.
	Now func() time.Time
}

// maxEndpoints is how many endpoints a deployment may have.
const maxEndpoints = 50

const outgoing = "OUT#"

func endpointKey(deploymentID, endpointID string) record.Key {
	return record.Key{Part: "W#" + deploymentID, Sort: outgoing + endpointID}
}

func ownerKey(endpointID string) record.Key { return record.Key{Part: "W#" + endpointID, Sort: "OF"} }

// Create writes a new endpoint, whose ID the caller has chosen: its secrets are sealed for it. fault.Conflict: there is one.
func (s Endpoints) Create(ctx context.Context, e *Endpoint) error {
	all, err := s.Of(ctx, e.DeploymentID)
	if err != nil {
		return err
	}
	if len(all) >= maxEndpoints {
		return fault.New(fault.Conflict, "The deployment has %d outgoing webhooks, and may have no more.", len(all))
	}
	e.CreatedAt = s.now()
	e.UpdatedAt = e.CreatedAt
	// The pointer comes first: an endpoint that is told of runs can always be found, to change or delete it.
	_, err = s.Store.Put(ctx, record.Record{Key: ownerKey(e.ID), Body: []byte(e.DeploymentID)})
	if there, ok := record.Current(err); err != nil && !(ok && string(there.Body) == e.DeploymentID) {
		return fmt.Errorf("write whose endpoint %s is: %w", e.ID, err)
	}
	return s.put(ctx, e)
}

// Of reads the endpoints of a deployment, in the order in which they were made.
func (s Endpoints) Of(ctx context.Context, deploymentID string) ([]Endpoint, error) {
	records, err := s.Store.Scan(ctx, record.Prefix("W#"+deploymentID, outgoing))
	if err != nil {
		return nil, fmt.Errorf("read the endpoints of deployment %s: %w", deploymentID, err)
	}
	var all []Endpoint
	for _, r := range records {
		if strings.Contains(r.Sort[len(outgoing):], "#") {
			continue // health
		}
		e, err := decodeEndpoint(r)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

// Get reads an endpoint; fault.NotFound when there is none.
func (s Endpoints) Get(ctx context.Context, deploymentID, endpointID string) (Endpoint, error) {
	r, err := s.Store.Get(ctx, endpointKey(deploymentID, endpointID))
	if fault.Is(err, fault.NotFound) {
		return Endpoint{}, noEndpoint(endpointID)
	}
	if err != nil {
		return Endpoint{}, fmt.Errorf("read endpoint %s: %w", endpointID, err)
	}
	return decodeEndpoint(r)
}

// mostTests is how many tests a minute an endpoint is sent: each makes a receiver of somebody's choice hear from us at once.
const mostTests = 10

// CountTest counts a test of an endpoint. One too many within a minute is fault.TooMany.
func (s Endpoints) CountTest(ctx context.Context, e Endpoint) error {
	left, reset, err := record.CountMinute(ctx, s.Store, record.Key{Part: "W#" + e.ID, Sort: "TESTS"}, s.now, mostTests)
	if err != nil {
		return fmt.Errorf("count a test of endpoint %s: %w", e.ID, err)
	}
	if left < 0 {
		f := fault.New(fault.TooMany, "This webhook takes %d tests a minute; try again in a moment.", mostTests)
		f.RetryAfter = reset
		return f
	}
	return nil
}

// Find reads an endpoint by its id alone; fault.NotFound when there is none.
func (s Endpoints) Find(ctx context.Context, endpointID string) (Endpoint, error) {
	r, err := s.Store.Get(ctx, ownerKey(endpointID))
	if fault.Is(err, fault.NotFound) {
		return Endpoint{}, noEndpoint(endpointID)
	}
	if err != nil {
		return Endpoint{}, fmt.Errorf("read whose endpoint %s is: %w", endpointID, err)
	}
	return s.Get(ctx, string(r.Body), endpointID)
}

// changes is how often a change that lost a race is made again on what won.
const changes = 10

// Change changes an endpoint. f may be called again when somebody else was quicker; what it refuses with is returned.
func (s Endpoints) Change(ctx context.Context, endpointID string, f func(*Endpoint) error) (Endpoint, error) {
	for range changes {
		e, err := s.Find(ctx, endpointID)
		if err != nil {
			return Endpoint{}, err
		}
		if err := f(&e); err != nil {
			return Endpoint{}, err
		}
		e.UpdatedAt = s.now()
		if err = s.put(ctx, &e); err == nil || !fault.Is(err, fault.Conflict) {
			return e, err
		}
	}
	return Endpoint{}, fault.New(fault.Conflict, "The webhook is being changed by someone else; please try again.")
}

// Delete removes an endpoint; fault.NotFound when there is none. Nothing more is sent to it. What is known of its health stays
// until what was parked under it is called off.
func (s Endpoints) Delete(ctx context.Context, endpointID string) error {
	for range changes {
		e, err := s.Find(ctx, endpointID)
		if err != nil {
			return err
		}
		if err := s.Resume(ctx, e); err != nil {
			return err
		}
		if err = s.Store.Delete(ctx, endpointKey(e.DeploymentID, e.ID), e.rev); fault.Is(err, fault.Conflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("delete endpoint %s: %w", endpointID, err)
		}
		return s.clear(ctx, record.Prefix("W#"+e.ID, ""))
	}
	return fault.New(fault.Conflict, "The webhook is being changed by someone else; please try again.")
}

// clear deletes what lies beside an endpoint that is no more. Whoever writes there reads the endpoint first, so what comes
// in between is read by nobody.
func (s Endpoints) clear(ctx context.Context, scans ...record.Scan) error {
	for _, scan := range scans {
		records, err := s.Store.Scan(ctx, scan)
		if err != nil {
			return fmt.Errorf("read what is left of an endpoint: %w", err)
		}
		for _, r := range records {
			if err := s.Store.Delete(ctx, r.Key, r.Rev); err != nil && !fault.Is(err, fault.Conflict) {
				return fmt.Errorf("delete %s of %s: %w", r.Sort, r.Part, err)
			}
		}
	}
	return nil
}

// put writes an endpoint on condition of the revision that was read.
func (s Endpoints) put(ctx context.Context, e *Endpoint) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode endpoint %s: %w", e.ID, err)
	}
	rev, err := s.Store.Put(ctx, record.Record{Key: endpointKey(e.DeploymentID, e.ID), Rev: e.rev, Body: body})
	if err != nil {
		return fmt.Errorf("write endpoint %s: %w", e.ID, err)
	}
	e.rev = rev
	return nil
}

func decodeEndpoint(r record.Record) (Endpoint, error) {
	var e Endpoint
	if err := json.Unmarshal(r.Body, &e); err != nil {
		return Endpoint{}, fmt.Errorf("decode %s of %s: %w", r.Sort, r.Part, err)
	}
	e.rev = r.Rev
	return e, nil
}

func noEndpoint(endpointID string) error {
	return fault.New(fault.NotFound, "There is no outgoing webhook %q.", id.Show("wh", endpointID))
}

// now is the time in the precision that is shown.
func (s Endpoints) now() time.Time {
	now := s.Now
	if now == nil {
		now = time.Now
	}
	return now().UTC().Truncate(time.Millisecond)
}
