package builder

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// A machine that was lost while the store was open leaves its databases torn.
// Its images come back all the same.
func TestLostMachine(t *testing.T) {
	o := testOptions(t)
	b := open(t, o)
	importBusybox(t, b, "busybox:1")
	r := Request{Dir: project(t, map[string]string{"Dockerfile": "FROM busybox:1\nRUN echo kept > /f\n"})}
	img := build(t, b, r).Image
	removed := build(t, b, Request{Name: "removed", Dir: project(t, map[string]string{"Dockerfile": "FROM busybox:1\nRUN echo x > /removed\n"})}).Image
	if err := b.Remove(context.Background(), "removed"); err != nil {
		t.Fatal(err)
	}
	damaged := build(t, b, Request{Name: "damaged", Dir: project(t, map[string]string{"Dockerfile": "FROM busybox:1\nRUN echo y > /damaged\n"})})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := b.manifestsAt(t, o, damaged)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(all, []byte("torn"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, db := range []string{"cache.db", "worker/containerdmeta.db", "worker/metadata_v2.db", "worker/snapshots/metadata.db"} {
		tear(t, filepath.Join(o.Root, db))
	}
	if err := os.WriteFile(openMark(o.Root), []byte("another boot\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b = open(t, o)
	if got := fileIn(t, b, img, "f"); got != "kept\n" {
		t.Errorf("/f holds %q", got)
	}
	for _, gone := range []string{"removed", "damaged"} {
		if img, err := b.Lookup(context.Background(), gone); err == nil {
			t.Errorf("%s came back as %s", gone, img.Descriptor.Digest)
		}
	}
	if _, err := b.Rootfs(context.Background(), removed, ""); err == nil {
		t.Error("a removed image came back")
	}
	again := build(t, b, r)
	if again.Image.Descriptor.Digest != img.Descriptor.Digest {
		t.Errorf("built again: %s, was %s", again.Image.Descriptor.Digest, img.Descriptor.Digest)
	}
	if _, err := os.Stat(lostDir(o.Root)); err == nil {
		t.Error("what was put aside is still there")
	}
}

// manifestsAt is the path of the top layer's blob.
func (b *Builder) manifestsAt(t *testing.T, o Options, out Output) (string, error) {
	t.Helper()
	b = open(t, o)
	all, err := b.manifests(context.Background(), out.Image.Descriptor)
	if err != nil {
		return "", err
	}
	layers := all[0].manifest.Layers
	return filepath.Join(blobDir(workerDir(o.Root)), layers[len(layers)-1].Digest.Encoded()), b.Close()
}

// tear overwrites the middle of a file.
func tear(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	junk := make([]byte, 8192)
	for i := range junk {
		junk[i] = byte(i)
	}
	if _, err := f.WriteAt(junk, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
