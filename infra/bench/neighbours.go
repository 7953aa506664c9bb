package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"muster/shared/guard/guardtest"
	"muster/shared/run"
	"muster/shared/webhook"
)

const (
	healthy       = 99
	backlog       = 100_000
	neighbourTime = 20 * time.Second
	neighbourPace = 5 * time.Millisecond // between two deliveries: 200 a second to all healthy ones together
)

// neighbours is what 99 healthy endpoints notice of a dead one with a backlog: from the moment a delivery is asked for until
// the receiver has it.
func (b *bench) neighbours(ctx context.Context) error {
	for _, dead := range []struct {
		what string
		url  func() (url string, stop func())
	}{
		{"alone", nil},
		{fmt.Sprintf("beside one that refuses connections and has %d waiting", backlog), refusing},
		{fmt.Sprintf("beside one that never answers and has %d waiting", backlog), hanging},
	} {
		if err := b.beside(ctx, dead.what, dead.url); err != nil {
			return err
		}
	}
	return nil
}

func refusing() (string, func()) {
	s := httptest.NewServer(nil)
	s.Close()
	return s.URL, func() {}
}

func hanging() (string, func()) {
	// Not one of httptest: that waits for requests to end, and those that wait for their turn are many.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(guardtest.Hang)}
	go s.Serve(listener)
	return "http://" + listener.Addr().String(), func() { s.Close() }
}

func (b *bench) beside(ctx context.Context, what string, dead func() (string, func())) error {
	var (
		mu    sync.Mutex
		asked = map[string]time.Time{}
		late  []time.Duration
		tried int

		dying destination
	)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		mu.Lock()
		defer mu.Unlock()
		if at, ok := asked[r.Header.Get(webhook.HeaderDelivery)]; ok {
			late = append(late, time.Since(at))
			delete(asked, r.Header.Get(webhook.HeaderDelivery))
		}
	}))
	defer receiver.Close()
	c, err := b.newCourier(nil, func(m run.DeliveryMessage, _ time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if m.Target == dying.endpoint {
			tried++
		}
	})
	if err != nil {
		return err
	}
	defer c.close()
	var targets []destination
	for range healthy {
		to, err := c.endpoint(ctx, receiver.URL)
		if err != nil {
			return err
		}
		targets = append(targets, to)
	}
	if dead != nil {
		url, stop := dead()
		defer stop()
		if dying, err = c.endpoint(ctx, url); err != nil {
			return err
		}
		if err := c.send(ctx, dying, 1, backlog); err != nil {
			return err
		}
	}
	c.begin(ctx)
	var heaps, files []string
	tick := time.NewTicker(neighbourPace)
	defer tick.Stop()
	began := time.Now()
	quarter := neighbourTime / 4
	n := 0
	for time.Since(began) < neighbourTime {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		target, seq := targets[n%healthy], 1+n/healthy
		n++
		mu.Lock()
		asked[target.shown(seq)] = time.Now()
		mu.Unlock()
		if err := c.send(ctx, target, seq, 1); err != nil {
			return err
		}
		if time.Since(began) > quarter*time.Duration(len(heaps)+1) {
			h, f := held()
			heaps, files = append(heaps, fmt.Sprintf("%.0f", h)), append(files, strconv.Itoa(f))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	missing := len(asked)
	for _, at := range asked {
		late = append(late, time.Since(at))
	}
	row(fmt.Sprintf("%d healthy endpoints %s: asked to arrived, p50, p99, longest", healthy, what), "%s, %s, %s; %d of %d under way",
		ms(quantile(late, 50)), ms(quantile(late, 99)), ms(quantile(late, 100)), missing, n)
	row("the same: heap in MB, open files, over the time; messages for the dead one that were done with", "%v, %v; %d", heaps, files, tried)
	return nil
}

// held is the memory in MB and the number of files that this process holds.
func held() (mb float64, files int) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	open, _ := os.ReadDir("/proc/self/fd")
	return float64(m.HeapAlloc) / 1e6, len(open)
}
