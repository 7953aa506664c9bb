package events

import (
	"strings"
	"testing"
)

func TestCheckFilter(t *testing.T) {
	for _, c := range []struct {
		name, typ string
		custom    bool
		err       string // a part of the sentence
	}{
		{name: "everything", typ: "*"},
		{name: "where a run stands", typ: "run.succeeded"},
		{name: "a type of the catalogue", typ: "task_completed"},
		{name: "a type that is only reserved", typ: "checkpoint_started"},
		{name: "a type of the user's own", typ: "order.shipped", custom: true},
		{name: "a slip", typ: "run.succeded", err: "did you mean run.succeeded?"},
		{name: "another spelling", typ: "RUN_FAILED", err: "did you mean run.failed?"},
		{name: "a dot for a line", typ: "task.completed", err: "did you mean task_completed"},
		{name: "a name that the system keeps for itself", typ: "run.deleted_by_somebody", err: "GET /v1/events/types"},
		{name: "nothing", typ: "", err: `there is no event type ""`},
		{name: "no name at all", typ: "Run finished!", err: "GET /v1/events/types"},
		{name: "a very long name", typ: strings.Repeat("x", 5000), err: "there is no event type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			custom, err := CheckFilter(c.typ)
			switch {
			case c.err == "" && (err != nil || custom != c.custom):
				t.Errorf("custom %v, %v", custom, err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || len(err.Error()) > 400):
				t.Errorf("%v, want %q", err, c.err)
			}
		})
	}
}

func TestNoNameOfTheLifecycleCanBeACustomEvent(t *testing.T) {
	for _, n := range Lifecycle() {
		if _, err := NewCustom(n.Type, nil, Identity{}); err == nil {
			t.Errorf("no reserved prefix covers %s", n.Type)
		}
	}
}
