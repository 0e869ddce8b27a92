package volume

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	s := newStore(t, PlainCopy)
	ctx := t.Context()
	dir := sample(t)
	v := seed(t, s, "data", dir)
	must(t, s.Tag(ctx, "data", "before"))
	put(t, dir, "a file", "new")
	w := seed(t, s, "data", dir)
	for ref, want := range map[string]string{"data": w.ID, "before": v.ID, "sha256:" + v.ID: v.ID, v.ID[:8]: v.ID} {
		if got, err := s.Find(ref); err != nil || got.ID != want {
			t.Errorf("%s is %s (%v), want %s", ref, got.ID, err, want)
		}
	}
	must(t, s.Tag(ctx, "before", "data"))
	if got, err := s.Find("data"); err != nil || !slices.Equal(got.Names, []string{"before", "data"}) {
		t.Errorf("restored: %v (%v)", got.Names, err)
	}

	must(t, s.Tag(ctx, "data", "shop/data"))
	must(t, s.Remove(ctx, "data"))
	if _, err := s.Find("data"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the old name: %v", err)
	}
	for _, bad := range []string{"", ".", "..", "../x", "a//b", "/a", "a/", "a b", "-a", "a/../b"} {
		says(t, s.Tag(ctx, "before", bad), "no name of a volume")
	}

	says(t, s.Remove(ctx, v.ID), "has names")
	must(t, s.Remove(ctx, "shop/data"))
	must(t, s.Remove(ctx, "before"))
	if _, err := s.Find(v.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("without a name it is still there: %v", err)
	}
	if _, err := s.Find(w.ID); err != nil {
		t.Errorf("a volume nobody removed: %v", err)
	}
	if gone, err := s.Prune(ctx, 1<<40); err != nil || len(gone) != 0 {
		t.Errorf("pruned too early: %v (%v)", names(gone), err)
	}
	if gone, err := s.Prune(ctx, 0); err != nil || len(gone) != 1 || gone[0].ID != w.ID {
		t.Errorf("pruned %v (%v)", names(gone), err)
	}
	if again := seed(t, s, "data", dir); again.ID != w.ID {
		t.Errorf("seeded again it is %s, was %s", again.ID, w.ID)
	}
}

func TestSave(t *testing.T) {
	eachBackend(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		seed(t, s, "data", sample(t))
		c := snapshot(t, s, "data")
		put(t, c.Dir, "row", "1")
		one, err := c.Save(ctx, "failed")
		must(t, err)
		put(t, c.Dir, "row", "2")
		if got := get(t, snapshot(t, s, "failed").Dir, "row"); got != "1" {
			t.Errorf("what was saved changed to %q", got)
		}
		two, err := c.Save(ctx, "failed")
		must(t, err)
		if _, err := s.Find(one.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("a saved volume without a name is still there: %v", err)
		}
		must(t, c.Release())
		if got := get(t, snapshot(t, s, two.ID).Dir, "row"); got != "2" {
			t.Errorf("saved a second time it is %q", got)
		}
		if two.Files != one.Files || two.Files != 13 || two.Digest != "" {
			t.Errorf("saved: %+v", two)
		}
	})
}

func TestKeep(t *testing.T) {
	for _, b := range []Backend{BtrfsLoop, PlainCopy} {
		t.Run(string(b), func(t *testing.T) {
			root := hostFor(t, b)
			s := openStore(t, Options{Root: root, Backend: b})
			c, err := s.Empty(t.Context(), CopyOptions{})
			must(t, err)
			put(t, c.Dir, "row", "1")
			must(t, c.Keep("run-1/integration/db"))
			put(t, c.Dir, "row", "2")
			other, err := s.Empty(t.Context(), CopyOptions{})
			must(t, err)
			says(t, other.Keep("run-1/integration/db"), "there is one of that name")
			must(t, c.Release())
			closed(t, s)

			s = openStore(t, Options{Root: root})
			kept, err := s.Kept()
			must(t, err)
			if len(kept) != 1 || kept[0].Name != "run-1/integration/db" || get(t, kept[0].Dir, "row") != "2" {
				t.Fatalf("kept %+v", kept)
			}
			c, err = s.Take("run-1/integration/db")
			must(t, err)
			if got := get(t, c.Dir, "row"); got != "2" {
				t.Errorf("taken back it is %q", got)
			}
			must(t, c.Release())
			if _, err := s.Take("run-1/integration/db"); !errors.Is(err, ErrNotFound) {
				t.Errorf("taken twice: %v", err)
			}
		})
	}
}

// What is kept can be looked at and saved where it is, under any name, and is
// gone when it is dropped. A crash of whoever kept it takes nothing along.
func TestKeptIsThere(t *testing.T) {
	eachBackend(t, func(t *testing.T, s *Store) {
		const name = "20261125-1-ab12/app[python=3.12]/it: db/../data"
		c, err := s.Empty(t.Context(), CopyOptions{})
		must(t, err)
		put(t, c.Dir, "row", "1")
		must(t, c.Keep(name))
		v, err := s.SaveKept(t.Context(), name, "after")
		must(t, err)
		put(t, c.Dir, "row", "2")
		again := snapshot(t, s, "after")
		if got := get(t, again.Dir, "row"); got != "1" || v.Digest != "" {
			t.Errorf("saved: %q of %+v", got, v)
		}
		out := filepath.Join(t.TempDir(), "row")
		must(t, s.CopyOut(t.Context(), name, "/row", out))
		if got := get(t, filepath.Dir(out), "row"); got != "2" {
			t.Errorf("copied out: %q", got)
		}
		must(t, s.Drop(name))
		if _, err := os.Stat(c.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after it was dropped: %v", err)
		}
		for _, err := range []error{s.Drop(name), s.CopyOut(t.Context(), name, "/row", out+"2")} {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("of a copy that is gone: %v", err)
			}
		}
		_, err = s.SaveKept(t.Context(), name, "after")
		says(t, err, "no copy is kept")
		says(t, again.Keep(strings.Repeat("x", 256)), "no name")
		says(t, again.Keep(""), "no name")
	})
}

func TestCopyInAndOut(t *testing.T) {
	eachBackend(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		dir := sample(t)
		v := seed(t, s, "data", dir)
		host := t.TempDir()
		put(t, host, "file", "from outside")
		put(t, host, "more/sub/extra", "extra")
		_, err := s.CopyIn(ctx, "data", "/sub/row", filepath.Join(host, "file"))
		must(t, err)
		_, err = s.CopyIn(ctx, "data", "/", filepath.Join(host, "more"))
		must(t, err)
		w, err := s.CopyIn(ctx, "data", "a file", filepath.Join(host, "file"))
		must(t, err)
		c := snapshot(t, s, "data")
		for name, want := range map[string]string{"sub/row": "from outside", "sub/extra": "extra", "a file": "from outside", "sub/hard": "content"} {
			if got := get(t, c.Dir, name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if w.ID == v.ID {
			t.Error("a volume was changed")
		}
		_, err = s.CopyIn(ctx, "data", "/nowhere/row", filepath.Join(host, "file"))
		says(t, err, "no such file")
		_, err = s.CopyIn(ctx, v.ID, "/row", filepath.Join(host, "file"))
		says(t, err, "by its name")

		out := filepath.Join(host, "out")
		must(t, s.CopyOut(ctx, v.ID, "/", out))
		same(t, "a whole volume", describe(t, out), describe(t, dir))
		says(t, s.CopyOut(ctx, v.ID, "/", out), "exists")
		must(t, s.CopyOut(ctx, "data", "/sub/row", filepath.Join(host, "row")))
		if got := get(t, host, "row"); got != "from outside" {
			t.Errorf("copied out: %q", got)
		}
		// A volume's symlink to /etc/passwd means the volume's /etc/passwd.
		says(t, s.CopyOut(ctx, "data", "/sub/link", filepath.Join(host, "stolen")), "no such file")
		if _, err := os.Stat(filepath.Join(host, "stolen")); err == nil {
			t.Error("a symlink led out of the volume")
		}
	})
}

// What is being read is not removed under the reader.
func TestRemoveInUse(t *testing.T) {
	s := newStore(t, PlainCopy)
	v := seed(t, s, "data", sample(t))
	x, err := s.Export(t.Context(), "data")
	must(t, err)
	says(t, s.Remove(t.Context(), "data"), "copied or exported")
	if gone, err := s.Prune(t.Context(), 0); err != nil || len(gone) > 0 {
		t.Errorf("pruned %v (%v)", names(gone), err)
	}
	x.Close()
	if gone, err := s.Prune(t.Context(), 0); err != nil || len(gone) != 1 || gone[0].ID != v.ID {
		t.Errorf("pruned %v (%v), want the volume that lost its name", names(gone), err)
	}
}
