package e2e_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// schedules are about runs that the clock starts.
var schedules = []behaviour{
	{"a schedule fires by itself, and each firing is one run", firesByItself},
	{"a schedule whose version wants other inputs says why there is no run", saysWhyNot},
}

// scheduled is a schedule as it is shown.
type scheduled struct {
	ID          string   `json:"id"`
	NextFirings []string `json:"next_firings"`
	LastFiring  *firing  `json:"last_firing"`
	Firings     []firing `json:"firings"`
}

type firing struct {
	At     string  `json:"at"`
	RunID  *string `json:"run_id"`
	Status *string `json:"status"`
	Reason *string `json:"reason"`
}

func (d deployment) schedules(t *testing.T) []scheduled {
	t.Helper()
	var list struct{ Schedules []scheduled }
	d.home.want(t, http.StatusOK, "GET", "/v1/deployments/"+d.ID+"/schedules", d.Token, nil, &list)
	return list.Schedules
}

// byTheClock gives the runs of a deployment that schedules started.
func (d deployment) byTheClock(t *testing.T) []ran {
	t.Helper()
	var list struct{ Runs []ran }
	d.home.want(t, http.StatusOK, "GET", "/v1/runs?trigger=schedule&limit=100", d.Token, nil, &list)
	return list.Runs
}

func firesByItself(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("On time."))))
	path := "/v1/deployments/" + d.ID + "/schedules"
	h.want(t, http.StatusCreated, "POST", path, d.Token, map[string]any{
		"expression": "at(" + h.now().UTC().Add(4*time.Second).Format("2006-01-02T15:04:05") + ")", "catch_up": "once", "inputs": map[string]any{"topic": "clocks"},
	}, nil)
	h.want(t, http.StatusCreated, "POST", path, d.Token, map[string]any{
		"expression": "rate(1 day)", "timezone": "Pacific/Auckland", "inputs": map[string]any{"topic": "clocks"},
	}, nil)
	// On a bad day a schedule may be made again by the client that had no answer; each of them fires.
	var all []scheduled
	eventually(t, "each schedule has fired and its run has succeeded", func() bool {
		all = d.schedules(t)
		for _, s := range all {
			if s.LastFiring == nil || s.LastFiring.Status == nil || *s.LastFiring.Status != "succeeded" {
				return false
			}
		}
		return true
	})
	for _, s := range all {
		if len(s.Firings) != 1 || s.LastFiring.Reason != nil {
			t.Errorf("a schedule has the firings %+v", s.Firings)
		}
	}
	var runs []ran
	eventually(t, "the list has a run for each schedule", func() bool { // on a bad day it is behind
		runs = d.byTheClock(t)
		return len(runs) >= len(all)
	})
	if len(runs) > len(all) {
		t.Errorf("%d schedules fired once and started %d runs", len(all), len(runs))
	}

	var started ran
	h.want(t, http.StatusAccepted, "POST", path+"/"+all[0].ID+"/run", d.Token, nil, &started, "Idempotency-Key", t.Name())
	if r := d.over(t, started.RunID); r.Status != "succeeded" || r.Input["topic"] != "clocks" {
		t.Errorf("run by hand it is %+v", r)
	}
}

func saysWhyNot(t *testing.T, h *home) {
	d := h.deploy(t, simple(h.answer(say("Never."))))
	path := "/v1/deployments/" + d.ID
	var v version
	h.want(t, http.StatusCreated, "POST", path+"/versions", h.token, map[string]any{"files": crew(agent("worker", "offline"), task("work", "worker", "Work on {subject}"))}, &v)
	h.want(t, http.StatusCreated, "POST", path+"/schedules", d.Token, map[string]any{
		"expression": "rate(1 day)", "start": h.now().UTC().Add(5 * time.Second).Format(time.RFC3339), "inputs": map[string]any{"topic": "clocks"}, "catch_up": "once",
	}, nil)
	h.want(t, http.StatusOK, "PUT", path+"/environments/production", h.token, map[string]any{"version_number": v.VersionNumber}, nil)
	eventually(t, "each schedule says why there is no run", func() bool {
		for _, s := range d.schedules(t) {
			if s.LastFiring == nil {
				return false
			}
			if s.LastFiring.RunID != nil || s.LastFiring.Reason == nil || *s.LastFiring.Reason != "Missing inputs: subject" {
				t.Fatalf("it says %+v", s.LastFiring)
			}
		}
		return true
	})
	if runs := d.byTheClock(t); len(runs) != 0 {
		t.Errorf("there are the runs %v", runs)
	}
}

// TestWhatWasMissedIsMadeUpFor has a home of its own, whose clock is moved.
func TestWhatWasMissedIsMadeUpFor(t *testing.T) {
	t.Parallel()
	h := newHome(t, onSQLite, settings{every: 100 * time.Millisecond})
	d := h.deploy(t, simple(h.answer(say("Late."))))
	path := "/v1/deployments/" + d.ID + "/schedules"
	for _, policy := range []string{"skip", "once", "all"} {
		h.want(t, http.StatusCreated, "POST", path, d.Token, map[string]any{
			"name": policy, "expression": "rate(1 hour)", "catch_up": policy, "inputs": map[string]any{"topic": policy},
		}, nil)
	}
	fired := func(counts ...int) func() bool {
		return func() bool {
			for i, s := range d.schedules(t) {
				if len(s.Firings) != counts[i] {
					return false
				}
			}
			return true
		}
	}
	ended := func(runs int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d runs have ended", runs), func() bool {
			n := 0
			for _, r := range d.byTheClock(t) {
				if r.CompletedAt != nil {
					n++
				}
			}
			return n == runs
		})
	}
	eventually(t, "each has fired at its begin", fired(1, 1, 1))
	ended(3)
	h.pass(5*time.Hour + 30*time.Minute)
	eventually(t, "what was missed is dealt with", fired(2, 2, 6))
	ended(3 + 0 + 1 + 5)
	if s := d.schedules(t)[0]; s.LastFiring.Reason == nil || s.LastFiring.RunID != nil {
		t.Errorf("what was skipped says %+v", s.LastFiring)
	}
}
