package floors

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// TestModule holds this module to its own map.
func TestModule(t *testing.T) {
	files, err := read(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("only %d Go files found: is the test looking at the module's root?", len(files))
	}
	for _, problem := range check(files) {
		t.Error(problem)
	}
}

// TestCheck shows that each rule can fail, and what it lets pass.
func TestCheck(t *testing.T) {
	const buildkit = "github.com/moby/buildkit/client"
	for _, c := range []struct {
		name string
		file string
		text string // of the file, after the package clause
		want string // a part of the only problem; empty: none
	}{
		{name: "down", file: "builder/a.go", text: `import _ "slipway/internal/git"`},
		{name: "up", file: "pipeline/a.go", text: `import _ "slipway/internal/git"`, want: "floor 1 may not look up to floor 2"},
		{name: "sideways", file: "builder/a.go", text: `import _ "slipway/runner"`, want: "both are on floor 3"},
		{name: "tools sideways", file: "internal/git/a.go", text: `import _ "slipway/internal/store"`, want: "both are on floor 2"},
		{name: "own subpackage", file: "builder/a.go", text: `import _ "slipway/builder/progress"`},
		{name: "own parent", file: "builder/progress/a.go", text: `import _ "slipway/builder"`},
		{name: "another's subpackage", file: "runner/a.go", text: `import _ "slipway/builder/progress"`, want: "both are on floor 3"},
		{name: "one command in another", file: "cmd/slipway/a.go", text: `import _ "slipway/cmd/slipway-agent/wire"`, want: "both are on floor 6"},
		{name: "below a command", file: "cmd/slipway/a.go", text: `import _ "slipway/cmd/slipway/helpers"`},
		{name: "no floor", file: "internal/utils/a.go", text: ``, want: "internal/utils is on no floor"},
		{name: "import of no floor", file: "builder/a.go", text: `import _ "slipway/utils"`, want: "utils is on no floor"},
		{name: "harness imported", file: "cmd/slipway/a.go", text: `import _ "slipway/internal/floors"`, want: "exists for its tests"},
		{name: "library at home", file: "builder/a.go", text: `import _ "` + buildkit + `"`},
		{name: "library below home", file: "builder/progress/a.go", text: `import _ "` + buildkit + `"`},
		{name: "library elsewhere", file: "runner/a.go", text: `import _ "` + buildkit + `"`, want: "it stays in builder"},
		{name: "library of like name", file: "runner/a.go", text: `import _ "github.com/moby/buildkitten"`},
		{name: "library in a test", file: "runner/a_test.go", text: `import _ "` + buildkit + `"`},
		{name: "behind a build tag", file: "runner/a_windows.go", text: `import _ "` + buildkit + `"`, want: "it stays in builder"},
		{name: "test sideways", file: "builder/a_test.go", text: `import _ "slipway/runner"`},
		{name: "test up", file: "builder/a_test.go", text: `import _ "slipway/internal/engine"`, want: "may not look up"},
		{name: "environment", file: "builder/a.go", text: `import "os"; var x = os.Getenv("X")`, want: "os.Getenv: the environment is read in cmd"},
		{name: "environment renamed", file: "builder/a.go", text: `import sys "os"; var x = sys.Environ`, want: "os.Environ"},
		{name: "environment in cmd", file: "cmd/slipway/a.go", text: `import "os"; var x = os.Getenv("X")`},
		{name: "environment in a test", file: "builder/a_test.go", text: `import "os"; var x = os.Getenv("X")`},
		{name: "another Getenv", file: "builder/a.go", text: `import "os"; var _ = os.Stdin; var x = image.Getenv("X")`},
		{name: "flags", file: "runner/a.go", text: `import _ "flag"`, want: "flags are read in cmd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files, err := read(fstest.MapFS{c.file: {Data: []byte("package a\n" + c.text)}})
			if err != nil {
				t.Fatal(err)
			}
			got := check(files)
			switch {
			case c.want == "" && len(got) > 0:
				t.Errorf("unexpected: %s", strings.Join(got, "\n"))
			case c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)):
				t.Errorf("got %q, want one problem with %q", got, c.want)
			}
		})
	}
}

// TestReadLeavesOut shows which files are not the module's.
func TestReadLeavesOut(t *testing.T) {
	files, err := read(fstest.MapFS{
		"builder/a.go":            {Data: []byte("package a")},
		"builder/testdata/b.go":   {Data: []byte("not Go at all")},
		".git/c.go":               {Data: []byte("not Go at all")},
		"builder/_d.go":           {Data: []byte("not Go at all")},
		"examples/hello/readme.c": {Data: []byte("int main;")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 || files[0].pkg != "builder" {
		t.Errorf("got %+v, want builder/a.go alone", files)
	}
}

// TestMapIsUsed keeps the map free of rooms for libraries that are gone.
func TestMapIsUsed(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rooms {
		if strings.Contains(r.library, ".") && !strings.Contains(string(mod), r.library) {
			t.Errorf("a room for %s, which go.mod does not name", r.library)
		}
	}
}
