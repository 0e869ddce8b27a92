package server

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"slipway/internal/ledger"
	"slipway/pipeline"
)

// A run is one trace, from its acceptance to the end of its promotion, with servers
// stopping and starting in between. So nothing of it is kept: the trace's ID, and
// that of its first span, follow from the ID of the run.

// traceOf gives the IDs of a run's trace and of the first span in it.
func traceOf(run string) (t trace.TraceID, first trace.SpanID) {
	sum := sha256.Sum256([]byte("slipway run " + run))
	copy(t[:], sum[:])
	copy(first[:], sum[len(t):])
	return t, first
}

type firstOf struct{}

// TraceIDs makes the IDs of spans; a provider of Options.Tracer must use it.
type TraceIDs struct{}

// NewIDs implements the SDK's IDGenerator.
func (g TraceIDs) NewIDs(ctx context.Context) (t trace.TraceID, s trace.SpanID) {
	if run, ok := ctx.Value(firstOf{}).(string); ok {
		return traceOf(run)
	}
	for i := range t {
		t[i] = byte(rand.Uint32())
	}
	return t, g.NewSpanID(ctx, t)
}

// NewSpanID implements the SDK's IDGenerator.
func (TraceIDs) NewSpanID(context.Context, trace.TraceID) (s trace.SpanID) {
	for i := range s {
		s[i] = byte(rand.Uint32())
	}
	s[0] |= 1 // an ID is not all zeros
	return s
}

// traceAccepted is the first span of each run that came of something: a webhook, a
// schedule, an upload.
func (s *Server) traceAccepted(what string, began time.Time, repo string, runs []string) {
	for _, run := range runs {
		_, span := s.Tracer.Start(context.WithValue(context.Background(), firstOf{}, run), what, trace.WithNewRoot(), trace.WithTimestamp(began),
			trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String("slipway.run", run), attribute.String("slipway.repository", repo)))
		span.End()
	}
}

// within is a context of a run's trace. It is not what the run is carried out under:
// libraries would put spans of their own into it.
func within(run ledger.Run) context.Context {
	t, first := traceOf(run.ID)
	return trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: t, SpanID: first, TraceFlags: trace.FlagsSampled, Remote: true}))
}

// span begins a span right under the first one.
func (s *Server) span(run ledger.Run, name string, began time.Time) (context.Context, trace.Span) {
	return s.Tracer.Start(within(run), name, trace.WithTimestamp(began), trace.WithAttributes(
		attribute.String("slipway.run", run.ID), attribute.String("slipway.repository", run.Name), attribute.String("slipway.ref", run.Ref),
		attribute.String("slipway.commit", run.Commit), attribute.Int("slipway.attempt", run.Attempts)))
}

func endSpan(span trace.Span, end ledger.End) {
	span.SetAttributes(attribute.String("slipway.state", string(end.State)))
	if end.State == ledger.Failed || end.State == ledger.Broken {
		failed(span, end.Reason)
	}
	span.End()
}

// failed marks a span; nothing is said where there is no reason.
func failed(span trace.Span, reason string) {
	if reason != "" {
		span.SetStatus(codes.Error, reason)
	}
}

// taskSpans makes spans of the news of an attempt: one of each task, and below it one
// of each step.
type taskSpans struct {
	tracer trace.Tracer
	under  context.Context //nolint:containedctx // the attempt's span, not a life time

	mu    sync.Mutex
	tasks map[string]*taskSpan
	steps map[string]bool // that have ended
}

type taskSpan struct {
	trace.Span
	under context.Context //nolint:containedctx // the same
	last  time.Time       // end of its last step
}

func (a *taskSpans) progress(p pipeline.Progress) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range p.Steps {
		if s.Started == nil {
			continue
		}
		task := a.tasks[p.Task]
		if task == nil {
			task = &taskSpan{last: *s.Started}
			task.under, task.Span = a.tracer.Start(a.under, p.Task, trace.WithTimestamp(*s.Started))
			a.tasks[p.Task] = task
		}
		if s.Completed == nil || a.steps[s.ID] {
			continue
		}
		a.steps[s.ID] = true
		_, span := a.tracer.Start(task.under, s.Name, trace.WithTimestamp(*s.Started), trace.WithAttributes(attribute.Bool("slipway.cached", s.Cached)))
		failed(span, s.Error)
		failed(task, s.Error)
		span.End(trace.WithTimestamp(*s.Completed))
		if s.Completed.After(task.last) {
			task.last = *s.Completed
		}
	}
}

func (a *taskSpans) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, task := range a.tasks {
		task.End(trace.WithTimestamp(task.last))
	}
}
