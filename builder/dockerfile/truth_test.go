package dockerfile_test

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"slipway/builder"
	"slipway/builder/dockerfile"
	"slipway/internal/need"
	"slipway/pipeline"
)

var (
	edits = flag.Int("edits", 20, "random edits in TestPredictionsAreTrue")
	seed  = flag.Uint64("seed", 1, "of the random edits")
)

// tally counts predictions of steps against what BuildKit did.
type tally struct{ right, wrong, unknown int }

// TestPredictionsAreTrue edits a project at random, predicts the next build and
// compares each step with BuildKit's own word. A prediction may be that only
// building tells; it may not be wrong.
func TestPredictionsAreTrue(t *testing.T) {
	b := openBuilder(t)
	p := newProject(t, b)
	rnd := rand.New(rand.NewPCG(*seed, 0))
	built := map[digest.Digest]digest.Digest{}
	var before []dockerfile.Step
	var steps, images tally
	kinds := p.kinds()
	count := *edits
	if os.Getenv("SLIPWAY_SOAK") != "" {
		count = max(count, 200)
	}
	for i := range count + 1 {
		what := "the first build"
		if i > 0 {
			k := kinds[rnd.IntN(len(kinds))]
			what = k.name
			p.build.NoCache = false // for one build only
			k.do(rnd)
		}
		now, final, err := dockerfile.Steps(t.Context(), p.forecast())
		if err != nil {
			t.Fatalf("edit %d, %s: %v", i, what, err)
		}
		known := func(d digest.Digest) bool { _, ok := built[d]; return ok }
		said := dockerfile.Predict(now, final, known, before)
		out, err := b.Build(t.Context(), p.request())
		if err != nil {
			t.Fatalf("edit %d, %s: predicted %s, but the build fails: %v\n%s", i, what, said.State, err, p.dockerfile())
		}
		if !compare(t, &steps, i, what, said, out.Steps) {
			for _, v := range said.Steps {
				t.Logf("  predicted %+v", v)
			}
			for _, s := range out.Steps {
				t.Logf("  BuildKit: %s cached=%v started=%v", s.Name, s.Cached, s.Started != nil)
			}
		}
		compareImage(t, &images, i, what, said, out, built[final.Key])
		for _, s := range now {
			built[s.Key], built[s.Loose] = "", ""
		}
		built[final.Key] = out.Image.Descriptor.Digest
		before = now
	}
	t.Logf("%d edits: steps %d right, %d wrong, %d unknown; images %d right, %d wrong, %d unknown", count,
		steps.right, steps.wrong, steps.unknown, images.right, images.wrong, images.unknown)
}

// What Steps refuses cannot be built either.
func TestRefusalsAreTrue(t *testing.T) {
	b := openBuilder(t)
	p := newProject(t, b)
	good := p.dockerfile()
	for _, tc := range []struct{ name, file string }{
		{"a missing file", good + "COPY nowhere /\n"},
		{"an ignored file", good + "COPY README.md /\n"},
		{"a missing file of a mount", good + "RUN --mount=type=bind,source=nowhere,target=/x true\n"},
		{"a way out of the context", good + "COPY ../secret /\n"},
		{"syntax", "FROM busybox:1\nRUNN x\n"},
	} {
		p.write("Dockerfile", tc.file)
		_, _, err := dockerfile.Steps(t.Context(), p.forecast())
		var se *dockerfile.SyntaxError
		if !errors.As(err, &se) {
			t.Errorf("%s: Steps says %v", tc.name, err)
		}
		if raceDetector {
			continue
		}
		var be *builder.BuildError
		if _, err := b.Build(t.Context(), p.request()); !errors.As(err, &be) {
			t.Errorf("%s: the build says %v", tc.name, err)
		}
	}
}

func compare(t *testing.T, n *tally, i int, what string, said dockerfile.Prediction, did []pipeline.Step) (ok bool) {
	t.Helper()
	ok = true
	ran := map[string]bool{}
	for _, s := range did {
		ran[s.Name] = ran[s.Name] || s.Started != nil && !s.Cached
	}
	for _, v := range said.Steps {
		if strings.HasPrefix(v.Step, "[context ") {
			continue // an image by digest is looked up, not built
		}
		switch {
		case v.State == dockerfile.Unknown:
			n.unknown++
		case ran[v.Step] == (v.State == dockerfile.Rebuilt):
			n.right++
		default:
			n.wrong++
			ok = false
			t.Errorf("edit %d, %s: %s was predicted %s (%s), but ran=%v", i, what, v.Step, v.State, v.Reason, ran[v.Step])
		}
	}
	return ok
}

// compareImage also holds a recorded digest to its word.
func compareImage(t *testing.T, n *tally, i int, what string, said dockerfile.Prediction, out builder.Output, recorded digest.Digest) {
	t.Helper()
	got := out.Image.Descriptor.Digest
	if recorded != "" && said.State != dockerfile.Unknown && recorded != got {
		t.Errorf("edit %d, %s: the image was predicted to be %s again, and is %s", i, what, recorded, got)
	}
	switch {
	case said.State == dockerfile.Unknown:
		n.unknown++
	case said.State == dockerfile.Cached && (!out.Cached || recorded != got), said.State == dockerfile.Rebuilt && out.Cached && recorded == got:
		n.wrong++
		t.Errorf("edit %d, %s: the image was predicted %s (%s), but BuildKit says cached=%v", i, what, said.State, said.Reason, out.Cached)
	default:
		n.right++
	}
}

func TestMain(m *testing.M) {
	for k, v := range builder.Environment() {
		if err := os.Setenv(k, v); err != nil {
			panic(err)
		}
	}
	flag.Parse()
	os.Exit(need.Run(m))
}

// resolve answers from what the project imported.
func (p *project) resolve(_ context.Context, name, _ string) (dockerfile.Image, error) {
	img, ok := p.images[name]
	if !ok {
		return dockerfile.Image{}, nil
	}
	return dockerfile.Image{Digest: img.Descriptor.Digest, Config: p.configs[img.Descriptor.Digest], Imported: true}, nil
}
