package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobs is a source of blobs at hand.
type blobs map[digest.Digest][]byte

func (b blobs) open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	data, ok := b[d.Digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (b blobs) put(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	b[d.Digest] = data
	return d
}

func (b blobs) putJSON(v any) ocispec.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b.put("", data)
}

// image makes a manifest over layers, as a referrer where subject is not nil.
func (b blobs) image(subject *ocispec.Descriptor, layers ...string) ocispec.Descriptor {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Subject: subject, Layers: []ocispec.Descriptor{}}
	m.Config = b.put(ocispec.MediaTypeImageConfig, []byte(`{"os":"linux","architecture":"amd64"}`))
	for _, l := range layers {
		m.Layers = append(m.Layers, b.put(ocispec.MediaTypeImageLayer, []byte(l)))
	}
	d := b.putJSON(m)
	d.MediaType = m.MediaType
	return d
}

func (b blobs) index(images ...ocispec.Descriptor) ocispec.Descriptor {
	x := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: images}
	d := b.putJSON(x)
	d.MediaType = x.MediaType
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB) *Store {
	t.Helper()
	return openAt(t, t.TempDir())
}

func openAt(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func repository(t testing.TB, s *Store, name string) *Repository {
	t.Helper()
	r, err := s.Repository(name)
	must(t, err)
	return r
}

func put(t testing.TB, r *Repository, b blobs, d ocispec.Descriptor) {
	t.Helper()
	must(t, r.PutImage(t.Context(), d, Source{Open: b.open}))
}

// check fails where something visible is not whole, and says how many
// manifests there are.
func check(t testing.TB, s *Store) (manifests int) {
	t.Helper()
	must(t, s.eachRepository(t.Context(), func(r *Repository) error {
		all, err := r.manifests()
		if err != nil {
			return err
		}
		manifests += len(all)
		for d, m := range all {
			if _, err := r.complete(m); err != nil {
				t.Errorf("%s@%s: %v", r.name, d, err)
			}
			for _, c := range m.Children() {
				checkBytes(t, r, c)
			}
			if m.Subject == nil {
				continue
			}
			listed, err := r.Referrers(t.Context(), m.Subject.Digest, "")
			if err != nil || !contains(listed, d) {
				t.Errorf("%s@%s is not listed with its subject: %v", r.name, d, err)
			}
		}
		return nil
	}))
	return manifests
}

func checkBytes(t testing.TB, r *Repository, d ocispec.Descriptor) {
	t.Helper()
	in, err := r.Blob(t.Context(), d)
	if err != nil {
		t.Errorf("%s: %v", d.Digest, err)
		return
	}
	got, err := d.Digest.Algorithm().FromReader(in)
	if err = errors.Join(err, in.Close()); err != nil || got != d.Digest {
		t.Errorf("%s/%s has the bytes of %s, %v", r.name, d.Digest, got, err)
	}
}

func contains(all []ocispec.Descriptor, d digest.Digest) bool {
	for _, a := range all {
		if a.Digest == d {
			return true
		}
	}
	return false
}

func holds(t testing.TB, r *Repository, d ocispec.Descriptor) bool {
	t.Helper()
	ok, err := r.Has(t.Context(), d)
	must(t, err)
	return ok
}

// left lists what unfinished work left.
func left(t testing.TB, s *Store) []string {
	t.Helper()
	names, err := s.list(uploadsDir)
	must(t, err)
	return names
}
