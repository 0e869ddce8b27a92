package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/util/archutil"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"

	"slipway/builder/dockerfile"
)

// layoutName is what BuildKit calls the store that images come from by digest.
const layoutName = "slipway"

// inputs is what a build reads, checked and in BuildKit's form.
type inputs struct {
	dockerfile string // relative to the context
	source     string // the Dockerfile's text
	refs       []dockerfile.Reference
	contexts   map[string]string // named contexts
	mounts     map[string]fsutil.FS
	stores     map[string]content.Store
	sharedKey  string
	foreign    []string // platforms wanted whose programs cannot run here
}

// prepare checks the request before BuildKit sees it, where the fault can still
// be named by its place.
func (b *Builder) prepare(ctx context.Context, r Request) (*inputs, error) {
	dir, err := filepath.EvalSymlinks(r.Dir)
	if err != nil {
		return nil, err
	}
	root, err := within(dir, "the build context", r.Build.Context)
	if err != nil {
		return nil, err
	}
	if fi, err := os.Stat(root); err != nil || !fi.IsDir() {
		return nil, &BuildError{Message: fmt.Sprintf("the build context %q is no directory", r.Build.Context), Next: "name a directory of the repository in build.context"}
	}
	in := &inputs{
		contexts: map[string]string{},
		mounts:   map[string]fsutil.FS{},
		stores:   map[string]content.Store{layoutName: b.engine.content},
	}
	if err := in.readDockerfile(root, r); err != nil {
		return nil, err
	}
	if in.foreign, err = unrunnable(r.Build.Platforms); err != nil {
		return nil, err
	}
	files, err := contextFS(root)
	if err != nil {
		return nil, err
	}
	in.mounts["context"], in.mounts["dockerfile"] = files, files
	for name, where := range r.Build.AdditionalContexts {
		if err := b.addContext(ctx, in, dir, r, name, where); err != nil {
			return nil, err
		}
	}
	if in.sharedKey, err = copyKey(ctx, root, in); err != nil {
		return nil, err
	}
	return in, b.addImported(ctx, in)
}

// readDockerfile parses it and finds the images it stands on.
func (in *inputs) readDockerfile(root string, r Request) error {
	name := r.Build.Dockerfile
	if name == "" {
		name = "Dockerfile"
	}
	in.dockerfile = filepath.ToSlash(filepath.Clean(name))
	path, err := within(root, "the Dockerfile", name)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return &BuildError{File: in.dockerfile, Message: fmt.Sprintf("cannot read the Dockerfile: %v", pathCause(err)), Next: "name it in build.dockerfile, relative to build.context"}
	}
	in.source = string(data)
	file, err := dockerfile.Parse(in.dockerfile, data)
	if err != nil {
		return in.syntaxError(err)
	}
	for _, p := range file.Privileges() {
		return &BuildError{
			File: in.dockerfile, Line: p.Line, Source: excerpt(in.source, p.Line, p.Line),
			Message: fmt.Sprintf("%s asks for more than a build step gets", p.Flag),
			Next:    "remove it: build steps never see the host's network or devices",
		}
	}
	if _, ok := r.Build.Args["BUILDKIT_SYNTAX"]; ok {
		return &BuildError{File: in.dockerfile, Message: "the build argument BUILDKIT_SYNTAX names a foreign frontend, and only the built-in one runs", Next: "remove it from build.args"}
	}
	all := r.Build.Platforms
	if len(all) == 0 {
		all = []string{""}
	}
	for _, p := range all {
		refs, err := file.References(r.Build.Args, r.Build.Target, p)
		if err != nil {
			return in.syntaxError(err)
		}
		for _, ref := range refs {
			if !slices.ContainsFunc(in.refs, func(x dockerfile.Reference) bool { return x.Name == ref.Name }) {
				in.refs = append(in.refs, ref)
			}
		}
	}
	return nil
}

func (in *inputs) syntaxError(err error) error {
	var se *dockerfile.SyntaxError
	if !errors.As(err, &se) {
		return &BuildError{File: in.dockerfile, Message: err.Error()}
	}
	return &BuildError{File: in.dockerfile, Line: se.Line, Source: excerpt(in.source, se.Line, se.Line), Message: se.Message}
}

// addContext resolves one entry of additional_contexts.
func (b *Builder) addContext(ctx context.Context, in *inputs, dir string, r Request, name, where string) error {
	ref, err := dockerfile.Normalize(name)
	if err != nil {
		return &BuildError{Message: fmt.Sprintf("additional_contexts: %v", err)}
	}
	key := ref.Context
	if image, ok := strings.CutPrefix(where, "image:"); ok {
		base, ok := r.Bases[image]
		if !ok {
			return fmt.Errorf("build %s: the image %q of its context %q was not handed over", r.Name, image, name)
		}
		in.contexts[key] = layout(base.Descriptor.Digest)
		return nil
	}
	if image, ok := strings.CutPrefix(where, "docker-image://"); ok {
		ref, err := dockerfile.Normalize(image)
		if err != nil {
			return &BuildError{Message: fmt.Sprintf("additional_contexts: %s: %v", name, err)}
		}
		d, found, err := b.imported(ctx, ref.Name)
		if err != nil {
			return err
		}
		in.contexts[key] = "docker-image://" + ref.Name
		if found {
			in.contexts[key] = layout(d.Digest)
		}
		return nil
	}
	if strings.Contains(where, "://") {
		return &BuildError{Message: fmt.Sprintf("additional_contexts: %s: %q is none of image:NAME, a directory and docker-image://REF", name, where)}
	}
	path, err := within(dir, "the additional context "+name, where)
	if err != nil {
		return err
	}
	if fi, err := os.Stat(path); err != nil || !fi.IsDir() {
		return &BuildError{Message: fmt.Sprintf("additional_contexts: %s: %q is no directory", name, where), Next: "name a directory of the repository"}
	}
	local := "context-" + digest.FromString(key).Encoded()[:16]
	if in.mounts[local], err = contextFS(path); err != nil {
		return err
	}
	in.contexts[key] = "local:" + local
	return nil
}

// addImported answers references to imported images by their digest, unless
// the request gave a context of that name.
func (b *Builder) addImported(ctx context.Context, in *inputs) error {
	for _, ref := range in.refs {
		if _, given := in.contexts[ref.Context]; given {
			continue
		}
		d, found, err := b.imported(ctx, ref.Name)
		if err != nil {
			return err
		}
		if found {
			in.contexts[ref.Context] = layout(d.Digest)
		}
	}
	return nil
}

func layout(d digest.Digest) string { return "oci-layout://" + layoutName + "@" + d.String() }

// imported finds what was imported as name, which is in its full form.
func (b *Builder) imported(ctx context.Context, name string) (ocispec.Descriptor, bool, error) {
	img, err := b.engine.images.Get(ctx, importedName(name))
	if errdefs.IsNotFound(err) {
		return ocispec.Descriptor{}, false, nil
	}
	return img.Target, err == nil, err
}

// within resolves path below root and refuses to leave it, by ".." or by a symlink.
func within(root, what, path string) (string, error) {
	outside := &BuildError{Message: fmt.Sprintf("%s %q leaves %s", what, path, root), Next: "keep it inside; a symbolic link must not lead out either"}
	if filepath.IsAbs(path) || !filepath.IsLocal(filepath.Clean(path)) && path != "" {
		return "", outside
	}
	full, err := filepath.EvalSymlinks(filepath.Join(root, path))
	if errors.Is(err, fs.ErrNotExist) {
		return filepath.Join(root, path), nil // the caller says what is missing
	}
	if err != nil {
		return "", err
	}
	if full != root && !strings.HasPrefix(full, strings.TrimSuffix(root, "/")+"/") {
		return "", outside
	}
	return full, nil
}

// unrunnable are those of the wanted platforms whose programs this machine
// cannot run. That is no fault yet: a Dockerfile may compile for them on this one.
func unrunnable(want []string) (foreign []string, err error) {
	for _, s := range want {
		p, err := platforms.Parse(s)
		if err != nil {
			return nil, &BuildError{Message: fmt.Sprintf("platform %q: %v", s, err), Next: "write it like linux/amd64"}
		}
		if platforms.Only(platforms.DefaultSpec()).Match(p) {
			continue
		}
		can := slices.ContainsFunc(archutil.SupportedPlatforms(true), func(x ocispec.Platform) bool {
			return platforms.Only(x).Match(p)
		})
		if !can {
			foreign = append(foreign, platforms.Format(platforms.Normalize(p)))
		}
	}
	return foreign, nil
}

func pathCause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
