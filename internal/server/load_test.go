package server_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"slipway/internal/ledger"
	"slipway/internal/server"
)

// BenchmarkWebhooks delivers webhooks at a fixed rate, every fifth of them one
// that was delivered before, and says how long the slowest hundredth waited for
// its 202. It fails where one is lost or doubled.
//
//	go test -run - -bench Webhooks -benchtime 60000x ./internal/server    # a minute
func BenchmarkWebhooks(b *testing.B) {
	const rate = 1000 // a second
	w := newWorld(b)
	w.serve(b, server.Options{}, func(ctx context.Context, _ ledger.Run, _ *server.Log) (ledger.End, error) {
		<-ctx.Done() // one run is on, the others wait: what is measured is acceptance
		return ledger.End{State: ledger.Canceled, Reason: context.Cause(ctx).Error()}, nil
	})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 512, MaxConnsPerHost: 512}}
	took := make([]time.Duration, b.N)
	var wg sync.WaitGroup
	b.ResetTimer()
	began := time.Now()
	events := map[int]bool{}
	for n := range b.N {
		time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / rate)))
		event := n
		if n%5 == 4 {
			event = n - 4
		}
		events[event] = true
		wg.Go(func() {
			due := began.Add(time.Duration(n) * time.Second / rate)
			if code, said := w.deliver(b, client, fmt.Sprint("d", event), push(event)); code != http.StatusAccepted {
				b.Errorf("delivery %d: %d %s", n, code, said)
			}
			took[n] = time.Since(due) // from when it was due: waiting in line counts
		})
	}
	wg.Wait()
	b.StopTimer()
	elapsed := time.Since(began)
	counts, err := w.ledger.Counts(b.Context())
	must(b, err)
	runs := 0
	for _, n := range counts {
		runs += n
	}
	if runs != len(events) {
		b.Errorf("%d runs of %d events", runs, len(events))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "accepted/s")
}
