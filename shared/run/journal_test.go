package run_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"muster/shared/dynamo"
	"muster/shared/emulator"
	"muster/shared/record"
	"muster/shared/sqlite/sqlitetest"
)

// TestNoInterleavingBreaksTheJournal plays owners, zombies, take-overs, a stop, an answer and the sweeper against each
// other, with writes that fail before and after they persist and processes that die at any call.
func TestNoInterleavingBreaksTheJournal(t *testing.T) {
	db := sqlitetest.Temp(t)
	e := newElsewhere(t)
	db.Now = func() time.Time { return time.Unix(0, e.now.Load()) }
	playAll(t, db.Records(), e, 100)
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
	playAll(t, store, e, 40)
}

func playAll(t *testing.T, store record.Store, e *elsewhere, seeds int) {
	var faults, zombies int
	for seed := range seeds {
		f, z := 0, 0
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) { f, z = play(t, store, e, uint64(seed)) })
		faults, zombies = faults+f, zombies+z
		if !ok {
			return
		}
	}
	t.Logf("%d seeds, %d faults, %d completed calls repeated by zombies (allowed), 0 by owners", seeds, faults, zombies)
}
