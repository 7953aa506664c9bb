package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster/shared/fault"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/sqlite"
	"muster/shared/sqlite/sqlitetest"
)

func open(t *testing.T, path string) *sqlite.DB {
	t.Helper()
	db, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestWhatWasWrittenIsThereAfterReopening(t *testing.T) {
	path := filepath.Join(sqlitetest.Dir(t), "deep", "er", "a file?#%.db")
	db := open(t, path)
	r := record.Record{Key: record.Key{Part: "p", Sort: "s"}, Body: []byte("body")}
	if _, err := db.Records().Put(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := db.Queue("q", sqlite.QueueOptions{}).Send(t.Context(), queue.Message{Body: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has the mode %v (%v), want 0600", info.Mode(), err)
	}

	db = open(t, path)
	if got, err := db.Records().Get(t.Context(), r.Key); err != nil || string(got.Body) != "body" {
		t.Errorf("got %+v and %v", got, err)
	}
	if got, err := db.Queue("q", sqlite.QueueOptions{}).Receive(t.Context(), 1, 0, time.Minute); err != nil || len(got) != 1 {
		t.Errorf("received %+v and %v", got, err)
	}
}

// TestMain lets the test binary be the other process of the lock tests.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "hold" {
		db, err := sqlite.Open(os.Args[2])
		if err != nil {
			fmt.Println(fault.Message(err))
			os.Exit(1)
		}
		k := record.Key{Part: "p", Sort: "s"}
		if _, err := db.Records().Put(context.Background(), record.Record{Key: k, Body: []byte("from the other process")}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("holding")
		select {}
	}
	os.Exit(m.Run())
}

// hold starts another process that opens the file, and gives the first line it says.
func hold(t *testing.T, path string) (*exec.Cmd, string) {
	t.Helper()
	other := exec.Command(os.Args[0], "hold", path)
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Process.Kill(); other.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return other, strings.TrimSpace(line)
}

func TestASecondProcessIsToldThatTheFileIsInUse(t *testing.T) {
	path := filepath.Join(sqlitetest.Dir(t), "muster.db")
	open(t, path)
	_, said := hold(t, path)
	if want := "Another Muster is using " + filepath.Dir(path); !strings.HasPrefix(said, want) {
		t.Errorf("it said %q, want %q", said, want)
	}
	if _, err := sqlite.Open(path); !fault.Is(err, fault.Conflict) {
		t.Errorf("the same process opening it twice got %v, want fault.Conflict", err)
	}
}

func TestTheLockGoesWithAKilledProcessAndItsWritesStay(t *testing.T) {
	path := filepath.Join(sqlitetest.Dir(t), "muster.db")
	other, said := hold(t, path)
	if said != "holding" {
		t.Fatal(said)
	}
	if _, err := sqlite.Open(path); !fault.Is(err, fault.Conflict) {
		t.Fatalf("opening a file in use got %v, want fault.Conflict", err)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, path).Records().Get(t.Context(), record.Key{Part: "p", Sort: "s"})
	if err != nil || string(got.Body) != "from the other process" {
		t.Errorf("got %+v and %v", got, err)
	}
}

func TestAfterCloseEverythingFails(t *testing.T) {
	db := sqlitetest.Temp(t)
	q := db.Queue("q", sqlite.QueueOptions{})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	_, put := db.Records().Put(t.Context(), record.Record{Key: record.Key{Part: "p", Sort: "s"}})
	_, get := db.Records().Get(t.Context(), record.Key{Part: "p", Sort: "s"})
	_, receive := q.Receive(t.Context(), 1, time.Second, time.Minute)
	for call, err := range map[string]error{"Put": put, "Get": get, "Send": q.Send(t.Context(), queue.Message{Body: "x"}), "Receive": receive, "Wake": db.Wake(t.Context())} {
		if fault.KindOf(err) != fault.Internal {
			t.Errorf("%s: got %v, want an error that is no fault", call, err)
		}
	}
}

func TestCloseWaitsForWritesThatHaveBegun(t *testing.T) {
	path := filepath.Join(sqlitetest.Dir(t), "muster.db")
	db := open(t, path)
	var (
		all     sync.WaitGroup
		mu      sync.Mutex
		written []record.Key
	)
	for i := range 50 {
		all.Go(func() {
			k := record.Key{Part: "p", Sort: fmt.Sprint(i)}
			if _, err := db.Records().Put(context.Background(), record.Record{Key: k}); err == nil {
				mu.Lock()
				written = append(written, k)
				mu.Unlock()
			}
		})
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	db = open(t, path)
	for _, k := range written {
		if _, err := db.Records().Get(t.Context(), k); err != nil {
			t.Errorf("%v was told to be written: %v", k, err)
		}
	}
}

func TestWakeShowsEveryMessageAndWakesWhoWaits(t *testing.T) {
	db := sqlitetest.Temp(t)
	a, b := db.Queue("a", sqlite.QueueOptions{}), db.Queue("b", sqlite.QueueOptions{})
	err := errors.Join(a.Send(t.Context(), queue.Message{Body: "held"}), b.Send(t.Context(), queue.Message{Body: "delayed", Delay: time.Minute}))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.Receive(t.Context(), 1, 0, time.Hour); err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	came := make(chan string, 2)
	var all sync.WaitGroup
	for _, q := range []*sqlite.Queue{a, b} {
		all.Go(func() {
			got, err := q.Receive(t.Context(), 1, 10*time.Second, time.Hour)
			if err != nil || len(got) != 1 {
				t.Errorf("received %v and %v", got, err)
				return
			}
			came <- got[0].Body
		})
	}
	if err := db.Wake(t.Context()); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	close(came)
	got := map[string]bool{}
	for body := range came {
		got[body] = true
	}
	if !got["held"] || !got["delayed"] {
		t.Errorf("received %v", got)
	}
}

func TestQueuesOfOneFileAreApart(t *testing.T) {
	db := sqlitetest.Temp(t)
	a, b := db.Queue("a", sqlite.QueueOptions{}), db.Queue("b", sqlite.QueueOptions{})
	if err := a.Send(t.Context(), queue.Message{Body: "x"}); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Receive(t.Context(), 1, 0, time.Minute); err != nil || len(got) != 0 {
		t.Errorf("b received %v and %v", got, err)
	}
	got, err := db.Queue("a", sqlite.QueueOptions{}).Receive(t.Context(), 1, 0, time.Minute)
	if err != nil || len(got) != 1 {
		t.Fatalf("a received %v and %v", got, err)
	}
	if err := b.Delete(t.Context(), got[0].Receipt); err != nil {
		t.Fatal(err)
	}
	if err := a.Hide(t.Context(), got[0].Receipt, time.Minute); err != nil {
		t.Errorf("deleting from b reached into a: %v", err)
	}
}

func TestAReceiverSleepsUntilTheNextHiddenMessageShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := sqlitetest.Temp(t).Queue("q", sqlite.QueueOptions{})
		if err := q.Send(t.Context(), queue.Message{Body: "x", Delay: 7 * time.Minute}); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		got, err := q.Receive(t.Context(), 1, time.Hour, time.Minute)
		if err != nil || len(got) != 1 {
			t.Fatalf("received %v and %v", got, err)
		}
		if waited := time.Since(begun); waited != 7*time.Minute {
			t.Errorf("it woke after %s, want 7m", waited)
		}
	})
}

func TestExpiredRecordsLeaveTheFile(t *testing.T) {
	db := sqlitetest.Temp(t)
	now := time.Now()
	db.Now = func() time.Time { return now }
	k := record.Key{Part: "p", Sort: "s"}
	put := func(sort string, expires time.Time) {
		t.Helper()
		if _, err := db.Records().Put(t.Context(), record.Record{Key: record.Key{Part: "p", Sort: sort}, Expires: expires}); err != nil {
			t.Fatal(err)
		}
	}
	put("s", now.Add(time.Second))
	now = now.Add(time.Hour)
	put("other", time.Time{})
	now = now.Add(-time.Hour) // the clock goes back, and would show the record if it were still there
	if _, err := db.Records().Get(t.Context(), k); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v, want fault.NotFound", err)
	}
}

func FuzzAForeignReceiptNamesNothing(f *testing.F) {
	db := sqlitetest.Temp(f)
	q := db.Queue("q", sqlite.QueueOptions{})
	if err := q.Send(f.Context(), queue.Message{Body: "x"}); err != nil {
		f.Fatal(err)
	}
	got, err := q.Receive(f.Context(), 1, 0, time.Hour)
	if err != nil || len(got) != 1 {
		f.Fatal(got, err)
	}
	for _, s := range []string{"", "/", "1", "1/", "/1", "1/0", "1/2", "-1/-1", "1/1/1", "99999999999999999999/1", "a/b", "0/0", "01/1", "+1/1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, receipt string) {
		if receipt == got[0].Receipt {
			return
		}
		if err := q.Delete(t.Context(), receipt); err != nil {
			t.Fatal(err)
		}
		if err := q.Hide(t.Context(), got[0].Receipt, time.Hour); err != nil {
			t.Fatalf("the receipt %q deleted the message: %v", receipt, err)
		}
	})
}
