package run_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/shared/run"
)

// pages lists runs to the end, and gives the names of the runs of each page.
func (s *stage) pages(q run.ListRequest, names map[string]string) (pages [][]string) {
	s.t.Helper()
	q.DeploymentIDs = []string{s.request().Deployment.ID}
	for {
		runs, next, err := s.List(s.t.Context(), q)
		if err != nil {
			s.t.Fatal(err)
		}
		page := []string{}
		for _, r := range runs {
			page = append(page, names[r.ID])
		}
		pages = append(pages, page)
		if next == "" {
			return pages
		}
		if q.Cursor != "" && next >= q.Cursor {
			s.t.Fatalf("the cursor went from %s to %s", q.Cursor, next)
		}
		q.Cursor = next
	}
}

func TestListsOfRunsMayBeFiltered(t *testing.T) {
	s := newStage(t)
	s.clock = time.Now().UTC().Truncate(time.Second) // ids are made by the real one
	names := map[string]string{}
	begun := s.clock
	for i, q := range []run.StartRequest{
		{Origin: "schedule"},
		{Origin: "trigger", Trigger: "01a20000-0000-7000-8000-0000000000bb", Meta: json.RawMessage(`{"team":"a","n":5}`)},
		{Thread: threadID, Enqueue: true, Meta: json.RawMessage(`{"team":"b"}`)},
		{Meta: json.RawMessage(`"team"`)},
	} {
		q.Deployment, q.Inputs = s.request().Deployment, s.request().Inputs
		s.clock = begun.Add(time.Duration(i) * time.Second)
		names[s.start(q).ID] = fmt.Sprint(i)
	}
	for _, c := range []struct {
		name string
		q    run.ListRequest
		want []string
	}{
		{"all", run.ListRequest{}, []string{"3", "2", "1", "0"}},
		{"by state", run.ListRequest{States: []run.State{run.Succeeded}}, []string{}},
		{"by origin", run.ListRequest{Origin: "schedule"}, []string{"0"}},
		{"by trigger", run.ListRequest{Origin: "01a20000-0000-7000-8000-0000000000bb"}, []string{"1"}},
		{"by thread", run.ListRequest{Thread: threadID}, []string{"2"}},
		{"by meta", run.ListRequest{Meta: map[string]string{"team": "a"}}, []string{"1"}},
		{"by a number in meta", run.ListRequest{Meta: map[string]string{"n": "5"}}, []string{"1"}},
		{"by two of meta", run.ListRequest{Meta: map[string]string{"team": "b", "n": "5"}}, []string{}},
		{"since", run.ListRequest{Since: begun.Add(time.Second)}, []string{"3", "2", "1"}},
		{"until", run.ListRequest{Until: begun.Add(time.Second)}, []string{"1", "0"}},
		{"until long ago", run.ListRequest{Until: begun.Add(-time.Hour)}, []string{}},
		{"between", run.ListRequest{Since: begun.Add(time.Second), Until: begun.Add(2 * time.Second)}, []string{"2", "1"}},
	} {
		if diff := cmp.Diff([][]string{c.want}, s.pages(c.q, names)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestAPageOfAListIsBounded(t *testing.T) {
	s := newStage(t)
	names := map[string]string{}
	for i := range 700 {
		q := s.request()
		if i == 0 || i == 699 {
			q.Origin = "schedule"
		}
		names[s.start(q).ID] = fmt.Sprint(i)
	}
	s.want("a filter that lets few through", s.pages(run.ListRequest{Origin: "schedule"}, names), [][]string{{"699"}, {}, {"0"}})
	s.want("a page that is full", s.pages(run.ListRequest{Origin: "schedule", Limit: 1}, names), [][]string{{"699"}, {}, {}, {"0"}, {}})
}
