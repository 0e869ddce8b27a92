//go:build linux && !client

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"github.com/opencontainers/go-digest"

	"slipway/internal/ledger"
	"slipway/internal/store"
	"slipway/pipeline"
	"slipway/promote"
)

// promoteRun promotes what a run has built to the environments that take it by
// themselves (`auto`), as `slipway promote` does: the gates decide. A gate that is
// shut is told and not tried again; an error is.
func (v *serving) promoteRun(ctx context.Context, repo ledger.Repo, run ledger.Run) (detail string, err error) {
	if newer, err := v.ledger.Newer(ctx, run); err != nil || newer {
		return "a newer run has passed", err
	}
	var record store.Run
	if err := json.Unmarshal(run.Result, &record); err != nil {
		return "", fmt.Errorf("the record of run %s: %w", run.ID, err)
	}
	var said []string
	err = v.withPromoter(ctx, v.flags.environmentFlags, func(p *promote.Promoter) error {
		state, err := p.Environments.Read(ctx)
		if wrongPromotion(err) {
			return nil // no environments are there
		}
		if err != nil {
			return err
		}
		for _, name := range state.Names() {
			f, err := state.File(name)
			if err != nil {
				said = append(said, name+": "+err.Error())
				continue
			}
			if f.Environment.Auto != nil && f.Environment.Source.Repository == "" {
				said = append(said, fmt.Sprintf("%s: has `auto` and no `source`, so nothing goes there by itself; write `source: {repository: %s}` into its file", name, repo.URL))
				continue
			}
			images := automatic(f.Environment, repo, run, record)
			if len(images) == 0 {
				continue
			}
			what, err := v.promoteTo(ctx, p, name, images)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			said = append(said, name+": "+what)
		}
		return nil
	})
	if err == nil && len(said) == 0 {
		return "no environment takes it by itself", nil
	}
	return strings.Join(said, "; "), err
}

// promoter lends what promotions of a person need who asks the server.
func (v *serving) promoter(ctx context.Context, person string, out io.Writer, do func(*promote.Promoter) error) error {
	f := v.flags.environmentFlags
	f.actor = person
	return v.withPromoter(ctx, f, func(p *promote.Promoter) error {
		p.Out = out
		return do(p)
	})
}

func (v *serving) promoteTo(ctx context.Context, p *promote.Promoter, name string, images []promote.Wanted) (string, error) {
	plan, err := p.Plan(ctx, promote.Request{Environment: name, Images: images, Actor: v.flags.person().String()})
	if err == nil {
		var outcome promote.Outcome
		if outcome, _, err = p.Promote(ctx, plan); err == nil {
			return strings.TrimSpace(outcome.State + " " + outcome.Reason), nil
		}
	}
	var lost *promote.Lost
	if wrongPromotion(err) || refusedPromotion(err) && !errors.As(err, &lost) {
		return "refused: " + err.Error(), nil
	}
	return "", err
}

// automatic are the images of a run that an environment takes by itself.
func automatic(e *pipeline.Environment, repo ledger.Repo, run ledger.Run, record store.Run) (images []promote.Wanted) {
	if e.Auto == nil || run.Ref != "refs/heads/"+e.Auto.Branch || e.Source.Repository != repo.URL {
		return nil
	}
	for _, im := range record.Images {
		wanted, ok := e.Images[im.Name]
		if ok && im.Digest != "" && maps.Equal(wanted.Matrix, im.Matrix) {
			images = append(images, promote.Wanted{Name: im.Name, Digest: digest.Digest(im.Digest)})
		}
	}
	return images
}
