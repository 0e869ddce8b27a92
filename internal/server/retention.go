package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"slipway/internal/ledger"
)

// Retention is what a root keeps of what may go. What runs use and what
// environments run is kept whatever it says.
type Retention struct {
	Cache     int64 `json:"keep_cache_bytes,omitempty"`    // of build cache; below 0: a tenth of the disk
	Runs      int   `json:"keep_runs,omitempty"`           // so many, with their logs and artifacts,
	RunsFor   int64 `json:"keep_runs_seconds,omitempty"`   // and none that is older; 0: however old
	ImagesFor int64 `json:"keep_images_seconds,omitempty"` // that no tag and no environment names
	LedgerFor int64 `json:"keep_ledger_seconds,omitempty"` // runs in the ledger that no proof and no environment refers to; 0: for ever
}

// Check says what cannot be kept so.
func (r Retention) Check() error {
	if least := int64(ledger.KnownFor.Seconds()); r.LedgerFor != 0 && r.LedgerFor < least {
		return fmt.Errorf("the ledger keeps runs for %d hours at least (--keep-ledger %s), or for ever (0): as long as it knows deliveries that may come again", least/3600, ledger.KnownFor)
	}
	if r.Runs < 0 || r.RunsFor < 0 || r.ImagesFor < 0 {
		return errors.New("--keep-runs, --keep-runs-for and --keep-images take nothing below 0")
	}
	return nil
}

// Collected is what was freed.
type Collected struct {
	CacheBytes  int64 `json:"freed_bytes"`
	Runs        int   `json:"runs_removed"`
	Volumes     int   `json:"volumes_removed"`
	Images      int   `json:"images_removed"`
	ImagesBytes int64 `json:"images_freed_bytes"`
	Mirrors     int   `json:"mirrors_removed"`
	Forgotten   int   `json:"ledger_runs_removed"`
}

const (
	users      = 1 << 20          // of the root at one time; who frees space takes the place of all
	firstLook  = 10 * time.Minute // after the start
	patience   = time.Hour        // with runs that are on, before others wait for the root to be free
	shortPause = 15 * time.Minute // between two times that the disk is short
)

// collect frees space while nothing runs and nothing is promoted: it waits for what
// is on, and what comes meanwhile waits for it.
func (s *Server) collect(ctx context.Context, how Retention) (Collected, error) {
	if err := s.inUse.Acquire(ctx, users); err != nil {
		return Collected{}, context.Cause(ctx)
	}
	defer s.inUse.Release(users)
	return s.collectNow(ctx, how)
}

func (s *Server) collectNow(ctx context.Context, how Retention) (Collected, error) {
	began := time.Now()
	got, err := s.Collect(ctx, how)
	s.Log.Info().Interface("collected", got).Dur("took_ms", time.Since(began)).AnErr("error", err).Msg("space was freed")
	return got, err
}

// collector frees space by the clock, and when there is little left.
type collector struct {
	*Server
	due, short time.Time // when to next
}

// look frees space where it is time to. A server that is never idle is given an
// hour before it makes itself so; where the disk is short it does so at once, and
// keeps no build cache.
func (c *collector) look(ctx context.Context) error {
	now := time.Now()
	if now.After(c.short) {
		short, err := c.Short()
		if err != nil {
			return err
		}
		if short {
			c.short = now.Add(shortPause)
			c.Log.Warn().Msg("the disk is nearly full: build cache goes, and what is to go by --keep-runs and --keep-images")
			how := c.Retain
			how.Cache = 0
			_, err := c.collect(ctx, how)
			return err
		}
	}
	if c.CollectEvery == 0 || now.Before(c.due) {
		return nil
	}
	if !c.inUse.TryAcquire(users) {
		if now.Before(c.due.Add(patience)) {
			return nil
		}
		if err := c.inUse.Acquire(ctx, users); err != nil {
			return context.Cause(ctx)
		}
	}
	defer c.inUse.Release(users)
	c.due = now.Add(c.CollectEvery)
	_, err := c.collectNow(ctx, c.Retain)
	return err
}

// gc frees space for who asks: by the server's own rules, but for what he says.
func (s *Server) gc(w http.ResponseWriter, r *http.Request) {
	how := s.Retain
	if !s.take(w, r, &how) {
		return
	}
	if err := how.Check(); err != nil {
		s.say(w, http.StatusBadRequest, problem{err.Error()})
		return
	}
	if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil { // runs may take hours
		s.fail(w, err)
		return
	}
	got, err := s.collect(r.Context(), how)
	detail := "done"
	if err != nil {
		detail = err.Error()
	}
	if e := s.Ledger.Note(context.WithoutCancel(r.Context()), ledger.Deed{At: time.Now(), Actor: identityOf(r.Context()).actor, Action: "gc", Detail: detail}); e != nil && err == nil {
		err = e
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	s.say(w, http.StatusOK, got)
}
