package upload_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"slipway/internal/upload"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, dir, name, text string, mode fs.FileMode) {
	t.Helper()
	path := filepath.Join(dir, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), mode))
	must(t, os.Chmod(path, mode))
}

// listing is what a test can see of a tree: names, modes, contents, links and times.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		must(t, err)
		rel, err := filepath.Rel(dir, path)
		must(t, err)
		info, err := d.Info()
		must(t, err)
		fmt.Fprint(&b, rel, " ", info.Mode())
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			must(t, err)
			fmt.Fprintf(&b, " %q %d", data, info.ModTime().UnixNano())
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			must(t, err)
			fmt.Fprint(&b, " -> ", to)
		default:
			fmt.Fprint(&b, " ", info.ModTime().UnixNano())
		}
		fmt.Fprintln(&b)
		return nil
	}))
	return b.String()
}

func pack(t *testing.T, dir string, parts ...upload.Part) []byte {
	t.Helper()
	tree, err := upload.Open(t.Context(), dir, parts)
	must(t, err)
	defer tree.Close()
	var packed bytes.Buffer
	must(t, tree.Pack(t.Context(), &packed))
	return packed.Bytes()
}

const roomy = 1 << 20

func TestWholeTree(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	write(t, from, "a.txt", "a", 0o600)
	write(t, from, "bin/run", "#!/bin/sh", 0o4755)
	write(t, from, "shut/deep/b", strings.Repeat("b", 100_000), 0o444)
	must(t, os.Mkdir(filepath.Join(from, "empty"), 0o1777))
	must(t, os.Symlink("../a.txt", filepath.Join(from, "bin/a")))
	must(t, os.Symlink("/etc/passwd", filepath.Join(from, "outside")))
	must(t, os.Chtimes(filepath.Join(from, "a.txt"), time.Unix(1, 5), time.Unix(1, 5)))
	must(t, os.Chmod(filepath.Join(from, "shut"), 0o511))
	must(t, os.Chmod(from, 0o750))
	must(t, upload.Unpack(t.Context(), bytes.NewReader(pack(t, from, upload.Part{Path: "."})), to, roomy))
	if was, is := listing(t, from), listing(t, to); was != is {
		t.Errorf("packed:\n%s\nunpacked:\n%s", was, is)
	}
}

// Where files have no modes git says which may be run.
func TestModesByGit(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	for _, name := range []string{"run.sh", "a.txt", "new"} {
		write(t, from, name, name, 0o666)
	}
	tree, err := upload.Open(t.Context(), from, []upload.Part{{Path: "."}})
	must(t, err)
	defer tree.Close()
	tree.Tracked = map[string]bool{"run.sh": true, "a.txt": false}
	var packed bytes.Buffer
	must(t, tree.Pack(t.Context(), &packed))
	must(t, upload.Unpack(t.Context(), &packed, to, roomy))
	for name, want := range map[string]fs.FileMode{"run.sh": 0o755, "a.txt": 0o644, "new": 0o666} {
		if info, err := os.Stat(filepath.Join(to, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestParts(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	for _, name := range []string{".ci.yml", ".git/HEAD", "web/main.go", "web/node_modules/x/y.js", "web/keep/a", "web/keep/b", "other/secret", "real/env"} {
		write(t, from, name, name, 0o644)
	}
	must(t, os.Symlink("real", filepath.Join(from, "link")))
	must(t, os.Symlink("../link/env", filepath.Join(from, "web/env")))
	must(t, upload.Unpack(t.Context(), bytes.NewReader(pack(t, from,
		upload.Part{Path: ".ci.yml"}, upload.Part{Path: "web", Ignore: []string{"node_modules", "keep", "!keep/b"}}, upload.Part{Path: "./web/env"}, upload.Part{Path: "gone"},
	)), to, roomy))
	var names []string
	must(t, filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(to, path)
			names = append(names, rel)
		}
		return err
	}))
	if got, want := strings.Join(names, " "), ".ci.yml link real/env web/env web/keep/b web/main.go"; got != want {
		t.Errorf("unpacked %s\nwant     %s", got, want)
	}
}

// What a part's path leads to must lie inside; what lies in a directory travels as it is.
func TestLinksOut(t *testing.T) {
	outside, from := t.TempDir(), t.TempDir()
	write(t, outside, "secret", "secret", 0o644)
	must(t, os.Symlink(outside, filepath.Join(from, "absolute")))
	must(t, os.Symlink("../"+filepath.Base(outside), filepath.Join(from, "relative")))
	must(t, os.Symlink("loop", filepath.Join(from, "loop")))
	for _, name := range []string{"absolute", "absolute/secret", "relative", "../x", "loop"} {
		if tree, err := upload.Open(t.Context(), from, []upload.Part{{Path: name}}); err == nil {
			tree.Close()
			t.Errorf("%s was packed", name)
		}
	}
	if packed := pack(t, from, upload.Part{Path: "."}); bytes.Contains(unpacked(t, packed), []byte("secret\x00")) {
		t.Error("a file outside was packed")
	}
}

func unpacked(t *testing.T, packed []byte) []byte {
	t.Helper()
	z, err := zstd.NewReader(nil)
	must(t, err)
	defer z.Close()
	all, err := z.DecodeAll(packed, nil)
	must(t, err)
	return all
}

// hostile is an upload that Pack would not make.
func hostile(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed)
	must(t, err)
	w := tar.NewWriter(z)
	for _, h := range headers {
		must(t, w.WriteHeader(&h))
		_, err := w.Write(make([]byte, h.Size))
		must(t, err)
	}
	must(t, errors.Join(w.Close(), z.Close()))
	return packed.Bytes()
}

func TestHostile(t *testing.T) {
	file := func(name string, size int64) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size}
	}
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	for name, data := range map[string][]byte{
		"up":            hostile(t, file("../x", 1)),
		"absolute":      hostile(t, file("/x", 1)),
		"through":       hostile(t, link("a", ".."), file("a/x", 1)),
		"far through":   hostile(t, link("a", "/tmp"), file("a/x", 1)),
		"dir through":   hostile(t, link("a", ".."), tar.Header{Typeflag: tar.TypeDir, Name: "a/x"}),
		"over a link":   hostile(t, link("a", "../x"), file("a", 1)),
		"dir at a link": hostile(t, tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o777}, file("f", 1), tar.Header{Typeflag: tar.TypeDir, Name: "f"}),
		"twice":         hostile(t, file("a", 1), file("a", 1)),
		"device":        hostile(t, tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}),
		"hard link":     hostile(t, tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "/etc/passwd"}),
		"bomb":          hostile(t, file("zeros", 2*roomy)),
		"many":          hostile(t, many(roomy/512+1)...),
		"cut off":       hostile(t, file("a", 5000))[:40],
		"no upload":     []byte("hello"),
	} {
		top := t.TempDir()
		var wrong *upload.Damaged
		if err := upload.Unpack(t.Context(), bytes.NewReader(data), filepath.Join(top, "to"), roomy); !errors.As(err, &wrong) {
			t.Errorf("%s: %v", name, err)
		}
		if all, err := os.ReadDir(top); err != nil || len(all) != 1 {
			t.Errorf("%s: beside the directory: %v %v", name, all, err)
		}
	}
}

func many(n int) (all []tar.Header) {
	for i := range n {
		all = append(all, tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprint("d", i)})
	}
	return all
}

func TestStore(t *testing.T) {
	from := t.TempDir()
	write(t, from, "a", "text", 0o644)
	packed := pack(t, from, upload.Part{Path: "a"})
	s := upload.Store{Dir: filepath.Join(t.TempDir(), "uploads"), Limit: roomy}
	must(t, s.Sweep(time.Now(), nil))
	d, size, err := s.Put(bytes.NewReader(packed))
	must(t, err)
	if size != int64(len(packed)) || d != digest.FromBytes(packed) {
		t.Errorf("%s of %d bytes", d, size)
	}
	if _, _, err := s.Put(bytes.NewReader(make([]byte, roomy+1))); !errors.Is(err, upload.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	must(t, s.Use(d))
	must(t, s.Sweep(time.Now().Add(time.Hour), map[digest.Digest]bool{d: true}))
	must(t, s.Sweep(time.Now().Add(-time.Hour), nil))
	must(t, s.Unpack(t.Context(), d, filepath.Join(t.TempDir(), "to")))
	must(t, s.Sweep(time.Now().Add(time.Hour), nil))
	if err := s.Use(d); !errors.Is(err, upload.ErrNone) {
		t.Errorf("removed, and used: %v", err)
	}
	if err := s.Unpack(t.Context(), "sha256:../../x", t.TempDir()); !errors.Is(err, upload.ErrNone) {
		t.Errorf("no digest: %v", err)
	}
	if left, err := os.ReadDir(s.Dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}
