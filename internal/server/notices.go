package server

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/forge"
	"slipway/internal/ledger"
	"slipway/pipeline"
)

// notice is the body of a webhook of slipway's own, as standard-webhooks.com has it.
type notice struct {
	Type      string     `json:"type"` // run.ended, promotion.ended
	Timestamp time.Time  `json:"timestamp"`
	Data      noticeData `json:"data"`
}

type noticeData struct {
	Run    string             `json:"run"`
	Repo   string             `json:"repo"`
	Event  pipeline.EventKind `json:"event"`
	Ref    string             `json:"ref"`
	Commit string             `json:"commit"`
	Title  string             `json:"title,omitempty"`
	Author string             `json:"author,omitempty"`
	State  string             `json:"state"`
	Says   string             `json:"says,omitempty"` // what passed, why it failed, or how it went in each environment
	URL    string             `json:"url"`
}

// takeAtOnce is how many webhooks are taken from the list together: few enough to be
// sent before others may take them.
const takeAtOnce = 16

// sendNotices tells receivers what is due. One that does not answer holds up no run,
// and others for no longer than one try.
func (s *Server) sendNotices(ctx context.Context) error {
	for ctx.Err() == nil {
		due, err := s.Ledger.TakeNotices(ctx, time.Now(), takeAtOnce)
		if err != nil || len(due) == 0 {
			return err
		}
		var jobs errgroup.Group
		jobs.SetLimit(sending)
		for _, n := range due {
			jobs.Go(func() error { return s.sendNotice(ctx, n) })
		}
		if err := jobs.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) sendNotice(ctx context.Context, n ledger.Notice) error {
	body, err := json.Marshal(notice{n.Event, n.Created.UTC(), noticeData{
		Run: n.Run.ID, Repo: n.Run.Name, Event: n.Run.Kind, Ref: n.Run.Ref, Commit: n.Run.Commit, Title: n.Run.Title, Author: n.Run.Author,
		State: n.State, Says: n.Says, URL: s.Public + "/runs/" + n.Run.ID,
	}})
	if err != nil {
		return err
	}
	out := forge.Outgoing{URL: n.To.URL, Secret: n.To.Secret, Client: s.NoticeClient}
	err = out.Send(ctx, fmt.Sprint(n.Run.ID, "-", n.Seq), time.Now(), body)
	gaveUp, err := said{
		s.metrics.notices, n.Tries,
		func(problem string) error { return s.Ledger.Noticed(ctx, n, problem) },
		func(due time.Time, problem string) error { return s.Ledger.NoticeLater(ctx, n, due, problem) },
	}.note(ctx, err)
	if gaveUp != nil {
		s.Log.Warn().Err(gaveUp).Str("receiver", n.To.ID).Str("run", n.Run.ID).Msg("a receiver does not take a webhook")
	}
	return err
}
