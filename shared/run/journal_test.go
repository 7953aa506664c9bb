package run_test

import (
	"fmt"
	"testing"
	"time"

	"muster/shared/sqlite/sqlitetest"
)

// TestNoInterleavingBreaksTheJournal plays owners, zombies, take-overs, a stop, an answer and the sweeper against each
// other, with writes that fail before and after they persist and processes that die at any call.
func TestNoInterleavingBreaksTheJournal(t *testing.T) {
	db := sqlitetest.Temp(t)
	e := newElsewhere(t)
	db.Now = func() time.Time { return time.Unix(0, e.now.Load()) }
	seeds := 300
	if testing.Short() {
		seeds = 30
	}
	var faults, zombies int
	for seed := range seeds {
		f, z := 0, 0
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) { f, z = play(t, db.Records(), e, uint64(seed)) })
		faults, zombies = faults+f, zombies+z
		if !ok {
			return
		}
	}
	t.Logf("%d seeds, %d faults, %d completed calls repeated by zombies (allowed), 0 by owners", seeds, faults, zombies)
}
