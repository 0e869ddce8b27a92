package local

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"slipway/internal/need"
)

// source is a store of another kind on this machine, as the builder's is.
func source(t *testing.T, dir string, b blobs) Source {
	t.Helper()
	for d, data := range b {
		must(t, os.WriteFile(filepath.Join(dir, d.Encoded()), data, 0o444))
	}
	return Source{Open: b.open, Path: func(d digest.Digest) string { return filepath.Join(dir, d.Encoded()) }}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	must(t, syscall.Stat(path, &st))
	return st.Ino
}

// An image enters as links to the files of its maker's store, and stays when
// that store lets go of them.
func TestPutImageLinks(t *testing.T) {
	s := open(t)
	r := repository(t, s, "team/app")
	b, dir := blobs{}, t.TempDir()
	d := b.index(b.image(nil, "one", "two"), b.image(nil, "one", "three"))
	from := source(t, dir, b)
	must(t, r.PutImage(t.Context(), d, from))
	layer := digest.FromString("two")
	if inode(t, filepath.Join(dir, layer.Encoded())) != inode(t, filepath.Join(s.dir, content(layer))) {
		t.Error("the layer was copied")
	}
	must(t, os.RemoveAll(dir))
	if n := check(t, s); n != 3 {
		t.Errorf("%d manifests", n)
	}
	other := repository(t, s, "prod/app")
	must(t, other.PutImage(t.Context(), d, Source{Open: r.Blob}))
	if inode(t, filepath.Join(s.dir, other.path(layersDir, entry(layer)))) != inode(t, filepath.Join(s.dir, content(layer))) {
		t.Error("the second repository has a copy")
	}
	check(t, s)
	if l := left(t, s); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
}

// What is not the promised file is read and checked instead.
func TestPutImageDistrustsFiles(t *testing.T) {
	b, dir := blobs{}, t.TempDir()
	d := b.image(nil, "one")
	layer := digest.FromString("one")
	for name, spoil := range map[string]func(path string) error{
		"missing": os.Remove,
		"of another size": func(p string) error {
			return errors.Join(os.Remove(p), os.WriteFile(p, []byte("longer than it was"), 0o400))
		},
		"a link":      func(p string) error { return errors.Join(os.Remove(p), os.Symlink("/etc/passwd", p)) },
		"a directory": func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			sub := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			must(t, os.Mkdir(sub, 0o700))
			from := source(t, sub, b)
			must(t, spoil(from.Path(layer)))
			err := repository(t, s, "app").PutImage(t.Context(), d, from)
			if name == "a link" { // O_NOFOLLOW: somebody plays tricks
				if err == nil {
					t.Error("a link was followed")
				}
				return
			}
			must(t, err)
			check(t, s)
		})
	}
}

func TestManifestNeedsItsParts(t *testing.T) {
	s := open(t)
	r := repository(t, s, "app")
	b := blobs{}
	d := b.image(nil, "one")
	if err := r.PutManifest(t.Context(), d, b[d.Digest]); !errors.Is(err, ErrIncomplete) {
		t.Errorf("a manifest without its layers: %v", err)
	}
	x := b.index(d)
	if err := r.PutManifest(t.Context(), x, b[x.Digest]); !errors.Is(err, ErrIncomplete) {
		t.Errorf("an index without its manifests: %v", err)
	}
	put(t, r, b, d)
	must(t, r.PutManifest(t.Context(), x, b[x.Digest]))
	wrong := x
	wrong.Digest = digest.FromString("else")
	if err := r.PutManifest(t.Context(), wrong, b[x.Digest]); !errors.Is(err, ErrDigest) {
		t.Errorf("a manifest under another digest: %v", err)
	}
	wrong = x
	wrong.MediaType = ocispec.MediaTypeImageManifest
	if err := r.PutManifest(t.Context(), wrong, b[x.Digest]); !errors.Is(err, ErrManifest) {
		t.Errorf("a manifest of another type: %v", err)
	}
	if err := r.Tag(t.Context(), "v1", digest.FromString("none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a tag on nothing: %v", err)
	}
	check(t, s)
}

// A blob of one repository is not one of another until it is put there.
func TestRepositoriesAreApart(t *testing.T) {
	s := open(t)
	a, other := repository(t, s, "team/a"), repository(t, s, "team/a/b")
	b := blobs{}
	put(t, a, b, b.image(nil, "secret"))
	d := ocispec.Descriptor{Digest: digest.FromString("secret"), Size: 6}
	if holds(t, other, d) {
		t.Error("the other repository has it")
	}
	if _, err := other.Blob(t.Context(), d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the other repository opens it: %v", err)
	}
	if ok, err := other.Mount(t.Context(), d.Digest, repository(t, s, "none")); ok || err != nil {
		t.Errorf("mounted from where it is not: %v, %v", ok, err)
	}
	if ok, err := other.Mount(t.Context(), d.Digest, a); !ok || err != nil || !holds(t, other, d) {
		t.Errorf("not mounted: %v, %v", ok, err)
	}
}

// Nothing that lies in the store, however it came there, leads out of it.
func TestLinksDoNotLeadOut(t *testing.T) {
	s := open(t)
	r := repository(t, s, "evil")
	outside := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(s.dir, reposDir), 0o700))
	must(t, os.Symlink(outside, filepath.Join(s.dir, reposDir, "evil")))
	b := blobs{}
	if err := r.PutImage(t.Context(), b.image(nil, "one"), Source{Open: b.open}); err == nil {
		t.Error("an image was put through a link")
	}
	entries, err := os.ReadDir(outside)
	must(t, err)
	if len(entries) > 0 {
		t.Errorf("written outside: %v", entries)
	}
	d := digest.FromString("x")
	must(t, os.MkdirAll(filepath.Join(s.dir, reposDir, "app", layersDir), 0o700))
	must(t, os.Symlink("/etc/passwd", filepath.Join(s.dir, reposDir, "app", layersDir, entry(d))))
	if f, err := repository(t, s, "app").Blob(t.Context(), ocispec.Descriptor{Digest: d}); err == nil {
		t.Error("a link was followed out of the store", f.Close())
	}
}

func TestNames(t *testing.T) {
	s := open(t)
	for _, name := range []string{"", "/", "a/", "/a", "a//b", "..", "a/../b", "a/..", ".", "a/.b", "A", "a b", "a\x00", "_blobs", "a/_manifests", "a__b_", "a/-b", "a:b", "a@b", "é", strings.Repeat("a", 256)} {
		if _, err := s.Repository(name); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"a", "a/b/c", "a.b_c__d---e", "0", strings.Repeat("a", 255)} {
		if _, err := s.Repository(name); err != nil {
			t.Error(err)
		}
	}
	for _, tag := range []string{"", ".a", "-a", "a/b", "..", "a b", strings.Repeat("a", 129)} {
		if err := CheckTag(tag); !errors.Is(err, ErrName) {
			t.Errorf("tag %q: %v", tag, err)
		}
	}
}

// The grammar as the spec writes it.
var (
	nameGrammar = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagGrammar  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// FuzzNames: what is taken is what the spec says. A name that is taken stays in
// the directory of repositories.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"a", "a/b", "a..b", "a/../b", "_a", "a/_blobs", "a__b", "a___b", "a---b", "a-", "/", "a._b", "Z.", "é"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if ok := nameGrammar.MatchString(name) && len(name) <= maxName; ok != (CheckName(name) == nil) {
			t.Errorf("name %q: %v by the spec", name, ok)
		}
		if ok := tagGrammar.MatchString(name); ok != (CheckTag(name) == nil) {
			t.Errorf("tag %q: %v by the spec", name, ok)
		}
		if CheckName(name) != nil {
			return
		}
		r := &Repository{name: name}
		if at := r.path(); at != reposDir+"/"+name || !filepath.IsLocal(at) {
			t.Errorf("%q lies at %q", name, at)
		}
		for part := range strings.SplitSeq(name, "/") {
			if strings.HasPrefix(part, "_") || strings.HasPrefix(part, ".") || len(part) > 255 {
				t.Errorf("%q has the part %q", name, part)
			}
		}
	})
}

// A full disk is told as such, leaves nothing, and is forgotten once there is room.
func TestFullDisk(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	must(t, unix.Mount("slipway-test", dir, "tmpfs", 0, "size=8m,mode=0700"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	r := repository(t, s, "app")
	b := blobs{}
	small, large := b.image(nil, "small"), b.image(nil, strings.Repeat("x", 16<<20))
	put(t, r, b, small)
	full := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "is full") || !strings.Contains(err.Error(), "slipway gc") {
			t.Errorf("%s: %v", what, err)
		}
		if what == "upload" { // it may be continued
			return
		}
		if l := left(t, s); len(l) > 0 {
			t.Errorf("%s left %v", what, l)
		}
	}
	full("image", r.PutImage(t.Context(), large, Source{Open: b.open}))
	layer := digest.FromString(strings.Repeat("x", 16<<20))
	full("blob", r.Receive(t.Context(), layer, strings.NewReader(strings.Repeat("x", 16<<20))))
	u, err := r.NewUpload(t.Context())
	must(t, err)
	full("upload", u.Append(t.Context(), -1, -1, strings.NewReader(strings.Repeat("x", 16<<20))))
	must(t, u.Cancel(t.Context()))
	if holds(t, r, large) || holds(t, r, ocispec.Descriptor{Digest: layer}) {
		t.Error("half an image is visible")
	}
	check(t, s)
	put(t, r, b, b.image(nil, "another small one"))
	if n := check(t, s); n != 2 {
		t.Errorf("%d manifests", n)
	}
}

// Many writers with stores of their own on one directory, as processes have
// them, and a collection that goes on meanwhile.
func TestManyWriters(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir)
	b := blobs{}
	subject := b.image(nil, "base")
	put(t, repository(t, s, "app"), b, subject)
	var all sync.WaitGroup
	stop := make(chan struct{})
	for w := range 4 {
		mine := openAt(t, dir)
		all.Go(func() {
			r := repository(t, mine, "app")
			for i := range 10 {
				own := blobs{}
				d := own.image(&subject, "base", "shared "+string(rune('a'+i)), "of "+string(rune('a'+w))+string(rune('a'+i)))
				if err := r.PutImage(t.Context(), d, Source{Open: own.open}); err != nil {
					t.Error(err)
				}
				if err := r.Tag(t.Context(), "latest", d.Digest); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var collector sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond): // writers are to get on too
			}
			if _, err := s.Collect(t.Context(), Policy{Untagged: true}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	all.Wait()
	close(stop)
	collector.Wait()
	if n := check(t, s); n != 41 {
		t.Errorf("%d manifests", n)
	}
	if _, err := repository(t, s, "app").Resolve(t.Context(), "latest"); err != nil {
		t.Error(err)
	}
	if l := left(t, s); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
}

// Opening a store removes what a killed writer left, and nothing of a living one.
func TestAbandonedFiles(t *testing.T) {
	s := open(t)
	alive, err := s.newTemp(t.Context())
	must(t, err)
	defer alive.drop()
	dead, err := s.newTemp(t.Context())
	must(t, err)
	must(t, dead.Close()) // as the kernel does for a killed process
	must(t, openAt(t, s.dir).dropAbandoned())
	if l := left(t, s); len(l) != 1 || uploadsDir+"/"+l[0] != alive.path {
		t.Errorf("left %v, want %s", l, alive.path)
	}
}

// Where a file system allows no more links of a file, it is copied.
func TestTooManyLinks(t *testing.T) {
	s := open(t)
	b := blobs{}
	one := repository(t, s, "one")
	put(t, one, b, b.image(nil, "popular"))
	d := digest.FromString("popular")
	must(t, s.copyFile(content(d), one.path(layersDir, "copy")))
	f, err := s.root.Open(one.path(layersDir, "copy"))
	must(t, err)
	got, err := io.ReadAll(f)
	if must(t, f.Close()); err != nil || string(got) != "popular" {
		t.Errorf("copied %q, %v", got, err)
	}
}
