package e2e_test

import (
	"testing"
	"time"

	"muster/events"
)

// behaviour is something that Muster does in every home.
type behaviour struct {
	name string
	do   func(t *testing.T, h *home)
}

// calm are the behaviours that need a good day: a client there sees no 5xx, and knows how often something happens.
var calm = concat(whatItTells, models, badInput, deploymentWire, receivers)

// always are those that hold on a bad day too.
var always = concat(whatItTells, models, receivers)

func concat(all ...[]behaviour) (joined []behaviour) {
	for _, some := range all {
		joined = append(joined, some...)
	}
	return joined
}

func TestEmbeddedHome(t *testing.T) {
	t.Parallel()
	suite(t, onSQLite, calm)
	more(t, onSQLite)
}

func TestEmbeddedHomeOnABadDay(t *testing.T) {
	t.Parallel()
	suite(t, behind(onSQLite, 1), always)
}

func TestAWSHome(t *testing.T) {
	t.Parallel()
	suite(t, onAWS, calm)
	more(t, onAWS)
}

func TestAWSHomeOnABadDay(t *testing.T) {
	t.Parallel()
	suite(t, behind(onAWS, 2), always)
}

// suite holds one home to behaviours, all at the same time. Together they show every event that Muster emits.
func suite(t *testing.T, open opener, all []behaviour) {
	h := newHome(t, open, settings{every: 200 * time.Millisecond})
	whole := t.Run("it", func(t *testing.T) {
		for _, b := range all {
			t.Run(b.name, func(t *testing.T) {
				t.Parallel()
				b.do(t, h)
			})
		}
	})
	if !whole {
		return // or run in part
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	missing, unexpected := events.CheckEmitted(h.seen)
	if len(missing) > 0 || len(unexpected) > 0 {
		t.Errorf("the catalogue marks these as emitted, and nobody was told of them: %v\nit does not, and somebody was: %v", missing, unexpected)
	}
}
