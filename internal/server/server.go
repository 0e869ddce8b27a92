// Package server takes webhooks and API requests in, has the runs that come of
// them carried out, and says what became of them. How a pipeline is run and an
// image promoted are funcs that cmd fills in; what must survive is in the ledger.
//
// It refuses to answer a delivery before it is on the disk, to show anything but
// its health to who has no token, and to hold a truth of its own: killed at any
// moment, the next start finds in the ledger what was promised.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/semaphore"

	"slipway/internal/forge"
	"slipway/internal/ledger"
	"slipway/internal/upload"
	"slipway/promote"
)

// Options are what a server is made of. Every field but Client, Drain, Limits, Log, NoticeClient, Tracer and those
// of Look and Collect must be set.
type Options struct {
	Ledger *ledger.Ledger
	// Run carries out one attempt at a run. ctx ends when it is to stop, with the
	// reason as its cause. An error is slipway's own failure; after an Away the run is
	// tried again, later.
	Run func(ctx context.Context, repo ledger.Repo, run ledger.Run, log *Log) (ledger.End, error)
	// Promote brings what a run has built to where it goes by itself, and says what
	// it did. An error is tried again.
	Promote func(ctx context.Context, repo ledger.Repo, run ledger.Run) (detail string, err error)
	NewID   func() string                // of runs and records; grows with time
	LogFile func(record string) string   // where the log of an attempt is kept
	Public  string                       // the address that people and forges reach it by, without a slash at the end
	Runs    int                          // at once
	Drain   time.Duration                // what runs may go on that long when the server is to end
	Client  *http.Client                 // for statuses; nil: forge's own
	Reach   func(repo ledger.Repo) Reach // how the forge's API is reached
	// NoticeClient sends webhooks to receivers; nil: forge's own.
	NoticeClient *http.Client
	Log          zerolog.Logger
	Tracer       trace.Tracer // of runs; nil: none
	Limits       Limits
	Uploads      upload.Store
	// Foretell says what a run would do that is not made; a Refusal, why there can be none.
	Foretell func(ctx context.Context, run ledger.Run) (Foretold, error)
	// Promoter lends what a promotion needs to do, with what it says going to out.
	Promoter func(ctx context.Context, person string, out io.Writer, do func(*promote.Promoter) error) error
	// Chores are what only the holder of the root can do for commands of the same machine,
	// by name. What is asked and answered is between those commands and cmd; what is said
	// meanwhile goes to out. ctx ends when whoever asked has gone.
	Chores map[string]func(ctx context.Context, ask json.RawMessage, out io.Writer) (answer any)
	// Kept lists the failed tests that stay. Shell joins a console to one, until the
	// command ends or ctx does: then the person is gone. Thaw removes one. Tidy gives back now and then what they held that are gone.
	Kept  func(ctx context.Context) ([]Kept, error)
	Shell func(ctx context.Context, k Kept, q ShellRequest, c Console) (ShellEnd, error)
	Thaw  func(ctx context.Context, k Kept) error
	Tidy  func(ctx context.Context) error

	// Look says where the branches and tags of a repository are, by their whole names.
	// It is asked when a schedule is due, and every LookEvery, for pushes whose webhook
	// was lost; 0: never.
	Look      func(ctx context.Context, repo ledger.Repo) (map[string]string, error)
	LookEvery time.Duration
	SeenFile  func(repo ledger.Repo) string // where it is kept what the last look saw

	// Collect frees space in the root. It is called while nothing runs: when somebody
	// asks, every CollectEvery (0: never), and when Short says that there is little left.
	Collect      func(ctx context.Context, how Retention) (Collected, error)
	Retain       Retention
	CollectEvery time.Duration
	Short        func() (bool, error)
}

// Reach says where a forge takes statuses, and by which token; without one none are sent.
type Reach struct {
	API, Token string
}

// Server serves one root.
type Server struct {
	Options
	poke       chan struct{} // there may be a run to take
	sayable    chan struct{} // there may be a status to send
	promotable chan struct{} // there may be something to promote
	room       *semaphore.Weighted
	inUse      *semaphore.Weighted // the root: by runs and promotions, or by who frees space
	metrics    *metrics
	strangers  *buckets[netip.Prefix]
	hooked     *buckets[string] // by repository
	uploading  chan struct{}
	bells      bells

	mu    sync.Mutex
	going map[string]context.CancelCauseFunc // by run
}

// inMemory bounds the bytes of webhooks that are being read.
const inMemory = 8 * forge.MaxBody

// New makes a server that does nothing yet.
func New(o Options) *Server {
	if o.Tracer == nil {
		o.Tracer = noop.NewTracerProvider().Tracer("")
	}
	s := &Server{
		Options: o, poke: make(chan struct{}, 1), sayable: make(chan struct{}, 1), promotable: make(chan struct{}, 1),
		strangers: newBuckets[netip.Prefix](o.Limits.Strangers), hooked: newBuckets[string](o.Limits.Webhooks),
		room: semaphore.NewWeighted(inMemory), inUse: semaphore.NewWeighted(users), going: map[string]context.CancelCauseFunc{}, uploading: make(chan struct{}, uploadsAtOnce),
	}
	s.metrics = newMetrics(s)
	return s
}

// errStopping is the cause of a run that gives way to the end of the server.
var errStopping = errors.New("the server stops; the run goes on at its next start")

// Work takes up what an earlier process left, then carries out runs, promotions
// and statuses until ctx ends, and lets what runs finish for a while. It is
// called once, by the process that holds the root.
func (s *Server) Work(ctx context.Context) error {
	n, err := s.Ledger.Recover(ctx, true)
	if err != nil {
		return err
	}
	if n > 0 {
		s.Log.Info().Int("runs", n).Msg("taken up again: the server ended while they ran")
	}
	running, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var all sync.WaitGroup
	all.Go(func() { s.takeRuns(ctx, running) })
	all.Go(func() { // what commands of this machine have begun may go on as runs do
		<-ctx.Done()
		if s.inUse.Acquire(running, users) == nil {
			s.inUse.Release(users)
		}
	})
	all.Go(func() { s.every(ctx, time.Second, s.sayable, s.sendStatuses) })
	all.Go(func() { s.every(ctx, time.Second, nil, s.sendNotices) })
	all.Go(func() {
		s.every(ctx, time.Second, s.promotable, func(ctx context.Context) error { return s.promote(ctx, running) })
	})
	all.Go(func() { s.every(ctx, 300*time.Millisecond, nil, s.cancelRuns) })
	all.Go(func() { s.every(ctx, time.Hour, nil, s.forget) })
	if s.Short != nil {
		all.Go(func() {
			s.every(ctx, time.Minute, nil, (&collector{Server: s, due: time.Now().Add(firstLook)}).look)
		})
	}
	if s.Look != nil {
		all.Go(func() { s.every(ctx, time.Second, nil, (&scheduler{Server: s, later: map[string]time.Time{}}).keep) })
	}
	if s.LookEvery > 0 {
		all.Go(func() { s.every(ctx, s.LookEvery, nil, (&reconciler{Server: s}).reconcile) })
	}
	if s.Tidy != nil {
		all.Go(func() { s.every(ctx, 15*time.Second, nil, s.Tidy) })
	}
	beating, rest := context.WithCancel(context.WithoutCancel(ctx)) // runs go on for a while after ctx has ended
	var heart sync.WaitGroup
	heart.Go(func() { s.every(beating, ledger.Lease/4, nil, s.beat) })
	defer heart.Wait()
	defer rest()
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	<-ctx.Done()
	s.Log.Info().Dur("drain_ms", s.Drain).Msg("no more runs are taken")
	select {
	case <-ended:
	case <-time.After(s.Drain):
		stop(errStopping)
		<-ended
	}
	return nil
}

// every does something at intervals, and when it is woken, until ctx ends.
func (s *Server) every(ctx context.Context, interval time.Duration, wake <-chan struct{}, do func(context.Context) error) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error().Err(err).Msg("the server goes on, and tries again")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-wake:
		}
	}
}

// nudge wakes whoever waits on c, or finds him awake.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *Server) forget(ctx context.Context) error {
	return errors.Join(s.Ledger.ForgetDeliveries(ctx, time.Now().Add(-ledger.KnownFor)), s.sweepUploads(ctx))
}

// beat says that this server lives and what it goes on with, and looks for runs
// that nobody goes on with. The order matters to a machine that has slept.
func (s *Server) beat(ctx context.Context) error {
	s.mu.Lock()
	going := slices.Collect(maps.Keys(s.going))
	s.mu.Unlock()
	if err := s.Ledger.Beat(ctx, going); err != nil {
		return err
	}
	n, err := s.Ledger.Recover(ctx, false)
	if n > 0 {
		nudge(s.poke)
	}
	return err
}
