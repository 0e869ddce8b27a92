package runner_test

import (
	"context"
	"io"
	"slices"
	"testing"
	"time"

	"slipway/pipeline"
)

// BenchmarkCold makes a sandbox, runs `true` in it and takes its result.
func BenchmarkCold(b *testing.B) {
	s := open(b)
	q := s.request(pipeline.Test{Command: []string{"/bin/true"}, Timeout: time.Minute})
	s.passes(`true`)
	var f figures
	for b.Loop() {
		begun := time.Now()
		f.take(b, begun, func() (pipeline.Result, error) { return s.Test(context.Background(), q, io.Discard) })
	}
	f.report(b)
}

// BenchmarkReady runs `true` in a sandbox that was made before.
func BenchmarkReady(b *testing.B) {
	s := open(b)
	q := s.request(pipeline.Test{Command: []string{"/bin/true"}, Timeout: time.Minute})
	s.passes(`true`)
	var f figures
	for b.Loop() {
		b.StopTimer()
		ready, err := s.Prepare(context.Background(), q)
		if err != nil {
			b.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // until its agent waits
		b.StartTimer()
		f.take(b, time.Now(), func() (pipeline.Result, error) { return ready.Exec(context.Background(), time.Now(), io.Discard) })
		b.StopTimer()
		ready.Close()
		b.StartTimer()
	}
	f.report(b)
}

// figures of many runs: means hide what a user waits for.
type figures struct{ took, start []time.Duration }

func (f *figures) take(b *testing.B, begun time.Time, run func() (pipeline.Result, error)) {
	b.Helper()
	res, err := run()
	if err != nil || res.State != pipeline.Passed {
		b.Fatal(res, err)
	}
	f.took, f.start = append(f.took, time.Since(begun)), append(f.start, res.Start)
}

func (f *figures) report(b *testing.B) {
	slices.Sort(f.took)
	slices.Sort(f.start)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(f.took[len(f.took)/2]), "p50-ms")
	b.ReportMetric(ms(f.took[len(f.took)*9/10]), "p90-ms")
	b.ReportMetric(ms(f.start[len(f.start)/2]), "start-p50-ms")
	b.ReportMetric(ms(f.start[len(f.start)*99/100]), "start-p99-ms")
}
