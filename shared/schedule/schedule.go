package schedule

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	_ "time/tzdata" // a Lambda has no time zones of its own

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
	"muster/shared/run"
)

// CatchUp says what becomes of firings that were missed.
type CatchUp string

// The policies of catching up.
const (
	Skip CatchUp = "skip" // they are dropped
	Once CatchUp = "once" // one run stands for all of them
	All  CatchUp = "all"  // each has its run
)

// Schedule starts runs of a deployment.
type Schedule struct {
	ID           string    `json:"id"`
	WorkspaceID  string    `json:"workspace"`
	DeploymentID string    `json:"deployment"`
	CreatedAt    time.Time `json:"created_at"`
	UpdatedAt    time.Time `json:"updated_at"`
	Settings
	// Begin is what rate(…) counts from.
	Begin time.Time `json:"begin"`
	// Next is the firing that comes next, zero when there is none: the schedule is paused, or over.
	Next time.Time `json:"next,omitzero"`
	// Firings are the newest ones, newest first.
	Firings []Firing `json:"firings,omitempty"`

	rev int64
}

// Settings are what its owner says of a schedule.
type Settings struct {
	Name       string `json:"name,omitempty"`
	Expression string `json:"expression"`
	// TimeZone is an IANA name.
	TimeZone    string `json:"time_zone"`
	Environment string `json:"environment"`
	// VersionNumber pins a version; 0 is the one that the environment points to when the schedule fires.
	VersionNumber int            `json:"version_number,omitempty"`
	Inputs        map[string]any `json:"inputs,omitempty"`
	Paused        bool           `json:"paused,omitempty"`
	CatchUp       CatchUp        `json:"catch_up"`
	// Start and End bound the firings, both included; zero is no bound. They do not bind at(…).
	Start time.Time `json:"start,omitzero"`
	End   time.Time `json:"end,omitzero"`
}

// Firing is what became of one.
type Firing struct {
	// At is its nominal time, FiredAt when it was dealt with.
	At      time.Time `json:"at"`
	FiredAt time.Time `json:"fired_at"`
	// Run is the run that it started, "" for none. Reason is a sentence that says why, or what else was dropped.
	Run    string `json:"run,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Missed is how many other firings this one stands for, because they were missed.
	Missed int `json:"missed,omitempty"`
}

const (
	maxName = 100
	// maxInputs is how large the inputs of a schedule may be as JSON. EventBridge takes as much.
	maxInputs = 256 << 10
	// maxSchedules is how many schedules a deployment may have.
	maxSchedules = 100
	// maxFirings is how many firings are remembered.
	maxFirings = 10
)

// Schedules keeps the schedules of deployments, and fires them.
type Schedules struct {
	Store record.Store
	Crews *crew.Store
	Runs  *run.Service
	// Now is the clock, time.Now unless set.
	Now func() time.Time
}

func (s *Schedules) now() time.Time {
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	return now().UTC().Truncate(time.Millisecond)
}

// Partition begins the Part of every record of this package.
const Partition = "SCHED#"

func key(deploymentID, scheduleID string) record.Key {
	return record.Key{Part: Partition + deploymentID, Sort: scheduleID}
}

// Create makes a schedule of a deployment, the same one for the same idempotency key, unless that is "", and digest of the body.
// Errors: fault.Invalid and fault.Missing for what a run could not be started with, fault.Conflict when the deployment has
// too many, or the key was used with another body.
func (s *Schedules) Create(ctx context.Context, d crew.Deployment, settings Settings, key, digest string) (Schedule, error) {
	there, err := s.Of(ctx, d.ID)
	if err != nil {
		return Schedule{}, err
	}
	now := s.now()
	c := Schedule{ID: id.New(), WorkspaceID: d.WorkspaceID, DeploymentID: d.ID, CreatedAt: now, Settings: settings}
	if err := s.settle(ctx, d, &c, Settings{}); err != nil {
		return Schedule{}, err
	}
	once := record.Once{Deployment: d.ID, Key: key, Digest: digest}
	if c.ID, err = once.ID(ctx, s.Store, c.ID, now, nil); err != nil {
		return Schedule{}, err
	}
	if i := slices.IndexFunc(there, func(other Schedule) bool { return other.ID == c.ID }); i >= 0 {
		return there[i], nil
	}
	if len(there) >= maxSchedules {
		return Schedule{}, fault.New(fault.Conflict, "A deployment has at most %d schedules.", maxSchedules)
	}
	err = s.put(ctx, &c)
	if fault.Is(err, fault.Conflict) { // the same request, at the same time
		return s.Get(ctx, d.ID, c.ID)
	}
	return c, err
}

// Of gives the schedules of a deployment, the oldest first.
func (s *Schedules) Of(ctx context.Context, deploymentID string) ([]Schedule, error) {
	recs, err := s.Store.Scan(ctx, record.Scan{Part: Partition + deploymentID})
	if err != nil {
		return nil, fmt.Errorf("read the schedules of deployment %s: %w", deploymentID, err)
	}
	all := make([]Schedule, len(recs))
	for i, rec := range recs {
		if all[i], err = s.decode(ctx, rec); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Get gives one schedule of a deployment; fault.NotFound when there is none.
func (s *Schedules) Get(ctx context.Context, deploymentID, scheduleID string) (Schedule, error) {
	rec, err := s.Store.Get(ctx, key(deploymentID, scheduleID))
	if fault.Is(err, fault.NotFound) {
		return Schedule{}, fault.New(fault.NotFound, "There is no schedule %s.", id.Show("sch", scheduleID))
	}
	if err != nil {
		return Schedule{}, fmt.Errorf("read schedule %s: %w", scheduleID, err)
	}
	return s.decode(ctx, rec)
}

// Change changes the settings of a schedule; f may refuse. When that changes its times, the next firing is the first one
// from now on.
func (s *Schedules) Change(ctx context.Context, d crew.Deployment, scheduleID string, f func(*Settings) error) (Schedule, error) {
	return s.change(ctx, d.ID, scheduleID, func(c *Schedule) error {
		before := c.Settings
		if err := f(&c.Settings); err != nil {
			return err
		}
		return s.settle(ctx, d, c, before)
	})
}

// Delete removes a schedule. Runs that it has started go on.
func (s *Schedules) Delete(ctx context.Context, deploymentID, scheduleID string) error {
	for {
		c, err := s.Get(ctx, deploymentID, scheduleID)
		if err != nil {
			return err
		}
		err = s.Store.Delete(ctx, key(deploymentID, scheduleID), c.rev)
		if err == nil || !fault.Is(err, fault.Conflict) {
			return err
		}
	}
}

// settle checks the settings of a schedule, fills in what they leave open, and finds the next firing.
func (s *Schedules) settle(ctx context.Context, d crew.Deployment, c *Schedule, before Settings) error {
	if c.Environment == "" {
		c.Environment = crew.Production
	}
	if c.TimeZone == "" {
		c.TimeZone = "UTC"
	}
	if c.CatchUp == "" {
		c.CatchUp = Skip
	}
	now := s.now()
	c.UpdatedAt = now
	if c.Expression != before.Expression || !c.Start.Equal(before.Start) {
		if c.Begin = now; !c.Start.IsZero() {
			c.Begin = c.Start
		}
	}
	if err := c.check(); err != nil {
		return err
	}
	// What a version wants may change under a schedule, which may be paused all the same.
	if !c.executes(before) {
		version, err := s.version(ctx, d, *c)
		if err != nil {
			return err
		}
		if err := version.Check(c.Inputs); err != nil {
			return err
		}
	}
	p, err := c.plan()
	if err != nil || c.timing() == before.timing() {
		return err
	}
	after := now
	if p.rate > 0 {
		after = now.Add(-time.Millisecond) // it fires when it begins, which may be now
	}
	next := p.next(after)
	if next.IsZero() && !(c.Paused && c.Expression == before.Expression) {
		return invalid("It never fires any more.")
	}
	if c.Next = next; c.Paused {
		c.Next = time.Time{}
	}
	return nil
}

// executes says whether a schedule starts the same run as before.
func (c Settings) executes(before Settings) bool {
	return c.Environment == before.Environment && c.VersionNumber == before.VersionNumber && reflect.DeepEqual(c.Inputs, before.Inputs)
}

// timing is what decides when a schedule fires.
type timing struct {
	expression, zone string
	start, end       int64
	paused           bool
}

func (c Settings) timing() timing {
	return timing{c.Expression, c.TimeZone, c.Start.UnixMilli(), c.End.UnixMilli(), c.Paused}
}

// check tells what is wrong with settings that are wrong by themselves.
func (c Schedule) check() error {
	switch {
	case utf8.RuneCountInString(c.Name) > maxName || !utf8.ValidString(c.Name) || strings.ContainsFunc(c.Name, unicode.IsControl):
		return fault.New(fault.Invalid, "The name of a schedule has at most %d characters, all of them readable.", maxName)
	case c.CatchUp != Skip && c.CatchUp != Once && c.CatchUp != All:
		return fault.New(fault.Invalid, "\"catch_up\" must be skip, once or all.")
	case c.VersionNumber < 0:
		return fault.New(fault.Invalid, "\"version_number\" must be the number of a version.")
	case !c.Start.IsZero() && !c.End.IsZero() && !c.Start.Before(c.End):
		return fault.New(fault.Invalid, "\"start\" must be before \"end\".")
	}
	inputs, err := json.Marshal(c.Inputs)
	if err != nil {
		return fmt.Errorf("encode the inputs of a schedule: %w", err)
	}
	if len(inputs) > maxInputs {
		return fault.New(fault.TooLarge, "The inputs of a schedule have at most %d KiB.", maxInputs>>10)
	}
	return nil
}

// version gives the version that a schedule executes.
func (s *Schedules) version(ctx context.Context, d crew.Deployment, c Schedule) (crew.Pointer, error) {
	p, err := d.Environment(c.Environment)
	if err != nil || c.VersionNumber == 0 {
		return p, err
	}
	v, err := s.Crews.VersionByNumber(ctx, d.ID, c.VersionNumber)
	if fault.Is(err, fault.NotFound) {
		return crew.Pointer{}, fault.New(fault.Invalid, "There is no version %d; the newest is %d.", c.VersionNumber, d.Versions)
	}
	return v.Pointer(), err
}

// plan is when a schedule fires.
type plan struct {
	Expression
	zone              *time.Location
	begin, start, end time.Time
}

func (c Schedule) plan() (plan, error) {
	e, err := Parse(c.Expression)
	if err != nil {
		return plan{}, err
	}
	zone, err := time.LoadLocation(c.TimeZone)
	if err != nil || c.TimeZone == "Local" {
		return plan{}, fault.New(fault.Invalid, "There is no time zone %q; it must be an IANA name like Europe/Berlin.", c.TimeZone)
	}
	p := plan{Expression: e, zone: zone, begin: c.Begin}
	if e.at.IsZero() {
		p.start, p.end = c.Start, c.End
	}
	return p, nil
}

// next gives the first firing after a time and within the bounds, zero when there is none.
func (p plan) next(after time.Time) time.Time {
	if first := p.start.Add(-time.Nanosecond); !p.start.IsZero() && after.Before(first) {
		after = first
	}
	next := p.Next(after, p.zone, p.begin).UTC()
	if !p.end.IsZero() && next.After(p.end) {
		return time.Time{}
	}
	return next
}

// Coming gives the next firings of a schedule, at most n.
func (c Schedule) Coming(n int) []time.Time {
	p, err := c.plan()
	if err != nil {
		return nil // it was kept, so it could be read
	}
	var coming []time.Time
	for next := c.Next; !next.IsZero() && len(coming) < n; next = p.next(next) {
		coming = append(coming, next)
	}
	return coming
}

// change reads a schedule, changes it and writes it, again and again until nobody else did in between.
func (s *Schedules) change(ctx context.Context, deploymentID, scheduleID string, f func(*Schedule) error) (Schedule, error) {
	for {
		c, err := s.Get(ctx, deploymentID, scheduleID)
		if err != nil {
			return Schedule{}, err
		}
		if err := f(&c); err != nil {
			return Schedule{}, err
		}
		if err = s.put(ctx, &c); !fault.Is(err, fault.Conflict) {
			return c, err
		}
	}
}

func (s *Schedules) put(ctx context.Context, c *Schedule) error {
	body, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode schedule %s: %w", c.ID, err)
	}
	rev, err := record.PutBlob(ctx, s.Store, record.Record{Key: key(c.DeploymentID, c.ID), Rev: c.rev, Body: body, Due: c.Next})
	if err != nil {
		return fmt.Errorf("put schedule %s: %w", c.ID, err)
	}
	c.rev = rev
	return nil
}

func (s *Schedules) decode(ctx context.Context, rec record.Record) (Schedule, error) {
	rec, err := record.Inflate(ctx, s.Store, rec)
	if err != nil {
		return Schedule{}, fmt.Errorf("read a schedule of %s: %w", rec.Part, err)
	}
	c := Schedule{rev: rec.Rev}
	d := json.NewDecoder(strings.NewReader(string(rec.Body)))
	d.UseNumber() // an input keeps all its digits
	if err := d.Decode(&c); err != nil {
		return Schedule{}, fmt.Errorf("decode schedule %s: %w", rec.Sort, err)
	}
	return c, nil
}

// remember puts a firing at the front of those that are remembered.
func (c *Schedule) remember(f Firing) {
	c.Firings = slices.Insert(c.Firings, 0, f)
	c.Firings = c.Firings[:min(len(c.Firings), maxFirings)]
}
