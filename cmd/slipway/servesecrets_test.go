package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"slipway/internal/ledger"
)

// A secret reaches the test that names it and no file of the root: not the log,
// the ledger, a record, an image or a proof.
func TestServeKeepsSecrets(t *testing.T) {
	const canary = "canary-7f3e9a51c2d84b60"
	v := newServed(t)
	set := v.slipway("secrets", "set", "TOKEN", "--repo", "example/web")
	set.Stdin = strings.NewReader(canary + "\n")
	if out, err := set.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	v.write(t, ".ci.yml", "version: 1\nimages: {web: {build: ., tests: {unit: {command: \"cat /run/secrets/TOKEN; base64 /run/secrets/TOKEN; grep -q canary /run/secrets/TOKEN && echo it is there\", secrets: [TOKEN]}}}}\n")
	commit := v.commit(t, "uses a secret")
	v.start(t)
	v.push(t, "d", zeros, commit)
	r := v.until(t, commit, "over", func(r ledger.Run) bool { return r.State.Over() })
	if log := string(v.must(t, "logs", r.ID)); r.State != ledger.Passed || !strings.Contains(log, "it is there") {
		t.Errorf("%s %s\n%s", r.State, r.Reason, log)
	}
	if code := v.stop(t, syscall.SIGTERM); code != exitDone {
		t.Errorf("stopped with %d", code)
	}
	files, logs := 0, 0
	err := filepath.WalkDir(v.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() > 256<<20 { // a sparse store of volumes
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if bytes.Contains(data, []byte("it is there")) {
			logs++
		}
		for _, form := range []string{canary, "Y2FuYXJ5LTdmM2U5YTUxYzJkODRiNjA"} { // as it is, and in base64
			if bytes.Contains(data, []byte(form)) {
				t.Errorf("%s holds %s", path, form)
			}
		}
		return nil
	})
	if err != nil || logs == 0 {
		t.Fatalf("looked at %d files, the log in %d of them: %v", files, logs, err)
	}
}
