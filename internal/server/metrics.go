package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are what /metrics shows.
type metrics struct {
	registry *prometheus.Registry
	hooks    *prometheus.CounterVec
	hookTime prometheus.Histogram
	runs     *prometheus.CounterVec
	runTime  prometheus.Histogram
	statuses *prometheus.CounterVec
	limited  *prometheus.CounterVec
	notices  *prometheus.CounterVec
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		hooks:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "slipway_webhooks_total", Help: "Webhooks by the HTTP status they were answered with."}, []string{"code"}),
		hookTime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "slipway_webhook_seconds", Help: "Time to the answer of a webhook.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		runs:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "slipway_attempts_total", Help: "Attempts at runs by how they ended."}, []string{"state"}),
		runTime:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "slipway_attempt_seconds", Help: "Time of attempts at runs.", Buckets: prometheus.ExponentialBuckets(0.125, 2, 16)}),
		notices:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "slipway_notices_total", Help: "Webhooks sent to receivers, put off and given up."}, []string{"outcome"}),
		limited:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "slipway_limited_total", Help: "Requests refused because there were too many of an address or a repository."}, []string{"by"}),
		statuses: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "slipway_statuses_total", Help: "Statuses sent to forges, put off and given up."}, []string{"outcome"}),
	}
	m.registry.MustRegister(m.hooks, m.hookTime, m.runs, m.runTime, m.statuses, m.limited, m.notices, &inLedger{s},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// inLedger counts the runs in the ledger when it is asked.
type inLedger struct{ s *Server }

var runsDesc = prometheus.NewDesc("slipway_runs", "Runs in the ledger by state.", []string{"state"}, nil)

func (c *inLedger) Describe(to chan<- *prometheus.Desc) { to <- runsDesc }

func (c *inLedger) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	counts, err := c.s.Ledger.Counts(ctx)
	if err != nil {
		to <- prometheus.NewInvalidMetric(runsDesc, err)
		return
	}
	for state, n := range counts {
		to <- prometheus.MustNewConstMetric(runsDesc, prometheus.GaugeValue, float64(n), string(state))
	}
}
