package engine

import (
	"fmt"
	"io/fs"
	"os"
	"strings"

	"slipway/internal/junit"
	"slipway/internal/store"
)

// maxFailedCases bounds how many failed cases a record names.
const maxFailedCases = 100

// readReports sums up the JUnit reports that match patterns (paths under /out)
// in the directory that received /out. It gives nil when none were asked for.
func readReports(dir string, patterns []string) *store.JUnit {
	if len(patterns) == 0 {
		return nil
	}
	sum := &store.JUnit{}
	root := os.DirFS(dir)
	for _, pattern := range patterns {
		names, err := fs.Glob(root, strings.TrimPrefix(strings.TrimPrefix(pattern, "/out"), "/"))
		if err == nil && len(names) == 0 {
			err = fs.ErrNotExist
		}
		if err != nil {
			sum.Problems = append(sum.Problems, fmt.Sprintf("no JUnit report at %s: %v", pattern, err))
		}
		for _, name := range names {
			if err := addReport(sum, root, name); err != nil {
				sum.Problems = append(sum.Problems, fmt.Sprintf("/out/%s: %v", name, err))
			}
		}
	}
	return sum
}

func addReport(sum *store.JUnit, root fs.FS, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := junit.Read(f)
	if err != nil {
		return err
	}
	sum.Tests += r.Tests
	sum.Failures += r.Failures
	sum.Errors += r.Errors
	sum.Skipped += r.Skipped
	for _, c := range r.Failed {
		if len(sum.Failed) < maxFailedCases {
			sum.Failed = append(sum.Failed, store.FailedCase{Name: c.Name, Message: c.Message})
		}
	}
	return nil
}
