package ampwire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"muster/events"
	"muster/shared/run"
	"muster/shared/webhook"
)

const (
	// maxBatch is how many events one POST carries.
	maxBatch = 100
	// maxBatchBytes is how large a POST of several events gets; a larger event goes alone.
	maxBatchBytes = 256 << 10
)

// Stream makes the bodies of the streaming webhook: the events of a page that the target asked for, in batches, or one by
// one when it is realtime. An endpoint may ask for where a run stands, too, and is sent the event that says so on this wire.
// messages is the conversation of the page, which its events show.
func Stream(r run.Run, q run.Request, p run.Page, t run.Target, messages []json.RawMessage) ([]webhook.Body, error) {
	batch := maxBatch
	if t.Realtime {
		batch = 1
	}
	meta, err := canonicalMeta(q.Meta)
	if err != nil {
		return nil, fmt.Errorf("write the meta of run %s: %w", r.ID, err)
	}
	var bodies []webhook.Body
	var pending [][]byte
	size := 0
	for _, e := range p.Events {
		if !t.Asks(e.Type) && !asksByLife(t, p, e.Type) {
			continue
		}
		event, err := webhook.Marshal(e.Publish(r.ID, messages))
		if err != nil {
			return nil, fmt.Errorf("write event %s of run %s: %w", e.ID, r.ID, err)
		}
		if len(pending) == batch || len(pending) > 0 && size+len(event) > maxBatchBytes {
			bodies = append(bodies, envelope(pending, meta))
			pending, size = nil, 0
		}
		pending = append(pending, event)
		size += len(event) + 1
	}
	if len(pending) > 0 {
		bodies = append(bodies, envelope(pending, meta))
	}
	return bodies, nil
}

// lives are the events of this wire that say where a run stands.
var lives = map[string]string{
	events.RunStarted:   "crew_kickoff_started",
	events.RunWaiting:   "human_feedback_requested",
	events.RunSucceeded: "crew_kickoff_completed",
	events.RunFailed:    "crew_kickoff_failed",
	events.RunCanceled:  "crew_kickoff_failed",
}

func asksByLife(t run.Target, p run.Page, eventType string) bool {
	return t.Kind == run.EndpointTarget && slices.ContainsFunc(p.Lifecycle(), func(name string) bool {
		return lives[name] == eventType && t.Asks(name)
	})
}

func canonicalMeta(meta json.RawMessage) ([]byte, error) {
	if meta == nil {
		return nil, nil
	}
	return webhook.Canonical(meta)
}

// envelope puts events that are canonical JSON already into one body, which is canonical then.
func envelope(events [][]byte, meta []byte) webhook.Body {
	var b bytes.Buffer
	b.WriteString(`{"events":[`)
	b.Write(bytes.Join(events, []byte(",")))
	b.WriteByte(']')
	if meta != nil {
		b.WriteString(`,"meta":`)
		b.Write(meta)
	}
	b.WriteByte('}')
	body := webhook.Body{JSON: b.Bytes()}
	if len(events) > 1 {
		body.Halves = func() (webhook.Body, webhook.Body) {
			middle := len(events) / 2
			return envelope(events[:middle], meta), envelope(events[middle:], meta)
		}
	}
	return body
}
