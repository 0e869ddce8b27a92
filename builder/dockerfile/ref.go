package dockerfile

import (
	"context"
	"sync"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/worker"
)

// ref stands where BuildKit has a snapshot. It has a name and room for the
// content hash to keep its index in; no files, since every digest is in the
// index already.
type ref struct {
	cache.ImmutableRef // nil: nothing else of it is ever used
	id                 string

	mu   sync.Mutex
	kept map[string][]byte
}

func newRef() *ref { return &ref{id: "forecast-" + identity.NewID(), kept: map[string][]byte{}} }

// result is the ref as the result of a step.
func (r *ref) result() solver.Result {
	return worker.NewWorkerRefResult(r, nobody{})
}

// nobody is the worker of a ref: BuildKit puts its name into errors.
type nobody struct{ worker.Worker }

// ID implements worker.Infos.
func (nobody) ID() string { return "none" }

// ID implements cache.RefMetadata.
func (r *ref) ID() string { return r.id }

// GetEqualMutable implements cache.RefMetadata.
func (r *ref) GetEqualMutable() (cache.RefMetadata, bool) { return nil, false }

// GetExternal implements cache.RefMetadata.
func (r *ref) GetExternal(key string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	data, ok := r.kept[key]
	if !ok {
		return nil, errNotInContext
	}
	return data, nil
}

// SetExternal implements cache.RefMetadata.
func (r *ref) SetExternal(key string, data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[key] = data
	return nil
}

// Mount implements cache.Mountable. BuildKit mounts to look for paths its index
// does not have.
func (r *ref) Mount(context.Context, bool, session.Group) (snapshot.Mountable, error) {
	return nil, errNotInContext
}
