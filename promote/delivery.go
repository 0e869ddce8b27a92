package promote

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"slipway/pipeline"
)

// Deliverer brings images to where an environment runs. What follows holds for
// every kind, and deliverytest.Run checks it.
type Deliverer interface {
	// Check says what is wrong with a delivery's configuration. It is asked before
	// anything changes, and changes nothing.
	Check(ctx context.Context, d Delivery) error
	// Deliver makes the environment run what d says, and nothing else of it. It
	// may be cut off anywhere and called again with the same or another delivery:
	// the last one counts. Where all is so already it does nothing. It returns when
	// the environment has taken the change up, not when it is known to be healthy;
	// what it says on the way goes to out.
	Deliver(ctx context.Context, d Delivery, out io.Writer) error
	// Status says what runs. It changes nothing, and asks the place itself, never
	// what was delivered last.
	Status(ctx context.Context, d Delivery) (Status, error)
}

// Delivery is what is to run in an environment: the digests that were promoted,
// and the configuration that this environment gives them.
type Delivery struct {
	Environment string
	Promotion   string // ID of the promotion that asks for it
	Commit      string // of the environment file
	Images      []DeliveredImage
	Variables   map[string]string          // plain configuration
	Secrets     map[string]pipeline.Secret // where values are found; whoever starts a process reads them, and nobody keeps them
	Config      map[string]any             // of the kind, as the environment file has it under deliver
	// Beside reads a file next to the environment file (an age-encrypted secret, say).
	Beside func(name string) ([]byte, error)
}

// DeliveredImage is one image of a delivery.
type DeliveredImage struct {
	Name       string        // in the environment file
	Repository string        // where it is pulled from; a name without a host is in the root's own store
	Digest     digest.Digest // empty: it is not to run
	Previous   digest.Digest // what was to run before; may be empty
}

// Status is what an environment runs.
type Status struct {
	Known  bool // false: nobody can tell (the commit is all there is)
	Images []ImageStatus
}

// ImageStatus is what runs of one image.
type ImageStatus struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest,omitempty"` // that really runs; empty: none does
	State  string        `json:"state"`            // "running", "starting", "unhealthy", "stopped", "declared"
	Detail string        `json:"detail,omitempty"` // a sentence, where there is more to say
}

// written is the kind of an environment without deliver: its file is all.
type written struct{}

func (written) Check(context.Context, Delivery) error              { return nil }
func (written) Deliver(context.Context, Delivery, io.Writer) error { return nil }
func (written) Status(context.Context, Delivery) (Status, error)   { return Status{}, nil }

// delivery is what a file says is to run, and ran before.
func delivery(f File, previous map[string]digest.Digest, promotion string, s State) Delivery {
	d := Delivery{
		Environment: f.Environment.Name, Promotion: promotion, Commit: s.Commit,
		Variables: f.Environment.Environment, Secrets: f.Environment.Secrets, Config: f.Environment.Deliver.Config,
		Beside: func(name string) ([]byte, error) { return s.beside(f, name) },
	}
	for _, name := range sorted(f.Environment.Images) {
		im := f.Environment.Images[name]
		d.Images = append(d.Images, DeliveredImage{name, repositoryOf(name, im), im.Digest, previous[name]})
	}
	return d
}

// repositoryOf is where an environment keeps an image: in its own repository, or
// in the root's store under the image's name.
func repositoryOf(name string, im pipeline.EnvironmentImage) string {
	if im.Repository != "" {
		return im.Repository
	}
	return name
}
