// Package runtest holds finished runs to what every journal promises, whatever happened on the way.
package runtest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"muster/shared/run"
)

// Problems lists what is wrong with a run that has come to rest and was told of, and with its journal.
func Problems(r run.Run, q run.Request, pages []run.Page) (problems []string) {
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if !r.State.Ended() {
		wrong("the run came to rest in state %s, due %v", r.State, r.Due)
	}
	if !r.Due.IsZero() || !r.Told {
		wrong("the ended run is due at %v, told %v", r.Due, r.Told)
	}
	if len(pages) == 0 {
		wrong("the journal is empty")
		return problems
	}
	var (
		ids, results, types = map[string]bool{}, map[string]bool{}, map[string]bool{}
		n                   int64
		epoch               int
		last                time.Time
	)
	for i, p := range pages {
		if p.Seq != i+1 {
			wrong("page %d stands at %d", p.Seq, i+1)
		}
		if p.Epoch < epoch {
			wrong("page %d of epoch %d stands behind epoch %d", p.Seq, p.Epoch, epoch)
		}
		epoch = p.Epoch
		if (p.Kind == run.EndPage) != (i == len(pages)-1) {
			wrong("page %d of %d is of kind %s", p.Seq, len(pages), p.Kind)
		}
		if p.Kind == run.StepPage {
			if results[p.Key] {
				wrong("step %s has two results", p.Key)
			}
			results[p.Key] = true
		}
		for _, e := range p.Events {
			n++
			if e.N != n || ids[e.ID] || !e.At.After(last) {
				wrong("event %s: number %d (want %d), id seen %v, at %v after %v", e.Type, e.N, n, ids[e.ID], e.At, last)
			}
			ids[e.ID], types[e.Type], last = true, true, e.At
		}
		if p.Totals.Events != n {
			wrong("page %d counts %d events of %d", p.Seq, p.Totals.Events, n)
		}
		for _, t := range q.Targets {
			if wants := run.Wants(t, p); wants != slices.Contains(p.Targets, t.ID) {
				wrong("page %d names target %s: %v, want %v", p.Seq, t.ID, !wants, wants)
			}
		}
	}
	end := pages[len(pages)-1]
	if end.Outcome == nil || end.Outcome.State != r.State {
		wrong("the item says %s, the end page %+v", r.State, end.Outcome)
	}
	for name := range types {
		if key, n, ok := strings.Cut(name, ".started."); ok && !types[key+".failed."+n] && !types[key+".completed."+n] && r.State == run.Succeeded {
			wrong("the run succeeded, and %s was never closed", name)
		}
	}
	return problems
}
