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
	test := pipeline.Test{Command: []string{"/bin/true"}, Timeout: time.Minute}
	var took, start []time.Duration
	if _, err := s.Test(context.Background(), s.request(test), io.Discard); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		begun := time.Now()
		res, err := s.Test(context.Background(), s.request(test), io.Discard)
		if err != nil || res.State != pipeline.Passed {
			b.Fatal(res, err)
		}
		took = append(took, time.Since(begun))
		start = append(start, res.Start)
	}
	slices.Sort(took)
	slices.Sort(start)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*9/10].Microseconds())/1000, "p90-ms")
	b.ReportMetric(float64(start[len(start)/2].Microseconds())/1000, "start-p50-ms")
}
