package sqlite_test

import (
	"testing"
	"time"

	"muster/shared/record"
	"muster/shared/sqlite/sqlitetest"
	"muster/shared/storetest"
)

func TestRecordsKeepThePromises(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) record.Store {
		db := sqlitetest.Temp(t)
		db.Now = now
		return db.Records()
	})
}
