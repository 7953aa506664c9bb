package deploywire

import (
	"encoding/json"
	"net/http"
	"strings"

	"muster/shared/fault"
	"muster/shared/httpapi"
	"muster/shared/queue"
	"muster/shared/workspace"
)

const (
	// maxDead is how many messages of a dead-letter queue are shown.
	maxDead = 100
	// maxDeadBody is how much of a message that is not JSON is shown, in bytes.
	maxDeadBody = 4 << 10
	// redriveRate is how many messages are moved back in a second unless the caller says so: slow enough for live traffic to
	// stay ahead of them.
	redriveRate = 50
)

// NamedQueue is a queue whose dead letters can be looked at and moved back.
type NamedQueue struct {
	Name string
	queue.Queue
}

type deadReply struct {
	Queues []deadQueue `json:"queues"`
}

type deadQueue struct {
	Queue    string        `json:"queue"`
	Messages []deadMessage `json:"messages"`
	// Truncated says that there may be more than are shown.
	Truncated bool `json:"truncated"`
}

type deadMessage struct {
	ID     string  `json:"id"`
	Reason string  `json:"reason"`
	Group  *string `json:"group"`
	// Message is the message itself where it is JSON, and its text where it is not.
	Message any `json:"message"`
}

// listDead shows what our own code could not process.
func (w *Wire) listDead(rw http.ResponseWriter, r *http.Request, _ workspace.Caller) error {
	queues, err := w.queuesOf(r)
	if err != nil {
		return err
	}
	reply := deadReply{}
	for _, q := range queues {
		dead, err := q.Buried(r.Context(), maxDead)
		if err != nil {
			return err
		}
		shown := deadQueue{Queue: q.Name, Messages: []deadMessage{}, Truncated: len(dead) == maxDead}
		for _, d := range dead {
			shown.Messages = append(shown.Messages, deadMessage{ID: d.ID, Reason: d.Reason, Group: text(d.Group), Message: bodyOf(d.Body)})
		}
		reply.Queues = append(reply.Queues, shown)
	}
	return httpapi.WriteJSON(rw, http.StatusOK, reply)
}

func bodyOf(body string) any {
	if len(body) <= maxDeadBody && json.Valid([]byte(body)) {
		return json.RawMessage(body)
	}
	return strings.ToValidUTF8(body[:min(len(body), maxDeadBody)], "")
}

type redriveReply struct {
	Queues []redriven `json:"queues"`
}

type redriven struct {
	Queue string `json:"queue"`
	// Status is "moving" while messages are on their way, and "done".
	Status string `json:"status"`
	// Moved of Messages are back; on AWS both are rough.
	Moved    int `json:"moved"`
	Messages int `json:"messages"`
}

// redriveDead moves what our own code could not process back to where it came from. Asked again, it tells how far it is.
func (w *Wire) redriveDead(rw http.ResponseWriter, r *http.Request, _ workspace.Caller) error {
	queues, err := w.queuesOf(r)
	if err != nil {
		return err
	}
	body, err := httpapi.ReadBody(r, httpapi.MaxBody)
	if err != nil {
		return err
	}
	rate := redriveRate
	if len(strings.TrimSpace(string(body))) > 0 {
		o, err := httpapi.ParseObject(body)
		if err != nil {
			return err
		}
		if o.Has("max_per_second") {
			if rate, err = o.Int("max_per_second"); err != nil {
				return err
			}
		}
		httpapi.Warn(rw, o.Unknown("max_per_second"))
	}
	if rate < 1 || rate > queue.MaxRate {
		return fault.New(fault.Invalid, `"max_per_second" must be a whole number from 1 to %d.`, queue.MaxRate)
	}
	reply := redriveReply{}
	for _, q := range queues {
		move, err := q.Redrive(r.Context(), rate)
		if err != nil {
			return err
		}
		status := "done"
		if move.UnderWay {
			status = "moving"
		}
		reply.Queues = append(reply.Queues, redriven{q.Name, status, move.Moved, move.All})
	}
	return httpapi.WriteJSON(rw, http.StatusAccepted, reply)
}

// queuesOf gives the queue that the query names, all of them when it names none.
func (w *Wire) queuesOf(r *http.Request) ([]NamedQueue, error) {
	asked := r.URL.Query().Get("queue")
	if asked == "" {
		return w.Queues, nil
	}
	var names []string
	for _, q := range w.Queues {
		if q.Name == asked {
			return []NamedQueue{q}, nil
		}
		names = append(names, q.Name)
	}
	return nil, fault.New(fault.Invalid, `"queue" must be one of %s.`, strings.Join(names, ", "))
}
