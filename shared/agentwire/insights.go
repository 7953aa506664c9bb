package agentwire

import (
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/id"
	"muster/shared/price"
	"muster/shared/run"
	"muster/shared/workspace"
)

// windows are how far back insights may look.
var windows = map[string]time.Duration{"24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour, "30d": 30 * 24 * time.Hour}

// mostSampled is how many runs insights are made of: each is read to its last page.
const mostSampled = 300

type insightsReply struct {
	Window string  `json:"window"`
	Since  *string `json:"since"`
	group
	ByTrigger []groupOf `json:"by_trigger"`
	ByCrew    []groupOf `json:"by_crew"`
	ByModel   []modelOf `json:"by_model"`
	// Truncated says that there were more runs than were looked at: these are the newest.
	Truncated bool `json:"truncated"`
}

// group says how some runs went. The percentiles are of those that are over, and null without any.
type group struct {
	Runs      int    `json:"runs"`
	Completed int    `json:"completed"`
	Failed    int    `json:"failed"`
	P50       *int64 `json:"p50_duration_ms"`
	P95       *int64 `json:"p95_duration_ms"`

	took []time.Duration
}

// groupOf is a group with the key that its runs have in common, and its name.
type groupOf struct {
	Key  string `json:"key"`
	Name string `json:"name"`
	group
}

type modelOf struct {
	Model       string `json:"model"`
	Calls       int    `json:"calls"`
	TotalTokens int    `json:"total_tokens"`
	// CostUSD is null when the price of a call is not known.
	CostUSD *float64 `json:"cost_usd"`
}

func (g *group) add(r run.Run) {
	g.Runs++
	switch r.State {
	case run.Succeeded:
		g.Completed++
	case run.Failed, run.TimedOut:
		g.Failed++
	}
	if d, ended := took(r); ended {
		g.took = append(g.took, d)
	}
}

func (g *group) done() group {
	slices.Sort(g.took)
	g.P50, g.P95 = percentile(g.took, 50), percentile(g.took, 95)
	return *g
}

// percentile gives the smallest value that so many percent of the sorted ones do not exceed.
func percentile(sorted []time.Duration, percent float64) *int64 {
	if len(sorted) == 0 {
		return nil
	}
	ms := sorted[int(math.Ceil(percent/100*float64(len(sorted))))-1].Milliseconds()
	return &ms
}

func (w *Wire) insights(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	ctx := r.Context()
	window := r.URL.Query().Get("window")
	if window == "" {
		window = "24h"
	}
	back, ok := windows[window]
	if !ok {
		return fault.New(fault.Invalid, "There is no window %q; there are 24h, 7d and 30d.", window)
	}
	deployments, err := w.deployments(ctx, c)
	if err != nil {
		return err
	}
	since := w.now().Add(-back)
	runs, err := w.newest(ctx, run.ListRequest{DeploymentIDs: slices.Collect(maps.Keys(deployments)), Since: since}, mostSampled+1)
	if err != nil {
		return err
	}
	reply := insightsReply{Window: window, Since: timestamp(since), Truncated: len(runs) > mostSampled}
	var all group
	triggers, crews, models := map[string]*group{}, map[string]*group{}, map[string]run.ModelUsage{}
	for _, one := range runs[:min(mostSampled, len(runs))] {
		page, err := w.Runs.Newest(ctx, one.ID)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		all.add(one)
		of(triggers, triggerTypes[one.Origin]).add(one)
		of(crews, one.DeploymentID).add(one)
		for name, used := range page.Totals.ByModel {
			sum := models[name]
			models[name] = run.ModelUsage{
				Calls: sum.Calls + used.Calls, Usage: sum.Usage.Add(used.Usage), CostUSD: price.Round(sum.CostUSD + used.CostUSD), Unpriced: sum.Unpriced + used.Unpriced,
			}
		}
	}
	reply.group = all.done()
	reply.ByTrigger = groups(triggers, func(key string) (string, string) { return key, strings.ToLower(key) })
	reply.ByCrew = groups(crews, func(key string) (string, string) { return id.Show("dep", key), deployments[key].Name })
	reply.ByModel = []modelOf{}
	for _, name := range slices.Sorted(maps.Keys(models)) {
		m := models[name]
		reply.ByModel = append(reply.ByModel, modelOf{name, m.Calls, m.TotalTokens, m.Cost()})
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

func of(all map[string]*group, key string) *group {
	if all[key] == nil {
		all[key] = &group{}
	}
	return all[key]
}

// groups lists groups by their keys.
func groups(all map[string]*group, show func(key string) (shown, name string)) []groupOf {
	list := []groupOf{}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		shown, name := show(key)
		list = append(list, groupOf{shown, name, all[key].done()})
	}
	return list
}
