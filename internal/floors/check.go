package floors

import (
	"fmt"
	"slices"
	"strings"
)

// source is what the rules look at in one Go file.
type source struct {
	pkg         string   // directory relative to the module, slash-separated
	file        string   // for the message
	test        bool     // its name ends in _test.go
	imports     []string // import paths
	environment []string // functions of package os called that read or write the environment
}

// check returns one sentence for each broken rule, sorted.
//
// A test may use any foreign library, the environment, and packages of its own
// floor: it sets up the real parts around the one it tests. It may not look up.
func check(files []source) []string {
	var found []string
	say := func(format string, args ...any) {
		if s := fmt.Sprintf(format, args...); !slices.Contains(found, s) {
			found = append(found, s)
		}
	}
	for _, f := range files {
		at, own := place(f.pkg)
		if at == unassigned {
			say("%s is on no floor: add it to the map in internal/floors/floors.go", f.pkg)
			continue
		}
		for _, path := range f.imports {
			if inner, ok := strings.CutPrefix(path, module+"/"); ok {
				checkOwn(f, at, own, inner, say)
			} else if !f.test && at != harness {
				checkForeign(f, path, say)
			}
		}
		if at != commands && at != harness && !f.test && environmentAllowed[f.file] == "" {
			for _, name := range f.environment {
				say("%s: os.%s: the environment is read in cmd and handed down", f.file, name)
			}
		}
	}
	slices.Sort(found)
	return found
}

func checkOwn(f source, at int, own, path string, say func(string, ...any)) {
	other, theirs := place(path)
	switch {
	case other == unassigned:
		say("%s is on no floor: add it to the map in internal/floors/floors.go", path)
	case other == harness:
		say("%s imports %s: that one exists for its tests, nothing imports it", f.file, path)
	case path == "internal/need" && !f.test:
		say("%s imports %s: that one is for tests", f.file, path)
	case other > at:
		say("%s imports %s: floor %d may not look up to floor %d; move what both need down, or pass a func", f.file, path, at, other)
	case other == at && own != theirs && !f.test:
		say("%s imports %s: both are on floor %d; let the floor above join them with a func", f.file, path, at)
	}
}

func checkForeign(f source, path string, say func(string, ...any)) {
	for _, r := range rooms {
		if path != r.library && !strings.HasPrefix(path, r.library+"/") {
			continue
		}
		if !slices.ContainsFunc(r.in, func(in string) bool { return within(f.pkg, in) }) {
			say("%s imports %s: it stays in %s (%s)", f.file, path, strings.Join(r.in, ", "), r.why)
		}
	}
}

// place finds the floor of a package and the room on it: the entry of the map
// that holds it. Commands are rooms of their own: one never imports another.
func place(pkg string) (at int, own string) {
	if at, ok := floor[pkg]; ok {
		return at, pkg
	}
	for dir := pkg; dir != ""; {
		if at, ok := floor[dir+"/..."]; ok {
			if at == commands {
				return at, command(pkg)
			}
			return at, dir
		}
		i := strings.LastIndexByte(dir, '/')
		if i < 0 {
			break
		}
		dir = dir[:i]
	}
	return unassigned, ""
}

// command is "cmd/NAME" of a package at or below it.
func command(pkg string) string {
	parts := strings.SplitN(pkg, "/", 3)
	return strings.Join(parts[:min(2, len(parts))], "/")
}

func within(pkg, dir string) bool {
	return pkg == dir || strings.HasPrefix(pkg, dir+"/")
}
