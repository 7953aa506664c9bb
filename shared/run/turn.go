package run

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/record"
)

// Runs of a thread take turns: a thread is one more list with a slot, and a run keeps it also while it waits for a person.
// When it gets the slot it takes a turn: its claim notes the number of the turn, and of the one before that its inputs build
// on. When it ends it leaves the turn, after the end page, before it gives the slot to the next run, and before anybody is told
// of the end: whoever hears of it finds the thread free, with what the run left. A turn is written once and never changed, so
// whoever takes a run over finds the same inputs, and whoever dies on the way to the end leaves the same turn again.

// Turn is what a run left in its thread.
type Turn struct {
	N   int       `json:"n"`
	At  time.Time `json:"at"`
	Run string    `json:"run,omitempty"` // none has turn 0, where the thread begins
	// State is how the run ended.
	State State `json:"state,omitempty"`
	// Values are those of the thread from then on; nil when the run left them as they were, because it did not succeed.
	Values map[string]any `json:"values"`
}

// Output and OutputJSON are what a run that succeeds adds to its inputs in the values of its thread: its result as text,
// and as JSON when it is JSON.
const (
	Output     = "output"
	OutputJSON = "output_json"
)

// ThreadPart is the partition of a thread. Beside the turns, package thread keeps the thread itself in it.
func ThreadPart(threadID string) string { return "THREAD#" + threadID }

const turnPrefix = "TURN#"

// maxValues is how large what a run of a thread begins with may be, as JSON.
const maxValues = 4 << 20

func turnKey(threadID string, n int) record.Key {
	return record.Key{Part: ThreadPart(threadID), Sort: fmt.Sprintf("%s%08d", turnPrefix, n)}
}

// PutTurn leaves a turn in a thread, unless it is there: the first one to leave it counts.
func (s *Service) PutTurn(ctx context.Context, threadID string, t Turn) error {
	body, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("encode turn %d of thread %s: %w", t.N, threadID, err)
	}
	rec := record.Record{Key: turnKey(threadID, t.N), Body: body}
	_, err = s.repeat(ctx, func() (int64, error) { return record.PutBlob(ctx, s.Store, rec) }, nil)
	if err != nil && !fault.Is(err, fault.Conflict) {
		return fmt.Errorf("put turn %d of thread %s: %w", t.N, threadID, err)
	}
	return nil
}

// Turns gives turns of a thread, newest first, at most limit, beginning below the number `before` (0: the top).
func (s *Service) Turns(ctx context.Context, threadID string, before, limit int) ([]Turn, error) {
	scan := record.Prefix(ThreadPart(threadID), turnPrefix)
	scan.Backward, scan.Limit = true, limit
	if before > 0 {
		scan.To = turnKey(threadID, before).Sort
	}
	recs, err := s.Store.Scan(ctx, scan)
	if err != nil {
		return nil, fmt.Errorf("read the turns of thread %s: %w", threadID, err)
	}
	turns := make([]Turn, len(recs))
	for i, rec := range recs {
		if turns[i], err = s.turn(ctx, rec); err != nil {
			return nil, err
		}
	}
	return turns, nil
}

func (s *Service) turn(ctx context.Context, rec record.Record) (t Turn, err error) {
	if rec, err = record.Inflate(ctx, s.Store, rec); err != nil {
		return t, fmt.Errorf("read %s of %s: %w", rec.Sort, rec.Part, err)
	}
	d := json.NewDecoder(strings.NewReader(string(rec.Body)))
	d.UseNumber() // a value keeps all its digits
	if err := d.Decode(&t); err != nil {
		return t, fmt.Errorf("decode %s of %s: %w", rec.Sort, rec.Part, err)
	}
	return t, nil
}

// LastTurn gives the newest turn of a thread, and the newest one with values, which may be the same.
func (s *Service) LastTurn(ctx context.Context, threadID string) (newest, valued Turn, err error) {
	const atOnce = 5
	for before := 0; ; {
		turns, err := s.Turns(ctx, threadID, before, atOnce)
		if err != nil {
			return newest, valued, err
		}
		for _, t := range turns {
			if before == 0 {
				newest = t
			}
			if before = t.N; t.Values != nil {
				return newest, t, nil
			}
		}
		if len(turns) < atOnce {
			return newest, Turn{}, nil
		}
	}
}

// takeTurn notes in a run that has its thread's slot which turn it has, and which one it builds on.
func (s *Service) takeTurn(ctx context.Context, r *Run, q *Request) error {
	newest, valued, err := s.LastTurn(ctx, r.Thread)
	if err != nil {
		return err
	}
	r.Turn, r.Base = newest.N+1, valued.N
	return s.build(ctx, *r, q)
}

// build gives a request what the thread of its run holds: the values under its inputs, and the turns that it remembers.
func (s *Service) build(ctx context.Context, r Run, q *Request) error {
	turns, err := s.Turns(ctx, r.Thread, r.Base+1, 1)
	if err != nil {
		return err
	}
	if len(turns) > 0 {
		q.Inputs = overlay(turns[0].Values, q.Inputs)
	}
	for before := r.Turn; before > 1 && len(q.Earlier) < q.Remember; {
		turns, err := s.Turns(ctx, r.Thread, before, min(q.Remember, 20))
		if err != nil {
			return err
		}
		if len(turns) == 0 {
			break
		}
		for _, t := range turns {
			if before = t.N; t.N > 0 && t.Values != nil && len(q.Earlier) < q.Remember {
				q.Earlier = append(q.Earlier, t)
			}
		}
	}
	return nil
}

// leaveTurn leaves the turn of a run whose end page is in the journal. q is the request as its owners know it.
func (s *Service) leaveTurn(ctx context.Context, r Run, q Request, end Page) error {
	if r.Turn == 0 {
		return nil
	}
	out := end.Outcome
	t := Turn{N: r.Turn, At: end.At, Run: r.ID, State: out.State}
	if out.State == Succeeded {
		t.Values = maps.Clone(q.Inputs)
		if t.Values == nil {
			t.Values = map[string]any{}
		}
		t.Values[Output] = out.Result
		delete(t.Values, OutputJSON)
		if len(out.JSON) > 0 {
			t.Values[OutputJSON] = out.JSON
		}
	}
	return s.PutTurn(ctx, r.Thread, t)
}

// disown takes the turn of a run from it: whatever comes of the run, the values of its thread stay as they were. A run that
// has left its turn keeps it.
func (s *Service) disown(ctx context.Context, r Run) error {
	if r.Turn == 0 {
		return nil
	}
	return s.PutTurn(ctx, r.Thread, Turn{N: r.Turn, At: s.now().UTC().Truncate(time.Millisecond), Run: r.ID, State: Canceled})
}

// over says whether a run is over. One of a thread may be so in its journal before its item says it: whoever watched the
// journal may know, so then its turn is left.
func (s *Service) over(ctx context.Context, r Run) (bool, error) {
	if r.State.Ended() || r.Turn == 0 {
		return r.State.Ended(), nil
	}
	newest, err := s.Newest(ctx, r.ID)
	if err != nil || newest.Outcome == nil {
		if fault.Is(err, fault.NotFound) {
			err = nil
		}
		return false, err
	}
	r, q, err := s.Whole(ctx, r.ID)
	if err != nil {
		return false, err
	}
	return true, s.leaveTurn(ctx, r, q, newest)
}

// OnThread gives the runs of a thread that are not over, at most so many (0: all), in their order: the first one has the
// thread.
func (s *Service) OnThread(ctx context.Context, threadID string, most int) ([]Run, error) {
	l, err := s.readSlots(ctx, gate('h', threadID))
	if err != nil {
		return nil, err
	}
	var runs []Run
	for _, e := range l.Runs {
		r, err := s.Get(ctx, e.Run)
		switch {
		case fault.Is(err, fault.NotFound): // it never came to be, or will in a moment
		case err != nil:
			return nil, err
		}
		over, err := s.over(ctx, r)
		if err != nil {
			return nil, err
		}
		if !over {
			if runs = append(runs, r); len(runs) == most {
				return runs, nil
			}
		}
	}
	return runs, nil
}
