package local

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/registry/manifest"
)

// DefaultGrace is how long content that nothing refers to is kept: a push may
// be about to refer to it.
const DefaultGrace = 24 * time.Hour

// Policy says what a collection keeps.
type Policy struct {
	// Keep reports whether a manifest of a repository is in use by something
	// the store does not know, such as an environment; nil: none is.
	Keep func(repository string, d digest.Digest) bool
	// Untagged removes manifests that no tag, no kept index, no kept subject
	// and not Keep holds. Without it only blobs without a manifest go.
	Untagged bool
	// Grace is how long what nothing refers to is kept; less than zero: not at
	// all, zero: DefaultGrace.
	Grace time.Duration
}

// Collected says what a collection removed.
type Collected struct {
	Manifests, Blobs int
	Bytes            int64 // freed on the disk, as far as the store knows: a blob may have a name elsewhere
}

// Collect removes what nothing refers to. Writers wait meanwhile.
func (s *Store) Collect(ctx context.Context, p Policy) (Collected, error) {
	if p.Grace == 0 {
		p.Grace = DefaultGrace
	}
	var c Collected
	err := s.locked(ctx, exclusive, func() error {
		if err := errors.Join(s.dropAbandoned(), s.ExpireUploads(p.Grace)); err != nil {
			return err
		}
		err := s.eachRepository(ctx, func(r *Repository) error { return r.collect(ctx, p, &c) })
		if err != nil {
			return err
		}
		return s.collectContent(ctx, p, &c)
	})
	return c, err
}

// collect removes what is old and not kept in one repository.
func (r *Repository) collect(ctx context.Context, p Policy, c *Collected) error {
	manifests, err := r.manifests()
	if err != nil {
		return err
	}
	if p.Untagged {
		kept, err := r.kept(ctx, manifests, p)
		if err != nil {
			return err
		}
		for d, m := range manifests {
			if kept[d] || r.young(manifestsDir, d, p.Grace) {
				continue
			}
			if err := r.unlinkManifest(d, m); err != nil {
				return err
			}
			delete(manifests, d)
			c.Manifests++
		}
	}
	used := map[digest.Digest]bool{}
	for _, m := range manifests {
		for _, child := range m.Children() {
			used[child.Digest] = true
		}
	}
	names, err := r.store.list(r.path(layersDir))
	for _, name := range names {
		d, ok := digestOf(name)
		if !ok || used[d] || r.young(layersDir, d, p.Grace) {
			continue
		}
		if err := r.store.root.Remove(r.path(layersDir, name)); err != nil {
			return err
		}
	}
	return err
}

// manifests reads all manifests of the repository. A damaged one keeps its
// blobs by failing the collection: better no space than a hole.
func (r *Repository) manifests() (map[digest.Digest]manifest.Manifest, error) {
	names, err := r.store.list(r.path(manifestsDir))
	all := map[digest.Digest]manifest.Manifest{}
	for _, name := range names {
		d, ok := digestOf(name)
		if !ok {
			continue
		}
		_, m, _, err := r.read(manifestsDir, d)
		if err != nil {
			return nil, err
		}
		all[d] = m
	}
	return all, err
}

// kept follows tags, Keep, indexes and subjects: a referrer lives as long as
// what it refers to, and so do the referrers of that referrer.
func (r *Repository) kept(_ context.Context, all map[digest.Digest]manifest.Manifest, p Policy) (map[digest.Digest]bool, error) {
	tags, err := r.store.list(r.path(tagsDir))
	if err != nil {
		return nil, err
	}
	var queue []digest.Digest
	for _, tag := range tags {
		d, err := r.tagged(tag)
		if err != nil {
			return nil, err
		}
		queue = append(queue, d)
	}
	referrers := map[digest.Digest][]digest.Digest{}
	for d, m := range all {
		if p.Keep != nil && p.Keep(r.name, d) {
			queue = append(queue, d)
		}
		if m.Subject != nil {
			referrers[m.Subject.Digest] = append(referrers[m.Subject.Digest], d)
		}
	}
	kept := map[digest.Digest]bool{}
	for len(queue) > 0 {
		d := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if kept[d] {
			continue
		}
		kept[d] = true
		for _, child := range all[d].Manifests {
			queue = append(queue, child.Digest)
		}
		queue = append(queue, referrers[d]...)
	}
	return kept, nil
}

func (r *Repository) young(dir string, d digest.Digest, grace time.Duration) bool {
	info, err := r.store.root.Lstat(r.path(dir, entry(d)))
	return err == nil && time.Since(changed(info)) < grace
}

// collectContent removes content that no repository has. A link is as good as
// a use: content with no other name than its own has lost all of them.
func (s *Store) collectContent(ctx context.Context, p Policy, c *Collected) error {
	return fs.WalkDir(s.root.FS(), blobsDir, func(at string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil || links(info) > 1 || time.Since(changed(info)) < p.Grace {
			return err
		}
		if err := s.root.Remove(at); err != nil {
			return err
		}
		c.Blobs++
		c.Bytes += info.Size()
		return nil
	})
}

// Delete removes a manifest, its tags and its place among the referrers. Its
// blobs go with the next collection; its own referrers too, where that removes
// what is untagged.
func (r *Repository) Delete(ctx context.Context, d digest.Digest) error {
	return r.store.locked(ctx, exclusive, func() error {
		_, m, _, err := r.read(manifestsDir, d)
		if err != nil {
			return err
		}
		tags, err := r.store.list(r.path(tagsDir))
		if err != nil {
			return err
		}
		for _, tag := range tags {
			named, err := r.tagged(tag)
			if err == nil && named == d {
				err = r.store.root.Remove(r.path(tagsDir, tag))
			}
			if err != nil {
				return err
			}
		}
		return r.unlinkManifest(d, m)
	})
}

// Untag removes a tag; what it named stays.
func (r *Repository) Untag(ctx context.Context, tag string) error {
	if err := CheckTag(tag); err != nil {
		return err
	}
	return r.store.locked(ctx, exclusive, func() error {
		err := r.store.root.Remove(r.path(tagsDir, tag))
		if errors.Is(err, fs.ErrNotExist) {
			return r.missing(digest.Digest(tag))
		}
		return err
	})
}

// DeleteBlob removes a blob that no manifest of the repository names.
func (r *Repository) DeleteBlob(ctx context.Context, d digest.Digest) error {
	if err := manifest.CheckDigest(d); err != nil {
		return err
	}
	return r.store.locked(ctx, exclusive, func() error {
		at := r.path(layersDir, entry(d))
		if _, err := r.store.root.Lstat(at); errors.Is(err, fs.ErrNotExist) {
			return r.missing(d)
		}
		all, err := r.manifests()
		if err != nil {
			return err
		}
		for _, m := range all {
			if slices.ContainsFunc(m.Children(), func(c ocispec.Descriptor) bool { return c.Digest == d }) {
				return ErrInUse
			}
		}
		return r.store.root.Remove(at)
	})
}

// unlinkManifest takes the manifest away before its place among the referrers.
func (r *Repository) unlinkManifest(d digest.Digest, m manifest.Manifest) error {
	if err := r.store.root.Remove(r.path(manifestsDir, entry(d))); err != nil {
		return err
	}
	if m.Subject == nil {
		return nil
	}
	dir := path.Join(referrersDir, entry(m.Subject.Digest))
	if err := r.store.root.Remove(r.path(dir, entry(d))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = r.store.root.Remove(r.path(dir)) // only when it was the last one
	return nil
}

// ExpireUploads removes uploads that nobody continued for so long.
func (s *Store) ExpireUploads(grace time.Duration) error {
	names, err := s.list(uploadsDir)
	for _, name := range names {
		if strings.HasPrefix(name, tempPrefix) {
			continue
		}
		info, err := s.root.Lstat(path.Join(uploadsDir, name))
		if err == nil && time.Since(info.ModTime()) >= grace {
			err = s.root.Remove(path.Join(uploadsDir, name))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}
