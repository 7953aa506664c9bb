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

// BenchmarkReceiveBesideABacklog is what BenchmarkSendReceiveDelete costs beside another group's hundred thousand messages,
// and beside as many that it has hidden.
func BenchmarkReceiveBesideABacklog(b *testing.B) {
	for name, delay := range map[string]time.Duration{"Waiting": 0, "Hidden": queue.MaxDelay} {
		b.Run(name, func(b *testing.B) {
			q := openDisk(b).Queue("q", sqlite.QueueOptions{})
			ctx := context.Background()
			backlog := make([]queue.Message, 100_000)
			for i := range backlog {
				backlog[i] = queue.Message{Body: "{}", Group: "dead", Delay: delay}
			}
			if err := q.Send(ctx, backlog...); err != nil {
				b.Fatal(err)
			}
			for range 4 { // the dead group holds many
				q.Receive(ctx, queue.MaxReceive, 0, time.Hour)
			}
			for b.Loop() {
				if err := q.Send(ctx, queue.Message{Body: "{}", Group: "quiet"}); err != nil {
					b.Fatal(err)
				}
				got, err := q.Receive(ctx, 1, time.Second, time.Minute)
				if err != nil || len(got) != 1 || got[0].Group != "quiet" {
					b.Fatal(got, err)
				}
				if err := q.Delete(ctx, got[0].Receipt); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
