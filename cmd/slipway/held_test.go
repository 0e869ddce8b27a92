package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nothingHeld fails when copies of volumes are left, loop devices on files of the
// root, or mounts of it in any namespace.
func (p place) nothingHeld(t *testing.T, when string) {
	t.Helper()
	// A mount goes, and its loop device with it, when the last mount namespace that
	// was copied meanwhile has heard of it: other programs make those all the time. Where
	// / is no shared mount they never hear, and it goes with them: a helper of another
	// root, in tests of other packages beside this one, lives for a while.
	var held []string
	for range 1200 {
		if held = p.held(); len(held) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%s: still held: %v", when, held)
}

func (p place) held() (held []string) {
	for _, pattern := range []string{p.root + "/volumes/*/sessions/*", p.root + "/volumes/sessions/*"} {
		left, _ := filepath.Glob(pattern) // the pattern is right
		held = append(held, left...)
	}
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range backing {
		if file, _ := os.ReadFile(f); strings.HasPrefix(string(file), p.root+"/") {
			held = append(held, filepath.Base(filepath.Dir(filepath.Dir(f)))+" is "+string(file))
		}
	}
	namespaces, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, m := range namespaces {
		if text, _ := os.ReadFile(m); strings.Contains(string(text), p.root+"/") {
			line, _ := os.ReadFile(filepath.Join(filepath.Dir(m), "cmdline"))
			held = append(held, fmt.Sprintf("%s (%q) has mounts of it", filepath.Dir(m), line))
		}
	}
	return held
}
