//go:build linux && !client

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"slipway/internal/attest"
	"slipway/internal/ledger"
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

// unsigned says why nothing of an upload is signed.
func unsigned(time.Time) (attest.Signer, error) {
	return attest.Signer{}, errors.New("it was uploaded, and what a person's machine sends proves nothing; push the commit")
}
