package runner_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/pipeline"
	"slipway/runner"
)

// Parts of different builds say so, and do not misunderstand each other.
func TestOtherBuilds(t *testing.T) {
	b := open(t)
	helper := filepath.Join(t.TempDir(), "slipway-sandbox")
	// One that speaks as an older build does: without a word about its protocol.
	if err := os.WriteFile(helper, []byte("#!/bin/sh\nprintf '{\"Seq\":0}' >&3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*runner.Options){
		"slipway-sandbox is of another build": func(o *runner.Options) { o.Helper = helper },
		"busybox is of another build":         func(o *runner.Options) { o.Agent = programs.busybox },
	} {
		opts := b.opts
		opts.Root = filepath.Join(t.TempDir(), "root")
		edit(&opts)
		r, err := runner.Open(context.Background(), opts)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Test(context.Background(), b.request(pipeline.Test{Command: []string{"true"}}), nil)
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "make build") {
			t.Errorf("%s: got %v", name, err)
		}
		_ = r.Close() // its helper could not start
	}
}
