//go:build linux && !client

package main

import (
	"context"
	"slices"

	"github.com/spf13/pflag"

	"slipway/internal/store"
)

// keepBound is how much a server keeps of failed tests.
type keepBound struct {
	tests  int
	memory int64 // bytes
}

// keepFlags say what of failed tests a server keeps.
type keepFlags struct {
	failed keepFlag
	tests  int
	memory int64 // MiB
}

func (f *keepFlags) register(fs *pflag.FlagSet) {
	fs.Var(&f.failed, "keep-failed", "keep the sandboxes of failed tests so long from their last use, for slipway shell; 0: not at all")
	fs.IntVar(&f.tests, "keep-tests", 8, "with --keep-failed: so many at most; the oldest goes first")
	fs.Int64Var(&f.memory, "keep-memory", 4096, "with --keep-failed: MiB that they and their services may take together")
}

func (f *keepFlags) check() error {
	if f.tests < 1 || f.memory < 1 {
		return usagef("--keep-tests and --keep-memory take at least 1; --keep-failed 0 keeps nothing")
	}
	return nil
}

func (f *keepFlags) bound() keepBound { return keepBound{f.tests, f.memory << 20} }

// bound removes kept tests, the oldest first, until the rest fits. One that is in
// use stays: somebody is in it.
func (s *stack) bound(ctx context.Context, b keepBound) error {
	living, err := s.living(ctx)
	if err != nil {
		return err
	}
	all, err := s.store.AllKept()
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b store.Kept) int { return a.At.Compare(b.At) })
	tests, memory := 0, int64(0)
	for _, k := range all {
		if _, ok := living[k.Name]; ok {
			tests, memory = tests+1, memory+k.Memory
		}
	}
	for _, k := range all {
		f, ok := living[k.Name]
		if tests <= b.tests && memory <= b.memory {
			return nil
		}
		if !ok || f.Users > 0 {
			continue
		}
		if err := f.Thaw(ctx); err != nil {
			return err
		}
		tests, memory = tests-1, memory-k.Memory
	}
	return nil
}
