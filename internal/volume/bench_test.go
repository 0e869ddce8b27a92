package volume

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// database is a directory of 500 MB like MariaDB's: few large files, many small.
func database(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	noise := rand.NewChaCha8([32]byte{3})
	write := func(name string, size int64) {
		path := filepath.Join(dir, name)
		must(tb, os.MkdirAll(filepath.Dir(path), 0o755))
		f, err := os.Create(path)
		must(tb, err)
		_, err = io.CopyN(f, noise, size)
		must(tb, errors.Join(err, f.Close()))
	}
	write("ibdata1", 80<<20)
	write("ib_logfile0", 100<<20)
	for i := range 3 {
		write(fmt.Sprintf("shop/large%d.ibd", i), 100<<20)
	}
	for i := range 150 {
		write(fmt.Sprintf("shop/t%d.ibd", i), 128<<10)
	}
	return dir
}

// A copy of a seeded database made and removed, by each backend and by cp -a.
// Run with -benchtime 20x: a copy is not to be repeated for seconds.
func BenchmarkCopy(b *testing.B) {
	dir := database(b)
	for _, backend := range []Backend{BtrfsLoop, XFSLoop, PlainCopy} {
		b.Run(string(backend), func(b *testing.B) {
			s := openStore(b, Options{Root: hostFor(b, backend), Backend: backend, Size: 4 << 30})
			v, err := s.Seed(b.Context(), "", Directory(dir, "."))
			must(b, err)
			b.Run("snapshot", func(b *testing.B) {
				for range b.N {
					c, err := s.Snapshot(b.Context(), v.ID, CopyOptions{})
					must(b, err)
					b.StopTimer()
					must(b, c.Release())
					b.StartTimer()
				}
			})
			b.Run("release", func(b *testing.B) {
				for range b.N {
					b.StopTimer()
					c, err := s.Snapshot(b.Context(), v.ID, CopyOptions{})
					must(b, err)
					b.StartTimer()
					must(b, c.Release())
				}
			})
			b.Run("seed known", func(b *testing.B) {
				for range b.N {
					_, err := s.Seed(b.Context(), "", Directory(dir, "."))
					must(b, err)
				}
			})
		})
	}
	b.Run("cp -a", func(b *testing.B) {
		to := filepath.Join(b.TempDir(), "copy")
		for range b.N {
			must(b, exec.Command("cp", "-a", dir, to).Run())
			b.StopTimer()
			must(b, os.RemoveAll(to))
			b.StartTimer()
		}
	})
}

// BenchmarkImport is what a seed costs the first time, and what a store costs to
// open and close.
func BenchmarkImport(b *testing.B) {
	dir := database(b)
	for _, backend := range []Backend{BtrfsLoop, XFSLoop, PlainCopy} {
		root := hostFor(b, backend)
		b.Run(string(backend)+"/first", func(b *testing.B) {
			s := openStore(b, Options{Root: root, Backend: backend, Size: 4 << 30})
			for range b.N {
				v, err := s.Seed(b.Context(), "", Directory(dir, "."))
				must(b, err)
				b.StopTimer()
				must(b, s.Remove(b.Context(), v.ID))
				b.StartTimer()
			}
		})
		b.Run(string(backend)+"/open and close", func(b *testing.B) {
			for range b.N {
				s, err := Open(b.Context(), Options{Root: root})
				must(b, err)
				must(b, s.Close())
			}
		})
	}
}

// BenchmarkCommit is what a database waits for: small writes, each made sure.
func BenchmarkCommit(b *testing.B) {
	for _, backend := range []Backend{BtrfsLoop, XFSLoop, PlainCopy} {
		b.Run(string(backend), func(b *testing.B) {
			s := openStore(b, Options{Root: hostFor(b, backend), Backend: backend, Size: 4 << 30})
			c, err := s.Empty(b.Context(), CopyOptions{})
			must(b, err)
			f, err := os.Create(filepath.Join(c.Dir, "wal"))
			must(b, err)
			defer f.Close()
			page := make([]byte, 16<<10)
			for i := range b.N {
				_, err := f.WriteAt(page, int64(i%1000)*int64(len(page)))
				must(b, err)
				must(b, unix.Fdatasync(int(f.Fd())))
			}
		})
	}
}
