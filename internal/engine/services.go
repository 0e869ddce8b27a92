package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"slipway/internal/store"
	"slipway/pipeline"
)

// fetches are the images of services that this pipeline does not build. Each
// reference is asked for once in a run, from its beginning: its tag may name
// another image a moment later, and the download goes on beside the builds.
type fetches struct {
	cancel context.CancelFunc
	of     map[string]*fetch // by reference
	work   sync.WaitGroup
}

type fetch struct {
	done chan struct{} // closed when the rest is set
	got  Fetched
	err  error
}

// fetchAll begins to fetch what the tests of the plan may need.
func (c *conductor) fetchAll(ctx context.Context) {
	ctx, c.fetches.cancel = context.WithCancel(ctx)
	c.fetches.of = map[string]*fetch{}
	for _, task := range c.plan.Tasks {
		if task.Skip != "" {
			continue
		}
		for _, s := range c.plan.ServicesOf(task) {
			if _, ours := ofPipeline(s); ours || c.fetches.of[s.Image] != nil {
				continue
			}
			f := &fetch{done: make(chan struct{})}
			c.fetches.of[s.Image] = f
			c.fetches.work.Go(func() {
				defer close(f.done)
				told := c.tellFetch(s.Image)
				for range own + 1 {
					f.got, f.err = c.fetch(ctx, s.Image)
					if f.err == nil || ctx.Err() != nil {
						break
					}
				}
				told(f)
			})
		}
	}
}

// tellFetch shows a fetch that takes longer than one notices. The caller calls
// what it gives at the end.
func (c *conductor) tellFetch(reference string) func(*fetch) {
	started := time.Now()
	step := pipeline.Step{ID: "fetch " + reference, Name: "fetch " + reference, Started: &started}
	tell := func() {
		c.Progress(pipeline.Progress{Task: "services", Steps: []pipeline.Step{step}})
	}
	begun := make(chan struct{})
	timer := time.AfterFunc(quiet, func() {
		defer close(begun)
		tell()
	})
	return func(f *fetch) {
		if timer.Stop() {
			return
		}
		<-begun
		ended := time.Now()
		step.Completed, step.Error = &ended, f.got.Failure
		if f.err != nil {
			step.Error = f.err.Error()
		}
		tell()
	}
}

// quiet is how long a fetch goes on before it is shown.
const quiet = 300 * time.Millisecond

// stop ends what is still being fetched: nobody waits for it any more.
func (f *fetches) stop() {
	f.cancel()
	f.work.Wait()
}

// ofPipeline gives the task that builds a service's image, if this pipeline does.
func ofPipeline(s pipeline.Service) (task string, ours bool) {
	return strings.CutPrefix(s.Image, "image:")
}

// unfetchable is the user's failure: a service whose image nobody has.
type unfetchable struct{ service, image, why string }

func (u *unfetchable) Error() string {
	return fmt.Sprintf("service %s: fetch its image %s: %s", u.service, u.image, u.why)
}

// servicesOf gives the services of a test with their images, by key. images are
// those of this pipeline, by task ID.
func (c *conductor) servicesOf(ctx context.Context, task pipeline.Task, images map[string]pipeline.Image) (map[string]Service, error) {
	services := map[string]Service{}
	for key, s := range c.plan.ServicesOf(task) {
		if id, ours := ofPipeline(s); ours {
			services[key] = Service{s, images[id]}
			continue
		}
		f := c.fetches.of[s.Image]
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if f.err != nil {
			return nil, fmt.Errorf("service %s: fetch its image %s: %w", s.Name, s.Image, f.err)
		}
		if f.got.Failure != "" {
			return nil, &unfetchable{s.Name, s.Image, f.got.Failure}
		}
		services[key] = Service{s, f.got.Image}
	}
	return services, nil
}

// servicesKnown are the digests that a forecast knows the services of a test by,
// under their keys, and the name of one whose image only a registry can tell.
func (f *forecaster) servicesKnown(task pipeline.Task) (digests map[string]digest.Digest, unknown string) {
	digests = map[string]digest.Digest{}
	all := f.plan.ServicesOf(task)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if _, ours := ofPipeline(all[key]); ours {
			continue // its digest stands among those of the builds
		}
		if digests[key] = f.Known(all[key].Image); digests[key] == "" {
			unknown = all[key].Name
		}
	}
	return digests, unknown
}

// fetchedDigests gives the digests of those that this pipeline does not build.
func fetchedDigests(services map[string]Service) map[string]digest.Digest {
	digests := map[string]digest.Digest{}
	for key, s := range services {
		if _, ours := ofPipeline(s.Service); !ours {
			digests[key] = s.From.Descriptor.Digest
		}
	}
	return digests
}

// serviceRecords tell which services ran beside a test.
func serviceRecords(services map[string]Service) []store.Service {
	var records []store.Service
	for _, key := range slices.Sorted(maps.Keys(services)) {
		s := services[key]
		records = append(records, store.Service{Name: s.Name, Image: s.Image, Digest: s.From.Descriptor.Digest.String()})
	}
	return records
}
