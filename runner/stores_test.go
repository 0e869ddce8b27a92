package runner_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/need"
	"slipway/internal/volume"
)

// The helper holds no volume store of another root, and sees its own.
func TestStoresOfOthers(t *testing.T) {
	_, missing := exec.LookPath("mkfs.xfs")
	need.Have(t, "xfs", missing)
	root := t.TempDir()
	other, err := volume.Open(t.Context(), volume.Options{Root: root, Backend: volume.XFSLoop})
	if err != nil {
		t.Fatal(err)
	}
	b := open(t)
	own, err := volume.Open(t.Context(), volume.Options{Root: filepath.Dir(b.opts.Root), Backend: volume.XFSLoop})
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
	b.reopen()
	b.passes("true") // the helper is ready
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", b.helperPID()))
	if text := string(mounts); err != nil || strings.Contains(text, root+"/") || !strings.Contains(text, filepath.Dir(b.opts.Root)+"/volumes/data ") {
		t.Errorf("%v; its mounts:\n%s", err, text)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(10 * time.Second); strings.Contains(loops(), root+"/"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the loop device of a store that is closed is still there:\n%s", loops())
		}
	}
	if err := errors.Join(b.Close(), own.Close()); err != nil {
		t.Error(err)
	}
}

// loops are the files that loop devices are on.
func loops() string {
	all, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var files strings.Builder
	for _, path := range all {
		file, _ := os.ReadFile(path)
		files.Write(file)
	}
	return files.String()
}
