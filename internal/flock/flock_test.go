package flock_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"slipway/internal/flock"
)

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // it may be closed
	return f
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, b, c := open(t, path), open(t, path), open(t, path)
	for _, f := range []*os.File{a, b} {
		if err := flock.Wait(t.Context(), f, flock.Shared, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := flock.Try(c, flock.Exclusive); got || err != nil {
		t.Errorf("locked by two, and had by a third: %v, %v", got, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	if err := flock.Wait(ctx, c, flock.Exclusive, func() { cancel(why) }); !errors.Is(err, why) {
		t.Errorf("waited: %v", err)
	}
	a.Close()
	released := func() { b.Close() } // while it waits
	if err := flock.Wait(t.Context(), c, flock.Exclusive, released); err != nil {
		t.Error(err)
	}
	if got, err := flock.Try(open(t, path), flock.Shared); got || err != nil {
		t.Errorf("had by one, and shared by another: %v, %v", got, err)
	}
}
