package channel

import (
	"context"
	"time"
)

// RelayOne tells one connection of the workspace of a run, in the caller's goroutine.
func RelayOne(h *Hub, ctx context.Context, connectionID, runID string, seq int) (time.Duration, error) {
	r, err := h.Runs.Get(ctx, runID)
	if err != nil {
		return 0, err
	}
	all, err := connections(ctx, h.Store, r.WorkspaceID)
	if err != nil {
		return 0, err
	}
	for _, c := range all {
		if c.ID == connectionID {
			return h.relay(ctx, c, About{Run: r}, seq, &pages{runs: h.Runs, runID: runID}, &callers{tokens: h.Tokens})
		}
	}
	return 0, ErrGone
}
