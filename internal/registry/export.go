package registry

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/registry/manifest"
)

// ExportOptions says how an image is written to a file.
type ExportOptions struct {
	Name      string                  // reference written beside the digest; "" for none
	Overwrite bool                    // replace what is at the path
	Tar       bool                    // ExportLayout: one tar instead of a directory
	Platform  *ocispec.Platform       // ExportArchive of an index: which image `docker load` takes; nil: the machine's
	Progress  func(done, total int64) // bytes; may be nil
}

// ExportLayout writes desc and everything under it as an OCI image layout
// (image-spec, image-layout.md). The manifest in it is desc's, byte for byte.
// path appears whole or not at all, and nothing is overwritten unasked.
func ExportLayout(ctx context.Context, blobs Blobs, desc ocispec.Descriptor, path string, o ExportOptions) error {
	if !o.Tar {
		return exported(path, desc, writeDir(path, o.Overwrite, func(dir string) error {
			return exportTo(ctx, blobs, desc, o, dirSink(dir), false)
		}))
	}
	return exported(path, desc, exportTar(ctx, blobs, desc, path, o, false))
}

// ExportArchive writes desc as a tar that `docker load` reads, and podman and
// skopeo too. It is an OCI layout as well, so the digest comes with it. Docker
// before 23 cannot load layers packed with zstd.
func ExportArchive(ctx context.Context, blobs Blobs, desc ocispec.Descriptor, path string, o ExportOptions) error {
	return exported(path, desc, exportTar(ctx, blobs, desc, path, o, true))
}

func exported(path string, desc ocispec.Descriptor, err error) error {
	if err != nil {
		return fmt.Errorf("export %s to %s: %w", desc.Digest, path, err)
	}
	return nil
}

// sink takes one file of size bytes.
type sink func(name string, size int64, r io.Reader) error

func exportTar(ctx context.Context, blobs Blobs, desc ocispec.Descriptor, path string, o ExportOptions, docker bool) error {
	return writeFile(path, o.Overwrite, func(f *os.File) error {
		b := bufio.NewWriterSize(f, 256<<10)
		w := tar.NewWriter(b)
		if err := exportTo(ctx, blobs, desc, o, tarSink(w), docker); err != nil {
			return err
		}
		return errors.Join(w.Close(), b.Flush())
	})
}

// exportTo writes the image's blobs, then the files that name them.
func exportTo(ctx context.Context, blobs Blobs, desc ocispec.Descriptor, o ExportOptions, put sink, docker bool) error {
	var manifest []byte
	if docker {
		var err error
		if manifest, err = dockerManifest(ctx, blobs, desc, o); err != nil {
			return err
		}
	}
	index, err := layoutIndex(desc, o.Name)
	if err != nil {
		return err
	}
	if err := putBlobs(ctx, blobs, desc, o.Progress, put); err != nil {
		return err
	}
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		b    []byte
	}{{ocispec.ImageLayoutFile, layout}, {ocispec.ImageIndexFile, index}, {dockerManifestFile, manifest}} {
		if f.b == nil {
			continue
		}
		if err := put(f.name, int64(len(f.b)), bytes.NewReader(f.b)); err != nil {
			return err
		}
	}
	return nil
}

func putBlobs(ctx context.Context, blobs Blobs, desc ocispec.Descriptor, progress func(done, total int64), put sink) error {
	var all []ocispec.Descriptor
	var total, done int64
	err := walk(ctx, blobs, desc, func(d ocispec.Descriptor, _ []byte) error {
		all = append(all, d)
		total += d.Size
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range all {
		r, err := openVerified(ctx, blobs, d)
		if err != nil {
			return err
		}
		in := io.Reader(r)
		if progress != nil {
			before := done
			in = &counted{r: r, report: func(n int64) { progress(before+n, total) }}
		}
		if err := errors.Join(put(blobPath(d), d.Size, in), r.Close()); err != nil {
			return err
		}
		done += d.Size
	}
	return nil
}

// layoutIndex is the index.json that lists desc alone.
func layoutIndex(desc ocispec.Descriptor, name string) ([]byte, error) {
	if err := manifest.CheckDescriptor(desc); err != nil {
		return nil, err
	}
	// Only what identifies the image: the descriptor's other annotations are the store's own.
	d := ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size, Platform: desc.Platform}
	full, tag, err := parseName(name)
	if err != nil {
		return nil, err
	}
	if full != "" {
		d.Annotations = map[string]string{containerdName: full, ocispec.AnnotationRefName: tag}
	}
	return json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{d},
	})
}

// parseName completes a reference as Docker does; a digest in it is not a name.
func parseName(name string) (full, tag string, err error) {
	if name == "" {
		return "", "", nil
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", "", fmt.Errorf("%q is not an image name: %w", name, err)
	}
	tag = "latest"
	if t, ok := named.(reference.Tagged); ok {
		tag = t.Tag()
	}
	t, err := reference.WithTag(reference.TrimNamed(named), tag)
	if err != nil {
		return "", "", fmt.Errorf("%q is not an image name: %w", name, err)
	}
	return t.String(), tag, nil
}

// dockerManifest is the manifest.json that docker load reads first.
func dockerManifest(ctx context.Context, blobs Blobs, desc ocispec.Descriptor, o ExportOptions) ([]byte, error) {
	doc, err := document(ctx, blobs, desc)
	if err != nil {
		return nil, err
	}
	children, err := childrenOf(desc, doc)
	if err != nil {
		return nil, err
	}
	if manifest.IsIndex(desc.MediaType) {
		p := platforms.DefaultSpec()
		if o.Platform != nil {
			p = *o.Platform
		}
		if desc, err = forPlatform(children, p); err != nil {
			return nil, err
		}
		return dockerManifest(ctx, blobs, desc, o)
	}
	full, _, err := parseName(o.Name)
	if err != nil {
		return nil, err
	}
	m := dockerImage{Config: blobPath(children[0]), Layers: []string{}}
	if full != "" {
		m.RepoTags = []string{full}
	}
	for _, l := range children[1:] {
		m.Layers = append(m.Layers, blobPath(l))
	}
	return json.Marshal([]dockerImage{m})
}

// tarSink writes files with nothing in their headers that differs between two exports.
func tarSink(w *tar.Writer) sink {
	made := map[string]bool{".": true}
	return func(name string, size int64, r io.Reader) error {
		for _, dir := range []string{path.Dir(path.Dir(name)), path.Dir(name)} {
			if made[dir] {
				continue
			}
			made[dir] = true
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
				return err
			}
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		_, err := io.Copy(w, r)
		return err
	}
}

func dirSink(dir string) sink {
	return func(name string, _ int64, r io.Reader) (err error) {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	}
}
