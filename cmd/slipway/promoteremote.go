package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"slipway/internal/attest"
	"slipway/internal/server"
	"slipway/promote"
)

// promoteRemotely has a server say what it would do, shows that, asks, and has it
// done: what was shown, or nothing.
func (g *globals) promoteRemotely(ctx context.Context, at serverFlags, wish server.Wish, yes, dryRun bool) error {
	c, err := at.client(g)
	if err != nil {
		return err
	}
	var shown promote.Proposal
	if err := c.ask(ctx, http.MethodPost, "/api/v1/promotions/plan", wish, &shown); err != nil {
		return refusedThere(err)
	}
	return g.carryOut(shown, yes, dryRun, func() (promote.Outcome, promote.Proposal, error) {
		out, last, err := c.carryOut(ctx, server.Confirmed{Wish: wish, Fingerprint: shown.Fingerprint})
		return out, last, refusedThere(err)
	})
}

// carryOut follows a promotion that a server carries out.
func (c *client) carryOut(ctx context.Context, q server.Confirmed) (out promote.Outcome, last promote.Proposal, err error) {
	resp, err := c.send(ctx, http.MethodPost, "/api/v1/promotions", q, nil)
	if err != nil {
		return out, last, err
	}
	defer resp.Body.Close()
	in := json.NewDecoder(resp.Body)
	for {
		var news server.News
		if err := in.Decode(&news); err != nil {
			return out, last, fmt.Errorf("the connection to the server was lost (%w); it goes on there: `slipway env history %s` says how it ended", errors.Join(err, context.Cause(ctx)), q.Environment)
		}
		switch {
		case news.Says != "":
			fmt.Fprintln(os.Stderr, news.Says)
		case news.Error != "" && news.Code >= http.StatusInternalServerError:
			return out, last, fmt.Errorf("the server says: %s", news.Error)
		case news.Error != "":
			return out, last, usageError{&answered{news.Code, news.Error}}
		case news.Outcome != nil && news.Plan != nil:
			return *news.Outcome, *news.Plan, nil
		}
	}
}

// refusedThere gives the exit code of a refused promotion to a server's no: what
// it would do has changed, or somebody was first.
func refusedThere(err error) error {
	var no *answered
	if errors.As(err, &no) && no.code == http.StatusConflict {
		report(os.Stderr, err)
		return exitError(exitRefused)
	}
	return err
}

// approveRemotely signs here what a server asks about, and gives it that. The key
// stays here.
func (g *globals) approveRemotely(ctx context.Context, at serverFlags, wish server.Wish, a promote.Assent, by attest.Signer) ([]promote.Assented, error) {
	c, err := at.client(g)
	if err != nil {
		return nil, err
	}
	var asked server.Asking
	if err := c.ask(ctx, http.MethodPost, "/api/v1/approvals/questions", wish, &asked); err != nil {
		return nil, err
	}
	for _, q := range asked.Questions { // the server may not have another environment signed for than the person has named
		if q.Environment != wish.Environment || !asksFor(wish.Images, q) {
			return nil, fmt.Errorf("the server asks about %s@%s in %s, which is not what you named; nothing was signed", q.Image, q.Subject.Digest, q.Environment)
		}
		if !g.json {
			fmt.Printf("signing %s@%s, commit %.12s, for %s\n", q.Image, q.Subject.Digest, q.Commit, q.Environment)
		}
	}
	signed, err := a.Sign(ctx, asked.Questions, time.Now(), by)
	if err != nil {
		return nil, err
	}
	var done server.Attached
	err = c.ask(ctx, http.MethodPost, "/api/v1/approvals", server.Approved{Wish: wish, Signed: signed}, &done)
	return done.Approvals, err
}

// asksFor says whether a person has named an image of a question. Without a digest
// it is what another environment runs, which only the server knows.
func asksFor(named []promote.Wanted, q promote.Question) bool {
	for _, w := range named {
		if w.Digest == q.Subject.Digest || w.Digest == "" && w.Name == q.Image {
			return true
		}
	}
	return false
}
