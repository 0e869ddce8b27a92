package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

// Build is what one build came to, under the key of its inputs.
type Build struct {
	Image     pipeline.Image
	Platforms map[string]Platform `json:",omitempty"`
	Config    json.RawMessage     `json:",omitempty"` // of the machine's platform
	Run       string
}

// Input is what the last build of one image of one pipeline was made from: the
// dry run compares against it to say what changed. Steps is builder/dockerfile's.
type Input struct {
	Steps json.RawMessage
	Run   string
}

// PassedTest is a test that ran and passed, under the key of all it depends on.
type PassedTest struct {
	Run  string
	Test Test
	At   time.Time
}

// PutBuild records that the inputs behind key gave b, and that each of steps was built.
func (s *Store) PutBuild(key digest.Digest, b Build, steps []digest.Digest) error {
	for _, step := range steps {
		if s.Built(step) {
			continue
		}
		if err := s.put(keyed(stepsDir, step), struct{}{}); err != nil {
			return err
		}
	}
	return s.put(keyed(buildsDir, key), b)
}

// Build gives the image that the inputs behind key were built to.
func (s *Store) Build(key digest.Digest) (Build, bool) {
	var b Build
	ok := s.get(keyed(buildsDir, key), &b)
	return b, ok
}

// Built reports whether a build step with this key was built on this root and not pruned since.
func (s *Store) Built(step digest.Digest) bool { return s.exists(keyed(stepsDir, step)) }

// PutInput records the steps of the last build of a task of the pipeline in dir.
func (s *Store) PutInput(dir, task string, in Input) error {
	return s.put(inputName(dir, task), in)
}

// Input gives what PutInput recorded.
func (s *Store) Input(dir, task string) (Input, bool) {
	var in Input
	ok := s.get(inputName(dir, task), &in)
	return in, ok
}

func inputName(dir, task string) string {
	return keyed(inputsDir, digest.FromString(dir+"\x00"+task))
}

// PutTest records a passed test under key.
func (s *Store) PutTest(key digest.Digest, t PassedTest) error {
	return s.put(keyed(testsDir, key), t)
}

// Test gives the passed test recorded under key.
func (s *Store) Test(key digest.Digest) (PassedTest, bool) {
	var t PassedTest
	ok := s.get(keyed(testsDir, key), &t)
	return t, ok && t.Test.State == pipeline.Passed
}

// DropTest forgets the passed test recorded under key.
func (s *Store) DropTest(key digest.Digest) error {
	if s.readOnly {
		return errReadOnly
	}
	if err := os.Remove(filepath.Join(s.dir, keyed(testsDir, key))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget a passed test: %w", err)
	}
	return nil
}

// Pruned forgets which steps and builds are cached, after layers were removed:
// the dry run then says that it does not know, rather than something untrue.
func (s *Store) Pruned() error {
	if s.readOnly {
		return errReadOnly
	}
	for _, d := range []string{stepsDir, buildsDir} {
		if err := os.RemoveAll(filepath.Join(s.dir, d)); err != nil {
			return err
		}
	}
	return nil
}

func keyed(dir string, key digest.Digest) string {
	hex := strings.ReplaceAll(key.Encoded(), "/", "_")
	return filepath.Join(dir, hex[:min(2, len(hex))], hex)
}

// Base is an image that Dockerfiles may stand on, as it was when imported.
type Base struct {
	Digest digest.Digest
	Config json.RawMessage // of the machine's platform
}

// PutBase records what a reference was imported as.
func (s *Store) PutBase(ref string, b Base) error { return s.put(baseName(ref), b) }

// Base gives what PutBase recorded.
func (s *Store) Base(ref string) (Base, bool) {
	var b Base
	ok := s.get(baseName(ref), &b)
	return b, ok
}

// DropBase forgets a reference.
func (s *Store) DropBase(ref string) error {
	if s.readOnly {
		return errReadOnly
	}
	if err := os.Remove(filepath.Join(s.dir, baseName(ref))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the base %s: %w", ref, err)
	}
	return nil
}

// PutFetched records which image a reference by digest was fetched as: of an
// index, that of this machine's platform. It holds for ever.
func (s *Store) PutFetched(ref string, image pipeline.Image) error {
	return s.put(fetchedName(ref), image)
}

// Fetched gives what PutFetched recorded.
func (s *Store) Fetched(ref string) (pipeline.Image, bool) {
	var image pipeline.Image
	ok := s.get(fetchedName(ref), &image)
	return image, ok
}

func fetchedName(ref string) string { return keyed(fetchedDir, digest.FromString(ref)) }

func baseName(ref string) string { return keyed(basesDir, digest.FromString(ref)) }
