package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A pipeline file may be a link, but not to a file outside: its lines would be
// shown in errors.
func TestPipelineFileInside(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "app")
	for name, text := range map[string]string{"app/real.yml": "version: 1\nimages: {a: {build: .}}\n", "key": "TOKEN=s3cret\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(top, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(top, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for target, good := range map[string]bool{"real.yml": true, "../key": false, filepath.Join(top, "key"): false} {
		link := filepath.Join(dir, pipelineFile)
		_ = os.Remove(link) // of the trial before
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		_, _, err := load(dir)
		if (err == nil) != good || err != nil && (strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "escapes")) {
			t.Errorf("a link to %s: %v", target, err)
		}
	}
}
