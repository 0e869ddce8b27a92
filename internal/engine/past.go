package engine

import (
	"context"
	"strings"

	"github.com/opencontainers/go-digest"

	"slipway/internal/store"
	"slipway/pipeline"
)

// Past is an earlier attempt at the same plan: what of it this one does not do
// again. What was signed of that stands, and is not signed anew.
type Past struct {
	Run      string                   // its ID
	Images   map[string]digest.Digest // by task ID: not built again
	Services map[string]digest.Digest // by reference: what the name stood for
	Tests    map[string]PastTest      // by task ID: not run again on that image
}

// PastTest is a test that passed.
type PastTest struct {
	Image digest.Digest
	Test  store.Test
	At    store.Run // that it was a part of
}

// Passed are the tests that passed in a run, by task ID.
func Passed(run store.Run, plan pipeline.Plan) map[string]PastTest {
	all := map[string]PastTest{}
	each(run, plan, func(task pipeline.Task, im store.Image, t *store.Test) {
		if t != nil && t.State == pipeline.Passed {
			all[task.ID] = PastTest{digest.Digest(im.Digest), *t, run}
		}
	})
	return all
}

// Used are the images that a run built, by task ID, and those of services, by reference.
func Used(run store.Run, plan pipeline.Plan) (built, services map[string]digest.Digest) {
	built, services = map[string]digest.Digest{}, map[string]digest.Digest{}
	each(run, plan, func(task pipeline.Task, im store.Image, t *store.Test) {
		switch {
		case t == nil && im.Digest != "":
			built[task.ID] = digest.Digest(im.Digest)
		case t != nil:
			for _, s := range t.Services {
				services[s.Image] = digest.Digest(s.Digest)
			}
		}
	})
	return built, services
}

// each gives the tasks of a plan with what a run says of them; t is nil for a build.
func each(run store.Run, plan pipeline.Plan, do func(task pipeline.Task, im store.Image, t *store.Test)) {
	images := map[string]store.Image{}
	for _, im := range run.Images {
		images[owner(pipeline.Task{Image: im.Name, Matrix: im.Matrix})] = im
	}
	for _, task := range plan.Tasks {
		im, known := images[owner(task)]
		switch {
		case !known:
		case task.Kind == pipeline.BuildTask:
			do(task, im, nil)
		default:
			for i := range im.Tests {
				if im.Tests[i].Name == task.Test.Name {
					do(task, im, &im.Tests[i])
				}
			}
		}
	}
}

// past takes over what an earlier attempt at a test came to, if it was on the same image.
func (c *conductor) past(task pipeline.Task, image pipeline.Image, out *outcome) bool {
	p, ok := c.opt.Past.Tests[task.ID]
	if !ok || p.Image != image.Descriptor.Digest {
		return false
	}
	run := c.opt.Past.Run
	if p.Test.ReusedFrom != "" {
		run = p.Test.ReusedFrom
	}
	c.reuse(task, store.PassedTest{Run: run, Test: p.Test, At: p.At.Started}, out)
	out.past, out.attestation = true, digest.Digest(p.Test.Attestation)
	return true
}

// fetch brings the image that a service names: with an earlier attempt the one
// that the name stood for then.
func (c *conductor) fetch(ctx context.Context, reference string) (Fetched, error) {
	got, err := c.Fetch(ctx, reference)
	want := c.opt.Past.Services[reference]
	if err != nil || want == "" || got.Failure == "" && got.Image.Descriptor.Digest == want {
		return got, err
	}
	name := reference
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	return c.Fetch(ctx, name+"@"+want.String())
}
