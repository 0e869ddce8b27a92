package registry

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func smallRootFS(t testing.TB) []byte {
	return tarOf(t, directory("./"), directory("./bin/"), file("./bin/sh", "#!"), symlink("./sh", "../../bin/sh"))
}

func configOf(t *testing.T, s store, target ocispec.Descriptor) ocispec.Image {
	t.Helper()
	var m ocispec.Manifest
	var c ocispec.Image
	if err := json.Unmarshal(s[target.Digest], &m); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(s[m.Config.Digest], &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRootFSIsTheSameImageHoweverPacked(t *testing.T) {
	raw := smallRootFS(t)
	packed := map[compression][]byte{plain: raw, gzipped: pack(t, gzipped, raw), zstded: pack(t, zstded, raw)}
	if bz, err := exec.LookPath("bzip2"); err == nil {
		cmd := exec.Command(bz)
		cmd.Stdin = bytes.NewReader(raw)
		if packed[bzipped], err = cmd.Output(); err != nil {
			t.Fatal(err)
		}
	}
	var first digest.Digest
	for c, b := range packed {
		a := mustOpen(t, writeTemp(t, b), OpenOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}})
		if a.Kind != RootFS {
			t.Errorf("%s: opened as %s", c, a.Kind)
		}
		if first == "" {
			first = a.Target.Digest
		}
		if a.Target.Digest != first {
			t.Errorf("%s: %s, want %s", c, a.Target.Digest, first)
		}
		s, err := ingest(t.Context(), a.Blobs, a.Target)
		if err != nil {
			t.Fatal(err)
		}
		got := configOf(t, s, a.Target)
		want := ocispec.Image{
			Created:  importTime(),
			Platform: ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"},
			Config:   ocispec.ImageConfig{Env: []string{defaultPath}, Cmd: []string{"/bin/sh"}},
			RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(raw)}},
			History:  []ocispec.History{{Created: importTime(), CreatedBy: "slipway images import", Comment: "imported root file system"}},
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: config\n%+v, want\n%+v", c, got, want)
		}
	}
}

func TestRootFSLayerUnpacksToTheTar(t *testing.T) {
	raw := smallRootFS(t)
	a := mustOpen(t, writeTemp(t, raw), OpenOptions{})
	s, err := ingest(t.Context(), a.Blobs, a.Target)
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(s[a.Target.Digest], &m); err != nil {
		t.Fatal(err)
	}
	z, packing, err := decompress(bytes.NewReader(s[m.Layers[0].Digest]))
	if err != nil || packing != gzipped {
		t.Fatal(packing, err)
	}
	got, err := io.ReadAll(z)
	if err != nil || !bytes.Equal(got, raw) {
		t.Errorf("layer differs from the tar (%v)", err)
	}
	if p := a.Target.Platform; p == nil || p.Architecture != runtime.GOARCH {
		t.Errorf("platform %v, want the machine's", p)
	}
}

func TestRootFSConfig(t *testing.T) {
	for name, tt := range map[string]struct {
		config Config
		want   ocispec.ImageConfig
		err    string
	}{
		"env replaces":        {config: Config{Env: []string{"A=1", "PATH=/bin", "A=2"}}, want: ocispec.ImageConfig{Env: []string{"PATH=/bin", "A=2"}, Cmd: []string{"/bin/sh"}}},
		"entrypoint, no cmd":  {config: Config{Entrypoint: []string{"/init"}}, want: ocispec.ImageConfig{Env: []string{defaultPath}, Entrypoint: []string{"/init"}}},
		"everything":          {config: Config{Cmd: []string{"a"}, Entrypoint: []string{"b"}, User: "1:2", WorkingDir: "/w"}, want: ocispec.ImageConfig{Env: []string{defaultPath}, Cmd: []string{"a"}, Entrypoint: []string{"b"}, User: "1:2", WorkingDir: "/w"}},
		"not KEY=value":       {config: Config{Env: []string{"A"}}, err: `"A" is not KEY=value`},
		"empty key":           {config: Config{Env: []string{"=x"}}, err: "is not KEY=value"},
		"relative workingdir": {config: Config{WorkingDir: "w"}, err: "write /w"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := openTemp(t, writeTemp(t, smallRootFS(t)), OpenOptions{Config: tt.config})
			if tt.err != "" {
				wantError(t, err, tt.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s, err := ingest(t.Context(), a.Blobs, a.Target)
			if err != nil {
				t.Fatal(err)
			}
			if got := configOf(t, s, a.Target).Config; !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestBadFile(t *testing.T) {
	raw := smallRootFS(t)
	gz := pack(t, gzipped, raw)
	flip := func(b []byte, at int) []byte {
		c := bytes.Clone(b)
		c[at] ^= 0xff
		return c
	}
	for name, tt := range map[string]struct {
		b    []byte
		o    OpenOptions
		want string
	}{
		"empty file":         {nil, OpenOptions{}, "the file is empty"},
		"text":               {bytes.Repeat([]byte("hello "), 300), OpenOptions{}, "neither a tar nor an OCI layout"},
		"short text":         {[]byte("hi"), OpenOptions{}, "neither a tar nor an OCI layout"},
		"xz":                 {[]byte("\xfd7zXZ\x00abc"), OpenOptions{}, "xz -dk"},
		"packed text":        {pack(t, gzipped, bytes.Repeat([]byte("hello "), 300)), OpenOptions{}, "cannot be unpacked"},
		"packed nothing":     {pack(t, gzipped, nil), OpenOptions{}, "the tar is empty"},
		"empty tar":          {tarOf(t), OpenOptions{}, "the tar is empty"},
		"cut in a file":      {tarOf(t, file("a", string(make([]byte, 5000))))[:3000], OpenOptions{}, "cut off"},
		"cut between files":  {raw[:1024], OpenOptions{}, "no end marker"},
		"cut gzip":           {gz[:len(gz)-9], OpenOptions{}, "cut off"},
		"cut gzip header":    {gz[:4], OpenOptions{}, "cut off"},
		"gzip checksum":      {flip(gz, len(gz)-6), OpenOptions{}, "cannot be unpacked"},
		"cut zstd":           {pack(t, zstded, raw)[:40], OpenOptions{}, "copy or make"},
		"bad header":         {flip(raw, 512+20), OpenOptions{}, "cannot be unpacked"},
		"leaves the root":    {tarOf(t, file("a/../../etc/passwd", "")), OpenOptions{}, "leaves the root"},
		"whiteout":           {tarOf(t, file("etc/.wh.passwd", "")), OpenOptions{}, "deletion"},
		"windows":            {raw, OpenOptions{Platform: &ocispec.Platform{OS: "windows", Architecture: "amd64"}}, "Linux root file systems only"},
		"repositories alone": {tarOf(t, file("repositories", "{}")), OpenOptions{}, "older than 1.10"},
		"layout sans index":  {tarOf(t, file("oci-layout", `{"imageLayoutVersion":"1.0.0"}`)), OpenOptions{}, "without its index.json"},
	} {
		t.Run(name, func(t *testing.T) {
			path := writeTemp(t, tt.b)
			_, err := openTemp(t, path, tt.o)
			wantError(t, err, "import "+path, tt.want)
		})
	}
	t.Run("no file", func(t *testing.T) {
		_, err := openTemp(t, t.TempDir()+"/none", OpenOptions{})
		wantError(t, err, "check the path")
	})
	t.Run("device", func(t *testing.T) {
		_, err := openTemp(t, "/dev/null", OpenOptions{})
		wantError(t, err, "not a regular file")
	})
}

// A root file system may hold files that look like an image archive's.
func TestRootFSWithMarkerFiles(t *testing.T) {
	for name, raw := range map[string][]byte{
		"manifest.json first": tarOf(t, file("manifest.json", `{"name":"a web app"}`), file("bin/sh", "")),
		"manifest.json last":  tarOf(t, file("bin/sh", ""), file("manifest.json", `[]`)),
		"packed":              pack(t, gzipped, tarOf(t, file("bin/sh", ""), file("manifest.json", `"x"`))),
	} {
		if a := mustOpen(t, writeTemp(t, raw), OpenOptions{}); a.Kind != RootFS {
			t.Errorf("%s: opened as %s", name, a.Kind)
		}
	}
}

func TestRootFSInConstantMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("packs 300 MB")
	}
	const size = 300 << 20
	path := t.TempDir() + "/big.tar"
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := w.WriteHeader(&tar.Header{Name: "big", Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
		t.Fatal(err)
	}
	noise := rand.NewChaCha8([32]byte{})
	if _, err := io.CopyN(f, noise, 30<<20); err != nil {
		t.Fatal(err)
	}
	// The rest is a hole, and the two empty blocks of the end marker.
	if err := f.Truncate(512 + size + 1024); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	a := mustOpen(t, path, OpenOptions{})
	err = walk(t.Context(), a.Blobs, a.Target, func(d ocispec.Descriptor, _ []byte) error {
		r, err := a.Blobs(t.Context(), d)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(io.Discard, r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB for a tar of %d MiB", grown>>20, size>>20)
	}
	if all := after.TotalAlloc - before.TotalAlloc; all > 64<<20 {
		t.Errorf("%d MiB were allocated for a tar of %d MiB", all>>20, size>>20)
	}
}
