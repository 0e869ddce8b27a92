package builder

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
)

// shape is what the parts of one step's start tell each other.
type shape struct {
	foreign bool // the image can run programs of the machine's other word size
}

type shapeKey struct{}

func withShape(ctx context.Context) (context.Context, *shape) {
	s := &shape{}
	return context.WithValue(ctx, shapeKey{}, s), s
}

func shapeOf(ctx context.Context) *shape {
	if s, ok := ctx.Value(shapeKey{}).(*shape); ok {
		return s
	}
	return &shape{foreign: true}
}

// shapedMountable looks at a step's root file system as it is mounted. A filter
// of system calls for three architectures takes ten times as long to compile as
// one for the machine's own (25 ms against 2.5), at the start of each step, and
// few images can run 32-bit programs: those that have a loader for them.
type shapedMountable struct {
	executor.Mountable
	shape *shape
}

// Mount implements executor.Mountable.
func (m shapedMountable) Mount(ctx context.Context, readonly bool) (executor.MountableRef, error) {
	ref, err := m.Mountable.Mount(ctx, readonly)
	if err != nil {
		return nil, err
	}
	return shapedRef{ref, m.shape}, nil
}

type shapedRef struct {
	executor.MountableRef
	shape *shape
}

// Mount implements executor.MountableRef.
func (r shapedRef) Mount() ([]mount.Mount, func() error, error) {
	mounts, release, err := r.MountableRef.Mount()
	if err == nil {
		r.shape.foreign = hasForeignLoader(mounts)
	}
	return mounts, release, err
}

// foreignLoaders are the dynamic loaders of 32-bit programs on 64-bit machines.
var foreignLoaders = []string{"ld-linux.so.2", "ld-musl-i386.so.1", "ld-linux-armhf.so.3", "ld-musl-armhf.so.1"}

// hasForeignLoader looks into the layers; when in doubt it says yes.
func hasForeignLoader(mounts []mount.Mount) bool {
	for _, dir := range layerDirs(mounts) {
		if dir == "" {
			return true
		}
		for _, lib := range []string{"lib", "usr/lib", "lib32", "usr/lib32", "libx32", "usr/libx32"} {
			for _, loader := range foreignLoaders {
				if _, err := os.Lstat(filepath.Join(dir, lib, loader)); err == nil {
					return true
				}
			}
			if _, err := os.Lstat(filepath.Join(dir, lib, "ld-linux-x32.so.2")); err == nil {
				return true
			}
		}
	}
	return false
}

// layerDirs are the directories a mount is made of, "" for one it cannot see into.
func layerDirs(mounts []mount.Mount) (dirs []string) {
	for _, m := range mounts {
		if m.Type != "overlay" {
			dirs = append(dirs, m.Source)
			continue
		}
		for _, o := range m.Options {
			k, v, _ := strings.Cut(o, "=")
			if k == "lowerdir" || k == "upperdir" {
				dirs = append(dirs, strings.Split(v, ":")...)
			}
		}
	}
	if len(dirs) == 0 {
		return []string{""}
	}
	return dirs
}
