package server

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/ledger"
)

// scheduler makes the runs of the schedules that are due.
type scheduler struct {
	*Server
	mu    sync.Mutex
	later map[string]time.Time // when to ask a repository again that did not answer
}

// askAgain is how long a repository that does not answer is left alone.
const askAgain = 30 * time.Second

// keep looks at the clock. A repository that cannot be reached holds up no other;
// what is due of it stays so.
func (s *scheduler) keep(ctx context.Context) error {
	due, err := s.Ledger.DueSchedules(ctx, time.Now())
	if err != nil {
		return err
	}
	var jobs errgroup.Group
	jobs.SetLimit(sending)
	for _, d := range due {
		if time.Now().Before(s.asked(d.Repo)) {
			continue
		}
		jobs.Go(func() error {
			if err := s.keepOne(ctx, d); err != nil && ctx.Err() == nil {
				s.mu.Lock()
				s.later[d.Repo] = time.Now().Add(askAgain)
				s.mu.Unlock()
				s.Log.Warn().Err(err).Str("repo", d.Of).Str("schedule", d.Name).Msg("a schedule is due and no run can be made; slipway tries again")
			}
			return nil
		})
	}
	return jobs.Wait()
}

func (s *scheduler) asked(repo string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.later[repo]
}

func (s *scheduler) keepOne(ctx context.Context, d ledger.Schedule) error {
	repo, err := s.Ledger.Repo(ctx, d.Repo)
	if err != nil {
		return err
	}
	refs, err := s.Look(ctx, repo)
	if err != nil {
		return fmt.Errorf("look where %s is: %w", d.Branch, err)
	}
	commit := refs["refs/heads/"+d.Branch]
	if commit == "" {
		s.Log.Warn().Str("repo", d.Of).Str("schedule", d.Name).Str("branch", d.Branch).Msg("a schedule is due and its branch is not there; nothing is run")
	}
	run, began := s.NewID(), time.Now()
	made, err := s.Ledger.Keep(ctx, d, run, commit, time.Now())
	if made {
		s.traceAccepted("schedule", began, d.Of, []string{run})
		s.Log.Info().Str("repo", d.Of).Str("schedule", d.Name).Str("run", run).Time("due", d.Due).Msg("a schedule is due")
		nudge(s.poke)
		nudge(s.sayable)
	}
	return err
}

type scheduleList struct {
	Schedules []ledger.Schedule `json:"schedules"`
}

func (s *Server) schedules(w http.ResponseWriter, r *http.Request) {
	all, err := s.Ledger.Schedules(r.Context())
	if err != nil {
		s.fail(w, err)
		return
	}
	s.say(w, http.StatusOK, scheduleList{orEmpty(all)})
}
