// Package flock locks files among processes. The kernel frees a lock when its
// holder closes the file or ends, however it ends.
//
// It refuses to make or remove the file, and to wait without a context.
package flock

import (
	"context"
	"fmt"
	"os"
	"time"
)

// How a file is locked.
type How int

// The ways: many may share a lock, or one has it.
const (
	Shared How = iota
	Exclusive
)

// Wait locks an open file, looking again and again until it may or ctx ends.
// Whoever waits is told of it once, by busy, where that is not nil.
func Wait(ctx context.Context, f *os.File, how How, busy func()) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 16*time.Millisecond) {
		got, err := Try(f, how)
		if got {
			return nil
		}
		if err != nil {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if busy != nil {
			busy()
			busy = nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}
