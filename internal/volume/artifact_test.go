package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registry is what a registry does for a volume: it keeps blobs by digest, and
// counts what it is sent and asked for.
type registry struct {
	blobs   map[digest.Digest][]byte
	sent    int64
	fetched atomic.Int64
}

func (r *registry) push(tb testing.TB, x *Export) ocispec.Descriptor {
	tb.Helper()
	if r.blobs == nil {
		r.blobs = map[digest.Digest][]byte{}
	}
	for _, d := range append(x.Blobs, x.Descriptor) {
		if _, have := r.blobs[d.Digest]; have {
			continue
		}
		b, err := x.Open(tb.Context(), d)
		must(tb, err)
		data, err := io.ReadAll(b)
		must(tb, err)
		if digest.FromBytes(data) != d.Digest || int64(len(data)) != d.Size {
			tb.Fatalf("blob %s has %d bytes of something else", d.Digest, len(data))
		}
		r.blobs[d.Digest] = data
		r.sent += d.Size
	}
	return x.Descriptor
}

// fetch is called by several goroutines.
func (r *registry) fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	data, ok := r.blobs[d.Digest]
	if !ok {
		return nil, errors.New("404 not found")
	}
	r.fetched.Add(int64(len(data)))
	return io.NopCloser(bytes.NewReader(data)), nil
}

func export(tb testing.TB, s *Store, ref string) *Export {
	tb.Helper()
	x, err := s.Export(tb.Context(), ref)
	must(tb, err)
	tb.Cleanup(x.Close)
	return x
}

func TestTravel(t *testing.T) {
	eachBackend(t, func(t *testing.T, s *Store) {
		dir := sample(t)
		noise := make([]byte, 9<<20)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
		clear(noise[4<<20 : 8<<20]) // a whole chunk of zeros
		put(t, dir, "ibdata1", string(noise))
		put(t, dir, "copy of ibdata1", string(noise))
		for _, name := range []string{"p", "q"} { // packs that are equal
			put(t, dir, "x"+name, strings.Repeat("x", smallFile))
		}
		v := seed(t, s, "data", dir)
		var r registry
		d := r.push(t, export(t, s, "data"))
		if again := export(t, s, "data").Descriptor; again.Digest != d.Digest {
			t.Errorf("exported twice it is %s and %s", d.Digest, again.Digest)
		}
		if r.sent > 7<<20 {
			t.Errorf("%d bytes sent; equal and empty chunks travel once or not at all", r.sent)
		}

		there := newStore(t, s.Backend())
		w, err := there.Seed(t.Context(), "data", Artifact(d, r.fetch))
		must(t, err)
		if w.ID != v.ID || w.Size != v.Size || w.Files != v.Files {
			t.Errorf("arrived as %+v, left as %+v", w, v)
		}
		same(t, "what arrived", describe(t, snapshot(t, there, "data").Dir), describe(t, dir))
		before := r.fetched.Load()
		_, err = there.Seed(t.Context(), "again", Artifact(d, r.fetch))
		must(t, err)
		if r.fetched.Load() != before {
			t.Error("what is there was fetched again")
		}
	})
}

// One MiB of a large file changes: what is sent, and what is fetched. With 200 MiB
// the figures are the same; the size is for slow machines.
func TestOnlyChangesTravel(t *testing.T) {
	const fileSize = 48 << 20
	s := newStore(t, BtrfsLoop)
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "ibdata1"))
	must(t, err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{2}), fileSize)
	must(t, err)
	for _, name := range []string{"a", "b", "c"} {
		put(t, dir, "mysql/"+name, strings.Repeat(name, 300_000))
	}
	seed(t, s, "data", dir)
	var r registry
	first := r.push(t, export(t, s, "data"))
	whole := r.sent

	_, err = f.WriteAt(bytes.Repeat([]byte("changed!"), 1<<17), fileSize/2)
	must(t, errors.Join(err, f.Close()))
	seed(t, s, "data", dir)
	second := r.push(t, export(t, s, "data"))
	changed := r.sent - whole

	there := newStore(t, BtrfsLoop)
	_, err = there.Seed(t.Context(), "data", Artifact(first, r.fetch))
	must(t, err)
	r.fetched.Store(0)
	_, err = there.Seed(t.Context(), "data", Artifact(second, r.fetch))
	must(t, err)
	_, u, err := there.Inspect(t.Context(), "data") // before a copy shares its blocks
	must(t, err)
	same(t, "the second version", describe(t, snapshot(t, there, "data").Dir), describe(t, dir))
	t.Logf("whole %.1f MB; 1 MiB changed: sent %.2f MB, fetched %.2f MB, %.1f MB of it stored anew", mb(whole), mb(changed), mb(r.fetched.Load()), mb(u.Stored-u.Shared))
	if changed > 2*chunkSize || r.fetched.Load() > 2*chunkSize {
		t.Error("more travelled than the chunks that changed")
	}
	if u.Stored-u.Shared > 3*chunkSize {
		t.Error("what did not change is stored twice")
	}
}

func mb(n int64) float64 { return float64(n) / 1e6 }

// Whatever a registry hands out, nothing but the volume that was named comes in.
func TestForgedArtifacts(t *testing.T) {
	s := newStore(t, PlainCopy)
	dir := sample(t)
	seed(t, s, "data", dir)
	var good registry
	d := good.push(t, export(t, s, "data"))
	var m ocispec.Manifest
	must(t, json.Unmarshal(good.blobs[d.Digest], &m))
	original, err := unpackListing(good.blobs[m.Layers[0].Digest])
	must(t, err)

	at := func(l *listing, path string) *listed {
		for i := range l.Entries {
			if string(l.Entries[i].Path) == path {
				return &l.Entries[i]
			}
		}
		t.Fatalf("no entry %s", path)
		return nil
	}
	for name, c := range map[string]struct {
		forge func(l *listing)
		want  string
	}{
		"path up":           {func(l *listing) { at(l, "pipe").Path = "../pipe" }, "stay inside"},
		"absolute path":     {func(l *listing) { at(l, "pipe").Path = "/etc/cron.d/x" }, "stay inside"},
		"path through":      {func(l *listing) { at(l, "pipe").Path = "sub/../../x" }, "stay inside"},
		"below a symlink":   {func(l *listing) { at(l, "sub/mysql/ibdata1").Path = "sub/link/x" }, "in no directory"},
		"twice":             {func(l *listing) { at(l, "pipe").Path = "closed" }, "twice"},
		"link to nothing":   {func(l *listing) { at(l, "sub/hard").Target = "../../etc/passwd" }, "hard link"},
		"device":            {func(l *listing) { at(l, "pipe").Kind = "char" }, "unknown kind"},
		"odd mode":          {func(l *listing) { at(l, "pipe").Mode = 0o20666 }, "out of range"},
		"part outside":      {func(l *listing) { at(l, "a file").Parts[0].At = 1 << 40 }, "outside its blob"},
		"part past the end": {func(l *listing) { at(l, "a file").Parts[0].Offset = 1 << 40 }, "do not fit"},
		"negative part":     {func(l *listing) { at(l, "a file").Parts[0].Length = -1 }, "do not fit"},
		"no such blob":      {func(l *listing) { at(l, "a file").Parts[0].Blob = 99 }, "outside its blob"},
		"huge blob":         {func(l *listing) { l.Blobs[0].Raw = 1 << 40 }, "bytes"},
		"blob of elsewhere": {func(l *listing) { l.Blobs[0].Digest = digest.FromString("x") }, "not in the manifest"},
		"future version":    {func(l *listing) { l.Version = 2 }, "version 2"},
		"no root":           {func(l *listing) { l.Entries = l.Entries[1:] }, "root"},
		"other owner":       {func(l *listing) { at(l, "a file").UID = 42 }, "makes the tree"},
		"other content":     {func(l *listing) { at(l, "a file").Parts[0].At++ }, "makes the tree"},
		"symlink instead":   {func(l *listing) { at(l, "closed").Kind = "symlink"; at(l, "closed").Target = "/etc" }, "makes the tree"},
	} {
		t.Run(name, func(t *testing.T) {
			there := newStore(t, PlainCopy)
			raw, err := json.Marshal(original)
			must(t, err)
			var l listing
			must(t, json.Unmarshal(raw, &l))
			c.forge(&l)
			d, r := forged(t, &good, m, &l)
			_, err = there.Seed(t.Context(), "data", Artifact(d, r.fetch))
			says(t, err, c.want)
			if all, err := there.List(); err != nil || len(all) > 0 {
				t.Errorf("a forged artifact made %v (%v)", names(all), err)
			}
		})
	}

	lying := registry{blobs: map[digest.Digest][]byte{}}
	for d, data := range good.blobs {
		lying.blobs[d] = data
	}
	lying.blobs[m.Layers[1].Digest] = []byte("something else")
	there := newStore(t, PlainCopy)
	_, err = there.Seed(t.Context(), "data", Artifact(d, lying.fetch))
	says(t, err, "something else", "try again")
	delete(lying.blobs, m.Layers[1].Digest)
	_, err = there.Seed(t.Context(), "data", Artifact(d, lying.fetch))
	says(t, err, "404")
	_, err = there.Seed(t.Context(), "data", Artifact(m.Config, good.fetch))
	says(t, err, "is no volume", "volumes push")
	if left, err := os.ReadDir(there.session); err != nil || len(left) != 1 {
		t.Errorf("failed imports left %v (%v)", left, err)
	}
}

// forged is an artifact that is well made but for its listing.
func forged(t *testing.T, good *registry, m ocispec.Manifest, l *listing) (ocispec.Descriptor, *registry) {
	t.Helper()
	r := &registry{blobs: map[digest.Digest][]byte{}}
	for d, data := range good.blobs {
		r.blobs[d] = data
	}
	keep := func(data []byte) ocispec.Descriptor {
		d := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
		r.blobs[d.Digest] = data
		return d
	}
	raw, err := json.Marshal(l)
	must(t, err)
	encoder, err := newEncoder()
	must(t, err)
	listing := keep(encoder.EncodeAll(raw, nil))
	listing.MediaType = listingType
	m.Layers = append([]ocispec.Descriptor{listing}, m.Layers[1:]...)
	raw, err = json.Marshal(m)
	must(t, err)
	return keep(raw), r
}

// A few bytes that unpack to very many are refused before they do.
func TestBomb(t *testing.T) {
	encoder, err := zstd.NewWriter(nil)
	must(t, err)
	bomb := encoder.EncodeAll(make([]byte, 64<<20), nil)
	decoder, err := newDecoder(maxBlob)
	must(t, err)
	d := ocispec.Descriptor{Digest: digest.FromBytes(bomb), Size: int64(len(bomb))}
	r := registry{blobs: map[digest.Digest][]byte{d.Digest: bomb}}
	_, err = fetchBlob(t.Context(), r.fetch, decoder, blob{d.Digest, d.Size, 4 << 20})
	says(t, err, "unpack")
}

func FuzzListing(f *testing.F) {
	f.Add([]byte(`{"version":1,"tree":"sha256:` + strings.Repeat("0", 64) + `","entries":[{"path":".","kind":"dir"},{"path":"a","kind":"file","size":3,"parts":[{"length":3,"blob":0}]}],"blobs":[{"digest":"sha256:` + strings.Repeat("1", 64) + `","size":9,"raw":3}]}`))
	f.Add([]byte(`{"version":1,"entries":[{"path":"base64:Li4v"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var l listing
		if json.Unmarshal(data, &l) != nil || l.check() != nil {
			return
		}
		for _, e := range l.Entries {
			if p := string(e.Path); p != "." && (!filepath.IsLocal(p) || strings.ContainsRune(p, 0)) {
				t.Errorf("path %q passed", p)
			}
		}
		for i, of := range l.pieces() {
			for _, p := range of {
				if p.At < 0 || p.At+p.Length > l.Blobs[i].Raw {
					t.Errorf("piece %+v of a blob of %d bytes passed", p, l.Blobs[i].Raw)
				}
			}
		}
		out, err := json.Marshal(l)
		must(t, err)
		var again listing
		must(t, json.Unmarshal(out, &again))
		for i := range l.Entries {
			if again.Entries[i].Path != l.Entries[i].Path {
				t.Errorf("path %q came back as %q", l.Entries[i].Path, again.Entries[i].Path)
			}
		}
	})
}
