package builder

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	sourcedate "github.com/containerd/containerd/v2/pkg/epoch"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/builder/dockerfile"
	"slipway/pipeline"
)

// A name in the store keeps an image from being collected. Built images have
// one per digest, so that a newer build does not take an older one away from
// those who still use it; imported images have the name they were given.
const (
	builtPrefix    = "built/"
	importedPrefix = "imported/"
)

// builtName is the part of a built image's name before "@sha256:…". BuildKit
// splits names at commas and slipway at the last "@".
func builtName(name string) string {
	return builtPrefix + strings.ReplaceAll(url.PathEscape(name), "@", "%40")
}

func importedName(name string) string { return importedPrefix + name }

// shownName undoes the above.
func shownName(stored string) (name string, imported, ok bool) {
	if n, ok := strings.CutPrefix(stored, importedPrefix); ok {
		return n, true, true
	}
	n, ok := strings.CutPrefix(stored, builtPrefix)
	if !ok {
		return "", false, false
	}
	i := strings.LastIndex(n, "@")
	if i < 0 {
		return "", false, false
	}
	n, err := url.PathUnescape(n[:i])
	return n, false, err == nil
}

// ImageInfo is an image of the store.
type ImageInfo struct {
	Name       string // of the pipeline's image with its matrix, or the reference it was imported as
	Imported   bool
	Current    bool // the newest of its name; the others go first when space is needed
	Descriptor ocispec.Descriptor
	Platforms  []string
	Size       int64 // bytes of all its blobs, compressed
	Created    time.Time
	Layers     []Layer // of this machine's platform, else of the first; bottom first
}

// Layer is one layer of an image.
type Layer struct {
	Digest, DiffID digest.Digest
	Size           int64    // bytes, compressed
	Command        string   // the line of the Dockerfile, as the image's history has it
	SharedWith     []string // other names in the store whose image has this layer
}

// Images lists what the store holds by name, newest first.
func (b *Builder) Images(ctx context.Context) ([]ImageInfo, error) {
	stored, err := b.engine.images.List(ctx)
	if err != nil {
		return nil, err
	}
	var out []ImageInfo
	for _, img := range stored {
		name, imported, ok := shownName(img.Name)
		if !ok {
			continue
		}
		info, err := b.imageInfo(ctx, img.Target)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		info.Name, info.Imported, info.Created = name, imported, img.UpdatedAt
		out = append(out, info)
	}
	slices.SortFunc(out, func(x, y ImageInfo) int {
		if c := y.Created.Compare(x.Created); c != 0 {
			return c
		}
		return strings.Compare(x.Name, y.Name)
	})
	seen := map[string]bool{}
	for i := range out {
		out[i].Current = !seen[out[i].Name]
		seen[out[i].Name] = true
	}
	shareLayers(out)
	return out, nil
}

func (b *Builder) imageInfo(ctx context.Context, target ocispec.Descriptor) (ImageInfo, error) {
	info := ImageInfo{Descriptor: target}
	all, err := b.manifests(ctx, target)
	if err != nil {
		return info, err
	}
	blobs := map[digest.Digest]int64{target.Digest: target.Size}
	for _, m := range all {
		info.Platforms = append(info.Platforms, m.platform)
		blobs[m.desc.Digest] = m.desc.Size
		blobs[m.manifest.Config.Digest] = m.manifest.Config.Size
		for _, l := range m.manifest.Layers {
			blobs[l.Digest] = l.Size
		}
	}
	for _, size := range blobs {
		info.Size += size
	}
	m, err := pick(all, "")
	if err != nil {
		m = all[0]
	}
	info.Layers = layersOf(m)
	return info, nil
}

// layersOf pairs layers with the history entries that made one.
func layersOf(m manifest) []Layer {
	var commands []string
	for _, h := range m.config.History {
		if !h.EmptyLayer {
			commands = append(commands, strings.TrimSpace(strings.TrimSuffix(h.CreatedBy, "# buildkit")))
		}
	}
	var out []Layer
	for i, l := range m.manifest.Layers {
		layer := Layer{Digest: l.Digest, DiffID: m.config.RootFS.DiffIDs[i], Size: l.Size}
		if len(commands) == len(m.manifest.Layers) {
			layer.Command = commands[i]
		}
		out = append(out, layer)
	}
	return out
}

func shareLayers(all []ImageInfo) {
	users := map[digest.Digest][]string{}
	for _, img := range all {
		for _, l := range img.Layers {
			if !slices.Contains(users[l.Digest], img.Name) {
				users[l.Digest] = append(users[l.Digest], img.Name)
			}
		}
	}
	for _, img := range all {
		for i, l := range img.Layers {
			for _, n := range users[l.Digest] {
				if n != img.Name {
					img.Layers[i].SharedWith = append(img.Layers[i].SharedWith, n)
				}
			}
		}
	}
}

// Lookup finds an image by its name (the newest of that name), by name@digest,
// by digest, or by the start of one ("sha256:" may be left out, 6 digits are needed).
func (b *Builder) Lookup(ctx context.Context, ref string) (pipeline.Image, error) {
	all, err := b.Images(ctx)
	if err != nil {
		return pipeline.Image{}, err
	}
	name, want, exact := ref, "", false
	if i := strings.LastIndex(ref, "@sha256:"); i >= 0 { // a name may have an "@" of its own
		name, want, exact = ref[:i], ref[i+1:], true
	}
	full := name
	if n, err := dockerfile.Normalize(name); err == nil {
		full = n.Name
	}
	var found []ImageInfo
	for _, img := range all {
		named := img.Name == name || img.Imported && img.Name == full
		if named && (!exact || img.Descriptor.Digest.String() == want) {
			return img.image(), nil
		}
		if startsDigest(img.Descriptor.Digest, ref) && !slices.ContainsFunc(found, func(x ImageInfo) bool { return x.Descriptor.Digest == img.Descriptor.Digest }) {
			found = append(found, img)
		}
	}
	switch len(found) {
	case 0:
		return pipeline.Image{}, fmt.Errorf("no image %q here; slipway images lists what there is", ref)
	case 1:
		return found[0].image(), nil
	}
	return pipeline.Image{}, fmt.Errorf("%q begins %d digests; give more of it", ref, len(found))
}

func (i ImageInfo) image() pipeline.Image {
	return pipeline.Image{Repository: i.Name, Descriptor: i.Descriptor}
}

func startsDigest(d digest.Digest, ref string) bool {
	hex := strings.TrimPrefix(ref, "sha256:")
	return len(hex) >= 6 && strings.HasPrefix(d.Encoded(), hex)
}

// Remove takes the names of an image away (all names of one digest, or the one
// given); its space is freed by the next Prune.
func (b *Builder) Remove(ctx context.Context, ref string) error {
	img, err := b.Lookup(ctx, ref)
	if err != nil {
		return err
	}
	stored, err := b.engine.images.List(ctx)
	if err != nil {
		return err
	}
	byDigest := startsDigest(img.Descriptor.Digest, ref)
	for _, s := range stored {
		name, _, ok := shownName(s.Name)
		if !ok || s.Target.Digest != img.Descriptor.Digest || !byDigest && name != img.Repository {
			continue
		}
		if err := b.engine.images.Delete(ctx, s.Name); err != nil {
			return err
		}
	}
	return nil
}

// imageStore is containerd's image store in our one namespace. It keeps real
// times, where BuildKit would record the epoch of the image as the time it was
// named, and writes each name down outside the database; see durable.go.
type imageStore struct {
	images.Store
	names string
}

func inNamespace(ctx context.Context) context.Context {
	return sourcedate.WithSourceDateEpoch(namespaces.WithNamespace(ctx, namespace), nil)
}

// Get implements images.Store.
func (s *imageStore) Get(ctx context.Context, name string) (images.Image, error) {
	return s.Store.Get(inNamespace(ctx), name)
}

// List implements images.Store.
func (s *imageStore) List(ctx context.Context, filters ...string) ([]images.Image, error) {
	return s.Store.List(inNamespace(ctx), filters...)
}

// Create implements images.Store.
func (s *imageStore) Create(ctx context.Context, i images.Image) (images.Image, error) {
	out, err := s.Store.Create(inNamespace(ctx), i)
	if err != nil {
		return out, err
	}
	return out, s.remember(i.Name, i.Target)
}

// Update implements images.Store.
func (s *imageStore) Update(ctx context.Context, i images.Image, fields ...string) (images.Image, error) {
	out, err := s.Store.Update(inNamespace(ctx), i, fields...)
	if err != nil {
		return out, err
	}
	return out, s.remember(i.Name, i.Target)
}

// Delete implements images.Store.
func (s *imageStore) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	return errors.Join(s.Store.Delete(inNamespace(ctx), name, opts...), s.forget(name))
}
