package sqlite_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/sqlite"
)

// openDisk opens a file that is flushed to a real disk.
func openDisk(b *testing.B) *sqlite.DB {
	b.Helper()
	db, err := sqlite.Open(filepath.Join(b.TempDir(), "muster.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	return db
}

func BenchmarkPutOneByOne(b *testing.B) {
	store := openDisk(b).Records()
	body := make([]byte, 2<<10)
	for i := 0; b.Loop(); i++ {
		if _, err := store.Put(context.Background(), record.Record{Key: record.Key{Part: "p", Sort: fmt.Sprintf("%09d", i)}, Body: body}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPutFromManySides(b *testing.B) {
	store := openDisk(b).Records()
	body := make([]byte, 2<<10)
	var n atomic.Int64
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := store.Put(context.Background(), record.Record{Key: record.Key{Part: "p", Sort: fmt.Sprintf("%09d", n.Add(1))}, Body: body}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkGet(b *testing.B) {
	store := openDisk(b).Records()
	k := record.Key{Part: "p", Sort: "s"}
	if _, err := store.Put(context.Background(), record.Record{Key: k, Body: make([]byte, 2<<10)}); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for b.Loop() {
		if _, err := store.Get(ctx, k); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSendReceiveDelete(b *testing.B) {
	q := openDisk(b).Queue("q", sqlite.QueueOptions{MaxReceives: 3})
	ctx := context.Background()
	for b.Loop() {
		if err := q.Send(ctx, queue.Message{Body: "{}", Group: "g"}); err != nil {
			b.Fatal(err)
		}
		got, err := q.Receive(ctx, 10, time.Second, time.Minute)
		if err != nil || len(got) != 1 {
			b.Fatal(got, err)
		}
		if err := q.Delete(ctx, got[0].Receipt); err != nil {
			b.Fatal(err)
		}
	}
}
