package local

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"slipway/internal/need"
)

// writerEnv makes the test's own program a process that puts images into the
// store it names until it is killed.
const writerEnv = "SLIPWAY_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		write(dir)
	}
	os.Exit(need.Run(m))
}

func soak(normal, full int) int {
	if os.Getenv("SLIPWAY_SOAK") != "" {
		return full
	}
	return normal
}

// write puts images, referrers, uploads in pieces and tags, and says on stdout
// what is there for good.
func write(dir string) {
	var t writer
	ctx := context.Background()
	s, err := Open(dir)
	t.must(err)
	r, err := s.Repository("team/app")
	t.must(err)
	for n := 0; ; n++ {
		b := blobs{}
		d := b.image(nil, "base", rand.Text(), strings.Repeat(rand.Text(), 1<<12))
		piece := b[digestOfLayer(b)]
		u, err := r.NewUpload(ctx)
		t.must(err)
		for len(piece) > 0 {
			k := min(len(piece), 40_000)
			t.must(u.Append(ctx, -1, -1, strings.NewReader(string(piece[:k]))))
			piece = piece[k:]
		}
		t.must(u.Finish(ctx, digestOfLayer(b)))
		t.must(r.PutImage(ctx, d, Source{Open: b.open}))
		proof := b.image(&d, rand.Text())
		t.must(r.PutImage(ctx, proof, Source{Open: b.open}))
		t.must(r.Tag(ctx, "latest", d.Digest))
		fmt.Println(d.Digest)
		fmt.Println(proof.Digest)
	}
}

// digestOfLayer is the largest blob's.
func digestOfLayer(b blobs) (d digest.Digest) {
	for k, v := range b {
		if d == "" || len(v) > len(b[d]) {
			d = k
		}
	}
	return d
}

// writer stands in for a testing.T in the other process.
type writer struct{}

func (writer) must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestKilledWriters kills two processes that write to one store, at any moment.
// What they said is there is there; whatever is visible is whole; what they left
// unfinished is gone with the next Open.
func TestKilledWriters(t *testing.T) {
	var dir string
	kills, acknowledged := soak(10, 200), 0
	for n := range kills {
		if n%10 == 0 { // everything there is checked every time
			dir = t.TempDir()
		}
		var said []string
		for _, w := range []*process{start(t, dir), start(t, dir)} {
			said = append(said, w.kill(t)...)
		}
		acknowledged += len(said)
		s, err := Open(dir)
		must(t, err)
		r := repository(t, s, "team/app")
		for _, d := range said {
			if !holds(t, r, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(d)}) {
				t.Errorf("%s was acknowledged and is not there", d)
			}
		}
		check(t, s)
		if _, err := r.Resolve(t.Context(), "latest"); err != nil && len(said) > 0 {
			t.Error(err)
		}
		for _, name := range left(t, s) {
			if strings.HasPrefix(name, tempPrefix) {
				t.Errorf("left: %s", name)
			}
		}
		must(t, s.Close())
	}
	t.Logf("%d kills, %d manifests acknowledged", 2*kills, acknowledged)
	if acknowledged == 0 {
		t.Error("nothing was ever written")
	}
}

type process struct {
	*exec.Cmd
	lines *bufio.Scanner
}

func start(t *testing.T, dir string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), writerEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	return &process{cmd, bufio.NewScanner(out)}
}

// kill waits for a first line, then a moment, and gives the lines that came.
func (p *process) kill(t *testing.T) (said []string) {
	t.Helper()
	if p.lines.Scan() {
		said = append(said, p.lines.Text())
	}
	time.Sleep(mathrand.N(60 * time.Millisecond))
	must(t, p.Process.Kill())
	for p.lines.Scan() {
		said = append(said, p.lines.Text())
	}
	if err := p.Wait(); p.ProcessState.ExitCode() != -1 {
		t.Fatalf("the writer ended by itself: %v", err)
	}
	return said
}
