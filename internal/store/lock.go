package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"slipway/internal/flock"
)

// Holder says who has a root open.
type Holder struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

// Lock takes root for one process. While another holds it, waiting is called
// once with that holder and Lock waits until it is free or ctx ends. The kernel
// frees the lock when the process ends, however it ends.
func Lock(ctx context.Context, root, command string, waiting func(Holder)) (unlock func(), err error) {
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("make the state directory: %w; give a writable one with --root or SLIPWAY_ROOT", err)
	}
	path := filepath.Join(root, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w; give a writable one with --root or SLIPWAY_ROOT", err)
	}
	err = flock.Wait(ctx, f, flock.Exclusive, func() {
		if waiting != nil {
			waiting(holder(path))
		}
	})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	data, _ := json.Marshal(Holder{PID: os.Getpid(), Command: command, Since: time.Now().UTC().Truncate(time.Second)})
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt(data, 0) // only for the message of whoever waits: a failure here locks all the same
		_ = err
	}
	return func() { _ = f.Close() }, nil // closing frees the lock, whatever it says
}

// holder reads who wrote the lock file last; zero when it cannot be read.
func holder(path string) Holder {
	var h Holder
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, &h) != nil {
		return Holder{}
	}
	return h
}
