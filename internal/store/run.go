package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slipway/pipeline"
)

// Run is the record of one run of a pipeline. Its JSON is what --json prints.
type Run struct {
	ID       string         `json:"id"`
	State    pipeline.State `json:"state"`
	Reason   string         `json:"reason,omitempty"` // why the state is error or canceled
	Dir      string         `json:"dir,omitempty"`
	Commit   string         `json:"commit,omitempty"`
	Dirty    bool           `json:"dirty,omitempty"`
	Ref      string         `json:"ref,omitempty"`
	Plan     string         `json:"plan"`
	Started  time.Time      `json:"started"`
	Duration int64          `json:"duration_ms"`
	Unsigned string         `json:"unsigned,omitempty"` // why what was observed is not signed
	Images   []Image        `json:"images"`
}

// Image is what became of one image of a run.
type Image struct {
	Name       string              `json:"name"`
	Matrix     map[string]string   `json:"matrix,omitempty"`
	State      string              `json:"state"` // built, cached, skipped, failed, canceled, error
	Reason     string              `json:"reason,omitempty"`
	Repository string              `json:"repository,omitempty"`
	Digest     string              `json:"digest,omitempty"`
	Platforms  map[string]Platform `json:"platforms,omitempty"`
	Provenance string              `json:"provenance,omitempty"` // digest of the attestation that says what it was built from
	BuildMS    int64               `json:"build_ms"`
	Tests      []Test              `json:"tests"`
}

// Platform is one platform's manifest of a multi-platform image.
type Platform struct {
	Digest string `json:"digest"`
	Tested bool   `json:"tested"` // false: its tests did not run on this machine
}

// Test is what became of one test of an image.
type Test struct {
	Name       string         `json:"name"`
	State      pipeline.State `json:"state"`
	Reason     string         `json:"reason,omitempty"`
	ExitCode   *int           `json:"exit_code,omitempty"`
	OOM        bool           `json:"oom,omitempty"`
	TimedOut   bool           `json:"timed_out,omitempty"`
	DiskFull   bool           `json:"disk_full,omitempty"`
	Flaky      bool           `json:"flaky,omitempty"`
	Attempts   int            `json:"attempts,omitempty"`
	ReusedFrom string         `json:"reused_from,omitempty"` // ID of the run that ran it
	StartMS    *float64       `json:"start_ms,omitempty"`
	DurationMS int64          `json:"duration_ms,omitempty"`
	PeakMemory int64          `json:"peak_memory_bytes,omitempty"`
	CPUMS      int64          `json:"cpu_ms,omitempty"`
	JUnit      *JUnit         `json:"junit,omitempty"`
	Services   []Service      `json:"services,omitempty"`   // that ran beside it
	KeptUntil  *time.Time     `json:"kept_until,omitempty"` // its sandbox stays that long, and longer when it is used

	Attestation string `json:"attestation,omitempty"` // digest of what was signed of it
}

// Service is one that ran beside a test.
type Service struct {
	Name   string `json:"name"`
	Image  string `json:"image"` // as the pipeline names it
	Digest string `json:"digest"`
}

// JUnit sums up the reports a test left under /out.
type JUnit struct {
	Tests    int          `json:"tests"`
	Failures int          `json:"failures"`
	Errors   int          `json:"errors"`
	Skipped  int          `json:"skipped"`
	Failed   []FailedCase `json:"failed,omitempty"`
	Problems []string     `json:"problems,omitempty"` // reports that could not be read, and why
}

// FailedCase is one test case that failed.
type FailedCase struct {
	Name    string `json:"name"`
	Message string `json:"message,omitempty"`
}

// idTime is how the ID of a run begins.
const idTime = "20060102-150405"

// NewRunID gives an ID that sorts by time, to the millisecond.
func NewRunID(now time.Time) string {
	var b [2]byte
	rand.Read(b[:]) // never fails: crypto/rand's contract since Go 1.24
	now = now.UTC()
	return fmt.Sprintf("%s-%03d-%s", now.Format(idTime), now.Nanosecond()/1e6, hex.EncodeToString(b[:]))
}

// RunDir is the directory of a run's logs and artifacts; it may not exist yet.
func (s *Store) RunDir(id string) string { return filepath.Join(s.dir, runsDir, id) }

// PutRun writes the record of a run.
func (s *Store) PutRun(r Run) error {
	return s.put(filepath.Join(runsDir, r.ID, "run.json"), r)
}

// Run reads one record by its ID or an unambiguous beginning or end of it; "last" is the newest.
func (s *Store) Run(id string) (Run, error) {
	ids, err := s.runIDs()
	if err != nil {
		return Run{}, err
	}
	var found []string
	for _, x := range ids {
		if x == id || id != "" && (strings.HasPrefix(x, id) || strings.HasSuffix(x, id)) {
			found = append(found, x)
		}
	}
	if id == "last" && len(ids) > 0 {
		found = ids[len(ids)-1:]
	}
	if len(found) == 0 {
		return Run{}, fmt.Errorf("no run %q; `slipway runs` lists them", id)
	}
	if len(found) > 1 {
		return Run{}, fmt.Errorf("%q names %d runs: %s; give more of the ID", id, len(found), strings.Join(found, ", "))
	}
	var r Run
	if !s.get(filepath.Join(runsDir, found[0], "run.json"), &r) {
		return Run{}, fmt.Errorf("the record of run %s is missing or damaged", found[0])
	}
	return r, nil
}

// Runs lists the records, oldest first. A damaged one is left out.
func (s *Store) Runs() ([]Run, error) {
	ids, err := s.runIDs()
	if err != nil {
		return nil, err
	}
	runs := make([]Run, 0, len(ids))
	for _, id := range ids {
		var r Run
		if s.get(filepath.Join(runsDir, id, "run.json"), &r) {
			runs = append(runs, r)
		}
	}
	return runs, nil
}

// OldRuns lists the runs that are not among the newest keep, and those that were
// made before a time (zero: none), the oldest first.
func (s *Store) OldRuns(keep int, before time.Time) ([]string, error) {
	ids, err := s.runIDs()
	if err != nil {
		return nil, err
	}
	old := max(0, len(ids)-max(0, keep))
	if !before.IsZero() {
		n, _ := slices.BinarySearch(ids, before.UTC().Format(idTime))
		old = max(old, n)
	}
	return ids[:old], nil
}

// DropRun removes a run with its logs and artifacts.
func (s *Store) DropRun(id string) error {
	if s.readOnly {
		return errReadOnly
	}
	if err := os.RemoveAll(s.RunDir(id)); err != nil {
		return fmt.Errorf("remove run %s: %w", id, err)
	}
	return nil
}

func (s *Store) runIDs() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, runsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the runs: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return ids, nil
}
