package builder

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/util/archutil"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/pipeline"
)

// Request is one image to build.
type Request struct {
	Name     string                    // image and matrix; names the result in the store
	Dir      string                    // directory of the pipeline file; nothing outside it is read
	Build    pipeline.Build            // interpolated
	Bases    map[string]pipeline.Image // what additional_contexts call "image:NAME", by NAME
	Secrets  map[string][]byte         // those of the run; a build sees the ones it names
	SSHAgent string                    // socket behind an ssh entry "default"; empty: none
	NoCache  bool                      // run every step again
	Task     string                    // ID of the task in Progress
	Progress func(pipeline.Progress)   // may be nil; calls never overlap and end before Build returns
}

// Output is a built image.
type Output struct {
	Image     pipeline.Image
	Platforms map[string]ocispec.Descriptor // manifest by platform: "linux/amd64"
	Bases     map[string]digest.Digest      // images from outside that it stands on, by reference
	Config    ocispec.Image                 // for this machine's platform, else of the first by name
	Cached    bool                          // no step of the Dockerfile ran
	Steps     []pipeline.Step               // in the order they were first heard of
}

// Build builds r and keeps the image under r.Name until Prune or a newer image
// of that name lets it go.
//
// What is wrong with the Dockerfile, its context, its base images or a command
// in it is a *BuildError, the user's failure. Any other error is slipway's own
// or ctx's: then it is the cause of ctx.
func (b *Builder) Build(ctx context.Context, r Request) (Output, error) {
	if diskFull(b.o.Root) != nil {
		// What a failed build wrote lies there until someone collects it.
		if _, err := b.engine.db.GarbageCollect(ctx); err != nil {
			return Output{}, err
		}
	}
	in, err := b.prepare(ctx, r)
	if err != nil {
		return Output{}, err
	}
	opt, finish, err := b.solveOpt(ctx, r, in)
	if err != nil {
		return Output{}, err
	}
	news := newStatus(r.Task, r.Progress)
	// Before the first command of a process BuildKit tries, one after the other,
	// programs of eleven architectures. That takes 15 ms, which can pass while
	// files are copied.
	var tried sync.WaitGroup
	defer tried.Wait()
	news.ran = func() { tried.Go(func() { archutil.SupportedPlatforms(false) }) }
	updates := make(chan *client.SolveStatus)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := range updates {
			news.add(s)
		}
	}()
	resp, err := b.client.Solve(ctx, nil, opt, updates)
	<-done
	if err != nil {
		_, ferr := finish(ctx, ocispec.Descriptor{})
		return Output{}, errors.Join(b.explain(ctx, err, in, news), ferr)
	}
	desc, err := resultDescriptor(resp.ExporterResponse)
	if err != nil {
		_, ferr := finish(ctx, ocispec.Descriptor{})
		return Output{}, errors.Join(err, ferr)
	}
	if desc, err = finish(ctx, desc); err != nil {
		return Output{}, err
	}
	out, err := b.output(ctx, r, desc, news)
	out.Bases = in.bases(out.Steps)
	return out, err
}

func (b *Builder) output(ctx context.Context, r Request, desc ocispec.Descriptor, news *status) (Output, error) {
	img := pipeline.Image{Repository: r.Name, Descriptor: desc}
	manifests, err := b.manifests(ctx, desc)
	if err != nil {
		return Output{}, fmt.Errorf("read back the image just built: %w", err)
	}
	out := Output{Image: img, Platforms: map[string]ocispec.Descriptor{}, Cached: news.cached(), Steps: news.steps()}
	for _, m := range manifests {
		out.Platforms[m.platform] = m.desc
	}
	m, err := pick(manifests, "")
	if err != nil {
		m = manifests[0]
	}
	out.Config = m.config
	return out, nil
}

// solveOpt is r in BuildKit's words. finish names the result in the store, or
// drops what came of it when there is none.
func (b *Builder) solveOpt(ctx context.Context, r Request, in *inputs) (client.SolveOpt, finishFunc, error) {
	attached, err := b.attachables(r)
	if err != nil {
		return client.SolveOpt{}, nil, err
	}
	export, finish, err := b.export(ctx, r)
	if err != nil {
		return client.SolveOpt{}, nil, err
	}
	return client.SolveOpt{
		Frontend:      "dockerfile.v0",
		FrontendAttrs: frontendAttrs(r, in),
		LocalMounts:   in.mounts,
		OCIStores:     in.stores,
		SharedKey:     in.sharedKey,
		Session:       attached,
		Exports:       []client.ExportEntry{export},
	}, finish, nil
}

// finishFunc ends an export and gives the image as it is in the store. An empty
// descriptor means that the export failed.
type finishFunc func(context.Context, ocispec.Descriptor) (ocispec.Descriptor, error)

// export is where BuildKit puts the image. The settings decide the digest, so
// they are one for ever. Layers of a base keep the bytes they were published
// with; those built here come from the differ, always gzip of one level.
func (b *Builder) export(ctx context.Context, r Request) (client.ExportEntry, finishFunc, error) {
	attrs := map[string]string{"compression": "gzip", "oci-mediatypes": "true"}
	if b.o.Remote != nil {
		return b.exportRemote(ctx, r, attrs)
	}
	attrs["dangling-name-prefix"] = builtName(r.Name)
	return client.ExportEntry{Type: client.ExporterImage, Attrs: attrs},
		func(_ context.Context, d ocispec.Descriptor) (ocispec.Descriptor, error) { return d, nil }, nil
}

func frontendAttrs(r Request, in *inputs) map[string]string {
	a := map[string]string{
		"filename": in.dockerfile,
		// Set at all, it stops the frontend from looking for `# syntax=`.
		"cmdline": "builtin",
		// Never take an image from the store because it has the right name there.
		"image-resolve-mode":    "pull",
		"build-arg:" + epochArg: strconv.FormatInt(epoch.Unix(), 10),
	}
	for k, v := range r.Build.Args {
		a["build-arg:"+k] = v
	}
	for k, v := range r.Build.Labels {
		a["label:"+k] = v
	}
	if r.Build.Target != "" {
		a["target"] = r.Build.Target
	}
	if len(r.Build.Platforms) > 0 {
		a["platform"] = strings.Join(r.Build.Platforms, ",")
	}
	if r.NoCache || r.Build.NoCache {
		a["no-cache"] = ""
	}
	for name, where := range in.contexts {
		a["context:"+name] = where
	}
	return a
}

func resultDescriptor(resp map[string]string) (d ocispec.Descriptor, err error) {
	raw, err := base64.StdEncoding.DecodeString(resp[exptypes.ExporterImageDescriptorKey])
	if err != nil {
		return d, fmt.Errorf("BuildKit's answer: %w", err)
	}
	var full ocispec.Descriptor
	if err := json.Unmarshal(raw, &full); err != nil {
		return d, fmt.Errorf("BuildKit's answer: %w", err)
	}
	if err := full.Digest.Validate(); err != nil {
		return d, fmt.Errorf("BuildKit's answer names no image: %w", err)
	}
	if full.Digest.Algorithm() != digest.Canonical {
		return d, fmt.Errorf("BuildKit's answer: digest %s is no %s", full.Digest, digest.Canonical)
	}
	// Its annotations tell how it was made, not what it is.
	return ocispec.Descriptor{MediaType: full.MediaType, Digest: full.Digest, Size: full.Size}, nil
}

// Attrs are the frontend attributes that every build gets and that are part of
// its steps, for those who foretell a build without making it.
func Attrs() map[string]string {
	return map[string]string{"build-arg:" + epochArg: strconv.FormatInt(epoch.Unix(), 10)}
}
