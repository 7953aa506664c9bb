package resend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/id"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/webhook"
)

const (
	// rate is how many deliveries a second a redrive sends, unless the endpoint bounds it lower.
	rate = 10
	// margin is what must be left of the caller's time for another step of a portion.
	margin = 5 * time.Second
	// disabled is how long a redrive waits before it looks again whether its endpoint is enabled.
	disabled = time.Minute
	// afterFault is how long a redrive waits after a fault of ours.
	afterFault = 5 * time.Second
	// longest is how long before its events a run may have begun for them to be found.
	longest = 7 * 24 * time.Hour
)

// size bounds a portion: its messages are spread over a window, and it is worked at so long.
type size struct{ window, working time.Duration }

// While somebody waits for the answer to a request a portion is small; else it is what fills the time between two sweeps.
var (
	small = size{5 * time.Second, 2 * time.Second}
	large = size{time.Minute, 10 * time.Second}
)

// Advance sees to the next portion of a redrive that is due; the sweeper calls it with the key that it found.
func (s *Service) Advance(ctx context.Context, k record.Key) error { return s.advance(ctx, k, large) }

func (s *Service) advance(ctx context.Context, k record.Key, most size) error {
	_, redriveID, _ := strings.Cut(k.Sort, prefix)
	r, err := s.Redrive(ctx, strings.TrimPrefix(k.Part, "W#"), redriveID)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	began := s.now()
	if r.State != Running || r.due.After(began) {
		return nil
	}
	e, err := s.endpoints().Find(ctx, r.EndpointID)
	if fault.Is(err, fault.NotFound) {
		s.end(&r, Canceled)
		return s.settle(ctx, &r)
	}
	if err != nil {
		return err
	}
	// Moving `due` keeps other sweepers away while this one works, and brings one back should it die.
	r.due = began.Add(time.Minute).UTC()
	if !e.Enabled {
		r.due = began.Add(disabled).UTC()
		return s.settle(ctx, &r)
	}
	if err := s.put(ctx, &r); err != nil {
		return ignoreConflict(err)
	}
	before := r
	p := &portion{s: s, r: &r, e: e, size: most, began: began, perSecond: rate}
	if e.MaxRPS > 0 {
		p.perSecond = min(rate, e.MaxRPS)
	}
	if r.Ask.Status == Skipped {
		err = p.skipped(ctx)
	} else {
		err = p.log(ctx)
	}
	if flushed := p.flush(ctx); err == nil {
		err = flushed
	}
	if err != nil {
		// What was done stays done, and its status says so: the portion begins again where it began.
		before.due = began.Add(afterFault).UTC()
		return errors.Join(fmt.Errorf("redrive %s: %w", r.ID, err), s.settle(ctx, &before))
	}
	if p.through {
		s.end(&r, Done)
	} else {
		r.due = began.Add(p.delay()).UTC()
	}
	return s.settle(ctx, &r)
}

// settle writes how far a redrive has come; when somebody has stopped it in between, what came of the portion is added.
func (s *Service) settle(ctx context.Context, r *Redrive) error {
	err := s.put(ctx, r)
	there, ok := record.Current(err)
	if !ok {
		return err
	}
	stopped, err := decode(there)
	if err != nil || stopped.State == Running {
		return err
	}
	stopped.Looked, stopped.Sent, stopped.Cursor = r.Looked, r.Sent, r.Cursor
	return ignoreConflict(s.put(ctx, &stopped))
}

func ignoreConflict(err error) error {
	if fault.Is(err, fault.Conflict) {
		return nil
	}
	return err
}

// portion is what is done of a redrive at a time.
type portion struct {
	s *Service
	r *Redrive
	e webhook.Endpoint
	size
	began     time.Time
	perSecond int
	sent      int
	messages  []queue.Message
	// through says that there is nothing left.
	through bool
}

// delay is when the next message goes out, counted from the beginning of the portion.
func (p *portion) delay() time.Duration {
	return time.Duration(p.sent) * time.Second / time.Duration(p.perSecond)
}

// full says that the portion has to end here.
func (p *portion) full(ctx context.Context) bool {
	end, limited := ctx.Deadline()
	return p.delay() >= p.window || p.s.now().Sub(p.began) > p.working || limited && time.Until(end) < margin
}

// add puts a message behind those before it.
func (p *portion) add(ctx context.Context, m queue.Message) error {
	m.Delay = p.delay().Truncate(time.Second)
	p.messages = append(p.messages, m)
	p.sent++
	p.r.Sent++
	if len(p.messages) < 10 {
		return nil
	}
	return p.flush(ctx)
}

func (p *portion) flush(ctx context.Context) error {
	if len(p.messages) == 0 {
		return nil
	}
	err := p.s.Queue.Send(ctx, p.messages...)
	p.messages = nil
	return err
}

// log goes on through the log of the endpoint.
func (p *portion) log(ctx context.Context) error {
	for !p.full(ctx) {
		q := webhook.LogRequest{
			Endpoint: p.e.ID, Since: p.r.Ask.Since, Until: p.r.Ask.Until, Limit: 50, Cursor: p.r.Cursor,
		}
		found, next, err := p.s.deliveries().Log(ctx, q)
		if err != nil {
			return err
		}
		for _, d := range found {
			if p.full(ctx) {
				return nil
			}
			if err := p.again(ctx, d); err != nil {
				return err
			}
			p.r.Looked++
			p.r.Cursor = d.Order()
		}
		if next == "" {
			p.through = true
			return nil
		}
		p.r.Cursor = next
	}
	return nil
}

// again asks for a delivery, if it is one of those asked for and nothing has happened to it since the redrive began.
func (p *portion) again(ctx context.Context, d webhook.Delivery) error {
	wanted := func(d webhook.Delivery) bool {
		if d.Status != p.r.Ask.Status || p.r.Ask.Event != "" && d.Event != p.r.Ask.Event || d.Parked || d.Parts == 0 {
			return false
		}
		n := len(d.Attempts)
		return n == 0 || d.Attempts[n-1].At.Before(p.r.CreatedAt)
	}
	d, asked, err := p.s.ask(ctx, d, p.began.Add(p.delay().Truncate(time.Second)), wanted)
	if err != nil || !asked {
		return ignoreConflict(err)
	}
	return p.add(ctx, message(d))
}

// skipped goes on through the runs of the endpoint's deployment for what was never sent.
func (p *portion) skipped(ctx context.Context) error {
	if p.r.Cursor == "" {
		p.r.Cursor = id.From(p.r.Ask.Until.Add(time.Millisecond))
	}
	for !p.full(ctx) {
		runs, next, err := p.s.Runs.List(ctx, run.ListRequest{DeploymentIDs: []string{p.e.DeploymentID}, Limit: 20, Cursor: p.r.Cursor})
		if err != nil {
			return err
		}
		for _, one := range runs {
			if one.CreatedAt.Before(p.r.Ask.Since.Add(-longest)) {
				p.through = true
				return nil
			}
			if p.full(ctx) {
				return nil
			}
			if err := p.ofRun(ctx, one); err != nil {
				return err
			}
			p.r.Looked++
			p.r.Cursor = one.ID
		}
		if next == "" {
			p.through = true
			return nil
		}
	}
	return nil
}

// ofRun sends what the pages of a run would have told the endpoint.
func (p *portion) ofRun(ctx context.Context, one run.Run) error {
	if one.Environment != p.e.Environment || one.State.Ended() && one.EndedAt.Before(p.r.Ask.Since) {
		return nil
	}
	const some = 100
	for from := 1; ; {
		pages, err := p.s.Runs.Pages(ctx, one.ID, from, some)
		if err != nil {
			return err
		}
		for _, page := range pages {
			from = page.Seq + 1
			if err := p.ofPage(ctx, one, page); err != nil {
				return err
			}
		}
		if len(pages) < some {
			return nil
		}
	}
}

func (p *portion) ofPage(ctx context.Context, one run.Run, page run.Page) error {
	if page.At.Before(p.r.Ask.Since) || page.At.After(p.r.Ask.Until) || slices.Contains(page.Targets, p.e.ID) || !p.wants(page) {
		return nil
	}
	made, err := p.s.deliveries().OfPage(ctx, one.ID, page.Seq, p.e.ID)
	if err != nil || len(made) > 0 {
		return err
	}
	return p.add(ctx, run.DeliveryMessage{Run: one.ID, Seq: page.Seq, Target: p.e.ID}.Message())
}

// wants tells whether a page has what was asked for.
func (p *portion) wants(page run.Page) bool {
	t := run.Target{ID: p.e.ID, Kind: run.EndpointTarget, Events: p.e.Events}
	if !run.Wants(t, page) {
		return false
	}
	if p.r.Ask.Event == "" {
		return true
	}
	t.Events = []string{p.r.Ask.Event}
	return run.Wants(t, page)
}
