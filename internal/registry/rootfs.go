package registry

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config is what a root file system's image says about running it, as
// `docker import --change` would. Files that are images already have their own.
type Config struct {
	Env        []string // KEY=value
	Cmd        []string // ["/bin/sh"] by default; none when only Entrypoint is given
	Entrypoint []string
	WorkingDir string
	User       string
}

// defaultPath is what Docker gives an image without one.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// importTime stands in for the moment of import: the same file must become the
// same digest on every machine.
func importTime() *time.Time {
	t := time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)
	return &t
}

// errHoldsImage says that what looked like a root file system may be an image archive.
var errHoldsImage = errors.New("holds an image")

// importRootFS packs the tar in r as the one layer of an image, in constant
// memory: layer is written to, and holds the packed layer in the end. With
// watch it gives up with errHoldsImage at an image archive's marker files.
func importRootFS(ctx context.Context, r io.Reader, layer *os.File, p ocispec.Platform, c Config, watch bool) (rootFS, error) {
	z, _, err := decompress(r)
	if err != nil {
		return rootFS{}, err
	}
	defer z.Close()
	packed, diff := sha256.New(), sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(layer, packed), 256<<10)
	// Level 1 for every layer slipway makes: builder's own are packed the same way.
	gz, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return rootFS{}, err
	}
	in := &tapped{r: z, stopped: stopped(ctx), w: io.MultiWriter(diff, gz)}
	if err := checkRootFS(bufio.NewReaderSize(in, 256<<10), watch); err != nil {
		return rootFS{}, err
	}
	if in.tail != [512]byte{} {
		return rootFS{}, errors.New("the tar has no end marker: it was cut off; copy or make the file again")
	}
	if err := errors.Join(gz.Close(), out.Flush()); err != nil {
		return rootFS{}, err
	}
	size, err := layer.Seek(0, io.SeekCurrent)
	if err != nil {
		return rootFS{}, err
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: sum(packed), Size: size}
	return newRootFS(desc, sum(diff), p, c)
}

func sum(h hash.Hash) digest.Digest { return digest.NewDigest(digest.SHA256, h) }

// tapped copies what is read to w and remembers the last block.
type tapped struct {
	r       io.Reader
	stopped func() error
	w       io.Writer
	tail    [512]byte
}

func (t *tapped) Read(p []byte) (int, error) {
	if err := t.stopped(); err != nil {
		return 0, err
	}
	n, err := t.r.Read(p)
	if keep := len(t.tail) - n; keep > 0 {
		copy(t.tail[:], t.tail[n:])
		copy(t.tail[keep:], p[:n])
	} else {
		copy(t.tail[:], p[n-len(t.tail):n])
	}
	if _, werr := t.w.Write(p[:n]); werr != nil {
		return n, werr
	}
	return n, err
}

// checkRootFS reads the tar to its very end, so that everything written after
// the last entry is part of the layer too.
func checkRootFS(r io.Reader, watch bool) error {
	tr := tar.NewReader(r)
	entries := 0
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		entries++
		name := cleanName(h.Name)
		if watch && (name == ocispec.ImageLayoutFile || name == dockerManifestFile) {
			return errHoldsImage
		}
		if err := checkRootFSEntry(h); err != nil {
			return err
		}
	}
	if entries == 0 {
		return errors.New("the tar is empty; pack the root file system with `tar -C ROOT -cf rootfs.tar .`")
	}
	_, err := io.Copy(io.Discard, r)
	return err
}

func checkRootFSEntry(h *tar.Header) error {
	for part := range strings.SplitSeq(h.Name, "/") {
		if part == ".." {
			return fmt.Errorf("the entry %q leaves the root; pack the root file system with `tar -C ROOT -cf rootfs.tar .`", h.Name)
		}
	}
	if strings.HasPrefix(path.Base(h.Name), ".wh.") {
		return fmt.Errorf("the entry %q would be read as the deletion of a file (image-spec, whiteouts); leave it out of the tar", h.Name)
	}
	return nil
}

// rootFS is the image made of one layer.
type rootFS struct {
	layer, config, manifest  ocispec.Descriptor
	configJSON, manifestJSON []byte
}

func newRootFS(layer ocispec.Descriptor, diffID digest.Digest, p ocispec.Platform, c Config) (rootFS, error) {
	ic, err := c.image()
	if err != nil {
		return rootFS{}, err
	}
	i := rootFS{layer: layer}
	i.configJSON, err = json.Marshal(ocispec.Image{
		Created:  importTime(),
		Platform: ocispec.Platform{Architecture: p.Architecture, OS: p.OS, Variant: p.Variant},
		Config:   ic,
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
		History:  []ocispec.History{{Created: importTime(), CreatedBy: "slipway images import", Comment: "imported root file system"}},
	})
	if err != nil {
		return rootFS{}, err
	}
	i.config = descriptorOf(ocispec.MediaTypeImageConfig, i.configJSON)
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: i.config, Layers: []ocispec.Descriptor{layer}}
	m.SchemaVersion = 2
	i.manifestJSON, err = json.Marshal(m)
	if err != nil {
		return rootFS{}, err
	}
	i.manifest = descriptorOf(ocispec.MediaTypeImageManifest, i.manifestJSON)
	i.manifest.Platform = &p
	return i, nil
}

func descriptorOf(mediaType string, b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func (c Config) image() (ocispec.ImageConfig, error) {
	ic := ocispec.ImageConfig{Env: []string{defaultPath}, Cmd: c.Cmd, Entrypoint: c.Entrypoint, WorkingDir: c.WorkingDir, User: c.User}
	for _, e := range c.Env {
		key, _, ok := strings.Cut(e, "=")
		if !ok || key == "" {
			return ic, fmt.Errorf("environment %q is not KEY=value", e)
		}
		same := func(have string) bool { return strings.HasPrefix(have, key+"=") }
		ic.Env = append(slices.DeleteFunc(ic.Env, same), e)
	}
	if c.Cmd == nil && c.Entrypoint == nil {
		ic.Cmd = []string{"/bin/sh"}
	}
	if c.WorkingDir != "" && !path.IsAbs(c.WorkingDir) {
		return ic, fmt.Errorf("working directory %q is not absolute; write /%s", c.WorkingDir, c.WorkingDir)
	}
	return ic, nil
}

func (c Config) empty() bool {
	return c.Env == nil && c.Cmd == nil && c.Entrypoint == nil && c.WorkingDir == "" && c.User == ""
}

// blobs opens the three parts of the image; the layer is read from its file.
func (i rootFS) blobs(layer io.ReaderAt) Blobs {
	return func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		return openVerified(ctx, func(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
			switch d.Digest {
			case i.layer.Digest:
				return io.NopCloser(io.NewSectionReader(layer, 0, i.layer.Size)), nil
			case i.config.Digest:
				return io.NopCloser(bytes.NewReader(i.configJSON)), nil
			case i.manifest.Digest:
				return io.NopCloser(bytes.NewReader(i.manifestJSON)), nil
			}
			return nil, fs.ErrNotExist
		}, d)
	}
}
