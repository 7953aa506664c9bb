package queuetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"muster/shared/fault"
	"muster/shared/queue"
)

var cases = []struct {
	name string
	run  func(b *bench)
}{
	{"a message comes as it was sent, with an id, a receipt and a count", func(b *bench) {
		sent := queue.Message{Body: "{\"run\":\"\u00e9 \U0001f600\"}\n\t<&>", Group: "run/1/target-2"}
		b.send(sent)
		got := b.one(long)
		if got.ID == "" || got.Receipt == "" {
			b.Errorf("got %+v", got)
		}
		b.same(got.Message, sent)
		b.same(got.Receives, 1)
	}},
	{"nothing in time is an empty answer", func(b *bench) {
		b.nothing()
		begun, wait := time.Now(), time.Second
		if b.backend.Advance != nil {
			wait = 50 * time.Millisecond
		}
		got, err := b.queue.Receive(b.Context(), 1, wait, long)
		if len(got) != 0 || err != nil {
			b.Fatalf("received %v and %v", got, err)
		}
		if waited := time.Since(begun); waited < wait*9/10 {
			b.Errorf("waited for %s, want %s", waited, wait)
		}
	}},
	{"a waiting receiver gets what is sent meanwhile", func(b *bench) {
		begun := time.Now()
		got := b.waiter()
		b.send(queue.Message{Body: "x"})
		b.same((<-got).Body, "x")
		if waited := time.Since(begun); b.backend.Advance != nil && waited > 500*time.Millisecond {
			b.Errorf("it took %s, want at once", waited)
		}
	}},
	{"all of a batch larger than ten arrive, each once", func(b *bench) {
		b.send(messages(25)...)
		var want []string
		for i := range 25 {
			want = append(want, fmt.Sprint(i))
		}
		slices.Sort(want)
		b.same(bodies(b.receive(25, long)), want)
		b.nothing()
	}},
	{"sending nothing is nothing", func(b *bench) {
		b.send()
		b.nothing()
	}},
	{"a body of 256 KB arrives, and so do five of a batch", func(b *bench) {
		var sent []queue.Message
		for i := range 5 {
			sent = append(sent, queue.Message{Body: strings.Repeat(fmt.Sprint(i), 256<<10)})
		}
		b.send(sent...)
		got := bodies(b.receive(5, long))
		for i := range got {
			if got[i] != sent[i].Body {
				b.Errorf("message %d came back with %d bytes, want %d", i, len(got[i]), len(sent[i].Body))
			}
		}
	}},
	{"a body of MaxBody bytes arrives", func(b *bench) {
		m := queue.Message{Body: strings.Repeat("x", queue.MaxBody)}
		b.send(m)
		if got := b.one(long); got.Body != m.Body {
			b.Errorf("it came back with %d bytes", len(got.Body))
		}
	}},
	{"what Check refuses is refused before anything is sent", func(b *bench) {
		for name, m := range map[string]queue.Message{
			"no body":             {},
			"a control character": {Body: "a\x00b"},
			"no text":             {Body: "\xff"},
			"a delay too long":    {Body: "x", Delay: queue.MaxDelay + time.Second},
			"a negative delay":    {Body: "x", Delay: -1},
			"a group too long":    {Body: "x", Group: strings.Repeat("g", queue.MaxGroup+1)},
			"a group with spaces": {Body: "x", Group: "a b"},
		} {
			if err := b.queue.Send(b.Context(), queue.Message{Body: "good"}, m); fault.KindOf(err) != fault.Internal {
				b.Errorf("%s: got %v, want an error that is no fault", name, err)
			}
		}
		if err := b.queue.Send(b.Context(), queue.Message{Body: strings.Repeat("x", queue.MaxBody+1)}); !fault.Is(err, fault.TooLarge) {
			b.Errorf("a body too long: got %v, want fault.TooLarge", err)
		}
		b.nothing()
	}},
	{"what cannot be asked for is refused", func(b *bench) {
		for name, call := range map[string]func() error{
			"to receive none":         func() error { _, err := b.queue.Receive(b.Context(), 0, 0, long); return err },
			"to receive eleven":       func() error { _, err := b.queue.Receive(b.Context(), 11, 0, long); return err },
			"to hide for no time":     func() error { _, err := b.queue.Receive(b.Context(), 1, 0, 0); return err },
			"to hide for a day":       func() error { _, err := b.queue.Receive(b.Context(), 1, 0, 24*time.Hour); return err },
			"to hide on for a day":    func() error { return b.queue.Hide(b.Context(), "x", 24*time.Hour) },
			"to hide on until before": func() error { return b.queue.Hide(b.Context(), "x", -time.Second) },
		} {
			if err := call(); fault.KindOf(err) != fault.Internal {
				b.Errorf("%s: got %v, want an error that is no fault", name, err)
			}
		}
	}},
	{"the longest delay, hiding and group are taken", func(b *bench) {
		b.send(queue.Message{Body: "late", Delay: queue.MaxDelay}, queue.Message{Body: "now", Group: strings.Repeat("~", queue.MaxGroup)})
		m := b.one(queue.MaxHide)
		b.same(m.Body, "now")
		b.nothing()
	}},

	{"a received message is hidden, and comes again when it was not deleted", func(b *bench) {
		b.send(queue.Message{Body: "x"})
		first := b.one(short)
		b.nothing()
		b.pass()
		second := b.one(long)
		b.same(second.ID, first.ID)
		b.same(second.Receives, 2)
		if second.Receipt == first.Receipt {
			b.Errorf("two receivings have one receipt")
		}
		b.nothing()
	}},
	{"a deleted message does not come again", func(b *bench) {
		b.send(queue.Message{Body: "x"}, queue.Message{Body: "y"})
		got := b.receive(2, short)
		b.delete(got[0])
		b.pass()
		again := b.one(long)
		b.same(again.ID, got[1].ID)
		b.delete(again)
		b.nothing()
	}},
	{"Delete may be repeated, and knows nothing of foreign receipts", func(b *bench) {
		b.send(queue.Message{Body: "x"})
		m := b.one(long)
		b.delete(m)
		b.delete(m)
	}},
	{"a receipt stops to hold with the next receiving", func(b *bench) {
		b.send(queue.Message{Body: "x"})
		first := b.one(short)
		b.pass()
		second := b.one(long)
		if err := b.queue.Hide(b.Context(), first.Receipt, 0); err == nil {
			// SQS itself lets an old receipt hide; what counts is that the message stays with its holder.
			if b.backend.Advance != nil {
				b.Errorf("the old receipt could hide")
			}
		} else if !fault.Is(err, fault.NotFound) {
			b.Errorf("hide with an old receipt: got %v, want fault.NotFound", err)
		}
		b.hide(second, long)
		b.delete(second)
	}},
	{"Hide of a deleted message is NotFound", func(b *bench) {
		b.send(queue.Message{Body: "x"})
		m := b.one(long)
		b.delete(m)
		if err := b.queue.Hide(b.Context(), m.Receipt, short); !fault.Is(err, fault.NotFound) {
			b.Errorf("got %v, want fault.NotFound", err)
		}
	}},
	{"Hide of what is no receipt is NotFound", func(b *bench) {
		if err := b.queue.Hide(b.Context(), "nothing of ours", short); !fault.Is(err, fault.NotFound) {
			b.Errorf("got %v, want fault.NotFound", err)
		}
	}},
	{"Hide for no time shows the message at once", func(b *bench) {
		b.send(queue.Message{Body: "x"})
		m := b.one(long)
		got := b.waiter()
		b.hide(m, 0)
		again := <-got
		b.same(again.ID, m.ID)
		b.same(again.Receives, 2)
	}},
	{"Hide makes the time longer, counted from now", func(b *bench) {
		b.send(queue.Message{Body: "x"})
		m := b.one(2 * short)
		b.hide(m, long)
		b.quiet(3 * short)
		b.hide(m, short)
		b.pass()
		b.same(b.one(long).Receives, 2)
	}},
	{"a delayed message shows when its delay is over", func(b *bench) {
		begun := time.Now()
		b.send(queue.Message{Body: "later", Delay: short}, queue.Message{Body: "now"})
		b.same(b.one(long).Body, "now")
		b.nothing()
		b.pass()
		b.same(b.one(long).Body, "later")
		if took := time.Since(begun); b.backend.Advance == nil && took < 900*time.Millisecond {
			b.Errorf("it came after %s", took)
		}
	}},
	{"a delay of a part of a second is at most rounded up", func(b *bench) {
		b.send(queue.Message{Body: "x", Delay: time.Millisecond})
		b.nothing()
		b.pass()
		b.one(long)
	}},

	{"a message received too often goes to the dead-letter queue by itself", func(b *bench) {
		b.queue = b.backend.Open(b.T, 2)
		b.send(queue.Message{Body: "poison", Group: "g"}, queue.Message{Body: "good"})
		for n := 1; n <= 2; n++ {
			for _, m := range b.receive(3-n, long) {
				b.same(m.Receives, n)
				if m.Body == "good" {
					b.delete(m)
				} else {
					b.hide(m, 0)
				}
			}
		}
		b.nothing()
		b.buried(queue.Dead{Message: queue.Message{Body: "poison", Group: "g"}, Reason: queue.TooOften})
		b.nothing()
	}},
	{"Bury moves a message to the dead-letter queue with the reason", func(b *bench) {
		b.send(queue.Message{Body: "not json", Group: "g"}, queue.Message{Body: "other"})
		for _, m := range b.receive(2, long) {
			if err := b.queue.Bury(b.Context(), m, "cannot be read: "+m.Body); err != nil {
				b.Fatal(err)
			}
			if err := b.queue.Hide(b.Context(), m.Receipt, 0); !fault.Is(err, fault.NotFound) {
				b.Errorf("hide what is buried: got %v, want fault.NotFound", err)
			}
		}
		b.nothing()
		want := []queue.Dead{
			{Message: queue.Message{Body: "not json", Group: "g"}, Reason: "cannot be read: not json"},
			{Message: queue.Message{Body: "other"}, Reason: "cannot be read: other"},
		}
		b.buried(want...)
		b.buried(want...) // Buried removes nothing
	}},
	{"Buried gives at most max", func(b *bench) {
		b.send(messages(12)...)
		for _, m := range b.receive(12, long) {
			if err := b.queue.Bury(b.Context(), m, "no"); err != nil {
				b.Fatal(err)
			}
		}
		got, err := b.queue.Buried(b.Context(), 11)
		if err != nil || len(got) != 11 {
			b.Errorf("got %d and %v, want 11", len(got), err)
		}
	}},
	{"Buried of a queue without dead messages is empty", func(b *bench) {
		b.send(queue.Message{Body: "x"})
		b.buried()
	}},

	{"Redrive brings back what is dead, as if nobody had received it", func(b *bench) {
		b.queue = b.backend.Open(b.T, 2)
		b.send(queue.Message{Body: "no json", Group: "g"}, queue.Message{Body: "other"})
		b.bury(2, "cannot be read")
		if _, err := b.queue.Redrive(b.Context(), 0); err != nil {
			b.Fatal(err)
		}
		got := b.receive(2, long)
		b.same(bodies(got), []string{"no json", "other"})
		for _, m := range got {
			b.same(m.Receives, 1)
			if m.Body == "no json" {
				b.same(m.Group, "g")
			}
			b.delete(m)
		}
		b.buried()
		b.nothing()
	}},
	{"what is dead again after a Redrive has the reason of this time", func(b *bench) {
		b.queue = b.backend.Open(b.T, 1)
		b.send(queue.Message{Body: "x"})
		b.bury(1, "the first time")
		b.buried(queue.Dead{Message: queue.Message{Body: "x"}, Reason: "the first time"})
		if _, err := b.queue.Redrive(b.Context(), 0); err != nil {
			b.Fatal(err)
		}
		b.hide(b.one(long), 0)
		b.nothing()
		b.buried(queue.Dead{Message: queue.Message{Body: "x"}, Reason: queue.TooOften})
	}},
	{"Redrive twice at once brings everything back once", func(b *bench) {
		const n = 25
		b.send(messages(n)...)
		b.bury(n, "no")
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				if _, err := b.queue.Redrive(b.Context(), 0); err != nil {
					b.Errorf("redrive: %v", err)
				}
			})
		}
		all.Wait()
		b.same(len(b.receive(n, long)), n)
		b.nothing()
		b.buried()
	}},
	{"Redrive moves at the rate it was told", func(b *bench) {
		b.send(messages(3)...)
		b.bury(3, "no")
		if _, err := b.queue.Redrive(b.Context(), 1); err != nil {
			b.Fatal(err)
		}
		begun := time.Now()
		for range 3 {
			b.one(long)
			b.pass()
		}
		if took := time.Since(begun); b.backend.Advance == nil && took < time.Second {
			b.Errorf("three messages took %s, want about two seconds", took)
		}
		b.nothing()
	}},
	{"Redrive with nothing dead is nothing", func(b *bench) {
		b.send(queue.Message{Body: "x"})
		b.redrive(0)
		b.one(long)
		b.nothing()
	}},
	{"Redrive refuses a rate that no queue keeps", func(b *bench) {
		for _, rate := range []int{-1, queue.MaxRate + 1} {
			if _, err := b.queue.Redrive(b.Context(), rate); fault.KindOf(err) != fault.Internal {
				b.Errorf("%d in a second: got %v, want an error that is no fault", rate, err)
			}
		}
	}},

	{"two receivers never hold one message", func(b *bench) {
		const n = 60
		b.send(messages(n)...)
		var (
			mu   sync.Mutex
			held = map[string]int{}
			all  sync.WaitGroup
		)
		for range 4 {
			all.Go(func() {
				for {
					got, err := b.queue.Receive(context.Background(), 3, 0, long)
					if err != nil {
						b.Errorf("receive: %v", err)
					}
					if len(got) == 0 {
						return
					}
					mu.Lock()
					for _, m := range got {
						held[m.ID]++
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if len(held) != n {
			b.Errorf("%d messages were received, want %d", len(held), n)
		}
		for id, n := range held {
			if n != 1 {
				b.Errorf("message %s is held %d times", id, n)
			}
		}
	}},
	{"a call whose context is over fails", func(b *bench) {
		ctx, cancel := context.WithCancel(b.Context())
		cancel()
		if err := b.queue.Send(ctx, queue.Message{Body: "x"}); fault.KindOf(err) != fault.Internal {
			b.Errorf("send: got %v", err)
		}
		if _, err := b.queue.Receive(ctx, 1, time.Second, long); fault.KindOf(err) != fault.Internal {
			b.Errorf("receive: got %v", err)
		}
		b.nothing()
	}},
	{"a receiver stops waiting when its context ends", func(b *bench) {
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan error)
		begun := time.Now()
		go func() {
			_, err := b.queue.Receive(ctx, 1, 10*time.Second, long)
			ended <- err
		}()
		cancel()
		if err := <-ended; fault.KindOf(err) != fault.Internal {
			b.Errorf("got %v, want an error that is no fault", err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			b.Errorf("it took %s", took)
		}
	}},
}

// fairness is what a fair queue keeps beside.
var fairness = []struct {
	name string
	run  func(b *bench)
}{
	{"groups take turns, however much one of them has", func(b *bench) {
		b.backlog("m", 50)
		b.receive(3, long)
		b.send(queue.Message{Body: "before", Group: "a"}, queue.Message{Body: "after", Group: "z"}, queue.Message{Body: "none"})
		b.same(bodies(b.receive(4, long)), []string{"after", "before", "m 3", "none"})
		b.same(len(b.receive(46, long)), 46)
	}},
	{"a group with many messages in flight comes after all others", func(b *bench) {
		b.backlog("dead", 100)
		held := b.receive(40, long)
		b.backlog("quiet", 3)
		b.send(queue.Message{Body: "none 0"}, queue.Message{Body: "none 1"})
		b.same(bodies(b.receive(6, long)), []string{"dead 40", "none 0", "none 1", "quiet 0", "quiet 1", "quiet 2"})
		b.backlog("quiet", 1)
		b.same(b.one(long).Body, "quiet 0")
		// What is no longer in flight does not count.
		for _, m := range held[:20] {
			b.delete(m)
		}
		b.backlog("quiet", 2)
		b.same(bodies(b.receive(2, long)), []string{"dead 41", "quiet 0"})
		b.same(len(b.receive(59, long)), 59)
		b.nothing()
	}},
	{"what a group has hidden delays nobody", func(b *bench) {
		var later []queue.Message
		for i := range 500 {
			later = append(later, queue.Message{Body: fmt.Sprint(i), Group: "dead", Delay: queue.MaxDelay})
		}
		b.send(later...)
		b.backlog("quiet", 1)
		b.same(b.one(long).Body, "quiet 0")
		b.nothing()
	}},
}

// backlog sends n messages of a group, "<group> 0" and up.
func (b *bench) backlog(group string, n int) {
	b.Helper()
	var all []queue.Message
	for i := range n {
		all = append(all, queue.Message{Body: fmt.Sprintf("%s %d", group, i), Group: group})
	}
	b.send(all...)
}
