package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/rs/zerolog"
)

// Options says where a Builder keeps its state and what it may use.
type Options struct {
	Root         string              // absolute; everything the builder keeps is under it
	Runc         string              // path of the runc binary that runs build steps
	Cgroup       string              // parent of the steps' cgroups: "/slipway-1a2b3c4d/build"
	Registries   map[string]Registry // by host, "docker.io" for Docker Hub
	DockerConfig string              // directory of Docker's config.json; empty: no credentials
	Remote       *Remote             // nil: BuildKit in this process
	Parallel     int                 // build steps at once; 0: no limit
	KeepBytes    int64               // size the automatic clean-up aims at; 0: a tenth of the disk

	// StepNetwork lends a build step a network; the step's end closes it.
	// nil: steps reach nothing but their own loopback.
	StepNetwork func(ctx context.Context) (StepNet, error)

	Log zerolog.Logger
}

// Registry is how one registry is reached.
type Registry struct {
	Mirrors   []string // hosts tried first, in order
	PlainHTTP bool
	Insecure  bool     // the certificate is not checked
	CA        []string // PEM files trusted besides the system's
}

// Remote is a buildkitd elsewhere.
type Remote struct {
	Address    string // "unix:///run/buildkit/buildkitd.sock", "tcp://builder.example:1234"
	CA         string // PEM file that signs the server; empty with unix://
	Cert, Key  string // PEM files of the client's certificate
	ServerName string // name in the server's certificate, when it is not the address's host
}

// StepNet is a network namespace lent to one build step.
type StepNet struct {
	Path        string   // of the bound namespace
	Nameservers []string // for the step's resolv.conf; empty: none
	Close       func() error
}

// Builder builds images and keeps them. Its methods may be called at the same time.
type Builder struct {
	o      Options
	engine *engine
	client *client.Client // the embedded engine or the remote
	auth   *credentials

	lending sync.Mutex
	lent    map[string]*lent // by digest and platform

	close sync.Once
	err   error
}

// Open makes the builder of o.Root ready, after removing what a crashed one
// left there and under o.Cgroup. The caller holds the directory's lock: two
// Builders on one root are an error, found within a second.
//
// Environment must have been applied to the process first.
func Open(ctx context.Context, o Options) (_ *Builder, err error) {
	if err := checkEnvironment(); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(o.Root) || !filepath.IsAbs(o.Cgroup) {
		return nil, fmt.Errorf("builder: root %q and cgroup %q must be absolute", o.Root, o.Cgroup)
	}
	routeLogs(o.Log)
	if err := os.MkdirAll(o.Root, 0o711); err != nil {
		return nil, err
	}
	if err := reap(o); err != nil {
		return nil, err
	}
	if err := makeDirs(o.Root); err != nil {
		return nil, err
	}
	b := &Builder{o: o, auth: newCredentials(o.DockerConfig), lent: map[string]*lent{}}
	if b.engine, err = openEngine(ctx, o); err != nil {
		return nil, fmt.Errorf("open the build store in %s: %w", o.Root, err)
	}
	if err := b.rescue(ctx); err != nil {
		return nil, errors.Join(err, b.engine.Close())
	}
	if o.Remote != nil {
		b.client, err = dialRemote(ctx, *o.Remote)
	} else {
		b.client, err = b.engine.dial(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, b.engine.Close())
	}
	return b, nil
}

// Close stops the engine and gives back everything it holds. Builds must have
// ended and every Rootfs must have been released.
func (b *Builder) Close() error {
	b.close.Do(func() {
		b.err = errors.Join(b.tidy(), b.client.Close(), b.engine.Close(), leaveCgroups(b.o.Cgroup), os.Remove(openMark(b.o.Root)))
	})
	return b.err
}

// TempDir is where the builder of a root keeps what must not outlive it. cmd
// makes it TMPDIR before Open: BuildKit mounts layers and secrets below that
// directory, and only what is below the root is found and removed after a crash.
func TempDir(root string) string { return filepath.Join(root, "tmp") }

// The directories under Options.Root.
func workerDir(root string) string   { return filepath.Join(root, "worker") }
func snapshotDir(root string) string { return filepath.Join(root, "worker", "snapshots") }
func bundleDir(root string) string   { return filepath.Join(root, "worker", "executor") }
func mountDir(root string) string    { return filepath.Join(root, "worker", "cachemounts") }
func emptyDir(root string) string    { return filepath.Join(root, "empty") }
func stateDir(root string) string    { return filepath.Join(root, "runc") }
func usernsDir(root string) string   { return filepath.Join(root, "userns") }
func stepDir(root string) string     { return filepath.Join(root, "step") }
func openMark(root string) string    { return filepath.Join(root, "open") }

// makeDirs makes them searchable for all: a step's root is nobody on the host
// and must be able to walk to its own root file system.
func makeDirs(root string) error {
	for _, d := range []string{root, workerDir(root), snapshotDir(root), TempDir(root), emptyDir(root), stateDir(root), usernsDir(root), stepDir(root), namesDir(root)} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return err
		}
	}
	for d := root; ; d = filepath.Dir(d) {
		fi, err := os.Stat(d)
		if err != nil {
			return err
		}
		if fi.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("%s is closed to other users, so a build step cannot reach its files below it; run chmod o+x %s or choose another root", d, d)
		}
		if d == "/" {
			return nil
		}
	}
}
