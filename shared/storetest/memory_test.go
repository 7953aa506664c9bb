package storetest_test

import (
	"testing"
	"time"

	"muster/shared/record"
	"muster/shared/storetest"
)

func TestMemoryKeepsThePromises(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) record.Store { return &storetest.Memory{Now: now} })
}
