package channel_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster/events"
	"muster/shared/channel"
	"muster/shared/crew"
	"muster/shared/fault"
	"muster/shared/mean"
	"muster/shared/queue"
	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/storetest"
	"muster/shared/workspace"
)

// asked keeps the messages of a queue.
type asked struct {
	mu       sync.Mutex
	messages []run.DeliveryMessage
}

func (q *asked) Send(_ context.Context, messages ...queue.Message) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range messages {
		var d run.DeliveryMessage
		if err := json.Unmarshal([]byte(m.Body), &d); err != nil {
			return err
		}
		q.messages = append(q.messages, d)
	}
	return nil
}

// wire is a channel.Pusher that keeps what was pushed.
type wire struct {
	mu     sync.Mutex
	told   map[string][]string
	closed map[string]string
	fail   func(connectionID string) error
}

func (w *wire) Push(_ context.Context, connectionID string, message []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, closed := w.closed[connectionID]; closed {
		return channel.ErrGone
	}
	if w.fail != nil {
		if err := w.fail(connectionID); err != nil {
			return err
		}
	}
	if w.told == nil {
		w.told = map[string][]string{}
	}
	w.told[connectionID] = append(w.told[connectionID], string(message))
	return nil
}

func (w *wire) Close(_ context.Context, connectionID string, last []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed == nil {
		w.closed = map[string]string{}
	}
	w.closed[connectionID] = string(last)
	return nil
}

func (w *wire) of(connectionID string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.told[connectionID])
}

// numbers spells events as their numbers.
var numbers = channel.Dialect{
	Spell: func(_ channel.Channel, _ channel.About, p run.Page) (all []channel.Message, err error) {
		for _, e := range p.Events {
			all = append(all, channel.Message{N: e.N, Body: fmt.Append(nil, e.N)})
		}
		return all, nil
	},
	Ping: []byte("ping"), Goodbye: func(why channel.Reason) []byte { return []byte(why) },
}

// world is a hub with one deployment.
type world struct {
	t      *testing.T
	store  record.Store
	hub    *channel.Hub
	wire   *wire
	queue  *asked
	d      crew.Deployment
	token  string
	caller workspace.Caller
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, store: &storetest.Memory{}, wire: &wire{}, queue: &asked{}}
	crews := &crew.Store{Records: w.store}
	var err error
	w.d, _, _, err = crews.Create(t.Context(), "0198c0de-0000-7000-8000-000000000001", "watched", map[string][]byte{
		"agents.yaml": []byte("one:\n  role: One\n  goal: Be\n  backstory: Was\n"),
		"tasks.yaml":  []byte("go:\n  description: Go\n  expected_output: Gone\n  agent: one\n"),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	tokens := &workspace.Tokens{Records: w.store}
	w.caller = workspace.Caller{Kind: workspace.Workspace, WorkspaceID: w.d.WorkspaceID}
	if w.token, err = tokens.Mint(t.Context(), w.caller); err != nil {
		t.Fatal(err)
	}
	runs := &run.Service{Store: w.store, Crews: crews, Runs: &asked{}, Deliveries: w.queue, Watchers: channel.Watchers(w.store), LeaseTime: 24 * time.Hour}
	w.hub = &channel.Hub{Store: w.store, Runs: runs, Crews: crews, Tokens: tokens, Push: w.wire, Dialect: numbers}
	return w
}

// whole is the channel of the workspace.
func (w *world) whole() channel.Channel {
	return channel.Channel{Name: "workspace", WorkspaceID: w.d.WorkspaceID}
}

func (w *world) connect(connectionID string) channel.Connection {
	w.t.Helper()
	if err := w.hub.Open(w.t.Context(), connectionID); err != nil {
		w.t.Fatal(err)
	}
	c, err := w.hub.Admit(w.t.Context(), connectionID, w.token)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) subscribe(connectionID string) channel.Connection {
	w.t.Helper()
	c := w.connect(connectionID)
	if err := w.hub.Subscribe(w.t.Context(), c, w.whole()); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// journal is a run whose pages a test puts.
type journal struct {
	id    string
	owner *run.Owner
	root  *run.Branch
	pages int
	last  int64
}

func (w *world) start() *journal {
	w.t.Helper()
	r, err := w.hub.Runs.Start(w.t.Context(), run.StartRequest{Deployment: w.d})
	if err != nil {
		w.t.Fatal(err)
	}
	j := &journal{id: r.ID}
	if j.owner, err = w.hub.Runs.Claim(w.t.Context(), r.ID); err != nil {
		w.t.Fatal(err)
	}
	j.root = j.owner.Root()
	return j
}

func (j *journal) put(t *testing.T, count int) {
	t.Helper()
	for range count {
		d, err := events.NewCustom("test.event", nil, events.Identity{})
		if err != nil {
			t.Fatal(err)
		}
		j.root.Emit(d, run.Scope{})
	}
	j.pages++
	if _, err := j.root.Step(t.Context(), run.Step{Key: fmt.Sprint(j.pages), Do: func(context.Context, *run.Emitter, int) (any, error) { return nil, nil }}); err != nil {
		t.Fatal(err)
	}
	j.last += int64(count)
}

// dense gives the numbers from one to another.
func dense(from, to int64) (all []string) {
	for n := from; n <= to; n++ {
		all = append(all, fmt.Sprint(n))
	}
	return all
}

// work relays the messages that are in the queue, in any order, some twice, many at a time, until there are none.
func (w *world) work(hub *channel.Hub) {
	w.queue.mu.Lock()
	messages := w.queue.messages
	w.queue.messages = nil
	w.queue.mu.Unlock()
	messages = append(messages, messages...)
	rand.Shuffle(len(messages), func(i, j int) { messages[i], messages[j] = messages[j], messages[i] })
	var all sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, m := range messages {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			for {
				again, err := hub.Relay(w.t.Context(), m.Run, m.Seq)
				if err == nil && again == 0 {
					return
				}
				<-time.After(max(again, 30*time.Second))
			}
		})
	}
	all.Wait()
}

func TestEachConnectionIsToldEverythingOnceAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 3 {
			w.subscribe(fmt.Sprint("c", i))
		}
		j := w.start()
		for range 40 {
			j.put(t, rand.IntN(4))
		}
		var late sync.WaitGroup
		late.Go(func() { w.work(w.hub) })
		for range 20 { // while some are told
			j.put(t, 1)
		}
		late.Wait()
		w.work(w.hub)
		for i := range 3 {
			if got := w.wire.of(fmt.Sprint("c", i)); !slices.Equal(got, dense(1, j.last)) {
				t.Errorf("connection %d was told %v, want 1 to %d", i, got, j.last)
			}
		}
	})
}

func TestOnABadDayNothingIsMissedOrOutOfTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.subscribe("c")
		j := w.start()
		for range 30 {
			j.put(t, 1+rand.IntN(3))
		}
		bad := mean.New(11)
		bad.Odds = mean.Odds{Fail: 0.2}
		hub := *w.hub
		hub.Store = bad.Store(w.store)
		hub.Runs = &run.Service{Store: hub.Store, Crews: w.hub.Crews, Runs: w.queue, Deliveries: w.queue}
		pushes := 0
		w.wire.fail = func(string) error {
			if pushes++; pushes%5 == 0 {
				return errors.New("try again")
			}
			return nil
		}
		w.work(&hub)
		// What was pushed by one who could not note it is pushed again, under its number and before anything new.
		last := int64(0)
		for _, told := range w.wire.of("c") {
			var n int64
			_, _ = fmt.Sscan(told, &n)
			if n > last+1 {
				t.Fatalf("after %d came %d: %v", last, n, w.wire.of("c"))
			}
			last = max(last, n)
		}
		if last != j.last {
			t.Errorf("it was told up to %d, want %d", last, j.last)
		}
	})
}

func TestATellerThatDiesIsFollowedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.subscribe("c")
		j := w.start()
		j.put(t, 3)
		dead, die := context.WithCancel(t.Context())
		w.wire.fail = func(string) error {
			if len(w.wire.told["c"]) == 2 {
				die()
				<-dead.Done()
				w.wire.fail = nil
				panic("killed")
			}
			return nil
		}
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			defer func() { _ = recover() }()
			// The panic is in a goroutine of Relay's, so this one is told alone.
			_, _ = channel.RelayOne(w.hub, dead, "c", j.id, 1)
		}()
		<-killed
		again, err := w.hub.Relay(t.Context(), j.id, 1)
		if err != nil || again == 0 {
			t.Fatalf("while the dead one holds the cursor: %s, %v", again, err)
		}
		<-time.After(again)
		if again, err = w.hub.Relay(t.Context(), j.id, 1); err != nil || again != 0 {
			t.Fatalf("afterwards: %s, %v", again, err)
		}
		if got := w.wire.of("c"); !slices.Equal(got, []string{"1", "2", "1", "2", "3"}) {
			t.Errorf("it was told %v", got)
		}
	})
}

func TestSubscriptionsBeginNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		before := w.start()
		before.put(t, 5)
		if len(w.queue.messages) > 0 {
			t.Errorf("nobody is there, and %v is sent", w.queue.messages)
		}
		<-time.After(time.Second)
		c := w.subscribe("c")
		if r, err := w.hub.Runs.Get(t.Context(), before.id); err != nil || !r.WatchedUntil.After(time.Now()) {
			t.Errorf("the run is not told that somebody watches: %v, %v", r.WatchedUntil, err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 4*time.Second)
		before.owner.Keep(ctx, nil) // it reads its inbox
		stop()
		before.put(t, 2)
		after := w.start()
		after.put(t, 1)
		w.work(w.hub)
		if got := w.wire.of("c"); len(got) != 3 || !slices.Contains(got, "6") || !slices.Contains(got, "7") || !slices.Contains(got, "1") {
			t.Errorf("it was told %v", got)
		}
		if err := w.hub.Unsubscribe(t.Context(), c, "workspace"); err != nil {
			t.Fatal(err)
		}
		after.put(t, 1)
		w.work(w.hub)
		if got := w.wire.of("c"); len(got) != 3 {
			t.Errorf("after it left it was told %v", got)
		}
	})
}

// Messages may come late, or again after hours. What they tell of to those who were there is no news to whoever comes after.
func TestAnOldMessageTellsNothingOldToWhoeverSubscribedSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.subscribe("before")
		over, on := w.start(), w.start()
		over.put(t, 3)
		if err := over.owner.Fail(run.Outcome{State: run.Failed, Error: "It is over."}); err != nil {
			t.Fatal(err)
		}
		on.put(t, 3)
		late := slices.Clone(w.queue.messages)
		w.work(w.hub)
		<-time.After(10 * time.Minute)
		c := w.subscribe("since")
		w.queue.messages = slices.Clone(late)
		w.work(w.hub)
		if got := w.wire.of("since"); len(got) > 0 {
			t.Fatalf("it was told %v", got)
		}
		on.put(t, 1)
		w.work(w.hub)
		if err := w.hub.Unsubscribe(t.Context(), c, "workspace"); err != nil {
			t.Fatal(err)
		}
		on.put(t, 1) // which is nothing to it
		<-time.After(time.Second)
		if err := w.hub.Subscribe(t.Context(), c, w.whole()); err != nil {
			t.Fatal(err)
		}
		on.put(t, 1)
		w.queue.messages = append(w.queue.messages, late...)
		w.work(w.hub)
		if got := w.wire.of("since"); !slices.Equal(got, []string{"4", "6"}) {
			t.Errorf("of what came after it was told %v", got)
		}
		r, err := w.hub.Runs.Get(t.Context(), over.id)
		if err != nil {
			t.Fatal(err)
		}
		ch := channel.Channel{Name: "run", WorkspaceID: r.WorkspaceID, DeploymentID: r.DeploymentID, RunID: r.ID}
		if err := w.hub.Resume(t.Context(), c, ch, r, 1); err != nil {
			t.Fatal(err)
		}
		w.work(w.hub)
		if got := w.wire.of("since"); !slices.Equal(got, []string{"4", "6", "2", "3", "4"}) {
			t.Errorf("and whoever resumes is told %v", got)
		}
	})
}

// behind is a store whose lists do not have what is new.
type behind struct {
	record.Store
	lists func() record.Store
}

func (b *behind) List(ctx context.Context, list, before string, limit int) ([]record.Entry, error) {
	return b.lists().List(ctx, list, before, limit)
}

func TestARunThatTheListsDoNotHaveYetIsJoined(t *testing.T) {
	for name, ended := range map[string]bool{"under way": false, "over by then": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				j := w.start()
				j.put(t, 3)
				<-time.After(time.Second)
				caughtUp := time.Now().Add(time.Second)
				hub := *w.hub
				runs := *w.hub.Runs
				runs.Store = &behind{w.store, func() record.Store {
					if time.Now().Before(caughtUp) {
						return &storetest.Memory{}
					}
					return w.store
				}}
				hub.Runs, hub.Lag = &runs, 2*time.Second
				c := w.connect("c")
				put := make(chan struct{})
				time.AfterFunc(1500*time.Millisecond, func() {
					defer close(put)
					j.put(t, 2)
					if !ended {
						return
					}
					if err := j.owner.Fail(run.Outcome{State: run.Failed, Error: "It is over."}); err != nil {
						t.Error(err)
					}
				})
				if err := hub.Subscribe(t.Context(), c, w.whole()); err != nil {
					t.Fatal(err)
				}
				<-put
				w.work(w.hub)
				if !ended {
					ctx, stop := context.WithTimeout(t.Context(), 4*time.Second)
					j.owner.Keep(ctx, nil) // it reads its inbox
					stop()
					j.put(t, 1)
					w.work(w.hub)
				}
				if got := w.wire.of("c"); !slices.Equal(got, dense(4, 6)) {
					t.Errorf("it was told %v, want what came after it subscribed", got)
				}
			})
		})
	}
}

func TestResuming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		j := w.start()
		for range 40 {
			j.put(t, 2)
		}
		r, err := w.hub.Runs.Get(t.Context(), j.id)
		if err != nil {
			t.Fatal(err)
		}
		ch := channel.Channel{Name: "run", WorkspaceID: r.WorkspaceID, DeploymentID: r.DeploymentID, RunID: r.ID}
		for _, after := range []int64{0, 1, 2, 7, 79, 80} {
			name := fmt.Sprint("after ", after)
			if err := w.hub.Resume(t.Context(), w.connect(name), ch, r, after); err != nil {
				t.Fatal(err)
			}
			w.work(w.hub)
			if got := w.wire.of(name); !slices.Equal(got, dense(after+1, 80)) {
				t.Errorf("resumed after %d it was told %v", after, got)
			}
		}
		if err := w.hub.Resume(t.Context(), w.connect("ahead"), ch, r, 81); !fault.Is(err, fault.Invalid) {
			t.Errorf("a position that is not there: %v", err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 4*time.Second)
		j.owner.Keep(ctx, nil)
		stop()
		j.put(t, 1)
		w.work(w.hub)
		if got := w.wire.of("after 80"); !slices.Equal(got, []string{"81"}) {
			t.Errorf("it does not go on live: %v", got)
		}
	})
}

func TestASlowConnectionIsToldAndEnded(t *testing.T) {
	for name, failure := range map[string]error{"at once": channel.ErrSlow, "after some attempts": errors.New("too many requests")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.subscribe("slow")
				w.subscribe("quick")
				j := w.start()
				j.put(t, 4)
				w.wire.fail = func(connectionID string) error {
					if connectionID == "slow" {
						return failure
					}
					return nil
				}
				w.work(w.hub)
				if got := w.wire.closed["slow"]; got != string(channel.Slow) {
					t.Errorf("the slow one was told %q", got)
				}
				if got := w.wire.of("quick"); !slices.Equal(got, dense(1, 4)) {
					t.Errorf("the quick one was told %v", got)
				}
				j.put(t, 1)
				w.work(w.hub)
				if got := w.wire.of("slow"); len(got) > 0 {
					t.Errorf("after that the slow one was told %v", got)
				}
			})
		})
	}
}

// due lets the hub tend what is due.
func (w *world) due() {
	w.t.Helper()
	for shard := range record.Shards {
		entries, err := w.store.Due(w.t.Context(), shard, time.Now(), 100)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range entries {
			if !channel.IsDue(e.Key) {
				continue
			}
			if err := w.hub.Tend(w.t.Context(), e.Key); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

func TestConnectionsAreLookedAfter(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world)
		told string
		why  string
	}{
		{"one that says nothing about itself is ended", func(w *world) {
			if err := w.hub.Open(w.t.Context(), "c"); err != nil {
				w.t.Fatal(err)
			}
			<-time.After(11 * time.Second)
		}, "", string(channel.Nobody)},
		{"one that is there is sent a ping", func(w *world) {
			w.connect("c")
			<-time.After(31 * time.Second)
			w.due()
			w.due()
			<-time.After(31 * time.Second)
		}, "ping ping", ""},
		{"one whose token was revoked is ended", func(w *world) {
			w.connect("c")
			if err := w.hub.Tokens.Revoke(w.t.Context(), w.token); err != nil {
				w.t.Fatal(err)
			}
			<-time.After(31 * time.Second)
		}, "", string(channel.Revoked)},
		{"one that is silent is ended", func(w *world) {
			w.connect("c")
			<-time.After(11 * time.Minute)
		}, "", string(channel.Idle)},
		{"one that is heard is not silent, but some day too old", func(w *world) {
			w.connect("c")
			for range 24 {
				<-time.After(5 * time.Minute)
				if _, _, err := w.hub.Hear(w.t.Context(), "c"); err != nil {
					w.t.Fatal(err)
				}
			}
			<-time.After(31 * time.Second)
		}, "", string(channel.TooOld)},
		{"one that is gone is forgotten", func(w *world) {
			w.connect("c")
			w.wire.fail = func(string) error { return channel.ErrGone }
			<-time.After(31 * time.Second)
			w.due()
			if _, _, err := w.hub.Hear(w.t.Context(), "c"); !errors.Is(err, channel.ErrGone) {
				w.t.Errorf("it is heard: %v", err)
			}
		}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c.do(w)
				w.due()
				if got := strings.Join(w.wire.of("c"), " "); got != c.told {
					t.Errorf("it was told %q, want %q", got, c.told)
				}
				if got := w.wire.closed["c"]; got != c.why {
					t.Errorf("it was ended by %q, want %q", got, c.why)
				}
			})
		})
	}
}

func TestConnectionsAreCounted(t *testing.T) {
	w := newWorld(t)
	for i := range 100 {
		w.connect(fmt.Sprint(i))
	}
	if err := w.hub.Open(t.Context(), "more"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.hub.Admit(t.Context(), "more", w.token); !fault.Is(err, fault.TooMany) {
		t.Errorf("one more: %v", err)
	}
	if err := w.hub.Close(t.Context(), "17"); err != nil {
		t.Fatal(err)
	}
	c, err := w.hub.Admit(t.Context(), "more", w.token)
	if err != nil {
		t.Errorf("one less and one more: %v", err)
	}
	for i := range 50 {
		if err := w.hub.Subscribe(t.Context(), c, channel.Channel{Name: fmt.Sprint(i), WorkspaceID: w.d.WorkspaceID, DeploymentID: w.d.ID}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.hub.Subscribe(t.Context(), c, w.whole()); !fault.Is(err, fault.TooMany) {
		t.Errorf("one channel more: %v", err)
	}
}

func TestTokensThatMayNotWatch(t *testing.T) {
	w := newWorld(t)
	inside, err := w.hub.Tokens.Mint(t.Context(), workspace.Caller{Kind: workspace.Internal, WorkspaceID: w.d.WorkspaceID})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", "mus_ws_wrong", inside} {
		if err := w.hub.Open(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.hub.Admit(t.Context(), "c", token); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("%q: %v", token, err)
		}
	}
	if err := w.hub.Close(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.hub.Admit(t.Context(), "c", w.token); !errors.Is(err, channel.ErrGone) {
		t.Errorf("a connection that was never opened, or is over: %v", err)
	}
}
