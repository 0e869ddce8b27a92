//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rs/zerolog"

	"slipway/builder"
	"slipway/internal/engine"
	"slipway/internal/mask"
	"slipway/internal/registry"
	"slipway/internal/store"
	"slipway/internal/volume"
	"slipway/pipeline"
	"slipway/runner"
)

// wiring joins the rooms that do not know each other: it asks builder for the
// layers of a digest on behalf of runner, and gives engine both as funcs.
type wiring struct {
	*stack
	dir        string // of the pipeline file, absolute
	seeds      map[string]pipeline.VolumeSeed
	registries *registry.Registries
	mirrors    func(host string) []string
	secrets    map[string][]byte
	mask       *mask.Mask // hides them
	sshAgent   string
	keepFor    time.Duration // how long a failed test stays frozen
	keepBound  keepBound     // how much does; zero: no bound
	caches     string        // whose `RUN --mount=type=cache` are used; empty: those of all trusted runs
	log        zerolog.Logger
}

func (w wiring) build(ctx context.Context, r engine.BuildRequest) (engine.Built, error) {
	if r.As != "" {
		return w.earlier(ctx, r)
	}
	out, err := w.builder.Build(ctx, builder.Request{
		Name: r.Task.ID, Dir: w.dir, Build: w.cachesApart(*r.Task.Build), Bases: r.Bases, Secrets: w.only(r.Task.Build.Secrets),
		SSHAgent: w.sshAgent, NoCache: r.NoCache || r.Task.Build.NoCache, Task: r.Task.ID, Progress: r.Progress,
	})
	var failed *builder.BuildError
	if errors.As(err, &failed) {
		return engine.Built{Failure: buildFailure(r.Task.Build.Context, failed)}, nil
	}
	if err != nil {
		return engine.Built{}, err
	}
	built := engine.Built{Image: out.Image, Bases: out.Bases, Cached: out.Cached}
	if built.Config, err = w.builder.Config(ctx, out.Image, testedPlatform(out.Platforms)); err != nil {
		return engine.Built{}, err
	}
	if len(r.Task.Build.Platforms) > 0 {
		built.Platforms = map[string]store.Platform{}
		for name, desc := range out.Platforms {
			built.Platforms[name] = store.Platform{Digest: desc.Digest.String(), Tested: name == machinePlatform()}
		}
	}
	return built, nil
}

// earlier takes an image that an earlier attempt has built.
func (w wiring) earlier(ctx context.Context, r engine.BuildRequest) (engine.Built, error) {
	image, err := w.builder.Known(ctx, r.Task.ID, r.As)
	if errors.Is(err, fs.ErrNotExist) {
		return engine.Built{Failure: fmt.Sprintf("the image %s@%s of the earlier attempt is not in the store any more; rerun without --same-plan builds it anew", r.Task.ID, r.As)}, nil
	}
	if err != nil {
		return engine.Built{}, err
	}
	built := engine.Built{Image: image, Cached: true}
	built.Config, err = w.builder.Config(ctx, image, "")
	return built, err
}

// cachesApart gives a build cache mounts that no trusted build looks into.
func (w wiring) cachesApart(b pipeline.Build) pipeline.Build {
	if w.caches == "" {
		return b
	}
	b.Args = maps.Clone(b.Args)
	if b.Args == nil {
		b.Args = map[string]string{}
	}
	b.Args["BUILDKIT_CACHE_MOUNT_NS"] = w.caches // BuildKit's own name for that: docs of its Dockerfile frontend
	return b
}

// testedPlatform is the machine's own, where the image has it, else its first.
func testedPlatform(all map[string]ocispec.Descriptor) string {
	if _, ok := all[machinePlatform()]; ok || len(all) == 0 {
		return ""
	}
	return slices.Sorted(maps.Keys(all))[0]
}

// prepare makes the sandbox of one attempt, with copies of the volumes it mounts.
func (w wiring) prepare(ctx context.Context, r engine.TestRequest) (engine.Sandbox, error) {
	lent := &pins{}
	req := runner.Request{
		ID: r.Run + "-" + engine.TaskDir(r.Task.ID), Image: r.Image, Test: *r.Task.Test, Rootfs: lent.rootfs(w),
		Secrets: w.only(r.Task.Test.Secrets), Out: r.Out,
	}
	if r.Task.Test.Network == pipeline.NetworkInternet {
		req.Egress = w.egress
	}
	mounts := w.newMounts(r.Images)
	services, closeLogs, err := w.services(ctx, r, mounts, lent) // first: what a volume begins with is theirs to say
	if err == nil {
		req.Services, req.Network = services, privateNetwork
		req.Binds, err = mounts.binds(ctx, r.Task.Test.Volumes, r.Image, volume.CopyOptions{Limit: r.Task.Test.Resources.Disk})
	}
	var s *runner.Sandbox
	if err == nil {
		s, err = w.runner.Prepare(ctx, req)
	}
	if err == nil {
		if err = s.Await(ctx); err != nil {
			s.Close()
		}
	}
	if err != nil {
		closeLogs()
		return usersFault(errors.Join(err, mounts.release()))
	}
	return engine.Sandbox{
		Healthy: s.Healthy(),
		Run: func(ctx context.Context, since time.Time, out io.Writer) (pipeline.Result, error) {
			if err := os.MkdirAll(r.Out, 0o700); err != nil {
				return pipeline.Result{}, err
			}
			return s.Exec(ctx, since, out)
		},
		Keep: w.keeper(r, s, mounts, lent),
		Close: func() {
			s.Close()
			closeLogs()
			if err := mounts.release(); err != nil {
				w.log.Error().Err(err).Str("test", r.Task.ID).Msg("a copy of a volume was not removed; the next start removes it")
			}
		},
	}, nil
}

// usersFault makes a failing test of an error that no other attempt would mend.
func usersFault(err error) (engine.Sandbox, error) {
	var source *volume.SourceError
	switch foreign := platformError(err); {
	case foreign != nil:
		return failing("it cannot run on this machine: " + foreign.Error()), nil
	case errors.As(err, &source):
		return failing(err.Error()), nil
	}
	return engine.Sandbox{}, err
}

// platformError finds that an image is for other machines than this.
func platformError(err error) *builder.PlatformError {
	var foreign *builder.PlatformError
	errors.As(err, &foreign)
	return foreign
}

// failing stands for a sandbox that cannot be, through no fault of slipway's.
func failing(reason string) engine.Sandbox {
	return engine.Sandbox{
		Run: func(context.Context, time.Time, io.Writer) (pipeline.Result, error) {
			return pipeline.Result{State: pipeline.Failed, Reason: reason}, nil
		},
		Close: func() {},
	}
}

// lent is what builder lends, as runner wants it.
func lent(r builder.Rootfs) runner.Rootfs {
	return runner.Rootfs{Lowers: r.Lowers, Config: r.Config, Healthcheck: r.Health, Architecture: runtime.GOARCH, Release: r.Release}
}

// egress gives a sandbox's network namespace a way out.
func (w wiring) egress(ctx context.Context, netns string) (io.Closer, []netip.Addr, error) {
	link, err := w.gateway.Attach(ctx, netns)
	return link, []netip.Addr{w.gateway.Nameserver()}, err
}

// only gives the secrets of these names, and no others.
func (w wiring) only(names []string) map[string][]byte {
	some := map[string][]byte{}
	for _, name := range names {
		if value, ok := w.secrets[name]; ok {
			some[name] = value
		}
	}
	return some
}
