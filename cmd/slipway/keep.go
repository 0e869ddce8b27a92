//go:build linux && !client

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"slipway/internal/engine"
	"slipway/internal/store"
	"slipway/internal/volume"
	"slipway/pipeline"
	"slipway/runner"
)

// pins collects how to keep the layers that one attempt's sandboxes stand on.
type pins struct {
	mu  sync.Mutex
	all []func(ctx context.Context, name string) error
}

// rootfs lends layers, and remembers how to pin them.
func (p *pins) rootfs(w wiring) func(context.Context, pipeline.Image) (runner.Rootfs, error) {
	return func(ctx context.Context, image pipeline.Image) (runner.Rootfs, error) {
		r, err := w.builder.Rootfs(ctx, image, "")
		if err != nil {
			return runner.Rootfs{}, err
		}
		p.mu.Lock()
		p.all = append(p.all, r.Pin)
		p.mu.Unlock()
		return lent(r), nil
	}
}

// keeper freezes the sandbox of a failed test, with all that it stands on.
func (w wiring) keeper(r engine.TestRequest, s *runner.Sandbox, m *mounts, p *pins) func(context.Context) (time.Time, error) {
	return func(ctx context.Context) (until time.Time, err error) {
		w.keeping.Lock()
		defer w.keeping.Unlock()
		k := store.Kept{
			Name: keptName(r.Run, r.Task.ID), Task: r.Task.ID, Dir: w.dir, Copies: m.keptNames(keptName(r.Run, r.Task.ID)),
			At: time.Now(), Memory: r.Memory, Secrets: len(r.Task.Test.Secrets) > 0,
		}
		if err := w.store.PutKept(k); err != nil {
			return until, err
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, w.letGo(context.WithoutCancel(ctx), k))
			}
		}()
		for _, pin := range p.all {
			if err := pin(ctx, k.Name); err != nil {
				return until, err
			}
		}
		if err := m.keep(k.Name); err != nil {
			return until, err
		}
		if err := s.Freeze(ctx, k.Name, w.keepFor); err != nil {
			return until, err
		}
		err = w.dropOlder(ctx, k)
		if w.keepBound.tests > 0 {
			err = errors.Join(err, w.bound(ctx, w.keepBound))
		}
		return time.Now().Add(w.keepFor), err
	}
}

// keptName is what a frozen test is called.
func keptName(run, task string) string { return run + "/" + task }

// dropOlder removes what is kept of earlier failures of the same test: one is
// looked at, and memory is not without end.
func (w wiring) dropOlder(ctx context.Context, newer store.Kept) error {
	living, err := w.living(ctx)
	if err != nil {
		return err
	}
	all, err := w.store.AllKept()
	if err != nil {
		return err
	}
	for _, k := range all {
		if k.Task != newer.Task || k.Dir != newer.Dir || k.Name == newer.Name {
			continue
		}
		if f, ok := living[k.Name]; ok && f.Users == 0 {
			if err := f.Thaw(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// living are the frozen tests of this root, by name.
func (s *stack) living(ctx context.Context) (map[string]runner.Frozen, error) {
	all, err := runner.ListFrozen(ctx, filepath.Join(s.root, "runner"))
	living := map[string]runner.Frozen{}
	for _, f := range all {
		living[f.Name] = f
	}
	return living, err
}

// giveBack gives back what was kept for frozen tests that are gone.
func (s *stack) giveBack(ctx context.Context) error {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	all, err := s.store.AllKept()
	if err != nil || len(all) == 0 {
		return err
	}
	living, err := s.living(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, k := range all {
		if _, ok := living[k.Name]; !ok {
			errs = append(errs, s.letGo(ctx, k))
		}
	}
	return errors.Join(errs...)
}

// letGo gives back what was kept for one, and forgets it.
func (s *stack) letGo(ctx context.Context, k store.Kept) error {
	if err := errors.Join(s.builder.Unpin(ctx, k.Name), s.dropCopies(ctx, k.Copies)); err != nil {
		return fmt.Errorf("give back what %s kept: %w", k.Name, err)
	}
	return s.store.DropKept(k.Name)
}

func (s *stack) dropCopies(ctx context.Context, names []string) (err error) {
	if len(names) == 0 {
		return nil
	}
	volumes := s.volumes
	if volumes == nil {
		if volumes, err = volume.Open(ctx, volume.Options{Root: s.root, Log: s.log}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, volumes.Close()) }()
	}
	for _, name := range names {
		c, err := volumes.Take(name)
		if errors.Is(err, volume.ErrNotFound) {
			continue
		}
		if err == nil {
			err = c.Release()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keptNames are the names under which the copies of this attempt are kept.
func (m *mounts) keptNames(name string) (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for of := range m.copies {
		names = append(names, keptCopy(name, of))
	}
	return names
}

// keep lets the copies outlive this process.
func (m *mounts) keep(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for of, c := range m.copies {
		if err := c.Keep(keptCopy(name, of)); err != nil {
			return err
		}
	}
	return nil
}

func keptCopy(name, of string) string {
	sum := sha256.Sum256([]byte(name + "\x00" + of))
	return "frozen/" + hex.EncodeToString(sum[:12])
}
