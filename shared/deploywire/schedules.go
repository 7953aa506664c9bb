package deploywire

import (
	"context"
	"net/http"
	"time"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/schedule"
	"muster/shared/workspace"
)

// scheduleReply is a schedule.
type scheduleReply struct {
	ID            string           `json:"id"`
	DeploymentID  string           `json:"deployment_id"`
	Name          *string          `json:"name"`
	Expression    string           `json:"expression"`
	TimeZone      string           `json:"timezone"`
	Environment   string           `json:"environment"`
	VersionNumber *int             `json:"version_number"`
	Inputs        map[string]any   `json:"inputs"`
	Paused        bool             `json:"paused"`
	CatchUp       schedule.CatchUp `json:"catch_up"`
	Start         *string          `json:"start"`
	End           *string          `json:"end"`
	// NextFirings are those that come, LastFirings the newest ones that were.
	NextFirings []*string     `json:"next_firings"`
	LastFiring  *firingReply  `json:"last_firing"`
	Firings     []firingReply `json:"firings"`
	CreatedAt   *string       `json:"created_at"`
	UpdatedAt   *string       `json:"updated_at"`
}

// firingReply is what became of a firing: a run, or the reason why there is none.
type firingReply struct {
	At      *string `json:"at"`
	FiredAt *string `json:"fired_at"`
	RunID   *string `json:"run_id"`
	// Status is that of the run; only the last firing has it.
	Status *string `json:"status,omitempty"`
	Reason *string `json:"reason"`
	// Missed is how many other firings this one stands for.
	Missed int `json:"missed"`
}

func newFiring(f schedule.Firing) firingReply {
	reply := firingReply{At: timestamp(f.At), FiredAt: timestamp(f.FiredAt), Reason: text(f.Reason), Missed: f.Missed}
	if f.Run != "" {
		reply.RunID = text(id.Show("run", f.Run))
	}
	return reply
}

// comingFirings is how many of the next firings a schedule shows.
const comingFirings = 3

func (w *Wire) describeSchedule(ctx context.Context, c schedule.Schedule) (scheduleReply, error) {
	reply := scheduleReply{
		ID: id.Show("sch", c.ID), DeploymentID: id.Show("dep", c.DeploymentID), Name: text(c.Name), Expression: c.Expression,
		TimeZone: c.TimeZone, Environment: c.Environment, Inputs: c.Inputs, Paused: c.Paused, CatchUp: c.CatchUp,
		Start: timestamp(c.Start), End: timestamp(c.End), NextFirings: []*string{}, Firings: []firingReply{},
		CreatedAt: timestamp(c.CreatedAt), UpdatedAt: timestamp(c.UpdatedAt),
	}
	if c.VersionNumber > 0 {
		reply.VersionNumber = &c.VersionNumber
	}
	if reply.Inputs == nil {
		reply.Inputs = map[string]any{}
	}
	for _, at := range c.Coming(comingFirings) {
		reply.NextFirings = append(reply.NextFirings, timestamp(at))
	}
	for _, f := range c.Firings {
		reply.Firings = append(reply.Firings, newFiring(f))
	}
	if len(c.Firings) == 0 {
		return reply, nil
	}
	last := reply.Firings[0]
	if c.Firings[0].Run != "" {
		r, err := w.Runs.Get(ctx, c.Firings[0].Run)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return scheduleReply{}, err
		}
		last.Status = text(statusWords[r.State]) // none when the run is too old to be kept
	}
	reply.LastFiring = &last
	return reply, nil
}

func (w *Wire) showSchedule(rw http.ResponseWriter, ctx context.Context, status int, c schedule.Schedule) error {
	reply, err := w.describeSchedule(ctx, c)
	if err != nil {
		return err
	}
	return httpapi.WriteJSON(rw, status, reply)
}

// scheduleFields are those that a request may have.
var scheduleFields = []string{
	"name", "expression", "timezone", "environment", "version_number", "inputs", "input", "paused", "catch_up", "start", "end",
}

// readSchedule reads what a request says of a schedule; what it does not name stays, and null is nothing.
func readSchedule(o httpapi.Object, c *schedule.Settings) error {
	read := map[string]func(field string) error{
		"name":           func(f string) (err error) { c.Name, err = o.String(f); return },
		"expression":     func(f string) (err error) { c.Expression, err = o.String(f); return },
		"timezone":       func(f string) (err error) { c.TimeZone, err = o.String(f); return },
		"environment":    func(f string) (err error) { c.Environment, err = o.String(f); return },
		"version_number": func(f string) (err error) { c.VersionNumber, err = o.Int(f); return },
		"inputs":         func(f string) (err error) { c.Inputs, err = o.Values(f); return },
		"input":          func(f string) (err error) { c.Inputs, err = o.Values(f); return }, // what the wire calls it elsewhere
		"paused":         func(f string) (err error) { c.Paused, err = o.Bool(f); return },
		"catch_up": func(f string) error {
			policy, err := o.String(f)
			c.CatchUp = schedule.CatchUp(policy)
			return err
		},
		"start": func(f string) (err error) { c.Start, err = readTime(o, f); return },
		"end":   func(f string) (err error) { c.End, err = readTime(o, f); return },
	}
	for _, field := range scheduleFields {
		if _, given := o[field]; !given {
			continue
		}
		if err := read[field](field); err != nil {
			return err
		}
	}
	return nil
}

// readTime reads a time; it is zero when absent.
func readTime(o httpapi.Object, field string) (time.Time, error) {
	written, err := o.String(field)
	if err != nil || written == "" {
		return time.Time{}, err
	}
	return parseTime(field, written)
}

func parseTime(field, written string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, written)
	if err != nil || at.Year() < 1970 || at.Year() > 9999 {
		return time.Time{}, fault.New(fault.Invalid, "%q must be a time like 2027-01-31T09:30:00Z.", field)
	}
	return at.UTC().Truncate(time.Millisecond), nil
}

func (w *Wire) createSchedule(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, body, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	var settings schedule.Settings
	if err := readSchedule(o, &settings); err != nil {
		return err
	}
	d, err := w.deployment(r.Context(), r.PathValue("id"), c)
	if err != nil {
		return err
	}
	key, digest, err := httpapi.Idempotency(r, "schedules", body)
	if err != nil {
		return err
	}
	made, err := w.Schedules.Create(r.Context(), d, settings, key, digest)
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown(scheduleFields...))
	return w.showSchedule(rw, r.Context(), http.StatusCreated, made)
}

type schedulesReply struct {
	Schedules []scheduleReply `json:"schedules"`
}

func (w *Wire) listSchedules(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	d, err := w.deployment(r.Context(), r.PathValue("id"), c)
	if err != nil {
		return err
	}
	all, err := w.Schedules.Of(r.Context(), d.ID)
	if err != nil {
		return err
	}
	reply := schedulesReply{Schedules: []scheduleReply{}}
	for _, found := range all {
		shown, err := w.describeSchedule(r.Context(), found)
		if err != nil {
			return err
		}
		reply.Schedules = append(reply.Schedules, shown)
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

func (w *Wire) getSchedule(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	found, err := w.schedule(r, c)
	if err != nil {
		return err
	}
	return w.showSchedule(rw, r.Context(), http.StatusOK, found)
}

// schedule finds the schedule that the path names, if the caller may see it.
func (w *Wire) schedule(r *http.Request, c workspace.Caller) (schedule.Schedule, error) {
	d, err := w.deployment(r.Context(), r.PathValue("id"), c)
	if err != nil {
		return schedule.Schedule{}, err
	}
	shown := r.PathValue("schedule")
	unknown := fault.New(fault.NotFound, "There is no schedule %q.", shown)
	scheduleID, ok := id.Parse("sch", shown)
	if !ok {
		return schedule.Schedule{}, unknown
	}
	found, err := w.Schedules.Get(r.Context(), d.ID, scheduleID)
	if fault.Is(err, fault.NotFound) {
		return schedule.Schedule{}, unknown
	}
	return found, err
}

func (w *Wire) changeSchedule(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, _, err := httpapi.ReadObject(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	found, err := w.schedule(r, c)
	if err != nil {
		return err
	}
	d, err := w.Crews.Deployment(r.Context(), found.DeploymentID)
	if err != nil {
		return err
	}
	changed, err := w.Schedules.Change(r.Context(), d, found.ID, func(s *schedule.Settings) error { return readSchedule(o, s) })
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown(scheduleFields...))
	return w.showSchedule(rw, r.Context(), http.StatusOK, changed)
}

func (w *Wire) deleteSchedule(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	found, err := w.schedule(r, c)
	if err != nil {
		return err
	}
	if err := w.Schedules.Delete(r.Context(), found.DeploymentID, found.ID); err != nil {
		return err
	}
	rw.WriteHeader(http.StatusNoContent)
	return nil
}

// runSchedule starts a run as the schedule would; inputs that are given lie over those of the schedule.
func (w *Wire) runSchedule(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, body, err := readOptional(r)
	if err != nil {
		return err
	}
	given := "inputs"
	if !o.Has(given) {
		given = "input" // what the wire calls it elsewhere
	}
	inputs, err := o.Values(given)
	if err != nil {
		return err
	}
	found, err := w.schedule(r, c)
	if err != nil {
		return err
	}
	key, digest, err := httpapi.Idempotency(r, "schedules/"+found.ID, body)
	if err != nil {
		return err
	}
	started, err := w.Schedules.RunNow(r.Context(), found, inputs, key, digest)
	showRate(rw, started)
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown("inputs", "input"))
	return httpapi.WriteJSON(rw, http.StatusAccepted, newStartReply(started))
}

// readOptional reads a body that may be left out.
func readOptional(r *http.Request) (httpapi.Object, []byte, error) {
	body, err := httpapi.ReadBody(r, httpapi.MaxBody)
	if err != nil {
		return nil, nil, err
	}
	if len(body) == 0 {
		body = []byte("{}")
	}
	o, err := httpapi.ParseObject(body)
	return o, body, err
}
