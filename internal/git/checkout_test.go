package git_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"slipway/internal/git"
)

// listing says what is in a directory: modes, links and content, but not .git.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return err
		}
		if rel == ".git" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := ""
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			text, err = os.Readlink(path)
		case info.Mode().IsRegular():
			var data []byte
			data, err = os.ReadFile(path)
			text = fmt.Sprintf("%d %x", len(data), sha256.Sum256(data))
		}
		fmt.Fprintf(&out, "%s %s %s\n", info.Mode(), rel, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestCheckoutAsGitDoes: the same names, modes and bytes as a fresh clone of git's own.
func TestCheckoutAsGitDoes(t *testing.T) {
	o := newOrigin(t)
	for name, text := range map[string]string{
		"unix": "a\nb\n", "dos": "a\r\nb\r\n", "mixed": "a\r\nb\nc\r", "empty": "", "dir/sub/deep/file": "x", "ä ö\tü": "names", "-x": "-", "bin": "\x00\x01\r\n\xff",
		"trailing ": "space", ".gitignore": "ignored\n", "git": "", ".gitmodules.txt": "", "back\\slash": "b", "latin1\xe9": "bytes",
		"large": strings.Repeat("0123456789abcdef", 1<<19),
	} {
		write(t, filepath.Join(o.work, name), text)
	}
	for name, to := range map[string]string{"link": "unix", "dir/up": "../unix", "out": "../../..", "abs": "/etc/passwd", "loop": "loop", "nowhere": "nothing/at all"} {
		if err := os.Symlink(to, filepath.Join(o.work, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(o.work, "dos"), 0o755); err != nil {
		t.Fatal(err)
	}
	head := o.commit("last", "1")
	clone := filepath.Join(t.TempDir(), "clone")
	o.in(o.work, "clone", "-q", o.dir, clone)
	want := listing(t, clone)
	m := newMirror(t)
	if _, err := m.Fetch(t.Context(), o.file(), onMain, head); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "tree")
	mask := syscall.Umask(0o077) // as a server may have been started
	err := m.Checkout(t.Context(), head, dir)
	syscall.Umask(mask)
	if err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if err := m.Checkout(t.Context(), head, dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("into a directory that is there: %v", err)
	}
	if err := m.Checkout(t.Context(), strings.Repeat("1", 40), dir+"2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a commit that was not fetched: %v", err)
	}
}

// TestCheckoutAsAttributesSay: the ends of lines are those that a fresh clone of
// git's own has.
func TestCheckoutAsAttributesSay(t *testing.T) {
	o := newOrigin(t)
	contents := map[string]string{
		"unix": "a\nb\n", "dos": "a\r\nb\r\n", "mixed": "a\r\nb\nc", "cr": "a\rb\n", "nul": "a\x00b\n", "odd": "\x01\x02\nb\n", "long": strings.Repeat("text\n", 400) + "\x01", "old": "a\n\x1a",
		"empty": "", "none": "one line", "feed": "\n\n", "bell": "\a\n", "delete": strings.Repeat("x", 127) + "\x7f\n", "delete2": strings.Repeat("x", 128) + "\x7f\n",
	}
	rules := map[string]string{
		"none": "", "text": "text", "auto": "text=auto", "crlf": "eol=crlf", "lf": "eol=lf", "textcrlf": "text eol=crlf", "autocrlf": "text=auto eol=crlf", "autolf": "text=auto eol=lf",
		"binary": "binary", "binarycrlf": "binary eol=crlf", "not": "-text eol=crlf", "old": "crlf", "oldcrlf": "crlf eol=crlf", "oldnot": "-crlf eol=crlf", "input": "crlf=input eol=crlf",
		"undone": "!text eol=crlf", "macro": "dosfile", "utf8": "working-tree-encoding=UTF-8 eol=crlf", "lfs": "filter=lfs -text", "ident": "ident", "nofilter": "-filter", "merge": "merge=union diff=x export-ignore export-subst",
	}
	var top strings.Builder
	top.WriteString("[attr]dosfile text eol=crlf\n")
	for dir, rule := range rules {
		if rule != "" {
			fmt.Fprintf(&top, "/%s/** %s\n", dir, rule)
		}
		for name, text := range contents {
			write(t, filepath.Join(o.work, dir, name), text)
		}
	}
	write(t, filepath.Join(o.work, "nested", "file.txt"), "a\nb\n")
	write(t, filepath.Join(o.work, "nested", "file.raw"), "a\nb\n")
	write(t, filepath.Join(o.work, "linked", "file"), "a\nb\n")
	o.commit("before", "attributes") // so that no content is changed when it is added
	write(t, filepath.Join(o.work, "nested", ".gitattributes"), "* eol=crlf\n*.raw -text\n")
	write(t, filepath.Join(o.work, "dosattributes"), "* eol=crlf\n")
	if err := os.Symlink("../dosattributes", filepath.Join(o.work, "linked", ".gitattributes")); err != nil {
		t.Fatal(err)
	}
	head := o.commit(".gitattributes", top.String())
	clone := filepath.Join(t.TempDir(), "clone")
	o.in(o.work, "clone", "-q", o.dir, clone)
	m := newMirror(t)
	if _, err := m.Fetch(t.Context(), o.file(), onMain, head); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "tree")
	if err := m.Checkout(t.Context(), head, dir); err != nil {
		t.Fatal(err)
	}
	got, want := strings.Split(listing(t, dir), "\n"), strings.Split(listing(t, clone), "\n")
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("got:\n%s\nwant:\n%s", got[min(i, len(got)-1)], want[i])
		}
	}
	if data, err := os.ReadFile(filepath.Join(dir, "crlf", "unix")); err != nil || string(data) != "a\r\nb\r\n" {
		t.Errorf("%q, %v: nothing was converted", data, err)
	}
}

// TestAttributesThatAreRefused: what slipway would not write as git does.
func TestAttributesThatAreRefused(t *testing.T) {
	for rule, want := range map[string]string{
		"*.txt filter=crypt":                     "filter",
		"*.txt working-tree-encoding=ISO-8859-1": "encoding",
		"*.txt ident":                            "ident",
		"# nothing\n*.txt text\n*.txt ident":     "ident",
	} {
		o := newOrigin(t)
		o.commit("a.txt", "$Id$\n")
		head := o.commit(".gitattributes", rule+"\n")
		m := newMirror(t)
		if _, err := m.Fetch(t.Context(), o.file(), onMain, head); err != nil {
			t.Fatal(err)
		}
		var unfit *git.Unfit
		err := m.Checkout(t.Context(), head, filepath.Join(t.TempDir(), "tree"))
		if !errors.As(err, &unfit) || unfit.Path != "a.txt" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", rule, err)
		}
	}
}

// TestPointersOfLFS: a build would get them in the place of the files.
func TestPointersOfLFS(t *testing.T) {
	o := newOrigin(t)
	head := o.commit("assets/logo.png", "version https://git-lfs.github.com/spec/v1\noid sha256:"+strings.Repeat("0", 64)+"\nsize 9\n")
	m := newMirror(t)
	if _, err := m.Fetch(t.Context(), o.file(), onMain, head); err != nil {
		t.Fatal(err)
	}
	var unfit *git.Unfit
	if err := m.Checkout(t.Context(), head, filepath.Join(t.TempDir(), "tree")); !errors.As(err, &unfit) || unfit.Path != "assets/logo.png" {
		t.Error(err)
	}
}

// hostile makes a commit of a tree whose entries git itself would not write.
func (o *origin) hostile(entries string) string {
	o.t.Helper()
	hash := func(kind string, data []byte) string {
		cmd := exec.Command("git", "-C", o.dir, "hash-object", "-t", kind, "--literally", "-w", "--stdin")
		cmd.Stdin = strings.NewReader(string(data))
		out, err := cmd.Output()
		if err != nil {
			o.t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	blob := hash("blob", []byte("/tmp"))
	sub := hash("tree", tree(o.t, "100644 file "+blob))
	entries = strings.NewReplacer("BLOB", blob, "TREE", sub).Replace(entries)
	id := hash("commit", []byte("tree "+hash("tree", tree(o.t, strings.Split(entries, "\n")...))+"\nauthor t <t> 1 +0000\ncommitter t <t> 1 +0000\n\nx\n"))
	o.in(o.dir, "update-ref", onMain, id)
	return id
}

// tree is the object of lines MODE NAME ID (gitformat-pack(5) leaves it to git-mktree's source).
func tree(t *testing.T, lines ...string) []byte {
	t.Helper()
	var out []byte
	for _, l := range lines {
		mode, rest, _ := strings.Cut(l, " ")
		i := strings.LastIndexByte(rest, ' ')
		id, err := hex.DecodeString(rest[i+1:])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, mode+" "+rest[:i]+"\x00"...)
		out = append(out, id...)
	}
	return out
}

// TestHostileTrees: nothing is written outside, nothing of it stays.
func TestHostileTrees(t *testing.T) {
	o := newOrigin(t)
	for name, entries := range map[string]string{
		"up":                     "40000 .. TREE",
		"here":                   "40000 . TREE",
		"slash":                  "100644 a/b BLOB",
		"absolute":               "100644 /tmp/x BLOB",
		"up inside":              "100644 ../x BLOB",
		".git":                   "40000 .git TREE",
		".GIT":                   "40000 .GIT TREE",
		".git as a file":         "100644 .Git BLOB",
		".git for HFS":           "40000 .g\u200cit TREE",
		".git for NTFS":          "40000 .git. TREE",
		".git with a space":      "40000 .git  TREE",
		".git stream":            "40000 .git::$INDEX_ALLOCATION TREE",
		"short":                  "40000 GIT~1 TREE",
		"link, then through it":  "120000 a BLOB\n40000 a TREE",
		"directory, then a link": "40000 a TREE\n120000 a BLOB",
		"twice":                  "100644 a BLOB\n100644 a BLOB",
		"submodule":              "160000 vendor/x BLOB",
		"submodule here":         "160000 vendored BLOB",
		"device":                 "20666 a BLOB",
		"long name":              "100644 " + strings.Repeat("x", 300) + " BLOB",
	} {
		t.Run(name, func(t *testing.T) {
			id := o.hostile(entries)
			m := newMirror(t)
			if _, err := m.Fetch(t.Context(), o.file(), onMain, id); err != nil {
				t.Fatal(err)
			}
			base := t.TempDir()
			dir := filepath.Join(base, "tree")
			err := m.Checkout(t.Context(), id, dir)
			if err == nil {
				t.Fatalf("it was checked out: %s", listing(t, dir))
			}
			var unfit *git.Unfit
			if !errors.As(err, &unfit) {
				t.Errorf("the error is no Unfit: %v", err)
			}
			if got := listing(t, base); got != "" {
				t.Errorf("left: %s", got)
			}
		})
	}
}

// TestTreeBombs: few objects that stand for many files, or for many bytes.
func TestTreeBombs(t *testing.T) {
	o := newOrigin(t)
	id := o.hostile("100644 a BLOB\n100644 b BLOB\n40000 c TREE\n40000 d TREE")
	m := newMirror(t)
	if _, err := m.Fetch(t.Context(), o.file(), onMain, id); err != nil {
		t.Fatal(err)
	}
	for name, limits := range map[string]git.Limits{"files": {Files: 5}, "bytes": {Tree: 15}} {
		m := git.NewMirror(filepath.Join(t.TempDir(), "mirror"), limits)
		if _, err := m.Fetch(t.Context(), o.file(), onMain, id); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "tree")
		if err := m.Checkout(t.Context(), id, dir); err == nil || !strings.Contains(err.Error(), "raise the server's limit") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := m.Checkout(t.Context(), id, filepath.Join(t.TempDir(), "tree")); err != nil {
		t.Error(err)
	}
}
