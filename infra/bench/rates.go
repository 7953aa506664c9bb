package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"muster/shared/run"
)

const (
	rateTime      = 4 * time.Second
	rateMost      = 20_000 // messages that wait when the measuring begins
	rateEndpoints = 20     // all of them at the one receiver
	bareAtOnce    = 64
)

// rates is what is delivered in a second, and in a second of one core, beside a plain client with the same bodies and the same receiver.
func (b *bench) rates(ctx context.Context) error {
	t, err := startTaker(ctx)
	if err != nil {
		return err
	}
	defer t.stop()
	for _, secure := range []bool{false, true} {
		for _, wait := range []time.Duration{0, 100 * time.Millisecond} {
			what := "HTTP"
			if secure {
				what = "TLS"
			}
			if wait > 0 {
				what += fmt.Sprintf(", answered after %s", wait)
			}
			bare, err := b.bareRate(ctx, t, t.url(secure, wait), wait)
			if err != nil {
				return err
			}
			ours, err := b.courierRate(ctx, t, t.url(secure, wait))
			if err != nil {
				return err
			}
			row(what+": a plain client: POSTs a second; a second of CPU; p50, p99", "%s", bare)
			row(what+": queue, dispatcher and records: the same", "%s", ours)
			row(what+": ratio by the second, by the second of CPU", "%.2f, %.2f", ours.rate()/bare.rate(), ours.perCPU()/bare.perCPU())
		}
	}
	return nil
}

type rate struct {
	n         int
	took, cpu time.Duration

	mu        sync.Mutex
	latencies []time.Duration
	failed    int
}

func (r *rate) rate() float64   { return float64(r.n) / r.took.Seconds() }
func (r *rate) perCPU() float64 { return float64(r.n) / r.cpu.Seconds() }

func (r *rate) String() string {
	s := fmt.Sprintf("%.0f/s; %.0f/s; %s, %s", r.rate(), r.perCPU(), ms(quantile(r.latencies, 50)), ms(quantile(r.latencies, 99)))
	if r.failed > 0 {
		s += fmt.Sprintf("; %d failed", r.failed)
	}
	return s
}

func (r *rate) add(took time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latencies = append(r.latencies, took)
	if !ok {
		r.failed++
	}
}

func (b *bench) bareRate(ctx context.Context, t *taker, url string, wait time.Duration) (*rate, error) {
	roots, err := t.roots()
	if err != nil {
		return nil, err
	}
	atOnce := bareAtOnce
	if wait > 0 {
		atOnce = 200
	}
	transport := &http.Transport{MaxIdleConnsPerHost: atOnce, TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	r := &rate{}
	var workers sync.WaitGroup
	began, before := time.Now(), costs()
	for range atOnce {
		workers.Go(func() {
			for time.Since(began) < rateTime && ctx.Err() == nil {
				asked := time.Now()
				resp, err := client.Post(url, "application/json", bytes.NewReader(body))
				if err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				r.add(time.Since(asked), err == nil)
			}
		})
	}
	workers.Wait()
	r.n, r.took, r.cpu = len(r.latencies), time.Since(began), costs().cpu-before.cpu
	return r, ctx.Err()
}

func (b *bench) courierRate(ctx context.Context, t *taker, url string) (*rate, error) {
	roots, err := t.roots()
	if err != nil {
		return nil, err
	}
	r := &rate{}
	var n atomic.Int64
	over := make(chan struct{})
	c, err := b.newCourier(roots, func(_ run.DeliveryMessage, took time.Duration) {
		r.add(took, true)
		if n.Add(1) == rateMost {
			close(over)
		}
	})
	if err != nil {
		return nil, err
	}
	defer c.close()
	for range rateEndpoints {
		to, err := c.endpoint(ctx, url)
		if err == nil {
			err = c.send(ctx, to, 1, rateMost/rateEndpoints)
		}
		if err != nil {
			return nil, err
		}
	}
	began, before := time.Now(), costs()
	c.begin(ctx)
	select {
	case <-over:
	case <-time.After(rateTime):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r.mu.Lock()
	r.n, r.took, r.cpu = len(r.latencies), time.Since(began), costs().cpu-before.cpu
	r.latencies = append([]time.Duration(nil), r.latencies...)
	r.mu.Unlock()
	return r, nil
}
