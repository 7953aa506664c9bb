package faults_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"muster/shared/engine/llm/scripted"
	"muster/shared/mean"
	"muster/shared/run"
	"muster/shared/run/runtest"
)

// ask is the model. It knows who asks, and looks whether the answer is in the journal already.
func (s *scene) ask(r scripted.Request) scripted.Reply {
	name := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	var p *process
	for _, one := range s.processes {
		if one.name == name {
			p = one
		}
	}
	s.mu.Unlock()
	if p == nil {
		return scripted.Fail(401, "nobody knows "+name)
	}
	fate := p.fate("model") // a process that is frozen here asks when it thaws
	if s.stopped == atWork && strings.HasPrefix(r.User(), "Tell the customs") {
		s.mu.Lock()
		first := s.stopping == unasked
		s.stopping = max(s.stopping, asking)
		s.mu.Unlock()
		if first {
			s.stop(p)
		}
	}
	if s.recorded(r.Digest) {
		s.mu.Lock()
		if p.stopped {
			s.zombies++
		} else {
			s.repeated = append(s.repeated, fmt.Sprintf("%s asked again: %s", name, r.User()))
		}
		s.mu.Unlock()
	}
	switch fate {
	case mean.Before:
		return scripted.Fail(500, "out of order")
	case mean.After, mean.Partly:
		return scripted.Reply{Drop: true}
	}
	s.mu.Lock()
	s.asked[r.Digest] = append(s.asked[r.Digest], r.N)
	s.mu.Unlock()
	return referenceModel(r)
}

// recorded says whether an answer to this request is in the journal.
func (s *scene) recorded(digest string) bool {
	s.mu.Lock()
	answers := s.asked[digest]
	s.mu.Unlock()
	return len(answers) > 0 && cutOf(answers, s.pages()) < len(answers)
}

func (s *scene) pages() []run.Page {
	pages, err := s.runs.Pages(context.Background(), s.runID, 1, 0)
	if err != nil {
		s.wrong("%v", err)
	}
	return pages
}

// cutOf counts the answers that are not in the journal.
func cutOf(answers []int, pages []run.Page) (cut int) {
	for _, n := range answers {
		id := fmt.Appendf(nil, `"chatcmpl-%d"`, n)
		if !slices.ContainsFunc(pages, func(p run.Page) bool { return p.Kind == run.StepPage && bytes.Contains(p.Result, id) }) {
			cut++
		}
	}
	return cut
}

// hear is the receiver. What it is told, it finds in the status at once.
func (s *scene) hear(r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // its process was frozen, or has given up
	}
	var told struct {
		KickoffID string `json:"kickoff_id"`
		Status    string
		question
		Events []struct {
			ID          string
			ExecutionID string `json:"execution_id"`
			Data        struct {
				N int64 `json:"emission_sequence"`
			}
		}
	}
	if err := json.Unmarshal(body, &told); err != nil {
		s.wrong("a receiver was told %s", body)
		return
	}
	var status struct {
		State string
		Count int64 `json:"events_count"`
	}
	if told.KickoffID == "" && len(told.Events) > 0 {
		told.KickoffID = told.Events[0].ExecutionID
	}
	if code := request(s.observer, "GET", "/status/"+told.KickoffID, s.token, nil, &status); code != http.StatusOK {
		s.wrong("the status was %d", code)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if told.KickoffID != s.runID && s.runID != "" {
		s.problems = append(s.problems, "a receiver was told of the run "+told.KickoffID)
	}
	for _, e := range told.Events {
		s.heard[e.ID]++
		if status.Count < e.Data.N {
			s.problems = append(s.problems, fmt.Sprintf("the status knew %d events when a receiver was told of number %d", status.Count, e.Data.N))
		}
	}
	switch r.URL.Path {
	case "/human":
		if r.Header.Get("Authorization") != "Bearer person" {
			s.problems = append(s.problems, "a question was told without its token")
		}
		known := slices.ContainsFunc(s.questions, func(q *question) bool { return q.ID == told.ID })
		if !known {
			s.questions = append(s.questions, &told.question)
		}
		if !known && status.State != "PAUSED" && s.stopping == unasked {
			s.problems = append(s.problems, "a person was asked, and the status said "+status.State)
		}
	case "/crew":
		state := cmp.Or(told.Status, "SUCCESS")
		if s.ended != "" && s.ended != state {
			s.problems = append(s.problems, fmt.Sprintf("a receiver was told first that the run ended %s, and then %s", s.ended, state))
		}
		s.ended = state
		if status.State != state {
			s.problems = append(s.problems, fmt.Sprintf("a receiver was told of the end %s, and the status said %s", state, status.State))
		}
	}
}

// check holds the run to everything that was promised.
func (s *scene) check() {
	ctx := context.Background()
	r, err := s.runs.Get(ctx, s.runID)
	if err != nil {
		s.wrong("%v", err)
		return
	}
	request, err := s.runs.Request(ctx, s.runID)
	if err != nil {
		s.wrong("%v", err)
	}
	pages := s.pages()

	s.mu.Lock() // a process that died may still have a request under way
	defer s.mu.Unlock()
	wrong := func(format string, args ...any) { s.problems = append(s.problems, fmt.Sprintf(format, args...)) }
	for _, answers := range s.asked {
		s.cut += cutOf(answers, pages)
	}
	s.problems = append(s.problems, runtest.Problems(r, request, pages)...)
	want := run.Succeeded
	if s.stopping == accepted {
		want = run.Canceled
	}
	if r.State != want {
		wrong("the run %s: %s", r.State, r.Error)
	}
	if s.stopping == asking {
		wrong("the stop was never answered")
	}
	if len(s.questions) > 2 || want == run.Succeeded && len(s.questions) != 2 {
		wrong("a person was asked %d times", len(s.questions))
	}
	for _, what := range s.repeated {
		wrong("%s, although the answer is in the journal", what)
	}
	if s.ended == "" {
		wrong("the crew's target was not told of the end")
	}
	for _, p := range pages {
		for _, e := range p.Events {
			if s.heard[e.ID] == 0 {
				wrong("event %d (%s) was told to nobody", e.N, e.Type)
			}
			if s.heard[e.ID] > 1 {
				s.twice++
			}
			delete(s.heard, e.ID)
		}
	}
	if len(s.heard) > 0 {
		wrong("%d events were told that are not in the journal", len(s.heard))
	}
}

// String tells what went wrong, and what came of it.
func (s *scene) String() string {
	return fmt.Sprintf("stopped %s; %s:\n  %s", s.stopped, strings.Join(s.met, "; "), strings.Join(s.problems, "\n  "))
}
