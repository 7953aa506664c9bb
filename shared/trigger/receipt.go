package trigger

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
)

// Status says what became of a request.
type Status string

// The statuses.
const (
	Accepted  Status = "accepted"  // it started a run
	Duplicate Status = "duplicate" // an earlier one had started the run
	Ignored   Status = "ignored"   // the filter said no
	Answered  Status = "answered"  // it was a sender's challenge or ping
	Refused   Status = "refused"   // it was not the sender's, or could not be read
	Failed    Status = "failed"    // it was the sender's, and no run came of it: Replay may help
)

// Statuses lists them all.
var Statuses = []Status{Accepted, Duplicate, Ignored, Answered, Refused, Failed}

// Receipt is what is kept of a request to a trigger.
type Receipt struct {
	// ID is a UUIDv7 of the time when the request came.
	ID           string    `json:"id"`
	Trigger      string    `json:"trigger"`
	WorkspaceID  string    `json:"workspace"`
	DeploymentID string    `json:"deployment"`
	At           time.Time `json:"at"`
	Status       Status    `json:"status"`
	// Reason is a sentence on what is not plain from the status.
	Reason string `json:"reason,omitempty"`
	// Run is the run that it started, or that an earlier one had.
	Run string `json:"run,omitempty"`
	// Delivery is the sender's id, or the Idempotency-Key, by which a repetition is known.
	Delivery string `json:"delivery,omitempty"`
	// ReplayOf is the receipt that this one repeats.
	ReplayOf string `json:"replay_of,omitempty"`
	// Headers are those of the request; what may be a secret is masked.
	Headers map[string]string `json:"headers,omitempty"`
	// Size is how long the body was, Kept how much of it is kept.
	Size int `json:"size"`
	Kept int `json:"kept,omitempty"`

	rev int64
}

const (
	receiptPrefix = "RECEIPT#"
	bodyPrefix    = "RECEIVED#"
	keepReceipts  = 30 * 24 * time.Hour
	// MaxKept is how much of a body is kept.
	MaxKept = 64 << 10
	// maxRefused is how many refused requests leave a receipt in a minute.
	maxRefused = 60
	// The headers that are kept, and how much of each.
	maxHeaders, maxHeader = 60, 500
	// Masked stands for the value of a header that may be a secret.
	Masked = "********"
)

func receiptKey(triggerID, receiptID string) record.Key {
	return record.Key{Part: "W#" + triggerID, Sort: receiptPrefix + receiptID}
}

func bodyKey(triggerID, receiptID string) record.Key {
	return record.Key{Part: "W#" + triggerID, Sort: bodyPrefix + receiptID}
}

func receiptList(deploymentID string) string { return "receipts/" + deploymentID }

// ShowReceipt spells the id of a receipt so that it says where the receipt is: "rec_", and the hex digits of trigger and
// receipt.
func ShowReceipt(triggerID, receiptID string) string {
	return id.Show("rec", triggerID) + id.Show("", receiptID)
}

// ParseReceipt reads what ShowReceipt wrote.
func ParseReceipt(shown string) (triggerID, receiptID string, ok bool) {
	first, second, found := strings.Cut(strings.TrimPrefix(shown, "rec_"), "_")
	if !found || !strings.HasPrefix(shown, "rec_") {
		return "", "", false
	}
	triggerID, ok = id.Parse("t", "t_"+first)
	receiptID, also := id.Parse("r", "r_"+second)
	return triggerID, receiptID, ok && also
}

// scrub gives the headers that may be kept.
func scrub(h http.Header, sender Sender) map[string]string {
	kept := map[string]string{}
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names[:min(len(names), maxHeaders)] {
		value := strings.ToValidUTF8(clip(strings.Join(h[name], ", "), maxHeader), "\ufffd")
		if secret(name) || strings.EqualFold(name, sender.Header) {
			value = Masked
		}
		kept[strings.ToLower(clip(name, 100))] = value
	}
	return kept
}

// secret says whether a header of this name may hold one.
func secret(name string) bool {
	name = strings.ToLower(name)
	if name == "idempotency-key" {
		return false
	}
	return slices.ContainsFunc([]string{"auth", "cookie", "signature", "token", "secret", "key", "password", "credential", "assertion"}, func(word string) bool {
		return strings.Contains(name, word)
	})
}

// note writes the receipt of a request, or writes it again when more is known. That it cannot be written is no reason to
// turn the request away.
func (s *Service) note(ctx context.Context, q *Request, status Status, reason, runID string) {
	r := &q.receipt
	if r.ID == "" {
		return // one of too many that were refused
	}
	first := r.rev == 0
	r.Status, r.Reason, r.Run = status, clip(reason, 500), runID
	expires := q.At.Add(keepReceipts)
	if first && status != Refused && len(q.Body) > 0 {
		kept := q.Body[:min(len(q.Body), MaxKept)]
		r.Kept = len(kept)
		_, err := record.PutBlob(ctx, s.Store, record.Record{Key: bodyKey(r.Trigger, r.ID), Body: kept, Expires: expires})
		if err != nil && !fault.Is(err, fault.Conflict) {
			s.log().ErrorContext(ctx, "the body of a request is not kept", "trigger", r.Trigger, "error", err)
			r.Kept = 0
		}
	}
	body, err := json.Marshal(r)
	if err == nil {
		r.rev, err = s.Store.Put(ctx, record.Record{
			Key: receiptKey(r.Trigger, r.ID), Rev: r.rev, Body: body, List: receiptList(r.DeploymentID), Order: r.ID, Expires: expires,
		})
		if there, ok := record.Current(err); ok && string(there.Body) == string(body) {
			r.rev, err = there.Rev, nil
		}
	}
	if err != nil {
		s.log().ErrorContext(ctx, "a request leaves no receipt", "trigger", r.Trigger, "status", status, "run", runID, "error", err)
	}
}

// ReceiptQuery asks for receipts, newest first.
type ReceiptQuery struct {
	// DeploymentIDs are those whose receipts are asked for; Trigger is a trigger of one of them, "" for all.
	DeploymentIDs []string
	Trigger       string
	// Status keeps those with one status, "" keeps all; Since and Until those that came not before Since and before Until, where
	// zero is no bound.
	Status       Status
	Since, Until time.Time
	// Limit is how many at most, 1 to 100; 0 means 20. Cursor is the `next` of the page before, "" at the beginning.
	Limit  int
	Cursor string
}

// looksAt is how many receipts are looked at to find some with a status, atOnce how many of them at once.
const looksAt, atOnce = 500, 50

// Receipts lists receipts. next is "" at the end; a page may have fewer than Limit before that.
func (s *Service) Receipts(ctx context.Context, q ReceiptQuery) (found []Receipt, next string, err error) {
	limit := 20
	if q.Limit > 0 {
		limit = min(q.Limit, 100)
	}
	before := q.Cursor
	if !q.Until.IsZero() && (before == "" || before > id.From(q.Until)) {
		before = id.From(q.Until)
	}
	look := limit
	if q.Status != "" {
		look = max(limit, atOnce)
	}
	for looked := 0; looked < looksAt; looked += look {
		page, last, err := s.receiptsBelow(ctx, q, before, look)
		if err != nil {
			return nil, "", err
		}
		for _, r := range page {
			before = r.ID
			if !q.Since.IsZero() && r.ID < id.From(q.Since) {
				return found, "", nil
			}
			if q.Status != "" && r.Status != q.Status {
				continue
			}
			if found = append(found, r); len(found) == limit {
				return found, before, nil
			}
		}
		if last {
			return found, "", nil
		}
	}
	return found, before, nil
}

// receiptsBelow reads the next receipts below one. last says that there are no more.
func (s *Service) receiptsBelow(ctx context.Context, q ReceiptQuery, before string, limit int) (page []Receipt, last bool, err error) {
	if q.Trigger != "" {
		scan := record.Prefix(receiptKey(q.Trigger, "").Part, receiptPrefix)
		scan.Backward, scan.Limit = true, limit
		if before != "" {
			scan.To = receiptPrefix + before
		}
		recs, err := s.Store.Scan(ctx, scan)
		if err != nil {
			return nil, false, fmt.Errorf("read the receipts of trigger %s: %w", q.Trigger, err)
		}
		for _, rec := range recs {
			r, err := decodeReceipt(rec)
			if err != nil {
				return nil, false, err
			}
			if slices.Contains(q.DeploymentIDs, r.DeploymentID) {
				page = append(page, r)
			}
		}
		return page, len(recs) < limit, nil
	}
	var entries []record.Entry
	for _, d := range q.DeploymentIDs {
		some, err := s.Store.List(ctx, receiptList(d), before, limit)
		if err != nil {
			return nil, false, fmt.Errorf("list the receipts of deployment %s: %w", d, err)
		}
		entries = append(entries, some...)
	}
	slices.SortFunc(entries, func(a, b record.Entry) int { return strings.Compare(b.Order, a.Order) })
	last = len(entries) < limit
	for _, e := range entries[:min(limit, len(entries))] {
		rec, err := s.Store.Get(ctx, e.Key)
		if fault.Is(err, fault.NotFound) {
			continue // expired since
		}
		if err != nil {
			return nil, false, fmt.Errorf("read a receipt: %w", err)
		}
		r, err := decodeReceipt(rec)
		if err != nil {
			return nil, false, err
		}
		page = append(page, r)
	}
	return page, last, nil
}

// Receipt reads a receipt and the body that is kept with it. fault.NotFound: there is none, or no more.
func (s *Service) Receipt(ctx context.Context, triggerID, receiptID string) (r Receipt, body []byte, err error) {
	rec, err := s.Store.Get(ctx, receiptKey(triggerID, receiptID))
	if fault.Is(err, fault.NotFound) {
		return Receipt{}, nil, fault.New(fault.NotFound, "There is no such receipt.")
	}
	if err != nil {
		return Receipt{}, nil, fmt.Errorf("read a receipt: %w", err)
	}
	if r, err = decodeReceipt(rec); err != nil || r.Kept == 0 {
		return r, nil, err
	}
	rec, err = record.GetBlob(ctx, s.Store, bodyKey(triggerID, receiptID))
	if err != nil && !fault.Is(err, fault.NotFound) {
		return Receipt{}, nil, fmt.Errorf("read the body of receipt %s: %w", receiptID, err)
	}
	return r, rec.Body, nil
}

func decodeReceipt(rec record.Record) (Receipt, error) {
	var r Receipt
	if err := json.Unmarshal(rec.Body, &r); err != nil {
		return Receipt{}, fmt.Errorf("decode %s: %w", rec.Sort, err)
	}
	r.rev = rec.Rev
	return r, nil
}

// LastUse gives the newest receipt of a trigger that has a run; ok is false when none of the newest has.
func (s *Service) LastUse(ctx context.Context, t Trigger) (r Receipt, ok bool, err error) {
	q := ReceiptQuery{DeploymentIDs: []string{t.DeploymentID}, Trigger: t.ID}
	for before, looked := "", 0; looked < looksAt; looked += atOnce {
		page, last, err := s.receiptsBelow(ctx, q, before, atOnce)
		if err != nil {
			return Receipt{}, false, err
		}
		for _, r := range page {
			if before = r.ID; r.Status == Accepted || r.Status == Duplicate {
				return r, true, nil
			}
		}
		if last {
			break
		}
	}
	return Receipt{}, false, nil
}
