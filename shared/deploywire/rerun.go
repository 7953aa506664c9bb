package deploywire

import (
	"maps"
	"net/http"
	"slices"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/run"
	"muster/shared/workspace"
)

type rerunReply struct {
	startReply
	Kept *kept `json:"kept"`
}

// kept is what a run takes over from an earlier one, and what that cost there. CostUSD is null when nobody knows.
type kept struct {
	Tasks      []string `json:"tasks"`
	ModelCalls int      `json:"model_calls"`
	Tokens     int      `json:"tokens"`
	CostUSD    *float64 `json:"cost_usd"`
}

func newKept(outputs map[string]run.Kept) *kept {
	all := run.SumKept(outputs)
	k := &kept{Tasks: []string{}, ModelCalls: all.Calls, Tokens: all.TotalTokens, CostUSD: all.Cost()}
	k.Tasks = append(k.Tasks, slices.Sorted(maps.Keys(outputs))...)
	return k
}

func (w *Wire) rerun(rw http.ResponseWriter, r *http.Request, c workspace.Caller) error {
	o, body, err := readOptional(r)
	if err != nil {
		return err
	}
	q, err := readRerun(o)
	if err != nil {
		return err
	}
	earlier, err := w.run(r, c)
	if err != nil {
		return err
	}
	q.Run = earlier.ID
	if q.IdempotencyKey, q.BodyDigest, err = httpapi.Idempotency(r, "rerun/"+earlier.ID, body); err != nil {
		return err
	}
	started, outputs, err := w.Runs.Rerun(r.Context(), q)
	showRate(rw, started)
	if err != nil {
		return err
	}
	httpapi.Warn(rw, o.Unknown("from_task", "version_number", "inputs", "limits"))
	return httpapi.WriteJSON(rw, http.StatusAccepted, rerunReply{newStartReply(started), newKept(outputs)})
}

func readRerun(o httpapi.Object) (q run.RerunRequest, err error) {
	if q.FromTask, err = o.String("from_task"); err != nil {
		return q, err
	}
	if q.VersionNumber, err = o.Int("version_number"); err != nil {
		return q, err
	}
	if q.VersionNumber < 0 || o.Has("version_number") && q.VersionNumber == 0 {
		return q, fault.New(fault.Invalid, "\"version_number\" must be the number of a version, from 1.")
	}
	if o.Has("inputs") {
		if q.Inputs, err = o.Values("inputs"); err != nil {
			return q, err
		}
	}
	q.Limits, err = readLimits(o)
	return q, err
}
