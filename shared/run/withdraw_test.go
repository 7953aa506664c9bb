package run_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/storetest"
)

func TestWithdraw(t *testing.T) {
	t.Run("nobody begins a run that was withdrawn, and its key stands for a new run", func(t *testing.T) {
		s, mem, d := newService(t)
		first, err := s.Start(t.Context(), run.StartRequest{Deployment: d, IdempotencyKey: "k"})
		if err != nil {
			t.Fatal(err)
		}
		puts := len(mem.Puts)
		r, err := s.Withdraw(t.Context(), first.ID, "Nobody began it.")
		if err != nil || !r.Withdrawn || r.State != run.Canceled || r.Error != "Nobody began it." {
			t.Fatalf("got %+v, %v", r, err)
		}
		if len(mem.Puts) != puts+1 {
			t.Errorf("it took %d writes, want one", len(mem.Puts)-puts)
		}
		if _, err := s.Claim(t.Context(), first.ID); !errors.Is(err, run.ErrNothing) {
			t.Errorf("claimed it: %v", err)
		}
		second, err := s.Start(t.Context(), run.StartRequest{Deployment: d, IdempotencyKey: "k"})
		if err != nil || second.ID == first.ID || second.Before {
			t.Errorf("the key gave %+v, %v", second, err)
		}
		again, err := s.Start(t.Context(), run.StartRequest{Deployment: d, IdempotencyKey: "k"})
		if err != nil || again.ID != second.ID || !again.Before {
			t.Errorf("the key gave %+v, %v, want the run before", again, err)
		}
	})
	t.Run("a run that was begun cannot be withdrawn, also when that happens in between", func(t *testing.T) {
		s, mem, d := newService(t)
		r, err := s.Start(t.Context(), run.StartRequest{Deployment: d})
		if err != nil {
			t.Fatal(err)
		}
		s.Store = meddled{mem, func(rec record.Record) {
			if rec.Sort != "RUN" || !bytes.Contains(rec.Body, []byte(`"withdrawn":true`)) {
				return
			}
			s.Store = mem
			if _, err := s.Claim(t.Context(), r.ID); err != nil {
				t.Error(err)
			}
		}}
		got, err := s.Withdraw(t.Context(), r.ID, "Nobody began it.")
		if err != nil || got.Withdrawn || got.StartedAt.IsZero() || got.State != run.Running {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("a run that was withdrawn gives its slot back", func(t *testing.T) {
		s, _, d := newService(t)
		q := run.StartRequest{Deployment: d, Trigger: "t", Traffic: crew.Traffic{MaxConcurrentRuns: 1, WhenFull: crew.Reject}}
		r, err := s.Start(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Start(t.Context(), q); !fault.Is(err, fault.TooMany) {
			t.Errorf("a second run beside it: %v", err)
		}
		if _, err := s.Withdraw(t.Context(), r.ID, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Start(t.Context(), q); err != nil {
			t.Errorf("a second run after it: %v", err)
		}
	})
}

func TestAwaitStart(t *testing.T) {
	t.Run("waits for the first claim", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _, d := newService(t)
			r, err := s.Start(t.Context(), run.StartRequest{Deployment: d})
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(3*time.Second, func() {
				if _, err := s.Claim(t.Context(), r.ID); err != nil {
					t.Error(err)
				}
			})
			began := time.Now()
			got, err := s.AwaitStart(t.Context(), r.ID, began.Add(25*time.Second))
			if err != nil || got.StartedAt.IsZero() {
				t.Errorf("got %+v, %v", got, err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	})
	t.Run("waits no longer than it may, and seldom looks", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, mem, d := newService(t)
			r, err := s.Start(t.Context(), run.StartRequest{Deployment: d})
			if err != nil {
				t.Fatal(err)
			}
			began, reads := time.Now(), mem.Reads
			got, err := s.AwaitStart(t.Context(), r.ID, began.Add(25*time.Second))
			if err != nil || !got.StartedAt.IsZero() || time.Since(began) != 25*time.Second {
				t.Errorf("got %+v, %v after %s", got, err, time.Since(began))
			}
			if mem.Reads-reads > 40 {
				t.Errorf("it read %d times", mem.Reads-reads)
			}
		})
	})
}

// newService is a service on a store in memory, with the clock of the test, and a deployment for it.
func newService(t *testing.T) (*run.Service, *storetest.Memory, crew.Deployment) {
	t.Helper()
	mem := &storetest.Memory{}
	d := crew.Deployment{ID: "01a20000-0000-7000-8000-000000000001", WorkspaceID: "w", Environments: map[string]crew.Pointer{"production": {VersionID: "v1", Number: 1}}}
	return &run.Service{Store: mem, Runs: none{}, Deliveries: none{}}, mem, d
}

// meddled is a store where somebody does something before each get and put.
type meddled struct {
	record.Store
	before func(record.Record)
}

func (m meddled) Get(ctx context.Context, k record.Key) (record.Record, error) {
	m.before(record.Record{Key: k})
	return m.Store.Get(ctx, k)
}

func (m meddled) Put(ctx context.Context, r record.Record) (int64, error) {
	m.before(r)
	return m.Store.Put(ctx, r)
}
