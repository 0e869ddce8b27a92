package git

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// Checkout writes the files of a commit into dir, which it makes: the names, bytes
// and modes that `git checkout` of a fresh clone gives with git's own settings and
// a umask of 022, with the ends of lines that .gitattributes asks for. Symbolic links are written as the commit has them, wherever they
// lead; whoever reads dir takes care not to follow one out of it. Nothing is
// written outside dir. The error is an *Unfit where the commit has what no build
// should get; then, and after any other error, dir is gone.
func (m *Mirror) Checkout(ctx context.Context, commit, dir string) (err error) {
	store := m.open()
	defer func() { _ = store.Close() }() // only read from
	c, err := commitIn(store, commit)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("check out %.12s: %w", commit, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	out := &checkout{store: store, commit: commit, limits: m.limits, buf: make([]byte, 128<<10)}
	return errors.Join(out.tree(ctx, c.TreeHash, "", root, nil), root.Close())
}

// Unfit says what of a commit cannot be checked out, and what to do.
type Unfit struct {
	Commit string
	Path   string
	reason string
}

func (u *Unfit) Error() string {
	return fmt.Sprintf("commit %.12s: %q: %s", u.Commit, u.Path, u.reason)
}

// checkout writes the files of one commit.
type checkout struct {
	store  *filesystem.Storage
	commit string
	limits Limits
	files  int
	bytes  int64
	buf    []byte
}

func (c *checkout) unfit(at, format string, args ...any) error {
	return &Unfit{Commit: c.commit, Path: at, reason: fmt.Sprintf(format, args...)}
}

// maxPath is what the kernel takes (PATH_MAX), less room for where dir is.
const maxPath = 3072

func (c *checkout) tree(ctx context.Context, id plumbing.Hash, at string, dir *os.Root, known *attributes) error {
	tree, err := object.GetTree(c.store, id)
	if err != nil {
		return fmt.Errorf("read the directory %q of %.12s: %w", at, c.commit, err)
	}
	if known, err = c.attributes(tree, at, known); err != nil {
		return err
	}
	seen := make(map[string]bool, len(tree.Entries))
	for _, e := range tree.Entries {
		name := path.Join(at, e.Name)
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if why := badName(e.Name); why != "" {
			return c.unfit(at+"/"+e.Name, "%s; remove it from the commit", why)
		}
		if seen[e.Name] {
			return c.unfit(name, "it is there twice; make the commit with git")
		}
		seen[e.Name] = true
		if c.files++; c.files > c.limits.Files {
			return c.unfit(name, "the commit has more than %d files and directories; raise the server's limit for this repository", c.limits.Files)
		}
		if len(name) > maxPath {
			return c.unfit(name, "its path is longer than %d bytes; shorten it", maxPath)
		}
		if err := c.entry(ctx, e, name, dir, known); err != nil {
			return err
		}
	}
	return nil
}

func (c *checkout) entry(ctx context.Context, e object.TreeEntry, at string, dir *os.Root, known *attributes) error {
	switch e.Mode {
	case filemode.Dir:
		if err := dir.Mkdir(e.Name, 0o755); err != nil {
			return err
		}
		if err := dir.Chmod(e.Name, 0o755); err != nil { // whatever the umask is
			return err
		}
		sub, err := dir.OpenRoot(e.Name)
		if err != nil {
			return err
		}
		return errors.Join(c.tree(ctx, e.Hash, at, sub, known), sub.Close())
	case filemode.Regular, filemode.Deprecated:
		return c.file(e, at, dir, 0o644, conversionOf(known.of(at)))
	case filemode.Executable:
		return c.file(e, at, dir, 0o755, conversionOf(known.of(at)))
	case filemode.Symlink:
		return c.link(e, at, dir)
	case filemode.Submodule:
		return c.unfit(at, "it is a submodule, whose files are in another repository; copy them in with git subtree, or let the Dockerfile fetch them")
	default:
		return c.unfit(at, "its mode %s is none that git writes; make the commit with git", e.Mode)
	}
}

func (c *checkout) blob(e object.TreeEntry, at string) (*object.Blob, error) {
	blob, err := object.GetBlob(c.store, e.Hash)
	if err != nil {
		return nil, fmt.Errorf("read %q of %.12s: %w", at, c.commit, err)
	}
	if c.bytes += blob.Size; c.bytes > c.limits.Tree {
		return nil, c.unfit(at, "with it, the files of the commit have more than %d bytes; raise the server's limit for this repository", c.limits.Tree)
	}
	return blob, nil
}

// lfsPointer is how the stand-in for a large file begins, which has fewer than
// maxPointer bytes (the specification of Git LFS). A build would get it in the
// file's place without a word.
const (
	lfsPointer = "version https://git-lfs.github.com/spec/v1\n"
	maxPointer = 1024
)

func (c *checkout) file(e object.TreeEntry, at string, dir *os.Root, mode os.FileMode, how conversion) (err error) {
	blob, err := c.blob(e, at)
	if err != nil {
		return err
	}
	in, err := blob.Reader()
	if err != nil {
		return fmt.Errorf("read %q of %.12s: %w", at, c.commit, err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	body := bufio.NewReaderSize(in, 1<<10)
	if start, _ := body.Peek(len(lfsPointer)); blob.Size < maxPointer && string(start) == lfsPointer { // an error is met again below
		return c.unfit(at, "it is a pointer of Git LFS, whose file is elsewhere; commit the file itself, or let the Dockerfile fetch it")
	}
	content, size := io.Reader(body), blob.Size
	if how.refuse != "" {
		return c.unfit(at, "%s", how.refuse)
	}
	if how.crlf || how.ident {
		data, err := c.converted(blob, body, at, how)
		if err != nil {
			return err
		}
		content, size = bytes.NewReader(data), int64(len(data))
	}
	f, err := dir.OpenFile(e.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{content}, c.buf)
	if err == nil && n != size {
		err = fmt.Errorf("read %q of %.12s: %w", at, c.commit, io.ErrUnexpectedEOF)
	}
	if err == nil {
		err = f.Chmod(mode) // whatever the umask is
	}
	return errors.Join(err, f.Close())
}

// converted reads a blob and gives what is written of it.
func (c *checkout) converted(blob *object.Blob, body io.Reader, at string, how conversion) ([]byte, error) {
	if blob.Size > c.limits.Object {
		return nil, c.unfit(at, "it has more than %d bytes, too many for what its .gitattributes asks for (eol, ident); set -text for it", c.limits.Object)
	}
	data, err := io.ReadAll(body)
	if err == nil && int64(len(data)) != blob.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read %q of %.12s: %w", at, c.commit, err)
	}
	if how.ident && bytes.Contains(data, []byte("$Id")) {
		return nil, c.unfit(at, "its .gitattributes has git write the file's ID for $Id$ (ident), which slipway does not; remove the attribute or the word")
	}
	return how.convert(data), nil
}

// attributes reads the .gitattributes of a directory, on top of those above it.
// Like git it does not look behind a symbolic link.
func (c *checkout) attributes(tree *object.Tree, at string, above *attributes) (*attributes, error) {
	i := slices.IndexFunc(tree.Entries, func(e object.TreeEntry) bool { return e.Name == ".gitattributes" })
	if i < 0 || !tree.Entries[i].Mode.IsFile() || tree.Entries[i].Mode == filemode.Symlink {
		return above, nil
	}
	blob, err := object.GetBlob(c.store, tree.Entries[i].Hash)
	if err != nil {
		return nil, fmt.Errorf("read %q of %.12s: %w", path.Join(at, ".gitattributes"), c.commit, err)
	}
	in, err := blob.Reader()
	if err != nil {
		return nil, fmt.Errorf("read %q of %.12s: %w", path.Join(at, ".gitattributes"), c.commit, err)
	}
	text, err := io.ReadAll(io.LimitReader(in, maxAttributes+1))
	return above.below(at, text), errors.Join(err, in.Close())
}

// maxLink is what the kernel takes for the text of a symbolic link.
const maxLink = 4095

func (c *checkout) link(e object.TreeEntry, at string, dir *os.Root) error {
	blob, err := c.blob(e, at)
	if err != nil {
		return err
	}
	if blob.Size > maxLink || blob.Size == 0 {
		return c.unfit(at, "it is a symbolic link of %d bytes; a link has from 1 to %d", blob.Size, maxLink)
	}
	in, err := blob.Reader()
	if err != nil {
		return fmt.Errorf("read %q of %.12s: %w", at, c.commit, err)
	}
	to, err := io.ReadAll(in)
	if err = errors.Join(err, in.Close()); err != nil {
		return fmt.Errorf("read %q of %.12s: %w", at, c.commit, err)
	}
	if bytes.IndexByte(to, 0) >= 0 {
		return c.unfit(at, "it is a symbolic link with a zero byte; make the commit with git")
	}
	return dir.Symlink(string(to), e.Name)
}
