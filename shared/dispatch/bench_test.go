package dispatch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"muster/shared/record"
	"muster/shared/run"
	"muster/shared/webhook"
)

// BenchmarkDispatch is deliveries of 1 KiB to a receiver on this machine over connections that are kept, by a store that
// costs nothing; BenchmarkBare is the same POST by a plain client. Only the ratio says something: the receiver takes its
// share of both.
func BenchmarkDispatch(b *testing.B) {
	s := newStage(b)
	s.Store, s.Log = sink{}, slog.New(slog.DiscardHandler)
	s.Formats[run.CrewTarget] = func(run.Run, run.Request, run.Page, run.Target, []json.RawMessage) ([]webhook.Body, error) {
		return []webhook.Body{{JSON: kibibyte}}, nil
	}
	target := s.target(run.CrewTarget, taker(b))
	seq := s.page(run.StepPage, 0)
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			wantDone(b, s.send(b, seq, target, ""))
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
}

func BenchmarkBare(b *testing.B) {
	url := taker(b)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			resp, err := client.Post(url, "application/json", bytes.NewReader(kibibyte))
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
}

var kibibyte = []byte(`{"text":"` + string(bytes.Repeat([]byte("x"), 1013)) + `"}`)

// taker is a receiver that takes everything.
func taker(b *testing.B) (url string) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	b.Cleanup(server.Close)
	return server.URL
}

// sink is a store that keeps nothing.
type sink struct{ record.Store }

func (sink) Put(context.Context, record.Record) (int64, error)          { return 1, nil }
func (sink) Scan(context.Context, record.Scan) ([]record.Record, error) { return nil, nil }
