package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
)

// Status is where a delivery stands.
type Status string

// The statuses; the package comment has the moves.
const (
	Pending   Status = "pending"
	Failed    Status = "failed"
	Succeeded Status = "succeeded"
	Exhausted Status = "exhausted"
	Canceled  Status = "canceled"
)

// Delivery is the record of one POST body and its attempts.
type Delivery struct {
	// ID is a UUID derived from run, page, target and part; receivers see it as Shown.
	ID string `json:"id"`
	// RunID is the run, or, when Seq is 0, the id of a notice, which belongs to no run.
	RunID  string `json:"run"`
	Seq    int    `json:"seq"`
	Target string `json:"target"`
	Part   string `json:"part"`
	// Parts is how many bodies the page makes for the target, halves not counted.
	Parts int `json:"parts"`
	// Shape is how the target wanted its bodies when they were first made; nil for one that cannot choose.
	Shape *Shape `json:"shape,omitempty"`
	// Deployment and Body are those of a notice.
	Deployment string `json:"deployment,omitempty"`
	Body       string `json:"body,omitempty"`
	// Event is what X-Crewship-Event says.
	Event  string `json:"event"`
	Status Status `json:"status"`
	// Halved says that the body was cut in two: this delivery is canceled, and its halves are two others.
	Halved bool `json:"halved,omitempty"`
	// Attempts are the newest ones; Forgotten counts those before them.
	Attempts  []Attempt `json:"attempts,omitempty"`
	Forgotten int       `json:"forgotten,omitempty"`
	// Before counts the attempts of earlier rounds. A round begins when somebody asks for a delivery that was over, and
	// goes through the schedule from its beginning.
	Before int `json:"before,omitempty"`
	// Parked says that the delivery waits until its endpoint is well again, or enabled; nothing is due.
	Parked bool `json:"parked,omitempty"`
	// NextAttempt is when the next attempt is due, zero for at once and for never.
	NextAttempt time.Time `json:"next_attempt,omitzero"`
	// Slot is the moment that is reserved for the next attempt, at an endpoint that bounds its POSTs a second.
	Slot time.Time `json:"slot,omitzero"`
	// Asked says that somebody asked for the next attempt; its failure says nothing new of the receiver.
	Asked bool `json:"asked,omitempty"`
	// ClaimedUntil is set while a retry is under way: nobody else tries before.
	ClaimedUntil time.Time `json:"claimed_until,omitzero"`
	CreatedAt    time.Time `json:"created_at"`

	// Due is when the sweeper looks at the delivery; zero once it is over.
	Due time.Time `json:"-"`

	rev int64
}

// Attempt is one POST and what came of it.
type Attempt struct {
	At        time.Time `json:"at"`
	LatencyMS int64     `json:"latency_ms"`
	// Code is the HTTP status, 0 when there was none.
	Code int `json:"code,omitempty"`
	// Class and Error say what went wrong, for programs and for people; both are "" for a success.
	Class string `json:"class,omitempty"`
	Error string `json:"error,omitempty"`
	// Headers and Response are what there is room for of the response, without our secrets. The newest attempt has more of
	// the body than those before it.
	Headers   map[string]string `json:"headers,omitempty"`
	Response  string            `json:"response,omitempty"`
	Truncated bool              `json:"truncated,omitempty"`
}

// Shape is what a target may choose about its bodies. They have to be the same at every attempt, whatever the target has
// become by then, so the first record of a page's deliveries to a target fixes their shape.
type Shape struct {
	Events   []string `json:"events,omitempty"`
	Realtime bool     `json:"realtime,omitempty"`
	Format   string   `json:"format,omitempty"`
}

// keep is how long the record of a delivery is kept.
const keep = 30 * 24 * time.Hour

// New makes the delivery of one part, not tried yet and not stored.
func New(runID string, seq int, target, part, event string, now time.Time) Delivery {
	return Delivery{
		ID:    id.Derive(runID, fmt.Sprintf("delivery/%d/%s/%s", seq, target, part)),
		RunID: runID, Seq: seq, Target: target, Part: part, Event: event, Status: Pending, CreatedAt: now.UTC(),
	}
}

// NewNotice makes the delivery of something that belongs to no run, under an id of the caller's.
func NewNotice(noticeID string, e Endpoint, event string, body []byte, now time.Time) Delivery {
	d := New(noticeID, 0, e.ID, "0", event, now)
	d.Parts, d.Deployment, d.Body = 1, e.DeploymentID, string(body)
	return d
}

// Shown is the id as receivers see it: it says which delivery it is, and ParseDeliveryID reads it. It holds no dot.
func (d Delivery) Shown() string {
	target := d.Target
	if IsEndpoint(target) {
		target = strings.ReplaceAll(target, "-", "")
	}
	return id.Show("del", d.RunID) + "_" + strconv.Itoa(d.Seq) + "_" + target + "_" + d.Part
}

// Place is where a delivery is kept.
type Place struct {
	RunID  string
	Seq    int
	Target string
	Part   string
}

// ParseDeliveryID reads the id of a delivery as receivers see it; ok is false for anything else.
func ParseDeliveryID(shown string) (p Place, ok bool) {
	const runEnd = len("del_") + 32
	if len(shown) <= runEnd || shown[runEnd] != '_' {
		return Place{}, false
	}
	if p.RunID, ok = id.Parse("del", shown[:runEnd]); !ok {
		return Place{}, false
	}
	number, rest, _ := strings.Cut(shown[runEnd+1:], "_")
	cut := strings.LastIndexByte(rest, '_')
	if cut < 1 {
		return Place{}, false
	}
	seq, err := strconv.Atoi(number)
	p.Seq, p.Target, p.Part = seq, rest[:cut], rest[cut+1:]
	if canonical, ok := id.Parse("", "_"+p.Target); ok {
		p.Target = canonical
	}
	if _, _, wrong := SplitPart(p.Part); wrong != nil || err != nil || seq < 0 {
		return Place{}, false
	}
	d := Delivery{RunID: p.RunID, Seq: p.Seq, Target: p.Target, Part: p.Part}
	return p, d.Shown() == shown
}

// Recorded says that the delivery was read from its record, or written.
func (d Delivery) Recorded() bool { return d.rev > 0 }

// Over says that nothing more will be done unless somebody asks for it.
func (d Delivery) Over() bool { return d.Status != Pending && d.Status != Failed }

const (
	// maxAttempts is how many attempts a record shows: two rounds, and some more.
	maxAttempts = 20
	// oldResponse is how much of the body of a response is kept once there is a newer one.
	oldResponse = 1 << 10
)

// Add adds an attempt. What earlier ones keep is cut, which bounds the record.
func (d *Delivery) Add(a Attempt) {
	if n := len(d.Attempts); n > 0 {
		if before := &d.Attempts[n-1]; len(before.Response) > oldResponse {
			before.Response, before.Truncated = strings.ToValidUTF8(before.Response[:oldResponse], ""), true
		}
	}
	d.Attempts = append(d.Attempts, a)
	if over := len(d.Attempts) - maxAttempts; over > 0 {
		d.Attempts, d.Forgotten = d.Attempts[over:], d.Forgotten+over
	}
}

// Made counts all attempts.
func (d Delivery) Made() int { return d.Forgotten + len(d.Attempts) }

// Tries counts the attempts of the present round.
func (d Delivery) Tries() int { return d.Made() - d.Before }

// Redeliver asks for an attempt at a time. A delivery that is over begins a new round; for one whose retry is pending the
// attempt takes the retry's place, and the schedule goes on from there. due is when to look whether it happened.
func (d *Delivery) Redeliver(at, due time.Time) {
	if d.Over() {
		d.Before, d.Status, d.Halved = d.Made(), Pending, false
	}
	d.Parked, d.Asked, d.Slot, d.NextAttempt, d.Due = false, true, time.Time{}, at.UTC(), due.UTC()
}

// Deliveries keeps the records.
type Deliveries struct{ Store record.Store }

// IsEndpoint tells whether a target is an endpoint, whose id is a UUID; those given at kickoff have short ids.
func IsEndpoint(target string) bool {
	canonical, ok := id.Parse("wh", target)
	return ok && canonical == target
}

func partition(runID string) string { return "R#" + runID }

func pagePrefix(seq int) string { return fmt.Sprintf("D#%06d#", seq) }

func deliveryKey(runID string, seq int, target, part string) record.Key {
	return record.Key{Part: partition(runID), Sort: pagePrefix(seq) + target + "#" + part}
}

// Get reads the delivery of one part; fault.NotFound when it was never tried.
func (s Deliveries) Get(ctx context.Context, runID string, seq int, target, part string) (Delivery, error) {
	return s.At(ctx, deliveryKey(runID, seq, target, part))
}

// At reads the delivery under a key that an index gave.
func (s Deliveries) At(ctx context.Context, k record.Key) (Delivery, error) {
	r, err := s.Store.Get(ctx, k)
	if err != nil {
		return Delivery{}, fmt.Errorf("read delivery %s of %s: %w", k.Sort, k.Part, err)
	}
	return decode(r)
}

// OfPage reads all deliveries of a page, those of one target unless target is "".
func (s Deliveries) OfPage(ctx context.Context, runID string, seq int, target string) ([]Delivery, error) {
	prefix := pagePrefix(seq)
	if target != "" {
		prefix += target + "#"
	}
	records, err := s.Store.Scan(ctx, record.Prefix(partition(runID), prefix))
	if err != nil {
		return nil, fmt.Errorf("read the deliveries of page %d of run %s: %w", seq, runID, err)
	}
	return decodeAll(records)
}

func decodeAll(records []record.Record) (all []Delivery, err error) {
	for _, r := range records {
		d, err := decode(r)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// Put writes the delivery on condition that nobody has since it was read. A lost race is fault.Conflict; Current gives
// what is there.
func (s Deliveries) Put(ctx context.Context, d *Delivery) error {
	body, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("write delivery %s: %w", d.ID, err)
	}
	r := record.Record{Key: deliveryKey(d.RunID, d.Seq, d.Target, d.Part), Rev: d.rev, Body: body, Due: d.Due, Expires: d.CreatedAt.Add(keep)}
	if IsEndpoint(d.Target) {
		if r.List = logList(d.Target); d.Parked {
			r.List = ParkedList(d.Target)
		}
		r.Order = d.Order()
	}
	rev, err := s.Store.Put(ctx, r)
	if err != nil {
		return fmt.Errorf("write delivery %s: %w", d.ID, err)
	}
	d.rev = rev
	return nil
}

// Current gives the delivery that made a Put fail.
func Current(err error) (d Delivery, ok bool) {
	r, ok := record.Current(err)
	if !ok {
		return Delivery{}, false
	}
	d, err = decode(r)
	return d, err == nil
}

func decode(r record.Record) (Delivery, error) {
	var d Delivery
	if err := json.Unmarshal(r.Body, &d); err != nil {
		return Delivery{}, fmt.Errorf("decode delivery %s of %s: %w", r.Sort, r.Part, err)
	}
	d.Due, d.rev = r.Due, r.Rev
	return d, nil
}

// SplitPart reads the name of a part: the number of the body, and which half of it was taken, and of that, and so on.
func SplitPart(part string) (index int, halves string, err error) {
	digits := strings.TrimRight(part, "ab")
	index, err = strconv.Atoi(digits)
	if err != nil || index < 0 || strconv.Itoa(index) != digits {
		return 0, "", fault.New(fault.Invalid, "There is no part %q of a delivery.", part)
	}
	return index, part[len(digits):], nil
}
