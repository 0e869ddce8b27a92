package registry

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzOpenFile: whatever a file holds, it is an image whose every blob can be
// read, or an error; nothing stays in the temporary directory.
func FuzzOpenFile(f *testing.F) {
	s := store{}
	desc := s.image(f, "amd64", "one")
	for _, export := range []exporter{layoutTar, ExportArchive} {
		p := filepath.Join(f.TempDir(), "seed")
		must(f, export(f.Context(), s.blobs, desc, p, ExportOptions{Name: "app"}))
		b, err := os.ReadFile(p)
		must(f, err)
		f.Add(b)
		f.Add(pack(f, gzipped, b))
	}
	entries, m, _ := saved(f, "app:v1", "one", "one")
	f.Add(savedTar(f, entries, m))
	f.Add(smallRootFS(f))
	f.Add(pack(f, zstded, smallRootFS(f)))
	f.Add([]byte("BZh9"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := openTemp(t, writeTemp(t, b), OpenOptions{Image: "app"})
		if err != nil {
			return
		}
		if _, err := ingest(t.Context(), a.Blobs, a.Target); err != nil && a.Kind == RootFS {
			t.Errorf("an image made here does not read: %v", err)
		}
	})
}
