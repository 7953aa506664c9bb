package faults_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"muster/shared/engine/llm/scripted"
)

// told is a message as a watcher has it.
type told struct {
	Type string
	ID   string
	Seq  int64
}

// follower watches a run in one of the four readings. It leaves after a few messages, or is thrown out, and comes back at
// its position, until it has the end.
type follower struct {
	*witness
	runID, reading string
	had            []told
	position       int64
	left           *atomic.Int64 // how often somebody left or was thrown out
}

func (f *follower) follow(ctx context.Context) error {
	for f.position == 0 || f.had[len(f.had)-1].Type != "complete" {
		if ctx.Err() != nil {
			return fmt.Errorf("the watcher by %s came to position %d and no further", f.reading, f.position)
		}
		once, leave := context.WithTimeout(ctx, 10*time.Second)
		if f.visit(once, 1+rand.IntN(6)) {
			f.left.Add(1)
		}
		leave()
	}
	return nil
}

// visit takes so many messages at most, and says whether anybody was there.
func (f *follower) visit(ctx context.Context, most int) bool {
	url := fmt.Sprintf("%s/v1/runs/%s/events?format=native&chunks=1&last_seq=%d", f.url, f.runID, f.position)
	f.mu.Lock()
	header := http.Header{"Authorization": {"Bearer " + f.token}}
	f.mu.Unlock()
	if f.reading == "WebSocket" {
		c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPHeader: header})
		if err != nil {
			return false
		}
		defer c.CloseNow()
		c.SetReadLimit(4 << 20)
		for range most {
			_, line, err := c.Read(ctx)
			if err != nil || !f.take(line) {
				break
			}
		}
		return true
	}
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		f.t.Error(err)
		return false
	}
	r.Header = header
	switch f.reading {
	case "SSE":
		r.Header.Set("Accept", "text/event-stream")
		r.Header.Set("Last-Event-ID", fmt.Sprint(f.position))
	case "NDJSON":
		r.Header.Set("Accept", "application/x-ndjson")
	case "long poll":
		r.URL.RawQuery += "&wait=5"
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	if f.reading == "long poll" {
		f.takePage(answer.Body)
		return true
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 4<<20)
	for n := 0; n < most && lines.Scan(); {
		line := strings.TrimPrefix(lines.Text(), "data: ")
		if !strings.HasPrefix(line, "{") {
			continue
		}
		n++
		if !f.take([]byte(line)) {
			break
		}
	}
	return true
}

func (f *follower) takePage(body io.Reader) {
	var page struct{ Events []json.RawMessage }
	if json.NewDecoder(body).Decode(&page) != nil {
		return // half of an answer
	}
	for _, line := range page.Events {
		f.take(line)
	}
}

// take notes a message; a line that was cut off with its process is none.
func (f *follower) take(line []byte) bool {
	var m told
	if json.Unmarshal(line, &m) != nil {
		return false
	}
	if m.Seq > 0 {
		f.had = append(f.had, m)
		f.position = m.Seq
	}
	return true
}

// TestWatchersThatAreThrownOutMissNothing has watchers of every reading leave and come back all the time, while the
// process that serves them and executes the run is killed again and again.
func TestWatchersThatAreThrownOutMissNothing(t *testing.T) {
	t.Parallel()
	tasks, enough, kills := 12, int64(60), 2
	if *soak {
		tasks, enough, kills = 40, 1000, 8
	}
	m := newMachine(t, chain(tasks), func(scripted.Request) scripted.Reply {
		return scripted.Reply{Text: "Forged.", Wait: in(time.Duration(rand.IntN(150)) * time.Millisecond)}
	})
	m.start()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var left atomic.Int64
	var all []*follower
	killed := 0
	for n := 0; n == 0 || left.Load() < enough; n++ {
		j := m.kickoff(fmt.Sprintf("run-%05d", n))
		var following sync.WaitGroup
		for _, reading := range []string{"SSE", "NDJSON", "long poll", "WebSocket"} {
			f := &follower{witness: m.witness, runID: j.id, reading: reading, left: &left}
			all = append(all, f)
			following.Go(func() {
				if err := f.follow(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		for range kills {
			<-in(time.Duration(100+rand.IntN(400)) * time.Millisecond)
			m.kill()
			m.killed()
			m.start()
			killed++
		}
		following.Wait()
		if t.Failed() {
			return
		}
	}
	m.kill()
	runs := m.open()
	for _, f := range all {
		pages, err := runs.Pages(t.Context(), f.runID, 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		var want []told
		for _, p := range pages {
			for _, e := range p.Events {
				want = append(want, told{Type: e.Type, ID: e.ID, Seq: e.N})
			}
		}
		want = append(want, told{Type: "complete", Seq: int64(len(want) + 1)})
		if diff := cmp.Diff(want, f.had); diff != "" {
			t.Errorf("by %s a watcher had %d messages, and the journal has %d (-journal +watcher):\n%s", f.reading, len(f.had), len(want), diff)
		}
	}
	t.Logf("%d watchers of %d runs left or were thrown out %d times, while their process was killed %d times", len(all), len(all)/4, left.Load(), killed)
}
