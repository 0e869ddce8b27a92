//go:build linux && !client

package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slipway/internal/attest"
	"slipway/internal/engine"
	"slipway/internal/ledger"
	"slipway/internal/server"
	"slipway/internal/upload"
)

// uploads keeps the files of runs that people have sent.
func (v *serving) uploads() upload.Store {
	return upload.Store{Dir: filepath.Join(v.root, "uploads"), Limit: v.flags.uploadLimit << 20}
}

// unpack writes the files of an uploaded run out.
func (v *serving) unpack(ctx context.Context, run ledger.Run, dir string) (checkout, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return checkout{}, err
	}
	return checkout{dir: dir, event: *run.Asked.Event}, v.uploads().Unpack(ctx, run.Asked.Upload, dir)
}

// foretell says what a run of an upload would do, without making one.
func (v *serving) foretell(ctx context.Context, run ledger.Run) (out server.Foretold, err error) {
	dir := filepath.Join(v.workDir(), run.Record)
	defer func() { err = errors.Join(err, v.clear(dir)) }()
	c, err := v.unpack(ctx, run, dir)
	var wrong *upload.Damaged
	if errors.As(err, &wrong) {
		return out, &ledger.Refusal{Why: err.Error()}
	}
	if err != nil {
		return out, err
	}
	secrets, err := v.vault().For(ledger.Uploads, string(run.Kind), false)
	if err != nil {
		return out, err
	}
	plan, err := planOf(c, secrets, run.Asked.Only)
	if err == nil {
		err = v.flags.mayReach(plan, false)
	}
	if err != nil {
		return out, &ledger.Refusal{Why: err.Error()}
	}
	cast, err := v.forecast(ctx, c.dir, plan, c.event, engine.Options{RerunTests: run.Asked.RerunTests, NoCache: run.Asked.NoCache})
	if err != nil {
		return out, err
	}
	var text strings.Builder
	painter{w: &text}.forecast(cast)
	out.Text = text.String()
	out.Forecast, err = json.Marshal(cast)
	return out, err
}

// unsigned says why nothing of an upload is signed.
func unsigned(time.Time) (attest.Signer, error) {
	return attest.Signer{}, errors.New("it was uploaded, and what a person's machine sends proves nothing; push the commit")
}
