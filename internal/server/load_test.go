package server_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"slipway/internal/forge"
	"slipway/internal/ledger"
	"slipway/internal/need"
	"slipway/internal/server"
)

// BenchmarkWebhooks delivers 1,000 webhooks a second, every fifth of them one
// that was delivered before, and says how long the slowest hundredth waited for
// its 202. It fails where one is lost or doubled.
//
//	go test -run - -bench Webhooks/sqlite -benchtime 60000x ./internal/server    # a minute
func BenchmarkWebhooks(b *testing.B) {
	for name, w := range worlds {
		b.Run(name, func(b *testing.B) {
			took := w(b).load(b, b.N, 1000)
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "max-ms")
		})
	}
}

// TestWebhookLoad: of many webhooks at once, many of them told twice, none is lost
// and none makes a second run.
func TestWebhookLoad(t *testing.T) {
	n := 1000
	if os.Getenv("SLIPWAY_SOAK") != "" {
		n = 60_000
	}
	for name, w := range worlds {
		t.Run(name, func(t *testing.T) {
			took := w(t).load(t, n, 1000)
			slices.Sort(took)
			t.Logf("%d deliveries: half took %s, 99 of 100 %s, the slowest %s", n, took[n/2], took[n*99/100], took[n-1])
		})
	}
}

// worlds make a world on each database.
var worlds = map[string]func(testing.TB) *world{
	"sqlite": newWorld,
	"postgres": func(tb testing.TB) *world {
		pg := &need.Postgres{Sync: true}
		tb.Cleanup(func() { must(tb, pg.Stop()) })
		return newWorldOn(tb, pg.Database(tb))
	},
}

// load delivers n webhooks at a rate a second and gives how long each took to be
// accepted, from the moment it was due: what waits in line counts. One run is on
// and the others wait: what is loaded is acceptance.
func (w *world) load(tb testing.TB, n, rate int) []time.Duration {
	tb.Helper()
	limits := server.Limits{Strangers: 10, Webhooks: 2000} // as `slipway serve` has them
	w.serve(tb, server.Options{Limits: limits}, func(ctx context.Context, _ ledger.Run, _ *server.Log) (ledger.End, error) {
		<-ctx.Done()
		return ledger.End{State: ledger.Canceled, Reason: context.Cause(ctx).Error()}, nil
	})
	requests, events := make([][]byte, n), map[int]bool{}
	for i := range requests {
		event := i
		if i%5 == 4 {
			event = i - 4
		}
		events[event] = true
		requests[i] = w.wire(tb, fmt.Sprint("d", event), push(event))
	}
	took, due := make([]time.Duration, n), make(chan int, n)
	var refused atomic.Int64
	began := time.Now()
	dueAt := func(i int) time.Time { return began.Add(time.Duration(i) * time.Second / time.Duration(rate)) }
	var senders sync.WaitGroup
	for range min(n, 256) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.http.URL, "http://"))
		must(tb, err)
		senders.Go(func() {
			defer conn.Close()
			in := bufio.NewReader(conn)
			for i := range due {
				for {
					code, err := exchange(conn, in, requests[i])
					if err != nil {
						tb.Errorf("delivery %d: %v", i, err)
						return
					}
					if code == http.StatusAccepted {
						break
					}
					refused.Add(1) // it comes again, as from a forge or a person there
				}
				took[i] = time.Since(dueAt(i))
			}
		})
	}
	for i := range n {
		time.Sleep(time.Until(dueAt(i)))
		due <- i
	}
	close(due)
	senders.Wait()
	if n := refused.Load(); n > 0 {
		tb.Logf("%d answers were a 503", n)
	}
	counts, err := w.ledger.Counts(context.Background())
	must(tb, err)
	runs := 0
	for _, n := range counts {
		runs += n
	}
	if runs != len(events) {
		tb.Errorf("%d runs of %d events", runs, len(events))
	}
	return took
}

// wire is a webhook as it goes over the wire, made and signed before the clock runs.
func (w *world) wire(tb testing.TB, id string, body []byte) []byte {
	tb.Helper()
	h, err := forge.Sign(w.secret, id, time.Now(), body)
	must(tb, err)
	var out bytes.Buffer
	fmt.Fprintf(&out, "POST /hooks/hook HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n", len(body))
	must(tb, h.Write(&out))
	out.WriteString("\r\n")
	out.Write(body)
	return out.Bytes()
}

// exchange sends a request and gives the status of its answer: 202 or 503.
func exchange(conn net.Conn, in *bufio.Reader, request []byte) (code int, err error) {
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusServiceUnavailable {
		err = fmt.Errorf("%s: %s", resp.Status, said)
	}
	return resp.StatusCode, err
}
