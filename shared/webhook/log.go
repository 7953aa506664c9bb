package webhook

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/record"
)

// The deliveries of an endpoint are in two lists by the time they were made: those that are parked, and all others.
func logList(endpointID string) string { return "deliveries/" + endpointID }

// ParkedList names the list of an endpoint's parked deliveries.
func ParkedList(endpointID string) string { return "parked/" + endpointID }

// Parked counts the deliveries that are parked under an endpoint, as an index has them, up to a bound.
func (s Deliveries) Parked(ctx context.Context, endpointID string, most int) (n int, err error) {
	found, err := s.Store.List(ctx, ParkedList(endpointID), "", most)
	if err != nil {
		return 0, fmt.Errorf("count what is parked under endpoint %s: %w", endpointID, err)
	}
	return len(found), nil
}

// Order is a delivery's place in the log: as the Cursor of a LogRequest it is where the log goes on.
func (d Delivery) Order() string { return moment(d.CreatedAt) + "/" + d.ID }

// moment sorts like the time.
func moment(t time.Time) string { return fmt.Sprintf("%013d", max(t.UnixMilli(), 0)) }

var cursorForm = regexp.MustCompile(`^[0-9]{13}/[0-9a-f-]{36}$`)

// LogRequest asks for deliveries of an endpoint, or of all targets of a run, newest first. What is empty does not filter.
type LogRequest struct {
	// Endpoint is the id of the endpoint. With a RunID it may be any target, or "" for all.
	Endpoint string
	Statuses []Status
	Event    string
	RunID    string
	// Since and Until bound the time when a delivery was made, both inclusive.
	Since, Until time.Time
	// Limit is how many at most, 1 to 100; 0 means 20.
	Limit int
	// Cursor is the `next` of the page before, "" at the beginning.
	Cursor string
}

// looks is how many records are read for one page of a log. A page that is short because its filters let few pass has a
// next one all the same.
const looks = 400

// Log lists deliveries of an endpoint. It reads an index, so one made a moment ago may be absent; and of those that are
// tried for the first time just now there is none yet. next is "" at the end.
func (s Deliveries) Log(ctx context.Context, q LogRequest) (found []Delivery, next string, err error) {
	if q.Limit == 0 {
		q.Limit = 20
	}
	q.Limit = min(max(q.Limit, 1), 100)
	before := q.Cursor
	if before != "" && !cursorForm.MatchString(before) {
		return nil, "", fault.New(fault.Invalid, "\"cursor\" must be the next_cursor of the page before.")
	}
	if before == "" && !q.Until.IsZero() {
		before = moment(q.Until.Add(time.Millisecond))
	}
	if q.RunID != "" {
		return s.logOfRun(ctx, q, before)
	}
	for looked := 0; looked < looks; {
		entries, err := s.listed(ctx, q.Endpoint, before, q.Limit)
		if err != nil {
			return nil, "", err
		}
		for _, e := range entries {
			if !q.Since.IsZero() && e.Order < moment(q.Since) {
				return found, "", nil
			}
			before = e.Order
			looked++
			d, err := s.At(ctx, e.Key)
			if fault.Is(err, fault.NotFound) {
				continue // expired since
			}
			if err != nil {
				return nil, "", err
			}
			if !q.wants(d) {
				continue
			}
			if found = append(found, d); len(found) == q.Limit {
				return found, before, nil
			}
		}
		if len(entries) < q.Limit {
			return found, "", nil
		}
	}
	return found, before, nil
}

// listed finds the next entries of both lists: a full page of them unless the lists end. One that moves from one list to the
// other may be in both.
func (s Deliveries) listed(ctx context.Context, endpointID, before string, limit int) (entries []record.Entry, err error) {
	for _, list := range []string{logList(endpointID), ParkedList(endpointID)} {
		found, err := s.Store.List(ctx, list, before, limit)
		if err != nil {
			return nil, fmt.Errorf("list the deliveries of endpoint %s: %w", endpointID, err)
		}
		entries = append(entries, found...)
	}
	slices.SortFunc(entries, func(a, b record.Entry) int { return cmp.Compare(b.Order, a.Order) })
	entries = slices.CompactFunc(entries, func(a, b record.Entry) bool { return a.Order == b.Order })
	return entries[:min(limit, len(entries))], nil
}

// logOfRun lists those of one run, which lie together.
func (s Deliveries) logOfRun(ctx context.Context, q LogRequest, before string) (found []Delivery, next string, err error) {
	all, err := s.OfRun(ctx, q.RunID)
	if err != nil {
		return nil, "", err
	}
	slices.SortFunc(all, func(a, b Delivery) int { return cmp.Compare(b.Order(), a.Order()) })
	for _, d := range all {
		if q.Endpoint != "" && d.Target != q.Endpoint || before != "" && d.Order() >= before || !q.wants(d) {
			continue
		}
		if found = append(found, d); len(found) == q.Limit {
			return found, d.Order(), nil
		}
	}
	return found, "", nil
}

// wants leaves out what was recorded only to say that there was nothing to send.
func (q LogRequest) wants(d Delivery) bool {
	return d.Parts > 0 && (len(q.Statuses) == 0 || slices.Contains(q.Statuses, d.Status)) && (q.Event == "" || q.Event == d.Event) &&
		(q.Since.IsZero() || !d.CreatedAt.Before(q.Since.Truncate(time.Millisecond)))
}

// OfRun reads all deliveries of a run, in the order of its pages.
func (s Deliveries) OfRun(ctx context.Context, runID string) ([]Delivery, error) {
	records, err := s.Store.Scan(ctx, record.Prefix(partition(runID), "D#"))
	if err != nil {
		return nil, fmt.Errorf("read the deliveries of run %s: %w", runID, err)
	}
	return decodeAll(records)
}

// Statuses are the words for where a delivery stands.
var Statuses = []Status{Pending, Failed, Succeeded, Exhausted, Canceled}

// ParseStatus reads the word for a status.
func ParseStatus(word string) (Status, error) {
	if s := Status(word); slices.Contains(Statuses, s) {
		return s, nil
	}
	var words []string
	for _, s := range Statuses {
		words = append(words, string(s))
	}
	return "", fault.New(fault.Invalid, "There is no status %.40q of deliveries; there are %s.", word, strings.Join(words, ", "))
}
