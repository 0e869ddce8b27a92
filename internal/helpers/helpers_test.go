package helpers_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"slipway/internal/helpers"
)

func TestFindBeside(t *testing.T) {
	dir := t.TempDir()
	f := helpers.Finder{Beside: dir}
	if _, err := f.Find(helpers.Agent); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Fatalf("a missing program gave %v", err)
	}
	want := filepath.Join(dir, helpers.Agent)
	if err := os.WriteFile(want, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Find(helpers.Agent); err != nil || got != want {
		t.Fatalf("Find = %q, %v", got, err)
	}
}

func TestFindEmbeddedReplacesATamperedCopy(t *testing.T) {
	f := helpers.Finder{Root: t.TempDir(), Embedded: fstest.MapFS{helpers.Runc: {Data: []byte("#!/bin/sh\n")}}}
	path, err := f.Find(helpers.Runc)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("other"), 0o755); err != nil {
		t.Fatal(err)
	}
	again, err := f.Find(helpers.Runc)
	if err != nil || again != path {
		t.Fatalf("Find = %q, %v", again, err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "#!/bin/sh\n" {
		t.Fatalf("the copy holds %q, %v", data, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o755 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
}
