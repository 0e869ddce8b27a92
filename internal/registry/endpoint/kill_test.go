package endpoint

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/need"
	"slipway/internal/registry"
	"slipway/internal/registry/local"
)

// serverEnv makes the test's own program a registry over the store it names.
const serverEnv = "SLIPWAY_TEST_SERVER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(serverEnv); dir != "" {
		s, err := local.Open(dir)
		if err == nil {
			var l net.Listener
			if l, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
				fmt.Println(l.Addr())
				err = http.Serve(l, New(Options{Store: s})) //nolint:gosec // it lives for a moment
			}
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(need.Run(m))
}

// TestKilledServer kills the registry while three clients push to it. Every
// image that a client was told is there can be pulled from the next one, with
// its proof; every tag names a whole image.
func TestKilledServer(t *testing.T) {
	kills, acknowledged := 5, 0
	if os.Getenv("SLIPWAY_SOAK") != "" {
		kills = 200
	}
	var dir string
	for n := range kills {
		if n%10 == 0 { // everything there is checked every time
			dir = t.TempDir()
		}
		said := pushUntilKilled(t, dir)
		acknowledged += len(said)
		s, err := local.Open(dir)
		must(t, err)
		checkAll(t, s, said)
		must(t, s.Close())
	}
	t.Logf("%d kills, %d images acknowledged", kills, acknowledged)
	if acknowledged == 0 {
		t.Error("nothing was ever pushed")
	}
}

func pushUntilKilled(t *testing.T, dir string) (said []digest.Digest) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), serverEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var clients sync.WaitGroup
	first := make(chan struct{})
	var once sync.Once
	for range 3 {
		clients.Go(func() {
			for ctx.Err() == nil {
				d, err := pushOne(ctx, strings.TrimSpace(line)+"/team/app")
				if err != nil {
					return
				}
				mu.Lock()
				said = append(said, d)
				mu.Unlock()
				once.Do(func() { close(first) })
			}
		})
	}
	<-first
	time.Sleep(mathrand.N(100 * time.Millisecond))
	must(t, cmd.Process.Kill())
	cancel()
	clients.Wait()
	_ = cmd.Wait() // "signal: killed" is what is wanted
	return said
}

// pushOne pushes an image that nobody has pushed, tags it and attaches a proof.
func pushOne(ctx context.Context, repository string) (digest.Digest, error) {
	var all registry.Registries
	defer all.Close()
	r, err := all.Repository(repository)
	if err != nil {
		return "", err
	}
	blobs := map[digest.Digest][]byte{}
	put := func(mediaType string, b []byte) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
		blobs[d.Digest] = b
		return d
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: put(ocispec.MediaTypeImageConfig, []byte(config)),
		Layers: []ocispec.Descriptor{put(ocispec.MediaTypeImageLayer, []byte(strings.Repeat(rand.Text(), 1<<14)))},
	}
	doc, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	d := put(m.MediaType, doc)
	open := func(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(string(blobs[d.Digest]))), nil
	}
	if _, err := registry.Push(ctx, open, d, r, registry.CopyOptions{}); err != nil {
		return "", err
	}
	if err := r.Tag(ctx, "t-"+d.Digest.Encoded()[:12], d.Digest); err != nil {
		return "", err
	}
	_, err = registry.Attach(ctx, r, registry.Artifact{Subject: d, Type: "application/x", Data: []byte(d.Digest)})
	return d.Digest, err
}

// checkAll copies everything to another store, which checks every byte.
func checkAll(t *testing.T, s *local.Store, said []digest.Digest) {
	t.Helper()
	all, other := registry.Registries{Local: s}, registry.Registries{Local: openStore(t, t.TempDir())}
	from, err := all.Repository("team/app")
	must(t, err)
	to, err := other.Repository("copy")
	must(t, err)
	tags, err := from.Tags(t.Context())
	must(t, err)
	for _, tag := range tags {
		d, err := from.Resolve(t.Context(), tag)
		if err == nil {
			_, err = registry.Copy(t.Context(), from, d, to, registry.CopyOptions{})
		}
		if err != nil {
			t.Errorf("tag %s: %v", tag, err)
		}
	}
	for _, d := range said {
		if ok, err := to.Has(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d}); !ok {
			t.Errorf("%s was acknowledged and is not there: %v", d, err)
		}
		if proofs, err := to.Referrers(t.Context(), d, "application/x"); len(proofs) != 1 {
			t.Errorf("%s has %d proofs, %v", d, len(proofs), err)
		}
	}
}
