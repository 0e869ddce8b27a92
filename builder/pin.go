package builder

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
)

// pinPrefix begins the leases of what stays mounted beyond this process.
const pinPrefix = "slipway-pin/"

// pin lends the layers of a cache record under a name until Unpin, however this
// process ends: it holds what the record's own lease holds.
func (b *Builder) pin(ctx context.Context, record, name string) error {
	m := b.engine.worker.LeaseManager()
	held, err := m.ListResources(ctx, leases.Lease{ID: record})
	if err != nil {
		return fmt.Errorf("pin the layers for %s: %w", name, err)
	}
	l := leases.Lease{ID: pinPrefix + name}
	if _, err := m.Create(ctx, leases.WithID(l.ID)); err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("pin the layers for %s: %w", name, err)
	}
	snapshots := 0
	for _, r := range held {
		if !strings.HasPrefix(r.Type, "snapshots/") {
			continue
		}
		if err := m.AddResource(ctx, l, r); err != nil {
			return fmt.Errorf("pin the layers for %s: %w", name, err)
		}
		snapshots++
	}
	if snapshots == 0 {
		return fmt.Errorf("pin the layers for %s: %w", name, errNoSnapshot)
	}
	return nil
}

var errNoSnapshot = errors.New("its cache record holds no snapshot")

// Unpin gives back what was pinned under a name; nothing there is no error.
func (b *Builder) Unpin(ctx context.Context, name string) error {
	err := b.engine.worker.LeaseManager().Delete(ctx, leases.Lease{ID: pinPrefix + name})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("give back the layers of %s: %w", name, err)
	}
	return nil
}
