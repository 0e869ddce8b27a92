package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// recorder is the client that BuildKit's Dockerfile frontend runs against. It
// answers from the directory and the records, solves nothing, and keeps what
// the frontend asked to have solved.
type recorder struct {
	attrs   map[string]string
	dirs    map[string]string // by BuildKit's name for a local directory
	resolve func(context.Context, string) (Image, error)

	mu       sync.Mutex
	images   map[string]Image         // by name
	byDigest map[digest.Digest]string // names of images that are named contexts
}

var _ client.Client = (*recorder)(nil)

func newRecorder(r *Request) *recorder {
	return &recorder{
		attrs: r.attrs(),
		dirs:  map[string]string{},
		resolve: func(ctx context.Context, name string) (Image, error) {
			if r.Resolve == nil {
				return Image{}, nil
			}
			return r.Resolve(ctx, name, r.Platform)
		},
		images:   map[string]Image{},
		byDigest: map[digest.Digest]string{},
	}
}

// image asks for the record of one once, and makes up a digest and an empty
// configuration where there is none, so that the frontend can go on. A made-up
// image is always unsure.
func (c *recorder) image(ctx context.Context, name string) (Image, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if img, ok := c.images[name]; ok {
		return img, nil
	}
	img, err := c.resolve(ctx, name)
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", name, err)
	}
	if (img.Digest == "" || len(img.Config) == 0) && img.Unsure == "" {
		img.Unsure = friendly(name) + " is not here yet"
	}
	if img.Digest == "" {
		img.Digest = digest.FromString("no record of " + name)
	}
	if len(img.Config) == 0 {
		img.Config = []byte(`{"os":"linux","rootfs":{"type":"layers","diff_ids":["` + img.Digest.String() + `"]}}`)
	}
	c.images[name] = img
	return img, nil
}

// friendly is a name as a person would write it.
func friendly(name string) string {
	if strings.HasPrefix(name, "image:") {
		return name
	}
	if ref, err := Normalize(name); err == nil {
		return ref.Context
	}
	return name
}

// BuildOpts implements client.Client. The capabilities are those of the
// BuildKit linked in, which is the one that builds.
func (c *recorder) BuildOpts() client.BuildOpts {
	return client.BuildOpts{
		Opts:    c.attrs,
		Workers: []client.WorkerInfo{{Platforms: []ocispec.Platform{platforms.Normalize(platforms.DefaultSpec())}}},
		Caps:    gwpb.Caps.CapSet(gwpb.Caps.All()),
		LLBCaps: pb.Caps.CapSet(pb.Caps.All()),
	}
}

// ResolveImageConfig implements client.Client.
func (c *recorder) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return sourceresolver.NewImageMetaResolver(c).ResolveImageConfig(ctx, ref, opt)
}

// ResolveSourceMetadata implements client.Client, for images only.
func (c *recorder) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	_, ref, ok := strings.Cut(op.Identifier, "://")
	if !ok {
		return nil, fmt.Errorf("source %q is no image", op.Identifier)
	}
	if opt.OCILayoutOpt != nil {
		if _, d, ok := strings.Cut(ref, "@"); ok {
			c.mu.Lock()
			ref = c.byDigest[digest.Digest(d)]
			c.mu.Unlock()
		}
	}
	img, err := c.image(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &sourceresolver.MetaResponse{
		Op:    op,
		Image: &sourceresolver.ResolveImageResponse{Digest: img.Digest, Config: img.Config},
	}, nil
}

// Solve implements client.Client: the result is the definition itself.
func (c *recorder) Solve(_ context.Context, req client.SolveRequest) (*client.Result, error) {
	if req.Frontend != "" {
		return nil, fmt.Errorf("a foreign frontend (%s) cannot be asked without building", req.Frontend)
	}
	res := client.NewResult()
	res.SetRef(&unsolved{def: req.Definition, dirs: c.dirs})
	return res, nil
}

// Inputs implements client.Client.
func (c *recorder) Inputs(context.Context) (map[string]llb.State, error) { return nil, nil }

// NewContainer implements client.Client.
func (c *recorder) NewContainer(context.Context, client.NewContainerRequest) (client.Container, error) {
	return nil, errors.New("nothing runs without building")
}

// Warn implements client.Client. Warnings belong to the build itself.
func (c *recorder) Warn(context.Context, digest.Digest, string, client.WarnOpts) error { return nil }

// unsolved is a result that is only a wish. Files can be read from it when it
// is a local directory as it stands: the Dockerfile and its ignore file.
type unsolved struct {
	def  *pb.Definition
	dirs map[string]string
}

var _ client.Reference = (*unsolved)(nil)

// open opens the local directory this result would be.
func (u *unsolved) open() (*os.Root, error) {
	ops, err := decode(u.def)
	if err != nil {
		return nil, err
	}
	name, ok := strings.CutPrefix(ops.head.op.GetSource().GetIdentifier(), "local://")
	if !ok {
		return nil, errors.New("only local directories can be read without building")
	}
	dir, ok := u.dirs[name]
	if !ok {
		return nil, fmt.Errorf("there is no local directory %q", name)
	}
	return os.OpenRoot(dir)
}

// ReadFile implements client.Reference.
func (u *unsolved) ReadFile(_ context.Context, req client.ReadRequest) ([]byte, error) {
	root, err := u.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // only read from
	data, err := fs.ReadFile(root.FS(), strings.TrimPrefix(req.Filename, "/"))
	if err != nil {
		return nil, err
	}
	if r := req.Range; r != nil {
		data = data[min(r.Offset, len(data)):]
		if r.Length > 0 {
			data = data[:min(r.Length, len(data))]
		}
	}
	return data, nil
}

// StatFile implements client.Reference.
func (u *unsolved) StatFile(_ context.Context, req client.StatRequest) (*fstypes.Stat, error) {
	root, err := u.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // only read from
	fi, err := root.Stat(strings.TrimPrefix(req.Path, "/"))
	if err != nil {
		return nil, err
	}
	return &fstypes.Stat{Path: req.Path, Size: fi.Size(), Mode: uint32(fi.Mode())}, nil
}

// ReadDir implements client.Reference.
func (u *unsolved) ReadDir(context.Context, client.ReadDirRequest) ([]*fstypes.Stat, error) {
	return nil, errors.New("directories cannot be listed without building")
}

// Evaluate implements client.Reference.
func (u *unsolved) Evaluate(context.Context) error { return nil }

// ToState implements client.Reference.
func (u *unsolved) ToState() (llb.State, error) {
	op, err := llb.NewDefinitionOp(u.def)
	if err != nil {
		return llb.State{}, err
	}
	return llb.NewState(op), nil
}
