package run_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"pgregory.net/rapid"

	"muster/shared/dynamo"
	"muster/shared/emulator"
	"muster/shared/record"
)

// TestNoInterleavingBreaksTheJournal plays owners, zombies, take-overs, a stop, an answer and the sweeper against each
// other, with writes that fail before and after they persist and processes that die at any call.
func TestNoInterleavingBreaksTheJournal(t *testing.T) {
	e := newElsewhere(t)
	interleavings(t, func() record.Store { return e.memory() }, e)
}

// TestNoInterleavingBreaksTheJournalOnDynamoDB plays the same on the other backend.
func TestNoInterleavingBreaksTheJournalOnDynamoDB(t *testing.T) {
	if os.Getenv("MUSTER_EMULATORS") == "" {
		t.Skip("make emulators plays this on DynamoDB")
	}
	client := dynamodb.NewFromConfig(emulator.Config(emulator.DynamoDB(t)))
	if _, err := client.CreateTable(t.Context(), dynamo.Table("journal")); err != nil {
		t.Fatal(err)
	}
	e := newElsewhere(t)
	store := dynamo.New(client, "journal")
	store.Now = func() time.Time { return time.Unix(0, e.now.Load()) }
	interleavings(t, func() record.Store { return store }, e)
}

// interleavings plays schedules as rapid draws them. -rapid.checks plays more, -rapid.failfile a failure again.
func interleavings(t *testing.T, store func() record.Store, e *elsewhere) {
	var zombies int
	rapid.Check(t, func(rt *rapid.T) {
		w := play(t, store(), e, schedules.Draw(rt, "schedule"))
		zombies += w.zombies
		if len(w.problems) > 0 {
			rt.Fatalf("%s\nwhat happened:\n%s", strings.Join(w.problems, "\n"), strings.Join(w.log, "\n"))
		}
	})
	t.Logf("%d completed calls were repeated by zombies (allowed), 0 by owners", zombies)
}
