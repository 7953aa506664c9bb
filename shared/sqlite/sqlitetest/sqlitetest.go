// Package sqlitetest gives tests a store and queues that are quick and real.
package sqlitetest

import (
	"os"
	"path/filepath"
	"testing"

	"muster/shared/sqlite"
)

// Temp opens a fresh file that is closed and removed with the test.
func Temp(t testing.TB) *sqlite.DB {
	t.Helper()
	db, err := sqlite.Open(filepath.Join(Dir(t), "muster.db"))
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

// memory is the folder of Linux that is kept in memory. A flush costs nothing there; on a busy disk it can take longer
// than all the rest of a test.
const memory = "/dev/shm"

// Dir gives a folder for data files that is removed with the test, in memory where the system has such a place.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(memory, "muster-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the folder of the test: %v", err)
		}
	})
	return dir
}
