package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"slipway/internal/forge"
	"slipway/internal/ledger"
	"slipway/pipeline"
)

// takeRuns takes runs, as many at a time as there may be, until ctx ends, and
// waits for them. running is what they run under: it lasts longer.
func (s *Server) takeRuns(ctx, running context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	slots := make(chan struct{}, s.Runs)
	for {
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		run, err := s.next(ctx)
		if err != nil {
			return // ctx ended
		}
		all.Go(func() {
			defer func() { <-slots }()
			s.carry(running, run)
		})
	}
}

// next waits for a run. It looks every second, too: another process may have put one there.
func (s *Server) next(ctx context.Context) (ledger.Run, error) {
	record := s.NewID()
	for {
		run, err := s.Ledger.Take(ctx, record)
		switch {
		case err == nil:
			return run, nil
		case ctx.Err() != nil:
			return run, ctx.Err()
		case !errors.Is(err, ledger.ErrNone):
			s.Log.Error().Err(err).Msg("no run can be taken; slipway tries again")
		}
		select {
		case <-ctx.Done():
			return run, ctx.Err()
		case <-s.poke:
		case <-time.After(time.Second):
		}
	}
}

// carry carries one run out and writes down what came of it.
func (s *Server) carry(running context.Context, run ledger.Run) {
	ctx, cancel := context.WithCancelCause(running)
	defer cancel(nil)
	s.mu.Lock()
	s.going[run.ID] = cancel
	s.mu.Unlock()
	log := s.Log.With().Str("run", run.ID).Str("repo", run.Name).Int("attempt", run.Attempts).Logger()
	began := time.Now()
	under, span := s.span(run, "run", began)
	if span.IsRecording() {
		log = log.With().Stringer("trace_id", span.SpanContext().TraceID()).Logger()
	}
	if run.Attempts == 1 {
		_, waited := s.span(run, "wait", run.Created)
		waited.End(trace.WithTimestamp(began))
	}
	spans := &taskSpans{tracer: s.Tracer, under: under, tasks: map[string]*taskSpan{}, steps: map[string]bool{}}
	log.Info().Str("commit", run.Commit).Str("ref", run.Ref).Dur("waited_ms", time.Since(run.Created)).Msg("run begins")
	release := s.use(ctx)
	end := s.attempt(ctx, run, spans.progress)
	release()
	spans.end()
	endSpan(span, end)
	err := s.insist(func(ctx context.Context) error {
		switch {
		case errors.Is(context.Cause(running), errStopping) && end.State == ledger.Canceled:
			return s.Ledger.GiveBack(ctx, run, errStopping.Error())
		case end.State == ledger.Queued:
			return s.Ledger.PutOff(ctx, run, end.Reason, end.Again, end.Others)
		}
		return s.Ledger.Finish(ctx, run, end)
	})
	s.mu.Lock()
	delete(s.going, run.ID)
	s.mu.Unlock()
	s.bells.ring(run.ID)
	s.metrics.runs.WithLabelValues(string(end.State)).Inc()
	s.metrics.runTime.Observe(time.Since(began).Seconds())
	log.Info().Str("state", string(end.State)).Str("reason", end.Reason).Dur("took_ms", time.Since(began)).AnErr("error", err).Msg("run ended")
	nudge(s.sayable)
	nudge(s.promotable)
}

// use keeps what is in the root there until it is released. Where ctx ends before
// that can be, nothing is begun any more that would need it.
func (s *Server) use(ctx context.Context) (release func()) {
	if s.inUse.Acquire(ctx, 1) != nil {
		return func() {}
	}
	return func() { s.inUse.Release(1) }
}

// insist does with the ledger what must be done: it tries for some minutes,
// whatever else ends. What could not be written is found at the next start.
func (s *Server) insist(do func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err = do(ctx)
		if err == nil || errors.Is(err, ledger.ErrTaken) || errors.Is(err, ledger.ErrNone) {
			return err
		}
		s.Log.Error().Err(err).Msg("the ledger cannot be read or written; slipway tries again")
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// Away is an error of a run that needs what does not answer now, and may soon.
type Away struct {
	Err error
	All bool // it answers nobody: the other runs of the same source need not ask meanwhile
}

func (a *Away) Error() string { return a.Err.Error() }

func (a *Away) Unwrap() error { return a.Err }

// pauses are how long a run waits, in the queue, before what was away is asked again:
// five minutes in all, for a forge that is being brought up to date.
var pauses = [...]time.Duration{
	time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, time.Minute, time.Minute, time.Minute,
}

// cutShort is the end of an attempt that an error ended.
func (s *Server) cutShort(ctx context.Context, run ledger.Run, err error) ledger.End {
	var away *Away
	switch {
	case ctx.Err() != nil:
		return ledger.End{State: ledger.Canceled, Reason: context.Cause(ctx).Error()}
	case errors.As(err, &away):
		waited, unknown := s.Ledger.Waited(ctx, run.ID)
		if unknown == nil && waited < len(pauses) {
			now := time.Now()
			end := ledger.End{State: ledger.Queued, Reason: fmt.Sprintf("%v; slipway asks again in %s", err, pauses[waited]), Again: now.Add(pauses[waited]), Others: now}
			if away.All {
				end.Others = end.Again
			}
			return end
		}
		err = errors.Join(err, unknown)
	}
	return ledger.End{State: ledger.Broken, Reason: err.Error()}
}

// attempt tells news of what it does.
func (s *Server) attempt(ctx context.Context, run ledger.Run, news func(pipeline.Progress)) ledger.End {
	broken := func(err error) ledger.End { return s.cutShort(ctx, run, err) }
	var repo ledger.Repo
	err := s.insist(func(ctx context.Context) (err error) {
		repo, err = s.Ledger.Repo(ctx, run.Repo)
		return err
	})
	if err != nil {
		return broken(err)
	}
	log, err := NewLog(s.LogFile(run.Record), func() { s.bells.ring(run.ID) })
	if err != nil {
		return broken(err)
	}
	log.news = news
	end, err := s.guarded(ctx, repo, run, log)
	if err != nil {
		end = broken(err)
	}
	if end.Reason != "" {
		log.Say("", string(end.State)+": "+end.Reason)
	}
	if err := log.Close(); err != nil && end.State == ledger.Passed {
		return broken(fmt.Errorf("keep the log: %w", err))
	}
	return end
}

// guarded makes an error of a panic: one run must not take others with it.
func (s *Server) guarded(ctx context.Context, repo ledger.Repo, run ledger.Run, log *Log) (end ledger.End, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("slipway panicked: %v; please report it", p)
			s.Log.Error().Stack().Interface("panic", p).Str("run", run.ID).Msg("a run panicked")
		}
	}()
	return s.Run(ctx, repo, run, log)
}

// cancelRuns ends the runs that are to end.
func (s *Server) cancelRuns(ctx context.Context) error {
	s.mu.Lock()
	n := len(s.going)
	s.mu.Unlock()
	if n == 0 {
		return nil
	}
	all, err := s.Ledger.Cancels(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, why := range all {
		if cancel := s.going[id]; cancel != nil {
			cancel(errors.New(why))
		}
	}
	return err
}

// backoff is how long to wait after so many tries: 2 s, 4 s, … 10 min, give or take a quarter.
func backoff(tries int) time.Duration {
	d := min(10*time.Minute, time.Second<<min(tries+1, 20))
	return d*3/4 + rand.N(d/2)
}

// maxTries is how often a promotion or a status is tried: for about three hours.
const maxTries = 25

// promote does the promotions that are due. One that is on when ctx ends goes on
// until running does.
func (s *Server) promote(ctx, running context.Context) error {
	for ctx.Err() == nil {
		run, p, err := s.Ledger.TakePromotion(ctx, time.Now())
		if errors.Is(err, ledger.ErrNone) {
			return nil
		}
		if err != nil {
			return err
		}
		repo, err := s.Ledger.Repo(ctx, run.Repo)
		detail := ""
		if err == nil {
			_, span := s.span(run, "promotion", time.Now())
			release := s.use(running)
			detail, err = s.Promote(running, repo, run)
			release()
			if err != nil {
				failed(span, err.Error())
			}
			span.SetAttributes(attribute.String("slipway.detail", detail))
			span.End()
		}
		again := time.Time{}
		if err != nil {
			detail = err.Error()
			if p.Tries < maxTries {
				again = time.Now().Add(backoff(p.Tries))
			}
		}
		s.Log.Info().Str("run", run.ID).Str("repo", run.Name).Str("detail", detail).AnErr("error", err).Msg("promotion tried")
		if err := s.insist(func(ctx context.Context) error { return s.Ledger.EndPromotion(ctx, p, detail, again) }); err != nil {
			return err
		}
	}
	return nil
}

// atOnce is how many statuses are looked at together, and sending how many are
// under way.
const (
	atOnce  = 256
	sending = 8
)

// sendStatuses tells forges what is due. One that does not answer holds up no run.
func (s *Server) sendStatuses(ctx context.Context) error {
	due, err := s.Ledger.DueStatuses(ctx, time.Now(), atOnce)
	if err != nil {
		return err
	}
	var unsaid []ledger.Status
	var jobs errgroup.Group
	jobs.SetLimit(sending)
	repos := map[string]ledger.Repo{}
	for _, status := range due {
		repo, ok := repos[status.Repo]
		if !ok {
			if repo, err = s.Ledger.Repo(ctx, status.Repo); err != nil {
				return errors.Join(err, jobs.Wait())
			}
			repos[status.Repo] = repo
		}
		if reach := s.Reach(repo); reach.Token != "" && len(status.SHA) >= 40 {
			jobs.Go(func() error { return s.send(ctx, repo, reach, status) })
		} else {
			unsaid = append(unsaid, status)
		}
	}
	err = errors.Join(jobs.Wait(), s.Ledger.Unsaid(ctx, unsaid, "nobody to tell: no token, or no whole commit"))
	switch {
	case len(due) == atOnce:
		nudge(s.sayable)
	case len(unsaid) > 0: // nobody waits for the next of these: they come together, and keep no delivery from the disk
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return err
}

func (s *Server) send(ctx context.Context, repo ledger.Repo, reach Reach, status ledger.Status) error {
	reporter, err := forge.NewReporter(forge.Kind(repo.Forge), reach.API, reach.Token, s.Client)
	if err == nil {
		err = reporter.Post(ctx, repo.Name, statusOf(status, s.Public))
	}
	gaveUp, err := said{
		s.metrics.statuses, status.Tries,
		func(problem string) error { return s.Ledger.Sent(ctx, status, problem) },
		func(due time.Time, problem string) error { return s.Ledger.SendLater(ctx, status, due, problem) },
	}.note(ctx, err)
	if gaveUp != nil {
		s.Log.Warn().Err(gaveUp).Str("repo", repo.Name).Str("run", status.Run).Msg("the forge does not take a status")
	}
	return err
}

// said is something that somebody outside is told.
type said struct {
	count *prometheus.CounterVec
	tries int
	done  func(problem string) error
	later func(due time.Time, problem string) error
}

// note writes down what came of it: sent, put off, or given up and for what.
func (t said) note(ctx context.Context, err error) (gaveUp, _ error) {
	var failed *forge.PostError
	switch {
	case err == nil:
		t.count.WithLabelValues("sent").Inc()
		return nil, t.done("")
	case ctx.Err() != nil:
		return nil, nil
	case errors.As(err, &failed) && failed.Again && t.tries < maxTries:
		t.count.WithLabelValues("put off").Inc()
		return nil, t.later(time.Now().Add(max(failed.After, backoff(t.tries))), err.Error())
	}
	t.count.WithLabelValues("given up").Inc()
	return err, t.done(err.Error())
}

// statusOf is what a forge shows.
func statusOf(s ledger.Status, public string) forge.Status {
	out := forge.Status{Commit: s.SHA, Context: "slipway", Description: s.Says, URL: public + "/runs/" + s.Run}
	if s.Kind == pipeline.Schedule {
		out.Context = "slipway/schedule" // beside that of the push, not in its place
	}
	switch s.State {
	case ledger.Held, ledger.Queued, ledger.Running:
		out.State = forge.Pending
		if s.Says == "" {
			out.Description = "waits for its turn"
		}
	case ledger.Passed:
		out.State = forge.Success
	case ledger.Skipped:
		out.State, out.Description = forge.Success, "skipped: "+s.Says
	case ledger.Failed:
		out.State = forge.Failure
	default:
		out.State = forge.Error
	}
	return out
}
