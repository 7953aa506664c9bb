package sqlite_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/sqlite"
	"muster/shared/sqlite/sqlitetest"
)

func BenchmarkPutOneByOne(b *testing.B) {
	store := sqlitetest.Temp(b).Records()
	body := make([]byte, 2<<10)
	for i := 0; b.Loop(); i++ {
		if _, err := store.Put(context.Background(), record.Record{Key: record.Key{Part: "p", Sort: fmt.Sprintf("%09d", i)}, Body: body}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPutFromManySides(b *testing.B) {
	store := sqlitetest.Temp(b).Records()
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
	store := sqlitetest.Temp(b).Records()
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
	q := sqlitetest.Temp(b).Queue("q", sqlite.QueueOptions{MaxReceives: 3})
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
