package run

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/record"
)

// Request reads what the kickoff asked for.
func (s *Service) Request(ctx context.Context, runID string) (Request, error) {
	rec, err := s.Store.Get(ctx, requestKey(runID))
	if err != nil {
		return Request{}, fmt.Errorf("read the request of run %s: %w", runID, err)
	}
	return s.request(ctx, runID, rec)
}

// Whole reads the run item and what the kickoff asked for at once: they lie side by side, and together are charged as one.
func (s *Service) Whole(ctx context.Context, runID string) (r Run, q Request, err error) {
	recs, err := s.Store.Scan(ctx, record.Scan{Part: partition(runID), From: requestKey(runID).Sort, To: itemKey(runID).Sort + "\x00"})
	if err != nil {
		return Run{}, Request{}, fmt.Errorf("read run %s: %w", runID, err)
	}
	if len(recs) == 0 || recs[len(recs)-1].Key != itemKey(runID) {
		return Run{}, Request{}, unknown(runID)
	}
	if r, err = decodeRun(recs[len(recs)-1]); err != nil {
		return Run{}, Request{}, err
	}
	if len(recs) != 2 || recs[0].Key != requestKey(runID) {
		return Run{}, Request{}, fmt.Errorf("run %s has no request", runID)
	}
	if q, err = s.request(ctx, runID, recs[0]); err != nil {
		return r, q, err
	}
	if r.Turn > 0 {
		if err := s.build(ctx, r, &q); err != nil {
			return r, q, err
		}
	}
	if r.Targets == "" {
		return r, q, nil
	}
	k, err := s.reply(ctx, runID, r.Targets)
	q.Targets = k.Targets
	return r, q, err
}

func (s *Service) request(ctx context.Context, runID string, rec record.Record) (Request, error) {
	rec, err := record.Inflate(ctx, s.Store, rec)
	if err != nil {
		return Request{}, fmt.Errorf("read the request of run %s: %w", runID, err)
	}
	var q Request
	numbers := json.NewDecoder(bytes.NewReader(rec.Body))
	numbers.UseNumber() // an input keeps all its digits
	if err := numbers.Decode(&q); err != nil {
		return Request{}, fmt.Errorf("decode the request of run %s: %w", runID, err)
	}
	return q, nil
}

// Page reads one page. fault.NotFound: there is none of this number (yet).
func (s *Service) Page(ctx context.Context, runID string, seq int) (Page, error) {
	rec, err := record.GetBlob(ctx, s.Store, pageKey(runID, seq))
	if err != nil {
		return Page{}, fmt.Errorf("read page %d of run %s: %w", seq, runID, err)
	}
	return decodePage(rec)
}

// Pages reads the pages from one number on, at most limit (0: all).
func (s *Service) Pages(ctx context.Context, runID string, from, limit int) ([]Page, error) {
	scan := record.Prefix(partition(runID), "P#")
	scan.From, scan.Limit = pageKey(runID, from).Sort, limit
	return s.scan(ctx, runID, scan)
}

// Newest reads the newest page, which is the truth about the run. fault.NotFound: nothing was recorded yet.
func (s *Service) Newest(ctx context.Context, runID string) (Page, error) {
	scan := record.Prefix(partition(runID), "P#")
	scan.Backward, scan.Limit = true, 1
	pages, err := s.scan(ctx, runID, scan)
	if err != nil {
		return Page{}, err
	}
	if len(pages) == 0 {
		return Page{}, fault.New(fault.NotFound, "Nothing of this run is recorded yet.")
	}
	return pages[0], nil
}

func (s *Service) scan(ctx context.Context, runID string, scan record.Scan) ([]Page, error) {
	recs, err := s.Store.Scan(ctx, scan)
	if err != nil {
		return nil, fmt.Errorf("read the journal of run %s: %w", runID, err)
	}
	pages := make([]Page, 0, len(recs))
	for _, rec := range recs {
		if rec, err = record.Inflate(ctx, s.Store, rec); err != nil {
			return nil, fmt.Errorf("read the journal of run %s: %w", runID, err)
		}
		p, err := decodePage(rec)
		if err != nil {
			return nil, err
		}
		pages = append(pages, p)
	}
	return pages, nil
}

func decodePage(rec record.Record) (Page, error) {
	var p Page
	if err := json.Unmarshal(rec.Body, &p); err != nil {
		return Page{}, fmt.Errorf("decode %s of %s: %w", rec.Sort, rec.Part, err)
	}
	return p, nil
}

// Messages puts the conversation of a page together again; nil for a page without one.
func (s *Service) Messages(ctx context.Context, runID string, p Page) ([]json.RawMessage, error) {
	if p.Prompt == nil {
		return nil, nil
	}
	if p.Prompt.From == 0 {
		return p.Prompt.New, nil
	}
	pages, err := s.Pages(ctx, runID, p.Prompt.Begin, p.Prompt.From-p.Prompt.Begin+1)
	if err != nil {
		return nil, err
	}
	bySeq := make(map[int]*Prompt, len(pages))
	for _, q := range pages {
		bySeq[q.Seq] = q.Prompt
	}
	return conversation(bySeq, p.Prompt)
}

// conversation follows a prompt back to where it begins.
func conversation(bySeq map[int]*Prompt, p *Prompt) ([]json.RawMessage, error) {
	line := []*Prompt{p}
	for p.From != 0 {
		before := bySeq[p.From]
		if before == nil || len(line) > len(bySeq)+1 {
			return nil, fmt.Errorf("page %d, where a conversation goes on, has none", p.From)
		}
		line, p = append(line, before), before
	}
	var all []json.RawMessage
	for _, p := range slices.Backward(line) {
		if p.Keep > len(all) {
			return nil, fmt.Errorf("a conversation keeps %d messages of %d", p.Keep, len(all))
		}
		all = append(all[:p.Keep:p.Keep], p.New...)
	}
	return all, nil
}

// LastTask reads the output of the task that ended last, as seen from page p; nil when none has.
func (s *Service) LastTask(ctx context.Context, runID string, p Page) (*TaskOutput, error) {
	p, err := s.named(ctx, runID, p, p.Progress.TaskPage)
	if err != nil || len(p.Tasks) == 0 {
		return nil, err
	}
	return &p.Tasks[len(p.Tasks)-1], nil
}

// LastNote reads the newest note, as seen from page p; nil when there is none.
func (s *Service) LastNote(ctx context.Context, runID string, p Page) (*Note, error) {
	p, err := s.named(ctx, runID, p, p.Progress.NotePage)
	if err != nil || len(p.Notes) == 0 {
		return nil, err
	}
	return &p.Notes[len(p.Notes)-1], nil
}

// named reads the page that p names, which may be p.
func (s *Service) named(ctx context.Context, runID string, p Page, seq int) (Page, error) {
	switch seq {
	case 0:
		return Page{}, nil
	case p.Seq:
		return p, nil
	}
	return s.Page(ctx, runID, seq)
}

// ListRequest asks for runs, newest first. What is empty filters nothing.
type ListRequest struct {
	DeploymentIDs []string
	// States keeps only runs in one of these states.
	States []State
	// Origin keeps only runs that were started by this, which may also be the id of a trigger.
	Origin string
	// Agent keeps only runs of the agent with this key alone, and those of whole crews.
	Agent string
	// Thread keeps only the runs of a thread.
	Thread string
	// Since and Until keep only runs that were made between them, both included.
	Since, Until time.Time
	// Meta keeps only runs whose kickoff's meta has these values.
	Meta map[string]string
	// Limit is how many at most, 1 to 100; 0 means 20.
	Limit int
	// Cursor is the `next` of the page before, "" at the beginning.
	Cursor string
}

// mostLooked is how many runs List looks at to fill a page: what few runs match takes more pages, and no page takes long.
const mostLooked = 300

// List lists runs of some deployments by the time they were made, newest first. next is "" at the end. Where filters let few
// runs through, a page may have fewer runs than it could, or none, before the end.
func (s *Service) List(ctx context.Context, q ListRequest) (runs []Run, next string, err error) {
	limit, before, atOnce := q.limit(), q.Cursor, q.limit()
	if q.filters() {
		atOnce = 100
	}
	if !q.Until.IsZero() {
		// A run's time is read a moment before its id is made.
		if top := id.From(q.Until.Add(time.Minute)); before == "" || top < before {
			before = top
		}
	}
	for looked := 0; looked < mostLooked; {
		ids, err := s.listed(ctx, list, q.DeploymentIDs, before, atOnce)
		if err != nil {
			return nil, "", err
		}
		for _, runID := range ids {
			before = runID
			looked++
			r, err := s.Get(ctx, runID)
			if fault.Is(err, fault.NotFound) {
				continue // expired since
			}
			if err != nil {
				return nil, "", err
			}
			if r.CreatedAt.Before(q.Since) {
				return runs, "", nil
			}
			matches, err := s.matches(ctx, q, r)
			if err != nil {
				return nil, "", err
			}
			if matches {
				if runs = append(runs, r); len(runs) == limit {
					return runs, before, nil
				}
			}
		}
		if len(ids) < atOnce {
			return runs, "", nil
		}
	}
	return runs, before, nil
}

func (q ListRequest) filters() bool {
	return len(q.States) > 0 || q.Origin != "" || q.Agent != "" || q.Thread != "" || len(q.Meta) > 0
}

// matches says whether a run passes the filters. Its time is known to be late enough.
func (s *Service) matches(ctx context.Context, q ListRequest, r Run) (bool, error) {
	switch {
	case len(q.States) > 0 && !slices.Contains(q.States, r.State),
		q.Origin != "" && q.Origin != r.Origin && q.Origin != r.Trigger,
		q.Agent != "" && r.Agent != "" && q.Agent != r.Agent,
		q.Thread != "" && q.Thread != r.Thread,
		!q.Until.IsZero() && r.CreatedAt.After(q.Until):
		return false, nil
	case len(q.Meta) == 0:
		return true, nil
	}
	asked, err := s.Request(ctx, r.ID)
	if fault.Is(err, fault.NotFound) {
		return false, nil // expired since
	}
	if err != nil {
		return false, err
	}
	var meta map[string]json.RawMessage
	if json.Unmarshal(asked.Meta, &meta) != nil {
		return false, nil // none, or no object
	}
	for key, want := range q.Meta {
		var text string
		if value, ok := meta[key]; !ok || string(value) != want && (json.Unmarshal(value, &text) != nil || text != want) {
			return false, nil
		}
	}
	return true, nil
}

func (q ListRequest) limit() int {
	if q.Limit == 0 {
		return 20
	}
	return min(max(q.Limit, 1), 100)
}

// listed finds the next entries below one, over the lists of all deployments: a full page of them unless the lists end.
func (s *Service) listed(ctx context.Context, list func(string) string, deployments []string, before string, limit int) (ids []string, err error) {
	for _, d := range deployments {
		found, err := s.Store.List(ctx, list(d), before, limit)
		if err != nil {
			return nil, fmt.Errorf("read a list of deployment %s: %w", d, err)
		}
		for _, rec := range found {
			ids = append(ids, rec.Order)
		}
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	return ids[:min(limit, len(ids))], nil
}
