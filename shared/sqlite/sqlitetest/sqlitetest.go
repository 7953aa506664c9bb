// Package sqlitetest gives tests a store and queues that are quick and real.
package sqlitetest

import (
	"path/filepath"
	"testing"

	"muster/shared/sqlite"
)

// Temp opens a fresh file that is closed and removed with the test.
func Temp(t testing.TB) *sqlite.DB {
	t.Helper()
	db, err := sqlite.Open(filepath.Join(t.TempDir(), "muster.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the data file: %v", err)
		}
	})
	return db
}
