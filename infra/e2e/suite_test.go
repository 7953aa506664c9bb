package e2e_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/events"
)

// TestMain lets more tests run at a time than there are processors: they wait more than they work.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	code := m.Run()
	whole := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
	if line, missing := theContract().summary(); code == 0 && (whole || testing.Verbose()) {
		fmt.Println(line)
		if len(missing) > 0 {
			fmt.Println("never seen:", strings.Join(missing, ", "))
		}
		if whole && len(missing) > 0 {
			code = 1
		}
	}
	os.Exit(code)
}

// behaviour is something that Muster does in every home.
type behaviour struct {
	name string
	do   func(t *testing.T, h *home)
}

// calm are the behaviours that need a good day: a client there sees no 5xx, and knows how often something happens.
var calm = concat(whatItTells, models, people, limits, turns, badInput, deploymentWire, schedules, threads, receivers, endpoints, endpointsAnyDay, watching, triggers, triggersAnyDay, agents, agentsAnyDay, served)

// always are those that hold on a bad day too.
var always = concat(whatItTells, models, people, limits, schedules, threads, receivers, endpointsAnyDay, watchingAnyDay, triggersAnyDay, agentsAnyDay)

func concat(all ...[]behaviour) (joined []behaviour) {
	for _, some := range all {
		joined = append(joined, some...)
	}
	return joined
}

func TestEmbeddedHome(t *testing.T) {
	t.Parallel()
	suite(t, onSQLite, calm, settings{})
	more(t, onSQLite)
}

func TestEmbeddedHomeOnABadDay(t *testing.T) {
	t.Parallel()
	suite(t, behind(onSQLite, 1), always, settings{lease: shortLease})
}

func TestAWSHome(t *testing.T) {
	t.Parallel()
	suite(t, onAWS, calm, settings{})
	more(t, onAWS)
}

func TestAWSHomeOnABadDay(t *testing.T) {
	t.Parallel()
	suite(t, behind(onAWS, 2), always, settings{lease: shortLease})
}

// shortLease is for homes where owners are lost all the time.
const shortLease = 5 * time.Second

// suite holds one home to behaviours, all at the same time. Together they show every event that Muster emits.
func suite(t *testing.T, open opener, all []behaviour, s settings) {
	s.every = 500 * time.Millisecond
	h := newHome(t, open, s)
	var held atomic.Int64
	t.Run("it", func(t *testing.T) {
		for _, b := range all {
			t.Run(b.name, func(t *testing.T) {
				t.Parallel()
				b.do(t, h)
				held.Add(1)
			})
		}
	})
	if held.Load() < int64(len(all)) {
		return // one failed, or was not asked for
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	missing, unexpected := events.CheckEmitted(h.seen)
	if len(missing) > 0 || len(unexpected) > 0 {
		t.Errorf("the catalogue marks these as emitted, and nobody was told of them: %v\nit does not, and somebody was: %v", missing, unexpected)
	}
}
