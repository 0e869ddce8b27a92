package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const atOnce = -time.Second // a grace of nothing

func TestCollect(t *testing.T) {
	s := open(t)
	r := repository(t, s, "app")
	b := blobs{}
	tagged, inUse, old := b.image(nil, "base", "tagged"), b.image(nil, "base", "in use"), b.image(nil, "base", "old")
	platform := b.image(nil, "base", "one platform")
	index := b.index(platform)
	proof := b.image(&tagged, "proof of tagged")
	approval := b.image(&proof, "approval of the proof")
	stale := b.image(&old, "proof of old")
	for _, d := range []ocispec.Descriptor{tagged, inUse, old, index, proof, approval, stale} {
		put(t, r, b, d)
	}
	must(t, r.Tag(t.Context(), "v1", tagged.Digest))
	must(t, r.Tag(t.Context(), "multi", index.Digest))
	loose := ocispec.Descriptor{Digest: digest.FromString("loose"), Size: 5}
	b.put("", []byte("loose"))
	must(t, r.PutBlob(t.Context(), loose, b.open))

	if c, err := s.Collect(t.Context(), Policy{Untagged: true}); err != nil || c != (Collected{}) {
		t.Errorf("what is new was collected: %+v, %v", c, err)
	}
	c, err := s.Collect(t.Context(), Policy{Grace: atOnce})
	if err != nil || c.Manifests != 0 || c.Blobs != 1 || c.Bytes != 5 || holds(t, r, loose) {
		t.Errorf("without Untagged: %+v, %v", c, err)
	}
	keep := func(repository string, d digest.Digest) bool { return repository == "app" && d == inUse.Digest }
	c, err = s.Collect(t.Context(), Policy{Untagged: true, Keep: keep, Grace: atOnce})
	// old, its proof, and what only they had: two layers and two manifests.
	if err != nil || c.Manifests != 2 || c.Blobs != 4 {
		t.Errorf("collected %+v, %v", c, err)
	}
	for name, d := range map[string]ocispec.Descriptor{"tagged": tagged, "in use": inUse, "index": index, "platform": platform, "proof": proof, "approval": approval} {
		if !holds(t, r, d) {
			t.Errorf("%s is gone", name)
		}
	}
	if all, err := r.Referrers(t.Context(), old.Digest, ""); len(all) > 0 || err != nil || holds(t, r, old) {
		t.Errorf("old is there: %v, %v", all, err)
	}
	check(t, s)
	must(t, r.Untag(t.Context(), "v1"))
	if _, err = s.Collect(t.Context(), Policy{Untagged: true, Grace: atOnce}); err != nil {
		t.Error(err)
	}
	if n := check(t, s); n != 2 {
		t.Errorf("%d manifests, want the index and its platform", n)
	}
	must(t, r.Delete(t.Context(), index.Digest))
	if _, err = s.Collect(t.Context(), Policy{Untagged: true, Grace: atOnce}); err != nil {
		t.Error(err)
	}
	if n := files(t, filepath.Join(s.dir, blobsDir)); n != 0 {
		t.Errorf("%d files of content are left", n)
	}
}

func files(t *testing.T, dir string) (n int) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
		}
		return err
	}))
	return n
}

// Content of another repository, and content that a maker's store still holds,
// is nobody else's to remove.
func TestCollectKeepsOthersContent(t *testing.T) {
	s := open(t)
	b := blobs{}
	d := b.image(nil, "shared")
	one, two := repository(t, s, "one"), repository(t, s, "two")
	put(t, one, b, d)
	put(t, two, b, d)
	must(t, one.Delete(t.Context(), d.Digest))
	if _, err := s.Collect(t.Context(), Policy{Untagged: true, Grace: atOnce, Keep: func(repository string, _ digest.Digest) bool { return repository == "two" }}); err != nil {
		t.Fatal(err)
	}
	if n := check(t, s); n != 1 || !holds(t, two, d) {
		t.Errorf("%d manifests", n)
	}
}

func TestDelete(t *testing.T) {
	s := open(t)
	r := repository(t, s, "app")
	b := blobs{}
	d := b.image(nil, "one")
	put(t, r, b, d)
	proof := b.image(&d, "proof")
	put(t, r, b, proof)
	must(t, r.Tag(t.Context(), "v1", d.Digest))
	must(t, r.Tag(t.Context(), "proof", proof.Digest))
	if err := r.DeleteBlob(t.Context(), digest.FromString("one")); !errors.Is(err, ErrInUse) {
		t.Errorf("a layer in use was deleted: %v", err)
	}
	must(t, r.Delete(t.Context(), d.Digest))
	must(t, r.DeleteBlob(t.Context(), digest.FromString("one")))
	for name, err := range map[string]error{
		"manifest": r.Delete(t.Context(), d.Digest), "tag": r.Untag(t.Context(), "v1"), "blob": r.DeleteBlob(t.Context(), digest.FromString("one")),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s deleted twice: %v", name, err)
		}
	}
	if tags, err := r.Tags(t.Context()); err != nil || len(tags) != 1 {
		t.Errorf("tags %v, %v", tags, err)
	}
	if all, err := r.Referrers(t.Context(), d.Digest, ""); err != nil || len(all) != 1 {
		t.Errorf("a referrer went with its subject: %v, %v", all, err)
	}
	must(t, r.Delete(t.Context(), proof.Digest))
	if all, err := r.Referrers(t.Context(), d.Digest, ""); err != nil || len(all) != 0 {
		t.Errorf("a deleted referrer is listed: %v, %v", all, err)
	}
}

// A damaged manifest stops the collection: what it named cannot be known.
func TestCollectStopsAtDamage(t *testing.T) {
	s := open(t)
	r := repository(t, s, "app")
	b := blobs{}
	d := b.image(nil, "one")
	put(t, r, b, d)
	at := filepath.Join(s.dir, r.path(manifestsDir, entry(d.Digest)))
	must(t, os.Remove(at))
	must(t, os.WriteFile(at, []byte("{}"), 0o400))
	if _, err := s.Collect(t.Context(), Policy{Untagged: true, Grace: atOnce}); !errors.Is(err, ErrDigest) {
		t.Errorf("collected all the same: %v", err)
	}
	if !holds(t, r, ocispec.Descriptor{Digest: digest.FromString("one")}) {
		t.Error("its layer is gone")
	}
}
